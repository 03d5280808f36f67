//! Upstream addresses, from the text that files and command lines hold: `http://host:port`, `https://host:port`,
//! `unix:/path` and `srv:_http._tcp.name`.
//!
//! Invariant: an [`Address`] that was read can be written into a `Host` field, looked up or connected to as it is, and
//! its text reads as the same address again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An upstream address as it was configured.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// `https`: spoken to over TLS.
    pub tls: bool,
    /// Where it is, or where that is looked up.
    pub place: Place,
}

/// Where an upstream is, or where that is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A host and a TCP port.
    Host {
        /// A name or an IP literal (without brackets), in lower case.
        host: String,
        /// Never zero.
        port: u16,
    },
    /// A Unix socket; the path is absolute.
    Unix(PathBuf),
    /// Hosts and ports are in the SRV records of this name (RFC 2782), `_http._tcp.app.internal`.
    Srv(String),
}

/// Why a text is not an upstream address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// No scheme, or another one.
    #[error("an address begins with `http://`, `https://`, `unix:` or `srv:`, such as http://10.0.0.1:8080")]
    Scheme,
    /// `user@host`.
    #[error("an address holds no user name or password")]
    User,
    /// Something after the port.
    #[error("an address is only host and port: leave out path, query and fragment")]
    Path,
    /// `::1` without brackets.
    #[error("an IPv6 address stands in brackets, such as http://[::1]:8080")]
    Brackets,
    /// Neither a name nor an IP address.
    #[error("the host is neither a DNS name nor an IP address")]
    Host,
    /// Not 1 to 65535.
    #[error("the port is a number from 1 to 65535")]
    Port,
    /// Not what a Unix socket may be bound to.
    #[error("a Unix socket has an absolute path of at most 107 bytes, such as unix:/run/app.sock")]
    Socket,
    /// Not a service's name.
    #[error("a service is looked up as `srv:_http._tcp.NAME`, or `srv:_https._tcp.NAME` for TLS")]
    Service,
}

/// What a scheme alone means (RFC 9110 sections 4.2.1 and 4.2.2).
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
/// Bytes of a Unix socket's path: what Linux's `sun_path` holds beside the closing NUL.
const LONGEST_PATH: usize = 107;
/// Characters of a DNS name as text (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 253;

impl Address {
    /// An address without TLS.
    pub fn http(host: impl Into<String>, port: u16) -> Address {
        Address { tls: false, place: Place::Host { host: host.into(), port } }
    }

    /// The name or IP literal it goes by: what a certificate is checked against. A Unix socket has none but this
    /// machine's.
    pub fn host(&self) -> &str {
        match &self.place {
            Place::Host { host, .. } => host,
            Place::Unix(_) => "localhost",
            Place::Srv(name) => name.splitn(3, '.').nth(2).unwrap_or(name),
        }
    }

    /// What a `Host` field has for it: `host:port` where there is a port.
    pub fn authority(&self) -> String {
        match &self.place {
            Place::Host { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Place::Host { host, port } => format!("{host}:{port}"),
            Place::Unix(_) | Place::Srv(_) => self.host().to_owned(),
        }
    }

    /// True if it must be looked up in the DNS.
    pub fn is_name(&self) -> bool {
        match &self.place {
            Place::Host { host, .. } => host.parse::<IpAddr>().is_err(),
            Place::Unix(_) => false,
            Place::Srv(_) => true,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Host { .. } => write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority()),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
            Place::Srv(name) => write!(f, "srv:{name}"),
        }
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Address, InvalidAddress> {
        let scheme_is = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        if scheme_is("unix:") {
            return Ok(Address { tls: false, place: Place::Unix(socket_path(&text["unix:".len()..])?) });
        }
        if scheme_is("srv:") {
            return service(&text["srv:".len()..]);
        }
        let (scheme, rest) = text.split_once("://").ok_or(InvalidAddress::Scheme)?;
        let (tls, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (false, HTTP_PORT),
            "https" => (true, HTTPS_PORT),
            _ => return Err(InvalidAddress::Scheme),
        };
        // A lone slash is the empty path, as browsers' address bars copy it.
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('@') {
            return Err(InvalidAddress::User);
        }
        if authority.contains(['/', '?', '#', '\\']) {
            return Err(InvalidAddress::Path);
        }
        let (host, port) = split_port(authority)?;
        let place = Place::Host { host: host_of(host)?, port: port.map_or(Ok(default_port), port_of)? };
        Ok(Address { tls, place })
    }
}

/// The path of a Unix socket. Relative ones would depend on where Teal is started.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, InvalidAddress> {
    let fits = text.starts_with('/') && !text.ends_with('/') && text.len() <= LONGEST_PATH;
    if fits && !text.contains(char::is_control) { Ok(Path::new(text).into()) } else { Err(InvalidAddress::Socket) }
}

fn service(name: &str) -> Result<Address, InvalidAddress> {
    let name = name.to_ascii_lowercase();
    let tls = match name.split('.').next() {
        Some("_http") => false,
        Some("_https") => true,
        _ => return Err(InvalidAddress::Service),
    };
    let domain = name.split_once("._tcp.").map(|(_, domain)| domain).ok_or(InvalidAddress::Service)?;
    let fits = name.splitn(3, '.').nth(2) == Some(domain) && domain.parse::<IpAddr>().is_err();
    if !fits || name.len() > LONGEST_NAME || host_of(domain).is_err() {
        return Err(InvalidAddress::Service);
    }
    Ok(Address { tls, place: Place::Srv(name) })
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), InvalidAddress> {
    if let Some(end) = authority.find(']').filter(|_| authority.starts_with('[')) {
        let (host, rest) = authority.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(InvalidAddress::Host),
        };
    }
    match authority.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Err(InvalidAddress::Brackets),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((authority, None)),
    }
}

fn port_of(text: &str) -> Result<u16, InvalidAddress> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0).ok_or(InvalidAddress::Port)
}

fn host_of(text: &str) -> Result<String, InvalidAddress> {
    if let Some(inside) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return inside.parse::<Ipv6Addr>().map(|ip| ip.to_string()).map_err(|_| InvalidAddress::Host);
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    // A name never ends in a number, so what does is an IPv4 address or a slip (RFC 1123 section 2.1).
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    let fits = if numeric { text.parse::<Ipv4Addr>().is_ok() } else { name.split('.').all(label) };
    if !fits || text.len() > LONGEST_NAME {
        return Err(InvalidAddress::Host);
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        let table = [
            ("http://127.0.0.1:3001", "http://127.0.0.1:3001"),
            ("http://Shop-Blue.internal", "http://shop-blue.internal:80"),
            ("HTTP://shop:8080/", "http://shop:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[2001:DB8:0::1]", "http://[2001:db8::1]:80"),
            ("http://shop.svc.cluster.local.:1", "http://shop.svc.cluster.local.:1"),
            ("unix:/run/App.sock", "unix:/run/App.sock"),
            ("UNIX:/run/app sock", "unix:/run/app sock"),
            ("srv:_http._tcp.App.internal", "srv:_http._tcp.app.internal"),
            ("SRV:_HTTPS._TCP.app", "srv:_https._tcp.app"),
            ("https://Shop", "https://shop:443"),
            ("HTTPS://[::1]:8443/", "https://[::1]:8443"),
        ];
        for (text, written) in table {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), written);
            assert_eq!(written.parse(), Ok(address));
        }
    }

    #[test]
    fn what_is_not_an_address_says_why() {
        use InvalidAddress::{Brackets, Host, Path, Port, Scheme, Service, Socket, User};
        let table = [
            ("shop:8080", Scheme),
            ("ftp://shop", Scheme),
            ("", Scheme),
            ("http://", Host),
            ("http://:80", Host),
            ("http://a b", Host),
            ("http://a..b", Host),
            ("http://300.1.1.1", Host),
            ("http://1.2.3", Host),
            ("http://[::zz]:1", Host),
            ("http://[::1]x", Host),
            ("http://::1", Brackets),
            ("http://u:p@h", User),
            ("http://h/api", Path),
            ("http://h?x", Path),
            ("http://h//", Path),
            ("http://h:", Port),
            ("http://h:0", Port),
            ("http://h:65536", Port),
            ("http://h:+1", Port),
            ("http://h:1x", Port),
            ("unix:run/app.sock", Socket),
            ("unix:", Socket),
            ("unix:/run/", Socket),
            ("unix:///run/app\n.sock", Socket),
            ("srv:app.internal", Service),
            ("srv:_http.app.internal", Service),
            ("srv:_http._udp.app", Service),
            ("srv:_http._tcp", Service),
            ("srv:_http._tcp.", Service),
            ("srv:_http._tcp.10.0.0.1", Service),
            ("srv:_http.x._tcp.app", Service),
            ("srv:_grpc._tcp.app", Service),
            ("srv:_http._tcp.a:80", Service),
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
        let long = |length: usize| format!("unix:/{}", "x".repeat(length - 1));
        assert_eq!(long(LONGEST_PATH + 1).parse::<Address>(), Err(Socket));
        assert!(long(LONGEST_PATH).parse::<Address>().is_ok());
    }

    #[test]
    fn every_address_has_a_name_and_an_authority() {
        let table = [
            ("http://[::1]:80", "::1", "[::1]:80", false),
            ("http://10.0.0.1:81", "10.0.0.1", "10.0.0.1:81", false),
            ("http://shop", "shop", "shop:80", true),
            ("unix:/run/a.sock", "localhost", "localhost", false),
            ("srv:_http._tcp.app.internal", "app.internal", "app.internal", true),
        ];
        for (text, host, authority, is_name) in table {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.host(), &*address.authority(), address.is_name()), (host, authority, is_name));
        }
    }
}
