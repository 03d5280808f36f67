//! `GET /v1/services/{s}/streams`: what has been in flight for long.
//!
//! A serde border file like its parent.

use serde::{Deserialize, Serialize};

use crate::control::command;

/// Long streams of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Streams {
    /// The service.
    pub service: String,
    /// How many there are.
    pub total: u64,
    /// The oldest of them, oldest first; at most 1,000.
    pub streams: Vec<Stream>,
}

/// One long stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// `tunnel`, `events`, `grpc`, `answer`.
    pub kind: String,
    /// Its pool.
    pub pool: String,
    /// Its endpoint, and where that was found.
    pub endpoint: String,
    /// Where its request came from.
    pub client: String,
    /// Since it was dispatched, in seconds.
    pub age_seconds: f64,
    /// Bytes that went to the endpoint; among them the head of a request over HTTP/1.1.
    pub bytes_up: u64,
    /// Bytes of the answer, or of the tunnel, that went on to the client.
    pub bytes_down: u64,
}

impl From<command::StreamNow> for Stream {
    fn from(now: command::StreamNow) -> Stream {
        let command::StreamNow { kind, pool, endpoint, client, age_us, bytes: (bytes_up, bytes_down) } = now;
        let age_seconds = (age_us / 1_000) as f64 / 1e3;
        Stream { kind: kind.to_owned(), pool, endpoint, client: client.to_string(), age_seconds, bytes_up, bytes_down }
    }
}
