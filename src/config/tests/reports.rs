//! Exact reports of typical mistakes, as a user meets them.

use super::*;

fn report(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn a_misspelt_key_is_named_once_with_what_was_meant() {
    let expected = r#"error[unknown_key]: unknown key `endpoint`
 --> teal.yaml:4:22
  |
4 |     pools: { blue: { endpoint: http://a } }
  |                      ^^^^^^^^ not a key of `blue`
  |
  = help: did you mean `endpoints`? accepted: `endpoints`, `balance`, `resolve`, `tls`, `protocol`, `proxy_protocol`, `version`, `reports`, `ejection`, `request_headers`, `response_headers`, `breaker`, `limits`

teal.yaml: 1 problem
"#;
    assert_eq!(report("version: 1\nservices:\n  shop:\n    pools: { blue: { endpoint: http://a } }\n"), expected);
}

#[test]
fn an_unknown_pool() {
    let expected = r#"error[unknown_pool]: the service has no such pool
 --> teal.yaml:5:13
  |
5 |     active: gren
  |             ^^^^
  |
  = help: did you mean `green`? accepted: `blue`, `green`

teal.yaml: 1 problem
"#;
    assert_eq!(report(&with("active: gren")), expected);
}

#[test]
fn a_bare_number() {
    let expected = r#"error[bad_value]: `interval` needs a duration such as `2s` or `500ms`
 --> teal.yaml:5:25
  |
5 |     health: { interval: 5 }
  |                         ^ not well-formed
  |
  = help: a bare number has no unit: write it with `ms`, `s`, `m` or `h`

teal.yaml: 1 problem
"#;
    assert_eq!(report(&with("health: { interval: 5 }")), expected);
}

#[test]
fn an_unknown_word() {
    let expected = r#"error[unknown_value]: `guard` does not know this value
 --> teal.yaml:5:12
  |
5 |     guard: rolback
  |            ^^^^^^^
  |
  = help: did you mean `rollback`? accepted: `rollback`, `hold`, `observe`, `off`

teal.yaml: 1 problem
"#;
    assert_eq!(report(&with("guard: rolback")), expected);
}

#[test]
fn a_key_twice() {
    let expected = r#"error[duplicate_key]: the key `hosts` stands here twice
 --> teal.yaml:7:5
  |
5 |     hosts: a
  |     ----- first here
6 |     guard: off
7 |     hosts: b
  |     ^^^^^ again here

teal.yaml: 1 problem
"#;
    assert_eq!(report(&with("hosts: a\n    guard: off\n    hosts: b")), expected);
}

#[test]
fn a_variable_without_quotes() {
    let expected = r#"error[syntax]: this is not YAML: while parsing a flow mapping, did not find expected ',' or '}'
 --> teal.yaml:5:26
  |
5 |     health: { interval: ${INTERVAL} }
  |                          ^
  |
  = help: inside `{ }` and `[ ]` a value with `${NAME}` needs quotes

teal.yaml: 1 problem
"#;
    assert_eq!(report(&with("health: { interval: ${INTERVAL} }")), expected);
}

#[test]
fn a_weight_that_falls() {
    let expected = r#"error[plan]: 5% does not rise above the 10% before it
 --> teal.yaml:5:40
  |
5 |     rollout: { steps: [ {weight: 10%}, {weight: 5%} ] }
  |                         -------------  ^^^^^^^^^^^^^
  |                         |
  |                         this weight
  |
  = help: weights rise from step to step

teal.yaml: 1 problem
"#;
    assert_eq!(report(&with("rollout: { steps: [ {weight: 10%}, {weight: 5%} ] }")), expected);
}

#[test]
fn an_open_admin_and_its_secret() {
    let expected = r#"error[exposed_admin]: the admin API on 0.0.0.0:9900 would be open to the network without a token
 --> teal.yaml:2:18
  |
2 | admin: { listen: 0.0.0.0:9900, tokn: ******* }
  |                  ^^^^^^^^^^^^
  |
  = help: add one, `admin: { listen: ..., token: "file:admin.token" }`, or listen on 127.0.0.1

error[unknown_key]: unknown key `tokn`
 --> teal.yaml:2:32
  |
2 | admin: { listen: 0.0.0.0:9900, tokn: ******* }
  |                                ^^^^ not a key of `admin`
  |
  = help: did you mean `token`? accepted: `listen`, `token`

teal.yaml: 2 problems
"#;
    assert_eq!(
        report(
            "version: 1\nadmin: { listen: 0.0.0.0:9900, tokn: hunter2 }\nservices: { a: { pools: { b: http://a } } }\n"
        ),
        expected
    );
}

#[test]
fn a_tab() {
    let expected = r#"error[syntax]: YAML is indented by spaces, never by tabs
 --> teal.yaml:3:1
  |
3 |     a: 1
  | ^^^^

teal.yaml: 1 problem
"#;
    assert_eq!(report("version: 1\nservices:\n\ta: 1\n"), expected);
}

#[test]
fn two_services_with_one_claim() {
    let expected = r#"error[conflict]: services `a` and `b` both claim x.org /
 --> teal.yaml:4:15
  |
3 |   a: { hosts: x.org, pools: { b: http://a } }
  |               ----- claimed first
4 |   b: { hosts: x.org, pools: { b: http://a } }
  |               ^^^^^ claimed again
  |
  = help: tell them apart by `hosts` or `paths`

teal.yaml: 1 problem
"#;
    assert_eq!(
        report(
            "version: 1\nservices:\n  a: { hosts: x.org, pools: { b: http://a } }\n  b: { hosts: x.org, pools: { b: http://a } }\n"
        ),
        expected
    );
}

#[test]
fn an_unsupported_scheme() {
    let expected = r#"error[bad_value]: `blue`: an address begins with `http://`, `https://`, `unix:` or `srv:`, such as http://10.0.0.1:8080
 --> teal.yaml:4:20
  |
4 |     pools: { blue: 'ftp://a', green: 'http://b' }
  |                    ^^^^^^^^^

teal.yaml: 1 problem
"#;
    assert_eq!(report(&with("active: blue").replace("http://a", "ftp://a")), expected);
}
