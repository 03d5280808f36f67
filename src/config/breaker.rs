//! The breakers of pools and endpoints: off, on, or by their own rules.
//!
//! What a pool says is read over what its service says, key by key, so that `green: { breaker: { consecutive: 2 } }` is
//! stricter in this one point and the same in all others.

use std::num::NonZeroU32;
use std::time::Duration;

use super::report::Problem;
use super::section::{Section, Value};
use super::settings::Breaker;
use crate::domain::breaker::{MOST_IN_A_ROW, MOST_TRIALS, Policy, Slow};
use crate::domain::split::Share;

pub(super) const BREAKER: &[&str] = &[
    "window",
    "min_requests",
    "error_rate",
    "consecutive",
    "slow",
    "cool_down",
    "max_cool_down",
    "trials",
    "rollback_after",
    "endpoint",
];
pub(super) const ENDPOINT_BREAKER: &[&str] =
    &["window", "min_requests", "error_rate", "consecutive", "slow", "cool_down", "max_cool_down", "trials"];
pub(super) const SLOW: &[&str] = &["over", "share"];

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Reads `off`, `on` or a mapping over what holds without it.
pub(super) fn breaker(value: Value<'_>, base: &Breaker) -> Option<Breaker> {
    if !value.is_mapping() {
        let on = value.choice(&[("on", true), ("off", false)])?;
        let kept = |rules: &Breaker| Breaker { pool: Some(rules.pool.clone().unwrap_or_default()), ..rules.clone() };
        return Some(if on { kept(base) } else { Breaker::default() });
    }
    let section = value.section(BREAKER)?;
    let endpoint = section.optional("endpoint", |v| endpoint(v, base.endpoint.as_ref()));
    let rollback_after = section.or("rollback_after", base.rollback_after, rollback_after);
    let pool = policy(&section, base.pool.clone().unwrap_or_default())?;
    Some(Breaker { pool: Some(pool), endpoint: endpoint?.unwrap_or_else(|| base.endpoint.clone()), rollback_after })
}

fn endpoint(value: Value<'_>, base: Option<&Policy>) -> Option<Option<Policy>> {
    let base = base.cloned().unwrap_or_default();
    if !value.is_mapping() {
        return value.choice(&[("on", Some(base)), ("off", None)]);
    }
    policy(&value.section(ENDPOINT_BREAKER)?, base).map(Some)
}

fn policy(section: &Section<'_>, base: Policy) -> Option<Policy> {
    let policy = Policy {
        window: section.or("window", base.window, |v| v.duration(Duration::from_secs(1)..=HOUR)),
        min_requests: section.or("min_requests", base.min_requests, |v| v.count(1..=1_000_000)),
        error_rate: section.or("error_rate", base.error_rate, |v| unless_off(v, some_share)),
        consecutive: section.or("consecutive", base.consecutive, |v| unless_off(v, |v| v.count(1..=MOST_IN_A_ROW))),
        slow: section.or("slow", base.slow, |v| slow(v, base.slow)),
        cool_down: section.or("cool_down", base.cool_down, |v| v.duration(100 * MILLISECOND..=HOUR)),
        max_cool_down: section.or("max_cool_down", base.max_cool_down, |v| v.duration(100 * MILLISECOND..=24 * HOUR)),
        trials: section.or("trials", base.trials, |v| v.count(1..=MOST_TRIALS)),
    };
    let value = section.value();
    if policy.cool_down > policy.max_cool_down {
        let at = section.field("cool_down").or(section.field("max_cool_down")).map_or(value.at, |field| field.at);
        let problem = Problem::new("conflict", at, "`cool_down` must not be above `max_cool_down`");
        return value.refuse(problem.help("the longest cool-down is 2m unless it is given"));
    }
    if policy.error_rate.is_none() && policy.consecutive.is_none() && policy.slow.is_none() {
        let problem = Problem::new("conflict", value.at, "nothing would ever open this breaker");
        return value.refuse(problem.help("give `error_rate`, `consecutive` or `slow`, or write `off`"));
    }
    Some(policy)
}

fn slow(value: Value<'_>, base: Option<Slow>) -> Option<Option<Slow>> {
    if value.is("off") {
        return Some(None);
    }
    let section = value.section(SLOW)?;
    let half = Share::from_basis_points(5_000)?;
    let share = section.or("share", base.map_or(half, |base| base.share), some_share);
    let over = |v: Value<'_>| v.duration(MILLISECOND..=10 * MINUTE);
    let over = match base {
        Some(base) => Some(section.or("over", base.over, over)),
        None => section.required("over", "say what is slow: `over: 1s`", over),
    };
    over.map(|over| Some(Slow { over, share }))
}

fn rollback_after(value: Value<'_>) -> Option<Option<NonZeroU32>> {
    unless_off(value, |v| v.count(1..=1_000).and_then(NonZeroU32::new))
}

fn unless_off<'a, T>(value: Value<'a>, read: impl FnOnce(Value<'a>) -> Option<T>) -> Option<Option<T>> {
    if value.is("off") { Some(None) } else { read(value).map(Some) }
}

/// A share above none: with none, the first request would open a breaker.
fn some_share(value: Value<'_>) -> Option<Share> {
    let share = value.share()?;
    if share.is_none() {
        let problem = value.problem("out_of_range", format!("`{}` must be above 0%", value.name));
        return value.refuse(problem);
    }
    Some(share)
}
