//! The live state of one endpoint: where it is, what stands against giving it requests, how busy it is.
//!
//! It outlives the table it was first named in: the publisher hands the same `Endpoint` to every table as long as
//! pool, address and target stay the same, so a reload loses neither health nor in-flight counts. A name with several
//! targets makes several endpoints; one that was never found makes one without a target.
//!
//! Invariants: an endpoint never moves: another target is another endpoint; each [`Obstacle`] has one owner, who alone
//! sets and clears it; `retired` is set once, when no table names the endpoint any more, and never cleared.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::bridge::balancer::Changes;
use crate::bridge::breaker::Breaker;
use crate::bridge::counters::{PerWorker, Tally};
use crate::bridge::ejection::Conduct;
use crate::bridge::room::{Room, Taken};
use crate::config::settings::{Address, Place};
use crate::domain::balance::pace::Pace;
use crate::domain::outcome::Outcome;

pub use crate::domain::health::Health;

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Over TCP.
    Tcp(SocketAddr),
    /// To a socket of this machine.
    Unix(PathBuf),
}

/// One place where a pool's requests can go.
#[derive(Debug)]
pub struct Endpoint {
    /// As configured.
    pub address: Address,
    /// Unique among all endpoints of the process: the key of the workers' reuse lists.
    pub id: u64,
    /// Its own breaker; at rest unless the settings have one.
    pub breaker: Breaker,
    /// Its results, as far as they may take it out.
    pub conduct: Conduct,
    target: Option<Target>,
    health: AtomicU8,
    obstacles: AtomicU32,
    /// Why each obstacle stands, for people; never looked at on a request's path.
    reasons: Mutex<[Option<String>; Obstacle::ALL.len()]>,
    retired: AtomicBool,
    /// Since when nothing stands against it, in microseconds; or [`ALWAYS`], or [`UNSEEN`].
    eligible_since: AtomicU64,
    /// Told of every obstacle that comes or goes.
    changes: Arc<Changes>,
    cut: AtomicBool,
    busy: PerWorker<Busy>,
    connections: AtomicUsize,
}

/// It was eligible from the start.
const ALWAYS: u64 = 0;
/// It became eligible, and no worker has looked since.
const UNSEEN: u64 = u64::MAX;

/// How busy one worker keeps an endpoint, and how fast that answers it.
#[derive(Debug, Default)]
struct Busy {
    in_flight: Tally,
    /// The two halves of a [`Pace`]: the average as bits, and its moment.
    average: Tally,
    renewed: Tally,
}

impl Busy {
    fn pace(&self) -> Pace {
        Pace { average: f64::from_bits(self.average.read()), at: self.renewed.read() }
    }

    fn learn(&self, outcome: Outcome, now: u64) {
        let pace = self.pace().after(outcome, now);
        self.average.set(pace.average.to_bits());
        self.renewed.set(pace.at);
    }
}

/// The place of one connection among those open to an endpoint; free again when dropped.
#[derive(Debug)]
pub struct Slot {
    endpoint: Arc<Endpoint>,
    /// Its place among the connections of its pool, and where others wait for it.
    _taken: Option<Taken>,
    room: Option<Arc<Room>>,
}

impl Slot {
    /// Whose connection it is.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// It takes a place in its pool as well.
    pub fn within(mut self, room: &Arc<Room>, taken: Option<Taken>) -> Slot {
        self.room = taken.is_some().then(|| Arc::clone(room));
        self._taken = taken;
        self
    }

    /// Others wait for its place in the pool: nobody keeps it for nothing.
    pub fn is_wanted(&self) -> bool {
        self.room.as_ref().is_some_and(|room| room.connections.waiting() > 0)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.endpoint.connections.fetch_sub(1, Relaxed);
    }
}

/// What stands against giving an endpoint requests; there may be several at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Obstacle {
    /// Its name was never found: there is nowhere to send a request.
    Unresolved,
    /// It failed its health checks.
    Unhealthy,
    /// It says that it runs something else than the pool is for.
    WrongVersion,
    /// Its own results took it out.
    Ejected,
    /// Its breaker is open.
    BreakerOpen,
    /// It is being taken out of use by an order.
    Draining,
}

impl Obstacle {
    /// All of them, in the order of their numbers.
    pub const ALL: [Obstacle; 6] = [
        Obstacle::Unresolved,
        Obstacle::Unhealthy,
        Obstacle::WrongVersion,
        Obstacle::Ejected,
        Obstacle::BreakerOpen,
        Obstacle::Draining,
    ];

    /// Its name in status, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Obstacle::Unresolved => "unresolved",
            Obstacle::Unhealthy => "unhealthy",
            Obstacle::WrongVersion => "wrong_version",
            Obstacle::Ejected => "ejected",
            Obstacle::BreakerOpen => "breaker_open",
            Obstacle::Draining => "draining",
        }
    }

    /// What an endpoint's own results hold against it: in a panic that does not count.
    const OWN: u32 = Obstacle::Ejected.bit() | Obstacle::BreakerOpen.bit();

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl Endpoint {
    /// A new endpoint. What needs no looking up is its own target.
    pub fn new(id: u64, address: Address, workers: usize) -> Endpoint {
        let target = Target::of(&address);
        Endpoint::found(id, address, target, workers)
    }

    /// A new endpoint where its name was found; `None` while it never was.
    pub fn found(id: u64, address: Address, target: Option<Target>, workers: usize) -> Endpoint {
        let obstacles = if target.is_some() { 0 } else { Obstacle::Unresolved.bit() };
        Endpoint {
            id,
            address,
            breaker: Breaker::default(),
            conduct: Conduct::new(workers),
            target,
            obstacles: AtomicU32::new(obstacles),
            reasons: Mutex::default(),
            health: AtomicU8::new(Health::Unknown as u8),
            retired: AtomicBool::new(false),
            eligible_since: AtomicU64::new(ALWAYS),
            changes: Arc::default(),
            cut: AtomicBool::new(false),
            busy: PerWorker::new(workers),
            connections: AtomicUsize::new(0),
        }
    }

    /// The same, as one of the endpoints that tell `changes` of their obstacles.
    pub fn among(self, changes: &Arc<Changes>) -> Endpoint {
        Endpoint { changes: Arc::clone(changes), ..self }
    }

    /// The same, as one that joins a pool that is in use: it begins slowly.
    pub fn joining(self) -> Endpoint {
        Endpoint { eligible_since: AtomicU64::new(UNSEEN), ..self }
    }

    /// A place for a connection about to be opened, if there are not `most` already.
    pub fn enter(self: &Arc<Endpoint>, most: Option<NonZeroUsize>) -> Option<Slot> {
        let room = |open: usize| most.is_none_or(|most| open < most.get()).then_some(open + 1);
        self.connections.fetch_update(Relaxed, Relaxed, room).ok().map(|_| Slot {
            endpoint: Arc::clone(self),
            _taken: None,
            room: None,
        })
    }

    /// Connections open over all workers.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Where to connect; `None` while the name has never resolved.
    pub fn resolved(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    /// What the health checks say.
    pub fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            1 => Health::Healthy,
            2 => Health::Unhealthy,
            _ => Health::Unknown,
        }
    }

    /// Set by the health checker only.
    pub fn set_health(&self, health: Health) {
        self.health.store(health as u8, Relaxed);
        self.obstruct(Obstacle::Unhealthy, health == Health::Unhealthy);
    }

    /// Puts an obstacle up or takes it away; true if that changed anything. Called by the obstacle's owner only.
    pub fn obstruct(&self, obstacle: Obstacle, stands: bool) -> bool {
        let before = match stands {
            true => self.obstacles.fetch_or(obstacle.bit(), Relaxed),
            false => self.obstacles.fetch_and(!obstacle.bit(), Relaxed),
        };
        let changed = (before & obstacle.bit() != 0) != stands;
        if changed {
            if before == obstacle.bit() && !stands {
                self.eligible_since.store(UNSEEN, Relaxed);
            }
            self.changes.add();
        }
        changed
    }

    /// Says in words why an obstacle stands. Called by the obstacle's owner in the control plane only.
    pub fn explain(&self, obstacle: Obstacle, reason: impl Into<String>) {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)[obstacle as usize] = Some(reason.into());
    }

    /// Why it gets no requests: the word of every obstacle that stands, as far as somebody gave one.
    pub fn reason(&self) -> Option<String> {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let given: Vec<&str> = self.obstacles().filter_map(|obstacle| reasons[obstacle as usize].as_deref()).collect();
        (!given.is_empty()).then(|| given.join("; "))
    }

    /// Keeps it from requests until its first check passed.
    pub fn await_check(&self) {
        self.explain(Obstacle::Unhealthy, "not checked yet");
        self.obstruct(Obstacle::Unhealthy, true);
    }

    /// What stands against giving it requests now.
    pub fn obstacles(&self) -> impl Iterator<Item = Obstacle> {
        let standing = self.obstacles.load(Relaxed);
        Obstacle::ALL.into_iter().filter(move |obstacle| standing & obstacle.bit() != 0)
    }

    /// May it be given a request?
    pub fn is_eligible(&self) -> bool {
        self.obstacles.load(Relaxed) == 0
    }

    /// Does this stand against it?
    pub fn has(&self, obstacle: Obstacle) -> bool {
        self.obstacles.load(Relaxed) & obstacle.bit() != 0
    }

    /// May it be given a request if this obstacle did not count?
    pub fn is_eligible_despite(&self, obstacle: Obstacle) -> bool {
        self.obstacles.load(Relaxed) & !obstacle.bit() == 0
    }

    /// May it be given a request when too few others can?
    pub fn is_eligible_in_panic(&self) -> bool {
        self.obstacles.load(Relaxed) & !Obstacle::OWN == 0
    }

    /// Since when nothing stands against it, in microseconds; `None` if that was so from the start, and ahead of all
    /// time until somebody has looked.
    pub fn eligible_since(&self) -> Option<u64> {
        Some(self.eligible_since.load(Relaxed)).filter(|since| *since != ALWAYS)
    }

    /// Somebody looks at `now`: if it has become eligible, that counts from here on. Who does not know the time says 0:
    /// then it always was.
    pub fn seen_eligible(&self, now: u64) {
        if self.eligible_since.load(Relaxed) == UNSEEN && self.is_eligible() {
            self.eligible_since.store(now, Relaxed);
        }
    }

    /// Taken out of use, or put into use again. Called by the publisher only.
    pub fn drain(&self, drained: bool) {
        if !drained {
            self.cut.store(false, Relaxed);
        }
        self.obstruct(Obstacle::Draining, drained);
    }

    /// It is out of use by an order: it gets no request, not even one that was on its way here.
    pub fn is_draining(&self) -> bool {
        self.obstacles.load(Relaxed) & Obstacle::Draining.bit() != 0
    }

    /// Idle connections to it serve nobody any more.
    pub fn is_leaving(&self) -> bool {
        self.is_retired() || self.is_draining()
    }

    /// The deadline of its drain has passed: what is in flight here is cut.
    pub fn cut(&self) {
        self.cut.store(true, Relaxed);
    }

    /// See [`Endpoint::cut`].
    pub fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    /// Takes over what is known of another that is spoken to in another way, but is at the same place.
    pub fn succeed(&self, other: &Endpoint) {
        self.health.store(other.health.load(Relaxed), Relaxed);
        self.obstacles.store(other.obstacles.load(Relaxed), Relaxed);
        self.obstruct(Obstacle::Ejected, self.conduct.succeed(&other.conduct));
        let reasons = other.reasons.lock().unwrap_or_else(PoisonError::into_inner).clone();
        *self.reasons.lock().unwrap_or_else(PoisonError::into_inner) = reasons;
        self.eligible_since.store(other.eligible_since.load(Relaxed), Relaxed);
        self.breaker.succeed(&other.breaker);
    }

    /// Puts up or takes away what its breaker has against requests, as it stands now.
    pub fn follow_breaker(&self, trials: u8) {
        loop {
            let state = self.breaker.state();
            self.obstruct(Obstacle::BreakerOpen, state.blocks(trials));
            // Another worker may have moved it on in between, and been here first.
            if self.breaker.state() == state {
                return;
            }
        }
    }

    /// Other rules hold for its breaker from `now` on.
    pub fn reset_breaker(&self, now: u64) {
        self.breaker.reset(now);
        self.obstruct(Obstacle::BreakerOpen, false);
    }

    /// An attempt of `worker` turned out like this at `now` (microseconds, see [`crate::clock`]).
    pub fn turned_out(&self, worker: usize, now: u64, outcome: Outcome) {
        self.busy.of(worker).learn(outcome, now);
    }

    /// The count of requests that `worker` has in flight here.
    pub fn in_flight_of(&self, worker: usize) -> &Tally {
        &self.busy.of(worker).in_flight
    }

    /// How fast it answers `worker`.
    pub fn pace_of(&self, worker: usize) -> Pace {
        self.busy.of(worker).pace()
    }

    /// Requests in flight here, over all workers.
    pub fn in_flight(&self) -> u64 {
        self.busy.iter().map(|busy| busy.in_flight.read()).fold(0, u64::wrapping_add)
    }

    /// No table names this endpoint any more: its idle connections can go.
    pub fn retire(&self) {
        self.retired.store(true, Relaxed);
    }

    /// See [`Endpoint::retire`].
    pub fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }
}

/// As configured, and where that was found if it had to be looked up: unique within a pool.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Some(target) if self.address.is_name() => write!(f, "{} at {target}", self.address),
            _ => self.address.fmt(f),
        }
    }
}

impl Target {
    /// Where an address is that needs no looking up.
    pub fn of(address: &Address) -> Option<Target> {
        match &address.place {
            Place::Host { host, port } => host.parse::<IpAddr>().ok().map(|ip| Target::Tcp(SocketAddr::new(ip, *port))),
            Place::Unix(path) => Some(Target::Unix(path.clone())),
            Place::Srv(_) => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(address) => address.fmt(f),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_obstacle_stands_by_itself() {
        let endpoint = Endpoint::new(1, "http://10.0.0.7:8080".parse().unwrap(), 1);
        for obstacle in Obstacle::ALL {
            assert!(endpoint.is_eligible(), "{obstacle:?}");
            assert!(endpoint.obstruct(obstacle, true) && !endpoint.obstruct(obstacle, true));
            assert_eq!(endpoint.obstacles().collect::<Vec<_>>(), [obstacle]);
            assert!(!endpoint.is_eligible() && endpoint.is_eligible_despite(obstacle));
            assert!(endpoint.obstruct(obstacle, false) && !endpoint.obstruct(obstacle, false));
        }
        endpoint.obstruct(Obstacle::Ejected, true);
        endpoint.set_health(Health::Unhealthy);
        assert!(!endpoint.is_eligible_despite(Obstacle::Ejected) && !endpoint.is_eligible_despite(Obstacle::Unhealthy));
        endpoint.set_health(Health::Healthy);
        assert_eq!(endpoint.obstacles().collect::<Vec<_>>(), [Obstacle::Ejected]);
    }

    #[test]
    fn an_endpoint_says_where_it_was_found() {
        let tcp = Target::Tcp("10.0.0.7:8080".parse().unwrap());
        let table = [
            ("http://10.0.0.7:8080", None, "http://10.0.0.7:8080"),
            ("unix:/run/app.sock", None, "unix:/run/app.sock"),
            ("http://app:8080", None, "http://app:8080"),
            ("http://app:8080", Some(tcp.clone()), "http://app:8080 at 10.0.0.7:8080"),
            ("srv:_http._tcp.app", Some(tcp), "srv:_http._tcp.app at 10.0.0.7:8080"),
        ];
        for (address, target, shown) in table {
            let address: Address = address.parse().unwrap();
            let endpoint = match target {
                None => Endpoint::new(1, address, 1),
                target => Endpoint::found(1, address, target, 1),
            };
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(endpoint.is_eligible(), shown != "http://app:8080", "{shown}");
        }
    }
}
