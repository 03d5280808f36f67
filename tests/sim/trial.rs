//! One canary on trial: a simulation's two pools around the production [`Case`].
//!
//! Invariant: counts reach the evidence through books and readers only, as in production.

use std::sync::Arc;

use teal::bridge::counters::PerWorker;
use teal::bridge::observations::{Book, PoolTally, latency_of};
use teal::control::case::Case;
use teal::domain::analysis::{Approval, Evidence, Finding, Marks, Policy};

/// The pools' indices.
pub(crate) const BASELINE: usize = 0;
/// The pools' indices.
pub(crate) const CANARY: usize = 1;

const POOLS: usize = 2;
/// Workers that take turns, tick by tick, so that readers have cells to add up.
const WORKERS: usize = 2;

/// A canary, its books, and what is known of it.
pub(crate) struct Trial {
    policy: Policy,
    case: Case,
    tallies: [PerWorker<PoolTally>; POOLS],
    ticks: usize,
}

impl Trial {
    /// A canary without a share yet.
    pub(crate) fn new(policy: Policy) -> Trial {
        let tallies = [PerWorker::new(WORKERS), PerWorker::new(WORKERS)];
        let case = Case::new(policy.clone(), None);
        Trial { policy, case, tallies, ticks: 0 }
    }

    /// The split changes: a new book with the marks of the baseline's past.
    pub(crate) fn step(&mut self) {
        let epoch = self.case.book().map_or(1, |last| last.epoch + 1);
        let marks = Marks::learn(&latency_of(&self.tallies[BASELINE]), &self.policy);
        let book = Arc::new(Book::new(epoch, BASELINE, POOLS, WORKERS, marks));
        self.case.follow(&book, POOLS, CANARY, WORKERS, epoch);
    }

    /// The book of the present split.
    pub(crate) fn book(&self) -> &Arc<Book> {
        self.case.book().expect("a trial begins with a step")
    }

    /// The worker whose turn it is.
    pub(crate) fn worker(&self) -> usize {
        self.ticks % WORKERS
    }

    /// All a pool ever did.
    pub(crate) fn tally(&self, pool: usize) -> &PerWorker<PoolTally> {
        &self.tallies[pool]
    }

    /// One look of the judge; the workers have always taken up the present table.
    pub(crate) fn look(&mut self) -> Option<Finding> {
        self.ticks += 1;
        self.case.look(|_| true, &self.tallies[BASELINE])
    }

    /// How many books are being read.
    pub(crate) fn books(&self) -> usize {
        self.case.books()
    }

    /// Looks so far, ten per second.
    pub(crate) fn seconds(&self) -> f64 {
        self.ticks as f64 / 10.0
    }

    /// What speaks against the canary.
    pub(crate) fn evidence(&self) -> Evidence {
        self.case.evidence()
    }

    /// What speaks for it.
    pub(crate) fn approval(&self) -> Approval {
        self.case.approval()
    }
}
