//! Tests of the comparator: its rules one by one. Whole rollouts are simulated in `simulation`.

mod approval;
mod simulation;

use proptest::prelude::*;

use super::*;

/// Counts of one tick: (finished, failed) per pool, and the same slow units at every mark.
fn block(canary: (u32, u32), baseline: (u32, u32), slow: ((u32, u32), (u32, u32))) -> Block {
    let units = |(n, bad)| Units { n, bad };
    let arm = |errors, slow| Arm { errors: units(errors), slow: [units(slow); MARKS] };
    Block { canary: arm(canary, slow.0), baseline: arm(baseline, slow.1) }
}

/// A tick with errors only.
fn errors(canary: (u32, u32), baseline: (u32, u32)) -> Block {
    block(canary, baseline, ((0, 0), (0, 0)))
}

fn bad_canary() -> Comparator {
    let mut comparator = Comparator::new(Policy::default());
    comparator.weight_step(1);
    comparator
}

#[test]
fn the_golden_trace_runs_through_the_comparator() {
    let text = include_str!("../../../tests/data/vectors.json");
    let vectors: serde_json::Value = serde_json::from_str(text).expect("vectors parse");
    let mut comparator = Comparator::new(Policy { tolerate_errors_odds: 1.0, ..Policy::default() });
    for at in vectors["trace"].as_array().expect("trace") {
        let count = |key: &str| at[key].as_u64().expect("count") as u32;
        comparator.observe(1, &errors((count("nc"), count("xc")), (count("nb"), count("xb"))));
        comparator.tick();
        let (sum, expected) = (comparator.state().errors.iter().sum::<f64>(), at["sum"].as_f64().expect("sum"));
        assert!((sum - expected).abs() <= 1e-9 * expected, "{sum} and {expected}");
    }
}

#[test]
fn without_traffic_the_evidence_stays_one() {
    let mut comparator = Comparator::new(Policy::default());
    for tick in 0..5_000 {
        if tick % 700 == 3 {
            comparator.weight_step(tick);
        }
        assert_eq!(comparator.tick(), None);
        assert!((comparator.evidence().now - 1.0).abs() < 1e-9, "tick {tick}: {}", comparator.evidence().now);
    }
    assert_eq!(comparator.approval(), Approval::NoTraffic);
}

#[test]
fn a_broken_canary_is_found_with_numbers() {
    let mut comparator = bad_canary();
    comparator.observe(1, &errors((5, 4), (95, 0)));
    let finding = comparator.tick().expect("four of five failed");
    assert_eq!((finding.metric, finding.canary), (Metric::Errors, Total { n: 5, bad: 4 }));
    assert!(finding.evidence >= finding.needed && finding.needed == 100.0);
    let sentence = finding.sentence("green", "blue", None);
    let expected = "errors: green 4 of 5 (80 %), blue 0 of 95 (0 %); evidence ";
    assert!(sentence.starts_with(expected) && sentence.ends_with(" against 100 needed"), "{sentence}");
    assert!(comparator.evidence().p_value() <= 0.01);
}

#[test]
fn two_bad_units_are_never_a_finding() {
    let mut comparator = bad_canary();
    comparator.observe(1, &errors((2, 2), (100_000, 0)));
    assert_eq!(comparator.tick(), None);
    assert!(comparator.evidence().now > 100.0, "however strong the evidence");
}

#[test]
fn a_slow_canary_is_found_at_a_quantile() {
    let mut comparator = bad_canary();
    let found = (0..100).find_map(|_| {
        comparator.observe(1, &block((50, 0), (50, 0), ((50, 30), (50, 10))));
        comparator.tick()
    });
    let finding = found.expect("three times as many are slow");
    let Metric::Latency { quantile } = finding.metric else { panic!("{finding:?}") };
    let mut marks = Marks { baseline: [0; MARKS], canary: [0; MARKS] };
    (marks.baseline[quantile.index()], marks.canary[quantile.index()]) = (120_000, 126_000);
    let sentence = finding.sentence("green", "blue", Some(&marks));
    assert!(sentence.starts_with(&format!("latency {quantile}: green ")), "{sentence}");
    assert!(sentence.contains(" over 126.0 ms, blue ") && sentence.contains(" over 120.0 ms;"), "{sentence}");
}

#[test]
fn a_block_waits_for_traffic_and_is_then_judged_whole() {
    let (mut parts, mut whole) = (bad_canary(), bad_canary());
    parts.observe(1, &errors((0, 0), (500, 1)));
    assert_eq!((parts.tick(), parts.state().open[0].errors.baseline.n), (None, 500));
    whole.tick();
    parts.observe(1, &errors((9, 9), (0, 0)));
    whole.observe(1, &errors((9, 9), (500, 1)));
    assert_eq!(parts.tick(), whole.tick());
    assert_eq!(parts.state(), whole.state());
    assert_eq!(parts.state().open[0].errors.baseline.n, 0);
}

#[test]
fn epochs_are_never_mixed() {
    // Fast errors of the new split beside slow successes of the old one: pooled, they would look like a bad canary.
    let mut comparator = bad_canary();
    comparator.weight_step(2);
    comparator.observe(1, &errors((0, 0), (900, 0)));
    comparator.observe(2, &errors((50, 25), (50, 25)));
    assert_eq!(comparator.tick(), None);
    assert!(comparator.evidence().now < 1.0);
    comparator.observe(1, &errors((100, 100), (100, 0)));
    assert!(comparator.tick().is_some(), "what the old epoch still brings counts against the canary");
}

#[test]
fn a_retired_epoch_leaves_nothing_behind() {
    let mut comparator = bad_canary();
    comparator.observe(1, &errors((0, 0), (900, 9)));
    comparator.observe(2, &errors((0, 0), (7, 0)));
    comparator.retire(1);
    let epochs: Vec<u64> = comparator.state().open.iter().map(|open| open.epoch).collect();
    assert_eq!(epochs, [2]);
}

#[test]
fn open_epochs_are_bounded_and_the_newest_stay() {
    let (mut up, mut down) = (bad_canary(), bad_canary());
    for epoch in 0..40 {
        up.observe(epoch, &errors((0, 0), (1, 0)));
        down.observe(39 - epoch, &errors((0, 0), (1, 0)));
    }
    let epochs: Vec<u64> = up.state().open.iter().map(|open| open.epoch).collect();
    assert_eq!(epochs, (24..40).collect::<Vec<_>>());
    assert_eq!(up.state(), down.state());
    assert_eq!(up.evidence().errors.baseline.n, 40);
}

#[test]
fn damaged_states_are_refused() {
    let sound = {
        let mut comparator = bad_canary();
        comparator.observe(1, &errors((1, 0), (3, 0)));
        comparator.state()
    };
    assert!(Comparator::resume(Policy::default(), sound.clone()).is_ok());
    let damages: [fn(&mut State); 10] = [
        |s| s.errors[0] = f64::NAN,
        |s| s.latency[3][2] = f64::INFINITY,
        |s| s.errors[6] = -1.0,
        |s| s.max = f64::NAN,
        |s| s.steps_spent = 9,
        |s| s.open.extend(s.open.clone()),
        |s| s.open = (0..17).map(|epoch| OpenBlock { epoch, ..OpenBlock::default() }).collect(),
        |s| s.open[0].slow[7].canary.bad = 1,
        |s| s.error_totals.baseline.bad = 9,
        |s| s.step = Some(StepEvidence { errors_log_e: f64::NEG_INFINITY, ..StepEvidence::default() }),
    ];
    for (case, damage) in damages.iter().enumerate() {
        let mut state = sound.clone();
        damage(&mut state);
        let error = Comparator::resume(Policy::default(), state).expect_err("damaged");
        assert!(error.to_string().starts_with("the stored evidence is damaged: "), "case {case}");
    }
}

#[test]
fn counts_that_contradict_themselves_do_no_harm() {
    let mut comparator = bad_canary();
    comparator.observe(1, &errors((5, 500), (95, u32::MAX)));
    comparator.tick();
    assert!(comparator.evidence().now.is_finite());
    assert!(Comparator::resume(Policy::default(), comparator.state()).is_ok());
}

fn any_units() -> impl Strategy<Value = (u32, u32)> {
    (0_u32..60).prop_flat_map(|n| (Just(n), 0..=n))
}

fn any_block() -> impl Strategy<Value = (u64, Block)> {
    let parts = (any_units(), any_units(), any_units(), any_units());
    (1_u64..4, parts).prop_map(|(epoch, (a, b, c, d))| (epoch, block(a, b, (c, d))))
}

fn run(comparator: &mut Comparator, ticks: &[Vec<(u64, Block)>]) {
    for blocks in ticks {
        blocks.iter().for_each(|(epoch, block)| comparator.observe(*epoch, block));
        comparator.tick();
    }
}

fn sum(a: &Block, b: &Block) -> Block {
    let units = |a: Units, b: Units| Units { n: a.n + b.n, bad: a.bad + b.bad };
    let arm = |a: &Arm, b: &Arm| Arm {
        errors: units(a.errors, b.errors),
        slow: std::array::from_fn(|mark| units(a.slow[mark], b.slow[mark])),
    };
    Block { canary: arm(&a.canary, &b.canary), baseline: arm(&a.baseline, &b.baseline) }
}

proptest! {
    #[test]
    fn the_order_within_a_tick_does_not_matter(ticks in proptest::collection::vec(
        proptest::collection::vec(any_block(), 0..6), 1..12))
    {
        let (mut forward, mut backward) = (bad_canary(), bad_canary());
        let reversed: Vec<Vec<_>> = ticks.iter().map(|blocks| blocks.iter().rev().copied().collect()).collect();
        run(&mut forward, &ticks);
        run(&mut backward, &reversed);
        prop_assert_eq!(forward.state(), backward.state());
    }

    #[test]
    fn two_observations_are_one(a in any_block(), b in any_block()) {
        let (mut apart, mut together) = (bad_canary(), bad_canary());
        run(&mut apart, &[vec![(1, a.1), (1, b.1)]]);
        run(&mut together, &[vec![(1, sum(&a.1, &b.1))]]);
        prop_assert_eq!(apart.state(), together.state());
    }

    #[test]
    fn a_restart_changes_no_bit(
        before in proptest::collection::vec(proptest::collection::vec(any_block(), 0..4), 1..10),
        after in proptest::collection::vec(proptest::collection::vec(any_block(), 0..4), 1..10),
    ) {
        let mut running = bad_canary();
        run(&mut running, &before);
        let mut restarted = Comparator::resume(Policy::default(), running.state()).expect("its own state");
        running.weight_step(3);
        restarted.weight_step(3);
        run(&mut running, &after);
        run(&mut restarted, &after);
        prop_assert_eq!(running.state(), restarted.state());
        prop_assert_eq!(running.evidence().now.to_bits(), restarted.evidence().now.to_bits());
        prop_assert_eq!(running.approval(), restarted.approval());
    }
}
