//! Comparing the endpoints of a pool: who does much worse than the others.
//!
//! Each endpoint is measured against the *others*: its own results would else widen the yardstick it is measured by, so
//! that among five endpoints no single one could ever be two deviations off (a known trap of outlier detection). A
//! difference must also matter: where all others succeed always their deviation is nothing, and one lost request would
//! be infinitely far away from it.
//!
//! Invariant: whoever is compared has had the least number of requests, and so have enough others.

use std::collections::VecDeque;

use super::{Cause, FailureShare, Latency, Least, Policy, SuccessRate};

/// A success rate that is not at least this much below the others' is no reason to lose an endpoint.
const LEAST_GAP: f64 = 0.05;
/// Answers that are not at least this much slower than the others' are neither: below it, it is the machine's noise.
const LEAST_DELAY: f64 = 5_000.0;

/// Looks kept by a [`Lookback`] at most: the window is at most so many intervals.
pub(super) const MOST_LOOKS: usize = 600;

/// What an endpoint did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts that ended, or will certainly end well.
    pub requests: u64,
    /// Those among them that failed.
    pub failures: u64,
    /// Response heads below 500.
    pub answers: u64,
    /// Their time from dispatch, in microseconds.
    pub latency: u64,
}

impl Counts {
    /// What came since `earlier`; counters may wrap.
    const fn since(self, earlier: Counts) -> Counts {
        Counts {
            requests: self.requests.wrapping_sub(earlier.requests),
            failures: self.failures.wrapping_sub(earlier.failures),
            answers: self.answers.wrapping_sub(earlier.answers),
            latency: self.latency.wrapping_sub(earlier.latency),
        }
    }

    fn failed(&self) -> f64 {
        (self.failures as f64 / self.requests.max(1) as f64).min(1.0)
    }

    fn mean(&self) -> f64 {
        self.latency as f64 / self.answers.max(1) as f64
    }
}

/// Counts of the last while, from counts since the beginning.
#[derive(Clone, Debug, Default)]
pub struct Lookback(pub(super) VecDeque<(u64, Counts)>);

impl Lookback {
    /// What happened within the last `window` before `now` (both in microseconds), given the totals now. Looks are
    /// taken one after another; the first one sees nothing.
    pub fn look(&mut self, now: u64, window: u64, total: Counts) -> Counts {
        self.0.push_back((now, total));
        // The youngest look that is old enough stays: it is what is compared with.
        while self.0.len() > MOST_LOOKS || self.0.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= window) {
            self.0.pop_front();
        }
        self.0.front().map_or(Counts::default(), |(_, first)| total.since(*first))
    }

    /// Forgets everything: what came before does not count any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// An endpoint that should be out.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    /// Its place among those looked at.
    pub at: usize,
    /// What speaks against it.
    pub cause: Cause,
    /// The same in numbers.
    pub sentence: String,
}

/// Who should be out, the worst first. `seen` has what each endpoint did in the window; `None` for those that are out
/// already.
pub fn suspects(policy: &Policy, seen: &[Option<Counts>]) -> Vec<Suspect> {
    let mut found: Vec<Suspect> = Vec::new();
    let by_share = policy.failure_share.iter().flat_map(|rule| too_many_failures(rule, seen));
    let by_rate = policy.success_rate.iter().flat_map(|rule| below_the_others(rule, seen));
    let by_latency = policy.latency.iter().flat_map(|rule| slower_than_the_others(rule, seen));
    for suspect in by_share.chain(by_rate).chain(by_latency) {
        if found.iter().all(|known| known.at != suspect.at) {
            found.push(suspect);
        }
    }
    let badness = |suspect: &Suspect| seen[suspect.at].map_or((0.0, 0.0), |counts| (counts.failed(), counts.mean()));
    found.sort_by(|one, other| {
        let ((failed, mean), (other_failed, other_mean)) = (badness(one), badness(other));
        other_failed.total_cmp(&failed).then(other_mean.total_cmp(&mean))
    });
    found
}

/// Those with enough of what is compared, if they are enough.
fn enough(least: Least, seen: &[Option<Counts>], amount: fn(&Counts) -> u64) -> Vec<(usize, Counts)> {
    let all = seen.iter().enumerate().filter_map(|(at, counts)| Some((at, (*counts)?)));
    let able: Vec<_> = all.filter(|(_, counts)| amount(counts) >= least.requests.max(1)).collect();
    if able.len() >= least.endpoints.max(2) { able } else { Vec::new() }
}

fn too_many_failures(rule: &FailureShare, seen: &[Option<Counts>]) -> Vec<Suspect> {
    let limit = rule.threshold.fraction();
    let over = enough(rule.least, seen, |counts| counts.requests).into_iter();
    let over = over.filter(|(_, counts)| counts.failures > 0 && counts.failed() >= limit);
    let suspect = |(at, counts): (usize, Counts)| Suspect {
        at,
        cause: Cause::FailureShare,
        sentence: format!("{} of {} requests failed", counts.failures.min(counts.requests), counts.requests),
    };
    over.map(suspect).collect()
}

fn below_the_others(rule: &SuccessRate, seen: &[Option<Counts>]) -> Vec<Suspect> {
    let able = enough(rule.least, seen, |counts| counts.requests);
    let rates: Vec<f64> = able.iter().map(|(_, counts)| 1.0 - counts.failed()).collect();
    let below = |(index, (at, _)): (usize, &(usize, Counts))| {
        let (mean, deviation) = of_the_others(&rates, index);
        let gap = (deviation * f64::from(rule.deviations_milli) / 1_000.0).max(LEAST_GAP);
        (rates[index] < mean - gap).then(|| Suspect {
            at: *at,
            cause: Cause::SuccessRate,
            sentence: format!("{:.1}% of its requests succeed, {:.1}% of the others'", rates[index] * 1e2, mean * 1e2),
        })
    };
    able.iter().enumerate().filter_map(below).collect()
}

/// Mean and standard deviation of all values but one.
fn of_the_others(values: &[f64], but: usize) -> (f64, f64) {
    let others = || values.iter().enumerate().filter(|(at, _)| *at != but).map(|(_, value)| *value);
    let count = values.len().saturating_sub(1).max(1) as f64;
    let mean = others().sum::<f64>() / count;
    let variance = others().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

fn slower_than_the_others(rule: &Latency, seen: &[Option<Counts>]) -> Vec<Suspect> {
    let able = enough(rule.least, seen, |counts| counts.answers);
    let means: Vec<f64> = able.iter().map(|(_, counts)| counts.mean()).collect();
    let Some(median) = median(&means) else { return Vec::new() };
    let factor = f64::from(rule.factor_milli) / 1_000.0;
    let slow = |mean: f64| mean > median * factor && mean - median >= LEAST_DELAY;
    let over = able.iter().zip(&means).filter(|(_, mean)| slow(**mean));
    let suspect = |((at, _), mean): (&(usize, Counts), &f64)| Suspect {
        at: *at,
        cause: Cause::Latency,
        sentence: format!("answers take {:.1} ms, {:.1} ms in the pool", mean / 1e3, median / 1e3),
    };
    over.map(suspect).collect()
}

/// The lower of the two in the middle: the slow ones do not set the pace.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}
