//! Load: many keep-alive connections, one thread each, every request with an id of its own and kept on record.
//!
//! The peers answer `POOL ID PADDING`, so that a record says which pool answered, and an answer that belongs to
//! another request, or is not whole, is a failure.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::client::{Answer, Broken, Client};

/// Appended to every answer: more than one small write.
pub const PADDING: usize = 1000;

/// The clock of a drill: monotonic, with the wall time of its beginning for comparing with logs.
#[derive(Clone, Copy)]
pub struct Origin {
    instant: Instant,
    wall: Duration,
}

impl Origin {
    pub fn now() -> Origin {
        Origin { instant: Instant::now(), wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap() }
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.instant.elapsed()
    }

    /// Wall-clock seconds at `elapsed`.
    pub fn wall(&self, elapsed: Duration) -> f64 {
        (self.wall + elapsed).as_secs_f64()
    }
}

/// What became of a request.
#[derive(Debug, thiserror::Error)]
pub enum Outcome {
    /// 200 and the whole, right body, from this pool.
    #[error("from {0}")]
    Good(String),
    /// Any other answer.
    #[error("answered {0}")]
    Wrong(String),
    /// The connection broke.
    #[error("{0}")]
    Broken(Broken),
}

/// One request.
#[derive(Debug)]
pub struct Record {
    pub id: u64,
    pub post: bool,
    pub sent: Duration,
    pub done: Duration,
    pub outcome: Outcome,
}

impl Record {
    pub fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Good(_))
    }

    /// It began and did not end.
    pub fn is_cut(&self) -> bool {
        matches!(self.outcome, Outcome::Broken(Broken::Cut(_)))
    }

    /// It was under way at some time of these.
    pub fn was_open(&self, from: Duration, to: Duration) -> bool {
        self.sent <= to && self.done >= from
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = if self.post { "POST" } else { "GET" };
        write!(f, "{method} {}, sent at {:?}, after {:?}: {}", self.id, self.sent, self.done - self.sent, self.outcome)
    }
}

/// What load to make.
#[derive(Clone, Copy)]
pub struct Shape {
    pub connections: u64,
    /// Time from one request of a connection to its next; zero is as fast as answers come.
    pub pace: Duration,
    /// Goes on after failures with a fresh connection; else a connection ends when the server closes it.
    pub reconnects: bool,
}

/// What the requests of each connection are.
#[derive(Clone, Copy)]
pub struct Mix {
    /// Of ten requests so many are POSTs.
    pub posts: u32,
    /// After so many a connection has done its part.
    pub turns: u32,
}

impl Default for Mix {
    fn default() -> Mix {
        // The share of writes that the published comparison has.
        Mix { posts: 3, turns: u32::MAX }
    }
}

/// Load under way.
pub struct Load {
    pub origin: Origin,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Record>>>,
}

impl Load {
    /// Starts to ask `address`.
    pub fn start(address: SocketAddr, shape: Shape) -> Load {
        Load::of(address, shape, Mix::default())
    }

    /// The same with requests of this mix.
    pub fn of(address: SocketAddr, shape: Shape, mix: Mix) -> Load {
        let (origin, stop) = (Origin::now(), Arc::new(AtomicBool::new(false)));
        let start = |index| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || one(address, shape, mix, index, origin, &stop))
        };
        let threads = (1..=shape.connections).map(start).collect();
        Load { origin, stop, threads }
    }

    /// Ends it and returns all records.
    pub fn stop(self) -> Vec<Record> {
        self.stop.store(true, Relaxed);
        self.finish()
    }

    /// Waits until every connection has had its turns, and returns all records.
    pub fn finish(mut self) -> Vec<Record> {
        self.threads.drain(..).flat_map(|thread| thread.join().expect("a load thread does not panic")).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn one(address: SocketAddr, shape: Shape, mix: Mix, index: u64, origin: Origin, stop: &AtomicBool) -> Vec<Record> {
    let mut records = Vec::new();
    let mut client = None;
    let first = origin.instant + shape.pace.mul_f64(index as f64 / shape.connections as f64);
    for turn in 0..mix.turns {
        let due = first + shape.pace * turn;
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            super::pace(early);
        }
        if stop.load(Relaxed) {
            break;
        }
        let id = index << 32 | u64::from(turn);
        // Mixed at every moment: connections ask in step.
        let post = (index + u64::from(turn)) % 10 < u64::from(mix.posts);
        let sent = origin.elapsed();
        let result = ask(&mut client, address, id, post);
        let done = origin.elapsed();
        let keeps = result.as_ref().is_ok_and(|answer| !answer.closes());
        if !keeps {
            client = None;
        }
        let outcome = match result {
            Ok(answer) => judge(answer.status, &answer.body, id),
            Err(broken) => Outcome::Broken(broken),
        };
        if matches!(outcome, Outcome::Broken(Broken::Refused(_))) {
            super::pace(Duration::from_millis(5));
        }
        records.push(Record { id, post, sent, done, outcome });
        if !keeps && !shape.reconnects {
            break;
        }
    }
    records
}

fn ask(client: &mut Option<Client>, address: SocketAddr, id: u64, post: bool) -> Result<Answer, Broken> {
    let open = match client {
        Some(open) => open,
        None => client.insert(Client::connect(address)?),
    };
    let target = format!("/?id={id}");
    // Bodies of many sizes: some fit the first segment, some do not.
    let body = vec![b'b'; (id % 7) as usize * 700];
    match post {
        true => open.send("POST", &target, "", &body),
        false => open.get(&target),
    }
}

/// What an answer to request `id` is worth.
pub fn judge(status: u16, body: &[u8], id: u64) -> Outcome {
    let text = String::from_utf8_lossy(body);
    let mut words = text.split(' ');
    let (pool, said, padding) = (words.next().unwrap_or_default(), words.next(), words.next());
    let whole = said == Some(&id.to_string()) && padding.is_some_and(|padding| padding.len() == PADDING);
    match status == 200 && whole {
        true => Outcome::Good(pool.to_owned()),
        false => Outcome::Wrong(format!("{status} {text:.200}")),
    }
}
