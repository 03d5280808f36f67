//! Files with mistakes: codes, places, limits, secrets.

use super::*;

#[test]
fn everything_wrong_is_found_in_one_run() {
    let text = r#"version: 2
listen: 8080
admin: 0.0.0.0:9900
state: ~/teal
workers: 0
acces_log: off
client: { head_timeout: 10, max_head: 1KiB, max_headers: many }
services:
  Shop:
    hosts: [http://x, y.org, Y.org]
    paths: api
    pools:
      blue: { endpoints: [ftp://a, http://b, http://b:80] }
      green: { endpoint: http://c }
    active: gren
    split_by: client
    sticky: id
    overrides: [ { name: qa, match: {}, pool: red } ]
    health: { path: healthz, interval: "${INTERVAL}" }
    balance: random
    retry: { attempts: 9, budget: 10 }
    analysis: { alpha: 0.01, tolerate: { latency: 30% } }
    rollout: { steps: [ {pause: 1m}, {weight: 0%}, {weight: 5%}, {weight: 5%}, {weigth: 6%} ] }
    retry: off
  other:
    hosts: y.org
    paths: /a b
    pools: {}
"#;
    let expected = [
        ("unsupported", 1),
        ("bad_value", 2),
        ("exposed_admin", 3),
        ("bad_value", 4),
        ("out_of_range", 5),
        ("unknown_key", 6),
        ("bad_value", 7),
        ("out_of_range", 7),
        ("bad_value", 7),
        ("bad_value", 9),
        ("bad_value", 10),
        ("duplicate", 10),
        ("bad_value", 11),
        ("bad_value", 13),
        ("duplicate", 13),
        ("unknown_key", 14),
        ("unknown_pool", 15),
        ("conflict", 17),
        ("missing_key", 18),
        ("unknown_pool", 18),
        ("bad_value", 19),
        ("environment", 19),
        ("unknown_value", 20),
        ("out_of_range", 21),
        ("bad_value", 21),
        ("conflict", 22),
        ("bad_value", 22),
        ("plan", 23),
        ("plan", 23),
        ("plan", 23),
        ("unknown_key", 23),
        ("duplicate_key", 24),
        ("bad_value", 27),
        ("missing_key", 28),
    ];
    assert_eq!(codes(text), expected);
}

#[test]
fn each_mistake_has_its_code_and_place() {
    let table: &[(&str, &[&str])] = &[
        ("pools: {}", &["duplicate_key"]),
        ("hosts: []", &["out_of_range"]),
        ("hosts: { a: b }", &["wrong_type"]),
        ("hosts: x:80", &["bad_value"]),
        ("paths: /a?b", &["bad_value"]),
        ("paths: [/a, /a]", &["duplicate"]),
        ("active:", &["wrong_type"]),
        ("split_by: { header: a, cookie: b }", &["conflict"]),
        ("split_by: { query: a }", &["unknown_key"]),
        ("split_by: {}", &["conflict"]),
        ("split_by: header", &["wrong_type"]),
        ("sticky: 'a b'", &["bad_value"]),
        ("sticky: { max_age: 1d }", &["missing_key"]),
        ("health: on", &["unknown_value"]),
        ("health: { path: health }", &["bad_value"]),
        ("health: { interval: -1s }", &["bad_value"]),
        ("health: { interval: 1 fortnight }", &["bad_value"]),
        ("health: { interval: 99999999999999999999years }", &["bad_value"]),
        ("timeouts: { request: off }", &["bad_value"]),
        ("connections: { max_idle: 99999999999999999999999 }", &["out_of_range"]),
        ("connections: { max_idle: -1 }", &["bad_value"]),
        ("retry: { attempts: 6 }", &["out_of_range"]),
        ("retry: { on: [connect_eror] }", &["unknown_value"]),
        ("retry: { on: [\"200\"] }", &["out_of_range"]),
        ("retry: { on: [] }", &["out_of_range"]),
        ("retry: { budget: { share: 10%, floor: 1001 } }", &["out_of_range"]),
        ("retry: { budget: { in_flight: 0 } }", &["out_of_range"]),
        ("retry: { backoff: { base: 0ms } }", &["out_of_range"]),
        ("hedge: { after: p49 }", &["out_of_range"]),
        ("hedge: { after: p100 }", &["out_of_range"]),
        ("hedge: { after: 5 }", &["bad_value"]),
        ("hedge: { budget: 5 }", &["bad_value"]),
        ("rescue: on", &["wrong_type"]),
        ("rescue: { methods: get }", &["unknown_value"]),
        ("rescue: { on: [5xx, nothing] }", &["unknown_value"]),
        ("rescue: { after: 5 }", &["bad_value"]),
        ("rescue: { body: 64KiB }", &["unknown_key"]),
        ("replay: 1MiB", &["out_of_range"]),
        ("retry: { budget: 101% }", &["bad_value"]),
        ("guard: yes", &["unknown_value"]),
        ("analysis: { alpha: 0% }", &["out_of_range"]),
        ("analysis: { alpha: NaN% }", &["bad_value"]),
        ("analysis: { approve: { errors_odds: inf } }", &["bad_value"]),
        ("analysis: { approve: { errors_odds: 1.02 } }", &["conflict"]),
        ("rollout: { steps: [] }", &["plan"]),
        ("rollout: { steps: [{analyze: 1m}] }", &["plan"]),
        ("rollout: { steps: [{weight: 100%}, {pause: 1m}] }", &["plan"]),
        ("rollout: { steps: [{weight: 10%, pause: 1m}] }", &["conflict"]),
        ("rollout: { steps: [weight] }", &["wrong_type"]),
        ("rollout: { on_inconclusive: wait }", &["unknown_value"]),
        ("overrides: [{ match: { cookie: { a: b } }, pool: blue }]", &["missing_key"]),
        ("overrides: [{ name: a, match: { cookie: { a: { present: false } } }, pool: blue }]", &["unsupported"]),
        ("overrides: [{ name: a, match: { header: { 'a b': c } }, pool: blue }]", &["bad_value"]),
    ];
    for (lines, expected) in table {
        let found: Vec<_> = codes(&with(lines)).into_iter().collect();
        let expected: Vec<_> = expected.iter().map(|code| (*code, 5)).collect();
        assert_eq!(found, expected, "{lines}");
    }
}

#[test]
fn limits_on_counts_hold_at_their_edge() {
    let hosts = |count: usize| {
        let list: Vec<_> = (0..count).map(|index| format!("h{index}")).collect();
        with(&format!("hosts: [{}]", list.join(", ")))
    };
    assert!(parse(&hosts(64)).is_ok());
    assert_eq!(codes(&hosts(65)), [("out_of_range", 5)]);
    let steps = |count: usize| {
        let list: Vec<_> = (1..=count).map(|index| format!("{{weight: {index}%}}")).collect();
        with(&format!("rollout: {{ steps: [{}] }}", list.join(", ")))
    };
    assert!(parse(&steps(64)).is_ok());
    assert_eq!(codes(&steps(65)), [("out_of_range", 5)]);
    let deep = |levels: usize| format!("version: {}{}\n", "[".repeat(levels), "]".repeat(levels));
    assert!(codes(&deep(31)).iter().all(|(code, _)| *code != "too_deep"));
    assert_eq!(codes(&deep(32)), [("too_deep", 1)]);
}

#[test]
fn two_listeners_cannot_share_a_port() {
    for (listen, admin, line) in
        [("':80'", "127.0.0.1:80", 2), ("[':80', '10.0.0.1:80']", "off", 1), ("[':80', ':80']", "off", 1)]
    {
        assert_eq!(codes(&format!("listen: {listen}\nadmin: {admin}\n{}", with(""))), [("conflict", line)], "{listen}");
    }
    assert!(parse(&format!("listen: [':0', ':0', '[::]:80', ':80']\n{}", with(""))).is_ok());
}

#[test]
fn secrets_are_never_shown() {
    let lines = [
        "admin: { listen: 0.0.0.0:1, token: hunter2, bogus: 1 }",
        "admin: { listen: 0.0.0.0:1, tokn: hunter2 }",
        "admin: { listen: nowhere, token: [hunter2] }",
        "admin: { listen: nowhere, token: '${NONE:-hunter2}' }",
        "admin: { listen: 0.0.0.0:1, token: 'hunter2 hunter2' }",
        "admin: { token: \"hunter2, bogus: 1 }",
        "admin:\n  token: |\n    hunter2\n  listen: 1",
        "admin:\n  token:\n    hunter2: [",
        "admin: { listen: 1, Token : hunter2 }",
    ];
    for line in lines {
        let report = parse(&format!("{line}\nversion: 1\n")).unwrap_err();
        let texts = format!("{report} {report:?}");
        assert!(!texts.contains("hunter2"), "{texts}");
    }
    let report =
        parse(&format!("listen: '${{TOKEN}}'\nworkers: '${{TOKEN}}'\n{}", with("guard: '${TOKEN}'"))).unwrap_err();
    assert_eq!(report.problems().count(), 3);
    assert!(!format!("{report} {report:?}").contains("s3cret"));
}

#[test]
fn a_report_of_garbage_ends() {
    let many: String = (0..5_000).map(|index| format!("k{index}: 1\n")).collect();
    let report = parse(&many).unwrap_err();
    assert_eq!((report.problems().count(), report.omitted()), (100, 4_902));
    assert!(report.to_string().ends_with("teal.yaml: 5002 problems, 4902 of them not shown\n"));
}

#[test]
fn files_that_are_no_text_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("teal.yaml");
    let refused = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        let report = load(&path, &environment).unwrap_err();
        let first = report.problems().next().unwrap().problem.clone();
        assert!(!report.to_string().is_empty());
        (first.code, first.message)
    };
    assert_eq!(refused(b""), ("empty", "the file holds no settings".into()));
    assert_eq!(refused(b"a: 1\nb: \xff\n").1, "the file is not UTF-8 text: line 2 holds a byte that cannot be");
    assert_eq!(refused(b"\xff\xfev\0e\0").0, "unreadable");
    assert_eq!(refused(b"\x7fELF\0\0").1, "the control character U+007F stands here");
    assert_eq!(refused(b"version: 1\rlisten: x").1, "the control character U+000D stands here");
    assert_eq!(refused(&vec![b'a'; 1024 * 1024 + 1]), ("too_large", "the file is larger than 1 MiB".into()));
    std::fs::File::create(&path).unwrap().set_len(100 * 1024 * 1024).unwrap();
    assert_eq!(load(&path, &environment).unwrap_err().problems().next().unwrap().problem.code, "too_large");
    std::fs::remove_file(&path).unwrap();
    let report = load(&path, &environment).unwrap_err();
    assert_eq!(report.problems().next().unwrap().problem.code, "unreadable");
    assert!(load(folder.path(), &environment).is_err());
}

#[test]
fn places_are_true_beside_letters_of_several_bytes() {
    let text = "# größe 🦀\nversion: 1 # é\nclient: { \"ü\": 1, max_headers: x }\n";
    let report = parse(text).unwrap_err();
    let places: Vec<_> = report.problems().map(|l| (l.problem.code, l.line, l.column)).collect();
    assert_eq!(places, [("missing_key", 1, 1), ("unknown_key", 3, 11), ("bad_value", 3, 32)]);
}
