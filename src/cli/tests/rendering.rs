//! What people read, as exact texts.

use super::rollout;
use crate::cli::text;
use crate::control::admin::wire::{
    ActiveFault, Breaker, Concurrency, Done, EndpointStatus, Event, Intake, JudgeStatus, Judged, Ordered, PoolStatus,
    RateLimit, Reloaded, ServiceStatus, Services,
};

fn counts<const N: usize>(entries: [(&str, u64); N]) -> Ordered<u64> {
    Ordered(entries.into_iter().map(|(name, count)| (name.to_owned(), count)).collect())
}

fn pool(name: &str, share: &str) -> PoolStatus {
    PoolStatus {
        name: name.to_owned(),
        share: share.to_owned(),
        rolled_back: false,
        in_flight: 0,
        responses: counts([("1xx", 0), ("2xx", 0), ("3xx", 0), ("4xx", 0), ("5xx", 0)]),
        failures: counts([("no_endpoint", 0), ("connect", 0), ("reset", 0), ("timeout", 0), ("truncated", 0)]),
        retries: 0,
        rescued: 0,
        rescue_refused: counts([("method", 0), ("body", 0), ("budget", 0), ("baseline", 0)]),
        p50_us: None,
        p99_us: None,
        panics: false,
        priorities: Ordered(vec![("0".to_owned(), "100%".to_owned())]),
        breaker: None,
        room: Default::default(),
        endpoints: vec![endpoint("http://127.0.0.1:3001", "healthy")],
    }
}

fn endpoint(address: &str, health: &str) -> EndpointStatus {
    let obstacles = if health == "unhealthy" { vec![health.to_owned()] } else { Vec::new() };
    EndpointStatus {
        address: address.to_owned(),
        weight: 1,
        priority: 0,
        health: health.to_owned(),
        obstacles,
        reason: None,
        in_flight: 0,
        breaker: None,
    }
}

/// A service at rest.
pub(super) fn service() -> ServiceStatus {
    ServiceStatus {
        name: "shop".to_owned(),
        hosts: vec![],
        paths: vec![],
        active: "blue".to_owned(),
        epoch: 3,
        guard: "rollback".to_owned(),
        pools: vec![pool("blue", "100%"), pool("green", "0%")],
        rollout: None,
        judge: None,
        intake: Intake::default(),
        faults: vec![],
        changed_by: "ops".to_owned(),
        changed_at: "2026-01-02T03:04:05.006Z".to_owned(),
    }
}

fn busy() -> ServiceStatus {
    let mut status = service();
    status.epoch = 42;
    let blue = &mut status.pools[0];
    blue.share = "95%".to_owned();
    blue.in_flight = 12;
    blue.responses = counts([("2xx", 123_456), ("4xx", 78), ("5xx", 3)]);
    (blue.p50_us, blue.p99_us) = (Some(850), Some(12_345));
    let green = &mut status.pools[1];
    green.share = "5%".to_owned();
    green.responses = counts([("2xx", 6_400), ("5xx", 21)]);
    green.failures = counts([("connect", 2), ("timeout", 1)]);
    green.rescued = 19;
    (green.p50_us, green.p99_us) = (Some(1_250), Some(2_500_000));
    green.endpoints =
        vec![endpoint("http://10.0.0.21:8080", "unhealthy"), endpoint("http://10.0.0.22:8080", "unknown")];
    green.priorities = Ordered([("0", "70%"), ("1", "30%")].map(|(p, s)| (p.to_owned(), s.to_owned())).to_vec());
    green.panics = true;
    let mut other = endpoint("http://10.0.0.23:8080", "healthy");
    other.obstacles = vec!["wrong_version".to_owned(), "ejected".to_owned()];
    other.reason = Some("reports v1, pool is v2; 5 gateway failures in a row, out for 10s".to_owned());
    green.endpoints.push(other);
    status.rollout = Some(rollout(None));
    status.judge = Some(JudgeStatus {
        canary: "green".to_owned(),
        baseline: "blue".to_owned(),
        evidence: 4.2,
        needed: 100.0,
        p: 0.24,
        canary_requests: Judged { all: 6_424, bad: 24 },
        baseline_requests: Judged { all: 123_537, bad: 3 },
        approved: false,
        sentence: "green fails 0.37% against 0.00% of blue: evidence 4.2 of 100".to_owned(),
    });
    status
}

#[test]
fn a_service_at_work() {
    let expected = "\
shop: active blue, epoch 42
  POOL   SHARE  IN-FLIGHT     2XX  4XX  5XX  FAILED  RESCUED    P50    P99  HEALTHY
  blue     95%         12  123456   78    3       0        0  850us   12ms      1/1  active
  green     5%          0    6400    0   21       3       19  1.2ms  2.50s      1/3
  unhealthy  http://10.0.0.21:8080 of green
  wrong version, ejected  http://10.0.0.23:8080 of green: reports v1, pool is v2; 5 gateway failures in a row, out for 10s
  priority   0: 70%, 1: 30% of green
  panic      green: ejections and breakers of its endpoints do not count
  rollout  blue to green, step 3 of 7: analysis at 5%
  judge    green fails 0.37% against 0.00% of blue: evidence 4.2 of 100
";
    assert_eq!(text::service(&busy()), expected);
}

#[test]
fn a_breaker_is_shown_while_it_is_not_closed() {
    let breaker = |state: &str, wait_ms| {
        let reason = "5 errors in a row".to_owned();
        Some(Breaker { state: state.to_owned(), trips: 2, wait_ms, reason, diverted: 7, blocked: 0 })
    };
    let mut status = service();
    status.pools[0].breaker = breaker("closed", None);
    status.pools[1].breaker = breaker("open", Some(3_200));
    status.pools[1].endpoints[0].breaker = breaker("half_open", None);
    status.pools[1].room.queued_too_long = 4;
    let expected = "  breaker  green open for 3.20s: 5 errors in a row (opened 2 times)
  breaker  http://127.0.0.1:3001 of green half open: 5 errors in a row (opened 2 times)
  limits   green: 0 wait, 4 turned away
";
    let text = text::service(&status);
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn services_at_rest_stand_one_below_the_other() {
    let mut other = service();
    other.name = "api".to_owned();
    other.pools[1].rolled_back = true;
    let expected = "\
shop: active blue, epoch 3
  POOL   SHARE  IN-FLIGHT  2XX  4XX  5XX  FAILED  RESCUED  P50  P99  HEALTHY
  blue    100%          0    0    0    0       0        0    -    -      1/1  active
  green     0%          0    0    0    0       0        0    -    -      1/1

api: active blue, epoch 3
  POOL   SHARE  IN-FLIGHT  2XX  4XX  5XX  FAILED  RESCUED  P50  P99  HEALTHY
  blue    100%          0    0    0    0       0        0    -    -      1/1  active
  green     0%          0    0    0    0       0        0    -    -      1/1  rolled back
";
    assert_eq!(text::services(&Services { services: vec![service(), other] }), expected);
    assert_eq!(text::services(&Services { services: vec![] }), "");
}

#[test]
fn an_injected_fault_is_the_first_thing_said() {
    let fault = |name: &str, pool: Option<&str>, partial| ActiveFault {
        name: name.to_owned(),
        pool: pool.map(str::to_owned),
        partial,
        share: "10%".to_owned(),
        effect: "answered 503".to_owned(),
        left_ms: 61_001,
        injected: 37,
    };
    let faults = vec![fault("fault-1", Some("green"), false), fault("slow", None, true)];
    let expected = "\
!! FAULT INJECTED into shop (fault-1): 10% of green is answered 503; 37 so far, 1m 2s left
!! FAULT INJECTED into shop (slow): 10% of every pool where it matches is answered 503; 37 so far, 1m 2s left
";
    assert_eq!(text::faults("shop", &faults), expected);
    let status = ServiceStatus { faults, ..service() };
    assert!(text::service(&status).starts_with(&format!("{expected}shop: active blue")));
    assert_eq!(text::faults("shop", &[]), "shop: no fault is injected");
}

#[test]
fn limits_say_what_they_refused() {
    let limit = |name: &str, route: Option<&str>, rate: &str, refused| RateLimit {
        name: name.to_owned(),
        route: route.map(str::to_owned),
        rate: rate.to_owned(),
        burst: 1,
        refused,
        crowded: 0,
    };
    let mut status = service();
    status.intake = Intake {
        rate_limits: vec![limit("all", None, "1000/s", 0), limit("guesses", Some("login"), "5/m", 12)],
        concurrency: Some(Concurrency { in_flight: 40, limit: 200, shed: 7 }),
    };
    let expected = "\
  limit    all, 1000/s: 0 refused
  limit    guesses of route login, 5/m: 12 refused
  in flight 40 of 200, 7 refused
";
    let text = text::service(&status);
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn a_rollout_says_where_it_is_and_why_once() {
    let at = |phase: &str, held: Option<&str>, reason: &str| {
        let mut rollout = rollout(None);
        rollout.phase = phase.to_owned();
        rollout.held = held.map(str::to_owned);
        rollout.reason = reason.to_owned();
        text::rollout(&rollout)
    };
    let begin = "rollout r1 of shop from blue to green, ";
    let place = "step 3 of 7: analysis at 5%";
    assert_eq!(at("analyzing", None, ""), format!("{begin}{place}"));
    assert_eq!(at("analyzing", None, "resumed"), format!("{begin}{place}: resumed"));
    let paused = format!("{place}: paused by ops");
    assert_eq!(at("held", Some("paused"), &paused), format!("{begin}held (paused): {paused}"));
    assert_eq!(at("rolling_back", None, "9 of 40 failed"), format!("{begin}rolling back: {place}: 9 of 40 failed"));
}

#[test]
fn a_rollout_that_is_over_says_how_and_why() {
    let why = "step 3 of 7: analysis at 5%: 9 of 40 failed";
    assert_eq!(text::rollout(&rollout(Some("rolled_back"))), format!("rollout of shop rolled back: {why}"));
    let mut promoted = rollout(Some("promoted"));
    promoted.reason = String::new();
    assert_eq!(text::rollout(&promoted), "rollout of shop promoted");
    promoted.verdict = "good enough".to_owned();
    assert_eq!(text::rollout(&promoted), "rollout of shop promoted: good enough");
}

#[test]
fn changes_say_what_holds_now() {
    let weights = Ordered(vec![("blue".to_owned(), "90%".to_owned()), ("green".to_owned(), "10%".to_owned())]);
    let done = Done { epoch: 43, version: 9, acknowledged_us: 1_234, weights };
    let expected = "shop: blue 90%, green 10% (epoch 43, every worker switched within 1.2ms)";
    assert_eq!(text::done("shop", &done), expected);

    let mut reloaded = Reloaded { version: 9, changed: true, needs_restart: vec![] };
    assert_eq!(text::reloaded(&reloaded), "reloaded: table version 9\n");
    reloaded.needs_restart = vec!["listen".to_owned(), "workers".to_owned()];
    reloaded.changed = false;
    let expected =
        "nothing changed: the file says what is running\nneeds a restart: listen\nneeds a restart: workers\n";
    assert_eq!(text::reloaded(&reloaded), expected);
}

#[test]
fn an_event_is_one_line() {
    let mut event = Event {
        id: 7,
        at: "2026-01-02T03:04:05.006Z".to_owned(),
        service: Some("shop".to_owned()),
        rollout: None,
        kind: "weights".to_owned(),
        sentence: "blue 90%,\ngreen 10%".to_owned(),
        took_us: None,
    };
    assert_eq!(text::event(&event), "2026-01-02T03:04:05.006Z  shop  weights: blue 90%, green 10%");
    event.service = None;
    assert_eq!(text::event(&event), "2026-01-02T03:04:05.006Z  teal  weights: blue 90%, green 10%");
}

#[test]
fn latencies_have_the_unit_that_fits() {
    let table = [
        (0, "0us"),
        (999, "999us"),
        (1_000, "1.0ms"),
        (9_949, "9.9ms"),
        (9_950, "10ms"),
        (999_499, "999ms"),
        (999_500, "1.00s"),
        (61_000_000, "61.00s"),
    ];
    for (micros, expected) in table {
        let done = Done { epoch: 1, version: 1, acknowledged_us: micros, weights: Ordered::default() };
        assert_eq!(text::done("s", &done), format!("s:  (epoch 1, every worker switched within {expected})"));
    }
}
