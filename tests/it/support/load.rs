//! A steady load of `GET /` on kept connections, counting what came of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::client::Client;

/// Between two requests of one client, so that tests beside this one get their share of the machine.
const PACE: Duration = Duration::from_micros(300);

/// A running load; ends when dropped.
pub struct Load {
    counts: Arc<Counts>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    served: AtomicU64,
    /// Everything but a 200, by status; 0 stands for no whole answer.
    failed: Mutex<BTreeMap<u16, u64>>,
}

impl Load {
    /// So many clients, each one request after another.
    pub fn start(address: SocketAddr, clients: usize) -> Load {
        let counts = Arc::new(Counts::default());
        let client = |_| {
            let counts = Arc::clone(&counts);
            std::thread::spawn(move || run(address, &counts))
        };
        let clients = (0..clients).map(client).collect();
        Load { counts, clients }
    }

    /// Requests answered so far, however.
    pub fn served(&self) -> u64 {
        self.counts.served.load(SeqCst)
    }

    /// What was not a whole 200 so far, by status; 0 stands for no whole answer.
    pub fn failed(&self) -> BTreeMap<u16, u64> {
        self.counts.failed.lock().unwrap().clone()
    }

    /// Ends the load and says what failed.
    pub fn finish(mut self) -> BTreeMap<u16, u64> {
        self.stop();
        self.failed()
    }

    fn stop(&mut self) {
        self.counts.stop.store(true, SeqCst);
        self.clients.drain(..).for_each(|client| client.join().unwrap());
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(address: SocketAddr, counts: &Counts) {
    let mut client = None;
    while !counts.stop.load(SeqCst) {
        let connection = client.get_or_insert_with(|| Client::connect(address));
        connection.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        let answer = connection.answer();
        let is_last = answer.as_ref().is_some_and(|answer| answer.header("connection") == Some("close"));
        let status = answer.map_or(0, |answer| answer.status);
        counts.served.fetch_add(1, SeqCst);
        if status != 200 {
            *counts.failed.lock().unwrap().entry(status).or_default() += 1;
            // Whether the connection is still of use is not this test's question.
            client = None;
        }
        if is_last {
            client = None;
        }
        super::pace(PACE);
    }
}
