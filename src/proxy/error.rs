//! Faults: why a request was not answered by an upstream, and the one place that turns them into answers.
//!
//! 4xx are the client's faults, 502 to 504 the upstream's. The body says which and carries the request's id;
//! nothing of the inside (addresses, names, causes) leaks.
//!
//! Invariant: after every fault the client knows whose fault it was.

use crate::bridge::observations::Failure;
use crate::bridge::table::Unrouted;

/// Why there is no upstream answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The head breaks a rule; the text says which.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// The client broke off or garbled its body.
    #[error("bad request: the body ended early")]
    BrokenBody,
    /// The client took too long over its head or its body.
    #[error("the request took too long to arrive")]
    TooSlow,
    /// A request line past its limit.
    #[error("the request target is too long")]
    LongTarget,
    /// A head past its limits of bytes or fields.
    #[error("the request head is too large")]
    LargeHead,
    /// A body past the limit of its route.
    #[error("the request body is too large")]
    LargeBody,
    /// A method a gateway must not forward.
    #[error("method not allowed")]
    Method,
    /// A transfer coding other than chunked.
    #[error("transfer coding not implemented")]
    Coding,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("HTTP version not supported")]
    Version,
    /// An expectation other than `100-continue`.
    #[error("expectation failed")]
    Expectation,
    /// No service claims host and path, or none of its routes matches.
    #[error("{0}")]
    Unrouted(Unrouted),
    /// This proxy has all the requests it may have, or no resources left.
    #[error("too many requests at once")]
    Overloaded,
    /// The upstream failed.
    #[error("{}", upstream_text(*.0))]
    Upstream(Failure),
}

fn upstream_text(failure: Failure) -> &'static str {
    match failure {
        Failure::NoEndpoint => "no upstream available",
        Failure::Connect => "upstream refused the connection",
        Failure::Reset => "upstream broke off before answering",
        Failure::Timeout => "upstream did not answer in time",
        Failure::Truncated => "upstream answer ended early",
        Failure::Malformed => "upstream answer is not valid HTTP",
    }
}

impl Fault {
    /// The status that says whose fault it is.
    pub fn status(self) -> u16 {
        match self {
            Fault::BadRequest(_) | Fault::BrokenBody | Fault::Unrouted(Unrouted::AmbiguousPath) => 400,
            Fault::Unrouted(_) => 404,
            Fault::Method => 405,
            Fault::TooSlow => 408,
            Fault::LargeBody => 413,
            Fault::LongTarget => 414,
            Fault::Expectation => 417,
            Fault::LargeHead => 431,
            Fault::Coding => 501,
            Fault::Version => 505,
            Fault::Overloaded | Fault::Upstream(Failure::NoEndpoint) => 503,
            Fault::Upstream(Failure::Timeout) => 504,
            Fault::Upstream(_) => 502,
        }
    }

    /// True if the client's HTTP/1.1 connection cannot be trusted with another request.
    pub fn closes(self) -> bool {
        !matches!(
            self,
            Fault::Unrouted(_) | Fault::Method | Fault::Expectation | Fault::Overloaded | Fault::Upstream(_)
        )
    }

    /// True for requests that were refused before they belonged to any service.
    pub fn is_refusal(self) -> bool {
        !matches!(self, Fault::Upstream(_) | Fault::BrokenBody | Fault::TooSlow | Fault::LargeBody)
    }

    /// The body: what went wrong, and the request's id for whoever asks in the logs.
    pub fn text(self, id: &str) -> String {
        format!("{} {self} (request {id})\n", self.status())
    }

    /// Further fields of the answer. RFC 9110 section 15.5.6 asks for the list of methods; CONNECT and TRACE are all
    /// that is missing from it.
    pub fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Fault::Overloaded => &[("retry-after", "1")],
            Fault::Method => &[("allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH")],
            _ => &[],
        }
    }
}

/// The reason phrase of a status, for status lines; empty if it has none of its own.
pub fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
}
