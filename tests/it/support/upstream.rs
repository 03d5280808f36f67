//! An upstream: a hand-driven HTTP/1.1 server that counts what reaches it and misbehaves on demand.
//!
//! It speaks bytes, not a library's types, so that tests see exactly what Teal sent.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::proxied;
use super::secure::Serving;

/// One request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Arrived {
    /// `GET /path HTTP/1.1`.
    pub line: String,
    /// Header lines as sent, in order.
    pub headers: Vec<String>,
    /// The body, de-chunked.
    pub body: Vec<u8>,
    /// The number of the connection it came over, from 1.
    pub connection: u64,
    /// What the connection's PROXY protocol header said, if the upstream expects one.
    pub proxied: String,
}

impl Arrived {
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

/// What the upstream does with a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answers with these bytes and keeps the connection.
    Answer(Vec<u8>),
    /// Answers with these bytes and closes.
    AnswerAndClose(Vec<u8>),
    /// Waits, then answers with these bytes and keeps the connection.
    Slowly(Duration, Vec<u8>),
    /// Answers with these bytes, and says nothing more until the connection ends.
    AnswerAndHang(Vec<u8>),
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
    /// Where it listens; nowhere if that is a Unix socket.
    pub address: SocketAddr,
    url: String,
    shared: Arc<Shared>,
}

/// How it is spoken to.
#[derive(Default)]
pub struct Manner {
    /// Over TLS.
    pub tls: Option<Arc<Serving>>,
    /// Every connection begins with a PROXY protocol header.
    pub proxied: bool,
    /// On this Unix socket in place of a port.
    pub socket: Option<PathBuf>,
    /// On this address in place of any port of 127.0.0.1.
    pub address: Option<SocketAddr>,
}

struct Shared {
    script: Script,
    manner: Manner,
    arrived: Mutex<Vec<Arrived>>,
    count: AtomicU64,
    connections: AtomicU64,
    stop: AtomicBool,
    open: Mutex<Vec<Socket>>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection's socket.
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    fn accept(&self) -> io::Result<Socket> {
        match self {
            Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Socket::Tcp(stream)),
            Listener::Unix(listener) => listener.accept().map(|(stream, _)| Socket::Unix(stream)),
        }
    }
}

impl Socket {
    fn try_clone(&self) -> io::Result<Socket> {
        match self {
            Socket::Tcp(stream) => stream.try_clone().map(Socket::Tcp),
            Socket::Unix(stream) => stream.try_clone().map(Socket::Unix),
        }
    }

    fn end(&self) {
        drop(match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Both),
        });
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
        Upstream::in_manner(Manner::default(), script)
    }

    /// The same, spoken to in another manner.
    pub fn in_manner(manner: Manner, script: impl Fn(&Arrived) -> Act + Send + Sync + 'static) -> Upstream {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (listener, address, url) = match &manner.socket {
            Some(path) => (Listener::Unix(UnixListener::bind(path).unwrap()), anywhere, unix_url(path)),
            None => {
                let listener = TcpListener::bind(manner.address.unwrap_or(anywhere)).unwrap();
                let address = listener.local_addr().unwrap();
                let scheme = if manner.tls.is_some() { "https" } else { "http" };
                (Listener::Tcp(listener), address, format!("{scheme}://{address}"))
            }
        };
        let shared = Arc::new(Shared {
            script: Box::new(script),
            manner,
            arrived: Mutex::default(),
            count: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            while let Ok(socket) = listener.accept() {
                if serving.stop.load(SeqCst) {
                    return;
                }
                let number = serving.connections.fetch_add(1, SeqCst) + 1;
                serving.open.lock().unwrap().push(socket.try_clone().unwrap());
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || {
                    let last = socket.try_clone().unwrap();
                    let _ = receive(socket, &shared, number);
                    last.end();
                });
            }
        });
        Upstream { address, url, shared }
    }

    /// As a configuration names it: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.url.clone()
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
        self.shared.open.lock().unwrap().drain(..).for_each(|socket| socket.end());
    }
}

impl Upstream {
    /// Dies: it listens no more and every connection breaks.
    pub fn crash(&self) {
        if !self.shared.stop.swap(true, SeqCst) {
            // Wakes the accept loop, which drops the listener.
            match &self.shared.manner.socket {
                Some(path) => drop(UnixStream::connect(path)),
                None => drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1))),
            }
        }
        self.cut();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.crash();
    }
}

fn unix_url(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// Everything before the first request.
fn receive(mut socket: Socket, shared: &Shared, number: u64) -> io::Result<()> {
    let proxied = if shared.manner.proxied { proxied::header(&mut socket)? } else { String::new() };
    match &shared.manner.tls {
        Some(tls) => serve(tls.over(socket), shared, number, &proxied),
        None => serve(socket, shared, number, &proxied),
    }
}

fn serve(stream: impl Read + Write, shared: &Shared, connection: u64, proxied: &str) -> io::Result<()> {
    let mut input = BufReader::new(stream);
    while let Some(request) = read_request(&mut input) {
        let request = Arrived { connection, proxied: proxied.to_owned(), ..request };
        shared.count.fetch_add(1, SeqCst);
        shared.arrived.lock().unwrap().push(request.clone());
        let out = input.get_mut();
        match (shared.script)(&request) {
            Act::Answer(bytes) => out.write_all(&bytes)?,
            Act::Slowly(time, bytes) => {
                super::pace(time);
                out.write_all(&bytes)?;
            }
            Act::AnswerAndClose(bytes) => return out.write_all(&bytes),
            Act::AnswerAndHang(bytes) => {
                out.write_all(&bytes)?;
                return input.read_to_end(&mut Vec::new()).map(drop);
            }
            Act::Close => return Ok(()),
            Act::Hang => return input.read_to_end(&mut Vec::new()).map(drop),
            Act::Echo(head) => {
                out.write_all(&head)?;
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = input.read(&mut buffer) {
                    input.get_mut().write_all(&buffer[..n])?;
                }
                return Ok(());
            }
        }
    }
    Ok(())
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
