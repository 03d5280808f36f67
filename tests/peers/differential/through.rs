//! Through a running Teal: many connections at once, and upstreams that keep what they get or say what they are told.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use teal::app::{self, Running};

use super::second::{self, Otherwise};
use crate::support::until;

/// Client connections at a time.
const LANES: usize = 8;
const PATIENCE: Duration = Duration::from_secs(20);

/// Teal in this process, before one upstream.
struct Teal(Option<Running>);

impl Teal {
    fn before(upstream: SocketAddr) -> Teal {
        let text = format!(
            "version: 1\nlisten: 127.0.0.1:0\nadmin: off\nstate: none\nworkers: 2\nservices:\n  shop:\n    \
             pools: {{ blue: \"http://{upstream}\" }}\n    health: off\n    retry: off\n"
        );
        let settings = teal::config::parse("differential.yaml", &text, &|_| None, Path::new("."));
        let settings = settings.unwrap_or_else(|report| panic!("{report}"));
        Teal(Some(app::start(settings, None).unwrap()))
    }

    /// Sends each of `all` over a connection of its own; what came back, in the same order.
    fn ask(&self, all: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let address = self.0.as_ref().expect("running until dropped").listen[0];
        let (next, answers) = (AtomicUsize::new(0), Mutex::new(vec![Vec::new(); all.len()]));
        std::thread::scope(|scope| {
            for _ in 0..LANES {
                scope.spawn(|| {
                    while let Some((at, bytes)) =
                        Some(next.fetch_add(1, SeqCst)).and_then(|at| Some((at, all.get(at)?)))
                    {
                        answers.lock().unwrap()[at] = ask(address, bytes);
                    }
                });
            }
        });
        answers.into_inner().unwrap()
    }
}

impl Drop for Teal {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.shutdown();
        }
    }
}

fn ask(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut got = Vec::new();
    let end = stream.read_to_end(&mut got).map_err(|error| error.kind());
    assert!(!matches!(end, Err(std::io::ErrorKind::WouldBlock)), "hangs: {}", bytes.escape_ascii());
    got
}

/// An upstream that keeps the bytes of every connection, and answers each first message.
pub struct Recorder {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    open: AtomicUsize,
    stop: AtomicBool,
    recorded: Mutex<Vec<Vec<u8>>>,
}

impl Recorder {
    pub fn start() -> Recorder {
        let shared = Arc::new(Shared::default());
        let keeping = Arc::clone(&shared);
        let address = serve(move |stream| {
            if keeping.stop.load(SeqCst) {
                return false;
            }
            keeping.open.fetch_add(1, SeqCst);
            let shared = Arc::clone(&keeping);
            std::thread::spawn(move || {
                let bytes = record(stream);
                if !bytes.is_empty() {
                    shared.recorded.lock().unwrap().push(bytes);
                }
                shared.open.fetch_sub(1, SeqCst);
            });
            true
        });
        Recorder { address, shared }
    }

    /// Everything that went up of these.
    pub fn through_teal(self, all: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let teal = Teal::before(self.address);
        teal.ask(all);
        drop(teal);
        // Teal is gone, so nothing new can come; what has come is still being read.
        self.shared.stop.store(true, SeqCst);
        drop(TcpStream::connect(self.address));
        until("the last connections end", PATIENCE, || (self.shared.open.load(SeqCst) == 0).then_some(()));
        std::mem::take(&mut *self.shared.recorded.lock().unwrap())
    }
}

fn record(mut stream: TcpStream) -> Vec<u8> {
    let (mut bytes, mut buffer, mut answered) = (Vec::new(), [0; 16 * 1024], false);
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..n]);
        if !answered && matches!(second::message(&bytes, Otherwise::Empty), second::Read::Whole(_)) {
            answered = true;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        }
    }
    reset(&stream);
    bytes
}

/// An upstream that answers `/N` with the N-th of its answers and closes.
pub struct Sayer {
    address: SocketAddr,
}

impl Sayer {
    pub fn start(answers: Vec<Vec<u8>>) -> Sayer {
        let answers = Arc::new(answers);
        let address = serve(move |mut stream| {
            let answers = Arc::clone(&answers);
            std::thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut byte) {
                        Ok(1) => head.push(byte[0]),
                        _ => return,
                    }
                }
                let target = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
                let number: usize = target.trim_start_matches('/').parse().unwrap();
                let _ = stream.write_all(&answers[number]);
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
                reset(&stream);
            });
            true
        });
        Sayer { address }
    }

    /// What a client gets of each, by the methods of `cases`.
    pub fn through_teal(self, cases: &[(String, Vec<u8>)]) -> Vec<Vec<u8>> {
        let ask = |(number, (method, _)): (usize, &(String, Vec<u8>))| {
            format!("{method} /{number} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").into_bytes()
        };
        Teal::before(self.address).ask(cases.iter().enumerate().map(ask).collect())
    }
}

fn serve(each: impl Fn(TcpStream) -> bool + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || while listener.accept().is_ok_and(|(stream, _)| each(stream)) {});
    address
}

/// Closes without leaving the port behind for a minute: there are far more connections than ports.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
