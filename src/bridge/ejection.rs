//! Ejection where it happens: what an endpoint did so far, and how many seats its pool has for those that are out.
//!
//! A worker that sees a row of failures takes the endpoint out by itself, before the next request: it takes a seat on
//! the pool's [`Bench`], then begins the endpoint's term, then puts up the obstacle. Ending a term is the control
//! plane's work alone (`control::ejection`), in the opposite order. A good attempt costs one load; counts for
//! comparisons are single-writer and only kept where the policy compares.
//!
//! Invariant: whoever is out has a seat, so no more are out than there were seats for; a seat is given back with the
//! end of the term it was taken for, however the endpoint goes.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::bridge::counters::{PerWorker, Tally};
use crate::bridge::endpoint::{Endpoint, Obstacle};
use crate::bridge::table::Pool;
use crate::domain::outcome::Outcome;
use crate::domain::outlier::{Cause, Counts, Mark, Row};

/// The seats of a pool for endpoints that are out; survives tables.
#[derive(Debug, Default)]
pub struct Bench {
    taken: AtomicUsize,
    ejections: [AtomicU64; Cause::ALL.len()],
}

impl Bench {
    /// Endpoints that are out.
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// Ejections so far.
    pub fn ejections(&self, cause: Cause) -> u64 {
        self.ejections[cause as usize].load(Relaxed)
    }

    fn take(&self, most: usize) -> bool {
        let room = |taken: usize| (taken < most).then_some(taken + 1);
        self.taken.fetch_update(Relaxed, Relaxed, room).is_ok()
    }

    fn give_back(&self) {
        let less = |taken: usize| taken.checked_sub(1);
        // A seat that was never taken cannot be given back; the bench stays empty.
        let _ = self.taken.fetch_update(Relaxed, Relaxed, less);
    }
}

/// What is known of an endpoint's results.
#[derive(Debug)]
pub struct Conduct {
    row: AtomicU64,
    /// Zero, or when and why it was taken out, see [`Term`].
    term: AtomicU64,
    samples: PerWorker<Sample>,
}

#[derive(Debug, Default)]
struct Sample {
    requests: Tally,
    failures: Tally,
    answers: Tally,
    latency: Tally,
}

/// An endpoint is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Since this moment, in microseconds.
    pub since: u64,
    /// What took it out.
    pub cause: Cause,
}

/// Bits of a term's word that hold the cause, counted from 1.
const CAUSE: u32 = 3;
const _: () = assert!(Cause::ALL.len() < 1 << CAUSE, "a cause fits beside the moment");

impl Term {
    const fn packed(self) -> u64 {
        self.since << CAUSE | (self.cause as u64 + 1)
    }

    fn unpacked(word: u64) -> Option<Term> {
        let cause = usize::try_from(word & ((1 << CAUSE) - 1)).ok()?.checked_sub(1)?;
        Some(Term { since: word >> CAUSE, cause: *Cause::ALL.get(cause)? })
    }
}

impl Conduct {
    /// Of an endpoint that nothing is known of yet.
    pub fn new(workers: usize) -> Conduct {
        Conduct { row: AtomicU64::new(0), term: AtomicU64::new(0), samples: PerWorker::new(workers) }
    }

    /// Since when and why it is out, if it is.
    pub fn term(&self) -> Option<Term> {
        Term::unpacked(self.term.load(Relaxed))
    }

    /// The row of failures it is in.
    pub fn row(&self) -> Row {
        unpacked(self.row.load(Relaxed))
    }

    /// All that was counted, over all workers.
    pub fn counts(&self) -> Counts {
        let total = |read: fn(&Sample) -> &Tally| {
            self.samples.iter().map(|sample| read(sample).read()).fold(0, u64::wrapping_add)
        };
        Counts {
            requests: total(|sample| &sample.requests),
            failures: total(|sample| &sample.failures),
            answers: total(|sample| &sample.answers),
            latency: total(|sample| &sample.latency),
        }
    }

    /// Takes over another's row, and its term with the seat; true if it was out.
    pub(in crate::bridge) fn succeed(&self, other: &Conduct) -> bool {
        self.row.store(other.row.load(Relaxed), Relaxed);
        let term = other.term.swap(0, Relaxed);
        self.term.store(term, Relaxed);
        term != 0
    }

    fn marked(&self, mark: Mark) -> Row {
        let next = |word: u64| Some(packed(unpacked(word).after(Some(mark))));
        let before = self.row.fetch_update(Relaxed, Relaxed, next).unwrap_or_default();
        unpacked(before).after(Some(mark))
    }
}

const fn packed(row: Row) -> u64 {
    (row.gateway as u64) << 32 | row.errors as u64
}

const fn unpacked(word: u64) -> Row {
    Row { gateway: (word >> 32) as u32, errors: word as u32 }
}

/// An attempt of `worker` turned out like this at `now` (microseconds); takes the endpoint out if that was one bad
/// outcome too many. True if the outcome was bad: then nothing more is to be told of this attempt.
pub fn turned_out(pool: &Pool, endpoint: &Endpoint, worker: usize, now: u64, outcome: Outcome) -> bool {
    let (policy, conduct) = (&pool.ejection, &endpoint.conduct);
    let mark = Mark::of(outcome);
    if policy.compares() {
        let sample = conduct.samples.of(worker);
        match (mark, outcome) {
            (Some(_), _) => {
                sample.failures.add(1);
                sample.requests.add(1);
            }
            (None, Outcome::Answered { latency, .. }) => {
                sample.latency.add(latency);
                sample.answers.add(1);
            }
            (None, Outcome::Failed(_)) => {}
        }
    }
    let Some(mark) = mark else { return false };
    if policy.counts_rows()
        && let Some(cause) = conduct.marked(mark).ejects(policy)
    {
        eject(pool, endpoint, cause, now);
    }
    true
}

/// An attempt of `worker` went well to its end.
pub fn went_well(pool: &Pool, endpoint: &Endpoint, worker: usize) {
    let conduct = &endpoint.conduct;
    // Read first: workers that only ever see good answers do not take the line from each other.
    if conduct.row.load(Relaxed) != 0 {
        conduct.row.store(0, Relaxed);
    }
    if pool.ejection.compares() {
        conduct.samples.of(worker).requests.add(1);
    }
}

/// Takes an endpoint out at `now`, if the pool has a seat and another endpoint that can do its work. False if it
/// stays, or was out already.
pub fn eject(pool: &Pool, endpoint: &Endpoint, cause: Cause, now: u64) -> bool {
    let most = pool.ejection.most_out(pool.endpoints.len());
    if endpoint.is_retired() || endpoint.conduct.term().is_some() || pool.bench.taken() >= most {
        return false;
    }
    let another = pool.endpoints.iter().any(|other| other.id != endpoint.id && other.is_eligible());
    if !another || !pool.bench.take(most) {
        return false;
    }
    let term = Term { since: now, cause }.packed();
    if endpoint.conduct.term.compare_exchange(0, term, Relaxed, Relaxed).is_err() {
        // Another worker was first.
        pool.bench.give_back();
        return false;
    }
    endpoint.obstruct(Obstacle::Ejected, true);
    pool.bench.ejections[cause as usize].fetch_add(1, Relaxed);
    true
}

/// Ends an endpoint's term and gives its seat back; false if it was not out. Only the control plane calls this.
pub fn restore(bench: &Bench, endpoint: &Endpoint) -> bool {
    if endpoint.conduct.term().is_none() {
        return false;
    }
    endpoint.conduct.row.store(0, Relaxed);
    endpoint.obstruct(Obstacle::Ejected, false);
    endpoint.conduct.term.store(0, Relaxed);
    bench.give_back();
    true
}

/// Puts the obstacle right where a worker and the end of a term came across each other: the obstacle follows the term.
pub fn reconcile(endpoint: &Endpoint) {
    endpoint.obstruct(Obstacle::Ejected, endpoint.conduct.term().is_some());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bridge::balancer::Balancer;
    use crate::config::settings::{Address, Protocol};
    use crate::domain::balance::Balance;
    use crate::domain::outcome::Failure;
    use crate::domain::outlier::{FailureShare, Policy};

    fn pool(endpoints: u16, ejection: Policy) -> Pool {
        let endpoint = |port: u16| Arc::new(Endpoint::new(port.into(), Address::http("10.0.0.1", port), 2));
        Pool {
            name: "green".to_owned(),
            rolled_back: false,
            endpoints: (1..=endpoints).map(endpoint).collect(),
            protocol: Protocol::Http1,
            connector: None,
            proxy_protocol: None,
            pace: Arc::default(),
            breaker: Arc::default(),
            room: Arc::default(),
            balancer: Arc::new(Balancer::new(Balance::default(), &[], &Arc::default(), 1)),
            tally: Arc::new(PerWorker::new(2)),
            ejection,
            bench: Arc::default(),
        }
    }

    const RESET: Outcome = Outcome::Failed(Failure::Reset);

    fn answered(status: u16) -> Outcome {
        Outcome::Answered { status, latency: 700 }
    }

    fn fail(pool: &Pool, at: usize, times: u32) {
        (0..times).for_each(|_| assert!(turned_out(pool, &pool.endpoints[at], 1, 9, RESET)));
    }

    #[test]
    fn the_fifth_failure_in_a_row_takes_an_endpoint_out() {
        let pool = pool(3, Policy::default());
        fail(&pool, 0, 4);
        assert!(!turned_out(&pool, &pool.endpoints[0], 0, 9, answered(200)), "a good head is not yet a good answer");
        went_well(&pool, &pool.endpoints[0], 0);
        fail(&pool, 0, 4);
        assert!(pool.endpoints[0].is_eligible());
        fail(&pool, 0, 1);
        assert_eq!(pool.endpoints[0].obstacles().collect::<Vec<_>>(), [Obstacle::Ejected]);
        assert_eq!(pool.endpoints[0].conduct.term(), Some(Term { since: 9, cause: Cause::Gateway }));
        fail(&pool, 0, 9);
        assert_eq!((pool.bench.taken(), pool.bench.ejections(Cause::Gateway)), (1, 1));
        assert!(restore(&pool.bench, &pool.endpoints[0]) && !restore(&pool.bench, &pool.endpoints[0]));
        assert!(pool.endpoints[0].is_eligible() && pool.bench.taken() == 0);
        fail(&pool, 0, 4);
        assert!(pool.endpoints[0].is_eligible(), "it begins anew");
    }

    #[test]
    fn no_more_are_out_than_may_be_and_the_last_one_never() {
        let alone = pool(1, Policy::default());
        fail(&alone, 0, 50);
        assert!(alone.endpoints[0].is_eligible());
        let three = pool(3, Policy::default());
        (0..3).for_each(|at| fail(&three, at, 50));
        assert_eq!(three.endpoints.iter().filter(|one| one.is_eligible()).count(), 2);
        let two = pool(2, Policy::default());
        two.endpoints[1].obstruct(Obstacle::Unhealthy, true);
        fail(&two, 0, 50);
        assert!(two.endpoints[0].is_eligible(), "nobody else could do its work");
        two.endpoints[1].obstruct(Obstacle::Unhealthy, false);
        fail(&two, 0, 1);
        assert!(!two.endpoints[0].is_eligible());
    }

    #[test]
    fn a_policy_that_is_off_counts_nothing() {
        let off = pool(3, Policy::default().off());
        fail(&off, 0, 50);
        let endpoint = &off.endpoints[0];
        assert!(endpoint.is_eligible() && endpoint.conduct.row() == Row::default());
        assert_eq!(endpoint.conduct.counts(), Counts::default());
    }

    #[test]
    fn comparisons_have_their_counts() {
        let comparing = Policy { failure_share: Some(FailureShare::default()), ..Policy::default() };
        let pool = pool(3, comparing);
        let endpoint = &pool.endpoints[0];
        for worker in [0, 1, 1] {
            turned_out(&pool, endpoint, worker, 9, answered(204));
            went_well(&pool, endpoint, worker);
        }
        turned_out(&pool, endpoint, 0, 9, answered(500));
        fail(&pool, 0, 2);
        turned_out(&pool, endpoint, 0, 9, answered(204));
        let expected = Counts { requests: 6, failures: 3, answers: 4, latency: 2_800 };
        assert_eq!(endpoint.conduct.counts(), expected, "the last one has not ended");
    }

    #[test]
    fn a_successor_takes_the_seat_over() {
        let pool = pool(3, Policy::default());
        fail(&pool, 0, 5);
        let (old, new) = (&pool.endpoints[0], Endpoint::new(7, Address::http("10.0.0.1", 1), 2));
        new.succeed(old);
        assert!(!new.is_eligible() && old.conduct.term().is_none() && pool.bench.taken() == 1);
        assert!(restore(&pool.bench, &new) && pool.bench.taken() == 0);
        assert!(!restore(&pool.bench, old));
    }

    #[test]
    fn an_endpoint_that_left_is_not_taken_out_any_more() {
        let pool = pool(3, Policy::default());
        pool.endpoints[0].retire();
        fail(&pool, 0, 9);
        assert_eq!(pool.bench.taken(), 0);
    }

    #[test]
    fn the_obstacle_follows_the_term() {
        let pool = pool(3, Policy::default());
        pool.endpoints[0].obstruct(Obstacle::Ejected, true);
        reconcile(&pool.endpoints[0]);
        assert!(pool.endpoints[0].is_eligible());
        fail(&pool, 0, 5);
        pool.endpoints[0].obstruct(Obstacle::Ejected, false);
        reconcile(&pool.endpoints[0]);
        assert!(!pool.endpoints[0].is_eligible());
    }

    #[test]
    fn words_hold_what_was_put_into_them() {
        for cause in Cause::ALL {
            for since in [0, 1, u64::MAX >> CAUSE] {
                let term = Term { since, cause };
                assert_eq!(Term::unpacked(term.packed()), Some(term));
            }
        }
        assert_eq!((Term::unpacked(0), Term::unpacked(7)), (None, None));
        for row in [Row::default(), Row { gateway: 1, errors: u32::MAX }, Row { gateway: u32::MAX, errors: 2 }] {
            assert_eq!(unpacked(packed(row)), row);
        }
    }
}
