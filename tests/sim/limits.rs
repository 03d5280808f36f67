//! What any test could reach at best, and what a count of false alarms proves.
//!
//! A test that raises a false alarm with chance `alpha` at most needs `ln(1/alpha) / I` requests on average to
//! find a difference, where `I` is the information of one request (Wald 1945). The test here must keep silent
//! when both pools move together, so `I` is the two-sample information: how well one request, with the pool
//! it went to, tells "different" from "both the mixture".
//!
//! Invariant: nothing in here comes from the code under test.

/// Information of one request in nats: `split` of them go to the canary, and `baseline` and `canary` are the
/// chances of each outcome.
pub(crate) fn information(baseline: &[f64], canary: &[f64], split: f64) -> f64 {
    let divergence = |p: f64, mixed: f64| if p > 0.0 { p * (p / mixed).ln() } else { 0.0 };
    let outcomes = baseline.iter().zip(canary);
    outcomes
        .map(|(&b, &c)| {
            let mixed = split * c + (1.0 - split) * b;
            split * divergence(c, mixed) + (1.0 - split) * divergence(b, mixed)
        })
        .sum()
}

/// Outcomes of a request that fails with `chance`.
pub(crate) fn failing(chance: f64) -> [f64; 2] {
    [1.0 - chance, chance]
}

/// The rate that is `odds` times as likely, in odds.
pub(crate) fn at_odds(rate: f64, odds: f64) -> f64 {
    let odds = odds * rate / (1.0 - rate);
    odds / (1.0 + odds)
}

/// The upper 99 % bound of a chance after `events` in `runs` (Clopper and Pearson, Biometrika 26, 1934).
pub(crate) fn upper_bound(events: u64, runs: u64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if at_most(events, runs, middle) > 0.01 {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The chance of at most `events` in `runs`.
fn at_most(events: u64, runs: u64, chance: f64) -> f64 {
    if events >= runs {
        return 1.0;
    }
    let mut log_term = runs as f64 * (1.0 - chance).ln();
    let mut sum = 0.0;
    for k in 0..=events {
        sum += log_term.exp();
        log_term += ((runs - k) as f64 / (k + 1) as f64).ln() + (chance / (1.0 - chance)).ln();
    }
    sum
}
