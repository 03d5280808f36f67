//! Where a latency is counted: log-linear buckets of microseconds, HDR style.
//!
//! Below 64 us every value has its own bucket; above, each octave has 32, so a bucket is at most 1/32
//! (3 %) wide. Beyond 2^36 us (19 hours) everything falls into the last bucket.
//!
//! Invariant: `lowest(index(v)) <= v <= highest(index(v))` for every `v` below 2^36, and `index` never falls.

/// Number of buckets.
pub const BUCKETS: usize = EXACT + (LAST_OCTAVE - FIRST_OCTAVE + 1) as usize * PER_OCTAVE;

const EXACT: usize = 64;
const PER_OCTAVE: usize = 32;
const FIRST_OCTAVE: u32 = 6;
const LAST_OCTAVE: u32 = 35;
/// Bits of a value that choose the bucket inside its octave.
const KEPT_BITS: u32 = 5;

/// The bucket of a latency in microseconds.
pub const fn index(micros: u64) -> usize {
    if micros < EXACT as u64 {
        return micros as usize;
    }
    let octave = micros.ilog2();
    if octave > LAST_OCTAVE {
        return BUCKETS - 1;
    }
    let place = (micros >> (octave - KEPT_BITS)) as usize - PER_OCTAVE;
    EXACT + (octave - FIRST_OCTAVE) as usize * PER_OCTAVE + place
}

/// The smallest latency of a bucket in microseconds; an index past the end means the last bucket.
pub const fn lowest(index: usize) -> u64 {
    if index < EXACT {
        return index as u64;
    }
    let (octave, place) = octave_and_place(index);
    place << (octave - KEPT_BITS)
}

/// The largest latency of a bucket in microseconds, inclusive; an index past the end means the last bucket.
pub const fn highest(index: usize) -> u64 {
    if index < EXACT {
        return index as u64;
    }
    let (octave, place) = octave_and_place(index);
    ((place + 1) << (octave - KEPT_BITS)) - 1
}

/// The latency in microseconds that a share `q` (0 to 1) of the counted values does not exceed: the upper
/// bound of its bucket. `None` when nothing was counted.
pub fn quantile(counts: &[u64], q: f64) -> Option<u64> {
    quantile_index(counts, q).map(highest)
}

/// The bucket that holds quantile `q` (0 to 1). `None` when nothing was counted.
pub fn quantile_index(counts: &[u64], q: f64) -> Option<usize> {
    let total = total(counts);
    let rank = ((q * total as f64).ceil() as u64).clamp(1, total.max(1));
    let mut seen = 0_u64;
    counts.iter().position(|&count| {
        seen = seen.saturating_add(count);
        seen >= rank
    })
}

/// How many values were counted.
pub fn total(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, &count| sum.saturating_add(count))
}

const fn octave_and_place(index: usize) -> (u32, u64) {
    let index = if index < BUCKETS { index } else { BUCKETS - 1 };
    let above = index - EXACT;
    (FIRST_OCTAVE + (above / PER_OCTAVE) as u32, (PER_OCTAVE + above % PER_OCTAVE) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_tile_the_range_without_gap_or_overlap() {
        assert_eq!((lowest(0), BUCKETS), (0, 1024));
        for bucket in 1..BUCKETS {
            assert_eq!(lowest(bucket), highest(bucket - 1) + 1, "bucket {bucket}");
            assert_eq!((index(lowest(bucket)), index(highest(bucket))), (bucket, bucket));
        }
        assert_eq!(highest(BUCKETS - 1), (1 << 36) - 1);
    }

    #[test]
    fn what_is_too_long_saturates() {
        for micros in [1 << 36, 1 << 50, u64::MAX] {
            assert_eq!(index(micros), BUCKETS - 1);
        }
        assert_eq!((lowest(usize::MAX), highest(usize::MAX)), (lowest(BUCKETS - 1), highest(BUCKETS - 1)));
    }

    #[test]
    fn quantiles_of_known_values() {
        let mut counts = [0_u64; BUCKETS];
        assert_eq!(quantile(&counts, 0.5), None);
        for micros in 1..=60_u64 {
            counts[index(micros)] += 1;
        }
        for (q, expected) in [(0.0, 1), (0.5, 30), (0.75, 45), (0.99, 60), (1.0, 60), (f64::NAN, 1)] {
            assert_eq!(quantile(&counts, q), Some(expected), "q = {q}");
        }
    }

    proptest! {
        #[test]
        fn a_bucket_brackets_its_values_within_3_percent(micros in 0..1_u64 << 36) {
            let bucket = index(micros);
            prop_assert!(lowest(bucket) <= micros && micros <= highest(bucket));
            prop_assert!((highest(bucket) - lowest(bucket)) * 32 <= micros);
        }

        #[test]
        fn the_index_never_falls(a: u64, b: u64) {
            prop_assert!(index(a.min(b)) <= index(a.max(b)));
        }

        #[test]
        fn a_quantile_bounds_its_share(values in proptest::collection::vec(0..1_u64 << 30, 1..200), q in 0.0..1.0_f64) {
            let mut counts = [0_u64; BUCKETS];
            values.iter().for_each(|&v| counts[index(v)] += 1);
            let bound = quantile(&counts, q).expect("values were counted");
            let within = values.iter().filter(|&&v| v <= bound).count();
            prop_assert!(within as f64 >= q * values.len() as f64);
        }
    }
}
