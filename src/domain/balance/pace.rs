//! Pace: the latency to expect of an endpoint, as a peak-sensitive moving average.
//!
//! After Finagle's and linkerd's "peak EWMA": a latency above the average becomes the average at once, one below it pulls
//! it down with a time constant of ten seconds. So a stall is believed immediately and forgotten slowly. Without news the
//! average fades, so that a slow endpoint is tried again after a while.
//!
//! A bad outcome counts as twice what was expected, whatever it took: an endpoint that fails fast would otherwise look
//! like the best one there is.
//!
//! Invariant: an average is finite, not negative, and at most [`SLOWEST`].

use crate::domain::outcome::Outcome;

/// Microseconds after which a past latency has lost all but 1/e of its say.
const MEMORY: f64 = 10_000_000.0;
/// The least that a failure counts as, in microseconds: what failed at once has no latency of its own.
const FAILURE: f64 = 10_000.0;
/// The most that is expected of anybody, in microseconds.
const SLOWEST: f64 = 60_000_000.0;

/// What was seen of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// The average in microseconds, as of `at`; zero if nothing was ever seen.
    pub average: f64,
    /// When it was last renewed, in microseconds.
    pub at: u64,
}

impl Pace {
    /// What is known after one more outcome at `now`.
    pub fn after(self, outcome: Outcome, now: u64) -> Pace {
        let latency = match outcome {
            Outcome::Answered { latency, .. } => latency as f64,
            Outcome::Failed(_) => 0.0,
        };
        let took = if outcome.is_bad() { latency.max(2.0 * self.average).max(FAILURE) } else { latency };
        let average = match took >= self.average {
            true => took,
            false => took + (self.average - took) * self.weight(now),
        };
        Pace { average: average.clamp(0.0, SLOWEST), at: now.max(self.at) }
    }

    /// The latency to expect at `now` with so many requests in flight.
    ///
    /// While some are, nothing fades: their answers will tell. And nobody is sent more to an endpoint that has yet to
    /// answer for the first time; an idle one that is unknown is tried before all others.
    pub fn expected(self, in_flight: u64, now: u64) -> f64 {
        match (in_flight, self.average == 0.0) {
            (0, _) => self.faded(now),
            (_, true) => SLOWEST,
            (_, false) => self.average,
        }
    }

    fn faded(self, now: u64) -> f64 {
        self.average * self.weight(now)
    }

    fn weight(self, now: u64) -> f64 {
        let age = now.saturating_sub(self.at) as f64 / MEMORY;
        // Nearly always little time has passed: then two terms are as exact as can be told, and cheaper.
        if age < 0.001 { 1.0 - age + age * age / 2.0 } else { (-age).exp() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::outcome::Failure;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000;

    fn answered(latency: u64) -> Outcome {
        Outcome::Answered { status: 200, latency }
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let steady = (1..100).fold(Pace::default(), |pace, at| pace.after(answered(1_000), at * 1_000));
        assert!((steady.average - 1_000.0).abs() < 1.0);
        let peak = steady.after(answered(50_000), 100_000);
        assert_eq!(peak.average, 50_000.0);
        let calm = |seconds: u64| peak.after(answered(1_000), 100_000 + seconds * SECOND).average;
        assert!((calm(10) - (1_000.0 + 49_000.0 / std::f64::consts::E)).abs() < 1.0);
        assert!(calm(0) == 50_000.0 && (calm(100) - 1_000.0).abs() < 5.0);
    }

    #[test]
    fn failing_fast_is_not_being_fast() {
        let steady = Pace { average: 40_000.0, at: 0 };
        let table = [
            (Outcome::Failed(Failure::Connect), 80_000.0),
            (Outcome::Answered { status: 500, latency: 100 }, 80_000.0),
            (Outcome::Answered { status: 503, latency: 90_000 }, 90_000.0),
        ];
        for (outcome, expected) in table {
            assert_eq!(steady.after(outcome, 1).average, expected);
        }
        assert_eq!(Pace::default().after(Outcome::Failed(Failure::Reset), 1).average, FAILURE);
        let hopeless = (0..100).fold(steady, |pace, at| pace.after(Outcome::Failed(Failure::Timeout), at));
        assert_eq!(hopeless.average, SLOWEST);
    }

    #[test]
    fn who_is_unknown_is_tried_once_and_who_is_silent_fades_when_idle() {
        assert_eq!((Pace::default().expected(0, 9), Pace::default().expected(1, 9)), (0.0, SLOWEST));
        let slow = Pace { average: 1_000.0, at: 0 };
        assert!((slow.expected(0, 10 * SECOND) - 1_000.0 / std::f64::consts::E).abs() < 0.1);
        assert_eq!(slow.expected(3, 10 * SECOND), 1_000.0);
    }

    proptest! {
        #[test]
        fn an_average_lies_between_what_was_seen(latencies in prop::collection::vec((1_u64..100_000, 0_u64..SECOND), 1..50)) {
            let mut now = 0;
            let mut pace = Pace::default();
            for (latency, later) in &latencies {
                now += later;
                pace = pace.after(answered(*latency), now);
            }
            let least = latencies.iter().map(|one| one.0).min().unwrap() as f64;
            let most = latencies.iter().map(|one| one.0).max().unwrap() as f64;
            prop_assert!(pace.average >= least - 1e-6 && pace.average <= most + 1e-6, "{:?}", pace);
        }
    }
}
