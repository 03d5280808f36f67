//! The PROXY protocol by hand, both ways: bytes for a client to begin with, words for what an upstream was sent.
//!
//! Written from the specification's own figures, so that a mistake of Teal's is not made here as well.

use std::io::{self, Read};
use std::net::SocketAddr;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2 over IPv4: whose connection it is, and where it went.
pub fn version_2(source: &str, destination: &str) -> Vec<u8> {
    let ends = [source, destination].map(|end| end.parse::<std::net::SocketAddrV4>().unwrap());
    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[0x21, 0x11, 0, 12]);
    ends.iter().for_each(|end| header.extend_from_slice(&end.ip().octets()));
    ends.iter().for_each(|end| header.extend_from_slice(&end.port().to_be_bytes()));
    header
}

/// Version 2 of a connection that the balancer makes for itself.
pub fn local_2() -> Vec<u8> {
    [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat()
}

/// Takes a header of either version: the line of version 1, or `v2 SOURCE DESTINATION`, `v2 local`, `v2 unknown`.
///
/// # Errors
/// When it is none, or the connection ends before it does.
pub fn header(input: &mut impl Read) -> io::Result<String> {
    let mut bytes = [0; 1];
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") || SIGNATURE.starts_with(&line) {
        input.read_exact(&mut bytes)?;
        line.push(bytes[0]);
        if line == SIGNATURE {
            return version_2_of(input);
        }
        if line.len() > 107 {
            return Err(io::Error::other("no PROXY protocol header"));
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

fn version_2_of(input: &mut impl Read) -> io::Result<String> {
    let mut fixed = [0; 4];
    input.read_exact(&mut fixed)?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([fixed[2], fixed[3]]))];
    input.read_exact(&mut rest)?;
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    Ok(match (fixed[0], fixed[1]) {
        (0x20, _) => "v2 local".to_owned(),
        (0x21, 0x11) => {
            let ip = |at: usize| <[u8; 4]>::try_from(&rest[at..at + 4]).unwrap();
            let (source, destination) = (SocketAddr::from((ip(0), port(8))), SocketAddr::from((ip(4), port(10))));
            format!("v2 {source} {destination}")
        }
        (0x21, 0x21) => {
            let ip = |at: usize| <[u8; 16]>::try_from(&rest[at..at + 16]).unwrap();
            let (source, destination) = (SocketAddr::from((ip(0), port(32))), SocketAddr::from((ip(16), port(34))));
            format!("v2 {source} {destination}")
        }
        (0x21, 0) => "v2 unknown".to_owned(),
        other => return Err(io::Error::other(format!("neither version nor family: {other:?}"))),
    })
}
