//! Routes, conditions, edits and targets: what they mean, and every mistake in them.

use super::*;
use crate::domain::route::{
    Action, Location, Match, PathEdit, PathTest, Redirect, Rewrite, Route, Routes, Scheme, Template, Timeouts,
};

fn route(lines: &str) -> Route {
    shop(&format!("routes: [ {{ name: a, {lines} }} ]")).routes[0].clone()
}

fn redirected(lines: &str) -> Redirect {
    match route(lines).action {
        Action::Redirect(redirect) => redirect,
        action => panic!("{lines}: {action:?}"),
    }
}

fn rewritten(lines: &str) -> Rewrite {
    match route(lines).action {
        Action::Forward(rewrite) => rewrite,
        action => panic!("{lines}: {action:?}"),
    }
}

#[test]
fn without_routes_there_is_one_that_changes_nothing() {
    assert_eq!(shop("").routes, Routes::default());
    assert_eq!(shop("routes: []").routes, Routes::default());
    assert_eq!(route("upgrades: [websocket]"), Route::new("a"));
    assert_eq!(route("limits: {}, timeouts: {}, request_headers: {}"), Route::new("a"));
}

#[test]
fn what_a_route_asks_is_read() {
    let matches = |lines: &str| route(&format!("match: {{ {lines} }}")).matches;
    let path = |path| Match { path: Some(path), ..Match::default() };
    assert_eq!(matches("path: { exact: /a%7e }"), path(PathTest::Exact("/a~".into())));
    assert_eq!(matches("path: { prefix: /a/ }"), path(PathTest::Prefix("/a/".into())));
    assert_eq!(matches("path: { regex: /v\\d+ }"), path(PathTest::Regex("/v\\d+".parse().unwrap())));
    assert_eq!(matches("methods: GET").methods, ["GET"]);
    assert_eq!(matches("methods: [GET, PURGE]").methods, ["GET", "PURGE"]);
    let expected = [
        Condition::Header("x-a".into(), Test::Regex("b+".parse().unwrap())),
        Condition::Cookie("C".into(), Test::Present),
        Condition::Query("q[]".into(), Test::Prefix("p".into())),
        Condition::Client(vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]),
        Condition::Scheme(Scheme::Https),
    ];
    let all = "header: { X-A: { regex: b+ } }, cookie: { C: { present: true } }, query: { 'q[]': { prefix: p } }, \
               client: [10.0.0.0/8, '::1'], scheme: https";
    assert_eq!(matches(all).conditions, expected);
    let rule = "overrides: [ { name: qa, match: { query: { v: '2' }, client: 10.1.2.3 }, pool: green } ]";
    let expected = [
        Condition::Query("v".into(), Test::Exact("2".into())),
        Condition::Client(vec!["10.1.2.3/32".parse().unwrap()]),
    ];
    assert_eq!(shop(rule).overrides[0].conditions, expected);
}

#[test]
fn targets_are_read() {
    let old = "match: { path: { prefix: /old } }";
    let prefix = |to: &str| PathEdit::Prefix { from: "/old".into(), to: to.into() };
    assert_eq!(rewritten(&format!("{old}, rewrite: {{ prefix: /new }}")).path, prefix("/new"));
    assert_eq!(rewritten("rewrite: { path: /x }").path, PathEdit::Whole("/x".into()));
    let to = rewritten("rewrite: { host: 'A.internal:81' }");
    assert_eq!(to, Rewrite { path: PathEdit::Keep, host: Some("a.internal:81".into()) });
    let regex = rewritten("rewrite: { regex: '/v1/(.*)', replacement: '/v2/{1}' }");
    assert_eq!(regex.target("/v1/x?y"), "/v2/x?y");
    let to = |target: &str| Location::Fixed(target.into());
    let table = [
        ("redirect: { to: 'https://x.org:8443/a?b#c' }", 307, to("https://x.org:8443/a?b#c")),
        ("match: { path: { exact: /a } }, redirect: { to: /b, status: 301 }", 301, to("/b")),
    ];
    for (lines, status, location) in table {
        assert_eq!(redirected(lines), Redirect { status, location }, "{lines}");
    }
    let moved = redirected(&format!("{old}, redirect: {{ prefix: /new, host: X.org, port: 81, scheme: http }}"));
    let (scheme, host) = (Some(Scheme::Http), Some("x.org".to_owned()));
    assert_eq!(moved.location, Location::Parts { scheme, host, port: Some(81), path: prefix("/new") });
}

#[test]
fn https_is_for_those_who_are_not_there_yet() {
    let secure = route("redirect: { https: true, status: 308 }");
    assert_eq!(secure.matches.conditions, [Condition::Scheme(Scheme::Http)]);
    assert_eq!(secure, route("match: { scheme: http }, redirect: { https: true, status: 308 }"));
    assert_eq!(secure, route("match: { scheme: http }, redirect: { scheme: https, status: 308 }"));
    assert!(parse(&with("routes: [ { name: a, redirect: { https: true } }, { name: b } ]")).is_ok());
}

#[test]
fn edits_limits_timeouts_and_upgrades_are_read() {
    let template = |text: &str| text.parse::<Template>().unwrap();
    let lines = "request_headers: { set: { X-Route: '{route}' }, add: { via: [a, b] }, remove: Cookie }";
    let edits = route(lines).request_headers;
    assert_eq!((edits.set, edits.remove), (vec![("x-route".into(), template("{route}"))], vec!["cookie".to_owned()]));
    assert_eq!(edits.add, [("via".to_owned(), template("a")), ("via".to_owned(), template("b"))]);
    let limits = route("limits: { body: 10MiB, head: 8KiB, headers: 20 }").limits;
    assert_eq!((limits.body, limits.head, limits.headers), (Some(10 << 20), Some(8192), Some(20)));
    assert_eq!(route("limits: { body: none }").limits.body, None);
    assert_eq!(route("limits: { body: 1TiB }").limits.body, Some(1 << 40));
    assert_eq!(route("upgrades: [WebSocket, spdy]").upgrades, ["websocket", "spdy"]);
    assert!(route("upgrades: []").upgrades.is_empty());
    let service =
        shop("timeouts: { head: 1s, idle: 2s }\n    routes: [ { name: a, timeouts: { idle: 3s, request: 4s } } ]");
    let (idle, request) = (Some(Duration::from_secs(3)), Some(Some(Duration::from_secs(4))));
    assert_eq!(service.routes[0].timeouts, Timeouts { head: None, request, idle });
    let effective = service.timeouts_of(&service.routes[0]);
    assert_eq!(
        (effective.head.as_secs(), effective.request, effective.idle.as_secs()),
        (1, Some(Duration::from_secs(4)), 3)
    );
}

#[test]
fn pools_have_versions_and_edits() {
    let pool = |text: &str| {
        let text = format!("version: 1\nservices: {{ a: {{ pools: {{ b: {{ endpoints: 'http://a', {text} }} }} }} }}");
        parse(&text).map(|settings| settings.services[0].pools[0].clone())
    };
    let green = pool("version: v2.1, response_headers: { set: { x-v: '{pool}-{version}' } }").unwrap();
    assert_eq!(green.version.as_deref(), Some("v2.1"));
    assert_eq!(green.response_headers.set, [("x-v".to_owned(), "{pool}-{version}".parse().unwrap())]);
    for bad in ["version: 'a b'", "version: é", "version: []", "request_headers: { set: { x: '{version}' } }"] {
        assert_eq!(pool(bad).unwrap_err().problems().count(), 1, "{bad}");
    }
}

#[test]
fn each_mistake_in_a_route_has_its_code() {
    let table: &[(&str, &[&str])] = &[
        ("{ match: { methods: GET } }", &["missing_key"]),
        ("{ name: A }", &["bad_value"]),
        ("{ name: a, match: {} }", &["missing_key"]),
        ("{ name: a, match: { path: /x } }", &["wrong_type"]),
        ("{ name: a, match: { path: { prefix: x } } }", &["bad_value"]),
        ("{ name: a, match: { path: { prefix: /a/../b } } }", &["bad_value"]),
        ("{ name: a, match: { path: { exact: /a%2fb } } }", &["bad_value"]),
        ("{ name: a, match: { path: { exact: /a, prefix: /b } } }", &["conflict"]),
        ("{ name: a, match: { path: { regex: 'a(' } } }", &["bad_value"]),
        ("{ name: a, match: { path: { regex: '(([a-z]{1,99}){1,99}){1,99}' } } }", &["bad_value"]),
        ("{ name: a, match: { methods: get } }", &["bad_value"]),
        ("{ name: a, match: { methods: [GET, TRACE] } }", &["unsupported"]),
        ("{ name: a, match: { methods: [] } }", &["out_of_range"]),
        ("{ name: a, match: { scheme: ftp } }", &["unknown_value"]),
        ("{ name: a, match: { client: 10.0.0.1/8 } }", &["bad_value"]),
        ("{ name: a, match: { client: '::ffff:10.0.0.0/104' } }", &["bad_value"]),
        ("{ name: a, match: { client: [10.0.0.0/33, x] } }", &["bad_value", "bad_value"]),
        ("{ name: a, match: { query: { '': b } } }", &["bad_value"]),
        ("{ name: a, match: { host: x } }", &["unknown_key"]),
        ("{ name: a, match: { header: {} } }", &["missing_key"]),
        (
            "{ match: { path: {} }, rewrite: { path: x }, upgrades: [h2c] }",
            &["missing_key", "conflict", "bad_value", "unsupported"],
        ),
        ("{ name: a, rewrite: {} }", &["missing_key"]),
        ("{ name: a, rewrite: { prefix: /x } }", &["conflict"]),
        ("{ name: a, rewrite: { prefix: /x, path: /y } }", &["conflict"]),
        ("{ name: a, rewrite: { path: x } }", &["bad_value"]),
        ("{ name: a, rewrite: { path: //x } }", &["bad_value"]),
        ("{ name: a, rewrite: { replacement: /x } }", &["missing_key"]),
        ("{ name: a, rewrite: { regex: /x } }", &["missing_key"]),
        ("{ name: a, rewrite: { regex: /x, replacement: '/{1}' } }", &["bad_value"]),
        ("{ name: a, rewrite: { regex: /x, replacement: x } }", &["bad_value"]),
        ("{ name: a, rewrite: { host: 'a:0' } }", &["bad_value"]),
        ("{ name: a, rewrite: { host: 'a b' } }", &["bad_value"]),
        ("{ name: a, redirect: {} }", &["missing_key"]),
        ("{ name: a, redirect: { https: false, status: 301 } }", &["missing_key"]),
        ("{ name: a, redirect: { to: //x.org } }", &["bad_value"]),
        ("{ name: a, redirect: { to: ftp://x.org } }", &["bad_value"]),
        ("{ name: a, redirect: { to: 'https://x.org@evil.com/' } }", &["bad_value"]),
        ("{ name: a, redirect: { to: https://x.org/, path: /y } }", &["conflict"]),
        ("{ name: a, redirect: { to: https://x.org/, https: true } }", &["conflict"]),
        ("{ name: a, redirect: { https: true, scheme: https } }", &["conflict"]),
        ("{ name: a, match: { scheme: https }, redirect: { https: true } }", &["conflict"]),
        ("{ name: a, redirect: { host: '*.x.org' } }", &["bad_value"]),
        ("{ name: a, redirect: { host: x.org, port: 0 } }", &["out_of_range"]),
        ("{ name: a, redirect: { host: x.org, status: 300 } }", &["unknown_value"]),
        ("{ name: a, redirect: { host: x.org }, rewrite: { path: /x }, limits: {} }", &["conflict", "conflict"]),
        ("{ name: a, redirect: { scheme: https } }", &["conflict"]),
        ("{ name: a, redirect: { to: /x } }", &["conflict"]),
        ("{ name: a, match: { path: { prefix: /a } }, redirect: { prefix: /a/b } }", &["conflict"]),
        ("{ name: a, request_headers: { set: { host: x } } }", &["unsupported"]),
        ("{ name: a, request_headers: { add: { Content-Length: '1' } } }", &["unsupported"]),
        ("{ name: a, response_headers: { remove: [transfer_encoding] } }", &["unsupported"]),
        ("{ name: a, response_headers: { remove: [a, A] } }", &["duplicate"]),
        ("{ name: a, response_headers: { set: { a: b }, remove: a } }", &["duplicate"]),
        ("{ name: a, response_headers: { set: { 'a b': c } } }", &["bad_value"]),
        ("{ name: a, response_headers: { set: { a: '{pol}' } } }", &["bad_value"]),
        ("{ name: a, response_headers: { set: { a: '{pool' } } }", &["bad_value"]),
        ("{ name: a, response_headers: { set: { a: \"b\\r\\nc: d\" } } }", &["bad_value"]),
        ("{ name: a, response_headers: { set: { a: \"\\0\" } } }", &["bad_value"]),
        ("{ name: a, response_headers: { set: { a: größe } } }", &["bad_value"]),
        ("{ name: a, response_headers: { set: { a: '{version}' } } }", &["bad_value"]),
        ("{ name: a, redirect: { host: x }, response_headers: { set: { a: '{pool}' } } }", &["bad_value"]),
        ("{ name: a, limits: { body: 1 } }", &["bad_value"]),
        ("{ name: a, limits: { head: 2MiB, headers: 0 } }", &["out_of_range", "out_of_range"]),
        ("{ name: a, timeouts: { connect: 1s } }", &["unknown_key"]),
        ("{ name: a, timeouts: { request: 1ms } }", &["out_of_range"]),
        ("{ name: a, upgrades: websocket }", &["wrong_type"]),
        ("{ name: a, upgrades: [h2c, 'a b'] }", &["unsupported", "bad_value"]),
        ("{ name: a }, { name: a, match: { scheme: http } }", &["duplicate", "conflict"]),
        ("{ name: a }, { name: b }, { name: c }", &["conflict", "conflict"]),
        ("{ name: a, match: { path: {} } }, { name: b }", &["conflict"]),
        ("{ name: a, match: { path: { exact: x } }, rewrite: { prefix: /x } }", &["bad_value"]),
    ];
    for (lines, expected) in table {
        let mut found: Vec<_> = codes(&with(&format!("routes: [ {lines} ]"))).into_iter().collect();
        let mut expected: Vec<_> = expected.iter().map(|code| (*code, 5)).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{lines}");
    }
}

#[test]
fn paths_that_upstreams_read_differently_cannot_be_claimed() {
    for path in ["//a", "/a;b", "/a/..", "/a%2Fb", "/%zz", "/a\\b"] {
        assert_eq!(codes(&with(&format!("paths: '{path}'"))), [("bad_value", 5)], "{path}");
    }
    assert_eq!(shop("paths: /%61%c3").paths, ["/a%C3"]);
    assert_eq!(codes(&with("paths: [/a, /%61]")), [("duplicate", 5)]);
}

#[test]
fn numbers_of_things_have_limits() {
    let listed = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join(", ");
    let routes =
        |count| format!("routes: [{}]", listed(count, &|i| format!("{{name: r{i}, match: {{query: {{a: b}}}}}}")));
    let edits = |count| {
        format!("routes: [{{name: a, request_headers: {{remove: [{}]}}}}]", listed(count, &|i| format!("h{i}")))
    };
    let conditions = |count| {
        format!(
            "routes: [{{name: a, match: {{client: 10.0.0.0/8, query: {{{}}}}}}}]",
            listed(count - 1, &|i| format!("q{i}: v"))
        )
    };
    let cases: [(&dyn Fn(usize) -> String, usize); 3] = [(&routes, 128), (&edits, 32), (&conditions, 16)];
    for (text, most) in cases {
        assert!(parse(&with(&text(most))).is_ok(), "{}", text(most));
        assert_eq!(codes(&with(&text(most + 1))), [("out_of_range", 5)]);
    }
}

#[test]
fn a_file_holds_so_many_patterns() {
    let text = |count: usize| {
        let mut text = "version: 1\nservices:\n".to_owned();
        for service in 0..count.div_ceil(1000) {
            text += &format!("  s{service}: {{ hosts: h{service}, pools: {{ a: 'http://a' }}, routes: [\n");
            for route in 0..count.min(1000) / 10 {
                let conditions: Vec<_> = (0..10).map(|at| format!("q{at}: {{ regex: a }}")).collect();
                text += &format!("    {{ name: r{route}, match: {{ query: {{ {} }} }} }},\n", conditions.join(", "));
            }
            text += "  ] }\n";
        }
        text
    };
    assert!(parse(&text(1000)).is_ok());
    assert_eq!(codes(&text(2000)), [("out_of_range", 106)]);
}

#[test]
fn an_unknown_variable_and_a_field_that_frames() {
    let expected = r#"error[bad_value]: `x-pool`: `{pol}` means nothing here
 --> teal.yaml:5:60
  |
5 |     routes: [ { name: a, request_headers: { set: { x-pool: '{pol}', te: a } } } ]
  |                                                            ^^^^^^^
  |
  = help: did you mean `pool`? accepted: `pool`, `version`, `service`, `route`, `request_id`, `client`; braces are written `{{` and `}}`

error[unsupported]: `te` cannot be edited
 --> teal.yaml:5:69
  |
5 |     routes: [ { name: a, request_headers: { set: { x-pool: '{pol}', te: a } } } ]
  |                                                                     ^^
  |
  = help: it concerns one connection only, and never crosses to another

teal.yaml: 2 problems
"#;
    let lines = "routes: [ { name: a, request_headers: { set: { x-pool: '{pol}', te: a } } } ]";
    assert_eq!(parse(&with(lines)).unwrap_err().to_string(), expected);
}

#[test]
fn a_route_behind_everything() {
    let expected = r#"error[conflict]: this route is never reached: `all` takes everything
 --> teal.yaml:5:30
  |
5 |     routes: [ { name: all }, { name: api, match: { path: { prefix: /api } } } ]
  |               -------------  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  |               |
  |               takes everything
  |
  = help: put it before that one

teal.yaml: 1 problem
"#;
    let lines = "routes: [ { name: all }, { name: api, match: { path: { prefix: /api } } } ]";
    assert_eq!(parse(&with(lines)).unwrap_err().to_string(), expected);
}
