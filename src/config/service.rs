//! One service: what it claims, its pools, and its policies.

use std::collections::HashMap;
use std::time::Duration;

use super::balance::{balance, endpoint};
use super::breaker::breaker;
use super::edits::edits;
use super::ejection::ejection;
use super::file::most;
use super::health::health;
use super::intake::{concurrency, rate_limits};
use super::limits::limits;
use super::overrides::overrides;
use super::report::{Problem, Span};
use super::retry::{hedge, rescue, retry};
use super::rollout::rollout;
use super::routes::routes;
use super::section::{Value, meant};
use super::settings::{Breaker, Connections, Endpoint, Guard, Limits, Pool, Service, SplitBy, Sticky, Timeouts};
use super::upstream;
use super::yaml::Kind;
use crate::domain::analysis::Policy;
use crate::domain::balance::Balance;
use crate::domain::outlier;
use crate::domain::route::{self, HostPattern, Variable};

pub(super) const SERVICE: &[&str] = &[
    "hosts",
    "paths",
    "pools",
    "active",
    "split_by",
    "sticky",
    "routes",
    "overrides",
    "health",
    "ejection",
    "balance",
    "timeouts",
    "connections",
    "retry",
    "hedge",
    "breaker",
    "limits",
    "rescue",
    "replay",
    "rate_limits",
    "concurrency",
    "guard",
    "analysis",
    "rollout",
];
pub(super) const POOL: &[&str] = &[
    "endpoints",
    "balance",
    "resolve",
    "tls",
    "protocol",
    "proxy_protocol",
    "version",
    "reports",
    "ejection",
    "request_headers",
    "response_headers",
    "breaker",
    "limits",
];
pub(super) const SPLIT_BY: &[&str] = &["header", "cookie"];
pub(super) const STICKY: &[&str] = &["cookie", "max_age"];
pub(super) const TIMEOUTS: &[&str] = &["connect", "head", "request", "idle"];
pub(super) const CONNECTIONS: &[&str] = &["max", "max_idle", "idle"];
pub(super) const ANALYSIS: &[&str] = &["alpha", "beta", "tolerate", "approve", "min_requests"];
pub(super) const TOLERATE: &[&str] = &["errors_odds", "latency"];
pub(super) const APPROVE: &[&str] = &["errors_odds", "latency", "error_rate"];

/// Hosts and paths of one service, pools of a service, endpoints of a pool: all are walked by someone at some time.
const MAX_HOSTS: usize = 64;
const MAX_PATHS: usize = 64;
const MAX_POOLS: usize = 16;
const MAX_ENDPOINTS: usize = 256;
/// Of a request's body: what fits one of a worker's recycled buffers, so that a burst of uploads leaves nothing behind.
const MAX_REPLAY: usize = 128 * 1024;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Who claims a host (or any) and a path, and where.
pub(super) type Claims = HashMap<(Option<HostPattern>, String), (String, Span)>;

/// Reads a service; its key is its name.
pub(super) fn service(value: Value<'_>, claims: &mut Claims) -> Option<Service> {
    let name = value.own_name();
    let section = value.section(SERVICE)?;
    let hosts = section.or("hosts", Vec::new(), hosts);
    let paths = section.or("paths", Vec::new(), paths);
    // Hosts or paths that could not be read would claim everything, and blame others for it.
    let readable = |key, empty: bool| section.field(key).is_none() || !empty;
    if readable("hosts", hosts.is_empty()) && readable("paths", paths.is_empty()) {
        claim(value, &hosts, &paths, claims);
    }
    let help = "a service sends its requests to pools: `pools: { blue: http://127.0.0.1:3001 }`";
    // What pools say is read over it.
    let (by_default, ejects_by_default) = (Balance::default(), outlier::Policy::default());
    let balance = section.or("balance", by_default.clone(), |v| balance(v, &by_default));
    let ejection = section.or("ejection", ejects_by_default, |v| ejection(v, &ejects_by_default));
    let breaker = section.or("breaker", Breaker::default(), |v| breaker(v, &Breaker::default()));
    let limits = section.or("limits", Limits::default(), |v| limits(v, &Limits::default()));
    let common = Common { balance, breaker, limits, ejection };
    let pools = section.required("pools", help, |v| pools(v, &common)).unwrap_or_default();
    let default = Service::new(name.unwrap_or_default(), pools);
    let service = Service {
        hosts: hosts.into_iter().map(|(host, _)| host).collect(),
        paths: paths.into_iter().map(|(path, _)| path).collect(),
        active: section.or("active", default.active, |v| pool_index(v, &default.pools)),
        split_by: section.or("split_by", default.split_by, split_by),
        sticky: section.or("sticky", default.sticky, sticky),
        routes: section.or("routes", default.routes, |v| routes(v, &default.pools)),
        overrides: section.or("overrides", default.overrides, |v| overrides(v, &default.pools)),
        health: section.or("health", default.health, health),
        ejection: common.ejection,
        balance: common.balance,
        timeouts: section.or("timeouts", default.timeouts, timeouts),
        connections: section.or("connections", default.connections, connections),
        retry: section.or("retry", default.retry, retry),
        hedge: section.or("hedge", default.hedge, hedge),
        breaker: common.breaker,
        limits: common.limits,
        rescue: section.or("rescue", default.rescue, rescue),
        replay: section.or("replay", default.replay, |v| v.size(0..=MAX_REPLAY)),
        rate_limits: section.or("rate_limits", default.rate_limits, rate_limits),
        concurrency: section.or("concurrency", default.concurrency, concurrency),
        guard: section.or("guard", default.guard, guard),
        analysis: section.or("analysis", default.analysis, analysis),
        rollout: section.or("rollout", default.rollout, rollout),
        name: default.name,
        pools: default.pools,
    };
    if let (Some(_), true, Some(at)) = (&service.sticky, service.split_by != SplitBy::Request, section.field("sticky"))
    {
        let other = section.field("split_by").map_or(at.at, |split_by| split_by.at);
        let problem =
            Problem::new("conflict", at.at, "`sticky` and `split_by` both decide what keeps a client on its side");
        value.input.report(problem.related(other, "decided here").help("leave one of them out"));
    }
    if let (Some(_), Some(at)) = (&service.health.version, section.field("health"))
        && !service.pools.iter().any(|pool| pool.expected_version().is_some())
    {
        let problem = Problem::new("conflict", at.at, "`health.version` is compared with the pools', and none has one");
        value.input.report(problem.help("give the pools a `version`, or say by `reports` what their endpoints report"));
    }
    Some(service)
}

/// Takes the service's hosts and paths, or reports the first that another service has.
fn claim(value: Value<'_>, hosts: &[(HostPattern, Span)], paths: &[(String, Span)], claims: &mut Claims) {
    let any_host = [(None, value.at)];
    let hosts: Vec<_> = hosts.iter().map(|(host, at)| (Some(host.clone()), *at)).collect();
    let every_path = [("/".to_owned(), None)];
    let paths: Vec<_> = paths.iter().map(|(path, at)| (path.clone(), Some(*at))).collect();
    for (host, host_at) in if hosts.is_empty() { &any_host[..] } else { &hosts } {
        for (path, path_at) in if paths.is_empty() { &every_path[..] } else { &paths } {
            let at = path_at.unwrap_or(*host_at);
            let place = (host.clone(), path.clone());
            if let Some((first, first_at)) = claims.get(&place) {
                let host = host.as_ref().map_or("any host".to_owned(), HostPattern::to_string);
                let message = format!("services `{first}` and `{}` both claim {host} {path}", value.name);
                let problem =
                    Problem::new("conflict", at, message).label("claimed again").related(*first_at, "claimed first");
                return value.input.report(problem.help("tell them apart by `hosts` or `paths`"));
            }
            claims.insert(place, (value.name.to_owned(), at));
        }
    }
}

/// Reads each item and reports those that were there before.
fn unique<T, K: PartialEq>(
    items: Vec<Value<'_>>,
    read: impl Fn(Value<'_>) -> Option<T>,
    key: impl Fn(&T) -> &K,
) -> Vec<(T, Span)> {
    let mut kept: Vec<(T, Span)> = Vec::new();
    for item in items {
        let Some(setting) = read(item) else { continue };
        match kept.iter().find(|(known, _)| key(known) == key(&setting)) {
            Some((_, first)) => {
                let problem = item.problem("duplicate", format!("this is listed twice in `{}`", item.name));
                item.input.report(problem.label("again here").related(*first, "first here"));
            }
            None => kept.push((setting, item.node.span)),
        }
    }
    kept
}

fn hosts(value: Value<'_>) -> Option<Vec<(HostPattern, Span)>> {
    let expected = "a host such as `shop.example.com`, or a list of them";
    let host = |item: Value<'_>| item.parsed("a host such as `shop.example.com`");
    Some(unique(value.one_or_more(MAX_HOSTS, expected)?, host, |host| host))
}

fn paths(value: Value<'_>) -> Option<Vec<(String, Span)>> {
    let expected = "a path such as `/api`, or a list of them";
    Some(unique(value.one_or_more(MAX_PATHS, expected)?, plain_path, |path| path))
}

/// A path to match by, or one that stands for it: there must be but one way to read it.
pub(super) fn plain_path(value: Value<'_>) -> Option<String> {
    let text = path(value, &['?', '#'])?;
    match route::path::pattern(&text) {
        Ok(path) => Some(path),
        Err(error) => {
            let message = format!("`{}` needs a path that can be read in one way only", value.name);
            value.refuse(value.problem("bad_value", message).help(error.to_string()))
        }
    }
}

/// A path in the characters that a request line can hold, without those in `without`.
pub(super) fn path(value: Value<'_>, without: &[char]) -> Option<String> {
    let expected = "a path such as `/api`";
    let text = value.text(expected)?;
    let help = match () {
        () if !text.starts_with('/') => "a path begins with `/`",
        () if text.contains(without) => "leave out `?`, `#` and what follows",
        () if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            "spaces and other letters are percent-encoded: `%20`"
        }
        () if text.len() > 1024 => "a path is at most 1024 bytes long",
        () => return Some(text),
    };
    value.refuse(value.problem("bad_value", format!("`{}` needs {expected}", value.name)).help(help))
}

/// What a service says for all its pools, and each pool may say otherwise.
struct Common {
    balance: Balance,
    breaker: Breaker,
    limits: Limits,
    ejection: outlier::Policy,
}

impl Common {
    /// A pool that says nothing else.
    fn pool(&self, name: &str, endpoints: Vec<Endpoint>) -> Pool {
        let (breaker, limits, ejection) = (self.breaker.clone(), self.limits.clone(), self.ejection);
        Pool { breaker, limits, ejection, ..Pool::new(name, endpoints) }
    }
}

fn pools(value: Value<'_>, common: &Common) -> Option<Vec<Pool>> {
    let members: Vec<_> = value.members("a mapping of pools")?.collect();
    value.at_most(members.len(), MAX_POOLS)?;
    if members.is_empty() {
        let problem = value.problem("missing_key", "a service needs at least one pool");
        return value.refuse(problem.help("write `blue: http://127.0.0.1:3001`"));
    }
    // A faulty pool is kept by name, so that whoever refers to it is not blamed.
    let pool = |member: Value<'_>| {
        member.own_name();
        pool(member, common).unwrap_or_else(|| Pool::new(member.name, [] as [Endpoint; 0]))
    };
    Some(members.into_iter().map(pool).collect())
}

/// `{ endpoints: ... }`, or the endpoints themselves.
fn pool(value: Value<'_>, common: &Common) -> Option<Pool> {
    if let Kind::Scalar(_) | Kind::List(_) = value.node.kind {
        return upstream::of_one_scheme(value, endpoints(value)?).map(|endpoints| common.pool(value.name, endpoints));
    }
    let section = value.section(POOL)?;
    let version = section.field("version").map(|value| version(value).unwrap_or_default());
    let missing = |variable| match variable {
        Variable::Version if version.is_none() => Some("give the pool a `version`"),
        _ => None,
    };
    let request_headers = section.read("request_headers", |v| edits(v, &missing)).unwrap_or_default();
    let response_headers = section.read("response_headers", |v| edits(v, &missing)).unwrap_or_default();
    let balance = section.read("balance", |v| balance(v, &common.balance));
    let reports = section.read("reports", self::version);
    let ejection = section.or("ejection", common.ejection, |v| ejection(v, &common.ejection));
    let breaker = section.or("breaker", common.breaker.clone(), |v| breaker(v, &common.breaker));
    let limits = section.or("limits", common.limits.clone(), |v| limits(v, &common.limits));
    let endpoints = section.required("endpoints", "write `endpoints: [http://127.0.0.1:3001]`", endpoints);
    let pool = upstream::pool(&section, endpoints)?;
    Some(Pool { balance, version, reports, ejection, request_headers, response_headers, breaker, limits, ..pool })
}

/// What runs in a pool, in the characters of a header's value.
fn version(value: Value<'_>) -> Option<String> {
    let text = value.text("a text such as `2.1.0`")?.trim().to_owned();
    if text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(text);
    }
    let problem = value.problem("bad_value", "this cannot be a version");
    value.refuse(problem.help("it is up to 128 visible ASCII characters without spaces"))
}

fn endpoints(value: Value<'_>) -> Option<Vec<(Endpoint, Span)>> {
    let expected = "an address such as `http://10.0.0.1:8080`, or a list of them";
    let items = if value.is_mapping() { vec![value] } else { value.one_or_more(MAX_ENDPOINTS, expected)? };
    Some(unique(items, endpoint, |endpoint| &endpoint.address))
}

/// The index of the pool that a value names.
pub(super) fn pool_index(value: Value<'_>, pools: &[Pool]) -> Option<usize> {
    let name = value.text("the name of a pool")?;
    let known: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    known.iter().position(|pool| *pool == name).or_else(|| {
        // Without pools that is the problem, and it is reported.
        if known.is_empty() {
            None
        } else {
            value.refuse(value.problem("unknown_pool", "the service has no such pool").help(meant(&name, &known)))
        }
    })
}

fn split_by(value: Value<'_>) -> Option<SplitBy> {
    if !value.is_mapping() {
        return match value.is("header") || value.is("cookie") {
            true => value.wrong_type("the header or cookie by name: `{ header: x-user }`"),
            false => value.choice(&[("request", SplitBy::Request), ("client", SplitBy::Client)]),
        };
    }
    let key = value.section(SPLIT_BY)?.only()?;
    let name = key.token()?;
    Some(if key.name == "header" { SplitBy::Header(name.to_ascii_lowercase()) } else { SplitBy::Cookie(name) })
}

fn sticky(value: Value<'_>) -> Option<Option<Sticky>> {
    if value.is("off") {
        return Some(None);
    }
    if !value.is_mapping() {
        return Some(Some(Sticky { cookie: value.token()?, max_age: None }));
    }
    let section = value.section(STICKY)?;
    // 400 days is where browsers cut it (RFC 6265bis section 5.5).
    let max_age = section.read("max_age", |v| v.duration(SECOND..=400 * DAY));
    let cookie = section.required("cookie", "write `cookie: teal_shop`", Value::token)?;
    Some(Some(Sticky { cookie, max_age }))
}

fn guard(value: Value<'_>) -> Option<Guard> {
    let words =
        [("rollback", Guard::Rollback), ("hold", Guard::Hold), ("observe", Guard::Observe), ("off", Guard::Off)];
    value.choice(&words)
}

fn timeouts(value: Value<'_>) -> Option<Timeouts> {
    let section = value.section(TIMEOUTS)?;
    let default = Timeouts::default();
    Some(Timeouts {
        connect: section.or("connect", default.connect, |v| v.duration(10 * MILLISECOND..=MINUTE)),
        head: section.or("head", default.head, head_timeout),
        request: section.or("request", default.request, request_timeout),
        idle: section.or("idle", default.idle, idle_timeout),
    })
}

/// From dispatch to the response head.
pub(super) fn head_timeout(value: Value<'_>) -> Option<Duration> {
    value.duration(10 * MILLISECOND..=HOUR)
}

/// From dispatch to the end of the response; `none` lets streams live.
pub(super) fn request_timeout(value: Value<'_>) -> Option<Option<Duration>> {
    if value.is("none") { Some(None) } else { value.duration(10 * MILLISECOND..=DAY).map(Some) }
}

/// Without a byte either way.
pub(super) fn idle_timeout(value: Value<'_>) -> Option<Duration> {
    value.duration(100 * MILLISECOND..=DAY)
}

fn connections(value: Value<'_>) -> Option<Connections> {
    let section = value.section(CONNECTIONS)?;
    let default = Connections::default();
    Some(Connections {
        max: section.or("max", default.max, |v| most(v, "none")),
        max_idle: section.or("max_idle", default.max_idle, |v| v.count(0..=10_000)),
        idle: section.or("idle", default.idle, |v| v.duration(100 * MILLISECOND..=HOUR)),
        max_requests: None,
    })
}

fn analysis(value: Value<'_>) -> Option<Policy> {
    let section = value.section(ANALYSIS)?;
    let mut policy = Policy::default();
    policy.alpha = section.or("alpha", policy.alpha, |v| v.percentage(0.0001..=50.0));
    policy.beta = section.or("beta", policy.beta, |v| v.percentage(0.0001..=50.0));
    policy.min_requests = section.or("min_requests", policy.min_requests, |v| v.count(1..=100_000_000));
    if let Some(tolerate) = section.read("tolerate", |v| v.section(TOLERATE)) {
        policy.tolerate_errors_odds =
            tolerate.or("errors_odds", policy.tolerate_errors_odds, |v| v.number(1.0..=100.0));
        policy.tolerate_latency = tolerate.or("latency", policy.tolerate_latency, |v| v.percentage(0.0..=1000.0));
    }
    if let Some(approve) = section.read("approve", |v| v.section(APPROVE)) {
        policy.approve_errors_odds = approve.or("errors_odds", policy.approve_errors_odds, |v| v.number(1.01..=100.0));
        policy.approve_latency = approve.or("latency", policy.approve_latency, |v| v.percentage(0.1..=1000.0));
        policy.approve_error_rate =
            approve.or("error_rate", policy.approve_error_rate, |v| v.percentage(0.0001..=50.0));
    }
    let margins = [
        ("errors_odds", policy.tolerate_errors_odds, policy.approve_errors_odds),
        ("latency", policy.tolerate_latency, policy.approve_latency),
    ];
    for (name, _, _) in margins.into_iter().filter(|(_, tolerated, ruled_out)| tolerated >= ruled_out) {
        let message =
            format!("`approve.{name}` must be above `tolerate.{name}`: what is tolerated cannot be ruled out");
        let help = "each has a default; see config/reference.yaml";
        value.input.report(Problem::new("conflict", value.at, message).help(help));
    }
    Some(policy)
}
