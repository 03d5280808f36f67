//! The logarithm of a factorial: a table for small numbers, Stirling's series beyond.
//!
//! Invariant: relative error at most 1e-12 for every `u64`; the two halves agree where they meet.

use std::f64::consts::TAU;
use std::sync::LazyLock;

/// Blocks of a tick are mostly smaller than this, so they never pay for a logarithm.
const TABLE: usize = 1024;

static SMALL: LazyLock<[f64; TABLE]> = LazyLock::new(|| {
    let mut table = [0.0; TABLE];
    for n in 1..TABLE {
        table[n] = table[n - 1] + (n as f64).ln();
    }
    table
});

/// `ln(n!)`.
pub(super) fn ln_factorial(n: u64) -> f64 {
    match usize::try_from(n).ok().and_then(|n| SMALL.get(n)) {
        Some(&exact) => exact,
        None => stirling(n as f64),
    }
}

/// Stirling's series for `ln(n!)`; past n = 1,024 the first term left out is below 1e-24.
fn stirling(n: f64) -> f64 {
    let inverse = 1.0 / n;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    n * n.ln() - n + 0.5 * (TAU * n).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_factorials_are_exact_to_the_last_digits() {
        let mut product = 1.0_f64;
        for n in 1..=20_u64 {
            product *= n as f64;
            assert!((ln_factorial(n) - product.ln()).abs() <= 1e-13 * product.ln().max(1.0), "{n}");
        }
        assert_eq!(ln_factorial(0), 0.0);
    }

    #[test]
    fn the_series_continues_the_table() {
        for n in [20, 100, 1000, TABLE - 1] {
            let (table, series) = (SMALL[n], stirling(n as f64));
            assert!((table - series).abs() <= 1e-12 * table, "{n}: {table} and {series}");
        }
    }

    #[test]
    fn one_more_factor_adds_its_logarithm() {
        for n in [1_023_u64, 1_024, 1_000_000, 4_000_000_000] {
            let (step, expected) = (ln_factorial(n + 1) - ln_factorial(n), ((n + 1) as f64).ln());
            assert!((step - expected).abs() <= 1e-12 * ln_factorial(n), "{n}: {step} and {expected}");
        }
    }
}
