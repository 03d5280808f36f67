//! What goes into the rollout machine and what comes out of it.
//!
//! Kept beside [`super::machine`] so that the vocabulary of the driver can be read without the rules.

use std::time::Duration;

use crate::domain::split::Share;

/// Monotonic milliseconds since the process started; meaningless in another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// The time from `earlier` to here; zero if `earlier` is later.
    pub const fn since(self, earlier: Millis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Wall clock: milliseconds since 1970-01-01 UTC. For people and records, never for decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(pub u64);

/// What happens to a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Begin with the first step.
    Start,
    /// Every worker acknowledged this [`Action::Move`]. One that is not awaited is ignored.
    Applied {
        /// The move's share.
        share: Share,
        /// The move's `promote`.
        promote: bool,
    },
    /// Every worker acknowledged the [`Action::Revert`], and it is journalled.
    Reverted,
    /// A move, revert or journal entry failed: a straggler, a full disk.
    ApplyFailed {
        /// One sentence.
        reason: String,
    },
    /// Time passed.
    Tick,
    /// The judge's word on the current step.
    Judged {
        /// True if the canary was shown to be good enough.
        approved: bool,
        /// The evidence in one sentence.
        sentence: String,
    },
    /// The canary is worse and the guard rolls back.
    Worse {
        /// The evidence in one sentence.
        sentence: String,
    },
    /// The canary is worse, or its breaker opened too often, and the guard holds.
    HoldAdvised {
        /// The evidence in one sentence.
        sentence: String,
    },
    /// The canary's breaker is not closed: its requests go to the baseline, so nothing can be learned of it.
    BreakerOpened {
        /// Why, in one sentence.
        sentence: String,
    },
    /// The canary's breaker is closed.
    BreakerClosed,
    /// Hold here.
    Pause {
        /// Who says so.
        by: String,
    },
    /// Run a held step again, or approve a pause.
    Resume {
        /// Who says so.
        by: String,
    },
    /// Skip what is left and promote.
    Promote {
        /// Who says so.
        by: String,
    },
    /// Give up.
    Abort {
        /// Who says so.
        by: String,
        /// Why; may be empty.
        reason: String,
    },
    /// Back to the baseline.
    Rollback {
        /// Who says so.
        by: String,
        /// Why; may be empty.
        reason: String,
    },
    /// The state was loaded from the journal by a new process.
    Restarted,
}

/// What the driver does, in this order, stopping at the first that fails and reporting it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Forward: journal the intent, publish, await every worker, then report [`Event::Applied`].
    Move {
        /// The canary's share.
        share: Share,
        /// True if the canary becomes the active pool.
        promote: bool,
    },
    /// Publish the canary's last acknowledged share again: a move was halted. Nothing is awaited.
    Restore {
        /// The canary's share.
        share: Share,
    },
    /// Publish all traffic to the baseline at once; when acknowledged and the next
    /// [`Action::Settle`] is durable, report [`Event::Reverted`].
    Revert,
    /// Journal the state as it is now; a caller is told only after it is durable. Past the end of a
    /// rollout nobody listens to a failure any more: the driver then repeats it until it is durable.
    Settle,
    /// Tell people.
    Announce(Notice),
}

/// One thing worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What kind of thing.
    pub kind: Kind,
    /// One sentence.
    pub sentence: String,
}

/// Kinds of notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The first step began.
    Started,
    /// A step began.
    Stepped,
    /// It was halted.
    Held,
    /// A halt was lifted.
    Resumed,
    /// The last move began.
    Promoting,
    /// The way back began.
    RollingBack,
    /// A rollback is published but not complete: a straggler, a full disk.
    Delayed,
    /// It is over.
    Ended,
    /// It goes on in a new process.
    Restarted,
}

impl Event {
    /// The verb of a user's command, or `None` for what is not one.
    pub const fn command(&self) -> Option<&'static str> {
        match self {
            Event::Pause { .. } => Some("pause"),
            Event::Resume { .. } => Some("resume"),
            Event::Promote { .. } => Some("promote"),
            Event::Abort { .. } => Some("abort"),
            Event::Rollback { .. } => Some("roll back"),
            _ => None,
        }
    }
}

/// Why a user's command is not possible now: one sentence, for a 409.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// One sentence.
    pub reason: String,
}
