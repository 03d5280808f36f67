//! Concurrency: how many requests of a service may be in flight, where the limit finds itself.
//!
//! A server that has all it can do answers later, not more. So the latency of now is compared with the usual one: while
//! it is no more than tolerated the limit rises by about its square root, which is room to find out more; past that it
//! falls by the ratio of the two. This is the gradient idea of Netflix's "concurrency-limits". Two things differ: the
//! limit begins at its greatest and rises without demand, because a limit that is not felt does no harm and one learned
//! in a quiet hour would refuse the first busy one; and falling begins from twice what is in flight, so that a high limit
//! nobody used does not delay it.
//!
//! What is slow for about a minute becomes usual: a slower version is not starved for ever.
//!
//! Invariant: the limit stays between its bounds.

/// Samples that the usual latency remembers: a minute of looks.
const MEMORY: f64 = 300.0;
/// Usual latency may be so many times the present one; past it the past is forgotten faster.
const STALE: f64 = 2.0;
/// How much faster, for each sample.
const FORGET: f64 = 0.95;
/// The steepest fall that one sample can ask for.
const STEEPEST: f64 = 0.5;

/// How many requests of a service may be in flight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// At most so many.
    pub max: u32,
    /// The limit moves between a least value and `max`.
    pub adaptive: Option<Adaptive>,
}

/// How a limit moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adaptive {
    /// Never below; at most the policy's `max`.
    pub min: u32,
    /// So many times the usual latency is still no sign of too much, above 1.
    pub tolerance: f64,
    /// How much of the way to its goal the limit goes at each sample, above 0 to 1.
    pub smoothing: f64,
}

impl Default for Adaptive {
    fn default() -> Adaptive {
        Adaptive { min: 20, tolerance: 1.5, smoothing: 0.2 }
    }
}

/// What was seen of a service for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Median of dispatch to response head, in microseconds.
    pub latency: u64,
    /// Requests in flight at its end.
    pub in_flight: u32,
}

/// A limit on its way.
#[derive(Clone, Copy, Debug)]
pub struct Gradient {
    limit: f64,
    usual: f64,
    samples: f64,
}

impl Gradient {
    /// The limit at the beginning: as much as there may be.
    pub fn new(max: u32) -> Gradient {
        Gradient { limit: f64::from(max), usual: 0.0, samples: 0.0 }
    }

    /// The limit after one more sample.
    pub fn step(&mut self, max: u32, adaptive: Adaptive, sample: Sample) -> u32 {
        let now = (sample.latency as f64).max(1.0);
        self.learn(now);
        let gradient = (adaptive.tolerance * self.usual / now).clamp(STEEPEST, 1.0);
        if gradient < 1.0 {
            self.limit = self.limit.min(2.0 * f64::from(sample.in_flight));
        }
        let (least, most) = (f64::from(adaptive.min.min(max)), f64::from(max));
        let from = self.limit.clamp(least, most);
        let goal = from * gradient + from.sqrt();
        self.limit = (from + (goal - from) * adaptive.smoothing).clamp(least, most);
        self.limit as u32
    }

    /// The first samples count alike, later ones fade.
    fn learn(&mut self, now: f64) {
        self.samples = (self.samples + 1.0).min(MEMORY);
        self.usual += (now - self.usual) / self.samples;
        if self.usual > STALE * now {
            self.usual *= FORGET;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: u32 = 1_000;

    fn after(gradient: &mut Gradient, samples: usize, latency: u64, in_flight: u32) -> u32 {
        (0..samples).fold(0, |_, _| gradient.step(MAX, Adaptive::default(), Sample { latency, in_flight }))
    }

    #[test]
    fn without_trouble_the_limit_is_the_greatest() {
        let mut gradient = Gradient::new(MAX);
        assert_eq!(after(&mut gradient, 1, 2_000, 900), MAX);
        assert_eq!(after(&mut gradient, 500, 2_000, 10), MAX);
        // Half as slow again is tolerated.
        assert_eq!(after(&mut gradient, 20, 2_900, 500), MAX);
    }

    #[test]
    fn when_latency_doubles_the_limit_falls_below_what_is_in_flight() {
        let mut gradient = Gradient::new(MAX);
        after(&mut gradient, 300, 2_000, 100);
        let first = after(&mut gradient, 1, 4_000, 200);
        assert!((350..400).contains(&first), "from twice what is in flight: {first}");
        let later = after(&mut gradient, 40, 4_000, 150);
        assert!(later < 150, "{later}");
    }

    #[test]
    fn worse_latency_lowers_it_faster() {
        let fallen = |latency| {
            let mut gradient = Gradient::new(MAX);
            after(&mut gradient, 300, 2_000, 400);
            after(&mut gradient, 5, latency, 400)
        };
        assert!(fallen(3_500) > fallen(5_000) && fallen(5_000) > fallen(20_000), "{}", fallen(3_500));
    }

    #[test]
    fn when_latency_is_back_the_limit_rises_again() {
        let mut gradient = Gradient::new(MAX);
        after(&mut gradient, 300, 2_000, 100);
        let low = after(&mut gradient, 30, 10_000, 60);
        assert!(low <= 60, "{low}");
        let looks = (1..1_000).find(|_| after(&mut gradient, 1, 2_000, 100) == MAX);
        assert!(looks.is_some_and(|looks| (100..400).contains(&looks)), "{looks:?}: not at once and not never");
    }

    #[test]
    fn what_stays_slow_becomes_usual() {
        let mut gradient = Gradient::new(MAX);
        after(&mut gradient, 300, 2_000, 100);
        let low = after(&mut gradient, 60, 4_000, 100);
        let later = after(&mut gradient, 600, 4_000, 100);
        assert!(low < 100 && later == MAX, "{low} {later}");
    }

    proptest! {
        #[test]
        fn it_never_leaves_its_bounds(
            min in 1_u32..100,
            more in 0_u32..10_000,
            tolerance in 1.0_f64..10.0,
            smoothing in 0.01_f64..1.0,
            samples in prop::collection::vec((any::<u64>(), any::<u32>()), 1..200),
        ) {
            let (max, adaptive) = (min + more, Adaptive { min, tolerance, smoothing });
            let mut gradient = Gradient::new(max);
            for (latency, in_flight) in samples {
                let limit = gradient.step(max, adaptive, Sample { latency, in_flight });
                prop_assert!((min..=max).contains(&limit), "{limit}");
            }
        }
    }
}
