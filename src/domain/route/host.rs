//! Hosts: what a service may claim, and which text can be a host at all.
//!
//! Invariant: a pattern is lower case, has no port, and is at most [`LONGEST`] bytes long.

use std::fmt;

/// Bytes of a host name (RFC 1035 section 2.3.4).
pub(super) const LONGEST: usize = 253;

/// A host to match: `shop.example.com`, `*.example.com`, lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this name.
    Exact(String),
    /// Any name below this suffix; held without the `*`, with the dot: `.example.com`.
    Below(String),
}

/// Why a text is not a host pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a host is a name such as shop.example.com, or *.example.com; no scheme, port or path")]
pub struct InvalidHost;

impl std::str::FromStr for HostPattern {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<HostPattern, InvalidHost> {
        let (wild, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if !is_host(name) || (wild && name.starts_with('[')) {
            return Err(InvalidHost);
        }
        let name = name.to_ascii_lowercase();
        Ok(if wild { HostPattern::Below(format!(".{name}")) } else { HostPattern::Exact(name) })
    }
}

/// A name or a bracketed IPv6 address, without a port.
pub(super) fn is_host(name: &str) -> bool {
    let plain = || name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let labels = || !name.split('.').any(str::is_empty);
    let bracketed = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    name.len() <= LONGEST
        && match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => plain() && labels(),
        }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_schemes_ports_or_empty_labels_are_refused() {
        for text in ["http://x", "x:80", "", "*.", "a..b", "*", "a/b", "*.*.b", "[::zz]", "*.[::1]", "x."] {
            assert_eq!(text.parse::<HostPattern>(), Err(InvalidHost), "{text}");
        }
        assert_eq!("[::1]".parse(), Ok(HostPattern::Exact("[::1]".into())));
        assert_eq!("*.X.org".parse(), Ok(HostPattern::Below(".x.org".into())));
    }
}
