//! Faults: why a request was not answered by an upstream, and the one place that turns them into responses.
//!
//! 4xx are the client's faults, 502 to 504 the upstream's. The body says which and carries the request's id;
//! nothing of the inside (addresses, names, causes) leaks.
//!
//! Invariant: after every fault the client knows whose fault it was.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

use crate::bridge::observations::Failure;
use crate::proxy::body::{Body, Ending};
use crate::proxy::head::RequestId;

/// Why there is no upstream answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The head breaks a rule; the text says which.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// The client broke off or garbled its body.
    #[error("bad request: the body ended early")]
    BrokenBody,
    /// A method a gateway must not forward.
    #[error("method not allowed")]
    Method,
    /// No service claims host and path.
    #[error("no service for this host and path")]
    NoService,
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
    }
}

impl Fault {
    /// The status that says whose fault it is.
    pub fn status(self) -> StatusCode {
        match self {
            Fault::BadRequest(_) | Fault::BrokenBody => StatusCode::BAD_REQUEST,
            Fault::Method => StatusCode::METHOD_NOT_ALLOWED,
            Fault::NoService => StatusCode::NOT_FOUND,
            Fault::Upstream(Failure::NoEndpoint) => StatusCode::SERVICE_UNAVAILABLE,
            Fault::Upstream(Failure::Timeout) => StatusCode::GATEWAY_TIMEOUT,
            Fault::Upstream(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// True if the client's connection cannot be trusted with another request.
    fn closes(self) -> bool {
        matches!(self, Fault::BadRequest(_) | Fault::BrokenBody)
    }

    /// The response.
    pub fn response(self, id: &RequestId, ending: Ending) -> Response<Body> {
        let text = format!("{} {self} (request {})\n", self.status().as_u16(), id.as_str());
        let mut response = Response::new(Body::own(Bytes::from(text), ending));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if self.closes() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self == Fault::Method {
            // RFC 9110 section 15.5.6 asks for the list; CONNECT and TRACE are all that is missing from it.
            headers
                .insert(http::header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"));
        }
        response
    }
}
