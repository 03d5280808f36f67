//! Weighted round robin: one round written out, in which each place comes as often as it weighs, spread evenly.
//!
//! The usual smooth weighted round robin (as in nginx) keeps a running sum for each endpoint and looks at all of them for
//! every pick. A round that is written out costs one look, and leaving places out keeps the proportions of the rest.
//!
//! Invariant: in one round each place comes up as often as it weighs, as long as the weights' sum fits into
//! [`LONGEST`]; beyond that to within one part in that many.

/// Places in a round: with weights that have no common divisor this is their sum, so it must have an end. 64 Ki are
/// 256 endpoints of weight 256, and 256 KiB.
const LONGEST: u64 = 1 << 16;

/// One round.
#[derive(Debug)]
pub(super) struct Cycle(Box<[u32]>);

impl Cycle {
    /// A round by weights, none of which is zero.
    pub(super) fn new(weights: &[u32]) -> Cycle {
        let divisor = weights.iter().copied().fold(0, gcd).max(1);
        let sum: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
        let turns = |weight: u32| match u64::from(weight / divisor) {
            turns if sum <= LONGEST => turns,
            turns => (turns * LONGEST / sum).max(1),
        };
        let mut round = Vec::with_capacity(sum.min(LONGEST) as usize);
        for (place, weight) in weights.iter().enumerate() {
            let turns = turns(*weight);
            // Each begins a bit later than the one before it, else all would have their first turn at once.
            let offset = (place as f64 + 0.5) / weights.len() as f64;
            round.extend((0..turns).map(|turn| ((turn as f64 + offset) / turns as f64, place as u32)));
        }
        round.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        Cycle(round.into_iter().map(|(_, place)| place).collect())
    }

    /// The first accepted place from `turn` on within `most` turns, and the turn after it.
    pub(super) fn next(&self, turn: u32, most: usize, mut accept: impl FnMut(usize) -> bool) -> Option<(usize, u32)> {
        let start = turn as usize % self.0.len().max(1);
        let mut turns = self.0[start..].iter().chain(&self.0[..start]).take(most).enumerate();
        let taken = turns.find(|(_, place)| accept(**place as usize));
        taken.map(|(passed, place)| (*place as usize, ((start + passed + 1) % self.0.len()) as u32))
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round(weights: &[u32], turns: usize, down: usize) -> Vec<usize> {
        let (cycle, mut turn) = (Cycle::new(weights), 0);
        let mut next = || {
            let (place, after) = cycle.next(turn, 100, |place| place != down).unwrap();
            turn = after;
            place
        };
        (0..turns).map(|_| next()).collect()
    }

    #[test]
    fn each_has_its_turn_and_who_is_out_leaves_no_gap() {
        assert_eq!(round(&[1, 1, 1], 6, 9), [0, 1, 2, 0, 1, 2]);
        assert_eq!(round(&[500, 500], 4, 9), [0, 1, 0, 1]);
        assert_eq!(round(&[1, 1, 1], 6, 1), [0, 2, 0, 2, 0, 2]);
        assert_eq!(round(&[2, 1, 1], 8, 9), [0, 1, 0, 2, 0, 1, 0, 2]);
        assert_eq!(round(&[5, 1], 6, 9), [0, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn nobody_is_found_among_none_or_past_the_limit() {
        assert_eq!(Cycle::new(&[]).next(3, 10, |_| true), None);
        assert_eq!(Cycle::new(&[1, 1, 1]).next(0, 2, |place| place == 2), None);
        assert_eq!(Cycle::new(&[1, 1, 1]).next(u32::MAX, 9, |place| place == 2).map(|(place, _)| place), Some(2));
    }

    #[test]
    fn many_heavy_places_share_a_round_of_limited_length() {
        let weights: Vec<u32> = (0..256).map(|place| 745 + place).collect();
        let cycle = Cycle::new(&weights);
        assert!(cycle.0.len() as u64 <= LONGEST);
        let turns = |place: u32| cycle.0.iter().filter(|turn| **turn == place).count() as f64;
        let fair = LONGEST as f64 * 1_000.0 / f64::from(weights.iter().sum::<u32>());
        assert!((turns(255) - fair).abs() <= 1.0, "{} {fair}", turns(255));
    }

    proptest! {
        #[test]
        fn a_round_is_exact_and_even(weights in prop::collection::vec(1_u32..40, 1..8)) {
            let divisor = weights.iter().copied().fold(0, gcd);
            let cycle = Cycle::new(&weights);
            let length = cycle.0.len();
            for (place, weight) in weights.iter().enumerate() {
                let turns: Vec<usize> = (0..length).filter(|turn| cycle.0[*turn] as usize == place).collect();
                prop_assert_eq!(turns.len(), (weight / divisor) as usize);
                // No gap is longer than the even one and what the others' turns can push in between.
                let gaps = turns.windows(2).map(|pair| pair[1] - pair[0]);
                prop_assert!(gaps.max().unwrap_or(0) <= length / turns.len() + 2 * weights.len());
            }
        }
    }
}
