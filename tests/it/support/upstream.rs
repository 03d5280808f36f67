//! An upstream: a hand-driven HTTP/1.1 server that counts what reaches it and misbehaves on demand.
//!
//! It speaks bytes, not a library's types, so that tests see exactly what Teal sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Arrived {
    /// `GET /path HTTP/1.1`.
    pub line: String,
    /// Header lines as sent, in order.
    pub headers: Vec<String>,
    /// The body, de-chunked.
    pub body: Vec<u8>,
}

impl Arrived {
    /// The value of a header, by lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What the upstream does with a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answers with these bytes and keeps the connection.
    Answer(Vec<u8>),
    /// Answers with these bytes and closes.
    AnswerAndClose(Vec<u8>),
    /// Waits, then answers with these bytes and keeps the connection.
    Slowly(Duration, Vec<u8>),
    /// Closes without a byte.
    Close,
    /// Says nothing until the connection ends.
    Hang,
    /// Answers 101 and then echoes bytes.
    Echo(Vec<u8>),
}

type Script = Box<dyn Fn(&Arrived) -> Act + Send + Sync>;

/// A running upstream; stops when dropped.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Script,
    arrived: Mutex<Vec<Arrived>>,
    count: AtomicU64,
    connections: AtomicU64,
    stop: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// A plain 500.
pub fn broken() -> Vec<u8> {
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_vec()
}

/// A plain 200 with this body.
pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

impl Upstream {
    /// An upstream that answers everything with `body`.
    pub fn plain(body: &'static str) -> Upstream {
        Upstream::start(move |_| Act::Answer(ok(body)))
    }

    /// An upstream that does what `script` says.
    pub fn start(script: impl Fn(&Arrived) -> Act + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            arrived: Mutex::default(),
            count: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.stop.load(SeqCst) {
                    return;
                }
                serving.connections.fetch_add(1, SeqCst);
                serving.open.lock().unwrap().push(stream.try_clone().unwrap());
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Upstream { address, shared }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that arrived whole.
    pub fn count(&self) -> u64 {
        self.shared.count.load(SeqCst)
    }

    /// Connections accepted.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(SeqCst)
    }

    /// The requests themselves.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.shared.arrived.lock().unwrap().clone()
    }

    /// Closes every connection there is now.
    pub fn cut(&self) {
        self.shared.open.lock().unwrap().drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

impl Upstream {
    /// Dies: it listens no more and every connection breaks.
    pub fn crash(&self) {
        if !self.shared.stop.swap(true, SeqCst) {
            // Wakes the accept loop, which drops the listener.
            drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
        }
        self.cut();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.crash();
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    while let Some(request) = read_request(&mut input) {
        shared.count.fetch_add(1, SeqCst);
        shared.arrived.lock().unwrap().push(request.clone());
        match (shared.script)(&request) {
            Act::Answer(bytes) => {
                if out.write_all(&bytes).is_err() {
                    return;
                }
            }
            Act::Slowly(time, bytes) => {
                super::pace(time);
                if out.write_all(&bytes).is_err() {
                    return;
                }
            }
            Act::AnswerAndClose(bytes) => {
                drop(out.write_all(&bytes));
                return drop(out.shutdown(Shutdown::Both));
            }
            Act::Close => return drop(out.shutdown(Shutdown::Both)),
            Act::Hang => return drop(input.read_to_end(&mut Vec::new())),
            Act::Echo(head) => {
                drop(out.write_all(&head));
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = input.read(&mut buffer) {
                    drop(out.write_all(&buffer[..n]));
                }
                return drop(out.shutdown(Shutdown::Both));
            }
        }
    }
}

fn read_line(input: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let read = input.read_line(&mut line).ok()?;
    (read > 0).then(|| line.trim_end_matches("\r\n").to_owned())
}

fn read_request(input: &mut impl BufRead) -> Option<Arrived> {
    let mut request = Arrived { line: read_line(input)?, ..Arrived::default() };
    loop {
        match read_line(input)? {
            line if line.is_empty() => break,
            line => request.headers.push(line),
        }
    }
    if let Some(length) = request.header("content-length").map(|n| n.parse().unwrap()) {
        request.body = vec![0; length];
        input.read_exact(&mut request.body).ok()?;
    } else if request.header("transfer-encoding").is_some() {
        loop {
            let size = usize::from_str_radix(&read_line(input)?, 16).unwrap();
            if size == 0 {
                // Trailers, and the empty line.
                while !read_line(input)?.is_empty() {}
                break;
            }
            let mut chunk = vec![0; size + 2];
            input.read_exact(&mut chunk).ok()?;
            request.body.extend_from_slice(&chunk[..size]);
        }
    }
    Some(request)
}
