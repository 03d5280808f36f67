//! Tests of approval: what it needs, and that nothing but evidence gives it.

use super::*;

/// Blocks of 500 requests per pool in epoch 1 until approval passes; how many it took, up to `limit`.
fn blocks_until_passed(comparator: &mut Comparator, block: &Block, limit: usize) -> Option<usize> {
    (1..=limit).find(|_| {
        comparator.observe(1, block);
        comparator.tick();
        comparator.approval().is_passed()
    })
}

/// Latencies like the baseline's own: half and one in a hundred pass the baseline's marks, fewer the canary's.
const HEALTHY: ((u32, u32), (u32, u32)) = ((500, 150), (500, 250));

#[test]
fn no_traffic_is_never_success() {
    let mut comparator = Comparator::new(Policy { min_requests: 0, ..Policy::default() });
    for _ in 0..1_000 {
        comparator.tick();
        assert_eq!(comparator.approval(), Approval::NoTraffic);
    }
    comparator.weight_step(1);
    comparator.tick();
    assert_eq!(comparator.approval(), Approval::NoTraffic);
    comparator.observe(1, &errors((0, 0), (9_000, 0)));
    comparator.tick();
    assert_eq!(comparator.approval(), Approval::TooFew { canary: 0, baseline: 9_000, needed: 1 });
}

#[test]
fn both_pools_need_requests() {
    let mut comparator = bad_canary();
    comparator.observe(1, &block((499, 0), (10_000, 0), ((499, 100), (10_000, 5_000))));
    comparator.tick();
    let approval = comparator.approval();
    assert_eq!(approval, Approval::TooFew { canary: 499, baseline: 10_000, needed: 500 });
    let sentence = "too few requests in this step: green 499, blue 10,000, each needs 500";
    assert_eq!(approval.sentence("green", "blue"), sentence);
}

#[test]
fn error_free_pools_pass_by_the_absolute_test() {
    let mut comparator = bad_canary();
    // ln(1 / .015) / ln(.9999 / .999) is 4,664 requests: ten blocks.
    assert_eq!(blocks_until_passed(&mut comparator, &block((500, 0), (500, 0), HEALTHY), 20), Some(10));
    assert_eq!(comparator.approval().sentence("green", "blue"), "green is shown to be no worse than blue");
}

#[test]
fn the_sentence_says_what_is_missing() {
    let mut comparator = bad_canary();
    for _ in 0..3 {
        comparator.observe(1, &block((500, 0), (500, 0), HEALTHY));
        comparator.tick();
    }
    let approval = comparator.approval();
    let Approval::Unproven { which: Claim::ErrorRate { .. }, share, requests: Some(requests) } = approval else {
        panic!("{approval:?}")
    };
    assert!((0.32..0.33).contains(&share) && (3_160..3_170).contains(&requests), "{approval:?}");
    let sentence = "not shown yet: the error rate of green is below 0.1 %; 32.2 % of the evidence, about 3,164 more green requests";
    assert_eq!(approval.sentence("green", "blue"), sentence);
}

#[test]
fn the_first_canary_error_asks_for_the_relative_proof() {
    let mut comparator = bad_canary();
    assert!(blocks_until_passed(&mut comparator, &block((500, 0), (500, 0), HEALTHY), 20).is_some());
    comparator.observe(1, &block((500, 1), (500, 0), HEALTHY));
    comparator.tick();
    let approval = comparator.approval();
    assert!(matches!(approval, Approval::Unproven { which: Claim::ErrorOdds { .. }, .. }), "{approval:?}");
}

#[test]
fn equal_error_rates_pass_by_the_relative_test() {
    let mut comparator = bad_canary();
    let blocks = blocks_until_passed(&mut comparator, &block((500, 5), (500, 5), HEALTHY), 200);
    assert!(blocks.is_some_and(|blocks| blocks > 3), "{blocks:?}");
}

#[test]
fn twice_the_errors_are_not_approved() {
    let mut comparator = bad_canary();
    assert_eq!(blocks_until_passed(&mut comparator, &block((500, 10), (500, 5), HEALTHY), 300), None);
}

#[test]
fn without_latency_units_nothing_is_approved() {
    let mut comparator = bad_canary();
    assert_eq!(blocks_until_passed(&mut comparator, &errors((500, 0), (500, 0)), 50), None);
    let approval = comparator.approval();
    assert!(
        matches!(approval, Approval::Unproven { which: Claim::Latency { .. }, requests: None, .. }),
        "{approval:?}"
    );
    let sentence = "not shown yet: p50 latency of green is less than 20 % above blue; 0 % of the evidence";
    assert_eq!(approval.sentence("green", "blue"), sentence);
}

#[test]
fn a_stall_of_both_pools_is_forgotten() {
    let mut comparator = bad_canary();
    let stall = block((500, 0), (500, 0), ((500, 450), (500, 450)));
    assert_eq!(blocks_until_passed(&mut comparator, &stall, 20), None);
    let after = blocks_until_passed(&mut comparator, &block((500, 0), (500, 0), HEALTHY), 100);
    assert!(after.is_some_and(|blocks| blocks < 30), "{after:?}");
}

#[test]
fn a_canary_past_its_mark_as_often_is_not_approved() {
    let mut comparator = bad_canary();
    let slow = block((500, 0), (500, 0), ((500, 250), (500, 250)));
    assert_eq!(blocks_until_passed(&mut comparator, &slow, 100), None);
}

#[test]
fn marks_nobody_passes_are_shown_by_the_canary_alone() {
    // The baseline became faster after its marks were learned: the 2x2 tables are empty for ever.
    let mut comparator = bad_canary();
    let fast = block((500, 0), (500, 0), ((500, 0), (500, 0)));
    assert_eq!(blocks_until_passed(&mut comparator, &fast, 20), Some(10), "errors decide, not latency");
}

#[test]
fn a_weight_step_starts_again() {
    let mut comparator = bad_canary();
    assert!(blocks_until_passed(&mut comparator, &block((500, 0), (500, 0), HEALTHY), 20).is_some());
    comparator.weight_step(2);
    assert_eq!(comparator.approval(), Approval::NoTraffic);
    comparator.observe(1, &block((5_000, 0), (5_000, 0), HEALTHY));
    comparator.tick();
    assert_eq!(comparator.approval(), Approval::NoTraffic, "late units of the old split say nothing about the new one");
}
