//! Latency marks: the eight latencies against which each pool's requests are counted.
//!
//! Six are for the search for a slower canary, one per quantile of the baseline: a baseline request is slow
//! past `tau`, a canary request past `tau` plus the tolerated slowdown. If the canary is no slower than
//! tolerated, it passes its mark no more often than the baseline passes its own, at every quantile
//! (stochastic order as the null: Lindon, Sanden, Shirikian, arXiv 2205.14762). The last two, for p50 and
//! p99, serve approval in the same way.
//!
//! Any marks are sound as long as they come from the past of the traffic they judge. Which ones only decides
//! how soon there is evidence. That is why search takes the upper bound of the quantile's bucket and approval
//! one less than its lower bound: a service whose requests all fall into one bucket never passes the upper
//! bound, and approval would wait for evidence that cannot come. Past the lower one lies at least the
//! quantile's share of the baseline, so an equal canary, held to the later mark, always builds up evidence.
//!
//! Invariant: a canary mark is later than its baseline mark by [`LEAST_SLACK`] or more.

use std::fmt;

use super::Policy;
use crate::domain::stats::histogram;

/// How many quantiles are watched.
pub const THRESHOLDS: usize = 6;

/// The quantiles that are watched, as fractions.
pub const QUANTILES: [f64; THRESHOLDS] = [0.50, 0.75, 0.90, 0.95, 0.99, 0.999];

/// How many marks a pool has: [`THRESHOLDS`], then p50 and p99 for approval.
pub const MARKS: usize = THRESHOLDS + APPROVED.len();

/// Fewer baseline samples than this give no marks.
pub const LEARN_FROM: u64 = 500;

/// No slowdown below this many microseconds counts, whatever its percentage: two processes on one machine
/// differ by as much through scheduling and connection reuse alone. Decides only where 5 % of the baseline's
/// latency is less, which is below 5 ms.
pub const LEAST_SLACK: u64 = 250;

/// The quantiles approval looks at; their marks follow the first [`THRESHOLDS`].
pub(super) const APPROVED: [Quantile; 2] = [Quantile(0), Quantile(4)];

/// One of [`QUANTILES`]. Displays as `p50`, `p99.9`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantile(usize);

impl Quantile {
    /// All quantiles, lowest first.
    pub fn all() -> impl Iterator<Item = Quantile> {
        (0..THRESHOLDS).map(Quantile)
    }

    /// The quantile at a place in [`QUANTILES`], if there is one.
    pub fn from_index(index: usize) -> Option<Quantile> {
        (index < THRESHOLDS).then_some(Quantile(index))
    }

    /// Its place in [`QUANTILES`] and among the first marks.
    pub fn index(self) -> usize {
        self.0
    }

    /// The share of requests at or below it.
    pub fn fraction(self) -> f64 {
        QUANTILES[self.0]
    }
}

impl fmt::Display for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", (self.fraction() * 1000.0).round() / 10.0)
    }
}

/// The marks of both pools in microseconds; a request is slow when it takes longer than its pool's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The baseline's: its own quantiles.
    pub baseline: [u64; MARKS],
    /// The canary's: the same, plus the slowdown tolerated or to be ruled out.
    pub canary: [u64; MARKS],
}

impl Marks {
    /// Learns the marks from the baseline's histogram of [`histogram::BUCKETS`] counts. `None` below
    /// [`LEARN_FROM`] samples.
    pub fn learn(baseline: &[u64], policy: &Policy) -> Option<Marks> {
        if histogram::total(baseline) < LEARN_FROM {
            return None;
        }
        let mut marks = Marks { baseline: [0; MARKS], canary: [0; MARKS] };
        for quantile in Quantile::all() {
            let tau = histogram::quantile(baseline, quantile.fraction())?;
            marks.baseline[quantile.0] = tau;
            marks.canary[quantile.0] = later(tau, policy.tolerate_latency, f64::ceil);
        }
        for (place, quantile) in (THRESHOLDS..).zip(APPROVED) {
            let bucket = histogram::quantile_index(baseline, quantile.fraction())?;
            let tau = histogram::lowest(bucket).saturating_sub(1);
            marks.baseline[place] = tau;
            marks.canary[place] = later(tau, policy.approve_latency, f64::floor);
        }
        Some(marks)
    }
}

/// `tau` plus the slowdown, rounded to the side that asks for more evidence.
fn later(tau: u64, slowdown: f64, round: fn(f64) -> f64) -> u64 {
    let slack = round(tau as f64 * slowdown) as u64;
    tau.saturating_add(slack.max(LEAST_SLACK))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(values: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut counts = vec![0; histogram::BUCKETS];
        values.for_each(|v| counts[histogram::index(v)] += 1);
        counts
    }

    #[test]
    fn a_cold_start_learns_first() {
        let policy = Policy::default();
        assert_eq!(Marks::learn(&counts(0..499), &policy), None);
        assert!(Marks::learn(&counts(0..500), &policy).is_some());
        assert_eq!(Marks::learn(&[], &policy), None);
    }

    #[test]
    fn marks_follow_the_quantiles_and_the_policy() {
        let counts = counts((1..=10_000).map(|i| i * 10));
        let marks = Marks::learn(&counts, &Policy::default()).expect("enough samples");
        for quantile in Quantile::all() {
            let (tau, exact) = (marks.baseline[quantile.index()], quantile.fraction() * 100_000.0);
            assert!(tau as f64 >= exact && tau as f64 <= exact * 1.04, "{quantile}: {tau} for {exact}");
            assert_eq!(marks.canary[quantile.index()], (tau as f64 * 1.05).ceil() as u64);
        }
        assert!(marks.baseline[6] < 50_000 && marks.baseline[6] > 48_000);
        assert_eq!(marks.canary[6], (marks.baseline[6] as f64 * 1.2).floor() as u64);
        assert_eq!(marks.canary[7], (marks.baseline[7] as f64 * 1.2).floor() as u64);
    }

    #[test]
    fn approval_marks_leave_the_share_of_the_quantile_behind_them() {
        for value in [3, 70, 1_000, 1_000_000] {
            let marks = Marks::learn(&counts((0..1_000).map(|_| value)), &Policy::default()).expect("enough");
            assert!(marks.baseline[6] < value && marks.baseline[7] < value, "the baseline passes its mark");
            assert!(marks.canary[6] >= value && marks.canary[7] >= value, "an equal canary does not");
            assert!(marks.baseline[0] >= value, "and the search sees no slow request in either");
        }
    }

    #[test]
    fn quantiles_have_names() {
        let names: Vec<String> = Quantile::all().map(|quantile| quantile.to_string()).collect();
        assert_eq!(names, ["p50", "p75", "p90", "p95", "p99", "p99.9"]);
    }
}
