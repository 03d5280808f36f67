//! Chance for simulations: binomial counts and latencies from a seeded generator.
//!
//! Invariant: equal seeds give equal runs, and every draw has exactly the law it is named after.

use fastrand::Rng;

/// The counts of chance events among up to a fixed number of trials, drawn by inversion of a table.
pub(crate) struct Binomial {
    /// By number of trials: the chance of at most `k` events.
    cumulative: Vec<Vec<f64>>,
}

impl Binomial {
    /// Up to `most` trials (a thousand at most), each an event with `chance`, 0 to 1 exclusive.
    pub(crate) fn new(most: u32, chance: f64) -> Binomial {
        assert!(most <= 1_000 && chance > 0.0 && chance < 1.0, "{most} trials of {chance}");
        Binomial { cumulative: (0..=most).map(|trials| cumulative(trials, chance)).collect() }
    }

    /// Events among `trials`.
    pub(crate) fn draw(&self, trials: u32, random: &mut Rng) -> u32 {
        let table = &self.cumulative[trials as usize];
        let point = random.f64();
        table[..table.len() - 1].partition_point(|&at_most| at_most <= point) as u32
    }
}

fn cumulative(trials: u32, chance: f64) -> Vec<f64> {
    let (n, odds) = (f64::from(trials), chance / (1.0 - chance));
    let mut term = (1.0 - chance).powi(trials as i32);
    let mut sum = 0.0;
    let next = |k: u32| {
        sum += term;
        term *= (n - f64::from(k)) / (f64::from(k) + 1.0) * odds;
        sum
    };
    (0..=trials).map(next).collect()
}

/// A draw from the standard normal law (Box and Muller, Annals of Mathematical Statistics 29, 1958).
pub(crate) fn normal(random: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}
