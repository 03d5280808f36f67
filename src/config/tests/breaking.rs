//! Breakers and limits in the file: by rules, and a pool's over its service's.

use super::*;
use crate::config::settings::{Breaker, Limits};
use crate::domain::breaker::{Policy, Slow};

/// The breakers of blue and green, with lines for the service and for green.
fn breakers(service: &str, green: &str) -> [Breaker; 2] {
    let text = format!(
        "version: 1\nservices:\n  shop:\n    {service}\n    pools: {{ blue: 'http://a', green: {{ endpoints: 'http://b' {green} }} }}\n"
    );
    let settings = parse(&text).unwrap_or_else(|report| panic!("{report}"));
    [0, 1].map(|pool| settings.services[0].pools[pool].breaker.clone())
}

#[test]
fn a_breaker_is_off_until_it_is_asked_for() {
    let on = || Breaker { pool: Some(Policy::default()), ..Breaker::default() };
    assert_eq!(breakers("", ""), [Breaker::default(), Breaker::default()]);
    assert_eq!(breakers("breaker: on", ""), [on(), on()]);
    assert_eq!(breakers("breaker: on", ", breaker: off"), [on(), Breaker::default()]);
    assert_eq!(breakers("", ", breaker: on"), [Breaker::default(), on()]);
    assert_eq!(breakers("breaker: {}", ""), [on(), on()]);
}

#[test]
fn what_a_pool_says_is_read_over_what_its_service_says() {
    let service = "breaker: { consecutive: off, error_rate: 20%, slow: { over: 2s }, endpoint: { trials: 7 }, rollback_after: 3 }";
    let green = ", breaker: { consecutive: 2, slow: { share: 10% }, endpoint: { cool_down: 1s } }";
    let [blue, green] = breakers(service, green);
    let share = |points| Share::from_basis_points(points).unwrap();
    let slow = |points| Some(Slow { over: Duration::from_secs(2), share: share(points) });
    let ours = Policy { consecutive: None, error_rate: Some(share(2_000)), slow: slow(5_000), ..Policy::default() };
    let endpoint = Policy { trials: 7, ..Policy::default() };
    assert_eq!((blue.pool.as_ref(), blue.endpoint.as_ref()), (Some(&ours), Some(&endpoint)));
    assert_eq!(blue.rollback_after.map(u32::from), Some(3));
    assert_eq!(green.pool, Some(Policy { consecutive: Some(2), slow: slow(1_000), ..ours }));
    assert_eq!(green.endpoint, Some(Policy { cool_down: Duration::from_secs(1), ..endpoint }));
    assert_eq!(green.rollback_after.map(u32::from), Some(3));
}

#[test]
fn mistakes_in_breakers_have_their_code() {
    let table = [
        ("breaker: yes", "unknown_value"),
        ("breaker: { consecutive: 0 }", "out_of_range"),
        ("breaker: { consecutive: 1001 }", "out_of_range"),
        ("breaker: { error_rate: 0% }", "out_of_range"),
        ("breaker: { error_rate: 101% }", "bad_value"),
        ("breaker: { window: 10ms }", "out_of_range"),
        ("breaker: { trials: 101 }", "out_of_range"),
        ("breaker: { slow: { share: 10% } }", "missing_key"),
        ("breaker: { slow: on }", "wrong_type"),
        ("breaker: { cool_down: 3m }", "conflict"),
        ("breaker: { max_cool_down: 1s }", "conflict"),
        ("breaker: { consecutive: off, error_rate: off }", "conflict"),
        ("breaker: { endpoint: { rollback_after: 3 } }", "unknown_key"),
        ("breaker: { endpoint: { consecutive: many } }", "bad_value"),
        ("breaker: { rollback_after: 0 }", "out_of_range"),
    ];
    for (lines, code) in table {
        assert_eq!(codes(&with(lines)), [(code, 5)], "{lines}");
    }
}

#[test]
fn limits_of_a_pool_are_read_over_those_of_its_service() {
    let text = "limits: { max_in_flight: 100, max_pending: 0 }\n    active: blue";
    let with_pool = with(text).replace(
        "green: 'http://b'",
        "green: { endpoints: 'http://b', limits: { max_in_flight: none, queue_timeout: 5ms, max_requests_per_connection: 7 } }",
    );
    let shop = parse(&with_pool).unwrap_or_else(|report| panic!("{report}")).services.remove(0);
    let ours = Limits { max_in_flight: NonZeroUsize::new(100), max_pending: 0, ..Limits::default() };
    assert_eq!((&shop.limits, &shop.pools[0].limits), (&ours, &ours));
    let green = &shop.pools[1].limits;
    assert_eq!((green.max_in_flight, green.max_pending, green.queue_timeout), (None, 0, Duration::from_millis(5)));
    assert_eq!(green.max_requests_per_connection.map(u32::from), Some(7));
    let table = [
        ("limits: off", "wrong_type"),
        ("limits: { max_in_flight: 0 }", "out_of_range"),
        ("limits: { queue_timeout: 2m }", "out_of_range"),
        ("limits: { max_requests: 1 }", "unknown_key"),
        ("limits: { max_requests_per_connection: off }", "bad_value"),
    ];
    for (lines, code) in table {
        assert_eq!(codes(&with(lines)), [(code, 5)], "{lines}");
    }
}
