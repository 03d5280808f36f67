//! `teal fault SVC`: injects faults for a drill, shows them, ends them.

use std::time::Duration;

use http::Method;
use http::header::HeaderMap;

use super::client::{Client, path};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::{parse, text};
use crate::control::admin::wire::{ActiveFaults, Fault, Faults, Matches, Ordered};
use crate::domain::split::Share;

/// What `fault` is told. Without anything it shows what is injected.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    teal fault shop --pool green --abort 503 --share 10% --for 5m\n  \
    teal fault shop --delay 200ms --share 100% --path /api --for 1m\n  \
    teal fault shop                          what is injected now\n  \
    teal fault shop --off")]
pub(super) struct Arguments {
    /// The service
    #[arg(value_name = "SVC")]
    service: String,
    /// Only requests of this pool; without, of every one
    #[arg(long, value_name = "POOL", env = "TEAL_FAULT_POOL", requires = "lasts")]
    pool: Option<String>,
    /// How many of them
    #[arg(long, value_name = "SHARE", env = "TEAL_FAULT_SHARE", requires = "lasts")]
    share: Option<Share>,
    /// Answer them with this status, 400 to 599
    #[arg(long, value_name = "STATUS", env = "TEAL_FAULT_ABORT", requires = "lasts")]
    abort: Option<u16>,
    /// Let them wait first, up to 1m
    #[arg(long, value_name = "DURATION", env = "TEAL_FAULT_DELAY", value_parser = parse::duration, requires = "lasts")]
    delay: Option<Duration>,
    /// Only requests below this path
    #[arg(long, value_name = "PREFIX", env = "TEAL_FAULT_PATH", requires = "lasts")]
    path: Option<String>,
    /// Only requests with this header
    #[arg(long, value_name = "NAME=VALUE", env = "TEAL_FAULT_HEADER", value_parser = header, requires = "lasts")]
    header: Vec<(String, String)>,
    /// How long, up to 1h: a drill has an end
    #[arg(
        id = "lasts",
        long = "for",
        value_name = "DURATION",
        env = "TEAL_FAULT_FOR",
        value_parser = parse::duration,
        requires = "share"
    )]
    lasts: Option<Duration>,
    /// End what is injected
    #[arg(long, env = "TEAL_FAULT_OFF", conflicts_with = "lasts", action = clap::ArgAction::SetTrue)]
    off: bool,
}

/// Injects, shows or ends.
pub(super) async fn run(arguments: Arguments, client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    let path = path(&["services", &arguments.service, "faults"]);
    let active: ActiveFaults = match (arguments.off, arguments.order()) {
        (true, _) => client.send(Method::DELETE, &path, &(), HeaderMap::new()).await?,
        (false, Some(fault)) => {
            client.send(Method::PUT, &path, &Faults { faults: vec![fault] }, HeaderMap::new()).await?
        }
        (false, None) => client.get(&path).await?,
    };
    output.show(&active, |active| text::faults(&arguments.service, &active.faults))?;
    Ok(Exit::Done)
}

impl Arguments {
    /// The fault that is asked for, if one is.
    fn order(&self) -> Option<Fault> {
        let (lasts, share) = (self.lasts?, self.share?);
        let written = |time: Duration| humantime::format_duration(time).to_string();
        let matches = Matches { path: self.path.clone(), methods: Vec::new(), header: Ordered(self.header.clone()) };
        Some(Fault {
            name: None,
            pool: self.pool.clone(),
            matches: (matches != Matches::default()).then_some(matches),
            share: share.to_string(),
            delay: self.delay.map(written),
            abort: self.abort,
            lasts: written(lasts),
        })
    }
}

/// Reads `NAME=VALUE`.
fn header(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
    let (name, value) = pair.ok_or("write NAME=VALUE, such as x-team=payments")?;
    Ok((name.to_owned(), value.to_owned()))
}
