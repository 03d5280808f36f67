//! What the data plane counts for the judge: finished units and how many of them were bad.
//!
//! Invariant: `bad <= n`, also after adding; numbers that break it on the way in are cut down to it.

use super::MARKS;
pub use crate::domain::stats::Units;

/// What one pool added since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arm {
    /// Requests with a known outcome; bad ones failed.
    pub errors: Units,
    /// Per mark of the pool: requests that ended well or passed the mark; bad ones passed it.
    pub slow: [Units; MARKS],
}

/// What both pools added since the last look, of one weight epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The pool being judged.
    pub canary: Arm,
    /// The pool it is compared with.
    pub baseline: Arm,
}

/// Units over a long time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Finished units.
    pub n: u64,
    /// Bad ones among them.
    pub bad: u64,
}

impl Total {
    /// Adds what arrived.
    pub(super) fn add(&mut self, more: Units) {
        self.n = self.n.saturating_add(more.n.into());
        self.bad = self.bad.saturating_add(more.bad.min(more.n).into());
    }
}

/// Totals of both pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// The pool being judged.
    pub canary: Total,
    /// The pool it is compared with.
    pub baseline: Total,
}

impl Pair {
    /// Adds what arrived in both.
    pub(super) fn add(&mut self, canary: Units, baseline: Units) {
        self.canary.add(canary);
        self.baseline.add(baseline);
    }
}
