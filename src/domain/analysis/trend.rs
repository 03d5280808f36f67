//! What a finding shows: the counts since the trouble began, not since the rollout began.
//!
//! A canary that was fine for an hour and broke a second ago has unremarkable totals. So each metric also keeps its
//! counts since its evidence last was at nothing: a cumulative sum of `ln L` per alternative, cut off at zero
//! (Page, "Continuous inspection schemes", Biometrika 1954). When all are at zero the counts start again.
//!
//! Invariant: display only; nothing is decided from here, and a restart may lose it.

use super::units::{Pair, Units};

/// The counts of one metric since its evidence last was at nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trend<const K: usize> {
    scores: [f64; K],
    pair: Pair,
}

impl<const K: usize> Default for Trend<K> {
    fn default() -> Trend<K> {
        Trend { scores: [0.0; K], pair: Pair::default() }
    }
}

impl<const K: usize> Trend<K> {
    /// Takes in what closed in one tick.
    pub(super) fn follow(&mut self, log_e: &[f64; K], canary: Units, baseline: Units) {
        self.pair.add(canary, baseline);
        self.scores.iter_mut().zip(log_e).for_each(|(score, log_e)| *score = (*score + log_e).max(0.0));
        if self.scores.iter().all(|score| *score == 0.0) {
            self.pair = Pair::default();
        }
    }

    /// The counts, or `totals` where nothing was followed yet (after a restart).
    pub(super) fn or(&self, totals: Pair) -> Pair {
        if self.pair.canary.bad == 0 { totals } else { self.pair }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_begin_again_whenever_the_evidence_is_at_nothing() {
        let units = |n, bad| Units { n, bad };
        let mut trend = Trend::<2>::default();
        trend.follow(&[-1.0, -0.5], units(10, 1), units(10, 2));
        let totals = Pair::default();
        assert_eq!(trend.or(totals), totals);
        trend.follow(&[0.5, -0.5], units(10, 3), units(10, 0));
        trend.follow(&[0.5, -0.5], units(10, 2), units(10, 1));
        let counts = trend.or(totals);
        assert_eq!((counts.canary.n, counts.canary.bad, counts.baseline.bad), (20, 5, 1));
        trend.follow(&[-2.0, -2.0], units(10, 0), units(10, 5));
        assert_eq!(trend.or(totals), totals);
    }
}
