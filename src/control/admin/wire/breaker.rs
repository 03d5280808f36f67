//! Breakers and limits of pools in the admin API's JSON. A serde border file.

use serde::{Deserialize, Serialize};

use crate::control::command::{BreakerStatus, RoomStatus};

/// One breaker as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// `closed`, `open` or `half_open`.
    pub state: String,
    /// How often it opened since it has its present rules.
    pub trips: u64,
    /// While it is open: for how many milliseconds at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// Why it opened last; empty if it never did.
    pub reason: String,
    /// Requests sent to the active pool in place of this one. Only pools have them.
    #[serde(default)]
    pub diverted: u64,
    /// Requests answered 503. Only pools have them.
    #[serde(default)]
    pub blocked: u64,
}

impl From<BreakerStatus> for Breaker {
    fn from(status: BreakerStatus) -> Breaker {
        let BreakerStatus { phase, trips, wait_ms, reason, diverted, blocked } = status;
        Breaker { state: phase.to_owned(), trips, wait_ms, reason, diverted, blocked }
    }
}

/// What came of a pool's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Requests that wait for a place or a connection.
    pub waiting: u64,
    /// Requests answered 503 because as many wait as may.
    pub overflowed: u64,
    /// Requests answered 503 because they waited too long.
    pub queued_too_long: u64,
}

impl From<RoomStatus> for Room {
    fn from(status: RoomStatus) -> Room {
        let RoomStatus { waiting, overflowed, queued_too_long } = status;
        Room { waiting, overflowed, queued_too_long }
    }
}
