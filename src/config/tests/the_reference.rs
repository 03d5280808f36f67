//! The reference file: complete, true to the defaults, and read key by key.

use super::*;
use crate::config::{balance, breaker, edge, ejection, health, limits, listener, retry, tls};

/// Every section of the format, by its keys.
const SECTIONS: &[&[&str]] = &[
    file::FILE,
    file::ADMIN,
    file::CLIENT,
    file::SHUTDOWN,
    listener::LISTEN,
    edge::PROXY_PROTOCOL,
    edge::RESOLVER,
    tls::TLS,
    tls::CERTIFICATE,
    tls::HSTS,
    tls::POOL_TLS,
    balance::ENDPOINT,
    balance::BALANCE,
    balance::BY,
    service::SERVICE,
    service::POOL,
    service::SPLIT_BY,
    service::STICKY,
    health::HEALTH,
    health::EXPECT,
    health::BODY,
    health::GRPC,
    health::VERSION,
    ejection::EJECTION,
    ejection::SUCCESS_RATE,
    ejection::FAILURE_SHARE,
    ejection::LATENCY,
    service::TIMEOUTS,
    service::CONNECTIONS,
    retry::RETRY,
    retry::BACKOFF,
    retry::BUDGET,
    retry::RESCUE,
    retry::HEDGE,
    retry::ROUTE_RETRY,
    breaker::BREAKER,
    breaker::ENDPOINT_BREAKER,
    breaker::SLOW,
    limits::POOL_LIMITS,
    intake::RATE_LIMIT,
    intake::PER,
    intake::MATCH,
    intake::CONCURRENCY,
    intake::ADAPTIVE,
    service::ANALYSIS,
    service::TOLERATE,
    service::APPROVE,
    routes::ROUTE,
    routes::MATCH,
    routes::PATH,
    routes::LIMITS,
    routes::TIMEOUTS,
    targets::REWRITE,
    targets::REDIRECT,
    edits::EDITS,
    overrides::OVERRIDE,
    overrides::MATCH,
    conditions::TEST,
    rollout::ROLLOUT,
    rollout::STEP,
    rollout::ANALYZE,
];

/// The reference with the lines that need files.
fn complete() -> String {
    reference().replace("#: ", "")
}

fn mappings<'a>(node: &'a Node, found: &mut Vec<BTreeSet<&'a str>>) {
    match &node.kind {
        Kind::List(items) => items.iter().for_each(|item| mappings(item, found)),
        Kind::Mapping(entries) => {
            found.push(entries.iter().map(|(key, _)| key.text.as_str()).collect());
            entries.iter().for_each(|(_, value)| mappings(value, found));
        }
        _ => {}
    }
}

#[test]
fn names_every_key() {
    let text = complete().replace("# token:", "token:");
    let root = yaml::parse(&text, &mut Vec::new()).unwrap();
    let mut found = Vec::new();
    mappings(&root, &mut found);
    for section in SECTIONS {
        let keys: BTreeSet<&str> = section.iter().copied().collect();
        let named: BTreeSet<&str> =
            found.iter().filter(|mapping| mapping.is_subset(&keys)).flatten().copied().collect();
        assert_eq!(named, keys);
    }
}

#[test]
fn holds_the_defaults() {
    let settings = parse(&reference()).unwrap();
    let first = settings.services[0].clone();
    assert_eq!(first, Service::new(first.name.clone(), first.pools.clone()));
    let defaults = parse(&format!("state: /var/lib/teal\n{}", with(""))).unwrap();
    assert_eq!(Settings { services: Vec::new(), ..settings }, Settings { services: Vec::new(), ..defaults });
}

/// Spans of all values that hold no further values.
fn leaves(node: &Node, found: &mut Vec<crate::config::Span>) {
    match &node.kind {
        Kind::List(items) if !items.is_empty() => items.iter().for_each(|item| leaves(item, found)),
        Kind::Mapping(entries) => entries.iter().for_each(|(_, value)| leaves(value, found)),
        _ => found.push(node.span),
    }
}

#[test]
fn every_value_in_it_is_read_and_checked() {
    let text = complete();
    let parse = |text: &str| parse_in("teal.yaml", text, &environment, certificates());
    assert!(parse(&text).is_ok());
    let mut found = Vec::new();
    leaves(&yaml::parse(&text, &mut Vec::new()).unwrap(), &mut found);
    assert!(found.len() > 100, "{}", found.len());
    for span in found {
        for nonsense in ["[[[]]]", "{ nonsense: 1 }", "' '"] {
            let broken = format!("{}{nonsense}{}", &text[..span.start], &text[span.end..]);
            let report = parse(&broken).expect_err(&text[span.start..]);
            let line = text[..span.start].lines().count();
            assert!(report.problems().any(|located| located.line.abs_diff(line) <= 1), "{line}: {report}");
        }
    }
}
