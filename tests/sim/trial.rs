//! One canary on trial: the judge's part of a simulation, on production books, readers and comparator.
//!
//! Invariant: as in the judge, a book is read until its last request ended, and each epoch has its own blocks.

use std::sync::Arc;

use teal::bridge::counters::PerWorker;
use teal::bridge::observations::{Book, PoolTally, Reader, latency_of};
use teal::domain::analysis::{Approval, Block, Comparator, Evidence, Finding, Marks, Policy};

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
    comparator: Comparator,
    tallies: [PerWorker<PoolTally>; POOLS],
    /// The newest last; the others are read until nothing of them is open.
    watched: Vec<Watched>,
    ticks: usize,
}

struct Watched {
    book: Arc<Book>,
    reader: Reader,
}

impl Trial {
    /// A canary without a share yet.
    pub(crate) fn new(policy: Policy) -> Trial {
        let tallies = [PerWorker::new(WORKERS), PerWorker::new(WORKERS)];
        let comparator = Comparator::new(policy.clone());
        Trial { policy, comparator, tallies, watched: Vec::new(), ticks: 0 }
    }

    /// The split changes: a new book with the marks of the baseline's past.
    pub(crate) fn step(&mut self) {
        let epoch = self.watched.last().map_or(1, |last| last.book.epoch + 1);
        let marks = Marks::learn(&latency_of(&self.tallies[BASELINE]), &self.policy);
        let book = Arc::new(Book::new(epoch, BASELINE, POOLS, WORKERS, marks));
        self.comparator.weight_step(epoch);
        self.watched.push(Watched { book, reader: Reader::new(POOLS, WORKERS) });
    }

    /// The book of the present split.
    pub(crate) fn book(&self) -> &Arc<Book> {
        &self.watched.last().expect("a trial begins with a step").book
    }

    /// The worker whose turn it is.
    pub(crate) fn worker(&self) -> usize {
        self.ticks % WORKERS
    }

    /// All a pool ever did.
    pub(crate) fn tally(&self, pool: usize) -> &PerWorker<PoolTally> {
        &self.tallies[pool]
    }

    /// One look of the judge.
    pub(crate) fn look(&mut self) -> Option<Finding> {
        self.ticks += 1;
        let (comparator, newest) = (&mut self.comparator, self.watched.len() - 1);
        let mut at = 0;
        self.watched.retain_mut(|watched| {
            let over = at < newest && watched.book.open() == 0;
            at += 1;
            let arms = watched.reader.take(&watched.book);
            comparator.observe(watched.book.epoch, &Block { canary: arms[CANARY], baseline: arms[BASELINE] });
            if over {
                comparator.retire(watched.book.epoch);
            }
            !over
        });
        comparator.tick()
    }

    /// How many books are being read.
    pub(crate) fn books(&self) -> usize {
        self.watched.len()
    }

    /// Looks so far, ten per second.
    pub(crate) fn seconds(&self) -> f64 {
        self.ticks as f64 / 10.0
    }

    /// What speaks against the canary.
    pub(crate) fn evidence(&self) -> Evidence {
        self.comparator.evidence()
    }

    /// What speaks for it.
    pub(crate) fn approval(&self) -> Approval {
        self.comparator.approval()
    }
}
