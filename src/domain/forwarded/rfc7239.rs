//! The field `Forwarded` (RFC 7239), read strictly.
//!
//! A line is a list of elements, an element a list of pairs, and commas may stand in quotes: so a line that is malformed
//! at one place has no certain meaning after it, and ends there as an element that says nothing.
//!
//! Invariant: what is borrowed from a line never holds an escape, a quote or a comma.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One hop's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Element<'a> {
    /// Who the hop got the request from; `None` if it does not say, or hides it.
    pub(super) node: Option<IpAddr>,
    /// How that one spoke.
    pub(super) proto: Option<&'a [u8]>,
    /// What that one sent as Host.
    pub(super) host: Option<&'a [u8]>,
}

/// The elements of a line; `None`, at most once and last, where it stops making sense.
pub(super) fn elements(line: &[u8]) -> impl Iterator<Item = Option<Element<'_>>> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        loop {
            let from = skip_blanks(rest.take()?);
            match from {
                [] => return None,
                // An empty element of the list.
                [b',', after @ ..] => rest = Some(after),
                _ => break element(from),
            }
        }
        .map(|(element, after)| {
            rest = Some(after);
            Some(element)
        })
        .or(Some(None))
    })
}

/// Reads one element and the comma behind it.
fn element(mut rest: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (mut element, mut seen) = (Element::default(), [false; 4]);
    loop {
        rest = skip_blanks(rest);
        if !matches!(rest, [] | [b',' | b';', ..]) {
            let (name, value, after) = pair(rest)?;
            const NAMES: [&str; 4] = ["for", "proto", "host", "by"];
            if let Some(at) = NAMES.iter().position(|known| name.eq_ignore_ascii_case(known.as_bytes())) {
                // Each at most once (section 4).
                if std::mem::replace(&mut seen[at], true) {
                    return None;
                }
                match at {
                    0 => element.node = node(value)?,
                    1 => element.proto = Some(value),
                    2 => element.host = Some(value),
                    _ => {}
                }
            }
            rest = skip_blanks(after);
        }
        match rest {
            [] => return Some((element, rest)),
            [b',', after @ ..] => return Some((element, after)),
            [b';', after @ ..] => rest = after,
            _ => return None,
        }
    }
}

/// Reads `name=token` or `name="text"`.
fn pair(rest: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = token(rest)?;
    let rest = rest.strip_prefix(b"=")?;
    let Some(quoted) = rest.strip_prefix(b"\"") else {
        let (value, rest) = token(rest)?;
        return Some((name, value, rest));
    };
    let end = quoted.iter().position(|byte| *byte == b'"')?;
    let value = &quoted[..end];
    // An escape never has a reason in an address or a host, and would make the quote's end a matter of opinion.
    let plain = |byte: &u8| (b' '..=b'~').contains(byte) && !matches!(byte, b'\\' | b',');
    value.iter().all(plain).then(|| (name, value, &quoted[end + 1..]))
}

/// RFC 9110 section 5.6.2.
fn token(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let end = rest.iter().position(|byte| !fits(byte)).unwrap_or(rest.len());
    (end > 0).then(|| rest.split_at(end))
}

fn skip_blanks(rest: &[u8]) -> &[u8] {
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &rest[blanks..]
}

/// A node (section 6): `Some(None)` for one that hides itself, `None` for what is not a node.
fn node(value: &[u8]) -> Option<Option<IpAddr>> {
    let text = std::str::from_utf8(value).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, rest) = rest.split_once(']')?;
        let ip: Ipv6Addr = inside.parse().ok()?;
        return is_port(rest).then(|| Some(IpAddr::V6(ip).to_canonical()));
    }
    let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
    if !is_port(port) {
        return None;
    }
    if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) {
        return Some(None);
    }
    name.parse::<Ipv4Addr>().ok().map(|ip| Some(IpAddr::V4(ip)))
}

/// Nothing, or a colon and up to five digits, or a colon and a name of its own.
fn is_port(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|port| {
            is_obfuscated(port) || ((1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()))
        })
}

fn is_obfuscated(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.len() > 1 && text.starts_with('_') && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(line: &str) -> Vec<Option<Option<IpAddr>>> {
        elements(line.as_bytes()).map(|element| element.map(|element| element.node)).collect()
    }

    #[test]
    fn lines_are_read() {
        let ip = |text: &str| Some(Some(text.parse().unwrap()));
        let table = [
            ("for=192.0.2.43", vec![ip("192.0.2.43")]),
            ("FOR=\"192.0.2.43:47011\"", vec![ip("192.0.2.43")]),
            ("For=\"[2001:db8:cafe::17]:4711\"", vec![ip("2001:db8:cafe::17")]),
            ("for=\"[::ffff:192.0.2.1]\"", vec![ip("192.0.2.1")]),
            ("for=192.0.2.43, for=198.51.100.17", vec![ip("192.0.2.43"), ip("198.51.100.17")]),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", vec![ip("192.0.2.60")]),
            ("proto=http ; for=192.0.2.60;", vec![ip("192.0.2.60")]),
            ("for=unknown, for=_hidden;x=y, for=\"_a:_b\"", vec![Some(None); 3]),
            ("proto=https", vec![Some(None)]),
            (",, for=192.0.2.1 ,", vec![ip("192.0.2.1")]),
            ("", vec![]),
            (" , ", vec![]),
        ];
        for (line, expected) in table {
            assert_eq!(nodes(line), expected, "{line}");
        }
        let line = b"for=192.0.2.1;host=\"a.example:80\";proto=https";
        let element = elements(line).next().flatten().unwrap();
        assert_eq!((element.host, element.proto), (Some(&b"a.example:80"[..]), Some(&b"https"[..])));
    }

    #[test]
    fn what_is_malformed_ends_its_line() {
        let lines = [
            "for",
            "for=",
            "=192.0.2.1",
            "for=192.0.2.1:80",
            "for=[::1]",
            "for=\"::1\"",
            "for=\"[::1\"",
            "for=\"[::1]x\"",
            "for=\"192.0.2.1",
            "for=\"192.0.2.1\\\"\"",
            "for=\"192.0.2.1, for=198.51.100.1\"",
            "for=192.0.2.1;for=192.0.2.2",
            "for=192.0.2.1 for=192.0.2.2",
            "for =192.0.2.1",
            "for= 192.0.2.1",
            "for=192.0.2.256",
            "for=\"192.0.2.1:123456\"",
            "for=_",
            "for=\"_a b\"",
            "for=\"192.0.2.1\u{e9}\"",
        ];
        for line in lines {
            let with_more = format!("{line}, for=203.0.113.9");
            assert_eq!(nodes(line), [None], "{line}");
            // The quote swallows the comma, or the malformed element comes first: nothing after it is believed.
            assert_eq!(nodes(&with_more), [None], "{with_more}");
        }
        assert_eq!(nodes("for=192.0.2.1, x").len(), 2);
    }
}
