//! Rate limits: how often something may happen, by the generic cell rate algorithm (GCRA).
//!
//! All that is remembered of a key is when everything it was allowed so far would be paid for, had it come evenly:
//! its *theoretical arrival time*. What runs further ahead of the clock than a burst may is refused, and can be told
//! exactly when to come again. One number a key is what makes a lock-free table of fixed size possible; windows and
//! buckets need a count and a time.
//!
//! Time is in ticks of a sixteenth of a microsecond, so that the fastest rate is kept within a percent. What does not
//! divide is rounded to the slower side.
//!
//! Invariant: whatever the calls, a key is allowed at most `burst + rate * t` times within any `t`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::route::Match;

/// Ticks in a microsecond.
pub const TICKS: u64 = 16;
/// The shortest time between two of an even flow: ten microseconds, 100,000 in a second.
const SHORTEST: u64 = 10 * TICKS;
/// How long a used-up burst may take to come back: a table remembers no longer.
pub const LONGEST: u64 = 24 * 3600 * 1_000_000 * TICKS;
/// The largest burst.
pub const MAX_BURST: u32 = 100_000;

/// A limit on the requests of a service or a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// For metrics and status; unique within its service or route.
    pub name: String,
    /// Which requests are counted; never by path, since a path can be written in many ways.
    pub matches: Match,
    /// What is counted apart.
    pub by: By,
    /// How often.
    pub rate: Rate,
    /// How many at once after a silence; the time it takes to come back is at most a day.
    pub burst: u32,
    /// Keys that are remembered at one time.
    pub keys: usize,
}

/// What a limit counts apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// Nothing: all requests together.
    All,
    /// Clients: an IPv4 address, or an IPv6 /64.
    Client,
    /// The values of a header (name in lower case); those without it together.
    Header(String),
}

/// How often: a count in a second, a minute or an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
}

impl Unit {
    fn ticks(self) -> u64 {
        let seconds = match self {
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 3600,
        };
        seconds * 1_000_000 * TICKS
    }
}

/// Why a text is not a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRate {
    /// It is not written like one.
    #[error("a rate is a whole number of requests in a second, a minute or an hour, such as 100/s, 60/m or 1000/h")]
    Syntax,
    /// It is none that can be kept.
    #[error("a rate is at least 1/h and at most 100000/s")]
    Range,
}

impl Rate {
    /// How many.
    pub fn count(self) -> u32 {
        self.count
    }

    /// Ticks between two of an even flow, rounded up.
    fn period(self) -> u64 {
        self.unit.ticks().div_ceil(u64::from(self.count))
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Rate, InvalidRate> {
        let (count, unit) = text.trim().split_once('/').ok_or(InvalidRate::Syntax)?;
        let unit = match unit {
            "s" => Unit::Second,
            "m" => Unit::Minute,
            "h" => Unit::Hour,
            _ => return Err(InvalidRate::Syntax),
        };
        if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidRate::Syntax);
        }
        let count = count.parse().ok().filter(|count| *count > 0).ok_or(InvalidRate::Range)?;
        let is_kept = u64::from(count) * SHORTEST <= unit.ticks();
        is_kept.then_some(Rate { count, unit }).ok_or(InvalidRate::Range)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Second => "s",
            Unit::Minute => "m",
            Unit::Hour => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// A rate and a burst, ready to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    period: u64,
    /// How far ahead of the clock what was allowed may be and still leave room for one more.
    ahead: u64,
}

impl Pace {
    /// `burst` at once, then `rate`; `None` if a used-up burst would take longer than a day to come back.
    pub fn new(rate: Rate, burst: u32) -> Option<Pace> {
        let ahead = rate.period().checked_mul(u64::from(burst.saturating_sub(1)))?;
        (ahead <= LONGEST).then(|| Pace { period: rate.period(), ahead })
    }

    /// One more at `now`, where all before are paid for at `paid`; both in ticks.
    ///
    /// # Errors
    /// After how many ticks it would be allowed.
    pub fn check(self, paid: u64, now: u64) -> Result<u64, Wait> {
        let base = paid.max(now);
        match (base - now).checked_sub(self.ahead) {
            None | Some(0) => Ok(base + self.period),
            Some(wait) => Err(Wait(wait)),
        }
    }
}

/// How long until one more is allowed, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait(u64);

impl Wait {
    /// In whole seconds, rounded up: who comes then is not refused by this.
    pub fn seconds(self) -> u32 {
        u32::try_from(self.0.div_ceil(Unit::Second.ticks())).unwrap_or(u32::MAX)
    }
}

/// A moment in microseconds as ticks.
pub fn ticks(micros: u64) -> u64 {
    micros.saturating_mul(TICKS)
}

/// How long a used-up burst takes to come back, for explanations.
pub fn recovery(rate: Rate, burst: u32) -> Duration {
    Duration::from_micros(rate.period().saturating_mul(u64::from(burst)) / TICKS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000 * TICKS;

    fn pace(rate: &str, burst: u32) -> Pace {
        Pace::new(rate.parse().unwrap(), burst).unwrap()
    }

    #[test]
    fn rates_are_read_and_shown_or_explained() {
        for good in ["1/s", "100000/s", "1/m", "6000000/m", "1/h", "360000000/h"] {
            assert_eq!(good.parse::<Rate>().map(|rate| rate.to_string()), Ok(good.to_owned()));
        }
        let bad = [
            ("", InvalidRate::Syntax),
            ("100", InvalidRate::Syntax),
            ("/s", InvalidRate::Syntax),
            ("1.5/s", InvalidRate::Syntax),
            ("-1/s", InvalidRate::Syntax),
            ("1/d", InvalidRate::Syntax),
            ("1/s/s", InvalidRate::Syntax),
            ("0/s", InvalidRate::Range),
            ("100001/s", InvalidRate::Range),
            ("99999999999/h", InvalidRate::Range),
        ];
        for (text, error) in bad {
            assert_eq!(text.parse::<Rate>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_burst_comes_back_within_a_day_or_is_none() {
        let rate = |text: &str| text.parse::<Rate>().unwrap();
        assert!(Pace::new(rate("1/h"), 25).is_some() && Pace::new(rate("1/h"), 26).is_none());
        assert!(Pace::new(rate("100000/s"), MAX_BURST).is_some());
        assert_eq!(recovery(rate("10/s"), 20), Duration::from_secs(2));
    }

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        // At 10/s with a burst of 3: when it comes, and what it is told.
        let pace = pace("10/s", 3);
        let tenth = SECOND / 10;
        let table = [
            (0, Ok(())),
            (0, Ok(())),
            (0, Ok(())),
            (0, Err(tenth)),
            (tenth - 1, Err(1)),
            (tenth, Ok(())),
            (tenth, Err(tenth)),
            (3 * tenth, Ok(())),
            (3 * tenth, Ok(())),
            (3 * tenth, Err(tenth)),
            (100 * tenth, Ok(())),
            (100 * tenth, Ok(())),
            (100 * tenth, Ok(())),
            (100 * tenth, Err(tenth)),
        ];
        let mut paid = 0;
        for (at, (now, expected)) in table.into_iter().enumerate() {
            let checked = pace.check(paid, now);
            assert_eq!(checked.map(|_| ()), expected.map_err(Wait), "{at}");
            paid = checked.unwrap_or(paid);
        }
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_rounded_up() {
        for (wait, seconds) in [(1, 1), (SECOND, 1), (SECOND + 1, 2), (90 * SECOND, 90)] {
            assert_eq!(Wait(wait).seconds(), seconds);
        }
    }

    /// A bucket that is counted in fractions of a request: what GCRA must agree with.
    struct Bucket {
        level: f64,
        at: u64,
    }

    proptest! {
        #[test]
        fn it_allows_what_a_bucket_of_tokens_allows(
            count in 1_u32..2_000,
            burst in 1_u32..50,
            gaps in prop::collection::vec(0_u64..SECOND / 50, 1..400),
        ) {
            let rate = Rate { count, unit: Unit::Second };
            let (pace, mut paid, mut now) = (Pace::new(rate, burst).unwrap(), 0, SECOND);
            let mut bucket = Bucket { level: f64::from(burst), at: now };
            for gap in gaps {
                now += gap;
                let refilled = bucket.level + (now - bucket.at) as f64 / rate.period() as f64;
                bucket = Bucket { level: refilled.min(f64::from(burst)), at: now };
                // Where the bucket is on the edge, its rounding decides and not the rule.
                let clear = (bucket.level - 1.0).abs() > 1e-6;
                match pace.check(paid, now) {
                    Ok(next) => {
                        prop_assert!(bucket.level >= 1.0 || !clear, "allowed at {}", bucket.level);
                        bucket.level -= 1.0;
                        paid = next;
                    }
                    Err(wait) => {
                        prop_assert!(bucket.level < 1.0 || !clear, "refused at {}", bucket.level);
                        prop_assert!(pace.check(paid, now + wait.0).is_ok() && pace.check(paid, now + wait.0 - 1).is_err());
                    }
                }
            }
        }

        #[test]
        fn no_window_holds_more_than_a_burst_and_its_rate(
            count in 1_u32..5_000,
            burst in 1_u32..100,
            gaps in prop::collection::vec(0_u64..SECOND / 20, 1..300),
        ) {
            let rate = Rate { count, unit: Unit::Minute };
            let (pace, mut paid, mut now, mut allowed) = (Pace::new(rate, burst).unwrap(), 0, 7, Vec::new());
            for gap in gaps {
                now += gap;
                if let Ok(next) = pace.check(paid, now) {
                    paid = next;
                    allowed.push(now);
                }
            }
            for (first, from) in allowed.iter().enumerate() {
                for (last, until) in allowed.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (until - from) / rate.period();
                    prop_assert!((last - first + 1) as u64 <= most);
                }
            }
        }
    }
}
