//! The plan of a rollout: the steps that move traffic from the baseline to the canary.
//!
//! Invariant: a plan from [`Plan::new`] is not empty, begins with a weight, and its weights rise up to 100 %.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::domain::split::Share;

/// Steps of a plan: more than anyone watches.
pub const MAX_STEPS: usize = 64;
/// Waits are bounded at a month, so that a rollout cannot be forgotten for longer.
pub const WAIT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(30 * 86_400);
/// The dwell of an analysis that names only a deadline.
pub const DEFAULT_DWELL: Duration = Duration::from_secs(60);

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

/// What is wrong with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanProblem {
    /// There are no steps.
    #[error("the plan has no steps")]
    NoSteps,
    /// There are more than [`MAX_STEPS`].
    #[error("a plan has at most {MAX_STEPS} steps, not {0}")]
    TooLong(usize),
    /// A weight of nothing.
    #[error("a weight of 0 % moves nothing")]
    NoWeight,
    /// A weight that does not rise.
    #[error("{share} does not rise above the {last} before it")]
    NotRising {
        /// The weight.
        share: Share,
        /// The one before it.
        last: Share,
        /// That one's step.
        at: usize,
    },
    /// A wait before the first weight.
    #[error("before the first weight there is nothing to wait for")]
    NothingToWaitFor,
    /// A wait after 100 %.
    #[error("at 100 % the rollout is over")]
    Over {
        /// The step that ends it.
        at: usize,
    },
    /// A deadline that can never matter.
    #[error("the deadline comes before the dwell of {} is over", humantime::format_duration(*.dwell))]
    DeadlineTooSoon {
        /// The dwell.
        dwell: Duration,
    },
}

impl Plan {
    /// A plan of these steps; a last weight below 100 % is followed by one of 100 %, since every rollout ends with
    /// all traffic on one pool, and whoever wants to stay at 10 % says so by a pause.
    ///
    /// # Errors
    /// The first thing that is wrong, with the index of its step.
    pub fn new(mut steps: Vec<Step>, on_inconclusive: OnInconclusive) -> Result<Plan, (usize, PlanProblem)> {
        if let Some(problem) = Plan::problems(&steps).into_iter().next() {
            return Err(problem);
        }
        if steps.iter().all(|step| *step != Step::Weight(Share::ALL)) {
            steps.push(Step::Weight(Share::ALL));
        }
        Ok(Plan { steps, on_inconclusive })
    }

    /// Everything that is wrong with these steps, each with the index of its step. Waits are taken as they are:
    /// whoever reads them holds them to [`WAIT`].
    pub fn problems(steps: &[Step]) -> Vec<(usize, PlanProblem)> {
        let mut problems = Vec::new();
        match steps.len() {
            0 => problems.push((0, PlanProblem::NoSteps)),
            1..=MAX_STEPS => {}
            more => problems.push((MAX_STEPS, PlanProblem::TooLong(more))),
        }
        let mut reached: Option<(Share, usize)> = None;
        for (index, step) in steps.iter().enumerate() {
            let problem = match (step, reached) {
                (Step::Weight(share), _) if share.is_none() => Some(PlanProblem::NoWeight),
                (Step::Weight(share), Some((last, at))) if *share <= last => {
                    Some(PlanProblem::NotRising { share: *share, last, at })
                }
                (Step::Weight(share), _) => {
                    reached = Some((*share, index));
                    None
                }
                (_, None) => Some(PlanProblem::NothingToWaitFor),
                (_, Some((Share::ALL, at))) => Some(PlanProblem::Over { at }),
                _ => None,
            };
            problems.extend(problem.map(|problem| (index, problem)));
            if let Step::Analyze { dwell, deadline: Some(deadline) } = step
                && deadline < dwell
            {
                problems.push((index, PlanProblem::DeadlineTooSoon { dwell: *dwell }));
            }
        }
        problems
    }
}

impl Default for Plan {
    /// 1, 5, 25, 50, 100 % with analysis between (Decisions 13).
    fn default() -> Plan {
        let weight = |percent: u16| Step::Weight(Share::from_basis_points(percent * 100).expect("at most 100%"));
        let analyze = || Step::Analyze { dwell: DEFAULT_DWELL, deadline: None };
        let steps = [1, 5, 25, 50].into_iter().flat_map(|percent| [weight(percent), analyze()]);
        Plan { steps: steps.chain([weight(100)]).collect(), on_inconclusive: OnInconclusive::Hold }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(percent: u16) -> Step {
        Step::Weight(Share::from_basis_points(percent * 100).unwrap())
    }

    fn analyze(dwell: u64, deadline: Option<u64>) -> Step {
        Step::Analyze { dwell: Duration::from_secs(dwell), deadline: deadline.map(Duration::from_secs) }
    }

    #[test]
    fn a_plan_is_completed() {
        let plan = |steps: &[Step]| Plan::new(steps.to_vec(), OnInconclusive::Hold).unwrap().steps;
        assert_eq!(plan(&[weight(5), analyze(60, Some(60))]), [weight(5), analyze(60, Some(60)), weight(100)]);
        assert_eq!(plan(&[weight(5), weight(100)]), [weight(5), weight(100)]);
        assert_eq!(plan(&Plan::default().steps), Plan::default().steps);
    }

    #[test]
    fn everything_wrong_is_found_at_its_step() {
        let say = |steps: &[Step]| -> Vec<(usize, String)> {
            Plan::problems(steps).into_iter().map(|(at, problem)| (at, problem.to_string())).collect()
        };
        type Found = (usize, &'static str);
        let check = |steps: &[Step], expected: &[Found]| {
            let expected: Vec<_> = expected.iter().map(|(at, text)| (*at, (*text).to_owned())).collect();
            assert_eq!(say(steps), expected);
            assert!(Plan::new(steps.to_vec(), OnInconclusive::Hold).is_err());
        };
        check(&[], &[(0, "the plan has no steps")]);
        check(&[weight(0), weight(1)], &[(0, "a weight of 0 % moves nothing")]);
        let (equal, falls) = ("9% does not rise above the 9% before it", "5% does not rise above the 9% before it");
        check(&[weight(9), weight(9), weight(5)], &[(1, equal), (2, falls)]);
        check(&[analyze(60, None), weight(5)], &[(0, "before the first weight there is nothing to wait for")]);
        let (over, soon) = ("at 100 % the rollout is over", "the deadline comes before the dwell of 1m is over");
        check(&[weight(100), analyze(60, Some(30))], &[(1, over), (1, soon)]);
        let long: Vec<Step> = (1..=65).map(weight).collect();
        assert_eq!(Plan::problems(&long), [(MAX_STEPS, PlanProblem::TooLong(65))]);
        assert_eq!(Plan::problems(&long[..MAX_STEPS]), []);
    }
}
