//! Analysis: compares canary and baseline and says what follows.

use std::time::Duration;

/// How a service's canary is judged. See `domain::stats` for the tests behind the numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Chance of a false rollback over one whole rollout, 0 to 1 exclusive.
    pub alpha: f64,
    /// Chance that one approval test passes a canary at its margin, 0 to 1 exclusive.
    pub beta: f64,
    /// Odds ratio of errors that is tolerated before it counts as worse, at least 1.
    pub tolerate_errors_odds: f64,
    /// Slowdown that is tolerated before it counts as worse, as a fraction (0.05 is 5 %).
    pub tolerate_latency: f64,
    /// Odds ratio of errors that approval must rule out, above 1.
    pub approve_errors_odds: f64,
    /// Slowdown that approval must rule out, as a fraction (0.2 is 20 %).
    pub approve_latency: f64,
    /// Error rate that approval must rule out when neither pool had an error, 0 to 1 exclusive.
    pub approve_error_rate: f64,
    /// Requests each pool must have answered in a step before it can be approved.
    pub min_requests: u64,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            alpha: 0.01,
            beta: 0.05,
            tolerate_errors_odds: 1.05,
            tolerate_latency: 0.05,
            approve_errors_odds: 2.0,
            approve_latency: 0.2,
            approve_error_rate: 0.001,
            min_requests: 500,
        }
    }
}

/// Placeholder so that the skeleton compiles; replaced by the comparator.
pub type Dwell = Duration;

/// stub
pub const MARKS: usize = 8;
/// stub
#[derive(Clone, Copy, Debug, Default)]
pub struct Units {
    /** n */
    pub n: u32,
    /** bad */
    pub bad: u32,
}
/// stub
#[derive(Clone, Copy, Debug, Default)]
pub struct Arm {
    /** e */
    pub errors: Units,
    /** s */
    pub slow: [Units; MARKS],
}
/// stub
#[derive(Clone, Debug)]
pub struct Marks {
    /** b */
    pub baseline: [u64; MARKS],
    /** c */
    pub canary: [u64; MARKS],
}
