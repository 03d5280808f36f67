//! Ring hash: each endpoint at many points of a circle, a key goes to the next point (Karger et al. 1997).
//!
//! How many points an endpoint has depends on its own weight and on the scale of the heaviest, never on how many
//! endpoints there are: so one that leaves gives up its own keys and moves nobody else's. Only past the limits below
//! does the number of points follow the number of endpoints.
//!
//! Invariant: points depend on the endpoints' seats and weights alone, not on their order.

use crate::domain::split::mix;

/// Points of the heaviest endpoint, at least half as many: shares are met to within a percent of the pool.
const MOST: u32 = 8_192;
/// Points of a ring: 2 MiB. A ring of up to 32 equal endpoints is within it; larger ones have fewer points each.
const LARGEST: u64 = 1 << 18;

/// A ring.
#[derive(Debug)]
pub(super) struct Ring {
    /// The points by hash, with the place that each belongs to.
    points: Box<[(u32, u32)]>,
    /// For each value of a hash's upper bits the first point that is not below them: finding a point takes a look or two
    /// in place of a search through the whole ring.
    starts: Box<[u32]>,
    shift: u32,
}

impl Ring {
    /// A ring of places by seat and weight.
    pub(super) fn new(places: &[(u64, u32)]) -> Ring {
        let heaviest = places.iter().map(|(_, weight)| *weight).max().unwrap_or(1);
        let mut scale = u64::from(MOST / heaviest.next_power_of_two().min(MOST)).max(1);
        let points_of = |weight: u32, scale: u64| u64::from(weight) * scale;
        let total = |scale| places.iter().map(|(_, weight)| points_of(*weight, scale)).sum::<u64>();
        while scale > 1 && total(scale) > LARGEST {
            scale /= 2;
        }
        // Still too many: divided instead, with a point left for everybody.
        let divisor = total(scale).div_ceil(LARGEST).max(1);
        let mut points: Vec<(u32, u64, u32)> = Vec::with_capacity(total(scale).min(LARGEST) as usize);
        for (place, (seat, weight)) in (0_u32..).zip(places) {
            let count = (points_of(*weight, scale) / divisor).max(1);
            points.extend((0..count).map(|number| ((mix(seat ^ mix(number)) >> 32) as u32, *seat, place)));
        }
        points.sort_unstable();
        // About one point for each start.
        let bits = points.len().max(2).ilog2();
        let shift = 32 - bits;
        let below = |start: u32| points.partition_point(|(hash, ..)| hash >> shift < start) as u32;
        let starts = (0..1 << bits).map(below).collect();
        Ring { points: points.into_iter().map(|(hash, _, place)| (hash, place)).collect(), starts, shift }
    }

    /// The places from a key's on, each as often as it has points.
    pub(super) fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let hash = (key >> 32) as u32;
        let start = self.starts[(hash >> self.shift) as usize] as usize;
        let ahead = self.points[start..].iter().take_while(|(point, _)| *point < hash).count();
        let (before, after) = self.points.split_at(start + ahead);
        after.iter().chain(before).map(|(_, place)| *place as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_to_the_next_point_and_past_the_last_to_the_first() {
        let ring = Ring::new(&[(11, 1), (22, 3), (33, 2)]);
        for key in (0..=u64::from(u32::MAX)).step_by(1_000_003).chain([u64::from(u32::MAX)]) {
            let next = ring.points.iter().find(|(point, _)| u64::from(*point) >= key).unwrap_or(&ring.points[0]);
            assert_eq!(ring.walk(key << 32).next(), Some(next.1 as usize));
        }
        assert_eq!(ring.walk(7).count(), ring.points.len());
    }

    #[test]
    fn points_follow_weights_within_the_limits() {
        let count = |ring: &Ring, place: u32| ring.points.iter().filter(|(_, of)| *of == place).count();
        let one = Ring::new(&[(1, 1)]);
        assert_eq!(one.points.len(), 8_192);
        let uneven = Ring::new(&[(1, 1), (2, 1_000)]);
        assert_eq!((count(&uneven, 0), count(&uneven, 1)), (8, 8_000));
        let many: Vec<_> = (0..256).map(|seat| (seat, 1_000)).collect();
        let many = Ring::new(&many);
        assert!(many.points.len() as u64 <= LARGEST && count(&many, 0) >= 512, "{}", count(&many, 0));
        let crowd: Vec<_> = (0..60_000).map(|seat| (seat, 1 + seat as u32 % 1_000)).collect();
        let crowd = Ring::new(&crowd);
        assert!((60_000..=LARGEST as usize + 60_000).contains(&crowd.points.len()) && count(&crowd, 0) == 1);
    }
}
