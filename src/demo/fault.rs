//! What the embedded green version does wrong, and how long an embedded version takes: pure decisions over drawn
//! numbers.
//!
//! Invariant: without a fault every request is answered well, after [`LEAST`] to [`MOST`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The shortest time an answer takes.
pub const LEAST: Duration = Duration::from_millis(2);
/// The longest time an answer takes while nothing is broken.
pub const MOST: Duration = Duration::from_millis(55);

/// Half of all answers take less than this; timers and the way through the proxy add one to two.
const MEDIAN_MILLIS: f64 = 10.5;
/// Standard deviation of the logarithm: puts the 99th percentile at 4.1 times the median, about 43 ms.
const SPREAD: f64 = 0.606;
/// The part of green's answers that fail under `errors`.
const FAILING: f64 = 0.08;
/// The part of green's requests that are never answered under `hang`.
const HANGING: f64 = 0.05;
/// How many times longer green takes under `latency`.
const SLOWER: u32 = 3;

/// How green breaks in the middle of the rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fail {
    /// 8 % of its answers become 500.
    Errors,
    /// It takes three times as long.
    Latency,
    /// 5 % of its requests are never answered.
    Hang,
    /// Every endpoint stops listening and drops its connections.
    Crash,
}

impl Fail {
    /// Every way, in the order of the help text.
    pub const ALL: [Fail; 4] = [Fail::Errors, Fail::Latency, Fail::Hang, Fail::Crash];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Fail::Errors => "errors",
            Fail::Latency => "latency",
            Fail::Hang => "hang",
            Fail::Crash => "crash",
        }
    }

    /// What is broken, in words.
    pub const fn sentence(self) -> &'static str {
        match self {
            Fail::Errors => "8 % of green's answers are now 500",
            Fail::Latency => "green now takes three times as long",
            Fail::Hang => "5 % of green's requests are now never answered",
            Fail::Crash => "both green endpoints are now gone",
        }
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No such way to fail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of errors, latency, hang, crash")]
pub struct UnknownFail(String);

impl FromStr for Fail {
    type Err = UnknownFail;

    fn from_str(text: &str) -> Result<Fail, UnknownFail> {
        Fail::ALL.into_iter().find(|fail| fail.name() == text).ok_or_else(|| UnknownFail(text.to_owned()))
    }
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A whole 200, this many times slower than drawn.
    Answer {
        /// 1 while nothing is broken.
        slower: u32,
    },
    /// A 500.
    Error,
    /// No answer, ever.
    Hang,
}

impl Fate {
    /// The fate of a request to a pool broken in this way; `draw` is uniform from 0 to 1.
    pub fn of(broken: Option<Fail>, draw: f64) -> Fate {
        match broken {
            Some(Fail::Errors) if draw < FAILING => Fate::Error,
            Some(Fail::Hang) if draw < HANGING => Fate::Hang,
            Some(Fail::Latency) => Fate::Answer { slower: SLOWER },
            // A crash needs no decision per request: nobody listens any more.
            _ => Fate::Answer { slower: 1 },
        }
    }

    /// True if the user is served worse than before.
    pub fn is_bad(self) -> bool {
        self != Fate::Answer { slower: 1 }
    }
}

/// How long an answer takes: log-normal, cut off at both ends; both draws are uniform from 0 to 1.
pub fn service_time(first: f64, second: f64) -> Duration {
    // Box and Muller: two uniform draws make a normal one. Zero has no logarithm.
    let radius = (-2.0 * first.max(f64::MIN_POSITIVE).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * second).cos();
    let millis = MEDIAN_MILLIS * (SPREAD * normal).exp();
    Duration::from_secs_f64(millis / 1_000.0).clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_themselves() {
        assert!(Fail::ALL.iter().all(|fail| fail.name().parse() == Ok(*fail)));
        assert_eq!("fire".parse::<Fail>().unwrap_err().to_string(), "`fire` is none of errors, latency, hang, crash");
    }

    #[test]
    fn each_fault_hits_the_share_it_announces() {
        let bad = |fail| (0..1_000).filter(|n| Fate::of(fail, f64::from(*n) / 1_000.0).is_bad()).count();
        let cases = [(None, 0), (Some(Fail::Errors), 80), (Some(Fail::Latency), 1_000), (Some(Fail::Hang), 50)];
        cases.iter().for_each(|&(fail, expected)| assert_eq!(bad(fail), expected, "{fail:?}"));
        assert_eq!(Fate::of(Some(Fail::Errors), 0.0), Fate::Error);
        assert_eq!(Fate::of(Some(Fail::Hang), 0.0), Fate::Hang);
        assert_eq!(Fate::of(Some(Fail::Latency), 0.5), Fate::Answer { slower: 3 });
        assert!(!Fate::of(Some(Fail::Crash), 0.0).is_bad());
    }

    #[test]
    fn service_times_have_the_announced_shape() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut times: Vec<_> = (0..20_000).map(|_| service_time(random.f64(), random.f64())).collect();
        times.sort_unstable();
        let at = |q: f64| times[(q * 20_000.0) as usize].as_secs_f64() * 1_000.0;
        assert!((10.0..11.0).contains(&at(0.5)), "{}", at(0.5));
        assert!((39.0..47.0).contains(&at(0.99)), "{}", at(0.99));
        assert!(times[0] >= LEAST && times[19_999] == MOST);
        assert_eq!((service_time(0.0, 0.0), service_time(0.0, 0.5)), (MOST, LEAST));
    }
}
