//! Faults: why a request was not answered by an upstream, and the one place that turns them into answers.
//!
//! 4xx are the client's faults, 502 to 504 the upstream's. The body says which and carries the request's id;
//! nothing of the inside (addresses, names, causes) leaks.
//!
//! Invariant: after every fault the client knows whose fault it was.

use crate::bridge::breaker::Blocked;
use crate::bridge::table::Unrouted;
use crate::domain::outcome::Failure;
use crate::proxy::head::Fields;

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
    /// A switch of protocols towards an upstream that speaks HTTP/2, where there is no such thing.
    #[error("the upstream cannot switch protocols")]
    NoSwitch,
    /// This proxy has all the requests it may have, or no resources left.
    #[error("too many requests at once")]
    Overloaded,
    /// Where it was sent is being taken out of use, and the time for that is over.
    #[error("taken out of use before an answer came")]
    Drained,
    /// The breaker of the pool it should go to is open; another try makes sense after so many seconds.
    #[error("no upstream available for the moment")]
    Blocked(u32),
    /// Somebody asks more often than a limit allows; not before so many seconds.
    #[error("too many requests")]
    TooOften(u32),
    /// The service has all the requests that it may have at once.
    #[error("the service has too many requests at once")]
    ServiceFull,
    /// A fault that somebody injected answers with this status.
    #[error("an injected fault")]
    Injected(u16),
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
            Fault::TooOften(_) => 429,
            Fault::Injected(status) => status,
            Fault::LargeHead => 431,
            Fault::Coding | Fault::NoSwitch => 501,
            Fault::Version => 505,
            Fault::Overloaded
            | Fault::ServiceFull
            | Fault::Drained
            | Fault::Blocked(_)
            | Fault::Upstream(Failure::NoEndpoint) => 503,
            Fault::Upstream(Failure::Timeout) => 504,
            Fault::Upstream(_) => 502,
        }
    }

    /// True if the client's HTTP/1.1 connection cannot be trusted with another request.
    pub fn closes(self) -> bool {
        !matches!(
            self,
            Fault::Unrouted(_)
                | Fault::Method
                | Fault::Expectation
                | Fault::NoSwitch
                | Fault::Overloaded
                | Fault::Blocked(_)
                | Fault::TooOften(_)
                | Fault::ServiceFull
                | Fault::Injected(_)
                | Fault::Upstream(_)
        )
    }

    /// True for requests that were refused before they belonged to any service.
    pub fn is_refusal(self) -> bool {
        !matches!(
            self,
            Fault::Upstream(_)
                | Fault::Blocked(_)
                | Fault::BrokenBody
                | Fault::TooSlow
                | Fault::LargeBody
                | Fault::NoSwitch
                | Fault::Drained
                | Fault::TooOften(_)
                | Fault::ServiceFull
                | Fault::Injected(_)
        )
    }

    /// What an open breaker answers.
    pub fn blocked(blocked: Blocked) -> Fault {
        Fault::Blocked(u32::try_from(blocked.wait.div_ceil(1_000)).unwrap_or(u32::MAX).max(1))
    }

    /// `Retry-After` in seconds, where another try may go better.
    pub fn retry_after(self) -> Option<u32> {
        match self {
            Fault::Overloaded | Fault::ServiceFull | Fault::Upstream(Failure::NoEndpoint) => Some(1),
            Fault::Blocked(seconds) | Fault::TooOften(seconds) => Some(seconds),
            _ => None,
        }
    }

    /// The body: what went wrong, and the request's id for whoever asks in the logs.
    pub fn text(self, id: &str) -> String {
        format!("{} {self} (request {id})\n", self.status())
    }

    /// The status for a gRPC client, by gRPC's own mapping from HTTP ("HTTP to gRPC Status Code Mapping"), so that it reads
    /// the same whether or not the client saw the HTTP status; but a limit is called a limit (`RESOURCE_EXHAUSTED`).
    pub fn grpc_status(self) -> u8 {
        match self.status() {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            413 | 414 | 431 => 8,
            429 | 502..=504 => 14,
            _ => 2,
        }
    }

    /// The text for `grpc-message`, with the request's id. Neither can hold anything that gRPC wants escaped but `%`.
    pub fn grpc_message(self, id: &str) -> String {
        format!("{self} (request {id})").replace('%', "%25")
    }

    /// Further fields of the answer. RFC 9110 section 15.5.6 asks for the list of methods; CONNECT and TRACE are all
    /// that is missing from it.
    pub fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Fault::Method => &[("allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH")],
            _ => &[],
        }
    }
}

/// True for a request by gRPC: its client looks for `grpc-status`, not for the status of HTTP. gRPC-Web, which browsers
/// speak over any HTTP, is something else.
pub fn is_grpc(fields: Fields<'_>) -> bool {
    let content_type = fields.named("content-type").next().unwrap_or_default();
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// The reason phrase of a status, for status lines; empty if it has none of its own.
pub fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::head::{Field, Known, RequestHead};

    #[test]
    fn grpc_clients_get_the_status_that_grpc_gives_to_ours() {
        let table = [
            (Fault::BadRequest("x"), 400, 13),
            (Fault::BrokenBody, 400, 13),
            (Fault::Unrouted(Unrouted::NoService), 404, 12),
            (Fault::Method, 405, 2),
            (Fault::TooSlow, 408, 2),
            (Fault::LargeBody, 413, 8),
            (Fault::LongTarget, 414, 8),
            (Fault::Expectation, 417, 2),
            (Fault::LargeHead, 431, 8),
            (Fault::Coding, 501, 2),
            (Fault::NoSwitch, 501, 2),
            (Fault::Version, 505, 2),
            (Fault::Blocked(5), 503, 14),
            (Fault::TooOften(3), 429, 14),
            (Fault::Overloaded, 503, 14),
            (Fault::ServiceFull, 503, 14),
            (Fault::Injected(503), 503, 14),
            (Fault::Injected(418), 418, 2),
            (Fault::Upstream(Failure::NoEndpoint), 503, 14),
            (Fault::Upstream(Failure::Connect), 502, 14),
            (Fault::Upstream(Failure::Reset), 502, 14),
            (Fault::Upstream(Failure::Timeout), 504, 14),
            (Fault::Upstream(Failure::Truncated), 502, 14),
            (Fault::Upstream(Failure::Malformed), 502, 14),
        ];
        for (fault, status, grpc) in table {
            assert_eq!((fault.status(), fault.grpc_status()), (status, grpc), "{fault}");
        }
        assert_eq!(
            Fault::Unrouted(Unrouted::NoService).grpc_message("7%"),
            "no service for this host and path (request 7%25)"
        );
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let table = [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
            ("", false),
        ];
        for (value, expected) in table {
            let mut head = RequestHead::default();
            let (name, span) = (head.push(b"Content-Type"), head.push(value.as_bytes()));
            head.list.push(Field { name, value: span, known: Known::Other });
            assert_eq!(is_grpc(head.fields()), expected, "{value}");
        }
        assert!(!is_grpc(Fields::NONE));
    }
}
