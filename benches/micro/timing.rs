//! A timing loop: nanoseconds and allocations of one operation.
//!
//! The operation runs in batches long enough for the clock, after a warm-up, until the time is over; the median batch
//! counts, so that an interruption costs a batch and not the result.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long an operation is measured.
pub(crate) const LONG: Duration = Duration::from_millis(500);
/// A batch: long beside the clock's own cost, short beside a scheduler's slice.
const BATCH: Duration = Duration::from_micros(200);

/// What one operation costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    lower: f64,
    median: f64,
    upper: f64,
}

impl Cost {
    /// Nanoseconds: `median (lower-upper quartile)`.
    pub(crate) fn nanos(self) -> String {
        format!("{:.1} ({:.1}-{:.1})", self.median, self.lower, self.upper)
    }
}

/// Measures `operation` for about `length`, a fifth of it as warm-up.
pub(crate) fn time<T>(length: Duration, mut operation: impl FnMut() -> T) -> Cost {
    let mut batch = |times: u64| {
        let begin = Instant::now();
        (0..times).for_each(|_| drop(black_box(operation())));
        begin.elapsed()
    };
    let warm = Instant::now();
    let mut times = 1;
    while warm.elapsed() < length / 5 {
        if batch(times) < BATCH {
            times *= 2;
        }
    }
    let begin = Instant::now();
    let mut nanos = Vec::new();
    while begin.elapsed() < length || nanos.is_empty() {
        nanos.push(batch(times).as_nanos() as f64 / times as f64);
    }
    nanos.sort_by(f64::total_cmp);
    let at = |quarter: usize| nanos[(nanos.len() - 1) * quarter / 4];
    Cost { lower: at(1), median: at(2), upper: at(3) }
}
