//! The live side of balancing: what each worker knows of a pool, and the pick.
//!
//! A [`Balancer`] is a plan of [`crate::domain::balance`] for one list of endpoints, beside what moves: whose turn it is
//! and how the levels stand, each worker for itself. The standing takes a look at every endpoint, so it is kept until an
//! obstacle came or went ([`Changes`]), or until somebody has warmed up a bit more.
//!
//! Invariants: a balancer is used with the endpoints that it was made for; what belongs to a worker is written by that
//! worker only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::bridge::counters::PerWorker;
use crate::bridge::endpoint::Endpoint;
use crate::domain::balance::{Balance, LEVELS, Live, Member, Plan, Rank, Standing, WARM, warmth};
use crate::domain::split::hash_bytes;

use Ordering::{Acquire, Relaxed, Release};

/// Steps in which a pool warms up: at each the levels are compared anew.
const WARMING: u64 = 32;

/// Counts how often an obstacle came or went at one of a pool's endpoints.
#[derive(Debug, Default)]
pub struct Changes(AtomicU64);

impl Changes {
    /// An obstacle came or went; it shows to whoever reads the new count.
    pub fn add(&self) {
        self.0.fetch_add(1, Release);
    }

    fn read(&self) -> u64 {
        self.0.load(Acquire)
    }
}

/// One pool's balancing.
#[derive(Debug)]
pub struct Balancer {
    plan: Plan,
    ranks: Vec<(u64, Rank)>,
    changes: Arc<Changes>,
    workers: PerWorker<Known>,
}

/// What one worker knows of the pool.
#[derive(Debug)]
struct Known {
    /// The count of changes that the standing belongs to.
    changes: AtomicU64,
    /// When it is looked at again although nothing changed.
    until: AtomicU64,
    panics: AtomicBool,
    ends: [AtomicU32; LEVELS],
    turns: [AtomicU32; LEVELS],
}

/// What a worker asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who asks.
    pub worker: usize,
    /// The request's key, if it has one; see [`crate::domain::balance::Key`].
    pub key: Option<u64>,
    /// Fresh entropy.
    pub random: u64,
    /// The time in microseconds; anything if the plan does not heed it.
    pub now: u64,
    /// Ids of endpoints that are taken only if no other one is eligible.
    pub avoid: &'a [u64],
}

impl Balancer {
    /// A balancer for endpoints in the order of the pool, all of which tell `changes`.
    pub fn new(
        balance: Balance,
        endpoints: &[(Arc<Endpoint>, Rank)],
        changes: &Arc<Changes>,
        workers: usize,
    ) -> Balancer {
        let member = |(endpoint, rank): &(Arc<Endpoint>, Rank)| Member {
            seat: hash_bytes(endpoint.to_string().as_bytes(), 0),
            rank: *rank,
        };
        let members: Vec<_> = endpoints.iter().map(member).collect();
        // Workers begin at different places of the round, else all of them would give the first endpoint their first.
        let start = |worker: usize| (endpoints.len() * worker / workers.max(1)) as u32;
        Balancer {
            plan: Plan::new(balance, &members),
            ranks: endpoints.iter().map(|(endpoint, rank)| (endpoint.id, *rank)).collect(),
            changes: Arc::clone(changes),
            workers: PerWorker::from_fn(workers, |worker| Known {
                changes: AtomicU64::new(u64::MAX),
                until: AtomicU64::new(0),
                panics: AtomicBool::new(false),
                ends: Default::default(),
                turns: std::array::from_fn(|_| AtomicU32::new(start(worker))),
            }),
        }
    }

    /// True if it is one for these endpoints and this policy.
    pub fn suits(&self, balance: &Balance, endpoints: &[(Arc<Endpoint>, Rank)]) -> bool {
        let ranks = endpoints.iter().map(|(endpoint, rank)| (endpoint.id, *rank));
        self.plan.balance() == balance && self.ranks.iter().copied().eq(ranks)
    }

    /// The policy, and all that belongs to it.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the endpoint at this place of the pool gets.
    pub fn rank(&self, at: usize) -> Rank {
        self.ranks[at].1
    }

    /// How the levels share the requests `now` (microseconds), as far as anybody but the workers can tell.
    pub fn standing(&self, endpoints: &[Arc<Endpoint>], now: u64) -> Standing {
        let slow_start = self.plan.balance().slow_start;
        let warmth = |at: usize| warmth(slow_start, endpoints[at].eligible_since(), now);
        self.plan.stand(|at| endpoints[at].is_eligible(), |at| endpoints[at].is_eligible_in_panic(), warmth)
    }

    /// Picks an endpoint. `None` if none is eligible.
    pub fn pick<'e>(&self, endpoints: &'e [Arc<Endpoint>], ask: Ask<'_>) -> Option<&'e Arc<Endpoint>> {
        let known = self.workers.of(ask.worker);
        let changes = self.changes.read();
        if known.changes.load(Relaxed) != changes || ask.now >= known.until.load(Relaxed) {
            self.look_again(known, endpoints, changes, ask.now);
        }
        let standing = known.standing();
        let slow = !self.plan.balance().slow_start.is_zero();
        let view = |avoid| View {
            endpoints,
            known,
            ask: Ask { avoid, ..ask },
            panics: standing.panics,
            slow,
            plan: &self.plan,
        };
        let fresh = self.plan.pick(&standing, ask.key, ask.random, &view(ask.avoid));
        let any = || self.plan.pick(&standing, ask.key, ask.random, &view(&[]));
        let picked = fresh.or_else(|| if ask.avoid.is_empty() { None } else { any() });
        picked.map(|at| &endpoints[at])
    }

    #[cold]
    fn look_again(&self, known: &Known, endpoints: &[Arc<Endpoint>], changes: u64, now: u64) {
        let slow_start = self.plan.balance().slow_start;
        // Without slow start the time may not be known, and who becomes eligible has always been so.
        endpoints.iter().for_each(|endpoint| endpoint.seen_eligible(now));
        let standing = self.standing(endpoints, now);
        let warms = |endpoint: &Arc<Endpoint>| {
            endpoint.is_eligible() && warmth(slow_start, endpoint.eligible_since(), now) < WARM
        };
        let until = match endpoints.iter().any(warms) {
            true => now.saturating_add((slow_start.as_micros() as u64 / WARMING).max(1)),
            false => u64::MAX,
        };
        known.panics.store(standing.panics, Relaxed);
        known.ends.iter().zip(standing.ends).for_each(|(end, new)| end.store(new, Relaxed));
        known.until.store(until, Relaxed);
        known.changes.store(changes, Relaxed);
    }
}

impl Known {
    fn standing(&self) -> Standing {
        Standing { panics: self.panics.load(Relaxed), ends: std::array::from_fn(|at| self.ends[at].load(Relaxed)) }
    }
}

/// The endpoints as one pick sees them.
struct View<'a> {
    endpoints: &'a [Arc<Endpoint>],
    known: &'a Known,
    plan: &'a Plan,
    ask: Ask<'a>,
    panics: bool,
    slow: bool,
}

impl Live for View<'_> {
    fn is_open(&self, at: usize) -> bool {
        let endpoint = &self.endpoints[at];
        let eligible = if self.panics { endpoint.is_eligible_in_panic() } else { endpoint.is_eligible() };
        eligible && !self.ask.avoid.contains(&endpoint.id)
    }

    fn load(&self, at: usize) -> u64 {
        self.endpoints[at].in_flight_of(self.ask.worker).read()
    }

    fn pace(&self, at: usize) -> f64 {
        self.endpoints[at].pace_of(self.ask.worker).expected(self.load(at), self.ask.now)
    }

    fn warmth(&self, at: usize) -> u32 {
        match self.slow {
            true => warmth(self.plan.balance().slow_start, self.endpoints[at].eligible_since(), self.ask.now),
            false => WARM,
        }
    }

    fn turn(&self, level: usize) -> u32 {
        self.known.turns[level].load(Relaxed)
    }

    fn turned(&self, level: usize, turn: u32) {
        self.known.turns[level].store(turn, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bridge::endpoint::Obstacle;
    use crate::config::settings::Address;
    use crate::domain::balance::Policy;

    const SECOND: u64 = 1_000_000;

    /// Round robin over an endpoint for each priority, with ten seconds of slow start.
    fn slow(priorities: &[u8]) -> (Balancer, Vec<Arc<Endpoint>>) {
        let changes = Arc::<Changes>::default();
        let endpoint = |(id, priority): (u64, &u8)| {
            let endpoint = Endpoint::new(id, Address::http("10.0.0.1", id as u16), 2).among(&changes);
            (Arc::new(endpoint), Rank { weight: 1, priority: *priority })
        };
        let ranked: Vec<_> = (1..).zip(priorities).map(endpoint).collect();
        let balance = Balance { policy: Policy::RoundRobin, slow_start: Duration::from_secs(10), ..Balance::default() };
        let balancer = Balancer::new(balance, &ranked, &changes, 2);
        (balancer, ranked.into_iter().map(|(endpoint, _)| endpoint).collect())
    }

    /// How many of a thousand picks of one worker at `now` are of the first endpoint.
    fn firsts((balancer, endpoints): &(Balancer, Vec<Arc<Endpoint>>), worker: usize, now: u64, avoid: &[u64]) -> usize {
        let pick = |random: u64| {
            let ask = Ask { worker, key: None, random: random << 40, now, avoid };
            balancer.pick(endpoints, ask).expect("somebody is eligible").id
        };
        (1..=1_000).filter(|random| pick(*random) == 1).count()
    }

    #[test]
    fn all_are_warm_at_the_start_and_who_comes_back_is_not() {
        let pool = slow(&[0, 0]);
        assert_eq!(firsts(&pool, 0, 1, &[]), 500);
        pool.1[0].obstruct(Obstacle::Ejected, true);
        pool.1[0].obstruct(Obstacle::Unhealthy, true);
        assert_eq!(firsts(&pool, 0, SECOND, &[]), 0);
        pool.1[0].obstruct(Obstacle::Ejected, false);
        assert_eq!(firsts(&pool, 0, SECOND, &[]), 0);
        pool.1[0].obstruct(Obstacle::Unhealthy, false);
        let at = |second: u64| firsts(&pool, (second % 2) as usize, second * SECOND, &[]);
        assert!((40..150).contains(&at(100)), "a tenth beside a whole one");
        assert!((250..420).contains(&at(105)), "about a half");
        assert_eq!(at(110), 500);
    }

    #[test]
    fn a_priority_that_comes_back_takes_over_bit_by_bit() {
        let pool = slow(&[0, 1]);
        assert_eq!(firsts(&pool, 1, 1, &[]), 1_000);
        pool.1[0].obstruct(Obstacle::Unhealthy, true);
        assert_eq!(firsts(&pool, 1, SECOND, &[]), 0);
        pool.1[0].obstruct(Obstacle::Unhealthy, false);
        let at = |second: u64| firsts(&pool, 1, second * SECOND, &[]);
        assert!((80..200).contains(&at(50)), "a tenth times 1.4");
        assert!(at(53) > 400);
        assert_eq!(at(60), 1_000);
    }

    #[test]
    fn what_is_avoided_is_taken_only_if_there_is_nothing_else() {
        let pool = slow(&[0, 0, 1]);
        assert_eq!(firsts(&pool, 0, 1, &[2]), 1_000);
        assert_eq!(firsts(&pool, 0, 1, &[1, 2]), 0, "the other priority is something else");
        pool.1[1].obstruct(Obstacle::Draining, true);
        pool.1[2].obstruct(Obstacle::Draining, true);
        assert_eq!(firsts(&pool, 0, 1, &[1, 2, 3]), 1_000);
    }

    #[test]
    fn it_suits_the_same_endpoints_ranks_and_policy_only() {
        let (balancer, endpoints) = slow(&[0, 1]);
        let ranked = |priorities: [u8; 2]| {
            let rank =
                |(endpoint, priority): (&Arc<Endpoint>, u8)| (Arc::clone(endpoint), Rank { weight: 1, priority });
            endpoints.iter().zip(priorities).map(rank).collect::<Vec<_>>()
        };
        let balance = balancer.plan().balance().clone();
        assert!(balancer.suits(&balance, &ranked([0, 1])));
        assert!(!balancer.suits(&balance, &ranked([0, 2])) && !balancer.suits(&balance, &ranked([0, 1])[..1]));
        assert!(!balancer.suits(&Balance::default(), &ranked([0, 1])));
    }
}
