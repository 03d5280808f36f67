//! Further attempts: retries, and the rescue of what failed on a canary.

use std::time::Duration;

use super::section::{Value, meant};
use super::service::head_timeout;
use crate::domain::budget::Budget;
use crate::domain::hedge::{self, After};
use crate::domain::rescue::{self, Methods};
use crate::domain::retry::{Backoff, Conditions, Policy, Statuses};
use crate::domain::split::Share;

pub(super) const RETRY: &[&str] = &["attempts", "per_try", "on", "backoff", "budget"];
pub(super) const BACKOFF: &[&str] = &["base", "max"];
pub(super) const BUDGET: &[&str] = &["share", "floor", "in_flight"];
pub(super) const RESCUE: &[&str] = &["methods", "on", "after", "budget", "header"];
pub(super) const HEDGE: &[&str] = &["after", "budget"];
pub(super) const ROUTE_RETRY: &[&str] = &["non_idempotent"];

/// What a condition may name, in the order of the reference.
const CONDITIONS: &[&str] =
    &["connect_error", "reset", "timeout", "refused_stream", "gateway_error", "5xx", "retriable_header"];
/// Conditions in one list: all words, and more statuses than anybody tells apart.
const MAX_CONDITIONS: usize = 64;

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

/// `off`, or how.
pub(super) fn retry(value: Value<'_>) -> Option<Policy> {
    let default = Policy::default();
    if value.is("off") {
        return Some(Policy { attempts: 0, ..default });
    }
    let section = value.section(RETRY)?;
    let (budget, in_flight) = section.or("budget", (default.budget, default.in_flight), |v| retry_budget(v, &default));
    Some(Policy {
        attempts: section.or("attempts", default.attempts, |v| v.count(0..=5)),
        per_try: section.or("per_try", default.per_try, per_try),
        on: section.or("on", default.on, conditions),
        backoff: section.or("backoff", default.backoff, backoff),
        budget,
        in_flight,
    })
}

fn per_try(value: Value<'_>) -> Option<Option<Duration>> {
    if value.is("none") { Some(None) } else { head_timeout(value).map(Some) }
}

fn backoff(value: Value<'_>) -> Option<Backoff> {
    let section = value.section(BACKOFF)?;
    let default = Backoff::default();
    let base = section.or("base", default.base, |v| v.duration(MILLISECOND..=MINUTE));
    let max = section.or("max", default.max, |v| v.duration(MILLISECOND..=MINUTE));
    // Whoever only raises the one does not mean the other's default to cut it down.
    Some(Backoff { base, max: if section.field("max").is_none() { max.max(base) } else { max } })
}

/// A share alone, or with what goes with it.
fn retry_budget(value: Value<'_>, default: &Policy) -> Option<(Budget, u32)> {
    if !value.is_mapping() {
        let share = value.share()?;
        // Who says none means none, not three a second.
        let floor = if share.is_none() { 0 } else { default.budget.floor };
        return Some((Budget { share, floor, ..default.budget }, default.in_flight));
    }
    let section = value.section(BUDGET)?;
    let share = section.or("share", default.budget.share, Value::share);
    let floor = section.or("floor", default.budget.floor, |v| v.count(0..=1_000));
    let in_flight = section.or("in_flight", default.in_flight, |v| v.count(1..=100_000));
    Some((Budget { share, floor, ..default.budget }, in_flight))
}

/// `off`, or what.
pub(super) fn rescue(value: Value<'_>) -> Option<Option<rescue::Policy>> {
    if value.is("off") {
        return Some(None);
    }
    let section = value.section(RESCUE)?;
    let default = rescue::Policy::default();
    let methods = [("safe", Methods::Safe), ("idempotent", Methods::Idempotent), ("all", Methods::All)];
    let share: Share = section.or("budget", default.budget.share, Value::share);
    Some(Some(rescue::Policy {
        methods: section.or("methods", default.methods, |v| v.choice(&methods)),
        on: section.or("on", default.on, conditions),
        after: section.or("after", default.after, head_timeout),
        budget: Budget { share, ..default.budget },
        header: section.or("header", default.header, Value::boolean),
    }))
}

/// `off`, or when.
pub(super) fn hedge(value: Value<'_>) -> Option<Option<hedge::Policy>> {
    if value.is("off") {
        return Some(None);
    }
    let section = value.section(HEDGE)?;
    let default = hedge::Policy::default();
    let share = section.or("budget", default.budget.share, Value::share);
    Some(Some(hedge::Policy {
        after: section.or("after", default.after, after),
        budget: Budget { share, ..default.budget },
    }))
}

/// A duration, or a percentile such as `p95`.
fn after(value: Value<'_>) -> Option<After> {
    let text = value.text("a duration such as `50ms`, or a percentile such as `p95`")?;
    let Some(percentile) = text.trim().strip_prefix('p') else {
        return value.duration(MILLISECOND..=MINUTE).map(After::Fixed);
    };
    match percentile.parse() {
        // Below the median a hedge is the rule; above the 99th there are too few answers to tell.
        Ok(percentile @ 50..=99) => Some(After::Percentile(percentile)),
        _ => {
            let problem =
                value.problem("out_of_range", format!("`{}` is not a percentile that can be measured", value.name));
            value.refuse(problem.help("write `p50` to `p99`"))
        }
    }
}

/// Whether the requests of a route may be sent twice.
pub(super) fn route_repeats(value: Value<'_>) -> Option<bool> {
    Some(value.section(ROUTE_RETRY)?.or("non_idempotent", false, Value::boolean))
}

fn conditions(value: Value<'_>) -> Option<Conditions> {
    let items = value.one_or_more(MAX_CONDITIONS, "a condition such as `connect_error`, or a list of them")?;
    let count = items.len();
    let mut on = Conditions::default();
    let read = items.into_iter().filter_map(|item| condition(item, &mut on)).count();
    (read == count).then_some(on)
}

fn condition(value: Value<'_>, on: &mut Conditions) -> Option<()> {
    let text = value.text("a condition such as `connect_error`, or a status")?;
    let (least, most) = Statuses::RANGE;
    let (from, to) = match text.trim() {
        "connect_error" => return set(&mut on.connect_error),
        "reset" => return set(&mut on.reset),
        "timeout" => return set(&mut on.timeout),
        "refused_stream" => return set(&mut on.refused_stream),
        "retriable_header" => return set(&mut on.retriable_header),
        "gateway_error" => (502, 504),
        "5xx" => (500, 599),
        status if !status.is_empty() && status.bytes().all(|byte| byte.is_ascii_digit()) => {
            let status = value.count(least..=most)?;
            (status, status)
        }
        other => {
            let problem = value.problem("unknown_value", format!("`{}` does not know this condition", value.name));
            return value
                .refuse(problem.help(format!("{}, or a status from {least} to {most}", meant(other, CONDITIONS))));
        }
    };
    on.statuses = on.statuses.and(Statuses::from_to(from, to));
    Some(())
}

fn set(flag: &mut bool) -> Option<()> {
    *flag = true;
    Some(())
}
