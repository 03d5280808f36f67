//! Seeded simulations of the judge, through the production cells, readers and comparator: a small version.
//!
//! The full version with its table is `cargo bench --bench sim -- full`. Here the same scenarios run for
//! seconds. Every claim of silence has a counterpart in which the same harness must speak.

mod limits;
mod random;
mod scenarios;
mod traffic;
mod trial;

use fastrand::Rng;
use scenarios::{Alarms, Approvals, Keyed, Regression, Scale};
use traffic::{Behaviour, Latency};

const SEED: u64 = 20_260;

fn scale(runs: u64, seconds: u64) -> Scale {
    println!("seed {SEED}");
    Scale { runs, seconds, seed: SEED }
}

/// Nothing was found, and what was shown is what was sent.
fn assert_silent(alarms: &Alarms, requests: u64, errors: std::ops::RangeInclusive<f64>) {
    println!("{alarms:?}");
    assert_eq!((alarms.fired, alarms.requests), (0, requests), "{alarms:?}");
    let rate = alarms.errors as f64 / alarms.requests as f64;
    assert!(errors.contains(&rate), "{rate}");
    assert!(alarms.strongest > 1.0 && alarms.strongest < 100.0, "the evidence moved, but not enough: {alarms:?}");
}

#[test]
fn equal_error_rates_are_no_reason() {
    for split in [0.01, 0.05, 0.5] {
        for rate in [0.0001, 0.001, 0.01] {
            let alarms = scenarios::alike(split, Behaviour::failing(rate), scale(40, 60));
            assert_silent(&alarms, 40 * 60_000, 0.8 * rate..=1.2 * rate);
        }
    }
}

#[test]
fn equal_latencies_are_no_reason() {
    for split in [0.05, 0.5] {
        let alarms = scenarios::alike(split, Behaviour::timed(0.001, 1.0), scale(20, 30));
        assert_silent(&alarms, 20 * 30_000, 0.0005..=0.0015);
    }
}

#[test]
fn a_breakdown_of_both_pools_is_no_reason() {
    for split in [0.05, 0.5] {
        let alarms = scenarios::degrading_together(split, scale(20, 20));
        assert_silent(&alarms, 20 * 20_000, 0.09..=0.11);
    }
}

#[test]
fn slow_successes_and_fast_errors_are_no_reason_while_the_split_moves() {
    let alarms = scenarios::slow_successes(Keyed::ByDispatch, scale(20, 0));
    // What is dispatched in the last ten seconds has not succeeded yet.
    let ended = alarms.requests as f64 / (20.0 * 120_000.0);
    assert!((0.915..0.92).contains(&ended), "{ended}");
    assert_silent(&alarms, alarms.requests, 0.01..=0.012);
    assert_eq!(alarms.unread, 0, "{alarms:?}");
    let naive = scenarios::slow_successes(Keyed::ByEnd, scale(20, 0));
    assert_eq!(naive.fired, naive.runs, "the scenario is harmless: {naive:?}");
}

#[test]
fn more_errors_are_found_about_as_soon_as_can_be() {
    for (split, rate) in [(0.05, 0.01), (0.05, 0.05), (0.5, 0.01), (0.5, 0.05)] {
        let delay = Regression::errors(split, rate, 0.01).find(300, SEED);
        println!("split {split}, rate {rate}, seed {SEED}: {delay:?}");
        assert_eq!(delay.found, delay.runs);
        assert!((1.0..=2.0).contains(&delay.ratio()), "{} times the limit", delay.ratio());
        assert!(delay.median <= delay.p95);
    }
}

#[test]
fn slower_answers_are_found() {
    for latency in [Latency::Scaled(1.2), Latency::LongTail(3.0)] {
        let delay = Regression::latency(latency).find(60, SEED);
        println!("{latency:?}, seed {SEED}: {delay:?}");
        assert_eq!(delay.found, delay.runs);
        assert!((1.0..=6.0).contains(&delay.ratio()), "{} times the limit", delay.ratio());
    }
}

#[test]
fn an_equal_canary_is_approved_and_one_at_the_margin_is_not() {
    let sound = Behaviour::timed(0.001, 1.0);
    let Approvals { runs, approved, median, p95 } = scenarios::approvals(sound, sound, scale(30, 300));
    println!("approved {approved} of {runs}, median {median} s, 95 % within {p95} s");
    assert_eq!(approved, runs);
    assert!((5.0..=60.0).contains(&median) && median <= p95, "{median} {p95}");
    let margins =
        [scenarios::at_errors_margin(sound), scenarios::at_latency_margin(sound), scenarios::at_p99_margin(sound)];
    for canary in margins {
        let margin = scenarios::approvals(sound, canary, scale(40, 60));
        println!("{canary:?}: {margin:?}");
        assert!(margin.approved * 20 <= margin.runs, "more than 5 % approved: {canary:?}: {margin:?}");
    }
}

#[test]
fn binomial_draws_have_their_mean_and_spread() {
    let mut random = Rng::with_seed(SEED);
    for (trials, chance) in [(100, 0.0001), (100, 0.05), (100, 0.5), (7, 0.8), (0, 0.3)] {
        let law = random::Binomial::new(100, chance);
        let draws: Vec<f64> = (0..100_000).map(|_| f64::from(law.draw(trials, &mut random))).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let spread = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        let (expected, variance) = (f64::from(trials) * chance, f64::from(trials) * chance * (1.0 - chance));
        let error = 4.0 * (variance / draws.len() as f64).sqrt();
        assert!((mean - expected).abs() <= error, "{trials} of {chance}: {mean}");
        assert!((spread - variance).abs() <= 0.15 * variance, "{trials} of {chance}: {spread}");
    }
}

#[test]
fn limits_are_those_of_the_literature() {
    // Canary requests at alpha = 1 %, from an independent implementation.
    for (split, rate, expected) in [(0.01, 0.005, 1158.2), (0.05, 0.01, 374.7), (0.5, 0.05, 148.3)] {
        let information = limits::information(&limits::failing(0.001), &limits::failing(rate), split);
        let limit = split * 100.0_f64.ln() / information;
        assert!((limit - expected).abs() < 0.06, "{limit} for {expected}");
    }
    // No event in n runs: 1 - 0.01^(1/n).
    assert!((limits::upper_bound(0, 100) - (1.0 - 0.01_f64.powf(0.01))).abs() < 1e-9);
    assert!(limits::upper_bound(77, 10_000) <= 0.01 && limits::upper_bound(78, 10_000) > 0.01);
    assert!((limits::at_odds(0.001, 2.0) - 0.001998).abs() < 1e-6);
}
