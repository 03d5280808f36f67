//! Where Teal meets its surroundings: Unix sockets, the PROXY protocol, trusted forwarders, and the DNS.
//!
//! Invariant: nobody is believed who was not named.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::address::{InvalidAddress, socket_path};
use super::file::socket;
use super::report::Problem;
use super::section::{Section, Value};
use crate::domain::forwarded::{Style, Trust};
use crate::domain::network::{Network, Networks};
use crate::domain::proxy_protocol::Version;

pub(super) const PROXY_PROTOCOL: &[&str] = &["trusted", "strict"];
pub(super) const RESOLVER: &[&str] = &["servers", "timeout", "ttl_floor", "ttl_ceiling", "family"];

/// Networks of one list: each is compared with every client that connects.
const MAX_NETWORKS: usize = 64;
/// Name servers: more are never asked.
const MAX_SERVERS: usize = 8;
/// Who may connect to a Unix socket unless the file says otherwise: its owner and group.
const DEFAULT_MODE: u32 = 0o660;
/// Where name servers listen (RFC 1035 section 4.2).
const DNS_PORT: u16 = 53;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// IP address and port; port 0 is any.
    Tcp(SocketAddr),
    /// A socket of this machine.
    Unix(UnixSocket),
}

/// A Unix socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// Absolute.
    pub path: PathBuf,
    /// The file's permissions: who may write to it may connect.
    pub mode: u32,
}

impl From<SocketAddr> for Bind {
    fn from(address: SocketAddr) -> Bind {
        Bind::Tcp(address)
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Tcp(address) => address.fmt(f),
            Bind::Unix(socket) => write!(f, "unix:{}", socket.path.display()),
        }
    }
}

/// Whose word a listener takes on where a connection comes from (the PROXY protocol, version 1 or 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Who must send a header: a connection from here without one is closed. A Unix socket's peer is 127.0.0.1.
    pub trusted: Networks,
    /// Everybody else is turned away; otherwise served as who their sockets say they are.
    pub strict: bool,
}

/// What a listener with the PROXY protocol does with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// It must say whose connection it is.
    Header,
    /// It speaks for itself.
    Plain,
    /// It is turned away.
    Nothing,
}

impl ProxyProtocol {
    /// What is expected of a peer.
    pub fn expects(&self, peer: IpAddr) -> Expectation {
        match self.trusted.contains(peer) {
            true => Expectation::Header,
            false if self.strict => Expectation::Nothing,
            false => Expectation::Plain,
        }
    }
}

/// Which of a name's addresses become endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Resolve {
    /// Each, one endpoint per address.
    #[default]
    All,
    /// One, which is kept as long as the name has it.
    First,
}

/// How names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// Name servers; none means the system's, with its search domains. `/etc/hosts` counts either way.
    pub servers: Vec<SocketAddr>,
    /// For one question to one server.
    pub timeout: Duration,
    /// An answer is kept at least this long, whatever its TTL.
    pub ttl_floor: Duration,
    /// An answer is kept at most this long.
    pub ttl_ceiling: Duration,
    /// Which addresses of a name count.
    pub family: Family,
}

/// Which addresses of a name count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Family {
    /// Those of IPv4; of IPv6 if there are none.
    #[default]
    Ipv4First,
    /// Those of IPv6; of IPv4 if there are none.
    Ipv6First,
    /// All: a server with an address of each kind is two endpoints.
    Both,
}

impl Default for Resolver {
    fn default() -> Resolver {
        Resolver {
            servers: Vec::new(),
            timeout: 2 * SECOND,
            ttl_floor: SECOND,
            ttl_ceiling: 5 * MINUTE,
            family: Family::default(),
        }
    }
}

/// Reads where a listener is: an address, or `unix:/path`; `mode` only goes with the latter.
pub(super) fn bind(value: Value<'_>, mode: Option<Value<'_>>) -> Option<Bind> {
    let text = value.text("an address such as `0.0.0.0:8080`, or `unix:/run/teal.sock`")?;
    let bind = match text.trim().strip_prefix("unix:") {
        None => Bind::Tcp(socket(value)?),
        Some(path) => match socket_path(path) {
            Ok(path) => Bind::Unix(UnixSocket { path, mode: mode.map_or(Some(DEFAULT_MODE), permissions)? }),
            Err(error @ InvalidAddress::Socket) => {
                return value.refuse(value.problem("bad_value", format!("`{}`: {error}", value.name)));
            }
            Err(_) => return None,
        },
    };
    if let (Bind::Tcp(_), Some(mode)) = (&bind, mode) {
        let problem =
            Problem::new("conflict", mode.at, "`mode` says who may connect to a Unix socket, and this is none");
        return value.refuse(problem.help("leave it out, or write `address: unix:/run/teal.sock`"));
    }
    Some(bind)
}

/// `"0660"`: octal, as chmod has it.
fn permissions(value: Value<'_>) -> Option<u32> {
    let expected = "permissions such as `\"0660\"`";
    let text = value.text(expected)?;
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| digits && *mode <= 0o777);
    // Without the owner's own bits nobody at all could connect.
    mode.filter(|mode| mode & 0o200 != 0).or_else(|| {
        let problem = value.problem("bad_value", format!("`{}` needs {expected}", value.name));
        value.refuse(problem.help("three octal digits, with or without a zero before them; the owner may always write"))
    })
}

/// Reads a listener's `proxy_protocol`: `off`, or who is trusted.
pub(super) fn received(value: Value<'_>) -> Option<Option<ProxyProtocol>> {
    if value.is("off") {
        return Some(None);
    }
    if !value.is_mapping() {
        return value.wrong_type("`off`, or who sends it: `{ trusted: 10.0.0.0/8 }`");
    }
    let section = value.section(PROXY_PROTOCOL)?;
    let trusted = section.required("trusted", "write `trusted: 10.0.0.0/8`: whose word counts", networks);
    let strict = section.or("strict", true, Value::boolean);
    let trusted = trusted?;
    if trusted.is_empty() {
        let problem =
            Problem::new("conflict", value.at, "whoever sends the PROXY protocol must be trusted, and nobody is");
        return value.refuse(problem.help("name its networks, or write `proxy_protocol: off`"));
    }
    Some(Some(ProxyProtocol { trusted, strict }))
}

/// Reads a pool's `proxy_protocol`: `off`, or the version that is sent.
pub(super) fn sent(value: Value<'_>) -> Option<Option<Version>> {
    value.choice(&[("off", None), ("v1", Some(Version::V1)), ("v2", Some(Version::V2))])
}

/// Reads a pool's `resolve`.
pub(super) fn resolve(value: Value<'_>) -> Option<Resolve> {
    value.choice(&[("all", Resolve::All), ("first", Resolve::First)])
}

/// Reads whom a client section trusts, and by which fields.
pub(super) fn trust(section: &Section<'_>) -> Trust {
    let styles = [("x-forwarded", Style::XForwarded), ("forwarded", Style::Forwarded)];
    Trust {
        networks: section.or("trusted", Networks::default(), networks),
        style: section.or("forwarded_by", Style::default(), |v| v.choice(&styles)),
    }
}

fn networks(value: Value<'_>) -> Option<Networks> {
    let expected = "a network such as `10.0.0.0/8`";
    if let super::yaml::Kind::List(items) = &value.node.kind
        && items.is_empty()
    {
        return Some(Networks::default());
    }
    let items = value.one_or_more(MAX_NETWORKS, "networks such as `10.0.0.0/8`, or a list of them")?;
    let networks: Vec<Option<Network>> = items.into_iter().map(|item| item.parsed(expected)).collect();
    networks.into_iter().collect()
}

/// Reads how names are looked up.
pub(super) fn resolver(value: Value<'_>) -> Option<Resolver> {
    let section = value.section(RESOLVER)?;
    let default = Resolver::default();
    let families = [("ipv4_first", Family::Ipv4First), ("ipv6_first", Family::Ipv6First), ("both", Family::Both)];
    let resolver = Resolver {
        servers: section.or("servers", default.servers, servers),
        timeout: section.or("timeout", default.timeout, |v| v.duration(SECOND / 100..=MINUTE)),
        ttl_floor: section.or("ttl_floor", default.ttl_floor, |v| v.duration(SECOND..=HOUR)),
        ttl_ceiling: section.or("ttl_ceiling", default.ttl_ceiling, |v| v.duration(SECOND..=24 * HOUR)),
        family: section.or("family", default.family, |v| v.choice(&families)),
    };
    if resolver.ttl_floor > resolver.ttl_ceiling {
        let problem = Problem::new("conflict", value.at, "`ttl_floor` is above `ttl_ceiling`");
        return value.refuse(problem.help("the floor is 1s and the ceiling 5m unless given"));
    }
    Some(resolver)
}

/// `system`, or name servers: IP addresses with or without a port.
fn servers(value: Value<'_>) -> Option<Vec<SocketAddr>> {
    if value.is("system") {
        return Some(Vec::new());
    }
    let expected = "the IP address of a name server, such as `127.0.0.1:5353`";
    let items = value.one_or_more(MAX_SERVERS, "`system`, or name servers such as `127.0.0.1:5353`")?;
    let server = |item: Value<'_>| {
        let text = item.text(expected)?;
        let text = text.trim();
        let alone = || text.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, DNS_PORT));
        let address = text.parse().ok().or_else(alone).filter(|address: &SocketAddr| address.port() > 0);
        address.or_else(|| {
            let problem = item.problem("bad_value", format!("`{}` needs {expected}", item.name));
            item.refuse(problem.help("a name would have to be looked up first"))
        })
    };
    let servers: Vec<_> = items.into_iter().map(server).collect();
    servers.into_iter().collect()
}
