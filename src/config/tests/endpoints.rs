//! What is said of endpoints' health, versions and ejection.

use std::num::NonZeroU32;

use super::*;
use crate::config::settings::{Health, Initial, Question};
use crate::domain::health::{BodyTest, Statuses, VersionSource};
use crate::domain::outlier::{FailureShare, Latency, Least, Policy, SuccessRate};

/// A service of pools with versions, and `lines`.
fn versioned(lines: &str) -> String {
    format!(
        "version: 1\nservices:\n  shop:\n    pools: {{ blue: {{ endpoints: 'http://a', version: '1' }}, green: {{ endpoints: 'http://b', version: '2', reports: sha256:ab }} }}\n    {lines}\n"
    )
}

#[test]
fn a_check_is_read_with_all_it_asks_and_expects() {
    let lines = "health: { path: /h, method: OPTIONS, host: 'x:1', headers: { X-A: 'b c' }, expect: { status: [200, 300-399], body: { regex: 'a|b' } }, initial: unhealthy, version: { json: /v } }";
    let service = parse(&versioned(lines)).unwrap().services.remove(0);
    let Probe::Http(question) = &service.health.probe else { panic!("{:?}", service.health) };
    let expected = Question {
        method: "OPTIONS",
        host: Some("x:1".into()),
        headers: vec![("x-a".into(), "b c".into())],
        statuses: Statuses::new(vec![200..=200, 300..=399]),
        body: Some(BodyTest::Matches("(?s:.*)(?:a|b)(?s:.*)".parse().unwrap())),
        ..Question::get("/h")
    };
    assert_eq!(**question, expected);
    assert_eq!((service.health.initial, service.health.awaits_first()), (Initial::Unhealthy, true));
    assert_eq!(service.health.version, Some(VersionSource::Json("/v".into())));
    let reported: Vec<_> = service.pools.iter().map(|pool| pool.expected_version()).collect();
    assert_eq!(reported, [Some("1"), Some("sha256:ab")]);
    assert_eq!(shop("health: { grpc: {} }").health.probe, Probe::Grpc(String::new()));
    assert_eq!(shop("health: { grpc: { service: a.B } }").health.probe, Probe::Grpc("a.B".into()));
    assert!(!shop("health: { initial: unknown }").health.awaits_first());
}

#[test]
fn an_unhealthy_endpoint_is_never_looked_at_less_often() {
    let intervals = |health: Health| (health.interval.as_millis(), health.interval_unhealthy.as_millis());
    assert_eq!(intervals(shop("health: { interval: 200ms }").health), (200, 200));
    assert_eq!(intervals(shop("health: { interval: 1m }").health), (60_000, 500));
    assert_eq!(intervals(shop("health: { interval_unhealthy: 1s }").health), (2_000, 1_000));
    assert_eq!(codes(&with("health: { interval: 1s, interval_unhealthy: 2s }")), [("conflict", 5)]);
}

#[test]
fn checks_that_make_no_sense_are_refused() {
    let table = [
        ("health: { method: GET }", "conflict"),
        ("health: { expect: { status: 200 } }", "conflict"),
        ("health: { path: /h, grpc: {} }", "conflict"),
        ("health: { host: x, grpc: {} }", "conflict"),
        ("health: { path: /h, method: POST }", "unknown_value"),
        ("health: { path: /h, method: HEAD, expect: { body: ok } }", "conflict"),
        ("health: { path: /h, host: 'a b' }", "bad_value"),
        ("health: { path: /h, headers: { host: x } }", "unsupported"),
        ("health: { path: /h, headers: { x: \"a\\nb\" } }", "bad_value"),
        ("health: { path: /h, headers: { 'x y': a } }", "bad_value"),
        ("health: { path: /h, expect: { status: 2xx } }", "bad_value"),
        ("health: { path: /h, expect: { status: [] } }", "out_of_range"),
        ("health: { path: /h, expect: { status: 100-200 } }", "bad_value"),
        ("health: { path: /h, expect: { body: { regex: '(' } } }", "bad_value"),
        ("health: { grpc: { service: 'a b' } }", "bad_value"),
        ("health: { initial: healthy }", "unknown_value"),
        ("health: { version: { header: x } }", "conflict"),
        ("health: { grpc: {}, version: { json: /v } }", "conflict"),
        ("health: { path: /h, method: HEAD, version: { json: /v } }", "conflict"),
        ("health: { path: /h, version: { json: v } }", "bad_value"),
        ("health: { path: /h, version: {} }", "conflict"),
        ("health: { path: /h, version: { header: a, json: /b } }", "conflict"),
        ("ejection: yes", "unknown_value"),
        ("ejection: { consecutive_gateway: 0 }", "out_of_range"),
        ("ejection: { consecutive_5xx: on }", "bad_value"),
        ("ejection: { success_rate: { deviations: 0 } }", "out_of_range"),
        ("ejection: { failure_share: { threshold: 0% } }", "out_of_range"),
        ("ejection: { failure_share: { min_endpoints: 1 } }", "out_of_range"),
        ("ejection: { latency: { factor: 1 } }", "out_of_range"),
        ("ejection: { latency: 3 }", "unknown_value"),
        ("ejection: { max_ejected: 101% }", "bad_value"),
        ("ejection: { base_time: 10m }", "conflict"),
        ("ejection: { interval: 20s }", "conflict"),
    ];
    for (lines, code) in table {
        assert_eq!(codes(&versioned(lines)), [(code, 5)], "{lines}");
    }
    let report = parse(&with("health: { path: /h, version: { header: x } }")).unwrap_err();
    assert!(report.to_string().contains("give the pools a `version`"), "{report}");
}

#[test]
fn a_pool_is_read_over_its_service() {
    let text = "version: 1\nservices:\n  shop:\n    ejection: { consecutive_gateway: 3, latency: on, base_time: 1s }\n    pools:\n      a: http://a\n      b: { endpoints: 'http://b', ejection: { consecutive_gateway: off, latency: { factor: 2.5 } } }\n      c: { endpoints: 'http://c', ejection: off }\n      d: { endpoints: 'http://d', ejection: on }\n";
    let service = parse(text).unwrap().services.remove(0);
    let base_time = Duration::from_secs(1);
    let all = Policy {
        consecutive_gateway: NonZeroU32::new(3),
        latency: Some(Latency::default()),
        base_time,
        ..Policy::default()
    };
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| service.pools[at].ejection);
    assert_eq!((service.ejection, a, d), (all, all, all));
    let latency = Some(Latency { factor_milli: 2_500, ..Latency::default() });
    assert_eq!(b, Policy { consecutive_gateway: None, latency, ..all });
    assert!(c.is_off());
    let whole = "ejection: { consecutive_5xx: 7, success_rate: { deviations: 1.5, min_requests: 9, min_endpoints: 4 }, failure_share: { threshold: 12.5% }, window: 1m, max_ejected: 10% }";
    let read = shop(whole).ejection;
    assert_eq!((read.consecutive_5xx, read.max_ejected), (NonZeroU32::new(7), "10%".parse().unwrap()));
    let least = Least { requests: 9, endpoints: 4 };
    assert_eq!(read.success_rate, Some(SuccessRate { deviations_milli: 1_500, least }));
    let threshold = "12.5%".parse().unwrap();
    assert_eq!(read.failure_share, Some(FailureShare { threshold, ..FailureShare::default() }));
    assert_eq!(shop("ejection: on").ejection, Policy::default());
    assert!(shop("ejection: off").pools.iter().all(|pool| pool.ejection.is_off()));
}
