//! Upstream addresses, `http://host:port`, from the text that files and command lines hold.
//!
//! Invariant: an [`Address`] that was read can be written into a `Host` field and looked up as it is.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::settings::Address;

/// Why a text is not an upstream address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// `https://`.
    #[error("upstream TLS is not supported yet: use `http://`")]
    Tls,
    /// No scheme, or another one.
    #[error("an address begins with `http://`, such as http://10.0.0.1:8080")]
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
}

/// What a scheme alone means (RFC 9110 section 4.2.1).
const DEFAULT_PORT: u16 = 80;

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Address, InvalidAddress> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidAddress::Scheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => return Err(InvalidAddress::Tls),
            _ => return Err(InvalidAddress::Scheme),
        }
        // A lone slash is the empty path, as browsers' address bars copy it.
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('@') {
            return Err(InvalidAddress::User);
        }
        if authority.contains(['/', '?', '#', '\\']) {
            return Err(InvalidAddress::Path);
        }
        let (host, port) = split_port(authority)?;
        Ok(Address { tls: false, host: host_of(host)?, port: port.map_or(Ok(DEFAULT_PORT), port_of)? })
    }
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
    if !fits || text.len() > 253 {
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
        ];
        for (text, written) in table {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), written);
            assert_eq!(written.parse(), Ok(address));
        }
    }

    #[test]
    fn what_is_not_an_address_says_why() {
        use InvalidAddress::{Brackets, Host, Path, Port, Scheme, Tls, User};
        let table = [
            ("https://shop", Tls),
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
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }
}
