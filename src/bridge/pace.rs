//! The pace of a pool: how long its answers take of late, measured by the control plane for the workers to go by.
//!
//! Invariant: one writer; zero says that nothing is known.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A latency in microseconds.
#[derive(Debug, Default)]
pub struct Pace(AtomicU64);

impl Pace {
    /// What was measured last, in microseconds.
    pub fn read(&self) -> Option<u64> {
        Some(self.0.load(Relaxed)).filter(|micros| *micros > 0)
    }

    /// It was measured anew. Called by the control plane's pacer only.
    pub fn set(&self, micros: u64) {
        self.0.store(micros.max(1), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_until_it_was_measured() {
        let pace = Pace::default();
        assert_eq!(pace.read(), None);
        pace.set(0);
        assert_eq!(pace.read(), Some(1));
        pace.set(7_000);
        assert_eq!(pace.read(), Some(7_000));
    }
}
