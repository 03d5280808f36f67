//! The routes of a service: which requests, and what happens to them.

use super::conditions::{conditions, pattern, unique_name};
use super::edits::edits;
use super::intake::rate_limits;
use super::report::{Problem, Span};
use super::retry::route_repeats;
use super::scalar::is_token;
use super::section::{Section, Value};
use super::service::{head_timeout, idle_timeout, plain_path, request_timeout};
use super::settings::Pool;
use super::targets::{redirect, rewrite, scheme};
use crate::domain::route::{
    Action, Condition, Limits, Location, Match, PathEdit, PathTest, Redirect, Route, Routes, Scheme, Timeouts, Variable,
};

pub(super) const ROUTE: &[&str] = &[
    "name",
    "match",
    "redirect",
    "rewrite",
    "request_headers",
    "response_headers",
    "limits",
    "timeouts",
    "rate_limits",
    "upgrades",
    "retry",
];
pub(super) const MATCH: &[&str] = &["path", "methods", "scheme", "header", "cookie", "query", "client"];
pub(super) const PATH: &[&str] = &["exact", "prefix", "regex"];
pub(super) const LIMITS: &[&str] = &["body", "head", "headers"];
pub(super) const TIMEOUTS: &[&str] = &["head", "request", "idle"];

/// Routes of one service: a request may walk all of them.
const MAX_ROUTES: usize = 128;
const MAX_METHODS: usize = 16;
const MAX_UPGRADES: usize = 16;
/// Bytes of the largest body that is worth a limit: a tebibyte, where memory can count so far.
const MAX_BODY: usize = if usize::BITS > 32 { (usize::MAX >> 24) + 1 } else { usize::MAX };

/// Reads the list of routes.
pub(super) fn routes(value: Value<'_>, pools: &[Pool]) -> Option<Routes> {
    let mut names: Vec<(String, Span)> = Vec::new();
    let mut routes: Vec<Route> = Vec::new();
    let mut end: Option<(String, Span)> = None;
    for item in value.items(MAX_ROUTES, "a list of routes")? {
        if let Some((name, at)) = &end {
            let problem = item.problem("conflict", format!("this route is never reached: `{name}` takes everything"));
            item.input.report(problem.related(*at, "takes everything").help("put it before that one"));
        }
        let Some(route) = one(item, pools, &mut names) else { continue };
        if route.matches.is_everything() && end.is_none() {
            end = Some((route.name.clone(), item.node.span));
        }
        routes.push(route);
    }
    Some(Routes::new(routes))
}

fn one(item: Value<'_>, pools: &[Pool], names: &mut Vec<(String, Span)>) -> Option<Route> {
    let section = item.section(ROUTE)?;
    let name = section.required("name", "a route is called something in logs: `name: api`", |value| {
        unique_name(value, names, "two routes of a service have one name")
    });
    let decided = action(&section);
    let is_redirect = section.field("redirect").is_some();
    let versioned = pools.iter().all(|pool| pool.version.is_some());
    let missing = |variable: Variable| match variable {
        Variable::Pool | Variable::Version if is_redirect => Some("a redirect is answered before a pool is chosen"),
        Variable::Version if !versioned => Some("give every pool of the service a `version`"),
        _ => None,
    };
    let request_headers = section.read("request_headers", |v| edits(v, &missing)).unwrap_or_default();
    let response_headers = section.read("response_headers", |v| edits(v, &missing)).unwrap_or_default();
    let limits = section.or("limits", Limits::default(), limits);
    let timeouts = section.or("timeouts", Timeouts::default(), timeouts);
    let rate_limits = section.or("rate_limits", Vec::new(), rate_limits);
    let upgrades = section.read("upgrades", upgrades);
    let repeats = section.or("retry", false, route_repeats);
    let ((matches, action), default) = (decided?, Route::new(name?));
    let upgrades = upgrades.unwrap_or(default.upgrades);
    let name = default.name;
    Some(Route {
        name,
        matches,
        action,
        request_headers,
        response_headers,
        limits,
        timeouts,
        rate_limits,
        upgrades,
        repeats,
    })
}

/// Which requests a route takes, and what happens to them.
fn action(section: &Section<'_>) -> Option<(Match, Action)> {
    let matches = section.optional("match", matches).map(Option::unwrap_or_default);
    // What could not be read would match everything, and others would be blamed for it.
    let unread = Some(PathTest::Prefix("/".to_owned()));
    let path = matches.as_ref().map_or(&unread, |matches| &matches.path).as_ref();
    let rewrite = section.optional("rewrite", |value| rewrite(value, path)).map(Option::unwrap_or_default);
    let Some(redirect) = section.field("redirect").map(|value| redirect(value, path)) else {
        return Some((matches?, Action::Forward(rewrite?)));
    };
    refuse_idle(section);
    let (mut matches, (redirect, upgrades)) = (matches?, redirect?);
    if upgrades {
        only_in_the_clear(section, &mut matches);
    }
    refuse_loop(section, &matches, &redirect);
    Some((matches, Action::Redirect(redirect)))
}

/// A redirect sends nothing up: what would shape that has no effect.
fn refuse_idle(section: &Section<'_>) {
    for key in ["rewrite", "request_headers", "limits", "timeouts", "rate_limits", "upgrades", "retry"] {
        let Some(idle) = section.field(key) else { continue };
        let message = format!("a redirect sends nothing up, so `{key}` has no effect");
        idle.input.report(Problem::new("conflict", idle.at, message).help("leave it out"));
    }
}

/// `https: true` is for those who are not there yet.
fn only_in_the_clear(section: &Section<'_>, matches: &mut Match) {
    let scheme = matches.conditions.iter().find_map(|condition| match condition {
        Condition::Scheme(scheme) => Some(*scheme),
        _ => None,
    });
    match scheme {
        None => matches.conditions.push(Condition::Scheme(Scheme::Http)),
        Some(Scheme::Http) => {}
        Some(Scheme::Https) => {
            let at = section.field("redirect").map_or(section.value().at, |redirect| redirect.at);
            let problem = Problem::new("conflict", at, "who comes by https already is not sent there");
            section.value().input.report(problem.help("leave `scheme: https` out of the `match`"));
        }
    }
}

/// Refuses a redirect whose target takes the same route again. Conditions besides the path may tell the two apart.
fn refuse_loop(section: &Section<'_>, matches: &Match, redirect: &Redirect) {
    let again = match &redirect.location {
        Location::Fixed(to) if to.starts_with('/') => to.split(['?', '#']).next(),
        Location::Parts { host: None, port: None, path, .. } => match path {
            PathEdit::Keep => Some(""),
            PathEdit::Whole(to) | PathEdit::Prefix { to, .. } => Some(to.as_str()),
            PathEdit::Regex(..) => None,
        },
        _ => None,
    };
    let Some(again) = again.filter(|_| matches.methods.is_empty() && matches.conditions.is_empty()) else { return };
    // A path that is kept matches as it did.
    if again.is_empty() || matches.path.as_ref().is_none_or(|test| test.passes(again)) {
        let at = section.field("redirect").map_or(section.value().at, |redirect| redirect.at);
        let problem = Problem::new("conflict", at, "this leads to where the same route takes the client again");
        let help =
            "match less, for example by `path: { exact: / }` or `scheme: http`; `https: true` does that by itself";
        section.value().input.report(problem.help(help));
    }
}

fn matches(value: Value<'_>) -> Option<Match> {
    let section = value.section(MATCH)?;
    let path = section.optional("path", path);
    let methods = section.optional("methods", methods);
    let scheme = section.optional("scheme", scheme);
    let mut conditions = conditions(&section)?;
    conditions.extend(scheme?.map(Condition::Scheme));
    let matches = Match { path: path?, methods: methods?.unwrap_or_default(), conditions };
    if matches.is_everything() {
        return section.says_nothing("`match` has no condition", "leave `match` out to match everything");
    }
    Some(matches)
}

fn path(value: Value<'_>) -> Option<PathTest> {
    if !value.is_mapping() {
        return value.wrong_type("to say how: `{ prefix: /api }`, `{ exact: /api }` or `{ regex: /v[0-9]/.* }`");
    }
    let how = value.section(PATH)?.only()?;
    match how.name {
        "exact" => plain_path(how).map(PathTest::Exact),
        "prefix" => plain_path(how).map(PathTest::Prefix),
        _ => pattern(how).map(PathTest::Regex),
    }
}

pub(super) fn methods(value: Value<'_>) -> Option<Vec<String>> {
    let items = value.one_or_more(MAX_METHODS, "a method such as `GET`, or a list of them")?;
    let count = items.len();
    let methods: Vec<String> = items.into_iter().filter_map(method).collect();
    (methods.len() == count).then_some(methods)
}

fn method(value: Value<'_>) -> Option<String> {
    let method = value.token()?;
    let (code, message, help) = match method.as_str() {
        "CONNECT" | "TRACE" => ("unsupported", "this method is never forwarded", "it is answered 405 before any route"),
        _ if method.bytes().any(|byte| byte.is_ascii_lowercase()) => {
            ("bad_value", "methods are case-sensitive", "all that are registered are upper-case: `GET`")
        }
        _ => return Some(method),
    };
    value.refuse(value.problem(code, message).help(help))
}

fn limits(value: Value<'_>) -> Option<Limits> {
    let section = value.section(LIMITS)?;
    let body =
        |v: Value<'_>| if v.is("none") { Some(None) } else { v.size(0..=MAX_BODY).map(|size| Some(size as u64)) };
    Some(Limits {
        body: section.or("body", None, body),
        head: section.read("head", |v| v.size(256..=1024 * 1024)),
        headers: section.read("headers", |v| v.count(1..=1000)),
    })
}

fn timeouts(value: Value<'_>) -> Option<Timeouts> {
    let section = value.section(TIMEOUTS)?;
    Some(Timeouts {
        head: section.read("head", head_timeout),
        request: section.read("request", request_timeout),
        idle: section.read("idle", idle_timeout),
    })
}

fn upgrades(value: Value<'_>) -> Option<Vec<String>> {
    Some(value.items(MAX_UPGRADES, "a list of protocols such as `[websocket]`")?.filter_map(upgrade).collect())
}

/// A protocol's name, with a version or without (RFC 9110 section 7.8).
fn upgrade(value: Value<'_>) -> Option<String> {
    let token = value.text("a protocol such as `websocket`")?.to_ascii_lowercase();
    let (name, version) = token.split_once('/').unwrap_or((&token, "1"));
    if token.len() > 128 || ![name, version].into_iter().all(is_token) {
        let problem = value.problem("bad_value", "this cannot be the name of a protocol");
        return value.refuse(problem.help("write it as clients do in `Upgrade`, such as `websocket` or `spdy/3.1`"));
    }
    match name {
        "h2c" | "h2" | "http" | "tls" => {
            let problem = value.problem("unsupported", format!("a client may not switch to `{token}`"));
            value.refuse(problem.help("requests in there would pass this proxy unseen"))
        }
        _ => Some(token),
    }
}
