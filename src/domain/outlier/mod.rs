//! Outliers: endpoints that their own results take out for a while.
//!
//! ```text
//!          a row of failures, or worse than the pool; and a seat is free
//!      in ─────────────────────────────────────────────────────────────▶ out
//!       ◀─────────────────────────────────────────────────────────────
//!          the term has passed, or more are out than may be
//! ```
//!
//! Two ways lead out. A [`Row`] is told every outcome and decides at once. [`suspects`] looks at all endpoints of a
//! pool from time to time and compares them with each other. Either way needs a seat, and [`Policy::most_out`] says how
//! many there are: a pool whose endpoints all fail has another problem than an outlier. The term grows with every
//! ejection and shrinks again with every clean stretch ([`History`]).
//!
//! Invariant: of one endpoint none is out, and never all of several.

mod row;
mod sweep;

use std::num::NonZeroU32;
use std::time::Duration;

use crate::domain::split::Share;

pub use row::{Mark, Row};
pub use sweep::{Counts, Lookback, Suspect, suspects};

/// What ejects an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Cause {
    /// Gateway failures in a row: connections refused or reset, timeouts, cut answers, 502, 503, 504.
    Gateway,
    /// Failures of any kind in a row, every 5xx among them.
    Errors,
    /// A success rate far below that of the pool.
    SuccessRate,
    /// A share of failures that is too high by itself.
    FailureShare,
    /// Much slower than the pool.
    Latency,
}

impl Cause {
    /// All of them, in the order of their numbers.
    pub const ALL: [Cause; 5] =
        [Cause::Gateway, Cause::Errors, Cause::SuccessRate, Cause::FailureShare, Cause::Latency];

    /// Its name in metrics: the key that switches it on.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Gateway => "consecutive_gateway",
            Cause::Errors => "consecutive_5xx",
            Cause::SuccessRate => "success_rate",
            Cause::FailureShare => "failure_share",
            Cause::Latency => "latency",
        }
    }
}

/// When an endpoint is taken out, and for how long. The defaults and their reasons are in `config/reference.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// So many gateway failures in a row.
    pub consecutive_gateway: Option<NonZeroU32>,
    /// So many failures of any kind in a row.
    pub consecutive_5xx: Option<NonZeroU32>,
    /// A success rate below that of the pool.
    pub success_rate: Option<SuccessRate>,
    /// A share of failures.
    pub failure_share: Option<FailureShare>,
    /// Answers slower than the pool's.
    pub latency: Option<Latency>,
    /// How often the endpoints of a pool are compared.
    pub interval: Duration,
    /// How far back a comparison looks; at least an interval.
    pub window: Duration,
    /// The first term; each further ejection adds as much, each clean stretch of this length takes as much away.
    pub base_time: Duration,
    /// The longest term, before its jitter; at least `base_time`.
    pub max_time: Duration,
    /// The share of a pool that may be out at a time, rounded down.
    pub max_ejected: Share,
}

/// Below the pool's mean by several deviations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// Standard deviations below the mean, in thousandths.
    pub deviations_milli: u32,
    /// Who is compared.
    pub least: Least,
}

/// Too many failures, whatever the others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureShare {
    /// This share of requests or more.
    pub threshold: Share,
    /// Who is compared.
    pub least: Least,
}

/// Slower than the pool by a factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Times the pool's median, in thousandths.
    pub factor_milli: u32,
    /// Who is compared.
    pub least: Least,
}

/// How much must have been seen before endpoints are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Least {
    /// Of one endpoint within the window.
    pub requests: u64,
    /// Endpoints with so many requests.
    pub endpoints: usize,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            consecutive_gateway: NonZeroU32::new(5),
            consecutive_5xx: None,
            success_rate: None,
            failure_share: None,
            latency: None,
            interval: Duration::from_secs(1),
            window: Duration::from_secs(10),
            base_time: Duration::from_secs(10),
            max_time: Duration::from_secs(300),
            max_ejected: Share::from_basis_points(5_000).expect("50%"),
        }
    }
}

impl Default for SuccessRate {
    fn default() -> SuccessRate {
        SuccessRate { deviations_milli: 2_000, least: Least { requests: 100, endpoints: 3 } }
    }
}

impl Default for FailureShare {
    fn default() -> FailureShare {
        let threshold = Share::from_basis_points(8_500).expect("85%");
        FailureShare { threshold, least: Least { requests: 50, endpoints: 2 } }
    }
}

impl Default for Latency {
    fn default() -> Latency {
        Latency { factor_milli: 3_000, least: Least { requests: 50, endpoints: 3 } }
    }
}

impl Policy {
    /// Nothing ejects.
    pub const fn off(self) -> Policy {
        Policy {
            consecutive_gateway: None,
            consecutive_5xx: None,
            success_rate: None,
            failure_share: None,
            latency: None,
            ..self
        }
    }

    /// True if nothing ejects.
    pub const fn is_off(&self) -> bool {
        !self.counts_rows() && !self.compares()
    }

    /// True if failures in a row eject.
    pub const fn counts_rows(&self) -> bool {
        self.consecutive_gateway.is_some() || self.consecutive_5xx.is_some()
    }

    /// True if endpoints are compared, so that their requests must be counted.
    pub const fn compares(&self) -> bool {
        self.success_rate.is_some() || self.failure_share.is_some() || self.latency.is_some()
    }

    /// How many of so many endpoints may be out: the share, but never all of them.
    pub fn most_out(&self, endpoints: usize) -> usize {
        let by_share = endpoints * usize::from(self.max_ejected.basis_points()) / 10_000;
        by_share.min(endpoints.saturating_sub(1))
    }
}

/// How often an endpoint was ejected of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    times: u32,
    back_since: u64,
}

impl History {
    /// It is ejected at `now` (microseconds): for how long, in microseconds. `chance` (0 to 1) adds up to a tenth, so
    /// that endpoints that left together do not come back together.
    pub fn ejected(&mut self, policy: &Policy, now: u64, chance: f64) -> u64 {
        let base = micros(policy.base_time).max(1);
        let clean = u32::try_from(now.saturating_sub(self.back_since) / base).unwrap_or(u32::MAX);
        self.times = self.times.saturating_sub(clean).saturating_add(1);
        let term = base.saturating_mul(u64::from(self.times)).min(micros(policy.max_time)).max(base);
        term.saturating_add((term as f64 * chance.clamp(0.0, 1.0) / 10.0) as u64)
    }

    /// It came back at `now`.
    pub fn returned(&mut self, now: u64) {
        self.back_since = now;
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
