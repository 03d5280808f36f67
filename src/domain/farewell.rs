//! Farewells: how many connections are told to go when a process ends, and when.
//!
//! Told all at once, all clients would connect anew in the same instant, each with a handshake, to whoever is left. So
//! they are told one after another, and all of them within the first half of the time there is: the other half is
//! theirs to finish what they have.
//!
//! Invariant: after half of the grace time every connection was told.

use std::num::NonZeroUsize;
use std::time::Duration;

/// How farewells are paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Connections told within a second, over all workers; `None` tells all at once.
    pub per_second: Option<NonZeroUsize>,
    /// The time until what is left is cut.
    pub grace: Duration,
}

impl Pace {
    /// How many of the `connections` that one of `workers` has, those that are gone included, should have been told
    /// `elapsed` microseconds after the end began.
    pub fn told(self, connections: usize, workers: usize, elapsed: u64) -> usize {
        let half = self.grace.as_secs_f64() / 2.0;
        let elapsed = elapsed as f64 / 1e6;
        let Some(per_second) = self.per_second else { return connections };
        if elapsed >= half {
            return connections;
        }
        let usual = per_second.get() as f64 / workers.max(1) as f64;
        let rate = usual.max(connections as f64 / half);
        // The first at once: for a few connections there is nothing to pace.
        ((rate * elapsed) as usize + 1).min(connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pace(per_second: usize, grace: u64) -> Pace {
        Pace { per_second: NonZeroUsize::new(per_second), grace: Duration::from_secs(grace) }
    }

    #[test]
    fn they_are_told_one_after_another_within_half_of_the_time() {
        const MS: u64 = 1_000;
        let table = [
            // (per second, grace, connections, workers, after ms) -> told
            ((0, 30, 500, 2, 0), 500),
            ((1_000, 30, 500, 2, 0), 1),
            ((1_000, 30, 500, 2, 100), 51),
            ((1_000, 30, 500, 2, 1_000), 500),
            ((1_000, 30, 0, 2, 100), 0),
            // Too many for the pace: then as fast as it takes.
            ((1_000, 30, 15_000, 2, 1_000), 1_001),
            ((1_000, 30, 15_000, 2, 15_000), 15_000),
            ((1, 0, 5, 1, 0), 5),
        ];
        for ((per_second, grace, connections, workers, after), told) in table {
            assert_eq!(pace(per_second, grace).told(connections, workers, after * MS), told, "{after} ms of {grace} s");
        }
    }

    proptest! {
        #[test]
        fn more_are_told_as_time_goes_by_and_never_more_than_there_are(
            per_second in 0_usize..5_000, grace in 0_u64..60, connections in 0_usize..50_000, at: u32, later: u32,
        ) {
            let pace = pace(per_second, grace);
            let (first, second) = (u64::from(at), u64::from(at) + u64::from(later));
            let told = pace.told(connections, 4, first);
            prop_assert!(told <= pace.told(connections, 4, second) && told <= connections);
            prop_assert_eq!(pace.told(connections, 4, grace * 500_000), connections);
        }
    }
}
