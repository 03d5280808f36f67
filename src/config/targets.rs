//! Where a route's requests go instead: rewrites and redirects.

use super::conditions::pattern;
use super::report::Problem;
use super::section::{Section, Value};
use super::service::plain_path;
use crate::domain::route::{HostPattern, Location, PathEdit, PathTest, Redirect, Replacement, Rewrite, Scheme};

pub(super) const REWRITE: &[&str] = &["path", "prefix", "regex", "replacement", "host"];
pub(super) const REDIRECT: &[&str] =
    &["status", "to", "https", "scheme", "host", "port", "path", "prefix", "regex", "replacement"];

/// Temporary, and keeps the method: a mistake is forgotten as soon as it is mended.
const DEFAULT_STATUS: u16 = 307;

/// `http` or `https`.
pub(super) fn scheme(value: Value<'_>) -> Option<Scheme> {
    value.choice(&[("http", Scheme::Http), ("https", Scheme::Https)])
}

/// Reads a rewrite; `matched` is the path that the route matches by.
pub(super) fn rewrite(value: Value<'_>, matched: Option<&PathTest>) -> Option<Rewrite> {
    let section = value.section(REWRITE)?;
    let path = path_edit(&section, matched);
    let host = section.optional("host", authority);
    if !REWRITE.iter().any(|key| section.field(key).is_some()) {
        return section.says_nothing("`rewrite` changes nothing", "write for example `rewrite: { prefix: /new }`");
    }
    Some(Rewrite { path: path?, host: host? })
}

/// Reads a redirect, and whether it is for those who come in the clear only.
pub(super) fn redirect(value: Value<'_>, matched: Option<&PathTest>) -> Option<(Redirect, bool)> {
    let section = value.section(REDIRECT)?;
    let codes = [301, 302, 303, 307, 308].map(|code: u16| (code.to_string(), code));
    let words: Vec<_> = codes.iter().map(|(word, code)| (word.as_str(), *code)).collect();
    let status = section.or("status", DEFAULT_STATUS, |v| v.choice(&words));
    let https = section.or("https", false, Value::boolean);
    let others = REDIRECT.iter().filter(|key| !matches!(**key, "status" | "to" | "https"));
    let others: Vec<_> = others.filter_map(|key| section.field(key)).collect();
    if let Some(to) = section.field("to") {
        if let Some(other) = section.field("https").or(others.first().copied()) {
            let message = format!("`to` is the whole target, `{}` changes a part of it", other.name);
            return value.refuse(Problem::new("conflict", other.at, message).related(to.at, "the whole target"));
        }
        return Some((Redirect { status, location: Location::Fixed(url(to)?) }, false));
    }
    if others.is_empty() && !https {
        let help = "write `https: true`, `to: https://example.com/`, or what is to change";
        return section.says_nothing("`redirect` leads nowhere else", help);
    }
    let path = path_edit(&section, matched);
    let (wanted, host) = (section.optional("scheme", scheme), section.optional("host", host));
    let port = section.optional("port", |v| v.count(1..=u16::MAX));
    if let (true, Some(at)) = (https, section.field("scheme")) {
        let problem = Problem::new("conflict", at.at, "`https: true` says the scheme already");
        return value.refuse(problem.help("leave one of them out"));
    }
    let scheme = if https { Some(Scheme::Https) } else { wanted? };
    let location = Location::Parts { scheme, host: host?, port: port?, path: path? };
    Some((Redirect { status, location }, https))
}

/// What becomes of the path: one of `path`, `prefix`, or `regex` with `replacement`.
fn path_edit(section: &Section<'_>, matched: Option<&PathTest>) -> Option<PathEdit> {
    let value = section.value();
    let ways: Vec<_> =
        [section.field("path"), section.field("prefix"), section.field("regex")].into_iter().flatten().collect();
    if let [first, second, ..] = ways[..] {
        let message = format!("`{}` and `{}` both say what becomes of the path", first.name, second.name);
        return value.refuse(Problem::new("conflict", second.at, message).related(first.at, "said here"));
    }
    if let (Some(replacement), None) = (section.field("replacement"), section.field("regex")) {
        let problem =
            Problem::new("missing_key", replacement.at, "`replacement` needs a `regex` that finds its groups");
        return value.refuse(problem.help("write for example `regex: /v1/(.*)` beside `replacement: /v2/{1}`"));
    }
    match ways.first().copied() {
        None => Some(PathEdit::Keep),
        Some(way) if way.name == "path" => plain_path(way).map(PathEdit::Whole),
        Some(way) if way.name == "prefix" => prefix_edit(way, matched),
        Some(way) => regex_edit(way, section),
    }
}

fn prefix_edit(value: Value<'_>, matched: Option<&PathTest>) -> Option<PathEdit> {
    let to = plain_path(value)?;
    match matched {
        Some(PathTest::Prefix(from)) => Some(PathEdit::Prefix { from: from.clone(), to }),
        _ => {
            let problem = Problem::new("conflict", value.at, "`prefix` needs a prefix to stand in for");
            value.refuse(problem.help("match by one: `match: { path: { prefix: /old } }`"))
        }
    }
}

fn regex_edit(value: Value<'_>, section: &Section<'_>) -> Option<PathEdit> {
    let help = "write for example `replacement: /v2/{1}`";
    let pattern = pattern(value);
    let (at, text) = section.required("replacement", help, |v| Some((v, v.text("a path such as `/v2/{1}`")?)))?;
    let (pattern, text) = (pattern?, text.trim());
    if !text.starts_with(['/', '{']) {
        return at.refuse(at.problem("bad_value", "`replacement` is not a path").help("it begins with `/`"));
    }
    match Replacement::new(text, &pattern) {
        Ok(replacement) => Some(PathEdit::Regex(pattern, replacement)),
        Err(error) => {
            let help = "`{1}` is the first group of the `regex`, `{name}` the one that is written `(?<name>...)`";
            at.refuse(at.problem("bad_value", format!("`replacement`: {error}")).help(help))
        }
    }
}

/// A host without a port, in lower case.
fn host(value: Value<'_>) -> Option<String> {
    match value.parsed("a host such as `shop.example.com`")? {
        HostPattern::Exact(name) => Some(name),
        HostPattern::Below(_) => {
            value.refuse(value.problem("bad_value", format!("`{}` needs one host, not a pattern", value.name)))
        }
    }
}

/// A host that may have a port.
fn authority(value: Value<'_>) -> Option<String> {
    let expected = "a host such as `shop.internal` or `shop.internal:8080`";
    let text = value.text(expected)?.trim().to_ascii_lowercase();
    match is_authority(&text) {
        true => Some(text),
        false => value.refuse(value.problem("bad_value", format!("`{}` needs {expected}", value.name))),
    }
}

fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let number =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    matches!(host.parse(), Ok(HostPattern::Exact(_))) && port.is_none_or(number)
}

/// A target as it is: `https://host/path` or `/path`.
fn url(value: Value<'_>) -> Option<String> {
    let expected = "a target such as `https://example.com/` or `/new`";
    let text = value.text(expected)?.trim().to_owned();
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let leads_somewhere = match rest {
        Some(rest) => is_authority(&rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())].to_ascii_lowercase()),
        None => text.starts_with('/'),
    };
    let help = match () {
        () if !leads_somewhere => "it begins with `https://` and a host, with `http://` and a host, or with `/`",
        () if text.starts_with("//") || text.starts_with("/\\") => {
            "to a browser that is another host; write its scheme"
        }
        () if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            "spaces and other letters are percent-encoded: `%20`"
        }
        () if text.len() > 1024 => "a target is at most 1024 bytes long",
        () => return Some(text),
    };
    value.refuse(value.problem("bad_value", format!("`{}` needs {expected}", value.name)).help(help))
}
