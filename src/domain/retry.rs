//! Retries: what follows when an attempt failed, without doing something twice.
//!
//! A request may go out again if nothing of it can have been processed, or if repeating it has the effect of one
//! (RFC 9110 section 9.2.2, or its route says so) and all that was used of its body is at hand. A failed canary is
//! rescued by the baseline rather than tried again ([`rescue`]). Budgets keep both a small share of the requests, so
//! that they cannot multiply an outage; they are asked last, because asking spends.
//!
//! ```text
//!              ┌ the canary's, and rescue names it ┬ may be rescued, budget: yes ▶ Rescue
//!   trouble ───┤                                   ├ may be rescued, budget: no ─▶ GiveUp
//!              │                                   └ may not be rescued ──┐
//!              └ else ────────────────────────────────────────────────────┴▶ tries left, named, safe, budget: Retry
//!                                                                            else: GiveUp
//! ```
//!
//! Invariant: a request that is not idempotent is never repeated once a byte of it may have left, unless its route or
//! the rescue policy says so.

use std::time::Duration;

use crate::domain::budget::Budget;
use crate::domain::outcome::Failure;
use crate::domain::rescue::{self, Refused};
use crate::domain::split::Share;

/// Retries that can be saved up, as many as may be in flight: an endpoint that dies takes all with it that are on their
/// way to it at that moment, and those are no share of the requests of any stretch of time. With ten, the death of one
/// of two endpoints under 32 busy connections was felt by users.
pub const RESERVE: u32 = 100;

/// When and how often a failed attempt is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Attempts beyond the first; 0 switches retries off.
    pub attempts: u32,
    /// How long a response head is waited for by an attempt that another one may follow; `None` as long as by any.
    pub per_try: Option<Duration>,
    /// Failures that are repeated.
    pub on: Conditions,
    /// How long to wait before.
    pub backoff: Backoff,
    /// How many.
    pub budget: Budget,
    /// How many at one time, over all workers: retries of a pool that hangs are slow, and no share limits those.
    pub in_flight: u32,
}

impl Default for Policy {
    fn default() -> Policy {
        let on = Conditions { connect_error: true, reset: true, refused_stream: true, ..Conditions::default() };
        let share = Share::from_basis_points(1_000).expect("10%");
        Policy {
            attempts: 1,
            per_try: None,
            on,
            backoff: Backoff::default(),
            budget: Budget { share, floor: 3, reserve: RESERVE },
            in_flight: 100,
        }
    }
}

/// Which failures something is done about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// No connection could be had.
    pub connect_error: bool,
    /// The connection broke before the response head.
    pub reset: bool,
    /// No response head in time.
    pub timeout: bool,
    /// The request certainly was not processed, by word of the upstream or because nothing was written.
    pub refused_stream: bool,
    /// The answer carries `x-teal-retriable: true`.
    pub retriable_header: bool,
    /// Answers of these statuses.
    pub statuses: Statuses,
}

/// A set of statuses from 400 to 599.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Statuses([u64; 4]);

impl Statuses {
    /// The lowest and the highest that it can hold.
    pub const RANGE: (u16, u16) = (400, 599);

    /// These and all between, as far as it can hold them.
    pub fn from_to(from: u16, to: u16) -> Statuses {
        let mut set = Statuses::default();
        (from..=to).filter_map(place).for_each(|(word, bit)| set.0[word] |= bit);
        set
    }

    /// Those of both.
    pub fn and(self, other: Statuses) -> Statuses {
        Statuses(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }

    /// True if it holds this one.
    pub fn has(self, status: u16) -> bool {
        place(status).is_some_and(|(word, bit)| self.0[word] & bit != 0)
    }
}

fn place(status: u16) -> Option<(usize, u64)> {
    let (from, to) = Statuses::RANGE;
    let at = (from..=to).contains(&status).then(|| usize::from(status - from))?;
    Some((at / 64, 1 << (at % 64)))
}

impl std::fmt::Debug for Statuses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (from, to) = Statuses::RANGE;
        f.debug_set().entries((from..=to).filter(|status| self.has(*status))).finish()
    }
}

/// Full jitter under a doubling bound: retries of many requests that failed together do not come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The bound before the first retry.
    pub base: Duration,
    /// It never grows past this.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

impl Backoff {
    /// How long to wait after so many retries; `random` is fresh entropy.
    pub fn wait(self, tries: u32, random: u64) -> Duration {
        let bound = self.base.saturating_mul(1 << tries.min(16)).min(self.max);
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(((u128::from(random) * (u128::from(micros) + 1)) >> 64) as u64)
    }
}

/// What repeating a request does, by its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// Nothing is changed by it at all.
    Safe,
    /// It has the effect of one.
    Idempotent,
    /// It may happen twice.
    Neither,
}

impl Safety {
    /// What the standard says of a method (RFC 9110 section 9.2).
    pub fn of(method: &str) -> Safety {
        match method {
            "GET" | "HEAD" | "OPTIONS" => Safety::Safe,
            "PUT" | "DELETE" => Safety::Idempotent,
            _ => Safety::Neither,
        }
    }
}

/// What went wrong with an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The pool has no endpoint that may be given requests.
    NoEndpoint,
    /// The endpoint has all it may have.
    Full,
    /// No connection could be opened.
    Connect,
    /// The connection was there, but the request certainly was not processed.
    Unsent,
    /// The connection broke before a response head.
    Reset {
        /// It had served an earlier request, so it may have been closing: that says little about the endpoint.
        reused: bool,
    },
    /// No response head came in time.
    Timeout,
    /// What came is no response.
    Malformed,
    /// A response that says that it is none.
    Answered {
        /// Its status.
        status: u16,
        /// It carries `x-teal-retriable: true`.
        retriable: bool,
    },
}

impl Trouble {
    /// Something of the request may have been processed.
    pub fn was_sent(self) -> bool {
        !matches!(self, Trouble::NoEndpoint | Trouble::Full | Trouble::Connect | Trouble::Unsent)
    }

    /// What the client is told if nothing better comes; `None` for an answer, which speaks for itself.
    pub fn failure(self) -> Option<Failure> {
        Some(match self {
            Trouble::NoEndpoint | Trouble::Full => Failure::NoEndpoint,
            Trouble::Connect => Failure::Connect,
            Trouble::Unsent | Trouble::Reset { .. } => Failure::Reset,
            Trouble::Timeout => Failure::Timeout,
            Trouble::Malformed => Failure::Malformed,
            Trouble::Answered { .. } => return None,
        })
    }
}

impl Conditions {
    /// True if the trouble is among those named. What is no response counts as a connection that broke.
    pub fn name(&self, trouble: Trouble) -> bool {
        match trouble {
            Trouble::NoEndpoint | Trouble::Full | Trouble::Connect => self.connect_error,
            Trouble::Unsent => self.refused_stream,
            Trouble::Reset { .. } | Trouble::Malformed => self.reset,
            Trouble::Timeout => self.timeout,
            Trouble::Answered { status, retriable } => {
                self.statuses.has(status) || (retriable && self.retriable_header)
            }
        }
    }
}

/// Everything that what follows depends on, but for the policies and the budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// What went wrong.
    pub trouble: Trouble,
    /// Further attempts made before this one.
    pub tries: u32,
    /// What the method says.
    pub safety: Safety,
    /// The route says that its requests may be sent twice.
    pub route_repeats: bool,
    /// All that was used of the body is at hand, or there is none.
    pub replayable: bool,
    /// Whose failure it is.
    pub role: Role,
}

/// Whose failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The active pool's, or one that an override chose.
    Baseline,
    /// That of a pool on trial, to which the split sent the request.
    Canary {
        /// The active pool still has a share of the traffic.
        baseline_has_share: bool,
    },
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another attempt, where the split says.
    Retry {
        /// How long to wait first.
        after: Duration,
    },
    /// One at the active pool.
    Rescue,
    /// The client gets what there is. A rescue was wanted and refused, if there is a reason.
    GiveUp(Option<Refused>),
}

/// Decides what follows; see the picture at the top. `random` is fresh entropy; the budgets are asked at most once.
pub fn follow(
    case: &Case,
    policy: &Policy,
    rescue: Option<&rescue::Policy>,
    random: u64,
    may_retry: impl FnOnce() -> bool,
    may_rescue: impl FnOnce() -> bool,
) -> Next {
    let mut refused = None;
    if let (Some(rescue), Role::Canary { baseline_has_share }) = (rescue, case.role)
        && rescue.on.name(case.trouble)
    {
        match rescue.admits(case, baseline_has_share) {
            Ok(()) if may_rescue() => return Next::Rescue,
            // The baseline has all it can take, and another try would stay on the sick version.
            Ok(()) => return Next::GiveUp(Some(Refused::Budget)),
            Err(reason) => refused = Some(reason),
        }
    }
    if policy.admits(case) && may_retry() {
        return Next::Retry { after: policy.wait(case, random) };
    }
    Next::GiveUp(refused)
}

impl Policy {
    /// Whether another attempt may be made, the budget aside.
    fn admits(&self, case: &Case) -> bool {
        let named = match case.trouble {
            // Nobody is there to be asked; and what answered nonsense would do it again.
            Trouble::NoEndpoint | Trouble::Malformed => false,
            // A race that any server's idle timeout can win: whoever wants retries wants this one (Decisions 18).
            Trouble::Reset { reused: true } => true,
            trouble => self.on.name(trouble),
        };
        let safe = !case.trouble.was_sent() || self.may_repeat(case.safety, case.route_repeats);
        case.tries < self.attempts && named && safe && case.replayable
    }

    /// True for requests that may be sent twice.
    pub fn may_repeat(&self, safety: Safety, route_repeats: bool) -> bool {
        route_repeats || safety != Safety::Neither
    }

    /// The first retry of what says nothing about the endpoint's load goes at once.
    fn wait(&self, case: &Case, random: u64) -> Duration {
        let at_once = !case.trouble.was_sent() || case.trouble == Trouble::Reset { reused: true };
        if at_once && case.tries == 0 { Duration::ZERO } else { self.backoff.wait(case.tries, random) }
    }

    /// How long the response head of an attempt is waited for because another may follow; `None` as long as by any.
    pub fn patience(&self, case_at: &Prospect) -> Option<Duration> {
        let follows = case_at.tries < self.attempts && self.on.timeout;
        self.per_try.filter(|_| follows && case_at.replayable && self.may_repeat(case_at.safety, case_at.route_repeats))
    }
}

/// What is known of an attempt beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prospect {
    /// Further attempts made before this one.
    pub tries: u32,
    /// What the method says.
    pub safety: Safety,
    /// The route says that its requests may be sent twice.
    pub route_repeats: bool,
    /// Whatever will have been used of the body will be at hand.
    pub replayable: bool,
}

#[cfg(test)]
mod tests;
