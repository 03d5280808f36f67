//! A service's rollout plan.
//!
//! A plan whose last weight is below 100 % is completed by a final 100 %: every rollout ends with all traffic on one
//! pool, and whoever wants to stay at 10 % says so by a pause.

use std::time::Duration;

use super::report::{Problem, Span};
use super::section::Value;
use crate::domain::rollout::plan::{OnInconclusive, Pause, Plan, Step};
use crate::domain::split::Share;

pub(super) const ROLLOUT: &[&str] = &["steps", "on_inconclusive"];
pub(super) const STEP: &[&str] = &["weight", "analyze", "pause"];
pub(super) const ANALYZE: &[&str] = &["dwell", "deadline"];

/// Steps of a plan: more than anyone watches.
const MAX_STEPS: usize = 64;
/// Waits are bounded at a month, so that a rollout cannot be forgotten for longer.
const MAX_WAIT: Duration = Duration::from_secs(30 * 86_400);
const MIN_WAIT: Duration = Duration::from_millis(100);
/// The dwell of an `analyze` that names only a deadline.
const DEFAULT_DWELL: Duration = Duration::from_secs(60);

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

fn steps(value: Value<'_>) -> Option<Vec<Step>> {
    let mut items = value.items(MAX_STEPS, "a list of steps")?.peekable();
    if items.peek().is_none() {
        return value.refuse(plan(value, "the plan has no steps", "leave `steps` out for the default plan"));
    }
    let mut steps = Vec::new();
    let mut reached: Option<(Share, Span)> = None;
    for item in items {
        let Some(step) = step(item) else { continue };
        match (&step, reached) {
            (Step::Weight(share), Some((last, at))) if *share <= last => {
                let message = format!("{share} does not rise above the {last} before it");
                item.input.report(plan(item, message, "weights rise from step to step").related(at, "this weight"));
            }
            (Step::Weight(share), _) => reached = Some((*share, item.node.span)),
            (_, None) => {
                let message = "before the first weight there is nothing to wait for";
                item.input.report(plan(item, message, "begin with a weight such as `weight: 1%`"));
            }
            (_, Some((Share::ALL, at))) => {
                let message = "at 100 % the rollout is over";
                item.input
                    .report(plan(item, message, "put this step before the last weight").related(at, "it ends here"));
            }
            _ => {}
        }
        steps.push(step);
    }
    if reached.is_none_or(|(share, _)| share < Share::ALL) {
        steps.push(Step::Weight(Share::ALL));
    }
    Some(steps)
}

fn plan(value: Value<'_>, message: impl Into<String>, help: &str) -> Problem {
    value.problem("plan", message).help(help)
}

fn step(item: Value<'_>) -> Option<Step> {
    if !item.is_mapping() {
        return item.wrong_type("steps such as `weight: 10%`, `analyze: 2m` or `pause: approve`");
    }
    let what = item.section(STEP)?.only()?;
    match what.name {
        "weight" => weight(what).map(Step::Weight),
        "analyze" => analyze(what),
        _ if what.is("approve") => Some(Step::Pause(Pause::UntilApproved)),
        _ => what.duration(MIN_WAIT..=MAX_WAIT).map(|time| Step::Pause(Pause::For(time))),
    }
}

fn weight(value: Value<'_>) -> Option<Share> {
    let share = value.share()?;
    match share.is_none() {
        true => value.refuse(plan(value, "a weight of 0 % moves nothing", "begin with a small one such as `1%`")),
        false => Some(share),
    }
}

fn analyze(value: Value<'_>) -> Option<Step> {
    if !value.is_mapping() {
        return value.duration(MIN_WAIT..=MAX_WAIT).map(|dwell| Step::Analyze { dwell, deadline: None });
    }
    let section = value.section(ANALYZE)?;
    let dwell = section.or("dwell", DEFAULT_DWELL, |v| v.duration(MIN_WAIT..=MAX_WAIT));
    let deadline = section.read("deadline", |v| v.duration(MIN_WAIT..=MAX_WAIT));
    if deadline.is_some_and(|deadline| deadline < dwell) {
        let at = section.field("deadline").map_or(value.at, |deadline| deadline.node.span);
        let message = format!("the deadline comes before the dwell of {} is over", humantime::format_duration(dwell));
        value.input.report(Problem::new("plan", at, message).help("a deadline is counted from the step's beginning"));
    }
    Some(Step::Analyze { dwell, deadline })
}
