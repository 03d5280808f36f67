//! Active health checks: what is asked of endpoints, what a good answer is, and where it says what runs there.
//!
//! Invariant: what only a question has (a method, expectations, a version) stands beside the question.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::conditions::pattern;
use super::report::Problem;
use super::section::{Section, Value};
use super::service::path;
use super::yaml::Kind;
use crate::domain::health::{BodyTest, Statuses, Thresholds, VersionSource, is_json_pointer, statuses};

pub(super) const HEALTH: &[&str] = &[
    "path",
    "method",
    "host",
    "headers",
    "expect",
    "grpc",
    "interval",
    "interval_unhealthy",
    "timeout",
    "unhealthy_after",
    "healthy_after",
    "initial",
    "version",
];
pub(super) const EXPECT: &[&str] = &["status", "body"];
pub(super) const BODY: &[&str] = &["regex"];
pub(super) const GRPC: &[&str] = &["service"];
pub(super) const VERSION: &[&str] = &["header", "json"];

/// Ranges of statuses, and fields of a question: nobody needs more.
const MAX_STATUSES: usize = 16;
const MAX_HEADERS: usize = 16;

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Active health checks of a service's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// Between two checks of one endpoint (jittered by a tenth).
    pub interval: Duration,
    /// The same while an endpoint is not healthy or its last check failed.
    pub interval_unhealthy: Duration,
    /// For the whole check.
    pub timeout: Duration,
    /// How many results change sides.
    pub thresholds: Thresholds,
    /// What a new endpoint counts as until its first check.
    pub initial: Initial,
    /// Where an answer says what runs there.
    pub version: Option<VersionSource>,
}

/// What an endpoint counts as that was not checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Initial {
    /// It gets requests: a start or a reload is not an outage.
    #[default]
    Unknown,
    /// It gets none.
    Unhealthy,
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Nothing: every endpoint counts as healthy.
    Off,
    /// That a connection opens.
    Connect,
    /// An HTTP request.
    Http(Box<Question>),
    /// gRPC's health protocol, for this service; empty for the server as a whole.
    Grpc(String),
}

/// An HTTP request that a healthy endpoint answers well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// `GET`, `HEAD` or `OPTIONS`.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// The `Host`; `None` for the endpoint's own address.
    pub host: Option<String>,
    /// More fields; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The statuses of good answers.
    pub statuses: Statuses,
    /// What is in their bodies.
    pub body: Option<BodyTest>,
}

impl Question {
    /// `GET path`.
    pub fn get(path: impl Into<String>) -> Question {
        Question {
            method: "GET",
            path: path.into(),
            host: None,
            headers: Vec::new(),
            statuses: Statuses::default(),
            body: None,
        }
    }
}

impl Probe {
    /// That `GET path` answers 200 to 299.
    pub fn get(path: impl Into<String>) -> Probe {
        Probe::Http(Box::new(Question::get(path)))
    }
}

impl Default for Health {
    fn default() -> Health {
        Health {
            probe: Probe::Connect,
            interval: Duration::from_secs(2),
            interval_unhealthy: Duration::from_millis(500),
            timeout: Duration::from_millis(500),
            thresholds: Thresholds { unhealthy_after: 3, healthy_after: 2 },
            initial: Initial::default(),
            version: None,
        }
    }
}

impl Health {
    /// True if a new endpoint gets nothing before its first check.
    pub fn awaits_first(&self) -> bool {
        self.initial == Initial::Unhealthy && self.probe != Probe::Off
    }
}

/// Reads `off`, `connect` or a mapping.
pub(super) fn health(value: Value<'_>) -> Option<Health> {
    let default = Health::default();
    if !value.is_mapping() && !matches!(value.node.kind, Kind::Null) {
        let probe = value.choice(&[("off", Probe::Off), ("connect", Probe::Connect)])?;
        return Some(Health { probe, ..default });
    }
    let section = value.section(HEALTH)?;
    let initial = [("unknown", Initial::Unknown), ("unhealthy", Initial::Unhealthy)];
    let thresholds = default.thresholds;
    let interval = section.or("interval", default.interval, between_checks);
    let health = Health {
        probe: probe(&section),
        interval,
        interval_unhealthy: section.or("interval_unhealthy", default.interval_unhealthy.min(interval), between_checks),
        timeout: section.or("timeout", default.timeout, |v| v.duration(10 * MILLISECOND..=MINUTE)),
        thresholds: Thresholds {
            unhealthy_after: section.or("unhealthy_after", thresholds.unhealthy_after, |v| v.count(1..=100)),
            healthy_after: section.or("healthy_after", thresholds.healthy_after, |v| v.count(1..=100)),
        },
        initial: section.or("initial", default.initial, |v| v.choice(&initial)),
        version: section.read("version", version),
    };
    if let Some(at) = section.field("interval_unhealthy").filter(|_| health.interval_unhealthy > health.interval) {
        let problem = Problem::new("conflict", at.at, "an unhealthy endpoint is looked at as often as others, or more");
        return value.refuse(problem.help("make `interval_unhealthy` at most `interval`"));
    }
    let asks_http = section.field("path").is_some();
    let needs = match &health.version {
        Some(VersionSource::Json(_)) if !asks_http => {
            "write `path: /version`: the JSON of an answer has to be asked for"
        }
        Some(VersionSource::Header(_)) if !asks_http && section.field("grpc").is_none() => {
            "write `path: /healthz`: an answer has to be asked for"
        }
        Some(VersionSource::Json(_)) if matches!(&health.probe, Probe::Http(question) if question.method == "HEAD") => {
            "write `method: GET`: the answer to `HEAD` has no body"
        }
        _ => return Some(health),
    };
    let at = section.field("version").map_or(value.at, |version| version.at);
    value.refuse(Problem::new("conflict", at, "no answer of this check has a version to read").help(needs))
}

fn between_checks(value: Value<'_>) -> Option<Duration> {
    value.duration(100 * MILLISECOND..=HOUR)
}

/// What is asked; what could not be read is reported, and falls back to a connection.
fn probe(section: &Section<'_>) -> Probe {
    let parts = ["method", "host", "headers", "expect"];
    let stray = parts.into_iter().find_map(|key| section.field(key));
    if let Some(grpc) = section.field("grpc") {
        if let Some(other) = section.field("path").or(stray) {
            let message = format!("`{}` belongs to a check by HTTP, `grpc` is another", other.name);
            let problem = Problem::new("conflict", other.at, message).related(grpc.at, "asked here");
            section.value().input.report(problem.help("leave one of them out"));
        }
        return service_name(grpc).map_or(Probe::Connect, Probe::Grpc);
    }
    let Some(at) = section.field("path") else {
        if let Some(stray) = stray {
            let problem =
                Problem::new("conflict", stray.at, format!("without `path`, `{}` has no request", stray.name));
            section.value().input.report(problem.help("write `path: /healthz`"));
        }
        return Probe::Connect;
    };
    let Some(path) = path(at, &['#']) else { return Probe::Connect };
    let default = Question::get(path);
    let methods = [("GET", "GET"), ("HEAD", "HEAD"), ("OPTIONS", "OPTIONS")];
    let (statuses, body) = section.read("expect", expect).unwrap_or_default();
    let question = Question {
        method: section.or("method", default.method, |v| v.choice(&methods)),
        host: section.read("host", host),
        headers: section.or("headers", Vec::new(), headers),
        statuses,
        body,
        ..default
    };
    if let (Some(_), "HEAD", Some(at)) = (&question.body, question.method, section.field("method")) {
        let problem = Problem::new("conflict", at.at, "the answer to `HEAD` has no body to expect something of");
        section.value().input.report(problem.help("write `method: GET`, or leave `body` out"));
    }
    Probe::Http(Box::new(question))
}

fn host(value: Value<'_>) -> Option<String> {
    let text = value.text("a host such as `shop.internal`")?.trim().to_owned();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if text.len() <= 255 && text.bytes().all(fits) && text.parse::<http::uri::Authority>().is_ok() {
        return Some(text);
    }
    value.refuse(value.problem("bad_value", "this cannot be a `Host`").help("write a name, and `:port` if it has one"))
}

fn headers(value: Value<'_>) -> Option<Vec<(String, String)>> {
    let members: Vec<_> = value.members("a mapping of names to values")?.collect();
    value.at_most(members.len(), MAX_HEADERS)?;
    let count = members.len();
    let read: Vec<_> = members.into_iter().filter_map(header).collect();
    (read.len() == count).then_some(read)
}

fn header(member: Value<'_>) -> Option<(String, String)> {
    let name = member.own_token()?.to_ascii_lowercase();
    let text = member.text("a value")?;
    let taken = ["host", "connection", "content-length", "transfer-encoding", "te", "upgrade"];
    if taken.contains(&name.as_str()) {
        let help = if name == "host" { "write `host` beside `headers`" } else { "leave it out" };
        let problem = Problem::new("unsupported", member.at, "the check itself decides over this field");
        return member.refuse(problem.help(help));
    }
    if text.len() <= 1024 && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Some((name, text.trim().to_owned()));
    }
    member.refuse(member.problem("bad_value", "a value is up to 1024 visible ASCII characters"))
}

fn expect(value: Value<'_>) -> Option<(Statuses, Option<BodyTest>)> {
    let section = value.section(EXPECT)?;
    let statuses = section.or("status", Statuses::default(), |v| {
        let items = v.one_or_more(MAX_STATUSES, "a status such as `200` or `300-399`, or a list of them")?;
        let count = items.len();
        let ranges: Vec<_> = items.into_iter().filter_map(status).collect();
        (ranges.len() == count).then(|| Statuses::new(ranges))
    });
    Some((statuses, section.read("body", body)))
}

fn status(value: Value<'_>) -> Option<RangeInclusive<u16>> {
    let text = value.text("a status such as `200` or `300-399`")?;
    statuses(text.trim()).or_else(|| {
        let problem = value.problem("bad_value", "this is neither a status nor a range of them");
        value.refuse(problem.help("a status is a number from 200 to 599; a range is written `300-399`"))
    })
}

/// A text, or `{ regex: ... }`; either may stand anywhere in the body.
fn body(value: Value<'_>) -> Option<BodyTest> {
    if !value.is_mapping() {
        return value.text("a text that the body holds, or `{ regex: ... }`").map(BodyTest::Contains);
    }
    let regex = value.section(BODY)?.only()?;
    // By itself first, so that its problems are told in its own words.
    pattern(regex)?;
    let text = regex.text("a regular expression")?;
    match format!("(?s:.*)(?:{text})(?s:.*)").parse() {
        Ok(pattern) => Some(BodyTest::Matches(pattern)),
        Err(error) => regex.refuse(regex.problem("bad_value", error.to_string())),
    }
}

fn service_name(value: Value<'_>) -> Option<String> {
    let name = value.section(GRPC)?.read("service", |v| {
        let text = v.text("the name of a gRPC service such as `shop.Cart`")?.trim().to_owned();
        if text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Some(text);
        }
        v.refuse(v.problem("bad_value", "the name of a service is up to 256 visible ASCII characters"))
    });
    Some(name.unwrap_or_default())
}

fn version(value: Value<'_>) -> Option<VersionSource> {
    let source = value.section(VERSION)?.only()?;
    if source.name == "header" {
        return source.token().map(|name| VersionSource::Header(name.to_ascii_lowercase()));
    }
    let pointer = source.text("a JSON pointer such as `/build/version`")?;
    match is_json_pointer(&pointer) {
        true => Some(VersionSource::Json(pointer)),
        false => {
            let problem = source.problem("bad_value", "this is not a JSON pointer (RFC 6901)");
            source.refuse(
                problem.help("it begins with `/`: `/build/version`; `/` in a name is written `~1`, `~` is `~0`"),
            )
        }
    }
}
