//! Who the client is when other proxies stand in front, and what upstreams are told about it.
//!
//! What a peer says about where a request came from is believed only if the peer itself is trusted; then the client is
//! the right-most address of the chain that is not trusted, since everything left of it was written by that client.
//! One style of fields is read, the one the trusted hops write: a balancer that writes `X-Forwarded-For` passes a
//! client's own `Forwarded` on untouched, so whoever read both would believe the client.
//!
//! Of `X-Forwarded-Proto`, `-Host` and `-Port` the last value counts: it is the trusted peer's own word, whether that peer
//! replaces what it got or appends to it.
//!
//! Invariants: without trust no field is looked at; nothing is allocated to decide; a malformed claim is no claim.

mod rfc7239;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use crate::domain::network::Networks;
use crate::domain::route::Scheme;

/// Who may say where a request came from, and how.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Trust {
    /// The peers that are believed; none by default.
    pub networks: Networks,
    /// The fields they write.
    pub style: Style,
}

/// The fields that trusted hops write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Style {
    /// `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`, or else `X-Real-IP`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// A field that says where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `X-Forwarded-For`.
    For,
    /// `X-Forwarded-Proto`.
    Proto,
    /// `X-Forwarded-Host`.
    Host,
    /// `X-Forwarded-Port`.
    Port,
    /// `Forwarded`.
    Forwarded,
    /// `X-Real-IP`.
    RealIp,
}

/// What a request says about where it came from.
pub trait Claims {
    /// The lines of a field in the order of the head.
    fn lines(&self, field: Field) -> impl Iterator<Item = &[u8]>;
}

/// What is known at first hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop<'a> {
    /// Who connected: the socket's peer, or who the PROXY protocol names. A peer on a Unix socket is this machine,
    /// 127.0.0.1.
    pub peer: IpAddr,
    /// How it spoke.
    pub scheme: Scheme,
    /// The request's host, port included; empty if it has none.
    pub host: &'a [u8],
}

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The client; IPv4 where it can be.
    pub client: IpAddr,
    /// How the client spoke to the first hop.
    pub scheme: Scheme,
    /// The host that the client asked for, for upstreams only: routes go by the request's own. May be empty.
    pub host: &'a [u8],
    /// The port that the client connected to, where a trusted hop says so.
    pub port: Option<u16>,
    /// The peer is believed: what it sent is appended to, not replaced.
    pub is_trusted: bool,
    peer: IpAddr,
    hop: (Scheme, &'a [u8]),
    style: Style,
}

/// Decides where a request came from.
pub fn origin<'a>(trust: &Trust, hop: Hop<'a>, claims: &'a impl Claims) -> Origin<'a> {
    let Hop { peer, scheme, host } = hop;
    let peer = peer.to_canonical();
    let style = trust.style;
    let own = Origin { client: peer, scheme, host, port: None, is_trusted: false, peer, hop: (scheme, host), style };
    if trust.networks.is_empty() || !trust.networks.contains(peer) {
        return own;
    }
    let own = Origin { is_trusted: true, ..own };
    match style {
        Style::XForwarded => by_x_forwarded(&trust.networks, own, claims),
        Style::Forwarded => by_forwarded(&trust.networks, own, claims),
    }
}

fn by_x_forwarded<'a>(trusted: &Networks, own: Origin<'a>, claims: &'a impl Claims) -> Origin<'a> {
    let mut chain = Chain::new(trusted);
    let mut any = false;
    for entry in claims.lines(Field::For).flat_map(entries) {
        any = true;
        chain.hop(address(entry).map(|ip| (ip, ())));
    }
    let client = if any { chain.client.map(|(ip, ())| ip) } else { real_ip(claims) };
    let last = |field| claims.lines(field).flat_map(entries).last();
    Origin {
        client: client.unwrap_or(own.client),
        scheme: last(Field::Proto).and_then(scheme_of).unwrap_or(own.scheme),
        host: last(Field::Host).filter(|host| is_host(host)).unwrap_or(own.host),
        port: last(Field::Port).and_then(port_of),
        ..own
    }
}

/// The word of hops that keep no chain: one line with one address.
fn real_ip(claims: &impl Claims) -> Option<IpAddr> {
    let mut lines = claims.lines(Field::RealIp);
    lines.next().and_then(address).filter(|_| lines.next().is_none())
}

fn by_forwarded<'a>(trusted: &Networks, own: Origin<'a>, claims: &'a impl Claims) -> Origin<'a> {
    let mut chain = Chain::new(trusted);
    for element in claims.lines(Field::Forwarded).flat_map(rfc7239::elements) {
        chain.hop(element.and_then(|element| Some((element.node?, element))));
    }
    let Some((client, said)) = chain.client else { return own };
    Origin {
        client,
        scheme: said.proto.and_then(scheme_of).unwrap_or(own.scheme),
        host: said.host.filter(|host| is_host(host)).unwrap_or(own.host),
        ..own
    }
}

/// Walks a chain from its far end, so that it need not be kept: `client` is always the answer for what came so far.
struct Chain<'t, T> {
    trusted: &'t Networks,
    client: Option<(IpAddr, T)>,
}

impl<'t, T> Chain<'t, T> {
    fn new(trusted: &'t Networks) -> Chain<'t, T> {
        Chain { trusted, client: None }
    }

    /// The next hop. What is not an address vouches for nothing before it.
    fn hop(&mut self, said: Option<(IpAddr, T)>) {
        self.client = match (said, self.client.take()) {
            (Some((ip, _)), Some(before)) if self.trusted.contains(ip) => Some(before),
            (said, _) => said,
        };
    }
}

impl Origin<'_> {
    /// Appends the value of the one `X-Forwarded-For` that goes up: the chain and its peer, or the peer alone.
    pub fn write_for(&self, claims: &impl Claims, into: &mut Vec<u8>) {
        let start = into.len();
        match (self.is_trusted, self.style) {
            (false, _) => {}
            (true, Style::XForwarded) => claims.lines(Field::For).for_each(|line| join(start, line, into)),
            // The other style's chain: who it is, and who says so.
            (true, Style::Forwarded) if self.client != self.peer => push(into, format_args!("{}", self.client)),
            (true, Style::Forwarded) => {}
        }
        separate(start, into);
        push(into, format_args!("{}", self.peer));
    }

    /// Appends the value of the one `Forwarded` that goes up; false if that style is not in use, and nothing is appended.
    pub fn write_forwarded(&self, claims: &impl Claims, into: &mut Vec<u8>) -> bool {
        if self.style != Style::Forwarded {
            return false;
        }
        let start = into.len();
        if self.is_trusted {
            let sound = |line: &&[u8]| rfc7239::elements(line).all(|element| element.is_some());
            claims.lines(Field::Forwarded).filter(sound).for_each(|line| join(start, line, into));
        }
        separate(start, into);
        let (scheme, host) = self.hop;
        match self.peer {
            IpAddr::V4(ip) => push(into, format_args!("for={ip}")),
            IpAddr::V6(ip) => push(into, format_args!("for=\"[{ip}]\"")),
        }
        if is_host(host) {
            into.extend_from_slice(b";host=\"");
            into.extend_from_slice(host);
            into.push(b'"');
        }
        into.extend_from_slice(b";proto=");
        into.extend_from_slice(scheme.name().as_bytes());
        true
    }
}

fn push(into: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    /// A vector as a place for text.
    struct Text<'a>(&'a mut Vec<u8>);
    impl std::fmt::Write for Text<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    std::fmt::write(&mut Text(into), text).expect("a vector takes every byte");
}

fn join(start: usize, line: &[u8], into: &mut Vec<u8>) {
    let line = line.trim_ascii();
    if !line.is_empty() {
        separate(start, into);
        into.extend_from_slice(line);
    }
}

fn separate(start: usize, into: &mut Vec<u8>) {
    if into.len() > start {
        into.extend_from_slice(b", ");
    }
}

/// The entries of a list without the empty ones (RFC 9110 section 5.6.1).
fn entries(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty())
}

/// An address, with a port as some balancers add it: `10.0.0.1`, `10.0.0.1:80`, `::1`, `[::1]`, `[::1]:80`.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_ascii();
    let alone = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let bare = || text.parse::<IpAddr>().ok();
    let ip = match alone {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6),
        None => bare().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip())),
    };
    ip.map(|ip| ip.to_canonical())
}

/// The scheme by its name. WebSockets go by their own with some proxies.
fn scheme_of(name: &[u8]) -> Option<Scheme> {
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    match () {
        () if is(b"http") || is(b"ws") => Some(Scheme::Http),
        () if is(b"https") || is(b"wss") => Some(Scheme::Https),
        () => None,
    }
}

/// A host, with or without a port, in the characters of RFC 3986 section 3.2.2: no user, no escapes.
fn is_host(host: &[u8]) -> bool {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']' | b'~');
    (1..=262).contains(&host.len()) && host.iter().all(fits)
}

fn port_of(text: &[u8]) -> Option<u16> {
    let digits = text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok()?.parse().ok().filter(|port| digits && *port > 0)
}
