//! Routes: inside a service, the first one that matches says what happens to a request.
//!
//! Invariant: a service has at least one route; without any of its own that is [`Route::new`], which matches everything
//! and changes nothing.

use std::time::Duration;

use super::condition::{Condition, Pattern};
use super::edits::Edits;
use super::router::on_segment;
use super::target::{Redirect, Rewrite};
use super::{RequestView, path};
use crate::domain::rate::Limit;

/// What is done with the requests that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// For logs and explanations; unique within a service.
    pub name: String,
    /// Which requests.
    pub matches: Match,
    /// What happens to them.
    pub action: Action,
    /// Edits of the head that goes up, before the pool's.
    pub request_headers: Edits,
    /// Edits of the head that goes down, after the pool's; of a redirect as well.
    pub response_headers: Edits,
    /// How large a message may be.
    pub limits: Limits,
    /// Where they differ from the service's.
    pub timeouts: Timeouts,
    /// How often it may be asked for, before the service's own limits.
    pub rate_limits: Vec<Limit>,
    /// Protocols that a client may switch to, in lower case.
    pub upgrades: Vec<String>,
    /// Its requests may be sent twice, whatever their methods: who is behind it tells repetitions apart.
    pub repeats: bool,
}

impl Route {
    /// A route that forwards everything as it is.
    pub fn new(name: impl Into<String>) -> Route {
        Route {
            name: name.into(),
            matches: Match::default(),
            action: Action::default(),
            request_headers: Edits::default(),
            response_headers: Edits::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            rate_limits: Vec::new(),
            upgrades: vec!["websocket".to_owned()],
            repeats: false,
        }
    }

    /// True if a client may switch to the protocol of an `Upgrade` token.
    pub fn allows_upgrade(&self, token: &str) -> bool {
        self.upgrades.iter().any(|allowed| allowed.eq_ignore_ascii_case(token))
    }

    /// True if another reading of the path could lead to another outcome.
    fn reads_path(&self) -> bool {
        let edits = match &self.action {
            Action::Forward(rewrite) => rewrite.path.reads_path(),
            // What the client is told, it asks for again; that is decided then.
            Action::Redirect(_) => false,
        };
        self.matches.path.is_some() || edits
    }
}

/// What a request must be like. Nothing asked means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Its path.
    pub path: Option<PathTest>,
    /// Its method, one of these; none means any.
    pub methods: Vec<String>,
    /// All of these pass.
    pub conditions: Vec<Condition>,
}

/// How a path is compared. Texts are as [`path::pattern`] gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathTest {
    /// Equal to the text.
    Exact(String),
    /// Begins with the text, up to a segment border.
    Prefix(String),
    /// Matched as a whole, as its strict reading.
    Regex(Pattern),
}

impl PathTest {
    /// True if a reading of a path passes.
    pub fn passes(&self, path: &str) -> bool {
        match self {
            PathTest::Exact(text) => path == text,
            PathTest::Prefix(prefix) => on_segment(path, prefix),
            PathTest::Regex(pattern) => pattern.matches(path.as_bytes()),
        }
    }
}

impl Match {
    /// True if nothing is asked.
    pub fn is_everything(&self) -> bool {
        self.path.is_none() && self.methods.is_empty() && self.conditions.is_empty()
    }

    /// True if the request is like that, its path read as `path`.
    pub fn matches(&self, request: &impl RequestView, path: &str) -> bool {
        self.path.as_ref().is_none_or(|test| test.passes(path))
            && (self.methods.is_empty() || self.methods.iter().any(|method| method == request.method()))
            && self.conditions.iter().all(|condition| condition.passes(request))
    }
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes up, perhaps rewritten.
    Forward(Rewrite),
    /// The client is sent elsewhere.
    Redirect(Redirect),
}

impl Default for Action {
    fn default() -> Action {
        Action::Forward(Rewrite::default())
    }
}

/// How large the messages of a route may be, within what the proxy itself takes; `None` sets no further limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body; more is answered 413.
    pub body: Option<u64>,
    /// Bytes of a request's head; more is answered 431.
    pub head: Option<usize>,
    /// Fields of a request's head; more is answered 431.
    pub headers: Option<usize>,
}

impl Limits {
    /// True if a request's head of so many bytes and fields is too large.
    pub fn refuses_head(&self, bytes: usize, fields: usize) -> bool {
        self.head.is_some_and(|most| bytes > most) || self.headers.is_some_and(|most| fields > most)
    }

    /// True if a body of so many bytes, told or counted so far, is too large.
    pub fn refuses_body(&self, bytes: u64) -> bool {
        self.body.is_some_and(|most| bytes > most)
    }
}

/// Upstream timeouts where they differ from the service's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From dispatch to the response head.
    pub head: Option<Duration>,
    /// From dispatch to the end of the response; `Some(None)` for no limit.
    pub request: Option<Option<Duration>>,
    /// Without a byte either way.
    pub idle: Option<Duration>,
}

/// The routes of a service, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    list: Vec<Route>,
    /// The first route matches everything, so nobody needs to look.
    is_trivial: bool,
    by_path: bool,
}

impl Default for Routes {
    fn default() -> Routes {
        Routes::new(Vec::new())
    }
}

impl Routes {
    /// Routes in order; none means one that forwards everything.
    pub fn new(mut list: Vec<Route>) -> Routes {
        if list.is_empty() {
            list.push(Route::new("default"));
        }
        let is_trivial = list[0].matches.is_everything();
        let by_path = list.iter().any(Route::reads_path);
        Routes { list, is_trivial, by_path }
    }

    /// The index of the first route that matches, the path read as `path`.
    pub fn find(&self, request: &impl RequestView, path: &str) -> Option<usize> {
        if self.is_trivial {
            return Some(0);
        }
        self.list.iter().position(|route| route.matches.matches(request, path))
    }

    /// True if another path might lead to another outcome.
    pub fn by_path(&self) -> bool {
        self.by_path
    }

    /// All of them, in order; at least one.
    pub fn all(&self) -> &[Route] {
        &self.list
    }
}

impl std::ops::Index<usize> for Routes {
    type Output = Route;

    fn index(&self, index: usize) -> &Route {
        &self.list[index]
    }
}

/// Decides by every reading of a request's path at once: `by` gives a decision for one reading, and whether another
/// path might have led elsewhere.
///
/// # Errors
/// When readings lead to different decisions.
pub fn decide<T: PartialEq>(path: &str, by: impl Fn(&str) -> (T, bool)) -> Result<T, path::AmbiguousPath> {
    let (decision, by_path) = by(path);
    if !by_path || path::is_plain(path) {
        return Ok(decision);
    }
    path::settle(path, |path| by(path).0)
}
