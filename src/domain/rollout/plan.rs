//! The plan of a rollout: the steps that move traffic from the baseline to the canary.
//!
//! Invariant: a plan is never empty and its weights never fall; the machine ends every plan at 100 %.

use std::time::Duration;

use crate::domain::split::Share;

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Give the canary this share.
    Weight(Share),
    /// Wait for the judge's approval, at least `dwell`.
    Analyze {
        /// The least time the step takes.
        dwell: Duration,
        /// After this long without a verdict, `Plan::on_inconclusive` applies; `None` waits for ever.
        deadline: Option<Duration>,
    },
    /// Wait for a time or for a person.
    Pause(Pause),
}

/// What ends a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// This much time (or `resume`).
    For(Duration),
    /// Somebody's `resume`.
    UntilApproved,
}

/// What happens when an analysis reaches its deadline without a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnInconclusive {
    /// The rollout stays where it is until somebody decides or evidence comes.
    #[default]
    Hold,
    /// It is rolled back.
    Rollback,
}

/// A whole plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The steps in order.
    pub steps: Vec<Step>,
    /// See [`OnInconclusive`].
    pub on_inconclusive: OnInconclusive,
}

impl Default for Plan {
    /// 1, 5, 25, 50, 100 % with analysis between (Decisions 13).
    fn default() -> Plan {
        let weight = |percent: u16| Step::Weight(Share::from_basis_points(percent * 100).expect("at most 100%"));
        let analyze = || Step::Analyze { dwell: Duration::from_secs(60), deadline: None };
        let steps = [1, 5, 25, 50].into_iter().flat_map(|percent| [weight(percent), analyze()]);
        Plan { steps: steps.chain([weight(100)]).collect(), on_inconclusive: OnInconclusive::Hold }
    }
}
