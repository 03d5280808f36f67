//! Balancing: which endpoint of a pool takes a request.
//!
//! Round robin spreads evenly; least-request samples two endpoints and takes the one with fewer requests
//! in flight ("power of two choices", Mitzenmacher 2001), which copes with endpoints of unequal speed and
//! never scans the pool. Both look only at endpoints the caller calls eligible.
//!
//! Invariant: an ineligible endpoint is never picked, and an eligible one is always found if there is one.

/// The policy of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Balance {
    /// Each in turn.
    RoundRobin,
    /// The less busy of two drawn at random.
    #[default]
    LeastRequest,
}

/// Picks one of `count` endpoints.
///
/// `turn` counts picks (for round robin) and `random` is fresh entropy; `load` is the number of requests in
/// flight at an endpoint. Returns `None` if no endpoint is eligible.
pub fn pick(
    policy: Balance,
    count: usize,
    turn: u64,
    random: u64,
    eligible: impl Fn(usize) -> bool,
    load: impl Fn(usize) -> u32,
) -> Option<usize> {
    if count == 0 {
        return None;
    }
    let from = |start: usize| (0..count).map(move |step| (start + step) % count).find(|i| eligible(*i));
    match policy {
        Balance::RoundRobin => from((turn % count as u64) as usize),
        Balance::LeastRequest => {
            let draw = |bits: u64| (((bits & 0xffff_ffff) * count as u64) >> 32) as usize;
            let first = from(draw(random))?;
            // The second draw starts past the first, so two eligible endpoints are always compared.
            let other = from((first + 1 + draw(random >> 32) % count.max(2).saturating_sub(1)) % count)?;
            Some(if load(other) < load(first) { other } else { first })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_robin_takes_each_in_turn_and_skips_the_ineligible() {
        let picks = |down: usize| -> Vec<_> {
            (0..6).map(|turn| pick(Balance::RoundRobin, 3, turn, 0, |i| i != down, |_| 0).unwrap()).collect()
        };
        assert_eq!(picks(9), [0, 1, 2, 0, 1, 2]);
        assert_eq!(picks(1), [0, 2, 2, 0, 2, 2]);
    }

    #[test]
    fn least_request_prefers_the_idle_one_of_two() {
        for random in [0, u64::MAX, 0x8000_0000, 0x1234_5678_9abc_def0] {
            assert_eq!(pick(Balance::LeastRequest, 2, 0, random, |_| true, |i| [9, 1][i]), Some(1));
        }
    }

    proptest! {
        #[test]
        fn an_eligible_endpoint_is_found_iff_there_is_one(up in prop::collection::vec(any::<bool>(), 0..20), turn: u64, random: u64) {
            for policy in [Balance::RoundRobin, Balance::LeastRequest] {
                let picked = pick(policy, up.len(), turn, random, |i| up[i], |i| i as u32);
                prop_assert_eq!(picked.is_some(), up.contains(&true));
                prop_assert!(picked.is_none_or(|i| up[i]));
            }
        }
    }
}
