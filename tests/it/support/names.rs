//! A name server of one's own: one name, addresses that a test may change, no cache worth mentioning.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// A running name server; stops when dropped.
pub struct Names {
    /// Where it listens.
    pub address: SocketAddr,
    known: Arc<Mutex<Vec<Ipv4Addr>>>,
    stop: Arc<AtomicBool>,
}

impl Names {
    /// Answers every question for an IPv4 address with these, and every other with nothing.
    pub fn start(addresses: &[[u8; 4]]) -> Names {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let known = Arc::new(Mutex::new(addresses.iter().map(|ip| Ipv4Addr::from(*ip)).collect::<Vec<_>>()));
        let stop = Arc::new(AtomicBool::new(false));
        let (answers, stopped) = (Arc::clone(&known), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((n, from)) = socket.recv_from(&mut question) {
                if stopped.load(SeqCst) {
                    return;
                }
                if let Some(answer) = answer(&question[..n], &answers.lock().unwrap()) {
                    drop(socket.send_to(&answer, from));
                }
            }
        });
        Names { address, known, stop }
    }

    /// From now on there are these.
    pub fn set(&self, addresses: &[[u8; 4]]) {
        *self.known.lock().unwrap() = addresses.iter().map(|ip| Ipv4Addr::from(*ip)).collect();
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        // Wakes it.
        drop(UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(&[0], self.address)));
    }
}

/// The question again, and behind it an address record of one second for each (RFC 1035 section 4).
fn answer(question: &[u8], known: &[Ipv4Addr]) -> Option<Vec<u8>> {
    let name = question.get(12..)?.iter().position(|byte| *byte == 0)? + 12;
    let asked = question.get(..name + 5)?;
    let is_address = asked[name + 1..] == [0, 1, 0, 1];
    let records: &[Ipv4Addr] = if is_address { known } else { &[] };
    let mut answer = asked.to_vec();
    answer[2..12].copy_from_slice(&[0x84, 0, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    for record in records {
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend_from_slice(&record.octets());
    }
    Some(answer)
}
