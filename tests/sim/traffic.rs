//! Simulated traffic, counted the way the data plane's recorder counts it.
//!
//! A thousand requests per second, each sent to the canary with the chance of the split. Answers of a tick are
//! booked unit by unit through the production cells: an error is a bad unit and has no latency, a success is a
//! good unit, is held against every mark of its pool, and enters the pool's histogram.
//!
//! Invariant: nothing is written but what `proxy::recorder` would have written.

use fastrand::Rng;
use teal::bridge::observations::PoolTally;

use crate::limits;
use crate::random::{Binomial, normal};
use crate::trial::{BASELINE, CANARY, Trial};

/// Requests per tick of 100 ms.
pub(crate) const PER_TICK: u32 = 100;

/// Latencies are lognormal with this median, in microseconds, ...
const MEDIAN: f64 = 50_000.0;
/// ... and a p99 of four times the median.
const SPREAD: f64 = 0.595_91;
/// Where the standard normal law has its p90.
const P90: f64 = 1.281_55;

/// How a pool answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Behaviour {
    /// The chance of an error.
    pub(crate) errors: f64,
    /// Whether latencies are simulated, and how.
    pub(crate) latency: Latency,
}

/// How long a success takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Latency {
    /// Not looked at: the marks are never learned.
    Unmeasured,
    /// The usual law, all of it stretched by a factor.
    Scaled(f64),
    /// The usual law up to its p90, and beyond it a logarithm stretched so that p99 grows by a factor.
    LongTail(f64),
}

/// Traffic of one split and one behaviour per pool.
pub(crate) struct Traffic {
    split: Binomial,
    pools: [Answers; 2],
}

struct Answers {
    errors: Binomial,
    latency: Latency,
}

impl Behaviour {
    /// Errors only.
    pub(crate) fn failing(errors: f64) -> Behaviour {
        Behaviour { errors, latency: Latency::Unmeasured }
    }

    /// Errors, and latencies scaled by a factor.
    pub(crate) fn timed(errors: f64, factor: f64) -> Behaviour {
        Behaviour { errors, latency: Latency::Scaled(factor) }
    }
}

impl Latency {
    /// Microseconds, for a draw from the standard normal law.
    fn micros(self, z: f64) -> u64 {
        (MEDIAN * (SPREAD * self.bent(z)).exp()) as u64
    }

    /// The draw that the usual law would need for the same latency.
    fn bent(self, z: f64) -> f64 {
        match self {
            Latency::Unmeasured => z,
            Latency::Scaled(factor) => z + factor.ln() / SPREAD,
            Latency::LongTail(_) if z <= P90 => z,
            Latency::LongTail(factor) => {
                let p99 = 4.0_f64.ln() / SPREAD;
                let stretch = 1.0 + factor.ln() / SPREAD / (p99 - P90);
                P90 + (z - P90) * stretch
            }
        }
    }

    /// The chance of each latency, in steps of 3 % like the production histogram.
    fn outcomes(self) -> Vec<f64> {
        const GRID: i32 = 20_000;
        let mut outcomes = vec![0.0; 2_000];
        for point in -GRID..=GRID {
            let z = f64::from(point) * 8.0 / f64::from(GRID);
            let place = (self.bent(z) * SPREAD / 0.03).floor() + 1_000.0;
            outcomes[place as usize] += (-0.5 * z * z).exp();
        }
        let all: f64 = outcomes.iter().sum();
        outcomes.iter().map(|mass| mass / all).collect()
    }
}

/// What one request tells at best of the difference between two behaviours, in nats.
pub(crate) fn information(split: f64, baseline: Behaviour, canary: Behaviour) -> f64 {
    let errors = limits::information(&limits::failing(baseline.errors), &limits::failing(canary.errors), split);
    let latency = limits::information(&baseline.latency.outcomes(), &canary.latency.outcomes(), split);
    errors + latency
}

impl Traffic {
    /// `split` is the canary's share, 0 to 1 exclusive.
    pub(crate) fn new(split: f64, baseline: Behaviour, canary: Behaviour) -> Traffic {
        let answers = |behaviour: Behaviour| Answers {
            errors: Binomial::new(PER_TICK, behaviour.errors),
            latency: behaviour.latency,
        };
        Traffic { split: Binomial::new(PER_TICK, split), pools: [answers(baseline), answers(canary)] }
    }

    /// Requests of one tick, by pool.
    pub(crate) fn arrivals(&self, random: &mut Rng) -> [u32; 2] {
        let canary = self.split.draw(PER_TICK, random);
        [PER_TICK - canary, canary]
    }

    /// How many of `requests` to `pool` fail.
    pub(crate) fn failures(&self, pool: usize, requests: u32, random: &mut Rng) -> u32 {
        self.pools[pool].errors.draw(requests, random)
    }

    /// One tick in which every request that comes is answered too.
    pub(crate) fn tick(&self, trial: &Trial, random: &mut Rng) {
        let (book, worker) = (trial.book(), trial.worker());
        for (pool, requests) in self.arrivals(random).into_iter().enumerate() {
            let (cell, latency) = (book.cell(worker, pool), self.pools[pool].latency);
            let failures = self.failures(pool, requests, random);
            (0..requests).for_each(|_| cell.opened());
            (0..requests).for_each(|at| cell.settled(at < failures));
            if latency != Latency::Unmeasured {
                let (marks, tally) = (book.marks_for(pool), trial.tally(pool).of(worker));
                for _ in failures..requests {
                    let micros = latency.micros(normal(random));
                    tally.took(micros);
                    let marks = marks.into_iter().flatten().enumerate();
                    marks.for_each(|(at, mark)| cell.marked(at, micros > *mark));
                }
            }
            (0..requests).for_each(|_| cell.closed());
        }
    }

    /// Traffic before the rollout: all of it to the baseline, counted for nothing but its latencies.
    pub(crate) fn warm_up(&self, trial: &Trial, ticks: u32, random: &mut Rng) {
        let latency = self.pools[BASELINE].latency;
        if latency != Latency::Unmeasured {
            let tally: &PoolTally = trial.tally(BASELINE).of(trial.worker());
            (0..ticks * PER_TICK).for_each(|_| tally.took(latency.micros(normal(random))));
        }
    }
}

const _: () = assert!(BASELINE == 0 && CANARY == 1, "the order of arrivals");
