//! Targets: what a rewrite sends up instead of what was asked for, and where a redirect sends the client.
//!
//! Both edit the path only and keep the query, and both read the path strictly (see [`super::path`]), as the match did.
//!
//! Invariant: a new target is in origin-form, in visible ASCII, and begins with one `/` only: `//host` would be another
//! host to a browser, and to some upstreams. A redirect leads to a host that the configuration names, or to a
//! well-formed host that the client itself asked for.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::condition::Pattern;
use super::host::is_host;
use super::path::{canonical, encode};
use super::router::on_segment;
use super::template::{InvalidTemplate, Part, parts};
use super::{RequestView, Scheme};

/// Groups a replacement may hold: each may repeat the whole path.
const MOST_GROUPS: usize = 16;

/// A change of a path.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum PathEdit {
    /// None.
    #[default]
    Keep,
    /// Another path.
    Whole(String),
    /// Another beginning.
    Prefix {
        /// The prefix that the route matches by.
        from: String,
        /// What stands in its place.
        to: String,
    },
    /// Another path, made of parts of this one; a path that the pattern does not match is kept.
    Regex(Pattern, Replacement),
}

/// A path with places for the groups of a pattern: `/v2/{1}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Group(usize),
}

impl Replacement {
    /// Reads a replacement for what `pattern` matches.
    ///
    /// # Errors
    /// When it names a group that the pattern does not have, too many of them, or is no text of a path.
    pub fn new(text: &str, pattern: &Pattern) -> Result<Replacement, InvalidTemplate> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidTemplate::Character);
        }
        let mut groups = 0;
        let mut piece = |part: Part| match part {
            Part::Text(text) => Ok(Piece::Text(text)),
            Part::Braced(name) => {
                groups += 1;
                let group = pattern.group(&name).filter(|_| groups <= MOST_GROUPS);
                group.map(Piece::Group).ok_or(InvalidTemplate::Unknown(name))
            }
        };
        Ok(Replacement(parts(text)?.into_iter().map(&mut piece).collect::<Result<_, _>>()?))
    }

    fn apply(&self, pattern: &Pattern, path: &str) -> Option<String> {
        let captures = pattern.captures(path.as_bytes())?;
        let mut bytes = Vec::with_capacity(path.len());
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Piece::Group(group) => {
                    bytes.extend_from_slice(captures.get(*group).map_or(b"", |found| found.as_bytes()))
                }
            }
        }
        // Groups are stretches of the canonical path, which is ASCII.
        String::from_utf8(bytes).ok()
    }
}

impl PathEdit {
    /// The path instead of `path`; `None` if that is kept as it was sent.
    fn apply(&self, path: &str) -> Option<String> {
        if path == "*" {
            return None;
        }
        match self {
            PathEdit::Keep => None,
            PathEdit::Whole(new) => Some(legal(new)),
            PathEdit::Prefix { from, to } => {
                let path = canonical(path);
                // Borders are kept by leaving the slash at the end of either prefix out, and taking the rest's.
                let rest = path.get(from.trim_end_matches('/').len()..).filter(|_| on_segment(&path, from))?;
                Some(legal(&format!("{}{rest}", to.trim_end_matches('/'))))
            }
            PathEdit::Regex(pattern, replacement) => {
                replacement.apply(pattern, &canonical(path)).map(|new| legal(&new))
            }
        }
    }

    /// True if what it gives depends on how the path is read.
    pub fn reads_path(&self) -> bool {
        matches!(self, PathEdit::Prefix { .. } | PathEdit::Regex(..))
    }
}

/// A path that begins with one `/` and holds nothing but what may stand there.
fn legal(path: &str) -> String {
    let mut text = String::with_capacity(path.len() + 1);
    text.push('/');
    for byte in path.trim_start_matches(['/', '\\']).bytes() {
        match byte {
            b'?' | b'#' => encode(byte, &mut text),
            byte if byte.is_ascii_graphic() => text.push(char::from(byte)),
            byte => encode(byte, &mut text),
        }
    }
    text
}

/// What goes up instead of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// The path.
    pub path: PathEdit,
    /// The `Host` field, with its port if it has one; the client's if `None`.
    pub host: Option<String>,
}

impl Rewrite {
    /// The target in origin-form instead of `target`, whose query is kept; `*` stays.
    pub fn target<'a>(&self, target: &'a str) -> Cow<'a, str> {
        let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
        match self.path.apply(path) {
            Some(mut new) => {
                push_query(query, &mut new);
                Cow::Owned(new)
            }
            None => Cow::Borrowed(target),
        }
    }
}

/// Appends a query, or `?` and a query, as legal text.
fn push_query(query: &str, target: &mut String) {
    for byte in query.bytes() {
        match byte {
            b'#' => encode(byte, target),
            byte if byte.is_ascii_graphic() => target.push(char::from(byte)),
            byte => encode(byte, target),
        }
    }
}

/// An answer that sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Where to.
    pub location: Location,
}

/// Where a redirect leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// To this very URL or path; nothing of the request is kept.
    Fixed(String),
    /// To what was asked for, with these parts changed.
    Parts {
        /// Another scheme.
        scheme: Option<Scheme>,
        /// Another host.
        host: Option<String>,
        /// A port; without one, the scheme's own if scheme or host change.
        port: Option<u16>,
        /// Another path.
        path: PathEdit,
    },
}

impl Redirect {
    /// The value of the `Location` field; `None` if that needs the host asked for, and that is missing or not a host.
    pub fn location(&self, request: &impl RequestView) -> Option<String> {
        let (scheme, host, port, path) = match &self.location {
            Location::Fixed(text) => return Some(text.clone()),
            Location::Parts { scheme, host, port, path } => (scheme, host, port, path),
        };
        let mut location = String::new();
        if let Some(scheme) = scheme {
            // Writing to memory cannot fail.
            let _ = write!(location, "{scheme}:");
        }
        if scheme.is_some() || host.is_some() || port.is_some() {
            let asked = || Some(request.host()).filter(|host| is_host(host.strip_suffix('.').unwrap_or(host)));
            location.push_str("//");
            location.push_str(host.as_deref().or_else(asked)?);
            if let Some(port) = port {
                let _ = write!(location, ":{port}");
            }
        }
        let asked = if request.path() == "*" { "/" } else { request.path() };
        location.push_str(&path.apply(asked).unwrap_or_else(|| legal(asked)));
        if !request.query().is_empty() {
            location.push('?');
            push_query(request.query(), &mut location);
        }
        Some(location)
    }
}
