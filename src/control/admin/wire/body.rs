//! From the bytes of a request to its JSON type, and why not.
//!
//! Invariant: never more than [`MAX_BODY`] of a body is held, whatever its `Content-Length` claims.

use axum::body::Body;
use axum::extract::Request;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{StatusCode, request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::control::admin::wire::Problem;

/// Far above any honest order; a plan of 64 steps takes 3 KiB.
pub(in crate::control::admin) const MAX_BODY: usize = 64 * 1024;

/// Reads a body that must be there.
///
/// # Errors
/// 415 if it does not claim to be JSON, 413 if it is too large, 400 if it is not what `T` asks for.
pub(in crate::control::admin) async fn required<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let (head, body) = request.into_parts();
    let bytes = whole(body).await?;
    parse(&head, &bytes)
}

/// Reads a body that may be missing.
///
/// # Errors
/// As [`required`], for a body that is there.
pub(in crate::control::admin) async fn optional<T: DeserializeOwned + Default>(request: Request) -> Result<T, Problem> {
    let (head, body) = request.into_parts();
    let bytes = whole(body).await?;
    if bytes.is_empty() { Ok(T::default()) } else { parse(&head, &bytes) }
}

async fn whole(body: Body) -> Result<bytes::Bytes, Problem> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let detail = format!("the body is larger than {} KiB", MAX_BODY / 1024);
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail))
        }
        Err(_) => Err(Problem::bad_request("the body was cut off")),
    }
}

fn parse<T: DeserializeOwned>(head: &request::Parts, bytes: &[u8]) -> Result<T, Problem> {
    if !says_json(&head.headers) {
        let detail = "say `Content-Type: application/json`, and mean it";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", detail));
    }
    // serde_json names line and column, and stops at a depth of 128.
    serde_json::from_slice(bytes).map_err(|error| Problem::bad_request(format!("the body: {error}")))
}

/// A page elsewhere can send `text/plain` without asking; `application/json` it cannot.
fn says_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::admin::wire::{Action, Deploy, Ordered, Rollback, Weights};

    fn request(content_type: &str, body: impl Into<Body>) -> Request {
        Request::builder().header(CONTENT_TYPE, content_type).body(body.into()).expect("a request")
    }

    async fn refused<T: DeserializeOwned + std::fmt::Debug>(body: &str) -> String {
        let problem = required::<T>(request("application/json", body.to_owned())).await.unwrap_err();
        assert_eq!((problem.status, problem.code.as_str()), (400, "bad_request"), "{body}");
        problem.detail
    }

    #[tokio::test]
    async fn a_body_must_say_that_it_is_json() {
        let body = r#"{"weights": {"green": "10%"}}"#;
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/json ;x=y"] {
            let weights = required::<Weights>(request(good, body)).await.unwrap();
            assert_eq!(weights.weights, Ordered(vec![("green".to_owned(), "10%".to_owned())]));
        }
        for bad in ["text/plain", "application/json5", "application/x-www-form-urlencoded", ""] {
            assert_eq!(required::<Weights>(request(bad, body)).await.unwrap_err().status, 415, "{bad}");
        }
        assert_eq!(required::<Weights>(Request::new(Body::from(body))).await.unwrap_err().status, 415);
    }

    #[tokio::test]
    async fn what_json_does_not_say_is_refused_with_its_place() {
        assert!(refused::<Weights>("{\"weights\":\n {\"green\" \"1%\"}}").await.contains("line 2 column 11"));
        assert!(refused::<Weights>(r#"{"weights": {}, "force": true}"#).await.contains("unknown field `force`"));
        assert!(refused::<Weights>(r#"{"weights": {"a": "1%", "a": "2%"}}"#).await.contains("`a` is named twice"));
        assert!(refused::<Weights>(r#"{"weights": {"a": 1e999}}"#).await.contains("out of range"));
        assert!(refused::<Weights>(r#"{"weights": {"a": 10}}"#).await.contains("expected a string"));
        assert!(refused::<Weights>("").await.contains("EOF"));
        assert!(refused::<Weights>(&"[".repeat(10_000)).await.contains("the body"));
        assert!(refused::<Action>(r#"{"action": "explode"}"#).await.contains("`approve`"));
        assert!(
            refused::<Deploy>(r#"{"to": "green", "plan": {"steps": [{"wait": "2m"}]}}"#).await.contains("`weight`")
        );
        let analyze = r#"{"to": "green", "plan": {"steps": [{"analyze": {"dwell": "2m", "until": "3m"}}]}}"#;
        assert!(refused::<Deploy>(analyze).await.contains("a duration such as"));
    }

    #[tokio::test]
    async fn a_body_has_a_limit_and_may_be_missing_where_all_of_it_is_optional() {
        let long = format!("{{\"reason\": \"{}\"}}", "x".repeat(MAX_BODY));
        assert_eq!(optional::<Rollback>(request("application/json", long)).await.unwrap_err().status, 413);
        assert_eq!(optional::<Rollback>(Request::new(Body::empty())).await.unwrap(), Rollback::default());
        let said = optional::<Rollback>(request("application/json", r#"{"reason": "slow"}"#)).await.unwrap();
        assert_eq!(said.reason.as_deref(), Some("slow"));
    }
}
