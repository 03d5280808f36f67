//! Rescue: a request that failed on the canary is answered by the baseline instead (Decisions 9).
//!
//! The failure stays charged to the canary; only its user does not see it. What may be rescued is what may be sent
//! twice: anything of which nothing was sent, else requests of the methods that the policy names, or of routes that
//! say so. A budget keeps a dead canary from doubling the load of the baseline.
//!
//! Invariant: the answer is yes only if sending the request again is as safe as its owner said.

use std::time::Duration;

use crate::domain::budget::Budget;
use crate::domain::retry::{Case, Conditions, Safety, Statuses};
use crate::domain::split::Share;

/// Rescues that can be saved up. Each stands in for a request that the baseline would have had before there was a
/// canary, so a burst of them is no new load; it covers the moment until the judge has taken the traffic back.
pub const RESERVE: u32 = 100;

/// What is rescued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Requests that may be sent twice.
    pub methods: Methods,
    /// Failures that are rescued.
    pub on: Conditions,
    /// How long the canary's response head is waited for, if it can be rescued. Who answers later counts as failed,
    /// canary or not: else the judge would compare two limits, not two versions.
    pub after: Duration,
    /// How many.
    pub budget: Budget,
    /// The answer says so.
    pub header: bool,
}

impl Default for Policy {
    fn default() -> Policy {
        let share = Share::from_basis_points(2_000).expect("20%");
        let on = Conditions {
            connect_error: true,
            reset: true,
            timeout: true,
            refused_stream: true,
            retriable_header: false,
            statuses: Statuses::from_to(500, 599),
        };
        Policy {
            methods: Methods::Safe,
            on,
            after: Duration::from_secs(5),
            budget: Budget { share, floor: 0, reserve: RESERVE },
            header: false,
        }
    }
}

/// Requests that may be sent twice, by their methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Methods {
    /// Those that change nothing.
    Safe,
    /// Those that have the effect of one.
    Idempotent,
    /// Every one: the service itself tells repetitions apart.
    All,
}

impl Methods {
    /// True if a method like that may be sent twice.
    pub fn allow(self, safety: Safety) -> bool {
        match self {
            Methods::Safe => safety == Safety::Safe,
            Methods::Idempotent => safety != Safety::Neither,
            Methods::All => true,
        }
    }
}

/// Why a failure that the policy names was not rescued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Refused {
    /// It was sent, and may not be sent twice.
    Method,
    /// Its body was used up.
    Body,
    /// There were too many.
    Budget,
    /// The baseline had no share of traffic, or failed as well.
    Baseline,
}

impl Refused {
    /// All of them, in the order of their numbers.
    pub const ALL: [Refused; 4] = [Refused::Method, Refused::Body, Refused::Budget, Refused::Baseline];

    /// Its name in metrics and status.
    pub const fn name(self) -> &'static str {
        match self {
            Refused::Method => "method",
            Refused::Body => "body",
            Refused::Budget => "budget",
            Refused::Baseline => "baseline",
        }
    }
}

impl Policy {
    /// Whether a request may be rescued, the budget aside.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, case: &Case, baseline_has_share: bool) -> Result<(), Refused> {
        if case.trouble.was_sent() && !self.may_repeat(case.safety, case.route_repeats) {
            return Err(Refused::Method);
        }
        if !case.replayable {
            return Err(Refused::Body);
        }
        if baseline_has_share { Ok(()) } else { Err(Refused::Baseline) }
    }

    /// True for requests that may be sent twice.
    pub fn may_repeat(&self, safety: Safety, route_repeats: bool) -> bool {
        route_repeats || self.methods.allow(safety)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_allow_what_their_name_says() {
        let table = [
            (Methods::Safe, [true, false, false]),
            (Methods::Idempotent, [true, true, false]),
            (Methods::All, [true, true, true]),
        ];
        for (methods, expected) in table {
            assert_eq!(
                [Safety::Safe, Safety::Idempotent, Safety::Neither].map(|safety| methods.allow(safety)),
                expected
            );
        }
    }

    #[test]
    fn refusals_are_numbered_in_their_order_and_named_apart() {
        for (at, refused) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(refused as usize, at);
            assert_eq!(Refused::ALL.iter().filter(|other| other.name() == refused.name()).count(), 1);
        }
    }
}
