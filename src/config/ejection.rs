//! Outlier ejection: `off`, or what takes an endpoint out and for how long.
//!
//! What a pool says is read over what its service says, key by key.

use std::num::NonZeroU32;
use std::time::Duration;

use super::report::Problem;
use super::section::{Section, Value};
use crate::domain::outlier::{FailureShare, Latency, Least, Policy, SuccessRate};

pub(super) const EJECTION: &[&str] = &[
    "consecutive_gateway",
    "consecutive_5xx",
    "success_rate",
    "failure_share",
    "latency",
    "interval",
    "window",
    "base_time",
    "max_time",
    "max_ejected",
];
pub(super) const SUCCESS_RATE: &[&str] = &["deviations", "min_requests", "min_endpoints"];
pub(super) const FAILURE_SHARE: &[&str] = &["threshold", "min_requests", "min_endpoints"];
pub(super) const LATENCY: &[&str] = &["factor", "min_requests", "min_endpoints"];

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// Reads `off`, `on` or a mapping over what holds without it.
pub(super) fn ejection(value: Value<'_>, base: &Policy) -> Option<Policy> {
    if !value.is_mapping() {
        // A service that is off has nothing to switch on again but the defaults.
        let on = if base.is_off() { Policy::default() } else { *base };
        return value.choice(&[("on", on), ("off", base.off())]);
    }
    let section = value.section(EJECTION)?;
    let policy = Policy {
        consecutive_gateway: section.or("consecutive_gateway", base.consecutive_gateway, row),
        consecutive_5xx: section.or("consecutive_5xx", base.consecutive_5xx, row),
        success_rate: section.or("success_rate", base.success_rate, |v| success_rate(v, base.success_rate)),
        failure_share: section.or("failure_share", base.failure_share, |v| failure_share(v, base.failure_share)),
        latency: section.or("latency", base.latency, |v| latency(v, base.latency)),
        interval: section.or("interval", base.interval, |v| v.duration(100 * MILLISECOND..=MINUTE)),
        window: section.or("window", base.window, |v| v.duration(100 * MILLISECOND..=10 * MINUTE)),
        base_time: section.or("base_time", base.base_time, |v| v.duration(100 * MILLISECOND..=DAY)),
        max_time: section.or("max_time", base.max_time, |v| v.duration(100 * MILLISECOND..=DAY)),
        max_ejected: section.or("max_ejected", base.max_ejected, Value::share),
    };
    let pairs = [
        ("window", "interval", policy.window < policy.interval),
        ("max_time", "base_time", policy.max_time < policy.base_time),
    ];
    for (longer, shorter, _) in pairs.into_iter().filter(|(.., wrong)| *wrong) {
        let at = section.field(longer).or_else(|| section.field(shorter)).map_or(value.at, |field| field.at);
        let message = format!("`{longer}` must not be shorter than `{shorter}`");
        value.input.report(Problem::new("conflict", at, message).help("each has a default; see config/reference.yaml"));
    }
    Some(policy)
}

fn row(value: Value<'_>) -> Option<Option<NonZeroU32>> {
    if value.is("off") { Some(None) } else { value.count(1..=10_000).map(NonZeroU32::new) }
}

fn success_rate(value: Value<'_>, base: Option<SuccessRate>) -> Option<Option<SuccessRate>> {
    let base = base.unwrap_or_default();
    let Some(section) = rule(value, SUCCESS_RATE)? else { return switched(value, base) };
    let deviations_milli = section.or("deviations", base.deviations_milli, |v| v.number(0.1..=10.0).map(thousandths));
    Some(Some(SuccessRate { deviations_milli, least: least(&section, base.least) }))
}

fn failure_share(value: Value<'_>, base: Option<FailureShare>) -> Option<Option<FailureShare>> {
    let base = base.unwrap_or_default();
    let Some(section) = rule(value, FAILURE_SHARE)? else { return switched(value, base) };
    let threshold = section.or("threshold", base.threshold, |v| match v.share()? {
        share if share.is_none() => {
            let problem = v.problem("out_of_range", "`threshold` must be above 0%");
            v.refuse(problem.help("at 0% every endpoint would have to go"))
        }
        share => Some(share),
    });
    Some(Some(FailureShare { threshold, least: least(&section, base.least) }))
}

fn latency(value: Value<'_>, base: Option<Latency>) -> Option<Option<Latency>> {
    let base = base.unwrap_or_default();
    let Some(section) = rule(value, LATENCY)? else { return switched(value, base) };
    let factor_milli = section.or("factor", base.factor_milli, |v| v.number(1.1..=100.0).map(thousandths));
    Some(Some(Latency { factor_milli, least: least(&section, base.least) }))
}

/// The mapping of a rule; none where a word stands in its place.
fn rule<'a>(value: Value<'a>, keys: &'static [&'static str]) -> Option<Option<Section<'a>>> {
    if value.is_mapping() { value.section(keys).map(Some) } else { Some(None) }
}

fn switched<T: Clone>(value: Value<'_>, on: T) -> Option<Option<T>> {
    value.choice(&[("on", Some(on)), ("off", None)])
}

fn least(section: &Section<'_>, base: Least) -> Least {
    Least {
        requests: section.or("min_requests", base.requests, |v| v.count(1..=1_000_000)),
        endpoints: section.or("min_endpoints", base.endpoints, |v| v.count(2..=256)),
    }
}

fn thousandths(number: f64) -> u32 {
    (number * 1_000.0).round() as u32
}
