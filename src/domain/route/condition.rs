//! Conditions: what a rule may ask of a request besides its path; and overrides, which are rules made of them.
//!
//! Of fields, cookies and query parameters that come more than once, the first counts. Query parameters are compared
//! as forms mean them: `+` is a space, `%XX` its byte, a `%` without two digits is itself.
//!
//! Invariant: a test costs time linear in what it looks at; patterns have no backtracking and a size limit.

use std::borrow::Cow;

use ipnet::IpNet;
use regex::bytes as binary;

use super::path::encoded;
use super::{RequestView, Scheme};

/// Bytes of a pattern's text: past this nobody can say what it matches.
pub const LONGEST_PATTERN: usize = 512;
/// Bytes of a compiled pattern.
const LARGEST_PATTERN: usize = 64 * 1024;
/// Bytes that matching a pattern may keep in each worker to be fast.
const LARGEST_CACHE: usize = 256 * 1024;

/// A regular expression that must match the whole value. ASCII letters and bytes, no look-around, no back-references.
///
/// Workers share it. The memory it matches with is taken from a pool that is only ever tried, never waited for.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    compiled: binary::Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// It is too long.
    #[error("a regular expression is at most {LONGEST_PATTERN} bytes long")]
    TooLong,
    /// It is too large once compiled.
    #[error("the regular expression would need more than 64 KiB once compiled; repeat less")]
    TooLarge,
    /// It is not a regular expression; one line says why.
    #[error("this is not a regular expression: {0}")]
    Syntax(String),
}

impl std::str::FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Pattern, InvalidPattern> {
        if text.len() > LONGEST_PATTERN {
            return Err(InvalidPattern::TooLong);
        }
        // Alone first: a text such as `a)|(b` must not become an expression by what is put around it.
        compile(text)?;
        let compiled = compile(&format!(r"\A(?:{text})\z"))?;
        Ok(Pattern { text: text.to_owned(), compiled })
    }
}

fn compile(text: &str) -> Result<binary::Regex, InvalidPattern> {
    let mut builder = binary::RegexBuilder::new(text);
    builder.unicode(false).size_limit(LARGEST_PATTERN).dfa_size_limit(LARGEST_CACHE).nest_limit(32);
    builder.build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => InvalidPattern::TooLarge,
        // The last line of several is the one that says what is wrong; the others draw an arrow.
        error => {
            let message = error.to_string();
            let last = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
            InvalidPattern::Syntax(last.to_owned())
        }
    })
}

impl Pattern {
    /// True if it matches the whole of `value`.
    pub fn matches(&self, value: &[u8]) -> bool {
        self.compiled.is_match(value)
    }

    /// What its first group caught, or all of it without groups, if it matches the whole of `value`.
    pub fn part<'v>(&self, value: &'v [u8]) -> Option<&'v [u8]> {
        let captures = self.compiled.captures(value)?;
        captures.get(1.min(captures.len() - 1)).map(|caught| caught.as_bytes())
    }

    /// What its groups caught, if it matches the whole of `value`.
    pub(super) fn captures<'v>(&self, value: &'v [u8]) -> Option<binary::Captures<'v>> {
        self.compiled.captures(value)
    }

    /// The group that a number or a name stands for.
    pub(super) fn group(&self, name: &str) -> Option<usize> {
        let by_number = name.parse().ok().filter(|number| *number < self.compiled.captures_len());
        by_number.or_else(|| self.compiled.capture_names().position(|known| known == Some(name)))
    }
}

/// How one part of a request is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// Equal to the text.
    Exact(String),
    /// Begins with the text.
    Prefix(String),
    /// Matched as a whole.
    Regex(Pattern),
    /// There at all, with any value.
    Present,
}

impl Test {
    fn passes(&self, value: Option<&[u8]>) -> bool {
        let Some(value) = value else { return false };
        match self {
            Test::Exact(text) => value == text.as_bytes(),
            Test::Prefix(text) => value.starts_with(text.as_bytes()),
            Test::Regex(pattern) => pattern.matches(value),
            Test::Present => true,
        }
    }
}

/// A condition of a route or an override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// On the first value of a header (name in lower case).
    Header(String, Test),
    /// On a cookie (name as sent, case-sensitive).
    Cookie(String, Test),
    /// On the first query parameter of a name (decoded, case-sensitive).
    Query(String, Test),
    /// The client's address is in one of these networks; never empty.
    Client(Vec<IpNet>),
    /// The client spoke so.
    Scheme(Scheme),
}

impl Condition {
    /// True if the request meets it.
    pub fn passes(&self, request: &impl RequestView) -> bool {
        match self {
            Condition::Header(name, test) => test.passes(request.header(name).map(str::as_bytes)),
            Condition::Cookie(name, test) => test.passes(cookie(request, name).map(str::as_bytes)),
            Condition::Query(name, test) => test.passes(parameter(request.query(), name).as_deref()),
            Condition::Client(networks) => {
                let client = request.client().to_canonical();
                networks.iter().any(|network| network.contains(&client))
            }
            Condition::Scheme(scheme) => request.scheme() == *scheme,
        }
    }
}

/// A rule that sends matching requests to a pool, whatever the split says. The first match wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// For logs and explanations; unique within a service.
    pub name: String,
    /// All of these must pass; never empty.
    pub conditions: Vec<Condition>,
    /// Index of the pool within the service.
    pub pool: usize,
    /// Keep matching after the pool was rolled back (Decisions 8); otherwise a rollback moves QA too.
    pub even_when_rolled_back: bool,
}

impl Override {
    /// True if every condition passes.
    pub fn matches(&self, request: &impl RequestView) -> bool {
        self.conditions.iter().all(|condition| condition.passes(request))
    }
}

/// The value of the named cookie, from the first `Cookie` header (RFC 6265 section 5.4).
pub fn cookie<'a>(request: &'a impl RequestView, name: &str) -> Option<&'a str> {
    request.header("cookie")?.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The decoded value of the first parameter called `name`; empty if it has no `=`.
pub fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (!pair.is_empty() && *decoded(key) == *name.as_bytes()).then(|| decoded(value))
    })
}

/// A text of a form as its bytes.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some(first) = rest.first() {
        let (byte, used) = match first {
            b'+' => (b' ', 1),
            b'%' => encoded(rest).map_or((b'%', 1), |byte| (byte, 3)),
            byte => (*byte, 1),
        };
        bytes.push(byte);
        rest = &rest[used..];
    }
    Cow::Owned(bytes)
}
