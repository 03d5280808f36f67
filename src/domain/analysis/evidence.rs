//! Evidence against the canary, for people and dashboards.
//!
//! Invariant: display only; nothing is decided from here.

use super::MARKS;
use super::units::Pair;

/// How strongly the traffic so far speaks against the canary.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The e-value now: 1 is none, [`Evidence::needed`] is enough.
    pub now: f64,
    /// Its largest value so far.
    pub max: f64,
    /// `1/alpha`.
    pub needed: f64,
    /// Requests and errors since the comparator began.
    pub errors: Pair,
    /// Requests and slow ones per mark since the comparator began.
    pub slow: [Pair; MARKS],
    /// Ticks so far.
    pub ticks: u64,
    /// Weight steps so far.
    pub steps: u32,
}

impl Evidence {
    /// The anytime-valid p-value: the chance of as much evidence, at any look, from a canary that is no worse.
    pub fn p_value(&self) -> f64 {
        1.0 / self.max.max(1.0)
    }
}
