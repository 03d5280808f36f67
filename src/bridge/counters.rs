//! Counters with one writer each: a worker adds, the control plane reads.
//!
//! An ordinary load and store is enough where only one thread writes, and is several times cheaper than an
//! atomic add. Every block of counters is padded to its own cache lines, one block per worker.
//!
//! Invariant: a [`Tally`] is written by the worker it belongs to and by nobody else.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter written by one thread.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Adds `n`; only ever called by the owning worker.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes `n` away; only ever called by the owning worker, for gauges.
    pub fn subtract(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Becomes `n`; only ever called by the owning worker, for gauges.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The value, from any thread.
    pub fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One value per worker, each on cache lines of its own (two lines: adjacent ones are fetched in pairs).
#[derive(Debug)]
pub struct PerWorker<T>(Box<[Padded<T>]>);

#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> PerWorker<T> {
    /// One default value for each of `workers`.
    pub fn new(workers: usize) -> PerWorker<T> {
        PerWorker::from_fn(workers, |_| T::default())
    }
}

impl<T> PerWorker<T> {
    /// One value for each of `workers`.
    pub fn from_fn(workers: usize, make: impl Fn(usize) -> T) -> PerWorker<T> {
        PerWorker((0..workers).map(|worker| Padded(make(worker))).collect())
    }

    /// The value of one worker.
    pub fn of(&self, worker: usize) -> &T {
        &self.0[worker].0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }
}

impl PerWorker<Tally> {
    /// The sum over the workers.
    pub fn total(&self) -> u64 {
        self.iter().map(Tally::read).fold(0, u64::wrapping_add)
    }
}
