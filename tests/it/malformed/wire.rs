//! Both ends of a wire in bytes: a client that sends and reads to the end, and an upstream that writes what it is told.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::teal::{Teal, shop_text};

/// A request that stands behind another one.
pub const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n";

/// Teal with one worker, so that every request meets the connections that the one before left behind.
pub fn teal(upstream: SocketAddr, more: &str, top: &str) -> Teal {
    let url = format!("http://{upstream}");
    let text = shop_text("none", &[("blue", &url)], &format!("health: off\n{more}"));
    Teal::start(&text.replace("workers: 2\n", &format!("workers: 1\n{top}")))
}

/// Sends `bytes` in one go over a new connection and reads until Teal closes it.
pub fn ask(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    // Teal may answer and close before it has everything.
    let _ = stream.write_all(bytes);
    read_to_end(&mut stream)
}

/// Sends `bytes`, closes our side, and reads until Teal closes its own.
pub fn ask_and_end(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    read_to_end(&mut stream)
}

/// A connection whose reads give up after ten seconds, so that a test fails rather than hangs.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Everything up to the end of the connection; says so if that was a reset or never came.
pub fn read_to_end(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    let mut text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    if let Err(error) = end {
        text.push_str(&format!("<{:?}>", error.kind()));
    }
    text
}

/// The statuses of the answers in `text`, whose bodies must not look like answers.
pub fn statuses(text: &str) -> Vec<u16> {
    let heads = text.match_indices("HTTP/1.1 ").map(|(at, found)| &text[at + found.len()..]);
    heads.map(|head| head[..3].parse().unwrap_or_else(|_| panic!("no status in {text:?}"))).collect()
}

/// What an upstream has got of a request before it answers.
pub struct Asked {
    /// `GET /path HTTP/1.1`.
    pub line: String,
    /// The whole head.
    pub head: String,
}

impl Asked {
    /// The target.
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// What the script does with the connection afterwards.
pub enum Then {
    /// Waits for the next request.
    Keep,
    /// Closes.
    Close,
}

/// Both directions of an upstream's connection.
pub struct Talk {
    /// What Teal sends.
    pub input: BufReader<TcpStream>,
    /// What goes to Teal.
    pub output: TcpStream,
}

impl Talk {
    /// Writes bytes; Teal may have gone.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.output.write_all(bytes.as_ref());
    }

    /// The next `count` bytes, or fewer at the end.
    pub fn take(&mut self, count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = (&mut self.input).take(count).read_to_end(&mut bytes);
        bytes
    }
}

type Script = dyn Fn(&Asked, &mut Talk) -> Then + Send + Sync;

/// An upstream that reads a head and lets a script do the rest; stops when dropped.
pub struct Scripted {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    connections: AtomicU64,
    stop: AtomicBool,
}

impl Scripted {
    /// Starts one.
    pub fn start(script: impl Fn(&Asked, &mut Talk) -> Then + Send + Sync + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (serving, script) = (Arc::clone(&shared), Arc::<Script>::from(Box::new(script) as Box<Script>));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.stop.load(SeqCst) {
                    return;
                }
                serving.connections.fetch_add(1, SeqCst);
                let (shared, script) = (Arc::clone(&serving), Arc::clone(&script));
                std::thread::spawn(move || serve(stream, &shared, &*script));
            }
        });
        Scripted { address, shared }
    }

    /// The request lines that came, in order.
    pub fn lines(&self) -> Vec<String> {
        self.shared.lines.lock().unwrap().clone()
    }

    /// Connections accepted.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(SeqCst)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        // Wakes the accept loop.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
    }
}

fn serve(stream: TcpStream, shared: &Shared, script: &Script) {
    let Ok(output) = stream.try_clone() else { return };
    let _ = output.set_nodelay(true);
    let mut talk = Talk { input: BufReader::new(stream), output };
    while let Some(head) = head_of(&mut talk.input) {
        let line = head.lines().next().unwrap_or_default().to_owned();
        shared.lines.lock().unwrap().push(line.clone());
        if let Then::Close = script(&Asked { line, head }, &mut talk) {
            break;
        }
    }
    drop(talk.output.shutdown(Shutdown::Both));
}

fn head_of(input: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        input.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(head.into_iter().map(char::from).collect())
}

/// A whole answer with this body.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
