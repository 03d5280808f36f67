//! `teal proxy`: two pools without a configuration file.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use super::failure::Failure;
use crate::config::settings::{
    AccessLog, Address, Admin, Client, Listen, Pool, Resolver, Secret, Service, Settings, Shutdown, State,
};

/// The one service's name.
const SERVICE: &str = "default";

/// What `proxy` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Nothing is kept between two runs; `teal run` keeps it.\n\n\
    Example:\n  teal proxy --blue http://127.0.0.1:3001 --green http://127.0.0.1:3002\n  \
    teal deploy default --to green --wait")]
pub(super) struct Arguments {
    /// Endpoints of the pool that serves first, comma-separated
    #[arg(long, value_name = "URL", env = "TEAL_BLUE", required = true, value_delimiter = ',')]
    blue: Vec<Address>,
    /// Endpoints of the other pool, comma-separated
    #[arg(long, value_name = "URL", env = "TEAL_GREEN", required = true, value_delimiter = ',')]
    green: Vec<Address>,
    /// Where clients connect
    #[arg(long, value_name = "ADDRESS", env = "TEAL_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where the admin API listens; off loopback it needs --token
    #[arg(long, value_name = "ADDRESS", env = "TEAL_ADMIN_LISTEN", default_value = "127.0.0.1:9900")]
    admin_listen: SocketAddr,
}

/// The settings it means.
///
/// # Errors
/// When an endpoint is named twice in a pool, or the admin API would be open to the network.
pub(super) fn settings(arguments: Arguments, token: Option<String>) -> Result<Settings, Failure> {
    let Arguments { blue, green, listen, admin_listen, .. } = arguments;
    if token.is_none() && !admin_listen.ip().is_loopback() {
        let open = format!("--admin-listen {admin_listen} is open to the network: give a token with --token");
        return Err(Failure::Usage(open));
    }
    let pools = vec![pool("blue", blue)?, pool("green", green)?];
    Ok(Settings {
        listen: vec![Listen::plain(listen)],
        admin: Some(Admin { listen: admin_listen, token: token.map(Secret::new) }),
        state: State::Ephemeral,
        workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        access_log: AccessLog::default(),
        client: Client::default(),
        resolver: Resolver::default(),
        shutdown: Shutdown::default(),
        services: vec![Service::new(SERVICE.to_owned(), pools)],
    })
}

fn pool(name: &str, endpoints: Vec<Address>) -> Result<Pool, Failure> {
    let twice = endpoints.iter().enumerate().find(|(index, endpoint)| endpoints[..*index].contains(endpoint));
    let mixed = endpoints.iter().any(|endpoint| endpoint.tls != endpoints[0].tls);
    match twice {
        Some((_, endpoint)) => Err(Failure::Usage(format!("--{name} names {endpoint} twice"))),
        None if mixed => Err(Failure::Usage(format!("--{name}: either all endpoints are https or none is"))),
        None => Ok(Pool::new(name, endpoints)),
    }
}
