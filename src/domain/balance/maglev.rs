//! Maglev hashing: a table that endpoints fill in turns, each in an order of its own (Eisenbud et al., "Maglev", 2016).
//!
//! Shares are met almost exactly, and a pick is one look into a small table; in return an endpoint that leaves moves a few
//! keys of the others too.
//!
//! Invariant: every slot of the table has a place; who holds which depends on seats and weights alone.

use crate::domain::split::mix;

/// Slots: a prime, so that every step visits all of them. The paper's size for up to some hundred endpoints; of one size
/// for all pools, because another size would move nearly every key.
const SLOTS: usize = 65_537;

/// A lookup table.
#[derive(Debug)]
pub(super) struct Maglev(Box<[u16]>);

impl Maglev {
    /// A table of places by seat and weight.
    pub(super) fn new(places: &[(u64, u32)]) -> Maglev {
        // A pool has fewer endpoints than a table has slots; more than that would have none.
        let mut order: Vec<usize> = (0..places.len().min(SLOTS - 1)).collect();
        order.sort_unstable_by_key(|place| places[*place].0);
        let heaviest = order.iter().map(|place| u64::from(places[*place].1)).max().unwrap_or(1);
        let mut hands: Vec<Hand> = order.iter().map(|place| Hand::new(*place, places[*place])).collect();
        let mut slots: Vec<Option<u16>> = vec![None; SLOTS];
        let mut empty = if hands.is_empty() { 0 } else { SLOTS };
        while empty > 0 {
            // The heaviest has a turn in every round, the others in as many as they weigh beside it.
            for hand in &mut hands {
                hand.due += hand.weight;
                if hand.due >= heaviest && empty > 0 {
                    hand.due -= heaviest;
                    let slot = hand.next_of(&slots);
                    slots[slot] = Some(hand.place);
                    empty -= 1;
                }
            }
        }
        Maglev(slots.into_iter().flatten().collect())
    }

    /// The places from a key's slot on.
    pub(super) fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let (before, after) = self.0.split_at(((u128::from(key) * self.0.len() as u128) >> 64) as usize);
        after.iter().chain(before).map(|place| usize::from(*place))
    }
}

/// One place while the table is filled.
struct Hand {
    place: u16,
    weight: u64,
    due: u64,
    at: usize,
    step: usize,
}

impl Hand {
    fn new(place: usize, (seat, weight): (u64, u32)) -> Hand {
        let at = (mix(seat) % SLOTS as u64) as usize;
        let step = (mix(mix(seat)) % (SLOTS as u64 - 1)) as usize + 1;
        Hand { place: place as u16, weight: u64::from(weight), due: 0, at, step }
    }

    /// The next empty slot of its order; there is one.
    fn next_of(&mut self, slots: &[Option<u16>]) -> usize {
        while slots[self.at].is_some() {
            self.at = (self.at + self.step) % SLOTS;
        }
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_filled_by_weight_whatever_the_order() {
        let places = [(11, 1), (22, 3), (33, 6)];
        let held = |table: &Maglev, place: u16| table.0.iter().filter(|of| **of == place).count() as f64;
        let table = Maglev::new(&places);
        assert_eq!(table.0.len(), SLOTS);
        for (place, (_, weight)) in (0..).zip(places) {
            let share = held(&table, place) / SLOTS as f64;
            assert!((share - f64::from(weight) / 10.0).abs() < 0.001, "{share}");
        }
        let turned = Maglev::new(&[places[2], places[0], places[1]]);
        assert!((0..SLOTS).all(|slot| turned.0[slot] == [1, 2, 0][usize::from(table.0[slot])]));
    }

    #[test]
    fn a_walk_sees_the_whole_table_and_nobody_walks_an_empty_one() {
        let table = Maglev::new(&[(1, 1), (2, 1)]);
        assert_eq!(table.walk(u64::MAX).count(), SLOTS);
        assert_eq!(table.walk(u64::MAX).next(), Some(usize::from(table.0[SLOTS - 1])));
        assert_eq!(Maglev::new(&[]).walk(5).next(), None);
    }
}
