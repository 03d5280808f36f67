//! Routing: which service and route a request belongs to, what a route does, and which override beats the split.
//!
//! Decisions see a request through [`RequestView`], never through a wire library's types, so that every
//! wire path feeds the same rules. A [`Router`] finds the service by host and path prefix; inside a service the first
//! of its [`Routes`] that matches says what happens: forward (perhaps rewritten, with edited headers) or redirect.
//!
//! A path can be written in many ways, and what an upstream makes of an odd one is its own business. So a decision by
//! path is taken only where every reading leads to the same one; see [`path`].
//!
//! Invariant: two services can never both be the best match; the ambiguity is refused when the router is built.

mod condition;
mod edits;
mod host;
pub mod path;
mod router;
mod routes;
mod target;
mod template;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

pub use condition::{Condition, InvalidPattern, LONGEST_PATTERN, Override, Pattern, Test, cookie, parameter};
pub use edits::{Edits, Layers, Unedited, editable};
pub use host::{HostPattern, InvalidHost};
pub use router::{Ambiguous, Claim, Found, Router};
pub use routes::{Action, Limits, Match, PathTest, Route, Routes, Timeouts, decide};
pub use target::{Location, PathEdit, Redirect, Replacement, Rewrite};
pub use template::{InvalidTemplate, Template, Variable, Vars};

/// What routing may know of a request head.
pub trait RequestView {
    /// The method token, e.g. `GET`.
    fn method(&self) -> &str;
    /// The path without query, as sent, beginning with `/` (or `*` for `OPTIONS *`).
    fn path(&self) -> &str;
    /// What follows the first `?` of the target, as sent; empty if there is none.
    fn query(&self) -> &str;
    /// The host the client asked for, without port, as sent.
    fn host(&self) -> &str;
    /// The first value of a header, by lower-case name; `None` if absent or not visible ASCII.
    fn header(&self, name: &str) -> Option<&str>;
    /// The client's address as the proxy trusts it.
    fn client(&self) -> IpAddr;
    /// How the client spoke, to us or to a forwarder that we trust.
    fn scheme(&self) -> Scheme;
}

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As targets and `X-Forwarded-Proto` have it.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
