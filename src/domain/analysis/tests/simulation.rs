//! Whole rollouts from a seeded generator, request by request, through the comparator itself.
//!
//! The seeds are fixed, so each test has one outcome; the bounds leave room for any other seed.

use super::*;
use crate::domain::stats::histogram;

/// Requests in a tick of 100 ms.
const PER_TICK: u32 = 100;

/// Marsaglia's xorshift with a multiplied output: small, and good enough to count with.
struct Random(u64);

impl Random {
    fn seeded(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// A latency in microseconds, lognormal with p50 = 50 ms and p99 = 200 ms.
    fn lognormal(&mut self) -> f64 {
        let (a, b) = (self.fraction().max(1e-300), self.fraction());
        let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        50_000.0 * (0.596 * normal).exp()
    }
}

/// Error rates of both pools.
#[derive(Clone, Copy)]
struct Rates {
    canary: f64,
    baseline: f64,
}

fn tick_of_errors(random: &mut Random, share: f64, rates: Rates) -> Block {
    let mut block = Block::default();
    for _ in 0..PER_TICK {
        let canary = random.chance(share);
        let (arm, rate) = match canary {
            true => (&mut block.canary, rates.canary),
            false => (&mut block.baseline, rates.baseline),
        };
        arm.errors.add(Units { n: 1, bad: u32::from(random.chance(rate)) });
    }
    block
}

/// Runs until a finding or `ticks`; `rates` by tick.
fn rollout(seed: u64, share: f64, ticks: u64, rates: impl Fn(u64) -> Rates) -> (Comparator, Option<Finding>) {
    let (mut random, mut comparator) = (Random::seeded(seed), bad_canary());
    let finding = (0..ticks).find_map(|tick| {
        comparator.observe(1, &tick_of_errors(&mut random, share, rates(tick)));
        comparator.tick()
    });
    (comparator, finding)
}

#[test]
fn equal_pools_are_rarely_rolled_back_however_often_one_looks() {
    let equal = Rates { canary: 0.01, baseline: 0.01 };
    let fires = (1..=200).filter(|&seed| rollout(seed, 0.05, 2_000, |_| equal).1.is_some()).count();
    assert!(fires <= 4, "{fires} of 200 at alpha = 1 %");
}

#[test]
fn pools_that_fail_together_are_not_rolled_back() {
    let together = |tick| {
        let rate = if tick < 300 { 0.001 } else { 0.3 };
        Rates { canary: rate, baseline: rate }
    };
    for (seed, share) in (1..=15).flat_map(|seed| [(seed, 0.05), (seed, 0.5)]) {
        assert_eq!(rollout(seed, share, 800, together).1, None, "seed {seed}");
    }
}

#[test]
fn five_percent_errors_are_found_within_a_few_canary_requests() {
    let worse = Rates { canary: 0.05, baseline: 0.001 };
    let runs = 200;
    let needed: u64 = (1..=runs)
        .map(|seed| {
            let (comparator, finding) = rollout(seed, 0.05, 2_000, |_| worse);
            assert!(finding.is_some_and(|finding| finding.metric == Metric::Errors), "seed {seed}");
            comparator.evidence().errors.canary.n
        })
        .sum();
    let mean = needed as f64 / runs as f64;
    assert!(mean <= 3.0 * 75.0, "{mean} canary requests on average");
}

#[test]
fn a_late_regression_is_found_too() {
    let late = |tick| Rates { canary: if tick < 1_000 { 0.001 } else { 0.05 }, baseline: 0.001 };
    for seed in 1..=30 {
        let (comparator, finding) = rollout(seed, 0.05, 1_300, late);
        assert!(finding.is_some() && comparator.evidence().ticks > 1_000, "seed {seed}");
    }
}

#[test]
fn a_canary_at_the_margin_is_rarely_approved() {
    let policy = Policy { min_requests: 1, ..Policy::default() };
    let marginal = Rates { canary: 0.0198, baseline: 0.01 };
    let fast = [Units { n: 50, bad: 0 }; MARKS];
    let approved = |seed: u64| {
        let (mut random, mut comparator) = (Random::seeded(seed), Comparator::new(policy.clone()));
        comparator.weight_step(1);
        (0..1_000).any(|_| {
            let mut block = tick_of_errors(&mut random, 0.5, marginal);
            (block.canary.slow, block.baseline.slow) = (fast, fast);
            comparator.observe(1, &block);
            comparator.tick();
            comparator.approval().is_passed()
        })
    };
    let passed = (1..=100).filter(|&seed| approved(seed)).count();
    assert!(passed <= 12, "{passed} of 100 at beta = 5 %");
}

/// Latencies of both pools, from a rollout of equal shares. `slowdown` is the canary's.
struct Latencies {
    random: Random,
    comparator: Comparator,
    marks: Marks,
    sample: Shape,
    slowdown: f64,
}

impl Latencies {
    fn learn(seed: u64, slowdown: f64, sample: Shape) -> Latencies {
        let (mut random, mut counts) = (Random::seeded(seed), vec![0; histogram::BUCKETS]);
        (0..20_000).for_each(|_| counts[histogram::index(sample(&mut random) as u64)] += 1);
        let marks = Marks::learn(&counts, &Policy::default()).expect("enough samples");
        Latencies { random, comparator: bad_canary(), marks, sample, slowdown }
    }

    fn tick(&mut self) -> Option<Finding> {
        let mut block = Block::default();
        for request in 0..PER_TICK {
            let micros = (self.sample)(&mut self.random);
            let (arm, marks, micros) = match request % 2 {
                0 => (&mut block.canary, &self.marks.canary, micros * (1.0 + self.slowdown)),
                _ => (&mut block.baseline, &self.marks.baseline, micros),
            };
            arm.errors.add(Units { n: 1, bad: 0 });
            for (slow, &mark) in arm.slow.iter_mut().zip(marks) {
                slow.add(Units { n: 1, bad: u32::from(micros as u64 > mark) });
            }
        }
        self.comparator.observe(1, &block);
        self.comparator.tick()
    }

    /// Ticks until approval, if it comes in time and no finding before.
    fn approved_within(&mut self, ticks: u32) -> Option<u32> {
        (1..=ticks).find(|_| {
            let finding = self.tick();
            assert_eq!(finding, None);
            self.comparator.approval().is_passed()
        })
    }
}

/// A draw of one latency in microseconds.
type Shape = fn(&mut Random) -> f64;

fn constant(_: &mut Random) -> f64 {
    50_000.0
}

/// A service on the same machine: 90 to 110 us.
fn quick(random: &mut Random) -> f64 {
    90.0 + 20.0 * random.fraction()
}

/// Latencies spread over two decades: 20 % more latency hardly moves the odds at any mark.
fn spread(random: &mut Random) -> f64 {
    50_000.0 * (random.lognormal() / 50_000.0).powi(3)
}

#[test]
fn an_equally_fast_canary_is_approved_whatever_the_shape_of_latency() {
    let shapes: [(&str, Shape, u32); 4] = [
        ("lognormal", Random::lognormal, 300),
        ("constant", constant, 100),
        ("quick", quick, 100),
        ("spread", spread, 3_000),
    ];
    for (name, shape, limit) in shapes {
        for seed in 1..=3 {
            let approved = Latencies::learn(seed, 0.0, shape).approved_within(limit);
            assert!(approved.is_some(), "{name}, seed {seed}");
        }
    }
}

#[test]
fn equal_latencies_are_rarely_rolled_back() {
    let fires = (1..=30)
        .filter(|&seed| {
            let mut pools = Latencies::learn(seed, 0.0, Random::lognormal);
            (0..300).any(|_| pools.tick().is_some())
        })
        .count();
    assert!(fires <= 2, "{fires} of 30 at alpha = 1 %");
}

#[test]
fn a_slower_canary_is_found_and_never_approved() {
    for (name, shape) in [("lognormal", Random::lognormal as Shape), ("constant", constant)] {
        for seed in 1..=10 {
            let mut pools = Latencies::learn(seed, 0.25, shape);
            let finding = (0..300).find_map(|_| {
                let finding = pools.tick();
                assert!(!pools.comparator.approval().is_passed(), "{name}, seed {seed}");
                finding
            });
            let metric = finding.expect("25 % slower").metric;
            assert!(matches!(metric, Metric::Latency { .. }), "{name}, seed {seed}: {metric}");
        }
    }
}
