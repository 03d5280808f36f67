//! Uploads: whether one comes fast enough to be waited for.
//!
//! A body of which a byte comes now and then moves, so no idle timeout ends it, and it holds a place in flight and an
//! upstream's connection for as long as its client likes. A least rate bounds that. Only time in which the client was
//! waited for counts: an upload that a slow upstream holds back is not slow.
//!
//! Invariant: a client that sends at the least rate or faster, over every stretch of [`WINDOW`] that it was waited for,
//! is never found too slow.

/// The stretch over which the rate is taken, in microseconds of waiting. Mobile links are gone for seconds at a time.
pub const WINDOW: u64 = 10_000_000;

/// How fast one upload comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// When it was looked at last.
    looked: u64,
    /// How long the client was waited for in this stretch.
    waited: u64,
    /// What came in this stretch.
    bytes: u64,
}

impl Pace {
    /// An upload that begins at `now`.
    pub fn begin(now: u64) -> Pace {
        Pace { looked: now, ..Pace::default() }
    }

    /// So many bytes came.
    pub fn came(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Looks at the upload at `now`; `waits` if the next byte is the client's to send. True if over the last stretch it
    /// brought less than `rate` bytes a second.
    pub fn is_too_slow(&mut self, now: u64, waits: bool, rate: u64) -> bool {
        let since = now.saturating_sub(std::mem::replace(&mut self.looked, now));
        if waits {
            self.waited += since;
        }
        if self.waited < WINDOW {
            return false;
        }
        let due = u128::from(rate) * u128::from(std::mem::take(&mut self.waited)) / 1_000_000;
        u128::from(std::mem::take(&mut self.bytes)) < due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_stretch_is_judged_at_its_end_and_the_next_begins_anew() {
        let mut pace = Pace::begin(0);
        pace.came(1_000);
        assert!(!pace.is_too_slow(WINDOW - 1, true, 1_000), "not over yet");
        assert!(pace.is_too_slow(WINDOW, true, 1_000), "a tenth of what was due");
        pace.came(10_000);
        assert!(!pace.is_too_slow(2 * WINDOW, true, 1_000), "what was due, to the byte");
        pace.came(9_999);
        assert!(pace.is_too_slow(3 * WINDOW, true, 1_000), "what came before does not count again");
    }

    #[test]
    fn time_in_which_nobody_waited_for_the_client_does_not_count() {
        let mut pace = Pace::begin(0);
        assert!(!pace.is_too_slow(3_600 * SECOND, false, 1_000));
        assert!(!pace.is_too_slow(3_601 * SECOND, true, 1_000));
        assert!(pace.is_too_slow(3_610 * SECOND, true, 1_000));
    }

    proptest! {
        #[test]
        fn who_keeps_the_rate_is_never_too_slow(
            rate in 1_u64..1_000_000,
            looks in prop::collection::vec((1_u64..SECOND, any::<bool>()), 1..200),
        ) {
            let (mut pace, mut now) = (Pace::begin(0), 0);
            for (span, waits) in looks {
                now += span;
                pace.came((rate * span).div_ceil(SECOND));
                prop_assert!(!pace.is_too_slow(now, waits, rate));
            }
        }

        #[test]
        fn who_sends_nothing_is_found_out_after_one_stretch(looks in prop::collection::vec(1_u64..SECOND, 50..80)) {
            let (mut pace, mut now) = (Pace::begin(0), 0);
            let mut found = None;
            for span in looks {
                now += span;
                if pace.is_too_slow(now, true, 1) && found.is_none() {
                    found = Some(now);
                }
            }
            prop_assert!(found.is_none_or(|found| (WINDOW..WINDOW + SECOND).contains(&found)));
            prop_assert_eq!(found.is_some(), now >= WINDOW);
        }
    }
}
