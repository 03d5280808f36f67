//! The spending recursion: e-values added up over a whole rollout, whenever the trouble starts.
//!
//! Each alternative holds mass that was put on "it got worse at tick t": `M <- (M + pi_t v u) * L`. The
//! sum of all `M` plus the mass not yet given out starts at 1 and is a nonnegative supermartingale while
//! the canary is no worse than tolerated, so it reaches `1/alpha` in a rollout with chance `alpha` at most.
//!
//! Sources: Shin, Ramdas, Rinaldo, "E-detectors", NEJSDS (2024), doi 10.51387/23-NEJSDS51; Shiryaev (1963);
//! Ville (1939). The start-time mass is normalised, which bounds the chance per rollout, not the mean time
//! between alarms.
//!
//! Invariant: mass given out plus mass unspent is 1 at every tick, whatever the number of weight steps.

/// Mass on "bad from the first tick".
const AT_START: f64 = 0.5;
/// Mass kept for weight steps: half of what is left at each.
const AT_STEPS: f64 = 0.2;
/// Mass spread over all ticks with a heavy tail.
const AT_TICKS: f64 = 0.3;
/// The tick by which half of [`AT_TICKS`] is given out: one hour of 100 ms ticks.
const HALF_WAY: f64 = 36_000.0;

/// No cell grows past this; far beyond any `1/alpha`, far below overflow.
pub const CEILING: f64 = 1e200;

/// Mass given out at `tick` (from 0), weight steps aside.
pub fn tick_mass(tick: u64) -> f64 {
    let late = tick as f64 + HALF_WAY;
    let start = if tick == 0 { AT_START } else { 0.0 };
    start + AT_TICKS * HALF_WAY / (late * (late + 1.0))
}

/// Mass given out at the `step`-th weight step (from 1).
pub fn step_mass(step: u32) -> f64 {
    AT_STEPS * halved(step)
}

/// Mass not yet given out after `ticks` ticks and `steps` weight steps.
pub fn unspent(ticks: u64, steps: u32) -> f64 {
    let start = if ticks == 0 { AT_START } else { 0.0 };
    start + AT_STEPS * halved(steps) + AT_TICKS * HALF_WAY / (ticks as f64 + HALF_WAY)
}

/// One step of the recursion for one metric: `injected` is its new mass, `shares` its split over the
/// alternatives (sum 1), `log_e` the logarithms of this tick's e-values.
pub fn accumulate<const K: usize>(mass: &mut [f64; K], injected: f64, shares: &[f64; K], log_e: &[f64; K]) {
    for ((mass, share), &log_e) in mass.iter_mut().zip(shares).zip(log_e) {
        *mass += injected * share;
        if log_e != 0.0 {
            *mass = (*mass * log_e.exp()).min(CEILING);
        }
    }
}

fn halved(times: u32) -> f64 {
    0.5_f64.powi(times.min(2_000) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mass_is_accounted_for_at_every_tick() {
        let (mut given, mut steps) = (0.0, 0);
        for tick in 0..200_000 {
            assert!((given + unspent(tick, steps) - 1.0).abs() < 1e-9, "tick {tick}");
            if tick % 1_000 == 7 {
                steps += 1;
                given += step_mass(steps);
            }
            given += tick_mass(tick);
        }
    }

    #[test]
    fn a_silent_tick_only_adds_mass() {
        let mut mass = [0.25, 0.5];
        accumulate(&mut mass, 0.1, &[0.5, 0.5], &[0.0, 0.0]);
        assert_eq!(mass, [0.3, 0.55]);
    }

    #[test]
    fn mass_stays_finite() {
        let mut mass = [1.0, 1.0];
        for _ in 0..100 {
            accumulate(&mut mass, 0.0, &[0.5, 0.5], &[700.0, -700.0]);
        }
        assert_eq!(mass, [CEILING, 0.0]);
    }
}
