//! The PROXY protocol, versions 1 and 2: how a balancer in front says whose connection it passes on, and how Teal says
//! so to its upstreams.
//!
//! Both versions are read from one slice, without copying and without leniency: a header is trusted with a client's
//! identity, so what is not exactly as specified (HAProxy's `proxy-protocol.txt`, 2020) is refused. What version 2
//! carries beyond the addresses is checked for its form and its checksum, and skipped.
//!
//! Invariants: what follows a header changes nothing about it, so that TLS or HTTP begins at the very next byte; a prefix
//! of a header is never a header; no input panics.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of the longest version 1 line, its line break included (specification, section 2.1).
pub const LONGEST_V1: usize = 107;
/// Bytes of the longest version 2 header taken. Balancers send a few hundred; a client's certificate among the
/// extensions may take some thousands; the 64 KiB that the format allows would be memory for whoever connects.
pub const LONGEST_V2: usize = 4_096;

const V1: &[u8] = b"PROXY ";
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The shortest header of either version.
const SHORTEST: usize = b"PROXY UNKNOWN\r\n".len();
/// Signature, version and command, family and protocol, length.
const V2_HEAD: usize = 16;
/// Bytes of a Unix socket's path in version 2.
const UNIX_PATH: usize = 108;
/// The extension that holds a CRC32c of the whole header.
const CHECKSUM: u8 = 3;

/// How upstreams are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// The binary form.
    V2,
}

/// What has been read so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header, of which at least so many bytes are still to come.
    Incomplete(usize),
    /// A whole header.
    Header(Header),
    /// Never a header, whatever follows.
    Invalid(Invalid),
}

/// A header that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose connection it is.
    pub origin: Origin,
    /// Bytes of the header; what follows belongs to the client.
    pub consumed: usize,
}

/// Whose connection it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The sender's own, such as a health check: its socket's address is the truth.
    Local,
    /// Not said: the socket's address is all there is.
    Unknown,
    /// A client's.
    Tcp {
        /// The client.
        source: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
    },
    /// A client's on the sender's machine.
    Unix(Box<UnixPaths>),
}

/// The two ends of a connection over Unix sockets, padded with NUL bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixPaths {
    /// The client's.
    pub source: [u8; UNIX_PATH],
    /// The listener's.
    pub destination: [u8; UNIX_PATH],
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// They begin like neither version.
    #[error("no PROXY protocol header")]
    Signature,
    /// Past [`LONGEST_V1`] or [`LONGEST_V2`].
    #[error("a PROXY protocol header that is too long")]
    TooLong,
    /// Not the one line that version 1 is.
    #[error("a malformed PROXY protocol line")]
    Line,
    /// An address or port that is not one.
    #[error("a malformed address in a PROXY protocol header")]
    Address,
    /// A version, command, family or protocol that is not known or has no place on a stream.
    #[error("an unknown kind of PROXY protocol header")]
    Kind,
    /// The addresses or extensions do not fill the length that is announced.
    #[error("a PROXY protocol header whose parts do not fit its length")]
    Length,
    /// The checksum does not fit.
    #[error("a PROXY protocol header whose checksum is wrong")]
    Checksum,
}

impl Origin {
    /// The client's address; `None` where the socket's own is to be taken. Addresses of IPv4 in IPv6 come as IPv4.
    pub fn source(&self) -> Option<SocketAddr> {
        match self {
            Origin::Tcp { source, .. } => Some(SocketAddr::new(source.ip().to_canonical(), source.port())),
            Origin::Local | Origin::Unknown | Origin::Unix(_) => None,
        }
    }
}

/// Reads a header from the bytes received so far.
pub fn parse(bytes: &[u8]) -> Parsed {
    let begins_like = |signature: &[u8]| {
        let common = bytes.len().min(signature.len());
        bytes[..common] == signature[..common]
    };
    let parsed = match () {
        () if begins_like(V2) => parse_v2(bytes),
        () if begins_like(V1) => parse_v1(bytes),
        () => Err(Invalid::Signature),
    };
    match parsed {
        Ok(parsed) => parsed,
        Err(reason) => Parsed::Invalid(reason),
    }
}

type Reading = Result<Parsed, Invalid>;

fn whole(origin: Origin, consumed: usize) -> Reading {
    Ok(Parsed::Header(Header { origin, consumed }))
}

fn parse_v1(bytes: &[u8]) -> Reading {
    let within = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = within.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if within.len() < LONGEST_V1 {
            Ok(Parsed::Incomplete(least_of_line(within)))
        } else {
            Err(Invalid::TooLong)
        };
    };
    match within[end..] {
        [b'\r'] if end + 1 == LONGEST_V1 => return Err(Invalid::TooLong),
        [b'\r'] => return Ok(Parsed::Incomplete(1)),
        [b'\r', b'\n', ..] => {}
        _ => return Err(Invalid::Line),
    }
    // Whoever sends UNKNOWN may put anything behind it (section 2.1).
    let line = within.get(V1.len()..end).ok_or(Invalid::Line)?;
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return whole(Origin::Unknown, end + 2);
    }
    let line = std::str::from_utf8(line).map_err(|_| Invalid::Line)?;
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or(Invalid::Line);
    let (family, source, destination, from, to) = (word()?, word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(Invalid::Line);
    }
    let address = |text: &str| -> Result<IpAddr, Invalid> {
        match family {
            "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| Invalid::Address),
            "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| Invalid::Address),
            _ => Err(Invalid::Line),
        }
    };
    let source = SocketAddr::new(address(source)?, port(from)?);
    let destination = SocketAddr::new(address(destination)?, port(to)?);
    whole(Origin::Tcp { source, destination }, end + 2)
}

/// What a line without its end needs at least: a space and a sign for every word that is missing, and the line break.
fn least_of_line(line: &[u8]) -> usize {
    const SPACES: usize = 5;
    let spaces = line.iter().filter(|byte| **byte == b' ').count();
    let words = if line.starts_with(b"PROXY T") { 2 * SPACES.saturating_sub(spaces) } else { 0 };
    SHORTEST.saturating_sub(line.len()).max(words + 2)
}

/// A decimal number without sign or leading zeros.
fn port(text: &str) -> Result<u16, Invalid> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(Invalid::Address)
}

fn parse_v2(bytes: &[u8]) -> Reading {
    // What is already wrong is refused at once, not after the sender's last byte.
    let local = match bytes.get(V2.len()) {
        None => return Ok(Parsed::Incomplete(SHORTEST - bytes.len())),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(Invalid::Kind),
    };
    let Some(head) = bytes.get(..V2_HEAD) else { return Ok(Parsed::Incomplete(V2_HEAD - bytes.len())) };
    let (kind, total) = (head[13], V2_HEAD + usize::from(u16::from_be_bytes([head[14], head[15]])));
    let addresses = match kind {
        // The rest of an unspecified header is skipped whole, and so is a local one's (section 2.2).
        _ if local => 0,
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 2 * UNIX_PATH,
        _ => return Err(Invalid::Kind),
    };
    if total > LONGEST_V2 {
        return Err(Invalid::TooLong);
    }
    if total < V2_HEAD + addresses {
        return Err(Invalid::Length);
    }
    let Some(header) = bytes.get(..total) else { return Ok(Parsed::Incomplete(total - bytes.len())) };
    if addresses == 0 {
        return whole(if local { Origin::Local } else { Origin::Unknown }, total);
    }
    let (fixed, extensions) = header[V2_HEAD..].split_at(addresses);
    check_extensions(header, V2_HEAD + addresses, extensions)?;
    whole(addresses_of(fixed).ok_or(Invalid::Length)?, total)
}

/// The addresses of version 2, told apart by their length.
fn addresses_of(fixed: &[u8]) -> Option<Origin> {
    fn pair<const N: usize>(fixed: &[u8]) -> Option<([u8; N], [u8; N], [u16; 2])> {
        let (source, rest) = fixed.split_first_chunk::<N>()?;
        let (destination, ports) = rest.split_first_chunk::<N>()?;
        let port = |at: usize| Some(u16::from_be_bytes([*ports.get(at)?, *ports.get(at + 1)?]));
        Some((*source, *destination, [port(0).unwrap_or(0), port(2).unwrap_or(0)]))
    }
    let tcp = |source: IpAddr, destination: IpAddr, [from, to]: [u16; 2]| Origin::Tcp {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    };
    Some(match fixed.len() {
        12 => pair::<4>(fixed).map(|(a, b, ports)| tcp(Ipv4Addr::from(a).into(), Ipv4Addr::from(b).into(), ports))?,
        36 => pair::<16>(fixed).map(|(a, b, ports)| tcp(Ipv6Addr::from(a).into(), Ipv6Addr::from(b).into(), ports))?,
        _ => pair::<UNIX_PATH>(fixed)
            .map(|(source, destination, _)| Origin::Unix(Box::new(UnixPaths { source, destination })))?,
    })
}

/// Extensions are a type, a length of two bytes, and a value; they fill the header to its end.
fn check_extensions(header: &[u8], mut at: usize, mut rest: &[u8]) -> Result<(), Invalid> {
    while let [kind, high, low, values @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let value = values.get(..length).ok_or(Invalid::Length)?;
        if *kind == CHECKSUM {
            let said = <[u8; 4]>::try_from(value).map_err(|_| Invalid::Length)?;
            if crc32c(header, at + 3..at + 7) != u32::from_be_bytes(said) {
                return Err(Invalid::Checksum);
            }
        }
        at += 3 + length;
        rest = &values[length..];
    }
    if rest.is_empty() { Ok(()) } else { Err(Invalid::Length) }
}

/// CRC32c (RFC 9260 appendix A) of `bytes` with zeros in `blank`. Bit by bit: headers with a checksum are rare and short.
fn crc32c(bytes: &[u8], blank: std::ops::Range<usize>) -> u32 {
    let mut crc = u32::MAX;
    for (at, byte) in bytes.iter().enumerate() {
        crc ^= if blank.contains(&at) { 0 } else { u32::from(*byte) };
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// Appends the header that says `origin`. What version 1 has no words for becomes `UNKNOWN`.
///
/// A connection so opened belongs to this client: it must never carry another's requests.
pub fn encode(version: Version, origin: &Origin, into: &mut Vec<u8>) {
    match version {
        Version::V1 => encode_v1(origin, into),
        Version::V2 => encode_v2(origin, into),
    }
}

/// Both addresses in one family: IPv4 if both are, else IPv6.
enum Pair {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn in_one_family(source: IpAddr, destination: IpAddr) -> Pair {
    let wide = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    match (source.to_canonical(), destination.to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Pair::V4(source, destination),
        (source, destination) => Pair::V6(wide(source), wide(destination)),
    }
}

fn encode_v1(origin: &Origin, into: &mut Vec<u8>) {
    let Origin::Tcp { source, destination } = origin else {
        return into.extend_from_slice(b"PROXY UNKNOWN\r\n");
    };
    let (from, to) = (source.port(), destination.port());
    let line = match in_one_family(source.ip(), destination.ip()) {
        Pair::V4(source, destination) => format!("PROXY TCP4 {source} {destination} {from} {to}\r\n"),
        Pair::V6(source, destination) => format!("PROXY TCP6 {source} {destination} {from} {to}\r\n"),
    };
    into.extend_from_slice(line.as_bytes());
}

fn encode_v2(origin: &Origin, into: &mut Vec<u8>) {
    let mut head = |command: u8, kind: u8, length: u16| {
        into.extend_from_slice(V2);
        into.extend_from_slice(&[command, kind]);
        into.extend_from_slice(&length.to_be_bytes());
    };
    match origin {
        Origin::Local => head(0x20, 0, 0),
        Origin::Unknown => head(0x21, 0, 0),
        Origin::Tcp { source, destination } => {
            match in_one_family(source.ip(), destination.ip()) {
                Pair::V4(source, destination) => {
                    head(0x21, 0x11, 12);
                    into.extend_from_slice(&source.octets());
                    into.extend_from_slice(&destination.octets());
                }
                Pair::V6(source, destination) => {
                    head(0x21, 0x21, 36);
                    into.extend_from_slice(&source.octets());
                    into.extend_from_slice(&destination.octets());
                }
            }
            into.extend_from_slice(&source.port().to_be_bytes());
            into.extend_from_slice(&destination.port().to_be_bytes());
        }
        Origin::Unix(paths) => {
            head(0x21, 0x31, 2 * UNIX_PATH as u16);
            into.extend_from_slice(&paths.source);
            into.extend_from_slice(&paths.destination);
        }
    }
}
