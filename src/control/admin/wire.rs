//! The admin API's JSON: every body that goes in or out, for the server and for the command line alike.
//!
//! A serde border file: the control plane's plain types are mirrored here, so that a change inside never
//! silently changes the API. `answers` makes them from plain types, `orders` turns requests into plain types.
//! Shares are texts such as `10%`, durations texts such as `2m`, moments RFC 3339 in UTC. Words (phases, kinds)
//! are texts, so that an older reader survives a new word.
//!
//! Invariant: bodies of requests refuse fields they do not know; bodies of answers may gain fields
//! (not the plan, which is both).

mod answers;
pub(super) mod body;
mod breaker;
pub mod endpoints;
mod faults;
mod intake;
mod orders;
pub mod streams;
pub mod upgrade;

pub(super) use answers::CLASSES;
pub use breaker::{Breaker, Room};
pub use faults::{ActiveFault, ActiveFaults, Fault, Faults, Matches};
pub use intake::{Concurrency, Intake, RateLimit};

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `GET /v1`: what there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Always `teal`.
    pub name: String,
    /// The version of the running program.
    pub version: String,
    /// The version of the routing table now.
    pub table_version: u64,
    /// The names of the services.
    pub services: Vec<String>,
}

/// `GET /v1/services`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// All services.
    pub services: Vec<ServiceStatus>,
}

/// One service as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Its hosts; none means any.
    pub hosts: Vec<String>,
    /// Its path prefixes; none means every path.
    pub paths: Vec<String>,
    /// The pool that rollbacks return to.
    pub active: String,
    /// Counts changes of the split; the `ETag`.
    pub epoch: u64,
    /// What the judge may do: `rollback`, `hold`, `observe`, `off`.
    pub guard: String,
    /// In the order of the file.
    pub pools: Vec<PoolStatus>,
    /// The rollout under way.
    pub rollout: Option<Rollout>,
    /// What the judge sees, while two pools share traffic.
    pub judge: Option<JudgeStatus>,
    /// Its limits, if it has any.
    #[serde(default, skip_serializing_if = "Intake::is_empty")]
    pub intake: Intake,
    /// Faults that are injected now: what is seen may be a drill.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<ActiveFault>,
    /// Who made the last change.
    pub changed_by: String,
    /// When, RFC 3339.
    pub changed_at: String,
}

/// One pool as it is now. Counts are since the process began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Its share of traffic, such as `10%`.
    pub share: String,
    /// It was rolled back and not deployed since.
    pub rolled_back: bool,
    /// Attempts that have not ended.
    pub in_flight: u64,
    /// Response heads by class: `1xx` to `5xx`.
    pub responses: Ordered<u64>,
    /// Failed attempts by kind: `no_endpoint`, `connect`, `reset`, `timeout`, `truncated`.
    pub failures: Ordered<u64>,
    /// Further attempts.
    pub retries: u64,
    /// Its failures that the active pool answered instead.
    #[serde(default)]
    pub rescued: u64,
    /// Those that it would have, by why it did not: `method`, `body`, `budget`, `baseline`.
    #[serde(default)]
    pub rescue_refused: Ordered<u64>,
    /// Median of dispatch to response head, in microseconds.
    pub p50_us: Option<u64>,
    /// 99th percentile of the same.
    pub p99_us: Option<u64>,
    /// Too few of its endpoints are eligible: ejections and breakers of endpoints do not count.
    pub panics: bool,
    /// The part of its requests that goes to endpoints of each priority, such as `100%`.
    pub priorities: Ordered<String>,
    /// Its breaker, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// Who found no room in it, and who waits.
    #[serde(default)]
    pub room: Room,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// As configured, and where that was found.
    pub address: String,
    /// Its weight beside the others of its priority.
    pub weight: u16,
    /// Its priority; a lower one is used first.
    pub priority: u8,
    /// What health checks say: `unknown`, `healthy`, `unhealthy`.
    pub health: String,
    /// What stands against giving it requests: `unresolved`, `unhealthy`, `wrong_version`, `ejected`, `breaker_open`,
    /// `draining`; none means that it may get some.
    #[serde(default)]
    pub obstacles: Vec<String>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Attempts that have not ended.
    pub in_flight: u64,
    /// Its own breaker, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
}

/// What the judge sees of one canary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeStatus {
    /// The pool under judgement.
    pub canary: String,
    /// The pool it is compared with.
    pub baseline: String,
    /// Evidence that the canary is worse; a rollback needs `needed`.
    pub evidence: f64,
    /// What a rollback needs.
    pub needed: f64,
    /// Always-valid p-value, 0 to 1.
    pub p: f64,
    /// Judged requests of the canary.
    pub canary_requests: Judged,
    /// Judged requests of the baseline.
    pub baseline_requests: Judged,
    /// True if the canary may be approved in this step.
    pub approved: bool,
    /// The judge's word in one sentence.
    pub sentence: String,
}

/// Judged requests of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// All of them.
    pub all: u64,
    /// The bad ones among them.
    pub bad: u64,
}

/// `PUT weights`, `POST rollback`: a change that every worker has taken up and the journal holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The service's weight epoch now; the `ETag`.
    pub epoch: u64,
    /// The table's version that carries it.
    pub version: u64,
    /// From publishing to the last worker's acknowledgement, in microseconds.
    pub acknowledged_us: u64,
    /// Every pool's share now, in the order of the file.
    pub weights: Ordered<String>,
}

/// `POST /v1/config/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The table's version now.
    pub version: u64,
    /// False if the file says what is running already.
    pub changed: bool,
    /// What the file asks for that only a restart can do.
    pub needs_restart: Vec<String>,
}

/// `GET /v1/services/{s}/rollouts`: the one under way, then those that are over, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollouts {
    /// Newest first.
    pub rollouts: Vec<Rollout>,
}

/// One rollout, running or over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Unique for ever.
    pub id: String,
    /// Its service.
    pub service: String,
    /// The pool that served when it began.
    pub baseline: String,
    /// The pool that is to serve.
    pub canary: String,
    /// `ready`, `applying`, `analyzing`, `waiting`, `held`, `promoting`, `rolling_back`, `ended`.
    pub phase: String,
    /// While held: `advised`, `breaker`, `inconclusive`, `paused`, `failed`, `restarted`.
    pub held: Option<String>,
    /// The step it is in, counted from 1; at most `steps_total`.
    pub step: usize,
    /// How many steps the plan has.
    pub steps_total: usize,
    /// Where it is, such as `step 3 of 7: analysis at 5%`.
    pub place: String,
    /// The canary's share that every worker last acknowledged.
    pub share: String,
    /// Whether the judge's latest word in this step was an approval.
    pub approved: bool,
    /// The judge's latest sentence in this step; empty before the first.
    pub verdict: String,
    /// Why it is where it is.
    pub reason: String,
    /// Who asked for it.
    pub started_by: String,
    /// When, RFC 3339.
    pub started_at: String,
    /// How and when it ended.
    pub ended: Option<Ended>,
    /// The plan.
    pub plan: Plan,
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// `promoted`, `rolled_back`, `aborted`.
    pub how: String,
    /// When, RFC 3339; unknown for the moment between the end and its entry in the history.
    pub at: Option<String>,
}

/// One thing that happened: the `data` of `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up from 1 since the process began.
    pub id: u64,
    /// When, RFC 3339.
    pub at: String,
    /// The service it concerns; none for the process.
    pub service: Option<String>,
    /// The rollout it concerns.
    pub rollout: Option<String>,
    /// A stable word.
    pub kind: String,
    /// One sentence.
    pub sentence: String,
    /// How long it took in microseconds, for what takes time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
}

/// Why something asked for was not done (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Always `about:blank`: `title` is the status's own phrase, and `code` tells problems apart.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// The phrase of the status.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, in a sentence or a whole report.
    pub detail: String,
    /// The path that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// A stable word: `unknown`, `invalid`, `conflict`, `stale`, `unhealthy`, `config`, `failed`, `shutting_down`,
    /// `bad_request`, `not_found`, `method_not_allowed`, `too_large`, `media_type`, `host`, `origin`, `token`,
    /// `timeout`, `busy`, `not_ready`.
    pub code: String,
    /// The nearest name there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// With `stale`: the epoch now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_epoch: Option<u64>,
}

/// Body of `PUT /v1/services/{s}/weights`.
///
/// If exactly the active pool is left out, it gets the rest. Else the shares must sum to 100 %, and pools left
/// out get nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Shares by pool, such as `{"green": "10%"}`.
    pub weights: Ordered<String>,
}

/// Body of `POST /v1/services/{s}/rollback`; may be missing altogether.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Body of `POST /v1/services/{s}/rollouts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// The pool that is to become active.
    pub to: String,
    /// Missing: the service's own plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

/// A rollout's plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The steps in order.
    pub steps: Vec<Step>,
    /// What an analysis without a verdict at its deadline leads to.
    #[serde(default)]
    pub on_inconclusive: OnInconclusive,
}

/// One step: `{"weight": "5%"}`, `{"analyze": "2m"}`, `{"analyze": {"dwell": "2m", "deadline": "10m"}}`,
/// `{"pause": "10m"}`, `{"pause": "approve"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The canary's share.
    Weight(String),
    /// Wait for the judge's approval.
    Analyze(Analyze),
    /// A duration, or `approve`.
    Pause(String),
}

/// How long an analysis takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a duration such as \"2m\", or {\"dwell\": \"2m\", \"deadline\": \"10m\"}")]
pub enum Analyze {
    /// At least so long, at most for ever.
    Dwell(String),
    /// With a deadline.
    Bounded(Bounds),
}

/// The least and the longest time of an analysis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// The least time; `1m` if it is left out.
    #[serde(default = "orders::default_dwell")]
    pub dwell: String,
    /// After this long `on_inconclusive` applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
}

/// What an analysis without a verdict at its deadline leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInconclusive {
    /// The rollout stays where it is.
    #[default]
    Hold,
    /// It is rolled back.
    Rollback,
}

/// Body of `POST /v1/rollouts/{id}/actions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// What to do.
    pub action: Verb,
    /// Why; kept with `abort` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Query of `GET /v1/services/{s}/rollouts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// At most so many that are over; 1 to 100, 20 if it is left out.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// Query of `GET /v1/events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct After {
    /// Events after this id, as far as they are kept; 0 for all of them, only new ones if it is left out.
    #[serde(default)]
    pub after: Option<u64>,
}

/// What can be done to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Hold it.
    Pause,
    /// Go on.
    Resume,
    /// Go on past a pause that waits for approval.
    Approve,
    /// Skip what is left.
    Promote,
    /// Give up: all traffic to the baseline.
    Abort,
}

/// Names in one object: far more pools than anyone has, few enough to look for doubles one by one.
const MAX_KEYS: usize = 256;

/// A JSON object whose keys keep their order and may not repeat: a map would silently take the last of two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ordered<V>(pub Vec<(String, V)>);

impl<V> Ordered<V> {
    /// The value under `key`.
    pub fn find(&self, key: &str) -> Option<&V> {
        self.0.iter().find_map(|(name, value)| (name == key).then_some(value))
    }
}

impl<V: Serialize> Serialize for Ordered<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Ordered<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ordered<V>, D::Error> {
        deserializer.deserialize_map(OrderedVisitor(std::marker::PhantomData))
    }
}

struct OrderedVisitor<V>(std::marker::PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for OrderedVisitor<V> {
    type Value = Ordered<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<V>, A::Error> {
        let mut entries = Ordered(Vec::new());
        while let Some((key, value)) = map.next_entry::<String, V>()? {
            if entries.0.len() == MAX_KEYS {
                return Err(A::Error::custom(format_args!("more than {MAX_KEYS} names")));
            }
            if entries.find(&key).is_some() {
                return Err(A::Error::custom(format_args!("`{key}` is named twice")));
            }
            entries.0.push((key, value));
        }
        Ok(entries)
    }
}
