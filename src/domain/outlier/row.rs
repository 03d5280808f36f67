//! Failures in a row: what ejects an endpoint at once.
//!
//! An attempt leaves one mark: bad as soon as it failed, good only when its answer was complete (or streamed for long
//! enough). A good head alone ends no row, else an endpoint that cuts every answer off would never have one.
//!
//! ```text
//!                    gateway failure      another failure      a whole good answer
//!   gateway row            + 1                  = 0                    = 0
//!   failure row            + 1                  + 1                    = 0
//! ```

use std::num::NonZeroU32;

use super::{Cause, Policy};
use crate::domain::outcome::{Failure, Outcome};

/// What is bad about an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The endpoint could not be reached or did not answer, or says that whoever is behind it could not.
    Gateway,
    /// It answered, and failed.
    Error,
}

/// How many failures came in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Gateway failures.
    pub gateway: u32,
    /// Failures of both kinds.
    pub errors: u32,
}

impl Mark {
    /// `None` for what is not bad, or not the endpoint's doing.
    pub const fn of(outcome: Outcome) -> Option<Mark> {
        match outcome {
            Outcome::Answered { status: 502..=504, .. } => Some(Mark::Gateway),
            Outcome::Answered { status: 500.., .. } => Some(Mark::Error),
            Outcome::Answered { .. } | Outcome::Failed(Failure::NoEndpoint) => None,
            Outcome::Failed(Failure::Malformed) => Some(Mark::Error),
            Outcome::Failed(Failure::Connect | Failure::Reset | Failure::Timeout | Failure::Truncated) => {
                Some(Mark::Gateway)
            }
        }
    }
}

impl Row {
    /// The row after one more attempt; `None` was a good one.
    pub const fn after(self, mark: Option<Mark>) -> Row {
        let errors = self.errors.saturating_add(1);
        match mark {
            None => Row { gateway: 0, errors: 0 },
            Some(Mark::Gateway) => Row { gateway: self.gateway.saturating_add(1), errors },
            Some(Mark::Error) => Row { gateway: 0, errors },
        }
    }

    /// What is long enough to eject, if anything is.
    pub fn ejects(self, policy: &Policy) -> Option<Cause> {
        let reached = |limit: Option<NonZeroU32>, row: u32| limit.is_some_and(|limit| row >= limit.get());
        match () {
            () if reached(policy.consecutive_gateway, self.gateway) => Some(Cause::Gateway),
            () if reached(policy.consecutive_5xx, self.errors) => Some(Cause::Errors),
            () => None,
        }
    }

    /// Why, in words.
    pub fn sentence(self, cause: Cause) -> String {
        match cause {
            Cause::Gateway => format!("{} gateway failures in a row", self.gateway),
            _ => format!("{} failures in a row", self.errors),
        }
    }
}
