//! Hedging: a second attempt beside one that takes unusually long (Dean and Barroso, "The Tail at Scale", 2013).
//!
//! The delay is fixed, or a percentile of what the pool's answers took of late, so that only the slow tail is asked
//! twice. Only what has the effect of one is hedged, and only without a body, since both attempts are under way at once.
//!
//! Invariant: without a measured pace there is no percentile, and nothing is hedged by one.

use std::time::Duration;

use crate::domain::budget::Budget;
use crate::domain::retry::Safety;
use crate::domain::split::Share;
use crate::domain::stats::histogram;

/// Hedges that can be saved up: a hiccup of one endpoint meets a handful of requests at once.
pub const RESERVE: u32 = 10;
/// Answers that a percentile is taken of, at least: of fewer, a high one is only the slowest of them.
pub const LEAST: u64 = 100;

/// When and how often a second attempt is begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long the first one is waited for.
    pub after: After,
    /// How many.
    pub budget: Budget,
}

impl Default for Policy {
    fn default() -> Policy {
        let share = Share::from_basis_points(500).expect("5%");
        Policy { after: After::Percentile(95), budget: Budget { share, floor: 0, reserve: RESERVE } }
    }
}

/// How long the first attempt is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// So long.
    Fixed(Duration),
    /// As long as so many of a hundred answers of the pool took of late.
    Percentile(u8),
}

impl Policy {
    /// How long a request's first attempt is waited for; `pace` is what was measured of the pool in microseconds. `None`
    /// if it is not hedged.
    pub fn delay(&self, safety: Safety, has_body: bool, pace: Option<u64>) -> Option<Duration> {
        if safety == Safety::Neither || has_body {
            return None;
        }
        match self.after {
            After::Fixed(delay) => Some(delay),
            After::Percentile(_) => pace.map(Duration::from_micros),
        }
    }
}

/// The latency in microseconds that so many of a hundred answers did not exceed between two looks at the buckets of
/// [`histogram`]; `None` if there were too few.
pub fn pace(before: &[u64], now: &[u64], percentile: u8) -> Option<u64> {
    let late: Vec<u64> = now.iter().zip(before).map(|(now, before)| now.saturating_sub(*before)).collect();
    let enough = histogram::total(&late) >= LEAST;
    enough.then(|| histogram::quantile(&late, f64::from(percentile) / 100.0)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_the_effect_of_one_and_no_body_is_hedged() {
        let fixed = Policy { after: After::Fixed(Duration::from_millis(50)), ..Policy::default() };
        let table = [
            (Safety::Safe, false, true),
            (Safety::Idempotent, false, true),
            (Safety::Neither, false, false),
            (Safety::Safe, true, false),
        ];
        for (safety, has_body, hedged) in table {
            let delay = fixed.delay(safety, has_body, Some(7));
            assert_eq!(delay, hedged.then_some(Duration::from_millis(50)), "{safety:?} {has_body}");
        }
        assert_eq!(Policy::default().delay(Safety::Safe, false, Some(7_000)), Some(Duration::from_millis(7)));
        assert_eq!(Policy::default().delay(Safety::Safe, false, None), None);
    }

    #[test]
    fn a_pace_is_of_late_and_needs_enough_answers() {
        let mut before = vec![0; histogram::BUCKETS];
        before[histogram::index(1_000_000)] = 5_000;
        let mut now = before.clone();
        now[histogram::index(2_000)] += 95;
        now[histogram::index(90_000)] += 4;
        assert_eq!(pace(&before, &now, 95), None);
        now[histogram::index(90_000)] += 1;
        let measured = pace(&before, &now, 95).unwrap();
        assert!((2_000..2_100).contains(&measured), "{measured}");
        assert!(pace(&before, &now, 99).unwrap() >= 90_000);
        assert_eq!(pace(&now, &before, 95), None, "a pool that began anew");
    }
}
