//! Unix sockets, the PROXY protocol, trusted forwarders and the resolver, as files have them.

use super::*;
use crate::config::settings::{Bind, Family, Pool, Resolve, Resolver};
use crate::domain::forwarded::Style;
use crate::domain::proxy_protocol::Version;

fn listen(text: &str) -> Listen {
    parse(&format!("listen: {text}\n{}", with(""))).unwrap_or_else(|report| panic!("{report}")).listen.remove(0)
}

fn refused_listen(text: &str) -> Vec<(&'static str, usize)> {
    codes(&format!("listen: {text}\n{}", with("")))
}

fn pool(text: &str) -> Pool {
    let file = format!("version: 1\nservices: {{ a: {{ pools: {{ b: {text} }} }} }}");
    parse(&file).unwrap_or_else(|report| panic!("{report}")).services.remove(0).pools.remove(0)
}

fn refused_pool(text: &str) -> Vec<(&'static str, usize)> {
    codes(&format!("version: 1\nservices: {{ a: {{ pools: {{ b: {text} }} }} }}"))
}

#[test]
fn a_listener_may_be_a_unix_socket() {
    let table = [
        ("unix:/run/teal.sock", "/run/teal.sock", 0o660),
        ("{ address: 'unix:/run/teal.sock' }", "/run/teal.sock", 0o660),
        ("{ address: 'unix:/run/teal.sock', mode: '0666' }", "/run/teal.sock", 0o666),
        ("{ address: 'unix:/run/teal.sock', mode: 600 }", "/run/teal.sock", 0o600),
    ];
    for (text, path, mode) in table {
        let Bind::Unix(socket) = listen(text).address else { panic!("{text}") };
        assert_eq!((socket.path, socket.mode), (path.into(), mode), "{text}");
    }
    assert_eq!(listen("unix:/run/teal.sock").address.to_string(), "unix:/run/teal.sock");
    let bad =
        ["unix:run/teal.sock", "'unix:'", "{ address: 'unix:/a', mode: 0o660 }", "{ address: 'unix:/a', mode: '888' }"];
    let modes = ["'060'", "'1777'", "'66'", "rw"].map(|mode| format!("{{ address: 'unix:/a', mode: {mode} }}"));
    for text in bad.iter().map(|text| (*text).to_owned()).chain(modes) {
        assert_eq!(refused_listen(&text), [("bad_value", 1)], "{text}");
    }
    assert_eq!(refused_listen("{ address: ':80', mode: '0660' }"), [("conflict", 1)]);
    assert_eq!(refused_listen("['unix:/a', 'unix:/b', 'unix:/a']"), [("conflict", 1)]);
}

#[test]
fn a_listener_takes_the_word_of_those_it_names() {
    assert_eq!(listen("{ address: ':80', proxy_protocol: off }").proxy_protocol, None);
    let one = listen("{ address: ':80', proxy_protocol: { trusted: 10.0.0.0/8 } }").proxy_protocol.unwrap();
    assert!(one.strict && one.trusted.contains("10.1.2.3".parse().unwrap()));
    let two = listen("{ address: ':80', proxy_protocol: { trusted: ['10.0.0.1', 'fd00::/8'], strict: false } }");
    let two = two.proxy_protocol.unwrap();
    assert!(!two.strict && two.trusted.contains("fd00::1".parse().unwrap()));
    assert!(!two.trusted.contains("10.0.0.2".parse().unwrap()));
    let table = [
        ("on", "wrong_type"),
        ("{}", "missing_key"),
        ("{ trusted: [] }", "conflict"),
        ("{ trusted: everyone }", "bad_value"),
        ("{ trusted: 10.0.0.1/8 }", "bad_value"),
        ("{ trusted: 10.0.0.0/8, strict: maybe }", "unknown_value"),
    ];
    for (text, code) in table {
        let found = refused_listen(&format!("{{ address: ':80', proxy_protocol: {text} }}"));
        assert_eq!(found, [(code, 1)], "{text}");
    }
}

#[test]
fn a_pool_says_how_its_endpoints_are_found_and_told() {
    assert_eq!((pool("'http://a'").resolve, pool("'http://a'").proxy_protocol), (Resolve::All, None));
    let full = pool("{ endpoints: 'http://a', resolve: first, proxy_protocol: v2 }");
    assert_eq!((full.resolve, full.proxy_protocol), (Resolve::First, Some(Version::V2)));
    assert_eq!(pool("{ endpoints: 'http://a', proxy_protocol: v1 }").proxy_protocol, Some(Version::V1));
    let places = pool("['unix:/run/a.sock', 'srv:_http._tcp.a', 'http://a']").endpoints;
    let shown: Vec<_> = places.iter().map(|endpoint| endpoint.address.to_string()).collect();
    assert_eq!(shown, ["unix:/run/a.sock", "srv:_http._tcp.a", "http://a:80"]);
    assert!(pool("'srv:_https._tcp.a'").tls.is_some(), "the service's name says TLS");
    assert_eq!(refused_pool("{ endpoints: 'http://a', resolve: some }"), [("unknown_value", 2)]);
    assert_eq!(refused_pool("{ endpoints: 'http://a', proxy_protocol: v3 }"), [("unknown_value", 2)]);
    assert_eq!(refused_pool("{ endpoints: 'http://a', protocol: h2, proxy_protocol: v2 }"), [("conflict", 2)]);
    assert_eq!(refused_pool("['unix:a.sock']"), [("bad_value", 2)]);
    assert_eq!(refused_pool("['srv:a']"), [("bad_value", 2)]);
    assert_eq!(refused_pool("['unix:/a', 'srv:_https._tcp.a']"), [("conflict", 2)]);
}

#[test]
fn clients_name_their_forwarders() {
    let trust = |text: &str| parse(&format!("client: {text}\n{}", with(""))).unwrap().client.trust;
    assert!(trust("{}").networks.is_empty() && trust("{ trusted: [] }").networks.is_empty());
    let full = trust("{ trusted: [10.0.0.0/8, '::1'], forwarded_by: forwarded }");
    assert!(full.networks.contains("::1".parse().unwrap()) && full.style == Style::Forwarded);
    for (text, code) in [("{ trusted: x }", "bad_value"), ("{ forwarded_by: x-real-ip }", "unknown_value")] {
        assert_eq!(codes(&format!("client: {text}\n{}", with(""))), [(code, 1)], "{text}");
    }
    let many = vec!["10.0.0.1"; 65].join(", ");
    assert_eq!(codes(&format!("client: {{ trusted: [{many}] }}\n{}", with(""))), [("out_of_range", 1)]);
}

#[test]
fn the_resolver_is_the_systems_or_ones_own() {
    let resolver = |text: &str| parse(&format!("resolver: {text}\n{}", with(""))).unwrap().resolver;
    assert_eq!(resolver("{ servers: system }"), Resolver::default());
    let own = resolver(
        "{ servers: [127.0.0.1:5353, '::1', '[::1]:54'], timeout: 1s, ttl_floor: 2s, ttl_ceiling: 1m, family: both }",
    );
    let servers = ["127.0.0.1:5353", "[::1]:53", "[::1]:54"].map(|server| server.parse().unwrap());
    assert_eq!((&own.servers[..], own.family), (&servers[..], Family::Both));
    assert_eq!([own.timeout, own.ttl_floor, own.ttl_ceiling], [1, 2, 60].map(Duration::from_secs));
    let table = [
        ("{ servers: dns.internal }", "bad_value"),
        ("{ servers: '127.0.0.1:0' }", "bad_value"),
        ("{ servers: [] }", "out_of_range"),
        ("{ ttl_floor: 500ms }", "out_of_range"),
        ("{ ttl_floor: 10m }", "conflict"),
        ("{ family: ipv5 }", "unknown_value"),
    ];
    for (text, code) in table {
        assert_eq!(codes(&format!("resolver: {text}\n{}", with(""))), [(code, 1)], "{text}");
    }
}
