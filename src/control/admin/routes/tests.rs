//! The layers around the routes, without sockets and without a controller.

use axum::body::Body;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, HOST, WWW_AUTHENTICATE};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::sync::oneshot;

use super::*;

/// A few routes of each kind under the real layers.
fn small(token: Option<&str>) -> Router {
    let echo = async |Path(name): Path<String>, Query(limit): Query<wire::Limit>, request: Request| -> Answer {
        let reason = body::optional::<wire::Rollback>(request).await?.resolve()?;
        Ok(tagged(7, format!("{name} {limit:?} {reason}")))
    };
    let routes = Router::new()
        .route("/echo/{name}", post(echo))
        .route("/slow", get(async || std::future::pending::<()>().await))
        .route("/livez", get(async || "alive\n"));
    guarded(routes, token.map(|token| Secret::new(token.to_owned())))
}

async fn ask(router: Router, request: http::request::Builder, body: &str) -> Response {
    let request = request.body(Body::from(body.to_owned())).expect("a request");
    TowerToHyperService::new(router).call(request).await.expect("infallible")
}

fn local(method: &str, path: &str) -> http::request::Builder {
    http::Request::builder().method(method).uri(path).header(HOST, "localhost:9900")
}

/// The problem of an answer, which must say that it is one.
async fn problem(response: Response) -> Problem {
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    let problem: Problem = serde_json::from_slice(&bytes).expect("a problem");
    assert_eq!(problem.status, status.as_u16());
    problem
}

#[tokio::test]
async fn every_error_is_a_problem_that_names_its_path() {
    let json = "application/json";
    let table = [
        ("GET", "/nowhere", "", "", 404, "not_found"),
        ("GET", "/echo/shop", "", "", 405, "method_not_allowed"),
        ("DELETE", "/livez", "", "", 405, "method_not_allowed"),
        ("POST", "/echo/%ff", "", "", 400, "bad_request"),
        ("POST", "/echo/shop?limit=many", "", "", 400, "bad_request"),
        ("POST", "/echo/shop?lmit=3", "", "", 400, "bad_request"),
        ("POST", "/echo/shop", json, "{", 400, "bad_request"),
        ("POST", "/echo/shop", json, "{\"resaon\": \"x\"}", 400, "bad_request"),
        ("POST", "/echo/shop", "text/plain", "{}", 415, "media_type"),
        ("POST", "/echo/shop", json, "{\"reason\": \"a\\u0007\"}", 422, "invalid"),
    ];
    for (method, path, content_type, body, status, code) in table {
        let request = local(method, path).header(CONTENT_TYPE, content_type);
        let problem = problem(ask(small(None), request, body).await).await;
        assert_eq!((problem.status, problem.code.as_str()), (status, code), "{method} {path} {body}");
        assert_eq!(problem.instance.as_deref(), path.split('?').next());
        assert!(!problem.detail.is_empty(), "{method} {path}");
    }
    let long = format!("{{\"reason\": \"{}\"}}", "x".repeat(body::MAX_BODY));
    let request = local("POST", "/echo/shop").header(CONTENT_TYPE, json);
    assert_eq!(problem(ask(small(None), request, &long).await).await.code, "too_large");
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_one() {
    let response = ask(small(None), local("GET", "/echo/shop"), "").await;
    assert_eq!(response.headers()[ALLOW], "POST");
    assert_eq!(problem(response).await.detail, "/echo/shop answers to POST");
}

#[tokio::test]
async fn strangers_are_kept_out_but_probes_are_answered() {
    let no_token = || http::Request::builder().uri("/livez");
    assert_eq!(ask(small(Some("secret")), no_token(), "").await.status(), 200);
    let response = ask(small(Some("secret")), local("GET", "/nowhere"), "").await;
    assert!(response.headers()[WWW_AUTHENTICATE].to_str().is_ok_and(|value| value.starts_with("Bearer")));
    assert_eq!(problem(response).await.code, "token");
    let shown = local("GET", "/nowhere").header(AUTHORIZATION, "Bearer secret");
    assert_eq!(problem(ask(small(Some("secret")), shown, "").await).await.code, "not_found");
    let rebound = http::Request::builder().uri("/nowhere").header(HOST, "evil.example");
    assert_eq!(problem(ask(small(None), rebound, "").await).await.code, "host");
    let page = local("POST", "/echo/shop").header("origin", "http://evil.example");
    assert_eq!(problem(ask(small(None), page, "").await).await.code, "origin");
}

#[tokio::test]
async fn a_good_answer_passes_untouched() {
    let response = ask(small(None), local("POST", "/echo/shop?limit=3"), "").await;
    assert_eq!((response.status(), &response.headers()[ETAG]), (StatusCode::OK, &HeaderValue::from_static("\"7\"")));
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 10).await.expect("a body");
    assert_eq!(bytes, "shop Limit { limit: Some(3) } ");
}

#[tokio::test(start_paused = true)]
async fn patience_ends() {
    let problem = problem(ask(small(None), local("GET", "/slow"), "").await).await;
    assert_eq!((problem.status, problem.code.as_str()), (503, "timeout"));
}

#[tokio::test]
async fn a_change_is_finished_though_nobody_waits() {
    let (go, gone) = oneshot::channel::<()>();
    let (done, finished) = oneshot::channel();
    let mut change = Box::pin(finish(async move {
        let _ = gone.await;
        let _ = done.send(());
        Ok(())
    }));
    assert!(std::future::poll_fn(|context| std::task::Poll::Ready(change.as_mut().poll(context))).await.is_pending());
    drop(change);
    go.send(()).expect("the change still waits");
    assert_eq!(finished.await, Ok(()));
}

#[test]
fn the_overview_names_every_route() {
    let lines: Vec<&str> = OVERVIEW.lines().filter(|line| line.contains('/')).collect();
    let source = include_str!("../routes.rs");
    let routes = source.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")?.split('"').next());
    let mut counted = 0;
    for route in routes {
        let shown = route.replace("{service}", "{s}").replace("/v1/services/{s}/status", "/v1/services/{s}");
        let named = |line: &&str| line.split([' ', ',']).any(|word| word == shown);
        assert!(route == "/" || lines.iter().any(named), "{route}");
        counted += 1;
    }
    assert_eq!(counted, 16);
}
