//! Tests of the e-value: golden vectors, and the bound on its mean by enumeration.
//!
//! `tests/data/vectors.json` was made with floating sums checked against a statistics package.
//! `tests/data/latency_vectors.json` is exact: `Z(psi)` as a sum of big integers over a fraction, its
//! logarithm taken once; blocks of every quantile, the latency and the approval alternatives, and a
//! recursion trace over 60 ticks of `20 + 80` units around the median with weight `.4 * .2`.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::domain::stats::spending;

const VECTORS: [&str; 2] =
    [include_str!("../../../../tests/data/vectors.json"), include_str!("../../../../tests/data/latency_vectors.json")];

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} is missing"))
}

fn table(value: &Value) -> Table {
    let units = |n, bad| Units { n: number(value, n) as u32, bad: number(value, bad) as u32 };
    Table { canary: units("nc", "xc"), baseline: units("nb", "xb") }
}

fn of(n_c: u32, x_c: u32, n_b: u32, x_b: u32) -> Table {
    Table { canary: Units { n: n_c, bad: x_c }, baseline: Units { n: n_b, bad: x_b } }
}

#[test]
fn golden_vectors_agree() {
    for text in VECTORS {
        let vectors: Value = serde_json::from_str(text).expect("vectors parse");
        let cases = vectors["e2x2"].as_array().expect("cases");
        assert!(cases.len() >= 60);
        for case in cases {
            let (expected, got) =
                (number(case, "log_e"), log_e2x2(&table(case), number(case, "psi1"), number(case, "psi0")));
            assert!((got - expected).abs() <= 1e-10 * expected.abs().max(1.0), "{case}: {got}");
        }
    }
}

#[test]
fn golden_traces_of_the_recursion_agree() {
    for text in VECTORS {
        let vectors: Value = serde_json::from_str(text).expect("vectors parse");
        let floats = |key: &str| -> Vec<f64> {
            vectors[key].as_array().expect("numbers").iter().map(|v| v.as_f64().expect("number")).collect()
        };
        match vectors["psi"].as_array().expect("grid").len() {
            7 => follow::<7>(&vectors, &floats("psi"), &floats("u")),
            5 => follow::<5>(&vectors, &floats("psi"), &floats("u")),
            other => panic!("a grid of {other}"),
        }
    }
}

fn follow<const K: usize>(vectors: &Value, odds: &[f64], shares: &[f64]) {
    let (odds, shares): ([f64; K], [f64; K]) = (odds.try_into().expect("K"), shares.try_into().expect("K"));
    let mut mass = [0.0; K];
    for (tick, at) in vectors["trace"].as_array().expect("trace").iter().enumerate() {
        let mut log_e = [0.0; K];
        table(at).add_log_e(&odds, 1.0, &mut log_e);
        spending::accumulate(&mut mass, spending::tick_mass(tick as u64) * number(vectors, "v"), &shares, &log_e);
        let (sum, expected) = (mass.iter().sum::<f64>(), number(at, "sum"));
        assert!((sum - expected).abs() <= 1e-10 * expected, "tick {tick}: {sum} and {expected}");
    }
}

/// Mean of the e-value over the law with odds ratio `psi`, by enumeration.
fn mean(n_c: u32, n_b: u32, bad: u32, psi: f64, alternative: f64, null: f64) -> f64 {
    let normaliser = log_z(n_c.into(), n_b.into(), bad.into(), psi);
    (bad.saturating_sub(n_b)..=bad.min(n_c))
        .map(|x| {
            let chance = ln_choose(n_c.into(), x.into()) + ln_choose(n_b.into(), (bad - x).into());
            let log_e = log_e2x2(&of(n_c, x, n_b, bad - x), alternative, null);
            (chance + f64::from(x) * psi.ln() - normaliser + log_e).exp()
        })
        .sum()
}

#[test]
fn the_mean_is_one_at_the_null_and_at_most_one_within_it() {
    for (n_c, n_b) in [(1, 1), (1, 9), (3, 4), (5, 95), (12, 3), (30, 30)] {
        for bad in 0..=n_c + n_b {
            for (alternative, null) in [(1.4, 1.0), (10.5, 1.05), (1000.0, 1.25), (8.0, 1.0)] {
                let at_null = mean(n_c, n_b, bad, null, alternative, null);
                assert!((at_null - 1.0).abs() < 1e-9, "{n_c} {n_b} {bad}: {at_null}");
                for psi in [0.01, 0.5, 0.9, 1.0] {
                    let within = mean(n_c, n_b, bad, psi, alternative, null);
                    assert!(within <= 1.0 + 1e-9, "{n_c} {n_b} {bad} {psi}: {within}");
                }
            }
            // Approval looks the other way: the null is "at least that bad".
            for (alternative, null) in [(1.0, 2.0), (0.5, 1.0), (0.85, 1.0)] {
                for psi in [null, 1.5 * null, 20.0 * null] {
                    let within = mean(n_c, n_b, bad, psi, alternative, null);
                    assert!(within <= 1.0 + 1e-9, "{n_c} {n_b} {bad} {psi}: {within}");
                }
            }
        }
    }
}

#[test]
fn margins_without_chance_say_nothing() {
    let cases = [of(5, 0, 95, 0), of(5, 5, 95, 95), of(0, 0, 95, 3), of(5, 2, 0, 0), of(0, 0, 0, 0)];
    cases.iter().for_each(|table| assert_eq!(log_e2x2(table, 4.0, 1.0), 0.0, "{table:?}"));
}

#[test]
fn a_block_closes_on_traffic_only() {
    let cases = [((0, 0), false), ((0, 500), false), ((1, 1), false), ((1, 9), true), ((1, 8), false), ((2, 2), true)];
    for ((n_c, n_b), full) in cases {
        assert_eq!(of(n_c, 0, n_b, 0).is_full(), full, "{n_c} {n_b}");
        assert_eq!(of(n_c, n_c, n_b, n_b).is_full(), full, "{n_c} {n_b}");
    }
}

#[test]
fn impossible_margins_have_no_ways() {
    assert_eq!(log_z(3, 4, 8, 2.0), f64::NEG_INFINITY);
}

#[test]
fn units_past_their_range_are_dropped_whole() {
    let mut units = Units { n: u32::MAX - 1, bad: 7 };
    units.add(Units { n: 2, bad: 2 });
    assert_eq!(units, Units { n: u32::MAX - 1, bad: 7 });
    units.add(Units { n: 1, bad: 9 });
    assert_eq!(units, Units { n: u32::MAX, bad: 8 });
}

#[test]
fn huge_blocks_stay_finite_and_have_the_right_sign() {
    let worse = log_e2x2(&of(u32::MAX / 4, 2_000_000, u32::MAX, 4_000_000), 2.0, 1.0);
    assert!(worse.is_finite() && worse > 1_000.0, "{worse}");
    let same = log_e2x2(&of(1_000_000, 500_000, 1_000_000, 500_000), 1.15, 1.0);
    assert!(same.is_finite() && same < -1_000.0, "{same}");
}

proptest! {
    #[test]
    fn more_bad_canary_units_at_equal_margins_mean_more_evidence(
        n_c in 1_u32..300, n_b in 1_u32..3000, bad in 1_u32..200, psi in 1.01_f64..1000.0,
    ) {
        let (lowest, highest) = (bad.saturating_sub(n_b), bad.min(n_c));
        prop_assume!(lowest < highest);
        let at = |x: u32| log_e2x2(&of(n_c, x, n_b, bad - x), psi, 1.0);
        prop_assert!(at(lowest) < at(highest) || of(n_c, lowest, n_b, bad - lowest).is_silent());
    }

    #[test]
    fn swapping_the_arms_inverts_the_odds(
        n_c in 1_u32..300, n_b in 1_u32..300, x_c in 0_u32..300, x_b in 0_u32..300, psi in 0.01_f64..100.0,
    ) {
        let (x_c, x_b) = (x_c.min(n_c), x_b.min(n_b));
        let (there, back) = (log_e2x2(&of(n_c, x_c, n_b, x_b), psi, 1.0), log_e2x2(&of(n_b, x_b, n_c, x_c), 1.0 / psi, 1.0));
        prop_assert!((there - back).abs() <= 1e-9 * (1.0 + there.abs()), "{there} {back}");
    }
}
