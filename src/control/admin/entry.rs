//! Who may come in: the checks before any handler, and what a caller says of itself in headers.
//!
//! Against pages in a browser: a page elsewhere shows itself by `Origin` or `Sec-Fetch-Site`, and a name that
//! was rebound to our address by its `Host`. An IP literal cannot be rebound, so every one is taken. Against
//! strangers: a bearer token, which no page can add; whoever shows it needs no `Host` check, so that a scraper may use a name.
//!
//! Invariant: nothing but the two probes answers a caller that fails a check.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, IF_MATCH, ORIGIN};
use http::{HeaderValue, StatusCode};

use crate::config::settings::Secret;
use crate::control::admin::wire::Problem;

const ACTOR: HeaderName = HeaderName::from_static("x-teal-actor");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// A name, kept in state and history.
const MAX_ACTOR: usize = 64;
/// A UUID is 36 bytes; kept with the rollout.
const MAX_KEY: usize = 128;
/// What probes ask; they say nothing of use to a stranger, and an orchestrator has no token.
const PROBES: [&str; 2] = ["/livez", "/readyz"];

/// The layer that lets a request in or not.
pub(super) async fn admit(State(token): State<Arc<Option<Secret>>>, request: Request, next: Next) -> Response {
    if PROBES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match check(request.headers(), (*token).as_ref()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// All checks of one request's headers.
fn check(headers: &HeaderMap, token: Option<&Secret>) -> Result<(), Problem> {
    let host = one(headers, &HOST)?.unwrap_or_default();
    if is_foreign(one(headers, &ORIGIN)?, one(headers, &FETCH_SITE)?, host) {
        let detail = "a page of another origin may not use the admin API";
        return Err(Problem::new(StatusCode::FORBIDDEN, "origin", detail));
    }
    match token {
        Some(token) if shows(one(headers, &AUTHORIZATION)?, token) => Ok(()),
        Some(_) => Err(Problem::new(StatusCode::UNAUTHORIZED, "token", "say `Authorization: Bearer TOKEN`")),
        None if is_local(host) => Ok(()),
        None => {
            let detail = "without a token the admin API is asked by IP address or as `localhost`, not by another name";
            Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "host", detail))
        }
    }
}

/// The only value of a header; two of them are an attempt to be read in two ways.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(HeaderValue::to_str).transpose();
    match (value, values.next()) {
        (Ok(value), None) => Ok(value),
        _ => Err(Problem::bad_request(format!("`{name}` must be there once, in visible ASCII"))),
    }
}

/// True for a `Host` that no foreign name server answers for.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    if host.contains('@') {
        return false;
    }
    let name = authority.host().to_ascii_lowercase();
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    // Names under `localhost` never leave the machine (RFC 6761, section 6.3).
    name == "localhost" || name.ends_with(".localhost") || literal.parse::<IpAddr>().is_ok()
}

/// True if a browser says that a page of another origin is behind the request.
fn is_foreign(origin: Option<&str>, fetch_site: Option<&str>, host: &str) -> bool {
    let own = |origin: &str| {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    fetch_site.is_some_and(|site| site.eq_ignore_ascii_case("cross-site")) || origin.is_some_and(|origin| !own(origin))
}

fn shows(authorization: Option<&str>, token: &Secret) -> bool {
    let Some((scheme, shown)) = authorization.and_then(|value| value.split_once(' ')) else { return false };
    scheme.eq_ignore_ascii_case("bearer") && same(shown.trim().as_bytes(), token.expose().as_bytes())
}

/// Compares in a time that depends on the length of `shown` alone, which its sender knows. An empty secret
/// equals nothing.
fn same(shown: &[u8], secret: &[u8]) -> bool {
    if secret.is_empty() {
        return false;
    }
    let pairs = shown.iter().zip(secret.iter().cycle());
    let differing = pairs.fold(0_u8, |seen, (a, b)| black_box(seen | (a ^ b)));
    black_box(differing) == 0 && shown.len() == secret.len()
}

/// The name that changes are made under: `X-Teal-Actor`, or `api`.
///
/// # Errors
/// When it is no short visible ASCII.
pub(super) fn actor(headers: &HeaderMap) -> Result<String, Problem> {
    Ok(word(headers, &ACTOR, MAX_ACTOR)?.unwrap_or("api").to_owned())
}

/// The key under which a repeated order is the same order.
///
/// # Errors
/// When it is no short visible ASCII.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    Ok(word(headers, &IDEMPOTENCY_KEY, MAX_KEY)?.map(str::to_owned))
}

fn word<'a>(headers: &'a HeaderMap, name: &HeaderName, limit: usize) -> Result<Option<&'a str>, Problem> {
    match one(headers, name)? {
        Some(value) if value.is_empty() || value.len() > limit || !value.bytes().all(|b| b.is_ascii_graphic()) => {
            Err(Problem::bad_request(format!("`{name}` takes 1 to {limit} visible ASCII characters without spaces")))
        }
        value => Ok(value),
    }
}

/// The epoch that an order was decided on: `If-Match: "7"`. `*` and a missing header mean any.
///
/// # Errors
/// When it is no tag that an answer carried.
pub(super) fn expected_epoch(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(tag) = one(headers, &IF_MATCH)?.filter(|tag| *tag != "*") else { return Ok(None) };
    let digits = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    match digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_digit())).map(str::parse) {
        Some(Ok(epoch)) => Ok(Some(epoch)),
        _ => Err(Problem::bad_request("`If-Match` takes one `ETag` as it was answered, such as \"7\"")),
    }
}

/// Where a follower of events left off: `Last-Event-ID`.
///
/// # Errors
/// When it is no id.
pub(super) fn last_event(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let id = one(headers, &LAST_EVENT_ID)?.filter(|id| !id.is_empty());
    let number = |id: &str| id.parse().map_err(|_| Problem::bad_request("`Last-Event-ID` takes the id of an event"));
    id.map(number).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        let value = |value: &str| HeaderValue::from_str(value).expect("a value");
        let mut headers = HeaderMap::new();
        for (name, text) in fields {
            headers.append(name, value(text));
        }
        headers
    }

    fn status(fields: &[(HeaderName, &str)], token: Option<&Secret>) -> u16 {
        check(&headers(fields), token).map_or_else(|problem| problem.status, |()| 200)
    }

    #[test]
    fn a_rebound_name_is_misdirected() {
        let local = ["localhost", "LocalHost:9900", "teal.localhost:9900", "127.0.0.1:9900", "[::1]:9900", "10.1.2.3"];
        for host in local {
            assert_eq!(status(&[(HOST, host)], None), 200, "{host}");
        }
        let foreign = [
            "evil.example",
            "evil.example:9900",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.nip.io",
            "127.1",
            "2130706433",
            "localhost@evil.example",
            "evil.example@localhost",
            "",
            "[::1",
        ];
        for host in foreign {
            assert_eq!(status(&[(HOST, host)], None), 421, "{host}");
        }
        assert_eq!(status(&[], None), 421);
        assert_eq!(status(&[(HOST, "localhost"), (HOST, "evil.example")], None), 400);
    }

    #[test]
    fn a_foreign_page_is_forbidden() {
        let host = (HOST, "127.0.0.1:9900");
        let table = [
            ((ORIGIN, "http://127.0.0.1:9900"), 200),
            ((ORIGIN, "https://127.0.0.1:9900"), 200),
            ((ORIGIN, "http://127.0.0.1:3000"), 403),
            ((ORIGIN, "http://evil.example"), 403),
            ((ORIGIN, "null"), 403),
            ((ORIGIN, "ftp://127.0.0.1:9900"), 403),
            ((FETCH_SITE, "cross-site"), 403),
            ((FETCH_SITE, "same-origin"), 200),
            ((FETCH_SITE, "none"), 200),
        ];
        for (field, expected) in table {
            assert_eq!(status(&[host.clone(), field.clone()], None), expected, "{field:?}");
        }
    }

    #[test]
    fn a_token_is_asked_for_and_opens_any_name() {
        let token = Secret::new("correct horse".to_owned());
        let table = [
            (Some("Bearer correct horse"), 200),
            (Some("bearer  correct horse"), 200),
            (Some("Bearer correct hors"), 401),
            (Some("Bearer correct horsecorrect horse"), 401),
            (Some("Bearer "), 401),
            (Some("Bearer"), 401),
            (Some("Basic correct horse"), 401),
            (None, 401),
        ];
        for (shown, expected) in table {
            for host in ["teal.internal:9900", "localhost"] {
                let mut fields = vec![(HOST, host)];
                fields.extend(shown.map(|shown| (AUTHORIZATION, shown)));
                assert_eq!(status(&fields, Some(&token)), expected, "{shown:?}");
            }
        }
        let foreign = [(HOST, "localhost"), (ORIGIN, "http://evil.example"), (AUTHORIZATION, "Bearer correct horse")];
        assert_eq!(status(&foreign, Some(&token)), 403);
    }

    #[test]
    fn comparing_is_exact() {
        let table = [("a", "a", true), ("a", "b", false), ("", "", false), ("", "a", false), ("a", "", false)];
        let more = [("aa", "a", false), ("a", "aa", false), ("abab", "ab", false), ("ab", "ab", true)];
        for (shown, secret, expected) in table.into_iter().chain(more) {
            assert_eq!(same(shown.as_bytes(), secret.as_bytes()), expected, "{shown} {secret}");
        }
    }

    #[test]
    fn callers_name_themselves_in_short_words() {
        assert_eq!(actor(&headers(&[])).unwrap(), "api");
        assert_eq!(actor(&headers(&[(ACTOR, "ci@shop")])).unwrap(), "ci@shop");
        let long = "x".repeat(MAX_ACTOR + 1);
        for bad in ["", "two words", "a\tb", &long] {
            assert_eq!(actor(&headers(&[(ACTOR, bad)])).unwrap_err().status, 400, "{bad:?}");
        }
        assert_eq!(idempotency_key(&headers(&[(IDEMPOTENCY_KEY, "42")])).unwrap().as_deref(), Some("42"));
        assert!(idempotency_key(&headers(&[(IDEMPOTENCY_KEY, &"k".repeat(MAX_KEY + 1))])).is_err());
    }

    #[test]
    fn tags_and_ids_are_read_exactly() {
        let epoch = |tag| expected_epoch(&headers(&[(IF_MATCH, tag)])).map_err(|problem| problem.status);
        let table = [("\"7\"", Ok(Some(7))), ("*", Ok(None)), ("7", Err(400)), ("W/\"7\"", Err(400))];
        let more = [("\"7\", \"8\"", Err(400)), ("\"\"", Err(400)), ("\"+7\"", Err(400))];
        for (tag, expected) in table.into_iter().chain(more) {
            assert_eq!(epoch(tag), expected, "{tag}");
        }
        assert_eq!(expected_epoch(&HeaderMap::new()).unwrap(), None);
        assert_eq!(last_event(&headers(&[(LAST_EVENT_ID, "12")])).unwrap(), Some(12));
        assert_eq!(last_event(&headers(&[(LAST_EVENT_ID, "")])).unwrap(), None);
        assert!(last_event(&headers(&[(LAST_EVENT_ID, "x")])).is_err());
    }
}
