//! The purse of a service: what its requests have earned for further attempts, and what was spent of it.
//!
//! Every request adds to its worker's own counter; that is all it costs. Only who needs another attempt sums the
//! counters up and moves a mark that all workers share, so the budget is exact over the whole service however its
//! connections are spread over the workers. [`Budget`] decides.
//!
//! Invariant: a mark moves only by what the budget granted; as many retries are in flight as permits are held.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::bridge::counters::{PerWorker, Tally};
use crate::domain::budget::Budget;
use crate::domain::retry;

/// What one service has earned and spent; survives tables as long as its budgets are the same.
#[derive(Debug)]
pub struct Purse {
    requests: PerWorker<Tally>,
    retries: AtomicU64,
    retrying: AtomicU32,
    rescues: AtomicU64,
    hedges: AtomicU64,
}

/// A retry in flight; it is over when this is dropped.
#[derive(Debug)]
pub struct Permit(Arc<Purse>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.retrying.fetch_sub(1, Relaxed);
    }
}

impl Purse {
    /// A purse that `workers` add to.
    pub fn new(workers: usize) -> Purse {
        Purse {
            requests: PerWorker::new(workers),
            retries: AtomicU64::new(0),
            retrying: AtomicU32::new(0),
            rescues: AtomicU64::new(0),
            hedges: AtomicU64::new(0),
        }
    }

    /// A request came to `worker`.
    pub fn asked(&self, worker: usize) {
        self.requests.of(worker).add(1);
    }

    /// Leave for a retry at `now` (microseconds), if there is any left.
    pub fn retry(self: &Arc<Self>, policy: &retry::Policy, now: u64) -> Option<Permit> {
        let room = |retrying: u32| (retrying < policy.in_flight).then_some(retrying + 1);
        self.retrying.fetch_update(Relaxed, Relaxed, room).ok()?;
        let permit = Permit(Arc::clone(self));
        self.spend(&self.retries, &policy.budget, now).then_some(permit)
    }

    /// Leave for a rescue at `now`, if there is any left.
    pub fn rescue(&self, budget: &Budget, now: u64) -> bool {
        self.spend(&self.rescues, budget, now)
    }

    /// True if there is leave for a rescue; nothing is spent.
    pub fn has_rescue(&self, budget: &Budget, now: u64) -> bool {
        budget.spend(self.rescues.load(Relaxed), self.earned(budget, now)).is_some()
    }

    /// Leave for a hedge at `now`, if there is any left.
    pub fn hedge(&self, budget: &Budget, now: u64) -> bool {
        self.spend(&self.hedges, budget, now)
    }

    /// Retries in flight.
    pub fn retrying(&self) -> u32 {
        self.retrying.load(Relaxed)
    }

    fn spend(&self, mark: &AtomicU64, budget: &Budget, now: u64) -> bool {
        let earned = self.earned(budget, now);
        mark.fetch_update(Relaxed, Relaxed, |spent| budget.spend(spent, earned)).is_ok()
    }

    fn earned(&self, budget: &Budget, now: u64) -> u64 {
        budget.earned(self.requests.total(), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::split::Share;

    fn policy(in_flight: u32, reserve: u32) -> retry::Policy {
        let budget = Budget { share: Share::from_basis_points(5_000).unwrap(), floor: 0, reserve };
        retry::Policy { budget, in_flight, ..retry::Policy::default() }
    }

    #[test]
    fn what_any_worker_earned_any_worker_may_spend() {
        let (purse, policy) = (Arc::new(Purse::new(2)), policy(100, 1));
        assert!(purse.retry(&policy, 0).is_some());
        assert!(purse.retry(&policy, 0).is_none());
        purse.asked(0);
        assert!(purse.retry(&policy, 0).is_none(), "half a retry");
        purse.asked(1);
        assert!(purse.has_rescue(&policy.budget, 0) && purse.rescue(&policy.budget, 0), "rescues are apart");
        assert!(purse.retry(&policy, 0).is_some());
    }

    #[test]
    fn only_so_many_retries_are_in_flight_and_a_refused_one_takes_no_place() {
        let (purse, policy) = (Arc::new(Purse::new(1)), policy(2, 3));
        let held: Vec<_> = (0..3).filter_map(|_| purse.retry(&policy, 0)).collect();
        assert_eq!((held.len(), purse.retrying()), (2, 2));
        drop(held);
        assert!(purse.retry(&policy, 0).is_some());
        assert!(purse.retry(&policy, 0).is_none(), "the budget is spent");
        assert_eq!(purse.retrying(), 0);
    }

    #[test]
    fn workers_that_spend_at_once_never_spend_more_than_there_is() {
        let (purse, policy) = (Arc::new(Purse::new(4)), policy(u32::MAX, 10));
        let granted: usize = std::thread::scope(|scope| {
            let worker = |index: usize| {
                let (purse, policy) = (Arc::clone(&purse), policy.clone());
                scope.spawn(move || {
                    let spend = |_| {
                        purse.asked(index);
                        purse.retry(&policy, 0).is_some()
                    };
                    (0..10_000).map(spend).filter(|granted| *granted).count()
                })
            };
            let workers: Vec<_> = (0..4).map(worker).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert!((19_000..=20_010).contains(&granted), "{granted}");
    }
}
