//! The conditional 2x2 e-value: how strongly one block of traffic speaks against "no worse".
//!
//! Within a block the canary finished `n_c` units of which `x_c` were bad, the baseline `n_b` and `x_b`.
//! Given those margins, `x_c` follows Fisher's noncentral hypergeometric law with the odds ratio `psi` as
//! its only parameter. The base rate and the split cancel, so drift, "both got worse", and a 99:1 split
//! cannot look like a bad canary.
//!
//! Sources: Wald, *Sequential Analysis* (1947), two-binomials test; Hao, Gruenwald, Lardy, Long, Adams,
//! "E-values for k-Sample Tests with Exponential Families", Sankhya A (2024),
//! doi 10.1007/s13171-024-00339-9, e-variable (3), "conditioning on the sum".
//!
//! Invariant: the mean of the e-value is at most 1 for every odds ratio up to the tolerated one, so
//! products over blocks, ticks and strata keep that bound.

use super::factorial::ln_factorial;

/// Terms this small beside the sum cannot change a double.
const NEGLIGIBLE: f64 = 1e-17;

/// A block must carry this much: `n_c * n_b / (n_c + n_b)`, the information of its traffic.
const LEAST_INFORMATION: f64 = 0.9;

/// Finished units of one arm: how many, and how many of them were bad (never more than `n`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Finished units.
    pub n: u32,
    /// Bad ones among them.
    pub bad: u32,
}

impl Units {
    /// Adds what arrived. A sum past `u32` is dropped whole: half a unit pair would bias the rate.
    pub fn add(&mut self, more: Units) {
        if let Some(n) = self.n.checked_add(more.n) {
            *self = Units { n, bad: self.bad + more.bad.min(more.n) };
        }
    }
}

/// One block's 2x2 table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The canary's units.
    pub canary: Units,
    /// The baseline's units.
    pub baseline: Units,
}

impl Table {
    /// True once the block carries enough traffic to be judged. Looks at traffic only: a block closed by
    /// its outcomes would be a biased sample.
    pub fn is_full(&self) -> bool {
        let (canary, baseline) = (f64::from(self.canary.n), f64::from(self.baseline.n));
        canary * baseline >= LEAST_INFORMATION * (canary + baseline) && self.canary.n > 0
    }

    /// True when the margins leave nothing to chance, so that the e-value is exactly 1 and costs nothing.
    pub fn is_silent(&self) -> bool {
        let (bad, all) = (self.bad(), self.all());
        bad == 0 || bad >= all || self.canary.n == 0 || self.baseline.n == 0
    }

    /// Adds `ln L` against `null` for each of `alternatives` (odds ratios) to `sums`.
    pub fn add_log_e<const K: usize>(&self, alternatives: &[f64; K], null: f64, sums: &mut [f64; K]) {
        if self.is_silent() {
            return;
        }
        let at_null = self.log_z(null);
        for (sum, &psi) in sums.iter_mut().zip(alternatives) {
            *sum += f64::from(self.canary.bad) * (psi / null).ln() - self.log_z(psi) + at_null;
        }
    }

    fn bad(&self) -> u64 {
        u64::from(self.canary.bad) + u64::from(self.baseline.bad)
    }

    fn all(&self) -> u64 {
        u64::from(self.canary.n) + u64::from(self.baseline.n)
    }

    fn log_z(&self, psi: f64) -> f64 {
        log_z(self.canary.n.into(), self.baseline.n.into(), self.bad(), psi)
    }
}

/// `ln L(alternative; null)` of one block, `L = (psi_1/psi_0)^x_c * Z(psi_0)/Z(psi_1)`; odds ratios above 0.
///
/// With `alternative > null` large values speak for a canary worse than `null`; with `alternative < null`
/// for one better than it.
pub fn log_e2x2(table: &Table, alternative: f64, null: f64) -> f64 {
    let mut sum = [0.0];
    table.add_log_e(&[alternative], null, &mut sum);
    sum[0]
}

/// `ln Z(psi)`, `Z = sum_x C(canary, x) C(baseline, bad - x) psi^x`: the normaliser of Fisher's noncentral
/// hypergeometric law (Liao & Rosen, American Statistician 55, 2001). Minus infinity for impossible margins.
///
/// Summed outwards from the mode by the ratio of neighbours: the cost is the width of the law, not `bad`.
pub fn log_z(canary: u64, baseline: u64, bad: u64, psi: f64) -> f64 {
    let (lowest, highest) = (bad.saturating_sub(baseline), bad.min(canary));
    if lowest > highest {
        return f64::NEG_INFINITY;
    }
    let mode = (mode(canary as f64, baseline as f64, bad as f64, psi) as u64).clamp(lowest, highest);
    let (n_c, n_b, m) = (canary as f64, baseline as f64, bad as f64);
    let ratio = |x: f64| (n_c - x) * (m - x) * psi / ((x + 1.0) * (n_b - m + x + 1.0));
    let start = mode as f64;
    let above = tail((highest - mode) as f64, |i| ratio(start + i));
    let below = tail((mode - lowest) as f64, |i| 1.0 / ratio(start - i - 1.0));
    ln_choose(canary, mode) + ln_choose(baseline, bad - mode) + start * psi.ln() + (1.0 + above + below).ln()
}

/// Sum of the terms beside the mode, each the one before times `factor(i)`, relative to the mode's term.
fn tail(terms: f64, factor: impl Fn(f64) -> f64) -> f64 {
    let (mut sum, mut term, mut i) = (0.0, 1.0, 0.0);
    while i < terms {
        term *= factor(i);
        sum += term;
        i += 1.0;
        if term < NEGLIGIBLE * (1.0 + sum) {
            break;
        }
    }
    sum
}

/// The root of the quadratic that marks the mode, in whichever of its two forms does not cancel.
fn mode(n_c: f64, n_b: f64, m: f64, psi: f64) -> f64 {
    let a = psi - 1.0;
    let b = (n_c + m + 2.0) * psi + n_b - m;
    let c = psi * (n_c + 1.0) * (m + 1.0);
    let root = (b * b - 4.0 * a * c).max(0.0).sqrt();
    if b >= 0.0 { 2.0 * c / (b + root) } else { (b - root) / (2.0 * a) }
}

fn ln_choose(n: u64, k: u64) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

#[cfg(test)]
mod tests;
