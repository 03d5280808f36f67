//! What can be asked of the control plane, and what it answers: the vocabulary between API and controller.
//!
//! Plain values; `admin::wire` mirrors them as JSON.

mod intake;

use std::net::IpAddr;
use std::time::Duration;

pub use intake::{ConcurrencyStatus, IntakeStatus, RateLimitStatus};

use crate::bridge::endpoint::{Health, Obstacle};
use crate::config::settings::Guard;
use crate::control::faults::FaultStatus;
use crate::control::state::Finished;
use crate::domain::balance::Rank;
use crate::domain::drain::Part;
use crate::domain::rescue::Refused;
use crate::domain::rollout::machine::{Rollout, UnixMillis};
use crate::domain::rollout::plan::Plan;
use crate::domain::split::Share;

/// A change that every worker has taken up and the journal holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The service's weight epoch now.
    pub epoch: u64,
    /// The table's version that carries it.
    pub version: u64,
    /// From publishing to the last worker's acknowledgement, in microseconds.
    pub acknowledged_us: u64,
    /// Every pool's share now, in the order of the file.
    pub shares: Vec<(String, Share)>,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The table's version now.
    pub version: u64,
    /// False if the file says what is running already.
    pub changed: bool,
    /// What the file asks for that only a restart can do.
    pub needs_restart: Vec<String>,
}

/// A rollout to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Deploy {
    /// The service.
    pub service: String,
    /// The pool that is to become active.
    pub to: String,
    /// The plan; `None` takes the service's own.
    pub plan: Option<Plan>,
    /// Repeating a deploy with the same key answers with the rollout it started the first time.
    pub key: Option<String>,
    /// Who asks.
    pub by: String,
}

/// What can be done to a running rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Hold it.
    Pause,
    /// Go on, or approve a pause.
    Resume,
    /// Skip what is left.
    Promote,
    /// Give up: all traffic to the baseline.
    Abort {
        /// Why; may be empty.
        reason: String,
    },
}

/// An order that takes something out of use, or puts it into use again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// The service.
    pub service: String,
    /// The pool.
    pub pool: String,
    /// The address, as somebody wrote it; `None` for all of the pool.
    pub endpoint: Option<String>,
    /// What is wanted.
    pub to: Use,
    /// When what is in flight is cut; `None` waits for it however long it takes.
    pub deadline: Option<Duration>,
    /// Even if a pool that has traffic is left without an endpoint.
    pub force: bool,
    /// Who asks.
    pub by: String,
}

/// Whether something is to be in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is to get no requests.
    Drained,
    /// It is to get requests.
    InUse,
}

/// An order that every worker has taken up and the journal holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drained {
    /// The service.
    pub service: String,
    /// What of it.
    pub part: Part,
    /// What was ordered.
    pub to: Use,
    /// Requests in flight there.
    pub in_flight: u64,
    /// The table's version from which on it holds.
    pub version: u64,
    /// From publishing to the last worker's acknowledgement, in microseconds.
    pub acknowledged_us: u64,
}

/// One endpoint, in more detail than a service's status has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointNow {
    /// Its pool.
    pub pool: String,
    /// As configured.
    pub address: String,
    /// Where it was found.
    pub target: Option<String>,
    /// What it gets beside the others.
    pub rank: Rank,
    /// It is out of use by an order.
    pub is_draining: bool,
    /// What stands against giving it requests.
    pub obstacles: Vec<&'static str>,
    /// Why, in words.
    pub reason: Option<String>,
    /// Attempts that have not ended.
    pub in_flight: u64,
    /// Connections open to it.
    pub connections: u64,
}

/// One long stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamNow {
    /// What it is.
    pub kind: &'static str,
    /// Its pool.
    pub pool: String,
    /// Its endpoint, and where it was found.
    pub endpoint: String,
    /// Where its request came from.
    pub client: IpAddr,
    /// Since it was dispatched, in microseconds.
    pub age_us: u64,
    /// Bytes up and down.
    pub bytes: (u64, u64),
}

/// Why something asked for was not done. Nothing changed, unless the text says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such thing.
    #[error("there is no {kind} `{name}`{}", hint(.suggestion))]
    Unknown {
        /// `service`, `pool`, `endpoint`, `rollout`.
        kind: &'static str,
        /// As asked for.
        name: String,
        /// The nearest name there is.
        suggestion: Option<String>,
    },
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It makes sense, but not now.
    #[error("{0}")]
    Conflict(String),
    /// It was decided on an older state.
    #[error("the service is at epoch {current}, not {expected}: look again and decide anew")]
    Stale {
        /// As the caller thought.
        expected: u64,
        /// As it is.
        current: u64,
    },
    /// A pool that is to get traffic has no healthy endpoint.
    #[error("pool `{pool}` has no healthy endpoint: {detail}")]
    Unhealthy {
        /// The pool.
        pool: String,
        /// Endpoint by endpoint.
        detail: String,
    },
    /// The new configuration is not legal; the text is the whole report.
    #[error("{0}")]
    Config(String),
    /// It was tried and could not be completed; the text says what holds now.
    #[error("{0}")]
    Failed(String),
    /// The process is ending.
    #[error("teal is shutting down")]
    ShuttingDown,
}

fn hint(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or(String::new(), |name| format!("; did you mean `{name}`?"))
}

/// One service as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Its hosts; none means any.
    pub hosts: Vec<String>,
    /// Its path prefixes; none means every path.
    pub paths: Vec<String>,
    /// The pool that rollbacks return to.
    pub active: String,
    /// The weight epoch.
    pub epoch: u64,
    /// What the judge may do.
    pub guard: Guard,
    /// In the order of the file.
    pub pools: Vec<PoolStatus>,
    /// The rollout under way.
    pub rollout: Option<Rollout>,
    /// What the judge sees, while two pools share traffic.
    pub judge: Option<JudgeStatus>,
    /// Its limits.
    pub intake: IntakeStatus,
    /// Faults that are injected now.
    pub faults: Vec<FaultStatus>,
    /// Who made the last change.
    pub changed_by: String,
    /// When.
    pub changed_at: UnixMillis,
}

/// One pool as it is now. Counts are since the process began.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Its share of traffic.
    pub share: Share,
    /// It was rolled back and not deployed since.
    pub rolled_back: bool,
    /// Attempts that have not ended.
    pub in_flight: u64,
    /// Response heads by class, 1xx to 5xx.
    pub responses: [u64; 5],
    /// Failed attempts by kind, in the order of `Failure::ALL`.
    pub failures: [u64; 6],
    /// Further attempts.
    pub retries: u64,
    /// Its failures that the active pool answered instead.
    pub rescued: u64,
    /// Those that it would have, in the order of `Refused::ALL`.
    pub unrescued: [u64; Refused::ALL.len()],
    /// Median of dispatch to response head, in microseconds.
    pub p50_us: Option<u64>,
    /// 99th percentile of the same.
    pub p99_us: Option<u64>,
    /// Too few of its endpoints are eligible: ejections and breakers do not count.
    pub panics: bool,
    /// Its priorities, and the part of its requests that goes to each.
    pub priorities: Vec<(u8, f64)>,
    /// Its breaker, if the settings have one.
    pub breaker: Option<BreakerStatus>,
    /// Who found no room in it, and who waits.
    pub room: RoomStatus,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// As configured.
    pub address: String,
    /// What it gets beside the others.
    pub rank: Rank,
    /// What health checks say.
    pub health: Health,
    /// What stands against giving it requests.
    pub obstacles: Vec<Obstacle>,
    /// Why, in words.
    pub reason: Option<String>,
    /// Attempts that have not ended.
    pub in_flight: u64,
    /// Its own breaker, if the settings have one.
    pub breaker: Option<BreakerStatus>,
}

/// One breaker as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerStatus {
    /// `closed`, `open` or `half_open`.
    pub phase: &'static str,
    /// How often it opened since it has its present rules.
    pub trips: u64,
    /// While it is open: for how many milliseconds at least.
    pub wait_ms: Option<u64>,
    /// Why it opened last; empty if it never did.
    pub reason: String,
    /// Requests sent to the active pool in place of this one; of a pool's.
    pub diverted: u64,
    /// Requests answered 503; of a pool's.
    pub blocked: u64,
}

/// What came of a pool's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoomStatus {
    /// Requests that wait for a place or a connection.
    pub waiting: u64,
    /// Requests answered 503 because as many wait as may.
    pub overflowed: u64,
    /// Requests answered 503 because they waited too long.
    pub queued_too_long: u64,
}

/// What the judge sees of one canary.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgeStatus {
    /// The pool under judgement.
    pub canary: String,
    /// The pool it is compared with.
    pub baseline: String,
    /// Evidence that the canary is worse; a rollback needs `needed`.
    pub evidence: f64,
    /// 1/alpha.
    pub needed: f64,
    /// Always-valid p-value: 1 over the highest evidence so far, at most 1.
    pub p: f64,
    /// Judged requests of the canary: all and bad.
    pub canary_units: (u64, u64),
    /// Judged requests of the baseline: all and bad.
    pub baseline_units: (u64, u64),
    /// True if the canary may be approved in this step.
    pub approved: bool,
    /// The judge's word in one sentence.
    pub sentence: String,
}

/// A rollout, running or over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Still running.
    Running(Box<Rollout>),
    /// Over.
    Over(Box<Finished>),
}
