//! Just enough of an HTTP client for the admin API: one request, one connection.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::Outcome;
use crate::stage::told;

/// The status and body of an answer.
pub(crate) fn ask(port: u16, method: &str, path: &str, body: &str) -> Outcome<(u16, String)> {
    let what = format!("{method} {path}");
    let mut stream = told(&what, TcpStream::connect((Ipv4Addr::LOCALHOST, port)))?;
    told(&what, stream.set_read_timeout(Some(Duration::from_secs(60))))?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    told(&what, stream.write_all(request.as_bytes()))?;
    let mut answer = String::new();
    told(&what, stream.read_to_string(&mut answer))?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok((status.ok_or_else(|| format!("{what}: no answer"))?, body.to_owned()))
}
