//! Receiving a PROXY protocol header from a fresh connection, without taking one byte of what follows it.
//!
//! Every read asks for what certainly is still header and for no more: two or three reads for version 2, a handful for
//! a line of version 1. So nobody has to hand over to TLS or HTTP what was read too early.
//!
//! Invariants: after a header, the stream's next byte is the client's first; never more is kept than a header may be
//! long.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::domain::proxy_protocol::{Header, Parsed, parse};

/// Takes the header that must come first. The caller bounds the time.
///
/// # Errors
/// `InvalidData` with an [`Invalid`](crate::domain::proxy_protocol::Invalid) inside if something else comes, `UnexpectedEof` if the peer closes
/// before the end, or whatever reading says.
pub async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Header> {
    // On the heap: it would stay part of the connection's future for as long as that lives.
    let mut bytes = Vec::new();
    loop {
        let least = match parse(&bytes) {
            Parsed::Header(header) => return Ok(header),
            Parsed::Incomplete(least) => least,
            Parsed::Invalid(reason) => return Err(io::Error::new(io::ErrorKind::InvalidData, reason)),
        };
        let known = bytes.len();
        bytes.resize(known + least, 0);
        stream.read_exact(&mut bytes[known..]).await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::domain::proxy_protocol::{Invalid, Origin, Version, encode};

    async fn received(bytes: &[u8]) -> (io::Result<Header>, Vec<u8>) {
        let (mut near, mut far) = tokio::io::duplex(3);
        let sent = bytes.to_vec();
        let sending = tokio::spawn(async move { far.write_all(&sent).await });
        let header = receive(&mut near).await;
        let mut rest = Vec::new();
        if header.is_ok() {
            near.read_to_end(&mut rest).await.unwrap();
        }
        drop(near);
        let _ = sending.await;
        (header, rest)
    }

    #[tokio::test]
    async fn what_follows_the_header_is_left_alone() {
        let source = "[2001:db8::1]:65535".parse().unwrap();
        let destination = "192.0.2.1:443".parse().unwrap();
        for version in [Version::V1, Version::V2] {
            for origin in [Origin::Tcp { source, destination }, Origin::Unknown] {
                let mut bytes = Vec::new();
                encode(version, &origin, &mut bytes);
                let length = bytes.len();
                bytes.extend_from_slice(b"\r\nGET / HTTP/1.1");
                let (header, rest) = received(&bytes).await;
                assert_eq!((header.unwrap().consumed, &rest[..]), (length, &b"\r\nGET / HTTP/1.1"[..]));
            }
        }
    }

    #[tokio::test]
    async fn anything_else_is_an_error() {
        let (header, _) = received(b"GET / HTTP/1.1\r\n\r\n").await;
        let error = header.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Invalid>());
        assert_eq!(inner, Some(&Invalid::Signature));
        let (header, _) = received(b"PROXY TCP4 1.2").await;
        assert_eq!(header.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
