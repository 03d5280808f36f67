//! Lag: how late a worker's loop runs.
//!
//! The sweep asks to be woken after a fixed time. How much later it is woken is what every other task of that worker
//! waited as well: a long computation, a blocking call, too little processor. Shown is the worst of the last seconds.
//! Requests are refused by the lesser of the last two: one hiccup is over when it is seen, and no reason to refuse
//! those who waited through it.
//!
//! Invariant: a delay is shown for at least [`WINDOW`] and at most twice as long.

use std::cell::Cell;
use std::time::Duration;

use crate::clock::Micros;

/// How long a delay is remembered: longer than the usual pause between two scrapes.
pub const WINDOW: Duration = Duration::from_secs(30);

/// The worst recent delay of one worker's loop.
#[derive(Debug, Default)]
pub struct Lag {
    began: Cell<Micros>,
    worst: Cell<u64>,
    worst_before: Cell<u64>,
    latest: Cell<u64>,
    lasting: Cell<u64>,
}

impl Lag {
    /// The loop was to be woken after `pace` and has been after `took` microseconds; gives the worst recent delay.
    pub fn woken(&self, now: Micros, pace: Duration, took: u64) -> u64 {
        if now > self.began.get().after(WINDOW) {
            let is_stale = now > self.began.get().after(2 * WINDOW);
            self.worst_before.set(if is_stale { 0 } else { self.worst.get() });
            self.worst.set(0);
            self.began.set(now);
        }
        let late = took.saturating_sub(u64::try_from(pace.as_micros()).unwrap_or(u64::MAX));
        self.lasting.set(late.min(self.latest.replace(late)));
        self.worst.set(self.worst.get().max(late));
        self.worst.get().max(self.worst_before.get())
    }

    /// The delay that the last two wakings had both.
    pub fn lasting(&self) -> u64 {
        self.lasting.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hiccup_does_not_last() {
        let lag = Lag::default();
        let pace = Duration::from_millis(10);
        let mut at = 0;
        let mut lasting = |took| {
            at += took;
            lag.woken(Micros(at), pace, took);
            lag.lasting()
        };
        let delays = [10_000, 90_000, 10_500, 60_000, 70_000, 90_000, 10_000].map(&mut lasting);
        assert_eq!(delays, [0, 0, 500, 500, 50_000, 60_000, 0]);
    }

    #[test]
    fn the_worst_delay_is_shown_for_a_window_and_then_forgotten() {
        let lag = Lag::default();
        let pace = Duration::from_millis(10);
        let at = |seconds: u64| Micros(seconds * 1_000_000);
        let table = [
            (1, 10_400, 400),
            (2, 9_000, 400),
            (3, 90_000, 80_000),
            (29, 10_000, 80_000),
            (31, 10_100, 80_000),
            (61, 10_100, 80_000),
            (62, 10_200, 200),
            (400, 10_050, 50),
        ];
        for (second, took, worst) in table {
            assert_eq!(lag.woken(at(second), pace, took), worst, "at {second} s");
        }
    }
}
