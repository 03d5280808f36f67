//! Approval: proof that the canary is not worse by more than a margin.
//!
//! Three claims, each tested at `beta`: errors, p50 and p99. All must pass, so the chance to approve a canary
//! at the margin of any of them is at most `beta` with no price for the number of tests (intersection-union).
//! What each must rule out:
//!
//! - errors: odds of an error `approve_errors_odds` times the baseline's or more, by the conditional 2x2
//!   e-value with the alternative "equal odds";
//! - p50, p99: a canary slower by `approve_latency` or more at that quantile of the baseline, by the same
//!   e-value at the approval marks. The alternatives are a mixture of odds .5, .7, .85, since how far 20 % more
//!   latency moves the odds depends on how widely the service's latencies spread.
//!
//! While the canary has no bad unit at all in the step, the 2x2 table can hardly speak: with none in the
//! baseline either it says nothing, ever. Then an absolute test may pass the claim instead: rate of bad units
//! at or above `approve_error_rate` (errors) or above the quantile's own share past the mark (latency, where the
//! share is what the baseline had when the mark was learned), against a tenth of it. The first bad canary unit
//! takes that way out again. The two ways share `beta`, since a canary that is bad by both nulls
//! could use either (measured before that: 6.5 % instead of 5 % at twice the odds of 0.05 %).
//!
//! Evidence starts afresh at each weight step: it is about the past, and says nothing about a regression that
//! begins later. No traffic is inconclusive, never success. The least time of a step is the rollout's matter.
//!
//! Invariant: `Passed` needs `min_requests` in both pools in the present step.

use super::Policy;
use super::marks::{APPROVED, Quantile};
use super::state::{APPROVAL_ODDS, StepEvidence};
use super::text::{grouped, percent};
use super::units::Total;
use crate::domain::stats::{Table, log_e2x2};

/// Odds of a slow canary request under the alternatives, where "just too slow" is 1, and their shares.
const FASTER: [f64; APPROVAL_ODDS] = [0.5, 0.7, 0.85];
const FASTER_SHARES: [f64; APPROVAL_ODDS] = [0.5, 0.25, 0.25];

/// The alternative of the absolute tests, as a part of the rate to rule out.
const TENTH: f64 = 0.1;

/// Mass kept for start times after the first tick of a step, and the tick by which half of it is given out.
const RESTARTS: f64 = 0.2;
const RESTART_HALF_WAY: f64 = 300.0;

/// The part of `beta` that the comparison may spend; the test of the canary by itself has the rest.
const COMPARED: f64 = 0.7;

/// Below this share of the evidence a forecast would be noise.
const LEAST_TREND: f64 = 0.03;

/// Whether the canary may be given more traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Approval {
    /// Everything is proven.
    Passed,
    /// No request ended in this step.
    NoTraffic,
    /// Too few requests ended in this step.
    TooFew {
        /// Requests the canary finished.
        canary: u64,
        /// Requests the baseline finished.
        baseline: u64,
        /// Requests each must have finished.
        needed: u64,
    },
    /// Something is not proven yet; this is the claim that is furthest from it.
    Unproven {
        /// What is to be shown.
        which: Claim,
        /// Part of the evidence gathered so far, 0 to 1.
        share: f64,
        /// Canary requests still needed at the present pace, if it can be told.
        requests: Option<u64>,
    },
}

/// What has to be shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Claim {
    /// The odds of an error are below `odds` times the baseline's.
    ErrorOdds {
        /// The odds ratio to rule out.
        odds: f64,
    },
    /// The error rate is below `rate`.
    ErrorRate {
        /// The rate to rule out, 0 to 1.
        rate: f64,
    },
    /// The latency is not `slowdown` above the baseline's.
    Latency {
        /// At this quantile.
        quantile: Quantile,
        /// The slowdown to rule out, as a fraction.
        slowdown: f64,
    },
}

impl Approval {
    /// True when the canary may go on.
    pub fn is_passed(&self) -> bool {
        matches!(self, Approval::Passed)
    }

    /// The same in words, with the pools' names.
    pub fn sentence(&self, canary: &str, baseline: &str) -> String {
        match self {
            Approval::Passed => format!("{canary} is shown to be no worse than {baseline}"),
            Approval::NoTraffic => "no request has ended in this step, so nothing is known".to_owned(),
            Approval::TooFew { canary: c, baseline: b, needed } => format!(
                "too few requests in this step: {canary} {}, {baseline} {}, each needs {}",
                grouped(*c),
                grouped(*b),
                grouped(*needed)
            ),
            Approval::Unproven { which, share, requests } => {
                let claim = which.sentence(canary, baseline);
                let gathered = percent(*share);
                let more = requests.map(|n| format!(", about {} more {canary} requests", grouped(n)));
                format!("not shown yet: {claim}; {gathered} of the evidence{}", more.unwrap_or_default())
            }
        }
    }
}

impl Claim {
    fn sentence(&self, canary: &str, baseline: &str) -> String {
        match self {
            Claim::ErrorOdds { odds } => {
                format!("errors of {canary} are below {odds} times the odds of {baseline}")
            }
            Claim::ErrorRate { rate } => format!("the error rate of {canary} is below {}", percent(*rate)),
            Claim::Latency { quantile, slowdown } => {
                format!("{quantile} latency of {canary} is less than {} above {baseline}", percent(*slowdown))
            }
        }
    }
}

/// Begins a tick of the step: a little mass is put on "it is fine from here on".
///
/// Without it one stall that slows both pools alike (a pause of the machine, a collection in a shared database) would
/// weigh on the step for ever, because equal slowness past the mark speaks against the claim as strongly as a slower
/// canary does. With it the evidence after the stall counts for itself; the sum over start times is an e-process as
/// on the other side (see `domain::stats::spending`).
pub(super) fn begin_tick(step: &mut StepEvidence) {
    let late = step.ticks as f64 + RESTART_HALF_WAY;
    let mass = RESTARTS * RESTART_HALF_WAY / (late * (late + 1.0)) / (1.0 - RESTARTS);
    step.ticks = step.ticks.saturating_add(1);
    let evidence = step.slow_log_e.iter_mut().flatten().chain([&mut step.errors_log_e]);
    evidence.for_each(|log_e| *log_e = log_e.max(mass.ln()) + (-(*log_e - mass.ln()).abs()).exp().ln_1p());
}

/// Adds a closed block of the step to the evidence about errors.
pub(super) fn add_errors(step: &mut StepEvidence, table: &Table, policy: &Policy) {
    step.errors_log_e += log_e2x2(table, 1.0, policy.approve_errors_odds);
}

/// Adds a closed block of the step to the evidence about the approval mark at `place`.
pub(super) fn add_slow(step: &mut StepEvidence, place: usize, table: &Table) {
    table.add_log_e(&FASTER, 1.0, &mut step.slow_log_e[place]);
}

/// What the step's evidence amounts to.
pub(super) fn judge(policy: &Policy, step: Option<&StepEvidence>) -> Approval {
    let Some(step) = step else { return Approval::NoTraffic };
    let (canary, baseline, needed) = (step.errors.canary.n, step.errors.baseline.n, policy.min_requests);
    if canary == 0 && baseline == 0 {
        return Approval::NoTraffic;
    }
    if canary.min(baseline) < needed.max(1) {
        return Approval::TooFew { canary, baseline, needed: needed.max(1) };
    }
    let weakest = claims(policy, step).into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
    match weakest {
        Some((which, share)) if share < 1.0 => {
            Approval::Unproven { which, share: share.clamp(0.0, 1.0), requests: forecast(canary, share) }
        }
        _ => Approval::Passed,
    }
}

/// Each claim with the share of the evidence it needs.
fn claims(policy: &Policy, step: &StepEvidence) -> [(Claim, f64); 1 + APPROVED.len()] {
    let latency = |place: usize| {
        let quantile = APPROVED[place];
        let relative = by_comparison(policy, mixture(&step.slow_log_e[place]));
        let absolute = by_itself(policy, step.slow[place].canary, 1.0 - quantile.fraction());
        (Claim::Latency { quantile, slowdown: policy.approve_latency }, relative.max(absolute))
    };
    [errors(policy, step), latency(0), latency(1)]
}

fn errors(policy: &Policy, step: &StepEvidence) -> (Claim, f64) {
    let rate = policy.approve_error_rate;
    let relative = by_comparison(policy, step.errors_log_e);
    let absolute = by_itself(policy, step.errors.canary, rate);
    if absolute > relative {
        (Claim::ErrorRate { rate }, absolute)
    } else {
        (Claim::ErrorOdds { odds: policy.approve_errors_odds }, relative)
    }
}

/// The share of the evidence that the comparison with the baseline has.
fn by_comparison(policy: &Policy, log_e: f64) -> f64 {
    (log_e + (1.0 - RESTARTS).ln()) / -(COMPARED * policy.beta).ln()
}

/// The share of the evidence that the canary's own good units have against "bad at `rate` or more".
fn by_itself(policy: &Policy, units: Total, rate: f64) -> f64 {
    absolute(units, rate) / -((1.0 - COMPARED) * policy.beta).ln()
}

/// `ln` of the e-value of the mixture over [`FASTER`].
fn mixture(log_e: &[f64; APPROVAL_ODDS]) -> f64 {
    let largest = log_e.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = log_e.iter().zip(FASTER_SHARES).map(|(log_e, share)| share * (log_e - largest).exp()).sum();
    largest + sum.ln()
}

/// `ln` of the e-value against "bad at `rate` or more" by `n` good units in a row; speaks only while none was bad.
fn absolute(units: Total, rate: f64) -> f64 {
    if units.bad > 0 || units.n == 0 {
        return f64::NEG_INFINITY;
    }
    units.n as f64 * ((1.0 - TENTH * rate) / (1.0 - rate)).ln()
}

/// How many canary requests are missing if evidence keeps growing as it did.
fn forecast(requests: u64, share: f64) -> Option<u64> {
    (share > LEAST_TREND).then(|| (requests as f64 * (1.0 / share - 1.0)).ceil() as u64)
}
