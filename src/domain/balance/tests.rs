//! Every policy over a pool that is a table: shares, who is found, what stays where it was, and what loads may become.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;

use super::*;

/// A pool as a test says it is.
#[derive(Default)]
struct Field {
    closed: Vec<bool>,
    loads: RefCell<Vec<u64>>,
    paces: Vec<f64>,
    warmths: Vec<u32>,
    turns: [Cell<u32>; LEVELS],
}

impl Field {
    fn of(count: usize) -> Field {
        let (closed, loads) = (vec![false; count], RefCell::new(vec![0; count]));
        Field { closed, loads, paces: vec![1_000.0; count], warmths: vec![WARM; count], ..Field::default() }
    }
}

impl Live for Field {
    fn is_open(&self, at: usize) -> bool {
        !self.closed[at]
    }
    fn load(&self, at: usize) -> u64 {
        self.loads.borrow()[at]
    }
    fn pace(&self, at: usize) -> f64 {
        self.paces[at]
    }
    fn warmth(&self, at: usize) -> u32 {
        self.warmths[at]
    }
    fn turn(&self, level: usize) -> u32 {
        self.turns[level].get()
    }
    fn turned(&self, level: usize, turn: u32) {
        self.turns[level].set(turn);
    }
}

fn policies() -> [Policy; 5] {
    let hashing = || Hashing { by: Key::Client, load_factor: Some(Factor::from_hundredths(125)) };
    [Policy::RoundRobin, Policy::LeastRequest, Policy::PeakEwma, Policy::RingHash(hashing()), Policy::Maglev(hashing())]
}

fn hashed() -> [Policy; 2] {
    let [.., ring, maglev] = policies();
    [ring, maglev]
}

/// Endpoints with these weights and priorities; the seat says which one it is.
fn plan(policy: &Policy, ranks: &[(u16, u8)]) -> Plan {
    let member = |(at, (weight, priority)): (usize, &(u16, u8))| Member {
        seat: mix(at as u64),
        rank: Rank { weight: *weight, priority: *priority },
    };
    let members: Vec<_> = ranks.iter().enumerate().map(member).collect();
    Plan::new(Balance { policy: policy.clone(), ..Balance::default() }, &members)
}

fn weighted(policy: &Policy, weights: &[u16]) -> Plan {
    plan(policy, &weights.iter().map(|weight| (*weight, 0)).collect::<Vec<_>>())
}

fn standing(plan: &Plan, field: &Field) -> Standing {
    plan.stand(|at| field.is_open(at), |at| field.is_open(at), |at| field.warmth(at))
}

/// How often each endpoint is picked in a hundred thousand picks.
fn shares(plan: &Plan, field: &Field) -> Vec<f64> {
    let (standing, mut dice, picks) = (standing(plan, field), Dice::new(42), 100_000);
    let mut counts = vec![0_u32; field.closed.len()];
    for _ in 0..picks {
        counts[plan.pick(&standing, None, dice.roll(), field).expect("somebody is open")] += 1;
    }
    counts.into_iter().map(|count| f64::from(count) / f64::from(picks)).collect()
}

fn assert_near(policy: &Policy, shares: &[f64], expected: &[f64]) {
    assert_within(0.01, policy, shares, expected);
}

fn assert_within(most: f64, policy: &Policy, shares: &[f64], expected: &[f64]) {
    let near = shares.iter().zip(expected).all(|(share, expected)| (share - expected).abs() < most);
    assert!(near && shares.len() == expected.len(), "{policy:?}: {shares:.3?} instead of {expected:.3?}");
}

/// What a key's next choice is follows the weights only roughly.
fn tolerance(policy: &Policy) -> f64 {
    if plan(policy, &[]).key().is_some() { 0.03 } else { 0.01 }
}

#[test]
fn weights_are_met_within_a_percent_by_every_policy() {
    for policy in policies() {
        for weights in [&[1_u16, 1, 1][..], &[1, 2, 7], &[1_000, 500, 250, 250], &[1], &[3, 1]] {
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            let expected: Vec<_> = weights.iter().map(|weight| f64::from(*weight) / total).collect();
            assert_near(&policy, &shares(&weighted(&policy, weights), &Field::of(weights.len())), &expected);
        }
    }
}

#[test]
fn who_is_out_leaves_its_part_to_the_others_by_their_weight() {
    for policy in policies() {
        let mut field = Field::of(4);
        field.closed[1] = true;
        let expected = [0.25, 0.0, 0.5, 0.25];
        assert_within(tolerance(&policy), &policy, &shares(&weighted(&policy, &[1, 5, 2, 1]), &field), &expected);
    }
}

#[test]
fn a_large_level_that_is_mostly_out_still_shares_by_weight() {
    for policy in &policies()[..3] {
        let mut field = Field::of(200);
        (0..198).for_each(|at| field.closed[at] = true);
        let mut weights = vec![1; 200];
        weights[198] = 3;
        let mut expected = vec![0.0; 200];
        (expected[198], expected[199]) = (0.75, 0.25);
        let shares = shares(&weighted(policy, &weights), &field);
        // Where two are compared the heavier one has no more say than the draw gives it.
        assert_near(policy, &shares, &expected);
    }
}

#[test]
fn a_cold_endpoint_gets_its_part_of_its_weight() {
    for policy in policies() {
        let mut field = Field::of(3);
        field.warmths[2] = WARM / 2;
        // Drawing again shares its rest by weight; a key goes to whoever is next.
        let expected = match policy {
            Policy::RingHash(_) | Policy::Maglev(_) => [5.0 / 12.0, 5.0 / 12.0, 1.0 / 6.0],
            _ => [0.4, 0.4, 0.2],
        };
        assert_within(tolerance(&policy), &policy, &shares(&weighted(&policy, &[1, 1, 1]), &field), &expected);
    }
}

#[test]
fn warmth_rises_from_a_tenth_in_a_straight_line() {
    let at = |now| warmth(Duration::from_secs(30), Some(5_000_000), now);
    assert_eq!(
        [0, 5_000_000, 20_000_000, 34_999_999, 35_000_000, u64::MAX].map(at),
        [102, 102, 563, 1_023, 1_024, 1_024]
    );
    assert_eq!(warmth(Duration::ZERO, Some(u64::MAX), 0), WARM);
    assert_eq!(warmth(Duration::from_secs(30), None, 1), WARM);
}

#[test]
fn the_less_busy_one_for_its_weight_takes_it() {
    let picks = |weights: &[u16], loads: &[u64]| {
        let field = Field::of(2);
        field.loads.replace(loads.to_vec());
        let plan = weighted(&Policy::LeastRequest, weights);
        let standing = standing(&plan, &field);
        let picked: Vec<_> = (0..200).filter_map(|random| plan.pick(&standing, None, mix(random), &field)).collect();
        (picked.contains(&0), picked.contains(&1))
    };
    assert_eq!(picks(&[1, 1], &[9, 1]), (false, true));
    assert_eq!(picks(&[10, 1], &[9, 1]), (true, false));
    assert_eq!(picks(&[2, 1], &[4, 2]), (true, true));
}

#[test]
fn a_slow_endpoint_is_avoided_until_the_others_are_as_bad() {
    let plan = weighted(&Policy::PeakEwma, &[1, 1, 1]);
    let mut field = Field::of(3);
    field.paces = vec![1_000.0, 1_000.0, 30_000.0];
    let slow = shares(&plan, &field)[2];
    assert!(slow < 0.01, "{slow}");
    // Thirty requests in flight at each of the fast ones weigh as much.
    field.loads.replace(vec![30, 30, 0]);
    let slow = shares(&plan, &field)[2];
    assert!(slow > 0.5, "{slow}");
}

#[test]
fn a_key_stays_with_its_endpoint() {
    for policy in hashed() {
        let (plan, field) = (weighted(&policy, &[1, 1, 1, 1]), Field::of(4));
        let standing = standing(&plan, &field);
        let pick = |key: u64, random: u64| plan.pick(&standing, Some(key), random, &field);
        for key in (0..1_000).map(mix) {
            assert_eq!(pick(key, 1), pick(key, mix(key)));
        }
    }
}

/// Of keys that were not the leaving endpoint's, the part that moves; and of all keys, the part that was.
fn moved(policy: &Policy, count: usize, leaving: usize) -> (f64, f64) {
    let member = |at: usize| Member { seat: mix(at as u64), rank: Rank::default() };
    let with = |members: Vec<Member>| Plan::new(Balance { policy: policy.clone(), ..Balance::default() }, &members);
    let (before, after) =
        (with((0..count).map(member).collect()), with((0..count).filter(|at| *at != leaving).map(member).collect()));
    let field = Field::of(count);
    let (stood, stands) = (standing(&before, &field), standing(&after, &Field::of(count - 1)));
    let (mut moved, mut left, keys) = (0, 0, 20_000);
    for key in (0..keys).map(mix) {
        let was = before.pick(&stood, Some(key), 0, &field).unwrap();
        let is = after.pick(&stands, Some(key), 0, &field).unwrap();
        // Places after the leaving one have moved up.
        let is = if is >= leaving { is + 1 } else { is };
        if was == leaving {
            left += 1
        } else if was != is {
            moved += 1
        }
    }
    (f64::from(moved) / f64::from(keys as u32 - left), f64::from(left) / keys as f64)
}

#[test]
fn an_endpoint_that_leaves_moves_its_own_keys_and_in_a_table_a_few_more() {
    for count in [3, 10, 50] {
        let [ring, maglev] = hashed();
        let (others, own) = moved(&ring, count, count / 2);
        assert_eq!(others, 0.0, "{count}");
        assert!((own - 1.0 / count as f64).abs() < 0.02, "{own} of {count}");
        let (others, own) = moved(&maglev, count, count / 2);
        assert!(others < 0.05, "{others} of {count}");
        assert!((own - 1.0 / count as f64).abs() < 0.01, "{own} of {count}");
    }
}

#[test]
fn an_endpoint_that_is_out_moves_only_its_own_keys() {
    for policy in hashed() {
        let (plan, all, mut some) = (weighted(&policy, &[1; 10]), Field::of(10), Field::of(10));
        some.closed[4] = true;
        let (stood, stands) = (standing(&plan, &all), standing(&plan, &some));
        for key in (0..5_000).map(mix) {
            let was = plan.pick(&stood, Some(key), 0, &all);
            let is = plan.pick(&stands, Some(key), 0, &some);
            assert!(was == is || was == Some(4), "{policy:?}");
        }
    }
}

#[test]
fn one_hot_key_is_spread_once_its_endpoint_is_at_its_bound() {
    for policy in hashed() {
        let (plan, field) = (weighted(&policy, &[1; 4]), Field::of(4));
        let standing = standing(&plan, &field);
        for _ in 0..100 {
            let at = plan.pick(&standing, Some(7), 0, &field).unwrap();
            field.loads.borrow_mut()[at] += 1;
        }
        let mut loads = field.loads.take();
        loads.sort_unstable();
        // A quarter each and a quarter of that, as it grew; the least loaded has what the others could not take.
        assert_eq!(loads[3], 32, "{loads:?}");
        assert!(loads[0] >= 4, "{loads:?}");
    }
}

#[test]
fn the_next_priority_takes_over_and_gives_back() {
    for policy in policies() {
        let plan = plan(&policy, &[(1, 0), (1, 0), (3, 1), (1, 1), (1, 7)]);
        let mut field = Field::of(5);
        assert_near(&policy, &shares(&plan, &field), &[0.5, 0.5, 0.0, 0.0, 0.0]);
        field.closed[0] = true;
        // Half of it times 1.4 is 70 %.
        assert_near(&policy, &shares(&plan, &field), &[0.0, 0.7, 0.225, 0.075, 0.0]);
        field.closed[1] = true;
        assert_near(&policy, &shares(&plan, &field), &[0.0, 0.0, 0.75, 0.25, 0.0]);
        (field.closed[2], field.closed[3]) = (true, true);
        assert_near(&policy, &shares(&plan, &field), &[0.0, 0.0, 0.0, 0.0, 1.0]);
        field.closed = vec![false; 5];
        assert_near(&policy, &shares(&plan, &field), &[0.5, 0.5, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn nobody_is_picked_of_none() {
    for policy in policies() {
        let (plan, field) = (weighted(&policy, &[]), Field::of(0));
        assert_eq!(plan.pick(&standing(&plan, &field), Some(1), 1, &field), None);
    }
}

proptest! {
    // Each case builds five plans.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_open_endpoint_is_found_iff_there_is_one(
        pool in prop::collection::vec((1_u16..=1_000, 0_u8..3, any::<bool>(), 0_u64..50, 0_u32..=WARM), 0..20),
        key in prop::option::of(any::<u64>()), random: u64, stale: bool,
    ) {
        let ranks: Vec<_> = pool.iter().map(|one| (one.0, one.1)).collect();
        let mut field = Field::of(pool.len());
        for (at, (_, _, open, load, warmth)) in pool.iter().enumerate() {
            (field.closed[at], field.warmths[at]) = (!open, (*warmth).max(COLD));
            field.loads.borrow_mut()[at] = *load;
        }
        for policy in policies() {
            let plan = plan(&policy, &ranks);
            // A standing may be older than what the endpoints say.
            let stands = if stale { standing(&plan, &Field::of(pool.len())) } else { standing(&plan, &field) };
            let picked = plan.pick(&stands, key, random, &field);
            prop_assert_eq!(picked.is_some(), field.closed.contains(&false));
            prop_assert!(picked.is_none_or(|at| field.is_open(at)));
        }
    }

    #[test]
    fn no_endpoint_passes_its_bound_while_another_is_below(
        pool in prop::collection::vec((1_u16..=20, any::<bool>(), 0_u64..30), 2..12), key: u64,
    ) {
        let weights: Vec<_> = pool.iter().map(|one| one.0).collect();
        let mut field = Field::of(pool.len());
        for (at, (_, open, load)) in pool.iter().enumerate() {
            field.closed[at] = !open;
            field.loads.borrow_mut()[at] = *load;
        }
        let open = || pool.iter().filter(|one| one.1);
        let (load, weight) = open().fold((0, 0), |sum, one| (sum.0 + one.2, sum.1 + u64::from(one.0)));
        for policy in hashed() {
            let plan = weighted(&policy, &weights);
            let Some(at) = plan.pick(&standing(&plan, &field), Some(key), 0, &field) else { continue };
            let most = (125 * (load + 1) * u64::from(weights[at])).div_ceil(100 * weight);
            prop_assert!(field.load(at) < most, "{} of {}", field.load(at) + 1, most);
        }
    }
}
