//! Budgets: how many further attempts a service may make, as a share of its requests.
//!
//! What was *earned* only grows: by a share of each request, and by time, so that a service with little traffic is
//! not left without. What was *spent* is a mark on the same scale that is never left further than the reserve behind
//! what was earned: quiet hours are not saved up. So all that changes when an attempt is made is one number, and
//! whoever holds it for several threads needs no lock (the generic cell rate algorithm, with credit in place of time).
//!
//! Invariant: between any two moments no more is granted than what was earned between them, and the reserve.

use crate::domain::split::Share;

/// One attempt, in the basis points that shares are made of.
const ATTEMPT: u64 = 10_000;

/// How much may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Attempts for each request.
    pub share: Share,
    /// Attempts for each second, however few requests there are.
    pub floor: u32,
    /// Attempts that can be saved up.
    pub reserve: u32,
}

impl Budget {
    /// What has been earned by so many requests and so many microseconds, counted from anywhere, in parts of an attempt.
    pub fn earned(&self, requests: u64, micros: u64) -> u64 {
        let by_share = requests.saturating_mul(u64::from(self.share.basis_points()));
        // A floor is attempts a second, which is as many hundredths of a part a microsecond.
        let by_time = micros.saturating_mul(u64::from(self.floor)) / 100;
        self.saved().saturating_add(by_share).saturating_add(by_time)
    }

    /// Where the mark stands after one more attempt; `None` if there is nothing left for it.
    pub fn spend(&self, spent: u64, earned: u64) -> Option<u64> {
        let after = spent.max(earned.saturating_sub(self.saved())) + ATTEMPT;
        (after <= earned).then_some(after)
    }

    /// The reserve in parts of an attempt. Who earns nothing has nothing saved either.
    fn saved(&self) -> u64 {
        let earns = !self.share.is_none() || self.floor > 0;
        if earns { u64::from(self.reserve) * ATTEMPT } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn budget(points: u16, floor: u32, reserve: u32) -> Budget {
        Budget { share: Share::from_basis_points(points).unwrap(), floor, reserve }
    }

    /// Spends as long as it may; how often, and the mark.
    fn drain(budget: Budget, mut spent: u64, earned: u64) -> (u64, u64) {
        let mut granted = 0;
        while let Some(after) = budget.spend(spent, earned) {
            (spent, granted) = (after, granted + 1);
        }
        (granted, spent)
    }

    #[test]
    fn it_starts_full_runs_dry_and_earns_by_its_share_and_by_time() {
        let budget = budget(1_000, 2, 10);
        let (granted, spent) = drain(budget, 0, budget.earned(0, 0));
        assert_eq!(granted, 10);
        assert_eq!(budget.spend(spent, budget.earned(9, 0)), None);
        assert_eq!(drain(budget, spent, budget.earned(10, 0)).0, 1);
        assert_eq!(drain(budget, spent, budget.earned(0, 499_999)).0, 0);
        assert_eq!(drain(budget, spent, budget.earned(0, 1_500_000)).0, 3);
    }

    #[test]
    fn quiet_hours_are_not_saved_up_and_nothing_earned_is_nothing_granted() {
        let hours = 5 * 3_600_000_000;
        assert_eq!(drain(budget(1_000, 3, 10), 0, budget(1_000, 3, 10).earned(1_000_000, hours)).0, 10);
        assert_eq!(drain(budget(0, 0, 10), 0, budget(0, 0, 10).earned(1_000_000, hours)).0, 0);
        let most = budget(10_000, u32::MAX, u32::MAX);
        assert_eq!(most.spend(u64::MAX - ATTEMPT, most.earned(u64::MAX, u64::MAX)), Some(u64::MAX));
    }

    proptest! {
        /// Whatever happens in whatever order, in every stretch of it.
        #[test]
        fn no_stretch_is_granted_more_than_it_earned_and_the_reserve(
            points in 0u16..=10_000, floor in 0u32..20, reserve in 0u32..50,
            steps in prop::collection::vec((0u64..40, 0u64..400_000, 0u32..12), 1..80),
        ) {
            let budget = budget(points, floor, reserve);
            let (mut requests, mut micros, mut spent) = (0, 0, 0);
            // After each step: what was earned, and what was granted so far.
            let mut course = vec![(budget.earned(0, 0), 0u64)];
            for (more, passed, wanted) in steps {
                (requests, micros) = (requests + more, micros + passed);
                let earned = budget.earned(requests, micros);
                let mut granted = course.last().map_or(0, |(_, granted)| *granted);
                for _ in 0..wanted {
                    if let Some(after) = budget.spend(spent, earned) {
                        (spent, granted) = (after, granted + 1);
                    }
                }
                course.push((earned, granted));
            }
            for (at, (earlier, before)) in course.iter().enumerate() {
                for (later, after) in &course[at..] {
                    prop_assert!((after - before) * ATTEMPT <= later - earlier + u64::from(reserve) * ATTEMPT);
                }
            }
        }
    }
}
