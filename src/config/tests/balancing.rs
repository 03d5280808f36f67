//! Endpoints with ranks, and how they are balanced.

use super::*;
use crate::config::settings::Pool;
use crate::domain::balance::{Balance, Factor, Hashing, Key, Policy, Rank};
use crate::domain::split::Share;
use std::time::Duration;

/// A service with this `balance` and a pool with these keys.
fn text(balance: &str, pool: &str) -> String {
    let balance = if balance.is_empty() { String::new() } else { format!("balance: {balance}, ") };
    format!("version: 1\nstate: none\nservices: {{ s: {{ {balance}pools: {{ b: {pool} }} }} }}\n")
}

fn service(balance: &str, pool: &str) -> Service {
    parse(&text(balance, pool)).unwrap_or_else(|report| panic!("{report}")).services.remove(0)
}

fn pool(pool: &str) -> Pool {
    service("", pool).pools.remove(0)
}

fn refused(balance: &str, pool: &str) -> &'static str {
    let report = parse(&text(balance, pool)).expect_err(balance);
    let codes: Vec<_> = report.problems().map(|located| located.problem.code).collect();
    assert_eq!(codes.len(), 1, "{report}");
    codes[0]
}

fn by(balance: &str) -> Balance {
    service(balance, "'http://a'").balance
}

fn hashing(by: Key, load_factor: Option<u32>) -> Hashing {
    Hashing { by, load_factor: load_factor.map(Factor::from_hundredths) }
}

#[test]
fn endpoints_have_ranks_or_the_usual_one() {
    let full = pool("['http://a', { url: 'http://b', weight: 1000, priority: 7 }, { url: 'http://c' }]");
    let ranks: Vec<_> = full.endpoints.iter().map(|endpoint| endpoint.rank).collect();
    assert_eq!(ranks, [Rank::default(), Rank { weight: 1_000, priority: 7 }, Rank { weight: 1, priority: 0 }]);
    let one = pool("{ endpoints: { url: 'https://a', weight: 2 } }");
    assert_eq!((one.endpoints[0].rank.weight, one.tls.is_some()), (2, true));
    let table = [
        ("[{ url: 'http://a', weight: 0 }]", "out_of_range"),
        ("[{ url: 'http://a', weight: 1001 }]", "out_of_range"),
        ("[{ url: 'http://a', priority: 8 }]", "out_of_range"),
        ("[{ url: 'http://a', share: 1 }]", "unknown_key"),
        ("[{ weight: 1 }]", "missing_key"),
        ("['http://a', { url: 'http://a:80/', weight: 2 }]", "duplicate"),
        ("['http://a', { url: 'https://b' }]", "conflict"),
    ];
    for (pool, code) in table {
        assert_eq!(refused("", pool), code, "{pool}");
    }
}

#[test]
fn a_policy_is_a_word_or_a_mapping() {
    assert_eq!(by("round_robin").policy, Policy::RoundRobin);
    assert_eq!(by("least_request"), Balance::default());
    assert_eq!(by("{ policy: p2c_ewma }"), Balance { policy: Policy::PeakEwma, ..Balance::default() });
    assert_eq!(by("{ policy: maglev, by: client }").policy, Policy::Maglev(hashing(Key::Client, Some(125))));
    let full = by(
        "{ policy: ring_hash, by: { header: X-User }, load_factor: 1.5, panic: 0%, slow_start: 30s, overprovision: 2 }",
    );
    let expected = Balance {
        policy: Policy::RingHash(hashing(Key::Header("x-user".to_owned()), Some(150))),
        panic: Share::NONE,
        slow_start: Duration::from_secs(30),
        overprovision: Factor::from_hundredths(200),
    };
    assert_eq!(full, expected);
    let key = |by_what: &str| match by(&format!("{{ policy: maglev, by: {by_what}, load_factor: none }}")).policy {
        Policy::Maglev(Hashing { by, load_factor: None }) => by,
        other => panic!("{other:?}"),
    };
    assert_eq!(key("path"), Key::Path);
    assert_eq!(key("{ cookie: Cart }"), Key::Cookie("Cart".to_owned()));
    assert_eq!(key("{ path: '/carts/([0-9]+)/.*' }"), Key::Part("/carts/([0-9]+)/.*".parse().unwrap()));
}

#[test]
fn a_pool_changes_what_it_names() {
    let both = |service_says: &str, pool_says: &str| {
        let mut service = service(service_says, &format!("{{ endpoints: 'http://a', balance: {pool_says} }}"));
        (service.balance, service.pools.remove(0).balance.expect("its own"))
    };
    let (service, pool) = both("{ policy: ring_hash, by: client, slow_start: 5s }", "maglev");
    assert_eq!(pool, Balance { policy: Policy::Maglev(hashing(Key::Client, Some(125))), ..service });
    let (service, pool) = both("{ policy: ring_hash, by: client, load_factor: 2 }", "{ by: path, panic: 10% }");
    assert_eq!(pool.policy, Policy::RingHash(hashing(Key::Path, Some(200))));
    assert_eq!((pool.panic, service.panic), (Share::from_basis_points(1_000).unwrap(), Balance::default().panic));
    assert_eq!(pool_of_none(), None);
}

fn pool_of_none() -> Option<Balance> {
    pool("'http://a'").balance
}

#[test]
fn what_cannot_be_balanced_says_why() {
    let table = [
        ("fastest", "unknown_value"),
        ("ring_hash", "missing_key"),
        ("{ policy: maglev }", "missing_key"),
        ("{ policy: round_robin, by: client }", "conflict"),
        ("{ load_factor: 2 }", "conflict"),
        ("{ policy: maglev, by: header }", "wrong_type"),
        ("{ policy: maglev, by: { header: a, cookie: b } }", "conflict"),
        ("{ policy: maglev, by: { path: '(' } }", "bad_value"),
        ("{ policy: maglev, by: client, load_factor: 0.9 }", "out_of_range"),
        ("{ overprovision: 11 }", "out_of_range"),
        ("{ panic: 101% }", "bad_value"),
        ("{ slow_start: 1h }", "out_of_range"),
        ("{ weights: 1 }", "unknown_key"),
    ];
    for (balance, code) in table {
        assert_eq!(refused(balance, "'http://a'"), code, "{balance}");
    }
}
