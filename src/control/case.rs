//! A case: one canary on trial, its evidence, and the books that are read for it.
//!
//! Apart from the judge so that simulations put their counts through the very code that decides in production.
//!
//! Invariant: counts of different weight epochs never share a block, and each book is read until its last request
//! has ended.

use std::sync::Arc;

use crate::bridge::counters::PerWorker;
use crate::bridge::observations::{Book, PoolTally, Reader, latency_of};
use crate::domain::analysis::{Approval, Block, Comparator, Evidence, Finding, Marks, Policy, State};

/// One canary on trial.
pub struct Case {
    policy: Policy,
    comparator: Comparator,
    /// The newest last.
    watched: Vec<Watched>,
}

/// A book being read.
struct Watched {
    book: Arc<Book>,
    reader: Reader,
    canary: usize,
    /// The first table without it.
    replaced_by: Option<u64>,
}

impl Case {
    /// A case that begins, or that goes on from `known`; damaged evidence is left aside.
    pub fn new(policy: Policy, known: Option<State>) -> Case {
        let resumed = known.and_then(|state| {
            let resumed = Comparator::resume(policy.clone(), state);
            resumed.inspect_err(|error| tracing::warn!(%error, "evidence starts anew")).ok()
        });
        let comparator = resumed.unwrap_or_else(|| Comparator::new(policy.clone()));
        Case { policy, comparator, watched: Vec::new() }
    }

    /// Takes up the present book if it is a new one: of `pools` pools, among which `canary` is on trial, written by
    /// `workers` workers. `version` is the table that names it.
    pub fn follow(&mut self, book: &Arc<Book>, pools: usize, canary: usize, workers: usize, version: u64) {
        if self.watched.last().is_some_and(|last| Arc::ptr_eq(&last.book, book)) {
            return;
        }
        if let Some(last) = self.watched.last_mut() {
            last.replaced_by = Some(version);
        }
        self.comparator.weight_step(book.epoch);
        let reader = Reader::new(pools, workers);
        self.watched.push(Watched { book: Arc::clone(book), reader, canary, replaced_by: None });
    }

    /// Reads all books and moves the evidence on by one tick. `has_seen` says whether every worker has taken up a
    /// table; `past` is what the baseline ever did, for marks that are still to be learned.
    pub fn look(&mut self, has_seen: impl Fn(u64) -> bool, past: &PerWorker<PoolTally>) -> Option<Finding> {
        let comparator = &mut self.comparator;
        self.watched.retain_mut(|watched| {
            // Asked before reading: what ends in between is read now, not lost.
            let over = watched.replaced_by.is_some_and(|table| has_seen(table) && watched.book.open() == 0);
            let arms = watched.reader.take(&watched.book);
            let block = Block { canary: arms[watched.canary], baseline: arms[watched.book.baseline()] };
            comparator.observe(watched.book.epoch, &block);
            if over {
                comparator.retire(watched.book.epoch);
            }
            !over
        });
        let finding = comparator.tick();
        if let Some(last) = self.watched.last().filter(|last| last.book.marks().is_none())
            && let Some(marks) = Marks::learn(&latency_of(past), &self.policy)
        {
            last.book.learned(marks);
        }
        finding
    }

    /// The book of the present split.
    pub fn book(&self) -> Option<&Arc<Book>> {
        self.watched.last().map(|last| &last.book)
    }

    /// How many books are being read.
    pub fn books(&self) -> usize {
        self.watched.len()
    }

    /// What speaks against the canary.
    pub fn evidence(&self) -> Evidence {
        self.comparator.evidence()
    }

    /// What speaks for it.
    pub fn approval(&self) -> Approval {
        self.comparator.approval()
    }

    /// What must be kept to go on after a restart.
    pub fn state(&self) -> State {
        self.comparator.state()
    }
}
