//! Rate limits and concurrency: what is read, and what is refused in which words.

use super::*;
use crate::domain::concurrency::{Adaptive, Policy};
use crate::domain::rate::{By, Limit};
use crate::domain::route::Match;

fn limits(list: &str) -> Vec<Limit> {
    shop(&format!("rate_limits: [{list}]")).rate_limits
}

#[test]
fn limits_are_read_with_their_defaults() {
    let read =
        limits("{ name: a, per: client, rate: 100/s }, { name: b, per: { header: X-API-Key }, rate: 5/m, burst: 2 }");
    let limit = |name: &str, by, rate: &str, burst| Limit {
        name: name.to_owned(),
        matches: Match::default(),
        by,
        rate: rate.parse().unwrap(),
        burst,
        keys: 65_536,
    };
    let header = By::Header("x-api-key".to_owned());
    assert_eq!(read, [limit("a", By::Client, "100/s", 100), limit("b", header, "5/m", 2)]);
    let all = limits("{ name: a, per: all, rate: 360000000/h, match: { methods: POST, scheme: https } }");
    assert_eq!((all[0].burst, all[0].matches.methods.as_slice()), (100_000, &["POST".to_owned()][..]));
    assert_eq!(all[0].matches.conditions.len(), 1);
}

#[test]
fn routes_have_limits_of_their_own() {
    let service = shop(
        "routes: [{ name: login, match: { path: { exact: /login } }, rate_limits: [{ name: a, per: all, rate: 1/s }] }]",
    );
    assert_eq!((service.rate_limits.len(), service.routes.all()[0].rate_limits.len()), (0, 1));
    let redirect =
        "routes: [{ name: r, redirect: { to: https://x }, rate_limits: [{ name: a, per: all, rate: 1/s }] }]";
    assert_eq!(codes(&with(redirect))[0].0, "conflict");
}

#[test]
fn concurrency_is_read_in_all_its_forms() {
    let fixed = Some(Policy { max: 300, adaptive: None });
    let adaptive = |adaptive| Some(Policy { max: 300, adaptive: Some(adaptive) });
    let table = [
        ("off", None),
        ("300", fixed),
        ("{ max: 300 }", fixed),
        ("{ max: 300, adaptive: off }", fixed),
        ("{ max: 300, adaptive: on }", adaptive(Adaptive::default())),
        ("{ max: 300, adaptive: { min: 5 } }", adaptive(Adaptive { min: 5, ..Adaptive::default() })),
        (
            "{ max: 300, adaptive: { min: 300, tolerance: 2, smoothing: 100% } }",
            adaptive(Adaptive { min: 300, tolerance: 2.0, smoothing: 1.0 }),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(shop(&format!("concurrency: {text}")).concurrency, expected, "{text}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let limit = |text: &str| format!("rate_limits: [{{ {text} }}]");
    let nine = format!("rate_limits: [{}]", ["{ name: a, per: all, rate: 1/s }"; 9].join(", "));
    let huge = "{ name: N, per: client, rate: 1/s, keys: 20000000 }";
    let huge = format!("rate_limits: [{}, {}]", huge.replace('N', "a"), huge.replace('N', "b"));
    let table = [
        (limit("per: client, rate: 1/s"), "missing_key"),
        (limit("name: a, rate: 1/s"), "missing_key"),
        (limit("name: a, per: client"), "missing_key"),
        (limit("name: a, per: header, rate: 1/s"), "wrong_type"),
        (limit("name: a, per: cookie, rate: 1/s"), "unknown_value"),
        (limit("name: a, per: {}, rate: 1/s"), "missing_key"),
        (limit("name: a, per: client, rate: 100"), "bad_value"),
        (limit("name: a, per: client, rate: 100001/s"), "bad_value"),
        (limit("name: a, per: client, rate: 1/s, burst: 0"), "out_of_range"),
        (limit("name: a, per: client, rate: 1/h, burst: 26"), "out_of_range"),
        (limit("name: a, per: client, rate: 1/s, keys: 1"), "out_of_range"),
        (limit("name: a, per: client, rate: 1/s, match: { path: { exact: / } }"), "unsupported"),
        (limit("name: a, per: client, rate: 1/s, match: {}"), "missing_key"),
        ("rate_limits: [{ name: a, per: all, rate: 1/s }, { name: a, per: all, rate: 2/s }]".to_owned(), "duplicate"),
        (nine, "out_of_range"),
        (huge, "out_of_range"),
        ("concurrency: on".to_owned(), "bad_value"),
        ("concurrency: 0".to_owned(), "out_of_range"),
        ("concurrency: { adaptive: on }".to_owned(), "missing_key"),
        ("concurrency: { max: 10, adaptive: on }".to_owned(), "conflict"),
        ("concurrency: { max: 100, adaptive: { tolerance: 1 } }".to_owned(), "out_of_range"),
    ];
    for (lines, code) in table {
        assert_eq!(codes(&with(&lines)).iter().map(|(code, _)| *code).collect::<Vec<_>>(), [code], "{lines}");
    }
}
