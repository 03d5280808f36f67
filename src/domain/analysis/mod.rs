//! Analysis: compares canary and baseline and says what follows.
//!
//! The data plane counts what each pool finished ([`Block`]); the [`Comparator`] turns the counts into
//! evidence, once per tick. Evidence that the canary is worse is a [`Finding`], evidence that it is not
//! worse is an [`Approval`]. Neither needs the other: between them lies "not yet known", and no traffic is
//! exactly that, never success.
//!
//! Invariant: no clock and no chance; the same counts in the same ticks give the same bits.

mod approval;
mod comparator;
mod evidence;
mod finding;
mod marks;
mod state;
mod text;
mod trend;
mod units;

pub use approval::{Approval, Claim};
pub use comparator::Comparator;
pub use evidence::Evidence;
pub use finding::{Finding, Metric};
pub use marks::{LEARN_FROM, LEAST_SLACK, MARKS, Marks, QUANTILES, Quantile, THRESHOLDS};
pub use state::{InvalidState, MAX_OPEN, OpenBlock, State, StepEvidence};
pub use units::{Arm, Block, Pair, Total, Units};

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

#[cfg(test)]
mod tests;
