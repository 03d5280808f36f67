//! A client that speaks bytes and tells the ways of failing apart: refused, unanswered, cut.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longer than anything a drill waits for on purpose.
const PATIENCE: Duration = Duration::from_secs(15);

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value, by lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// True if the server will close the connection.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// Why there is no complete answer.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// No connection.
    #[error("refused: {0}")]
    Refused(io::Error),
    /// The connection ended before the first byte of an answer: the request may be sent again.
    #[error("unanswered: {0}")]
    Unanswered(String),
    /// The answer began and did not end.
    #[error("cut: {0}")]
    Cut(String),
}

/// One keep-alive connection.
pub struct Client {
    host: String,
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Result<Client, Broken> {
        let open = || {
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = open().map_err(Broken::Refused)?;
        Ok(Client { host: address.to_string(), stream: BufReader::new(stream) })
    }

    /// Sends a request in one write and reads the whole answer.
    pub fn send(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> Result<Answer, Broken> {
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n{headers}", self.host);
        if !body.is_empty() || matches!(method, "POST" | "PUT") {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let mut request = request.into_bytes();
        request.extend_from_slice(body);
        let unanswered = |error: io::Error| Broken::Unanswered(error.to_string());
        self.stream.get_mut().write_all(&request).map_err(unanswered)?;
        if self.stream.fill_buf().map_err(unanswered)?.is_empty() {
            return Err(Broken::Unanswered("closed".to_owned()));
        }
        self.read(method).map_err(|error| Broken::Cut(error.to_string()))
    }

    pub fn get(&mut self, target: &str) -> Result<Answer, Broken> {
        self.send("GET", target, "", b"")
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let whole = line.strip_suffix("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(whole.to_owned())
    }

    fn read(&mut self, method: &str) -> io::Result<Answer> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status in {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        if method == "HEAD" || matches!(status, 204 | 304) {
            return Ok(answer);
        }
        if let Some(length) = answer.header("content-length").map(str::parse) {
            answer.body = vec![0; length.map_err(io::Error::other)?];
            self.stream.read_exact(&mut answer.body)?;
        } else if answer.header("transfer-encoding").is_some() {
            answer.body = self.chunks()?;
        } else {
            return Err(io::Error::other("an answer without a length"));
        }
        Ok(answer)
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            self.stream.read_exact(&mut chunk)?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
}

/// The admin API over one connection.
pub struct Api {
    client: Client,
}

impl Api {
    pub fn connect(address: SocketAddr) -> Result<Api, Broken> {
        Client::connect(address).map(|client| Api { client })
    }

    pub fn ask(&mut self, method: &str, path: &str, body: &Value) -> Result<Answer, Broken> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let headers = if body.is_null() { "" } else { "Content-Type: application/json\r\n" };
        self.client.send(method, path, headers, text.as_bytes())
    }

    /// Sets green's share of the service `shop`, in whole percent; blue gets the rest.
    pub fn weigh(&mut self, green: u32) -> Result<Answer, Broken> {
        let shares = [("blue", 100 - green), ("green", green)].map(|(pool, share)| (pool, format!("{share}%")));
        let weights: serde_json::Map<_, _> =
            shares.into_iter().map(|(pool, share)| (pool.to_owned(), Value::from(share))).collect();
        self.ask("PUT", "/v1/services/shop/weights", &serde_json::json!({ "weights": weights }))
    }

    /// The service `shop` as it is.
    pub fn shop(&mut self) -> Result<Value, Broken> {
        self.ask("GET", "/v1/services/shop", &Value::Null).map(|answer| answer.json())
    }
}

/// A pool's share in percent, from the answer of [`Api::shop`].
pub fn share_of(shop: &Value, pool: &str) -> f64 {
    let pools = shop["pools"].as_array().unwrap_or_else(|| panic!("no pools in {shop}"));
    let pool = pools.iter().find(|known| known["name"] == pool).unwrap_or_else(|| panic!("no {pool} in {shop}"));
    let share = pool["share"].as_str().and_then(|share| share.strip_suffix('%'));
    share.and_then(|share| share.parse().ok()).unwrap_or_else(|| panic!("no share in {pool}"))
}
