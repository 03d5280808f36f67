//! Observations: what the workers count for the control plane.
//!
//! A [`Book`] belongs to one service and one weight epoch: a request is counted in the book it was dispatched
//! under, however long it lives (Decisions 2), so a change of the split never mixes slow old answers with fast
//! new ones. Each worker has its own [`Cell`] per pool. `n` and `bad` share one word and are read as one
//! (Decisions 5). [`PoolTally`] counts for people and metrics, over all epochs.
//!
//! Invariant: a cell is written by one worker only; within a word `bad` never exceeds `n`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::bridge::counters::{PerWorker, Tally};
use crate::domain::analysis::{Arm, MARKS, Marks, Units};
use crate::domain::rescue::Refused;
use crate::domain::stats::histogram;

/// Counts of one service in one weight epoch.
#[derive(Debug)]
pub struct Book {
    /// The weight epoch.
    pub epoch: u64,
    baseline: usize,
    marks: OnceLock<Marks>,
    cells: PerWorker<Box<[Cell]>>,
}

/// What one worker counted for one pool in one epoch.
#[derive(Debug, Default)]
pub struct Cell {
    errors: Word,
    slow: [Word; MARKS],
    open: Tally,
    rescued: Tally,
}

/// `n` in the high half, `bad` in the low half; both wrap, readers take differences.
#[derive(Debug, Default)]
struct Word(AtomicU64);

impl Word {
    fn add(&self, bad: bool) {
        let (n, x) = Word::split(self.0.load(Relaxed));
        let sum = u64::from(n.wrapping_add(1)) << 32 | u64::from(x.wrapping_add(u32::from(bad)));
        self.0.store(sum, Relaxed);
    }

    fn split(word: u64) -> (u32, u32) {
        ((word >> 32) as u32, word as u32)
    }

    /// What was added since `seen`, which is moved up.
    fn take(&self, seen: &mut u64) -> Units {
        let word = self.0.load(Relaxed);
        let ((n, x), (n0, x0)) = (Word::split(word), Word::split(*seen));
        *seen = word;
        Units { n: n.wrapping_sub(n0), bad: x.wrapping_sub(x0) }
    }
}

impl Cell {
    /// A judged request was dispatched.
    pub fn opened(&self) {
        self.open.add(1);
    }

    /// A judged request ended, whatever came of it.
    pub fn closed(&self) {
        self.open.subtract(1);
    }

    /// A judged request turned out good or bad.
    pub fn settled(&self, bad: bool) {
        self.errors.add(bad);
    }

    /// A request that failed was answered by the active pool.
    pub fn rescued(&self) {
        self.rescued.add(1);
    }

    /// A judged request passed (`slow`) or kept within one of the latency marks.
    pub fn marked(&self, mark: usize, slow: bool) {
        self.slow[mark].add(slow);
    }
}

impl Book {
    /// An empty book for `pools` pools, written by `workers` workers.
    pub fn new(epoch: u64, baseline: usize, pools: usize, workers: usize, marks: Option<Marks>) -> Book {
        let cells = PerWorker::from_fn(workers, |_| (0..pools).map(|_| Cell::default()).collect());
        let book = Book { epoch, baseline, marks: OnceLock::new(), cells };
        marks.into_iter().for_each(|marks| book.learned(marks));
        book
    }

    /// The cell that `worker` writes for `pool`.
    pub fn cell(&self, worker: usize, pool: usize) -> &Cell {
        &self.cells.of(worker)[pool]
    }

    /// The latency marks, in microseconds, that requests to `pool` are held against; `None` until learned.
    ///
    /// A request asks once, at dispatch: whether it is counted never depends on how it turns out.
    pub fn marks_for(&self, pool: usize) -> Option<&[u64; MARKS]> {
        let marks = self.marks.get()?;
        Some(if pool == self.baseline { &marks.baseline } else { &marks.canary })
    }

    /// Both pools' marks, once learned.
    pub fn marks(&self) -> Option<&Marks> {
        self.marks.get()
    }

    /// Sets the marks; the first call stands for the rest of the epoch.
    pub fn learned(&self, marks: Marks) {
        let _ = self.marks.set(marks);
    }

    /// The pool that the others are compared with.
    pub fn baseline(&self) -> usize {
        self.baseline
    }

    /// Failed requests of a pool that were answered by the active pool in this epoch.
    pub fn rescued(&self, pool: usize) -> u64 {
        self.cells.iter().filter_map(|cells| cells.get(pool)).map(|cell| cell.rescued.read()).fold(0, u64::wrapping_add)
    }

    /// Judged requests of this epoch that have not ended.
    pub fn open(&self) -> u64 {
        self.cells.iter().flatten().map(|cell| cell.open.read()).fold(0, u64::wrapping_add)
    }
}

/// Reads one book from where it last left off.
#[derive(Debug)]
pub struct Reader {
    seen: Vec<[u64; MARKS + 1]>,
    pools: usize,
}

impl Reader {
    /// A reader at the beginning of a book for `pools` pools and `workers` workers.
    pub fn new(pools: usize, workers: usize) -> Reader {
        Reader { seen: vec![[0; MARKS + 1]; pools * workers], pools }
    }

    /// What was added for each pool since the last call, over all workers.
    pub fn take(&mut self, book: &Book) -> Vec<Arm> {
        let mut arms = vec![Arm::default(); self.pools];
        let cells = book.cells.iter().flatten();
        for (at, (cell, seen)) in cells.zip(&mut self.seen).enumerate() {
            let arm = &mut arms[at % self.pools];
            add(&mut arm.errors, cell.errors.take(&mut seen[MARKS]));
            let marks = arm.slow.iter_mut().zip(&cell.slow).zip(seen.iter_mut());
            marks.for_each(|((sum, word), seen)| add(sum, word.take(seen)));
        }
        arms
    }
}

fn add(sum: &mut Units, more: Units) {
    sum.n = sum.n.saturating_add(more.n);
    sum.bad = sum.bad.saturating_add(more.bad);
}

/// What one worker saw of one pool since the process began, judged or not.
#[derive(Debug)]
pub struct PoolTally {
    /// Attempts dispatched and not ended.
    pub in_flight: Tally,
    /// Response heads by status class: 1xx to 5xx.
    pub classes: [Tally; 5],
    /// Failed attempts by [`Failure`](crate::domain::outcome::Failure).
    pub failures: [Tally; 6],
    /// Attempts that have been streaming for long and have not ended.
    pub streams: Tally,
    /// Further attempts after a failed one.
    pub retries: Tally,
    /// Requests that its open breaker sent to the active pool in its place.
    pub diverted: Tally,
    /// Requests answered 503 for its open breaker.
    pub blocked: Tally,
    /// Requests that found no room, and no room to wait for it.
    pub overflowed: Tally,
    /// Requests that waited for room for as long as they may.
    pub queued_too_long: Tally,
    /// Second attempts beside one that took long.
    pub hedges: Tally,
    /// Those that answered first.
    pub hedge_wins: Tally,
    /// Its failures that the active pool answered instead.
    pub rescued: Tally,
    /// Those that it would have, by [`Refused`].
    pub unrescued: [Tally; Refused::ALL.len()],
    /// Dispatch to response head of answers below 500, in microseconds: bucket counts of [`histogram`].
    latency: Box<[AtomicU32]>,
    /// Sum of the same, in microseconds.
    pub latency_sum: Tally,
}

impl Default for PoolTally {
    fn default() -> PoolTally {
        PoolTally {
            in_flight: Tally::default(),
            classes: Default::default(),
            failures: Default::default(),
            streams: Tally::default(),
            retries: Tally::default(),
            diverted: Tally::default(),
            blocked: Tally::default(),
            overflowed: Tally::default(),
            queued_too_long: Tally::default(),
            hedges: Tally::default(),
            hedge_wins: Tally::default(),
            rescued: Tally::default(),
            unrescued: Default::default(),
            latency: (0..histogram::BUCKETS).map(|_| AtomicU32::new(0)).collect(),
            latency_sum: Tally::default(),
        }
    }
}

impl PoolTally {
    /// Books a latency in microseconds.
    pub fn took(&self, micros: u64) {
        let bucket = &self.latency[histogram::index(micros)];
        bucket.store(bucket.load(Relaxed).wrapping_add(1), Relaxed);
        self.latency_sum.add(micros);
    }

    /// Adds this worker's latency buckets to `sum`, which has `histogram::BUCKETS` places.
    pub fn add_latency_to(&self, sum: &mut [u64]) {
        for (sum, bucket) in sum.iter_mut().zip(&self.latency) {
            *sum += u64::from(bucket.load(Relaxed));
        }
    }
}

/// The latency histogram of a pool over all workers.
pub fn latency_of(tally: &PerWorker<PoolTally>) -> Vec<u64> {
    let mut sum = vec![0; histogram::BUCKETS];
    tally.iter().for_each(|worker| worker.add_latency_to(&mut sum));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_each_unit_once_and_whole() {
        let book = Book::new(3, 0, 2, 2, None);
        let mut reader = Reader::new(2, 2);
        book.cell(0, 1).settled(true);
        book.cell(1, 1).settled(false);
        book.cell(1, 0).settled(false);
        book.cell(0, 1).marked(4, true);
        let arms = reader.take(&book);
        assert_eq!((arms[1].errors.n, arms[1].errors.bad), (2, 1));
        assert_eq!((arms[0].errors.n, arms[0].errors.bad), (1, 0));
        assert_eq!((arms[1].slow[4].n, arms[1].slow[4].bad), (1, 1));
        assert!(reader.take(&book).iter().all(|arm| arm.errors.n == 0 && arm.slow[4].n == 0));
    }

    #[test]
    fn counts_wrap_without_touching_each_other() {
        let word = Word(AtomicU64::new(u64::from(u32::MAX) << 32 | u64::from(u32::MAX)));
        let mut seen = word.0.load(Relaxed);
        word.add(true);
        assert_eq!(word.0.load(Relaxed), 0);
        let units = word.take(&mut seen);
        assert_eq!((units.n, units.bad), (1, 1));
    }

    #[test]
    fn an_epoch_is_open_until_its_last_request_ends() {
        let book = Book::new(1, 0, 1, 2, None);
        book.cell(0, 0).opened();
        book.cell(1, 0).opened();
        book.cell(0, 0).closed();
        assert_eq!(book.open(), 1);
        book.cell(1, 0).closed();
        assert_eq!(book.open(), 0);
    }
}
