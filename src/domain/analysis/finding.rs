//! A finding: the canary is worse, in which respect, and by which numbers.
//!
//! Invariant: its evidence has reached what the policy asks for.

use std::fmt;

use super::marks::{Marks, Quantile};
use super::text::{evidence, grouped, milliseconds, percent};
use super::units::Total;

/// In which respect the canary is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// More requests fail.
    Errors,
    /// More requests take longer than a quantile of the baseline.
    Latency {
        /// The quantile.
        quantile: Quantile,
    },
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metric::Errors => f.write_str("errors"),
            Metric::Latency { quantile } => write!(f, "latency {quantile}"),
        }
    }
}

/// Enough evidence against the canary. The counts are those of the metric since its evidence began to grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// The metric that holds most of the evidence.
    pub metric: Metric,
    /// The e-value, over all metrics.
    pub evidence: f64,
    /// What was needed, `1/alpha`.
    pub needed: f64,
    /// The canary's units of the metric.
    pub canary: Total,
    /// The baseline's units of the metric.
    pub baseline: Total,
}

impl Finding {
    /// The finding in words, with the pools' names; `marks` are named for a latency finding.
    pub fn sentence(&self, canary: &str, baseline: &str, marks: Option<&Marks>) -> String {
        let (over_canary, over_baseline) = match (self.metric, marks) {
            (Metric::Latency { quantile }, Some(marks)) => {
                let over = |marks: &[u64]| format!(" over {}", milliseconds(marks[quantile.index()]));
                (over(&marks.canary), over(&marks.baseline))
            }
            _ => (String::new(), String::new()),
        };
        format!(
            "{}: {canary} {}{over_canary}, {baseline} {}{over_baseline}; evidence {} against {} needed",
            self.metric,
            share(self.canary),
            share(self.baseline),
            evidence(self.evidence),
            evidence(self.needed),
        )
    }
}

/// `37 of 412 (9.0 %)`.
fn share(total: Total) -> String {
    let fraction = total.bad as f64 / total.n.max(1) as f64;
    format!("{} of {} ({})", grouped(total.bad), grouped(total.n), percent(fraction))
}
