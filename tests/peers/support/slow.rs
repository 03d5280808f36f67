//! An upstream of the drills' own for what nginx cannot do: answer late, in parts, or only when told to.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::load::PADDING;

type Script = dyn Fn(u64, &mut TcpStream) -> std::io::Result<()> + Send + Sync;

/// A running upstream; stops accepting when dropped.
pub struct Slow {
    pub address: SocketAddr,
    arrived: Arc<Mutex<BTreeSet<u64>>>,
    stop: Arc<AtomicBool>,
}

impl Slow {
    /// Answers as the load expects it, head first, padding later; `wait` says how long by the request's id.
    pub fn start(name: &'static str, wait: impl Fn(u64) -> Duration + Send + Sync + 'static) -> Slow {
        Slow::scripted(move |id, out| {
            let begin = format!("{name} {id} ");
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{begin}", begin.len() + PADDING);
            super::pace(wait(id) / 2);
            out.write_all(head.as_bytes())?;
            super::pace(wait(id) / 2);
            out.write_all("x".repeat(PADDING).as_bytes())
        })
    }

    /// Lets `script` write each answer.
    pub fn scripted(script: impl Fn(u64, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Slow {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (arrived, stop) = (Arc::<Mutex<BTreeSet<u64>>>::default(), Arc::new(AtomicBool::new(false)));
        let (seen, stopped, script) =
            (Arc::clone(&arrived), Arc::clone(&stop), Arc::<Script>::from(Box::new(script) as Box<Script>));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(SeqCst) {
                    return;
                }
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                std::thread::spawn(move || serve(stream, &seen, &*script));
            }
        });
        Slow { address, arrived, stop }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The ids of the requests that arrived whole.
    pub fn arrived(&self) -> BTreeSet<u64> {
        self.arrived.lock().unwrap().clone()
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        // Wakes the accept loop.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
    }
}

fn serve(stream: TcpStream, arrived: &Mutex<BTreeSet<u64>>, script: &Script) {
    let Ok(mut out) = stream.try_clone() else { return };
    let _ = out.set_nodelay(true);
    let mut input = BufReader::new(stream);
    while let Some(id) = request(&mut input) {
        arrived.lock().unwrap().insert(id);
        if script(id, &mut out).is_err() {
            break;
        }
    }
    drop(out.shutdown(Shutdown::Both));
}

/// Reads a request whole and returns its id; none at the end of the connection.
fn request(input: &mut BufReader<TcpStream>) -> Option<u64> {
    let (mut line, mut length, mut id) = (String::new(), 0, 0);
    loop {
        line.clear();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let text = line.trim_end().to_ascii_lowercase();
        if let Some((_, rest)) = text.split_once("?id=") {
            id = rest.split(' ').next()?.parse().ok()?;
        } else if let Some(value) = text.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        } else if text.is_empty() {
            break;
        }
    }
    input.read_exact(&mut vec![0; length]).ok()?;
    Some(id)
}
