//! Standing: how the levels of a pool share the requests, and whether it is in panic.
//!
//! ```text
//! capacity of a level = what is open of its weight / its weight × overprovision, at most 100 %
//! share of a level    = its capacity, as far as the levels before it leave requests
//! all capacities together below 100 %: all shares are raised in proportion, until they sum to it
//! ```
//!
//! With the default overprovision of 1.4 the first level keeps everything until less than 1/1.4 = 71 % of it is open. What
//! is open counts as far as it is warm, so a level that comes back takes its requests back as it warms up.
//!
//! *Panic*: less of the pool's endpoints is eligible than the threshold says, and no level stands in for them. Sending
//! everything to the few that are left would take those out as well, so what the endpoints' own results hold against
//! them does not count until more are eligible.
//!
//! Invariant: the shares sum to 100 %, unless nobody is open.

use super::level::Level;
use super::{Balance, LEVELS, WARM};

/// 100 %.
const ALL: u32 = 1 << 16;

/// How a pool stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Obstacles that come from an endpoint's own results do not count.
    pub panics: bool,
    /// For each level the end of its share among 2^16 draws; it begins where the one before it ends.
    pub ends: [u32; LEVELS],
}

impl Standing {
    /// The share of a level as a fraction; levels are numbered in the order of their priorities.
    pub fn share(&self, level: usize) -> f64 {
        let begin = if level == 0 { 0 } else { self.ends[level - 1] };
        f64::from(self.ends[level] - begin) / f64::from(ALL)
    }

    /// The level that a hash falls to; the first if nobody is open.
    pub(super) fn level(&self, hash: u64) -> usize {
        let draw = (hash >> 48) as u32;
        self.ends.iter().position(|end| draw < *end).unwrap_or(0)
    }
}

/// See [`super::Plan::stand`].
pub(super) fn stand(
    balance: &Balance,
    members: usize,
    levels: &[Level],
    eligible: impl Fn(usize) -> bool,
    spare: impl Fn(usize) -> bool,
    warmth: impl Fn(usize) -> u32,
) -> Standing {
    let capacities = |open: &dyn Fn(usize) -> bool| {
        let mut capacities = [0; LEVELS];
        for (capacity, level) in capacities.iter_mut().zip(levels) {
            let of = level.members().filter(|(at, _)| open(*at));
            let weight: u64 = of.map(|(at, weight)| weight * u64::from(warmth(at))).sum();
            let whole = u128::from(level.weight()) * u128::from(WARM) * 100;
            let open = u128::from(weight) * u128::from(balance.overprovision.hundredths()) * u128::from(ALL);
            *capacity = (open / whole.max(1)).min(u128::from(ALL)) as u32;
        }
        capacities
    };
    let sound = capacities(&eligible);
    let left = (0..members).filter(|at| eligible(*at)).count() as u64;
    let scarce = left * 10_000 < members as u64 * u64::from(balance.panic.basis_points());
    let panics = scarce && sound.iter().sum::<u32>() < ALL && (0..members).any(|at| !eligible(at) && spare(at));
    Standing { panics, ends: ends(if panics { capacities(&spare) } else { sound }) }
}

/// Where the shares end that follow from capacities.
fn ends(capacities: [u32; LEVELS]) -> [u32; LEVELS] {
    let sum: u32 = capacities.iter().sum();
    let mut ends = [0; LEVELS];
    let mut end = 0;
    for (at, capacity) in capacities.into_iter().enumerate() {
        end += capacity;
        // Past the end there is nothing left; below it everything is stretched.
        ends[at] = if sum >= ALL || sum == 0 {
            end.min(ALL)
        } else {
            (u64::from(end) * u64::from(ALL) / u64::from(sum)) as u32
        };
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::super::{Factor, Member, Plan, Rank};
    use super::*;
    use crate::domain::split::Share;
    use proptest::prelude::*;

    /// Two levels of so many endpoints of weight 1, of which some are open.
    fn two(first: (u16, usize), second: (u16, usize), panic: u16) -> Standing {
        let balance = Balance { panic: Share::from_basis_points(panic * 100).unwrap(), ..Balance::default() };
        let of = |priority, count| (0..count).map(move |_| Rank { weight: 1, priority });
        let ranks: Vec<_> = of(2, first.0).chain(of(5, second.0)).collect();
        let members: Vec<_> = ranks.iter().map(|rank| Member { seat: 0, rank: *rank }).collect();
        let plan = Plan::new(balance, &members);
        assert!(plan.priorities().eq([2, 5].into_iter().take(if second.0 == 0 { 1 } else { 2 })));
        let first_of_second = usize::from(first.0);
        let open = |at: usize| if at < first_of_second { at < first.1 } else { at - first_of_second < second.1 };
        plan.stand(open, |_| true, |_| WARM)
    }

    fn percent(standing: &Standing) -> [i32; 2] {
        [0, 1].map(|level| (standing.share(level) * 100.0).round() as i32)
    }

    #[test]
    fn the_first_level_keeps_all_until_less_than_71_percent_of_it_is_open_and_gets_all_back() {
        let table = [
            (7, 7, [100, 0]),
            (5, 7, [100, 0]),
            (4, 7, [80, 20]),
            (1, 7, [20, 80]),
            (0, 7, [0, 100]),
            // The second one cannot carry the rest alone: both are overloaded alike.
            (3, 1, [75, 25]),
            (1, 1, [50, 50]),
            (0, 1, [0, 100]),
            (0, 0, [0, 0]),
            (7, 0, [100, 0]),
        ];
        for (first, second, expected) in table {
            let standing = two((7, first), (7, second), 0);
            assert_eq!(percent(&standing), expected, "{first} {second}");
            assert!(!standing.panics);
        }
    }

    #[test]
    fn it_panics_when_too_few_are_left_and_nobody_stands_in() {
        let table = [
            ((4, 2), (0, 0), false),
            ((4, 1), (0, 0), true),
            ((4, 0), (0, 0), true),
            ((1, 0), (0, 0), true),
            ((4, 0), (2, 2), false),
            ((4, 0), (4, 2), true),
        ];
        for (first, second, panics) in table {
            assert_eq!(two(first, second, 50).panics, panics, "{first:?} {second:?}");
            assert!(!two(first, second, 0).panics, "{first:?} {second:?}");
        }
    }

    #[test]
    fn no_panic_without_anybody_to_fall_back_on() {
        let member = Member { seat: 0, rank: Rank::default() };
        let plan = Plan::new(Balance::default(), &[member, member, member]);
        let standing = |spare: bool| plan.stand(|at| at == 0, |at| at == 0 || spare, |_| WARM);
        assert!(standing(true).panics && !standing(false).panics);
    }

    #[test]
    fn a_level_that_comes_back_takes_over_as_it_warms_up() {
        let rank = |priority| Rank { weight: 3, priority };
        let members = [rank(0), rank(0), rank(1)].map(|rank| Member { seat: 0, rank });
        let plan = Plan::new(Balance::default(), &members);
        let at = |warm: u32| percent(&plan.stand(|_| true, |_| true, |at| if at == 2 { WARM } else { warm }));
        assert_eq!([102, 366, 732, WARM].map(at), [[14, 86], [50, 50], [100, 0], [100, 0]]);
    }

    proptest! {
        #[test]
        fn shares_sum_to_everything_while_anybody_is_open(
            ranks in prop::collection::vec((1_u16..=1_000, 0_u8..8, any::<bool>()), 1..40),
            factor in 100_u32..=1_000, draw: u64,
        ) {
            let member = |(weight, priority, _): &(u16, u8, bool)| Member { seat: 0, rank: Rank { weight: *weight, priority: *priority } };
            let members: Vec<_> = ranks.iter().map(member).collect();
            let balance = Balance { overprovision: Factor::from_hundredths(factor), ..Balance::default() };
            let plan = Plan::new(balance, &members);
            let levels = plan.priorities().count();
            let standing = plan.stand(|at| ranks[at].2, |at| ranks[at].2, |_| WARM);
            let sum: f64 = (0..levels).map(|level| standing.share(level)).sum();
            let expected = if ranks.iter().any(|rank| rank.2) { 1.0 } else { 0.0 };
            // A level so light that it comes to nothing in 2^16 is the one exception.
            prop_assert!((sum - expected).abs() < 1e-9 || (expected == 1.0 && sum == 0.0), "{}", sum);
            prop_assert!(standing.level(draw) < levels);
        }
    }
}
