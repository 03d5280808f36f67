//! Health checks of every kind, and endpoints that run something else than their pool is for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use bytes::Bytes;
use teal::bridge::endpoint::Obstacle;
use teal::control::command::Refusal;

use super::support::http2::{self, Http2, Said};
use super::support::teal::Teal;
use super::support::upstream::{Act, Upstream, ok};

/// Obstacles and reason of green's endpoint.
fn green(teal: &Teal) -> (Vec<Obstacle>, Option<String>) {
    let endpoint = teal.shop_now().pools[1].endpoints[0].clone();
    (endpoint.obstacles, endpoint.reason)
}

fn switch() -> (Arc<AtomicBool>, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(false));
    (Arc::clone(&switch), switch)
}

fn answer(fields: &str, body: &str) -> Act {
    Act::Answer(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len()).into_bytes())
}

/// Requests beside the checks.
fn real(upstream: &Upstream) -> usize {
    upstream.arrived().iter().filter(|arrived| !arrived.line.contains("/healthz")).count()
}

#[test]
fn a_pool_that_reports_another_version_gets_nothing_and_nothing_is_deployed_to_it() {
    let (updated, told) = switch();
    let version = move || if told.load(SeqCst) { "v2" } else { "v1" };
    let upstream = Upstream::start(move |_| answer(&format!("X-Version: {}\r\n", version()), "green"));
    let blue = Upstream::plain("blue");
    let pools = [("blue", blue.url()), ("green", format!("{{ endpoints: ['{}'], version: v2 }}", upstream.url()))];
    let pools = pools.each_ref().map(|(name, text)| (*name, text.as_str()));
    let health = "health: { path: /healthz, interval: 100ms, timeout: 5s, version: { header: x-version } }\n";
    let more = format!("{health}overrides: [ {{ name: qa, match: {{ header: {{ x-qa: '1' }} }}, pool: green }} ]");
    let teal = Teal::with(&pools, &more);

    teal.until("it is found out", || green(&teal).0 == [Obstacle::WrongVersion]);
    assert_eq!(green(&teal).1.as_deref(), Some("reports v1, pool is v2"));
    let why = format!("pool `green` has no healthy endpoint: {} reports v1, pool is v2", upstream.url());
    assert_eq!(teal.deploy("green").unwrap_err().to_string(), why);
    let by_hand = teal.weigh(10).unwrap_err();
    assert!(matches!(by_hand, Refusal::Unhealthy { .. }));
    assert!(by_hand.to_string().ends_with("is wrong version (reports v1, pool is v2)"), "{by_hand}");
    let before = real(&upstream);
    assert_eq!(teal.client().get("/", "X-QA: 1\r\n").status, 503);
    assert_eq!(real(&upstream), before);
    assert_eq!(teal.told("health"), [format!("{} gets no requests: reports v1, pool is v2", upstream.url())]);

    updated.store(true, SeqCst);
    teal.until("the update is noticed", || green(&teal).0.is_empty());
    assert_eq!(teal.client().get("/", "X-QA: 1\r\n").body, "green");
    teal.weigh(100).unwrap();
    assert_eq!(teal.client().get("/", "").body, "green");

    updated.store(false, SeqCst);
    teal.until("the way back is noticed", || green(&teal).0 == [Obstacle::WrongVersion]);
    let before = real(&upstream);
    assert!((0..20).all(|_| teal.client().get("/", "").status == 503));
    assert_eq!(real(&upstream), before);
}

#[test]
fn a_digest_in_the_body_counts_like_a_version() {
    let right = Upstream::start(|_| answer("", r#"{"image": {"digest": "sha256:ab"}}"#));
    let silent = Upstream::plain("well");
    let pool =
        |upstream: &Upstream| format!("{{ endpoints: ['{}'], version: '7', reports: sha256:ab }}", upstream.url());
    let (blue, green_pool) = (pool(&right), pool(&silent));
    let health = "health: { path: /healthz, interval: 100ms, timeout: 5s, version: { json: /image/digest } }";
    let teal = Teal::with(&[("blue", &blue), ("green", &green_pool)], health);
    teal.until("it is found out", || green(&teal).0 == [Obstacle::WrongVersion]);
    let reason = "reports no version (its answer is not JSON), pool is sha256:ab";
    assert_eq!(green(&teal).1.as_deref(), Some(reason));
    assert_eq!(teal.client().get("/", "").status, 200);
}

#[test]
fn an_answer_must_be_what_is_expected_and_says_in_status_why_it_is_not() {
    let (sick, told) = switch();
    let upstream = Upstream::start(move |request| match (request.line.contains("/healthz"), told.load(SeqCst)) {
        (true, true) => answer("", "draining"),
        (true, false) => answer("", "all is well"),
        _ => Act::Answer(ok("green")),
    });
    let blue = Upstream::start(|_| answer("", "all is well"));
    let health = "health: { path: /healthz, method: GET, host: probe.test, headers: { X-Probe: teal }, interval: 100ms, timeout: 5s, unhealthy_after: 2, expect: { status: [200, 204], body: well } }";
    let teal = Teal::shop(&blue, &upstream, health);
    teal.until("it is checked", || upstream.count() > 2);
    let check = upstream.arrived().remove(0);
    assert_eq!((check.header("host"), check.header("x-probe")), (Some("probe.test"), Some("teal")));
    assert_eq!(green(&teal), (vec![], None));
    sick.store(true, SeqCst);
    teal.until("it is out", || green(&teal).0 == [Obstacle::Unhealthy]);
    assert_eq!(green(&teal).1.as_deref(), Some("answered 200, but without the expected text"));
    let refused = teal.deploy("green").unwrap_err().to_string();
    assert!(refused.ends_with("answered 200, but without the expected text"), "{refused}");
    sick.store(false, SeqCst);
    teal.until("it is back", || green(&teal).0.is_empty());
}

#[test]
fn a_new_endpoint_may_have_to_pass_its_first_check() {
    let (ready, told) = switch();
    let script = move |request: &super::support::upstream::Arrived| match request.line.contains("/healthz")
        && !told.load(SeqCst)
    {
        true => Act::Hang,
        false => Act::Answer(ok("ready")),
    };
    let slow = Upstream::start(script);
    let health = "health: { path: /healthz, interval: 100ms, timeout: 200ms, healthy_after: 1, initial: unhealthy }";
    let teal = Teal::with(&[("blue", &slow.url())], health);
    let endpoint = || teal.shop_now().pools[0].endpoints[0].clone();
    assert_eq!(endpoint().obstacles, [Obstacle::Unhealthy]);
    assert_eq!(teal.client().get("/", "").status, 503);
    teal.until("it failed its first check", || endpoint().reason.as_deref() == Some("no answer within 200ms"));
    ready.store(true, SeqCst);
    teal.until("it serves", || endpoint().obstacles.is_empty());
    assert_eq!(teal.client().get("/", "").body, "ready");
}

/// An answer of gRPC with this message.
fn grpc(message: &'static [u8]) -> Said {
    let fields = vec![("content-type", "application/grpc".to_owned())];
    let body = vec![Bytes::from_static(message)];
    Said { interim: Vec::new(), status: 200, fields, body, trailers: vec![("grpc-status", "0")] }
}

#[test]
fn grpc_health_takes_an_endpoint_out_and_brings_it_back() {
    let (stopped, told) = switch();
    let upstream = Http2::start(move |request| {
        let is_check = request.line.ends_with("/grpc.health.v1.Health/Check");
        http2::Act::Answer(match (is_check, told.load(SeqCst)) {
            (true, false) => grpc(b"\0\0\0\0\x02\x08\x01"),
            (true, true) => grpc(b"\0\0\0\0\x02\x08\x02"),
            (false, _) => http2::ok("cart"),
        })
    });
    let pool = upstream.pool("protocol: h2");
    let health = "health: { grpc: { service: shop.Cart }, interval: 100ms, timeout: 5s }";
    let teal = Teal::with(&[("blue", &pool), ("green", &pool)], health);
    teal.until("it is checked", || upstream.count() > 1);
    let check = upstream.arrived().remove(0);
    assert_eq!(check.body, b"\0\0\0\0\x0b\x0a\x09shop.Cart");
    assert_eq!((check.field("te"), check.field("content-type")), (Some("trailers"), Some("application/grpc")));
    assert_eq!(teal.client().get("/", "").body, "cart");
    stopped.store(true, SeqCst);
    teal.until("it is out", || green(&teal).0 == [Obstacle::Unhealthy]);
    assert_eq!(green(&teal).1.as_deref(), Some("gRPC health says NOT_SERVING"));
    stopped.store(false, SeqCst);
    teal.until("it is back", || green(&teal).0.is_empty());
}
