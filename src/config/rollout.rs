//! A service's rollout plan: read step by step, judged as a whole by [`Plan::problems`].

use super::report::{Problem, Span};
use super::section::Value;
use super::yaml::Kind;
use crate::domain::rollout::plan::{DEFAULT_DWELL, MAX_STEPS, OnInconclusive, Pause, Plan, PlanProblem, Step, WAIT};

pub(super) const ROLLOUT: &[&str] = &["steps", "on_inconclusive"];
pub(super) const STEP: &[&str] = &["weight", "analyze", "pause"];
pub(super) const ANALYZE: &[&str] = &["dwell", "deadline"];

/// Reads a plan.
pub(super) fn rollout(value: Value<'_>) -> Option<Plan> {
    let section = value.section(ROLLOUT)?;
    let default = Plan::default();
    let words = [("hold", OnInconclusive::Hold), ("rollback", OnInconclusive::Rollback)];
    Some(Plan {
        steps: section.or("steps", default.steps, steps),
        on_inconclusive: section.or("on_inconclusive", default.on_inconclusive, |v| v.choice(&words)),
    })
}

/// A step and where it stands: as a whole, and its deadline if it has one.
struct Placed {
    step: Step,
    at: Span,
    deadline: Span,
}

fn steps(value: Value<'_>) -> Option<Vec<Step>> {
    let placed: Vec<Placed> = value.items(MAX_STEPS, "a list of steps")?.filter_map(step).collect();
    let is_empty = matches!(&value.node.kind, Kind::List(items) if items.is_empty());
    let steps: Vec<Step> = placed.iter().map(|placed| placed.step.clone()).collect();
    // Steps that could not be read are problems already, and leave no plan to judge if all of them are.
    let problems = if steps.is_empty() && !is_empty { Vec::new() } else { Plan::problems(&steps) };
    problems.into_iter().for_each(|(index, problem)| value.input.report(report(value, &placed, index, problem)));
    Plan::new(steps, OnInconclusive::default()).ok().map(|plan| plan.steps)
}

fn report(value: Value<'_>, placed: &[Placed], index: usize, problem: PlanProblem) -> Problem {
    let at = |index: usize| placed.get(index).map_or(value.node.span, |placed| placed.at);
    let (span, help) = match problem {
        PlanProblem::NoSteps | PlanProblem::TooLong(_) => (value.node.span, "leave `steps` out for the default plan"),
        PlanProblem::NoWeight => (at(index), "begin with a small one such as `1%`"),
        PlanProblem::NotRising { .. } => (at(index), "weights rise from step to step"),
        PlanProblem::NothingToWaitFor => (at(index), "begin with a weight such as `weight: 1%`"),
        PlanProblem::Over { .. } => (at(index), "put this step before the last weight"),
        PlanProblem::DeadlineTooSoon { .. } => {
            (placed[index].deadline, "a deadline is counted from the step's beginning")
        }
    };
    let told = Problem::new("plan", span, problem.to_string()).help(help);
    match problem {
        PlanProblem::NotRising { at: last, .. } => told.related(at(last), "this weight"),
        PlanProblem::Over { at: last } => told.related(at(last), "it ends here"),
        _ => told,
    }
}

fn step(item: Value<'_>) -> Option<Placed> {
    if !item.is_mapping() {
        return item.wrong_type("steps such as `weight: 10%`, `analyze: 2m` or `pause: approve`");
    }
    let what = item.section(STEP)?.only()?;
    let at = item.node.span;
    let step = match what.name {
        "weight" => what.share().map(Step::Weight),
        "analyze" => return analyze(what).map(|(step, deadline)| Placed { step, at, deadline }),
        _ if what.is("approve") => Some(Step::Pause(Pause::UntilApproved)),
        _ => what.duration(WAIT).map(|time| Step::Pause(Pause::For(time))),
    };
    step.map(|step| Placed { step, at, deadline: at })
}

/// An analysis, and where its deadline stands.
fn analyze(value: Value<'_>) -> Option<(Step, Span)> {
    if !value.is_mapping() {
        return value.duration(WAIT).map(|dwell| (Step::Analyze { dwell, deadline: None }, value.at));
    }
    let section = value.section(ANALYZE)?;
    let dwell = section.or("dwell", DEFAULT_DWELL, |v| v.duration(WAIT));
    let deadline = section.read("deadline", |v| v.duration(WAIT));
    let at = section.field("deadline").map_or(value.at, |deadline| deadline.node.span);
    Some((Step::Analyze { dwell, deadline }, at))
}
