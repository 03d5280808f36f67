//! A raw HTTP/1.1 client over one connection: what is sent is exactly what the test says.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::secure::Trusting;

/// Reads give up after this, so that a test fails rather than hangs.
pub const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

/// What a client speaks over.
trait Wire: Read + Write + Send {}

impl<W: Read + Write + Send> Wire for W {}

/// One connection to Teal.
pub struct Client {
    input: BufReader<Box<dyn Wire>>,
    /// The same connection, if it is a plain one over TCP.
    tcp: Option<TcpStream>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header lines as received.
    pub headers: Vec<String>,
    /// The body, de-chunked.
    pub body: String,
}

impl Answer {
    /// The values of a header, by lower-case name, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.iter().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// The value of a header, by lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Client {
    /// Connects; reads give up after ten seconds, so that a test fails rather than hangs.
    pub fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).unwrap())
    }

    /// Speaks over a stream that is connected already.
    pub fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(PATIENCE).unwrap();
        stream.set_nodelay(true).unwrap();
        let tcp = stream.try_clone().ok();
        Client { input: BufReader::new(Box::new(stream)), tcp }
    }

    /// Connects from another address of this machine.
    pub fn from_source(source: [u8; 4], to: SocketAddr) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        Client::over(socket.into())
    }

    /// Connects to a Unix socket.
    pub fn unix(path: &Path) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(PATIENCE).unwrap();
        Client { input: BufReader::new(Box::new(stream)), tcp: None }
    }

    /// Connects and asks for `name` over TLS; the first byte sent or read shakes hands.
    pub fn secure(address: SocketAddr, tls: &Trusting, name: &str) -> Client {
        Client::secure_over(TcpStream::connect(address).unwrap(), tls, name)
    }

    /// The same over a stream that is connected already.
    pub fn secure_over(stream: TcpStream, tls: &Trusting, name: &str) -> Client {
        stream.set_read_timeout(PATIENCE).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { input: BufReader::new(Box::new(tls.over(stream, name))), tcp: None }
    }

    /// Sends bytes.
    pub fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    /// Sends bytes that need not be text.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.input.get_mut().write_all(bytes).unwrap();
    }

    /// Sends bytes to somebody who may have hung up; false if that is known already.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.input.get_mut().write_all(bytes).is_ok()
    }

    /// A `GET` with extra header lines (each ending in CRLF).
    pub fn get(&mut self, path: &str, headers: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n{headers}\r\n"));
        self.answer().expect("an answer")
    }

    /// A `GET` to another host.
    pub fn get_from(&mut self, host: &str, path: &str, headers: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n"));
        self.answer().expect("an answer")
    }

    /// A `POST` with a body of known length.
    pub fn post(&mut self, path: &str, body: &str) -> Answer {
        let length = body.len();
        self.send(&format!("POST {path} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n{body}"));
        self.answer().expect("an answer")
    }

    /// A request of any method with extra header lines (each ending in CRLF) and a JSON body, to the admin API.
    pub fn order(&mut self, method: &str, path: &str, headers: &str, json: &str) -> Answer {
        let length = json.len();
        let said = if headers.contains("Content-Type") { "" } else { "Content-Type: application/json\r\n" };
        self.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{said}Content-Length: {length}\r\n{headers}\r\n{json}"
        ));
        self.answer().expect("an answer")
    }

    /// The next chunk of a chunked body as text, empty at its end; `None` if the connection ended first.
    pub fn chunk(&mut self) -> Option<String> {
        let size = usize::from_str_radix(&self.line()?, 16).ok()?;
        let mut chunk = vec![0; size + 2];
        self.input.read_exact(&mut chunk).ok()?;
        chunk.truncate(size);
        String::from_utf8(chunk).ok()
    }

    /// The status and header lines of the next answer, its body still to be read.
    pub fn head(&mut self) -> Option<Answer> {
        let status = self.line()?.split(' ').nth(1)?.parse().ok()?;
        let mut answer = Answer { status, headers: Vec::new(), body: String::new() };
        loop {
            match self.line()? {
                line if line.is_empty() => return Some(answer),
                line => answer.headers.push(line),
            }
        }
    }

    /// True once the other side has closed the connection, before any further byte.
    pub fn is_closed(&mut self) -> bool {
        match self.input.fill_buf() {
            Ok(bytes) => bytes.is_empty(),
            // Told once: the next read would see an ordinary end.
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// The next answer; `None` if the connection ended first or its body was cut.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut answer = self.head()?;
        let status = answer.status;
        let mut body = Vec::new();
        if let Some(length) = answer.header("content-length").map(|n| n.parse().unwrap()) {
            body = vec![0; length];
            self.input.read_exact(&mut body).ok()?;
        } else if answer.header("transfer-encoding").is_some() {
            loop {
                match self.chunk()? {
                    chunk if chunk.is_empty() => break,
                    chunk => body.extend_from_slice(chunk.as_bytes()),
                }
            }
        } else if status >= 200 && status != 204 && status != 304 {
            self.input.read_to_end(&mut body).ok()?;
        }
        answer.body = String::from_utf8(body).unwrap();
        Some(answer)
    }

    /// Exactly `count` raw bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.input.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// A second handle, to send from another thread.
    pub fn writer(&self) -> TcpStream {
        self.tcp.as_ref().unwrap().try_clone().unwrap()
    }

    /// Breaks the connection off, so that the other side cannot take it for half closed.
    pub fn reset(self) {
        socket2::SockRef::from(self.tcp.as_ref().unwrap()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.input.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end_matches("\r\n").to_owned())
    }
}
