//! Circuit breakers: when a pool or an endpoint gets no requests for a while, and how it gets them back.
//!
//! A breaker opens by what requests turned out to be: errors in a row, too many errors or too many slow answers within a
//! window. While it is open it blocks; after a cool-down it lets a few real requests through on trial, and only if all
//! of them go well it closes. Each opening doubles the cool-down, so that what stays broken is asked ever more rarely;
//! a quiet time forgives.
//!
//! Counting is the holder's ([`crate::bridge::breaker`]): the machine asks for counts only when an outcome speaks
//! against the target, so that good answers cost next to nothing.
//!
//! Invariants: never more requests are on trial than the policy allows; a cool-down lies between the policy's two
//! bounds; only an outcome that is bad or slow opens.

use std::time::Duration;

use crate::domain::outcome::Outcome;
use crate::domain::split::Share;

#[cfg(test)]
mod tests;

/// Parts of a window: an old request is forgotten at most a tenth of the window late.
pub const SLOTS: u64 = 10;
/// Errors in a row that are told apart.
pub const MOST_IN_A_ROW: u16 = 1_000;
/// Requests on trial at a time.
pub const MOST_TRIALS: u8 = 100;
/// Openings that are remembered: twice as long each time is for ever long before.
pub const MOST_STRIKES: u8 = 31;

/// When a breaker opens and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Requests of this time count.
    pub window: Duration,
    /// Fewer requests within the window say nothing about shares.
    pub min_requests: u32,
    /// This share of errors within the window opens.
    pub error_rate: Option<Share>,
    /// So many errors in a row open, whatever the window holds.
    pub consecutive: Option<u16>,
    /// Slow answers open too.
    pub slow: Option<Slow>,
    /// How long it blocks the first time.
    pub cool_down: Duration,
    /// The longest that it blocks.
    pub max_cool_down: Duration,
    /// Requests let through before it closes; all must go well.
    pub trials: u8,
}

/// Too many answers that take too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// Longer than this from dispatch to response head is slow.
    pub over: Duration,
    /// This share of slow answers within the window opens.
    pub share: Share,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            window: Duration::from_secs(10),
            min_requests: 20,
            error_rate: Share::from_basis_points(5_000),
            consecutive: Some(5),
            slow: None,
            cool_down: Duration::from_secs(5),
            max_cool_down: Duration::from_secs(120),
            trials: 3,
        }
    }
}

impl Policy {
    /// The length of a slot of the window, in milliseconds.
    pub fn slot(&self) -> u64 {
        (millis(self.window) / SLOTS).max(1)
    }

    /// How long it blocks after so many earlier openings, in milliseconds.
    fn cool_down_after(&self, strikes: u8) -> u64 {
        let doubled = millis(self.cool_down).saturating_mul(1 << u32::from(strikes.min(MOST_STRIKES)));
        doubled.min(millis(self.max_cool_down))
    }

    /// What an outcome says; `excused` if the client held things up, so that slowness says nothing.
    pub fn report(&self, outcome: Outcome, excused: bool, is_first: bool) -> Report {
        let bad = outcome.is_bad();
        let slow = match (outcome, self.slow) {
            (Outcome::Answered { latency, .. }, Some(_)) => !bad && !excused && self.is_slow(latency),
            _ => false,
        };
        Report { bad, slow, is_first }
    }

    /// True for an answer that takes so many microseconds, or is not there after them.
    pub fn is_slow(&self, latency: u64) -> bool {
        self.slow.is_some_and(|slow| u128::from(latency) > slow.over.as_micros())
    }

    /// Why these counts open, after an outcome that spoke against the target.
    fn cause(&self, report: Report, counts: Counts) -> Option<Cause> {
        let Counts { n, bad, slow } = counts;
        if n < u64::from(self.min_requests) {
            return None;
        }
        let reaches = |part: u64, share: Share| part * 10_000 >= n * u64::from(share.basis_points());
        if report.bad && self.error_rate.is_some_and(|share| reaches(bad, share)) {
            return Some(Cause::Errors { bad, n });
        }
        let is_slow = report.slow && self.slow.is_some_and(|limit| reaches(slow, limit.share));
        is_slow.then_some(Cause::Slow { slow, n })
    }
}

/// What a breaker is told of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// It failed, or was answered 500 or above.
    pub bad: bool,
    /// It was answered, but too late, or is already too late.
    pub slow: bool,
    /// Nothing was told of it before, so it counts as a request.
    pub is_first: bool,
}

/// Requests within the window since the breaker closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub n: u64,
    /// Those that were bad.
    pub bad: u64,
    /// Those that were slow.
    pub slow: u64,
}

/// Why a breaker opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// So many errors in a row.
    Row(u16),
    /// The share of errors within the window.
    Errors {
        /// Bad ones.
        bad: u64,
        /// All.
        n: u64,
    },
    /// The share of slow answers within the window.
    Slow {
        /// Slow ones.
        slow: u64,
        /// All.
        n: u64,
    },
    /// A request on trial failed or was slow.
    Trial,
}

impl Cause {
    /// With its numbers, such as `5 errors in a row`.
    pub fn sentence(self, policy: &Policy) -> String {
        let window = humantime::format_duration(policy.window);
        match self {
            Cause::Row(1) => "an error".to_owned(),
            Cause::Row(row) => format!("{row} errors in a row"),
            Cause::Errors { bad, n } => format!("{bad} of {n} requests within {window} failed"),
            Cause::Slow { slow, n } => {
                let over = humantime::format_duration(policy.slow.map_or(Duration::ZERO, |slow| slow.over));
                format!("{slow} of {n} requests within {window} took longer than {over}")
            }
            Cause::Trial => "a request on trial did not go well".to_owned(),
        }
    }
}

/// One breaker. Times are milliseconds of one monotonic clock.
///
/// ```text
///             errors in a row, share of errors,
///             share of slow answers                    cool-down over
///   Closed ─────────────────────────────────▶ Open ─────────────────────▶ HalfOpen
///     ▲                                        ▲     (a request or a       │   │
///     │                                        │      look at the clock)   │   │
///     │                                        └───────────────────────────┘   │
///     │                                          one trial bad or slow:        │
///     │                                          twice as long as before       │
///     └────────────────────────────────────────────────────────────────────────┘
///                                 all trials good
///   Closed    every request passes; a good one ends a row of errors.
///   Open      no request passes; what earlier ones turn out to be changes nothing.
///   HalfOpen  `trials` requests pass; one whose client went away gives its place to another.
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Where it is.
    pub phase: Phase,
    /// Openings that are not forgiven yet: each doubles the next cool-down.
    pub strikes: u8,
}

/// Where a breaker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Requests pass.
    Closed {
        /// Since when; earlier requests do not count.
        since: u64,
        /// Bad ones since the last good one.
        row: u16,
    },
    /// Requests are blocked.
    Open {
        /// Until then at least.
        until: u64,
    },
    /// Some requests pass on trial.
    HalfOpen {
        /// Since when: tells the trials of this time from late ones of another.
        since: u64,
        /// Trials let through and not given back.
        given: u8,
        /// Trials that went well.
        good: u8,
    },
}

/// A request passes on trial: what must come back with its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The half-open time it belongs to.
    pub since: u64,
}

/// What a breaker says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It passes.
    Pass,
    /// It passes on trial.
    OnTrial(Trial),
    /// It is blocked.
    Blocked {
        /// Another try makes sense after so many milliseconds.
        wait: u64,
    },
}

/// A change worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It opened.
    Opened {
        /// Why.
        cause: Cause,
        /// For how long, in milliseconds.
        cool_down: u64,
    },
    /// The cool-down is over.
    HalfOpened,
    /// All trials went well.
    Closed,
}

/// Without a better guess: how long a trial may take.
const TRIAL_WAIT: u64 = 1_000;

impl Default for State {
    fn default() -> State {
        State::closed(0)
    }
}

impl State {
    /// Closed since `now`, with nothing behind it.
    pub const fn closed(now: u64) -> State {
        State { phase: Phase::Closed { since: now, row: 0 }, strikes: 0 }
    }

    /// True while no request passes, not even on trial, by what is known without looking at a clock.
    pub const fn blocks(self, trials: u8) -> bool {
        match self.phase {
            Phase::Closed { .. } => false,
            Phase::Open { .. } => true,
            Phase::HalfOpen { given, .. } => given >= trials,
        }
    }

    /// A request asks to pass at `now`.
    pub fn admit(self, trials: u8, now: u64) -> (State, Answer) {
        let given = |since, given, good| {
            let phase = Phase::HalfOpen { since, given, good };
            (State { phase, ..self }, Answer::OnTrial(Trial { since }))
        };
        match self.phase {
            Phase::Closed { .. } => (self, Answer::Pass),
            Phase::Open { until } if now < until => (self, Answer::Blocked { wait: until - now }),
            Phase::Open { .. } => given(now, 1, 0),
            Phase::HalfOpen { given: out, .. } if out >= trials => (self, Answer::Blocked { wait: TRIAL_WAIT }),
            Phase::HalfOpen { since, given: out, good } => given(since, out + 1, good),
        }
    }

    /// Time passed.
    pub fn tick(self, now: u64) -> (State, Option<Change>) {
        match self.phase {
            Phase::Open { until } if now >= until => {
                let phase = Phase::HalfOpen { since: now, given: 0, good: 0 };
                (State { phase, ..self }, Some(Change::HalfOpened))
            }
            _ => (self, None),
        }
    }

    /// A request turned out like this at `now`. `counts` is what the window holds, this request included; it is asked for
    /// only where it can matter.
    pub fn tell(
        self,
        policy: &Policy,
        now: u64,
        report: Report,
        trial: Option<Trial>,
        counts: impl FnOnce() -> Counts,
    ) -> (State, Option<Change>) {
        let speaks_against = report.bad || report.slow;
        match (self.phase, trial) {
            (Phase::Closed { since, row }, _) => {
                let row = if report.bad { (row + 1).min(MOST_IN_A_ROW) } else { 0 };
                let in_a_row = policy.consecutive.filter(|most| report.bad && row >= *most);
                let cause = match in_a_row {
                    Some(_) => Some(Cause::Row(row)),
                    None if speaks_against => policy.cause(report, counts()),
                    None => None,
                };
                match cause {
                    Some(cause) => self.open(policy, now, cause),
                    None => (State { phase: Phase::Closed { since, row }, ..self }, None),
                }
            }
            (Phase::HalfOpen { since, .. }, Some(trial)) if trial.since == since && speaks_against => {
                self.open(policy, now, Cause::Trial)
            }
            (Phase::HalfOpen { since, given, good }, Some(trial)) if trial.since == since => {
                if good + 1 >= policy.trials {
                    return (State { phase: Phase::Closed { since: now, row: 0 }, ..self }, Some(Change::Closed));
                }
                (State { phase: Phase::HalfOpen { since, given, good: good + 1 }, ..self }, None)
            }
            // Sent before it opened, or on a trial whose time is over.
            (Phase::Open { .. } | Phase::HalfOpen { .. }, _) => (self, None),
        }
    }

    /// A request on trial ended without a word about the target: its place is free again.
    pub fn give_back(self, trial: Trial) -> State {
        match self.phase {
            Phase::HalfOpen { since, given, good } if since == trial.since && given > good => {
                State { phase: Phase::HalfOpen { since, given: given - 1, good }, ..self }
            }
            _ => self,
        }
    }

    fn open(self, policy: &Policy, now: u64, cause: Cause) -> (State, Option<Change>) {
        let forgiven = match self.phase {
            // One for each time it kept closed for as long as it could have been open.
            Phase::Closed { since, .. } => now.saturating_sub(since) / millis(policy.max_cool_down).max(1),
            _ => 0,
        };
        let strikes = self.strikes.saturating_sub(u8::try_from(forgiven).unwrap_or(u8::MAX));
        let cool_down = policy.cool_down_after(strikes);
        let state = State { phase: Phase::Open { until: now + cool_down }, strikes: (strikes + 1).min(MOST_STRIKES) };
        (state, Some(Change::Opened { cause, cool_down }))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
