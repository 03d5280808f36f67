//! Long streams: what has been in flight for so long that somebody may want to know who it is.
//!
//! A request that streams, or a tunnel, is written here once it is old; everything shorter costs nothing. Each worker
//! has a list of its own, under a lock that only the admin API ever contends for, and takes it outside of any request:
//! from its sweep, and when an old stream ends. Past the limit the newer ones are counted and not listed.
//!
//! Invariant: a worker lists at most [`LISTED`] streams.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;

use crate::bridge::counters::PerWorker;

/// Streams that a worker lists, and that are shown at most: more than anybody reads, a few hundred kilobytes.
pub const LISTED: usize = 1_000;

/// What a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Both sides switched protocols: a WebSocket, as a rule.
    Tunnel,
    /// Server-sent events.
    Events,
    /// gRPC.
    Grpc,
    /// Any other answer.
    Answer,
}

impl Kind {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Tunnel => "tunnel",
            Kind::Events => "events",
            Kind::Grpc => "grpc",
            Kind::Answer => "answer",
        }
    }
}

/// One long stream.
#[derive(Debug)]
pub struct Stream {
    /// The service.
    pub service: String,
    /// The pool.
    pub pool: String,
    /// The endpoint, and where it was found.
    pub endpoint: String,
    /// What it is.
    pub kind: Kind,
    /// Where the request came from.
    pub client: IpAddr,
    /// When it was dispatched, in microseconds since the process began.
    pub dispatched: u64,
    up: AtomicU64,
    down: AtomicU64,
}

/// All long streams, by worker.
#[derive(Debug)]
pub struct Streams(PerWorker<Mutex<Slab<Arc<Stream>>>>);

impl Stream {
    /// A stream of which nothing has been counted.
    pub fn new(place: (&str, &str, String), kind: Kind, client: IpAddr, dispatched: u64) -> Stream {
        let (service, pool, endpoint) = place;
        Stream {
            service: service.to_owned(),
            pool: pool.to_owned(),
            endpoint,
            kind,
            client,
            dispatched,
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        }
    }

    /// So many bytes have gone up and down, as far as they are counted; said by its worker.
    pub fn moved(&self, up: u64, down: u64) {
        self.up.store(up, Relaxed);
        self.down.store(down, Relaxed);
    }

    /// Bytes that went up and down.
    pub fn bytes(&self) -> (u64, u64) {
        (self.up.load(Relaxed), self.down.load(Relaxed))
    }
}

impl Streams {
    /// No streams of `workers`.
    pub fn new(workers: usize) -> Streams {
        Streams(PerWorker::new(workers))
    }

    /// Lists a stream of a worker, if there is room; what it leaves by.
    pub fn enter(&self, worker: usize, stream: impl FnOnce() -> Stream) -> Option<(usize, Arc<Stream>)> {
        let mut listed = self.of(worker);
        if listed.len() >= LISTED {
            return None;
        }
        let stream = Arc::new(stream());
        Some((listed.insert(Arc::clone(&stream)), stream))
    }

    /// A stream has ended.
    pub fn leave(&self, worker: usize, key: usize) {
        self.of(worker).try_remove(key);
    }

    /// Those of a service, the oldest first, as many as are shown.
    pub fn oldest(&self, service: &str) -> Vec<Arc<Stream>> {
        let mut all = Vec::new();
        for worker in self.0.iter() {
            let listed = worker.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(listed.iter().filter(|(_, stream)| stream.service == service).map(|(_, one)| Arc::clone(one)));
        }
        all.sort_by_key(|stream| stream.dispatched);
        all.truncate(LISTED);
        all
    }

    fn of(&self, worker: usize) -> MutexGuard<'_, Slab<Arc<Stream>>> {
        self.0.of(worker).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(service: &str, dispatched: u64) -> Stream {
        let client = IpAddr::from([192, 0, 2, 1]);
        Stream::new((service, "blue", "http://a:1".to_owned()), Kind::Events, client, dispatched)
    }

    #[test]
    fn the_oldest_of_a_service_are_shown_and_no_worker_lists_more_than_its_share() {
        let streams = Streams::new(2);
        let keys: Vec<_> =
            (0..LISTED as u64).map(|at| streams.enter(0, || stream("shop", 1_000 - at)).unwrap().0).collect();
        assert!(streams.enter(0, || stream("shop", 0)).is_none(), "there is no room");
        let (_, other) = streams.enter(1, || stream("shop", 0)).unwrap();
        streams.enter(1, || stream("blog", 0)).unwrap();
        other.moved(7, 9);
        let oldest = streams.oldest("shop");
        assert_eq!((oldest.len(), oldest[0].bytes(), oldest[1].dispatched), (LISTED, (7, 9), 1));
        streams.leave(0, keys[0]);
        assert!(streams.enter(0, || stream("shop", 5)).is_some(), "one has left");
        assert_eq!(streams.oldest("blog").len(), 1);
    }
}
