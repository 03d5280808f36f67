//! Whose connection it is: from the PROXY protocol where a listener asks for it, and to upstreams that do.
//!
//! A header is taken without one byte of what follows it: every read asks for what certainly still is header, two or
//! three reads for version 2, a handful for a line of version 1. So nobody has to hand over to TLS or HTTP what was read
//! too early.
//!
//! Invariants: after [`welcome`], the stream's next byte is the client's first; a trusted peer is never believed to speak
//! for itself, nor any other for somebody else; never more is kept than a header may be long.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::config::settings::{Expectation, ProxyProtocol};
use crate::domain::proxy_protocol::{Header, Invalid, Origin, Parsed, Version, encode, parse};

/// The address of whoever connects over a Unix socket: this machine.
pub const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The two ends of a client's connection, as far as anybody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client, IPv4 where it can be: for limits, overrides, logs, and as the first word on who forwards.
    pub client: SocketAddr,
    /// Where it connected to; `None` over a Unix socket.
    pub destination: Option<SocketAddr>,
}

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Only those that are trusted may connect.
    #[error("a peer that is not trusted")]
    Untrusted,
    /// A trusted peer sent something else than a header.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It took too long.
    #[error("no PROXY protocol header in time")]
    Timeout,
    /// It hung up, or the connection failed.
    #[error("{0}")]
    Closed(#[from] io::Error),
}

/// Finds out whose connection it is, before anything else is read from it. `ends` are the socket's own; the header has
/// `limit` to come.
///
/// # Errors
/// When the connection must be closed; there is nobody to answer to.
pub async fn welcome(
    stream: &mut (impl AsyncRead + Unpin),
    settings: Option<&ProxyProtocol>,
    ends: Ends,
    limit: Duration,
) -> Result<Ends, Refused> {
    let Some(settings) = settings else { return Ok(ends) };
    match settings.expects(ends.client.ip()) {
        Expectation::Plain => Ok(ends),
        Expectation::Nothing => Err(Refused::Untrusted),
        Expectation::Header => {
            let header = tokio::time::timeout(limit, receive(stream)).await.map_err(|_| Refused::Timeout)??;
            Ok(match (header.origin.source(), header.origin) {
                (Some(client), Origin::Tcp { destination, .. }) => Ends { client, destination: Some(destination) },
                // The balancer's own connection, or one it knows nothing about.
                _ => ends,
            })
        }
    }
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Result<Header, Refused> {
    // On the heap: it would stay part of the connection's future for as long as that lives.
    let mut bytes = Vec::new();
    loop {
        let least = match parse(&bytes) {
            Parsed::Header(header) => return Ok(header),
            Parsed::Incomplete(least) => least,
            Parsed::Invalid(reason) => return Err(reason.into()),
        };
        let known = bytes.len();
        bytes.resize(known + least, 0);
        stream.read_exact(&mut bytes[known..]).await?;
    }
}

/// What an upstream connection that is opened for a client begins with.
pub fn greeting(version: Version, ends: Ends) -> Vec<u8> {
    let origin = match ends {
        Ends { client, destination: Some(destination) } => Origin::Tcp { source: client, destination },
        Ends { destination: None, .. } => Origin::Unknown,
    };
    let mut header = Vec::with_capacity(64);
    encode(version, &origin, &mut header);
    header
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn ends(client: &str) -> Ends {
        Ends { client: client.parse().unwrap(), destination: "192.0.2.80:80".parse().ok() }
    }

    fn settings(strict: bool) -> ProxyProtocol {
        ProxyProtocol { trusted: ["10.0.0.0/8".parse().unwrap()].into_iter().collect(), strict }
    }

    /// Welcomes a peer that sends `bytes`: whose connection it is, and what is left to read.
    async fn welcomed(settings: Option<&ProxyProtocol>, peer: &str, bytes: &[u8]) -> (Result<Ends, Refused>, Vec<u8>) {
        let (mut near, mut far) = tokio::io::duplex(3);
        let sent = bytes.to_vec();
        let sending = tokio::spawn(async move { far.write_all(&sent).await });
        let found = welcome(&mut near, settings, ends(peer), LIMIT).await;
        let mut rest = Vec::new();
        if found.is_ok() {
            near.read_to_end(&mut rest).await.unwrap();
        }
        drop(near);
        // An error means that the peer was turned away before it had sent everything.
        let _ = sending.await;
        (found, rest)
    }

    #[tokio::test]
    async fn what_follows_the_header_is_left_alone() {
        const REST: &[u8] = b"\r\nGET / HTTP/1.1\r\n";
        let client = Ends { client: "[2001:db8::1]:65535".parse().unwrap(), destination: "[::1]:443".parse().ok() };
        let unknown = Ends { destination: None, ..client };
        for version in [Version::V1, Version::V2] {
            for (sent, expected) in [(client, client), (unknown, ends("10.1.2.3:4"))] {
                let bytes = [&greeting(version, sent)[..], REST].concat();
                let (found, rest) = welcomed(Some(&settings(true)), "10.1.2.3:4", &bytes).await;
                assert_eq!((found.unwrap(), &rest[..]), (expected, REST), "{version:?}");
            }
        }
    }

    #[tokio::test]
    async fn who_is_not_trusted_speaks_for_itself_or_not_at_all() {
        let forged = greeting(Version::V1, ends("10.0.0.1:1"));
        let (found, rest) = welcomed(None, "10.0.0.1:1", &forged).await;
        assert_eq!((found.unwrap(), &rest), (ends("10.0.0.1:1"), &forged), "not asked for: left to be refused as HTTP");
        let (found, rest) = welcomed(Some(&settings(false)), "203.0.113.9:1", &forged).await;
        assert_eq!((found.unwrap(), &rest), (ends("203.0.113.9:1"), &forged));
        let (found, _) = welcomed(Some(&settings(true)), "203.0.113.9:1", &forged).await;
        assert!(matches!(found, Err(Refused::Untrusted)));
    }

    #[tokio::test]
    async fn a_trusted_peer_without_a_header_is_refused() {
        let (found, _) = welcomed(Some(&settings(false)), "10.0.0.1:1", b"GET / HTTP/1.1\r\n\r\n").await;
        assert!(matches!(found, Err(Refused::Invalid(Invalid::Signature))));
        let (found, _) = welcomed(Some(&settings(false)), "10.0.0.1:1", b"PROXY TCP4 1.2").await;
        assert!(matches!(found, Err(Refused::Closed(error)) if error.kind() == io::ErrorKind::UnexpectedEof));
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_has_its_time() {
        let (mut near, mut far) = tokio::io::duplex(100);
        far.write_all(b"PROXY TCP4").await.unwrap();
        let found = welcome(&mut near, Some(&settings(true)), ends("10.0.0.1:1"), LIMIT).await;
        assert!(matches!(found, Err(Refused::Timeout)));
    }
}
