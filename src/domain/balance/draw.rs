//! Drawing by weight: a die, and the alias method (Walker 1977, in Vose's form), which takes one roll and one look.
//!
//! Invariant: over all rolls each place comes up in proportion to its weight, to one part in 2^32.

use crate::domain::split::mix;

/// A source of rolls, made from one random number.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(random: u64) -> Dice {
        Dice(random)
    }

    /// 64 fresh bits.
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// True in `part` of `whole` rolls; `whole` is a power of two.
    pub(super) fn comes_up(&mut self, part: u32, whole: u32) -> bool {
        part >= whole || (self.roll() as u32 & (whole - 1)) < part
    }
}

/// Places with weights.
#[derive(Debug)]
pub(super) struct Odds {
    places: u64,
    /// For each place: below this it is kept, else the other one is taken. Empty if all weigh the same.
    columns: Box<[(u32, u32)]>,
}

impl Odds {
    /// Odds by weights, none of which is zero.
    pub(super) fn new(weights: &[u32]) -> Odds {
        let places = weights.len();
        if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            return Odds { places: places as u64, columns: Box::default() };
        }
        // In units in which a full column is `total`.
        let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
        let mut left: Vec<u128> = weights.iter().map(|weight| u128::from(*weight) * places as u128).collect();
        let mut columns: Vec<(u32, u32)> = (0..places as u32).map(|at| (u32::MAX, at)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..places).partition(|at| left[*at] < total);
        while let (Some(at), Some(other)) = (small.pop(), large.pop()) {
            columns[at] = (((left[at] << 32) / total) as u32, other as u32);
            left[other] -= total - left[at];
            if left[other] < total { small.push(other) } else { large.push(other) }
        }
        Odds { places: places as u64, columns: columns.into() }
    }

    /// A place.
    pub(super) fn draw(&self, dice: &mut Dice) -> usize {
        let roll = dice.roll();
        let place = (((roll >> 32) * self.places) >> 32) as usize;
        match self.columns.get(place) {
            Some((keep, other)) if roll as u32 >= *keep => *other as usize,
            _ => place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_part_of_the_rolls_comes_up() {
        let mut dice = Dice::new(7);
        let up = (0..100_000).filter(|_| dice.comes_up(256, 1_024)).count();
        assert!((24_000..26_000).contains(&up), "{up}");
        assert!((0..1_000).all(|_| dice.comes_up(1_024, 1_024)));
    }

    proptest! {
        #[test]
        fn places_come_up_by_weight(weights in prop::collection::vec(1_u32..1_000, 1..12), seed: u64) {
            let (odds, mut dice) = (Odds::new(&weights), Dice::new(seed));
            let (total, draws) = (f64::from(weights.iter().sum::<u32>()), 20_000.0);
            let mut counts = vec![0_u32; weights.len()];
            (0..draws as u32).for_each(|_| counts[odds.draw(&mut dice)] += 1);
            for (count, weight) in counts.iter().zip(&weights) {
                let share = f64::from(*weight) / total;
                let sigma = (draws * share * (1.0 - share)).sqrt();
                prop_assert!((f64::from(*count) - draws * share).abs() <= 6.0 * sigma + 1.0, "{:?} {:?}", counts, weights);
            }
        }
    }
}
