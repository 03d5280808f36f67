//! An upstream without manners: each connection is a script that reads and says what it likes, when it likes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use super::client::PATIENCE;

/// A running upstream; accepts no more once dropped.
pub struct Raw {
    address: SocketAddr,
    accepted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

/// One connection; closed when dropped.
pub struct Talk {
    input: BufReader<TcpStream>,
}

impl Raw {
    /// Plays `script` on every connection; it is given the connection's number, from 1.
    pub fn start(script: impl Fn(u64, &mut Talk) + Send + Sync + 'static) -> Raw {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (counter, stopped, script) = (Arc::clone(&accepted), Arc::clone(&stop), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(SeqCst) {
                    return;
                }
                let (number, script) = (counter.fetch_add(1, SeqCst) + 1, Arc::clone(&script));
                stream.set_read_timeout(PATIENCE).unwrap();
                stream.set_nodelay(true).unwrap();
                std::thread::spawn(move || script(number, &mut Talk { input: BufReader::new(stream) }));
            }
        });
        Raw { address, accepted, stop }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections accepted.
    pub fn connections(&self) -> u64 {
        self.accepted.load(SeqCst)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        // Wakes the accept loop.
        drop(TcpStream::connect(self.address));
    }
}

impl Talk {
    /// The next head with its empty line; `None` if the connection ended first.
    pub fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.input.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        Some(head)
    }

    /// So many bytes; `None` if the connection ended first.
    pub fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.input.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Says something; nobody may be there to hear it.
    pub fn say(&mut self, text: &str) {
        let _ = self.input.get_mut().write_all(text.as_bytes());
    }

    /// Waits for the other side's end, whatever it says before that.
    pub fn until_ended(&mut self) {
        let _ = self.input.read_to_end(&mut Vec::new());
    }
}
