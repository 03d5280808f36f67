//! Why something was not done: the one place that turns refusals into answers (RFC 9457).
//!
//! Invariant: every answer of 400 and above is `application/problem+json`; what came without is clothed here.

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};

use crate::control::admin::wire::Problem;
use crate::control::command::Refusal;

/// Text that a library's own refusal may carry; it is a sentence.
const MAX_TEXT: usize = 4 * 1024;

impl Problem {
    /// A problem with a stable `code`.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Problem {
        Problem {
            problem_type: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            instance: None,
            code: code.to_owned(),
            suggestion: None,
            current_epoch: None,
        }
    }

    /// A request that cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }
}

/// The answer to a refusal of the controller.
pub(super) fn problem_of(refusal: &Refusal) -> Problem {
    let (status, code) = match refusal {
        Refusal::Unknown { .. } => (StatusCode::NOT_FOUND, "unknown"),
        Refusal::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        Refusal::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
        Refusal::Stale { .. } => (StatusCode::PRECONDITION_FAILED, "stale"),
        Refusal::Unhealthy { .. } => (StatusCode::CONFLICT, "unhealthy"),
        Refusal::Config(_) => (StatusCode::UNPROCESSABLE_ENTITY, "config"),
        Refusal::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        Refusal::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
    };
    let mut problem = Problem::new(status, code, refusal.to_string());
    match refusal {
        Refusal::Unknown { suggestion, .. } => problem.suggestion.clone_from(suggestion),
        Refusal::Stale { current, .. } => problem.current_epoch = Some(*current),
        _ => {}
    }
    problem
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        problem_of(&refusal)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"teal\""));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The outermost layer: every problem names the path it is about, every bare error becomes a problem, and
/// nothing is cached or guessed at.
pub(super) async fn clothe(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if response.status().is_client_error() || response.status().is_server_error() {
        response = clothed(path, response).await;
    }
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn clothed(path: String, response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    let mut problem = match head.extensions.remove::<Problem>() {
        Some(problem) => problem,
        None => bare(head.status, head.headers.get(ALLOW), &path, body).await,
    };
    problem.instance = Some(path);
    let mut response = problem.into_response();
    // What the bare answer said beside its body (`Allow`, `Connection`) still holds.
    head.headers.remove(CONTENT_TYPE);
    head.headers.remove(CONTENT_LENGTH);
    response.headers_mut().extend(head.headers);
    response
}

/// The problem of an answer that comes from the router or an extractor.
async fn bare(status: StatusCode, allow: Option<&HeaderValue>, path: &str, body: Body) -> Problem {
    let text = axum::body::to_bytes(body, MAX_TEXT).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    match status {
        StatusCode::NOT_FOUND => {
            Problem::new(status, "not_found", format!("there is nothing at {path}; GET / lists what there is"))
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let allowed = allow.and_then(|value| value.to_str().ok()).unwrap_or("nothing");
            Problem::new(status, "method_not_allowed", format!("{path} answers to {allowed}"))
        }
        _ if status.is_client_error() => Problem::new(status, "bad_request", text),
        _ => Problem::new(status, "failed", text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_status() {
        let unknown = Refusal::Unknown { kind: "pool", name: "gren".to_owned(), suggestion: Some("green".to_owned()) };
        let unhealthy = Refusal::Unhealthy { pool: "green".to_owned(), detail: "all two refuse".to_owned() };
        let table = [
            (unknown, 404, "unknown", "there is no pool `gren`; did you mean `green`?"),
            (Refusal::Invalid("no".to_owned()), 422, "invalid", "no"),
            (Refusal::Conflict("busy".to_owned()), 409, "conflict", "busy"),
            (
                Refusal::Stale { expected: 3, current: 5 },
                412,
                "stale",
                "the service is at epoch 5, not 3: look again and decide anew",
            ),
            (unhealthy, 409, "unhealthy", "pool `green` has no healthy endpoint: all two refuse"),
            (Refusal::Config("line 3".to_owned()), 422, "config", "line 3"),
            (Refusal::Failed("worker 1".to_owned()), 500, "failed", "worker 1"),
            (Refusal::ShuttingDown, 503, "shutting_down", "teal is shutting down"),
        ];
        for (refusal, status, code, detail) in table {
            let problem = problem_of(&refusal);
            assert_eq!((problem.status, problem.code.as_str(), problem.detail.as_str()), (status, code, detail));
            assert_eq!(problem.suggestion.as_deref(), (code == "unknown").then_some("green"));
            assert_eq!(problem.current_epoch, (code == "stale").then_some(5));
        }
    }

    #[test]
    fn a_problem_is_as_rfc_9457_says() {
        let text = serde_json::to_string(&problem_of(&Refusal::Stale { expected: 3, current: 5 })).unwrap();
        assert_eq!(
            text,
            "{\"type\":\"about:blank\",\"title\":\"Precondition Failed\",\"status\":412,\
             \"detail\":\"the service is at epoch 5, not 3: look again and decide anew\",\
             \"code\":\"stale\",\"current_epoch\":5}"
        );
    }
}
