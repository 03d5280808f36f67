//! What a service takes in: rate limits, of services and of routes, and the number of requests in flight.

use super::conditions::{conditions, unique_name};
use super::report::{Problem, Span};
use super::routes::methods;
use super::section::{Section, Value};
use super::targets::scheme;
use crate::domain::concurrency::{Adaptive, Policy};
use crate::domain::rate::{By, Limit, MAX_BURST, Pace, Rate, recovery};
use crate::domain::route::{Condition, Match};

pub(super) const RATE_LIMIT: &[&str] = &["name", "per", "rate", "burst", "match", "keys"];
pub(super) const PER: &[&str] = &["header"];
pub(super) const MATCH: &[&str] = &["methods", "scheme", "header", "cookie", "query", "client"];
pub(super) const CONCURRENCY: &[&str] = &["max", "adaptive"];
pub(super) const ADAPTIVE: &[&str] = &["min", "tolerance", "smoothing"];

/// Limits of one service or route: every request walks them.
const MAX_LIMITS: usize = 8;
/// Keys that a limit remembers unless it says otherwise: half a megabyte.
const KEYS: usize = 65_536;
/// Keys of all limits of a file, at eight bytes each: a quarter of a gigabyte.
const MAX_KEYS: usize = 32 * 1024 * 1024;

/// Reads the list of a service's or a route's rate limits.
pub(super) fn rate_limits(value: Value<'_>) -> Option<Vec<Limit>> {
    let mut names: Vec<(String, Span)> = Vec::new();
    Some(value.items(MAX_LIMITS, "a list of rate limits")?.filter_map(|item| one(item, &mut names)).collect())
}

fn one(item: Value<'_>, names: &mut Vec<(String, Span)>) -> Option<Limit> {
    let section = item.section(RATE_LIMIT)?;
    let name = section.required("name", "a limit is called something in metrics: `name: logins`", |value| {
        unique_name(value, names, "two limits of one place have one name")
    });
    let help = "write what is counted apart: `per: client`, `per: { header: x-api-key }` or `per: all`";
    let by = section.required("per", help, by);
    let help = "write how often: `rate: 100/s`";
    let rate: Option<Rate> = section.required("rate", help, |v| v.parsed("a rate such as `100/s`"));
    // As many at once as the rate names: what "100 in a second" means to most.
    let usual = rate.map_or(1, |rate| rate.count().min(MAX_BURST));
    let burst = section.or("burst", usual, |v| v.count(1..=MAX_BURST));
    let matches = section.optional("match", matches).map(Option::unwrap_or_default);
    let keys = section.or("keys", KEYS, |v| v.count(64..=MAX_KEYS));
    let (rate, by) = (rate?, by?);
    if Pace::new(rate, burst).is_none() {
        let takes = humantime::format_duration(recovery(rate, burst));
        let message = format!("a burst of {burst} at {rate} would take {takes} to come back, at most a day is kept");
        let at = section.field("burst").map_or(item.at, |burst| burst.at);
        return item.refuse(Problem::new("out_of_range", at, message).help("allow a smaller burst, or a higher rate"));
    }
    if by != By::All {
        remember(&section, keys)?;
    }
    Some(Limit { name: name?, matches: matches?, by, rate, burst, keys })
}

/// Counts the keys of the whole file.
fn remember(section: &Section<'_>, keys: usize) -> Option<()> {
    let value = section.value();
    let before = value.input.keys.get();
    value.input.keys.set(before.saturating_add(keys));
    if before > MAX_KEYS || before.saturating_add(keys) <= MAX_KEYS {
        return Some(());
    }
    let message = format!("the limits of a file remember at most {MAX_KEYS} keys in all");
    let at = section.field("keys").map_or(value.at, |keys| keys.at);
    value.refuse(Problem::new("out_of_range", at, message).help("each key takes eight bytes; 65536 is the default"))
}

fn by(value: Value<'_>) -> Option<By> {
    if value.is_mapping() {
        let header =
            value.section(PER)?.required("header", "name the header: `{ header: x-api-key }`", Value::token)?;
        return Some(By::Header(header.to_ascii_lowercase()));
    }
    match value.is("header") {
        true => value.wrong_type("the header by name: `{ header: x-api-key }`"),
        false => value.choice(&[("client", By::Client), ("all", By::All)]),
    }
}

/// The conditions of a route but for the path: a path that is written in another way would go past the limit.
fn matches(value: Value<'_>) -> Option<Match> {
    let mut members = value.is_mapping().then(|| value.members("a mapping")).flatten();
    if let Some(path) = members.as_mut().and_then(|members| members.find(|member| member.name == "path")) {
        let message = "a limit does not look at paths: another way to write one would go past it";
        let problem = Problem::new("unsupported", path.at, message);
        return value.refuse(problem.help("put the limit into a route with that path"));
    }
    let section = value.section(MATCH)?;
    let methods = section.optional("methods", methods);
    let scheme = section.optional("scheme", scheme);
    let mut conditions = conditions(&section)?;
    conditions.extend(scheme?.map(Condition::Scheme));
    let matches = Match { path: None, methods: methods?.unwrap_or_default(), conditions };
    if matches.is_everything() {
        return section.says_nothing("`match` has no condition", "leave `match` out to count everything");
    }
    Some(matches)
}

/// Reads how many requests may be in flight: `off`, a number, or a mapping.
pub(super) fn concurrency(value: Value<'_>) -> Option<Option<Policy>> {
    if value.is("off") {
        return Some(None);
    }
    if !value.is_mapping() {
        let max = value.count(1..=1_000_000)?;
        return Some(Some(Policy { max, adaptive: None }));
    }
    let section = value.section(CONCURRENCY)?;
    let help = "write how many requests may be in flight: `max: 1000`";
    let max = section.required("max", help, |v| v.count(1..=1_000_000));
    let adaptive = section.or("adaptive", None, adaptive);
    let max: u32 = max?;
    if let Some(adaptive) = adaptive.filter(|adaptive| adaptive.min > max) {
        let at = section.field("adaptive").map_or(value.at, |adaptive| adaptive.at);
        let message = format!("the limit cannot move between {} and {max}", adaptive.min);
        return value.refuse(Problem::new("conflict", at, message).help("`min` is 20 unless given, and at most `max`"));
    }
    Some(Some(Policy { max, adaptive }))
}

/// `off`, `on`, or a mapping.
fn adaptive(value: Value<'_>) -> Option<Option<Adaptive>> {
    let default = Adaptive::default();
    if !value.is_mapping() {
        return value.choice(&[("off", None), ("on", Some(default))]);
    }
    let section = value.section(ADAPTIVE)?;
    Some(Some(Adaptive {
        min: section.or("min", default.min, |v| v.count(1..=1_000_000)),
        tolerance: section.or("tolerance", default.tolerance, |v| v.number(1.05..=10.0)),
        smoothing: section.or("smoothing", default.smoothing, |v| v.percentage(1.0..=100.0)),
    }))
}
