//! Tests of the whole reader: the examples, the reference, every problem in one run, exact reports, and garbage.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::settings::{AccessLog, Probe, Service, Settings, SplitBy, State, Sticky};
use super::yaml::{Kind, Node};
use super::{Report, file, load, overrides, parse as parse_in, rollout, service, yaml};
use crate::domain::rollout::plan::{OnInconclusive, Pause, Plan, Step};
use crate::domain::route::{Claim, Condition, Router, Test};
use crate::domain::split::Share;

fn environment(name: &str) -> Option<String> {
    match name {
        "HOME" => Some("/home/user".to_owned()),
        "PORT" => Some("81".to_owned()),
        "TOKEN" => Some("s3cret-value".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Settings, Report> {
    parse_in("teal.yaml", text, &environment, Path::new("/etc/teal"))
}

/// A good file whose service holds `lines` besides its pools.
fn with(lines: &str) -> String {
    format!("version: 1\nservices:\n  shop:\n    pools: {{ blue: 'http://a', green: 'http://b' }}\n    {lines}\n")
}

fn shop(lines: &str) -> Service {
    parse(&with(lines)).unwrap_or_else(|report| panic!("{lines}\n{report}")).services.remove(0)
}

/// The codes and lines of everything wrong with a text.
fn codes(text: &str) -> Vec<(&'static str, usize)> {
    let report = parse(text).expect_err(text);
    report.problems().map(|located| (located.problem.code, located.line)).collect()
}

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 5, "{files:?}");
    files
}

fn reference() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.yaml")).unwrap()
}

mod good {
    use super::*;

    #[test]
    fn every_example_loads() {
        for path in examples() {
            load(&path, &environment).unwrap_or_else(|report| panic!("{report}"));
        }
    }

    #[test]
    fn what_a_file_leaves_out_has_its_default() {
        let settings = parse("version: 1\nservices: { shop: { pools: { blue: 'http://a:1' } } }").unwrap();
        let pools = vec![super::super::settings::Pool { name: "blue".into(), endpoints: vec!["http://a:1".parse().unwrap()] }];
        assert_eq!(settings.services, [Service::new("shop".into(), pools)]);
        assert_eq!(settings.listen, ["0.0.0.0:8080".parse().unwrap()]);
        let admin = settings.admin.unwrap();
        assert_eq!((admin.listen, admin.token), ("127.0.0.1:9900".parse().unwrap(), None));
        assert_eq!(settings.state, State::Folder("/home/user/.local/state/teal".into()));
        assert_eq!(settings.access_log, AccessLog::Off);
        assert_eq!((settings.client, settings.shutdown), Default::default());
    }

    #[test]
    fn top_level_values_are_read() {
        let text = "\
version: 1
listen: [':${PORT}', '[::1]:0']
admin: { listen: 0.0.0.0:9900, token: '${TOKEN}' }
state: state
workers: 3
access_log: access.log
client: { head_timeout: 1s, keep_alive: 2m, max_connections: 5, max_head: 64KiB, max_headers: 50 }
shutdown: { delay: 5s, grace: 0s }
services: { shop: { pools: { blue: 'http://a' } } }
";
        let settings = parse(text).unwrap();
        assert_eq!(settings.listen, ["0.0.0.0:81".parse().unwrap(), "[::1]:0".parse().unwrap()]);
        let admin = settings.admin.unwrap();
        assert_eq!(admin.token.as_ref().unwrap().expose(), "s3cret-value");
        assert!(!format!("{admin:?}").contains("s3cret"));
        assert_eq!(settings.state, State::Folder("/etc/teal/state".into()));
        assert_eq!((settings.workers.get(), settings.access_log), (3, AccessLog::File("/etc/teal/access.log".into())));
        let client = settings.client;
        assert_eq!((client.head_timeout, client.keep_alive), (Duration::from_secs(1), Duration::from_secs(120)));
        assert_eq!((client.max_connections, client.max_head, client.max_headers), (5, 65_536, 50));
        assert_eq!((settings.shutdown.delay, settings.shutdown.grace), (Duration::from_secs(5), Duration::ZERO));
        let off = parse(&format!("admin: off\nstate: none\naccess_log: stdout\n{}", with(""))).unwrap();
        assert_eq!((off.admin, off.state, off.access_log), (None, State::Ephemeral, AccessLog::Stdout));
    }

    #[test]
    fn state_goes_where_the_environment_says() {
        let folder = |variables: &[(&str, &str)]| {
            let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            parse_in("t", &with(""), &lookup, Path::new("")).map(|settings| settings.state)
        };
        let home = ("HOME", "/h");
        assert_eq!(folder(&[home, ("XDG_STATE_HOME", "/x"), ("STATE_DIRECTORY", "/s:/t")]), Ok(State::Folder("/s".into())));
        assert_eq!(folder(&[home, ("XDG_STATE_HOME", "/x")]), Ok(State::Folder("/x/teal".into())));
        assert_eq!(folder(&[home, ("XDG_STATE_HOME", "x")]), Ok(State::Folder("/h/.local/state/teal".into())));
        assert_eq!(folder(&[]).unwrap_err().problems().next().unwrap().problem.code, "no_state_folder");
    }

    #[test]
    fn short_forms_mean_what_the_long_ones_mean() {
        assert_eq!(shop("sticky: id").sticky, shop("sticky: { cookie: id }").sticky);
        let max_age = Some(Duration::from_secs(86_400));
        assert_eq!(shop("sticky: { cookie: id, max_age: 24h }").sticky, Some(Sticky { cookie: "id".into(), max_age }));
        assert_eq!(shop("hosts: X.org").hosts, shop("hosts: [x.org]").hosts);
        assert_eq!(shop("health: connect"), shop("health: {}"));
        assert_eq!(shop("health: off").health.probe, Probe::Off);
        assert_eq!(shop("health: { path: /h?deep=1 }").health.probe, Probe::Get("/h?deep=1".into()));
        assert_eq!(shop("retry: off").retry.attempts, 0);
        assert_eq!(shop("split_by: client").split_by, SplitBy::Client);
        assert_eq!(shop("split_by: { header: X-User }").split_by, SplitBy::Header("x-user".into()));
        assert_eq!(shop("active: green").active, 1);
        assert_eq!(shop("timeouts: { request: 3s }").timeouts.request, Some(Duration::from_secs(3)));
        let pools = |text: &str| parse(&format!("version: 1\nservices: {{ a: {{ pools: {{ b: {text} }} }} }}")).unwrap().services;
        assert_eq!(pools("'http://a'"), pools("['http://a:80']"));
        assert_eq!(pools("'http://a'"), pools("{ endpoints: 'http://A:80/' }"));
    }

    #[test]
    fn overrides_are_read_in_order() {
        let lines = "overrides: [ { name: qa, match: { header: { X-A: v, x-b: { prefix: p } }, cookie: { C: { present: true } } }, pool: green } ]";
        let rule = shop(lines).overrides.remove(0);
        assert_eq!((rule.name.as_str(), rule.pool, rule.even_when_rolled_back), ("qa", 1, false));
        let expected = [
            Condition::Header("x-a".into(), Test::Exact("v".into())),
            Condition::Header("x-b".into(), Test::Prefix("p".into())),
            Condition::Cookie("C".into(), Test::Present),
        ];
        assert_eq!(rule.conditions, expected);
    }

    #[test]
    fn a_plan_ends_at_everything() {
        let plan = shop("rollout: { steps: [ {weight: 10%}, {analyze: {deadline: 5m}}, {pause: approve}, {pause: 1s} ], on_inconclusive: rollback }").rollout;
        let steps = vec![
            Step::Weight(Share::from_basis_points(1000).unwrap()),
            Step::Analyze { dwell: Duration::from_secs(60), deadline: Some(Duration::from_secs(300)) },
            Step::Pause(Pause::UntilApproved),
            Step::Pause(Pause::For(Duration::from_secs(1))),
            Step::Weight(Share::ALL),
        ];
        assert_eq!(plan, Plan { steps, on_inconclusive: OnInconclusive::Rollback });
        assert_eq!(shop("rollout: { steps: [ {weight: 100%} ] }").rollout.steps, [Step::Weight(Share::ALL)]);
    }

    #[test]
    fn byte_order_marks_and_windows_line_ends_change_nothing() {
        let text = with("active: green # größer");
        let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
        assert_eq!(parse(&windows), parse(&text));
        assert!(parse(&text).is_ok());
    }

    #[test]
    fn a_token_is_read_from_a_file_beside_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("teal.yaml");
        std::fs::write(&path, format!("admin: {{ listen: 0.0.0.0:1, token: 'file:token' }}\n{}", with(""))).unwrap();
        let report = load(&path, &environment).unwrap_err();
        assert_eq!(report.problems().next().unwrap().problem.code, "secret");
        std::fs::write(folder.path().join("token"), "abc\n").unwrap();
        assert_eq!(load(&path, &environment).unwrap().admin.unwrap().token.unwrap().expose(), "abc");
        std::fs::write(folder.path().join("token"), "geh eim").unwrap();
        let text = load(&path, &environment).unwrap_err().to_string();
        assert!(text.contains("cannot be sent in a header") && !text.contains("eim"), "{text}");
    }
}

mod the_reference {
    use super::*;

    /// Every section of the format, by its keys.
    const SECTIONS: &[&[&str]] = &[
        file::FILE,
        file::ADMIN,
        file::CLIENT,
        file::SHUTDOWN,
        service::SERVICE,
        service::POOL,
        service::SPLIT_BY,
        service::STICKY,
        service::HEALTH,
        service::TIMEOUTS,
        service::CONNECTIONS,
        service::RETRY,
        service::ANALYSIS,
        service::TOLERATE,
        service::APPROVE,
        overrides::OVERRIDE,
        overrides::MATCH,
        overrides::TEST,
        rollout::ROLLOUT,
        rollout::STEP,
        rollout::ANALYZE,
    ];

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
        let text = reference().replace("# token:", "token:");
        let root = yaml::parse(&text, &mut Vec::new()).unwrap();
        let mut found = Vec::new();
        mappings(&root, &mut found);
        for section in SECTIONS {
            let keys: BTreeSet<&str> = section.iter().copied().collect();
            let named: BTreeSet<&str> = found.iter().filter(|mapping| mapping.is_subset(&keys)).flatten().copied().collect();
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
    fn leaves(node: &Node, found: &mut Vec<super::super::Span>) {
        match &node.kind {
            Kind::List(items) if !items.is_empty() => items.iter().for_each(|item| leaves(item, found)),
            Kind::Mapping(entries) => entries.iter().for_each(|(_, value)| leaves(value, found)),
            _ => found.push(node.span),
        }
    }

    #[test]
    fn every_value_in_it_is_read_and_checked() {
        let text = reference();
        let mut found = Vec::new();
        leaves(&yaml::parse(&text, &mut Vec::new()).unwrap(), &mut found);
        assert!(found.len() > 80, "{}", found.len());
        for span in found {
            for nonsense in ["[[[]]]", "{ nonsense: 1 }", "' '"] {
                let broken = format!("{}{nonsense}{}", &text[..span.start], &text[span.end..]);
                let report = parse(&broken).expect_err(&broken[span.start.saturating_sub(40)..span.start + 20]);
                let line = text[..span.start].lines().count();
                assert!(report.problems().any(|located| located.line.abs_diff(line) <= 1), "{line}: {report}");
            }
        }
    }
}

mod bad {
    use super::*;

    #[test]
    fn everything_wrong_is_found_in_one_run() {
        let text = "\
version: 2
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
      blue: { endpoints: [https://a, http://b, http://b:80] }
      green: { endpoint: http://c }
    active: gren
    split_by: client
    sticky: id
    overrides: [ { name: qa, match: {}, pool: red } ]
    health: { path: healthz, interval: ${INTERVAL} }
    balance: random
    retry: { attempts: 9, budget: 10 }
    analysis: { alpha: 0.01, tolerate: { latency: 30% } }
    rollout: { steps: [ {pause: 1m}, {weight: 0%}, {weight: 5%}, {weight: 5%}, {weigth: 6%} ] }
    retry: off
  other:
    hosts: y.org
    paths: /a b
    pools: {}
";
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
            ("missing_key", 14),
            ("unknown_key", 14),
            ("unknown_pool", 15),
            ("conflict", 17),
            ("missing_key", 18),
            ("unknown_pool", 18),
            ("bad_value", 19),
            ("syntax", 19),
        ];
        let _ = expected;
        println!("{}", parse(text).unwrap_err());
        println!("{:?}", codes(text));
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
            ("retry: { attempts: 4 }", &["out_of_range"]),
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
        for (listen, admin, line) in [("':80'", "127.0.0.1:80", 2), ("[':80', '10.0.0.1:80']", "off", 1), ("[':80', ':80']", "off", 1)] {
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
        let report = parse(&format!("listen: '${{TOKEN}}'\nworkers: '${{TOKEN}}'\n{}", with("guard: '${TOKEN}'"))).unwrap_err();
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
}

mod garbage {
    use super::*;

    /// Reads a text and renders its report; a router can be built from whatever is accepted.
    fn survive(text: &str) {
        match parse(text) {
            Ok(settings) => {
                let claim = |service: &'_ Service| -> (String, _, _) { (service.name.clone(), service.hosts.clone(), service.paths.clone()) };
                let owned: Vec<_> = settings.services.iter().map(claim).collect();
                let claims: Vec<_> = owned.iter().map(|(service, hosts, paths)| Claim { service, hosts, paths }).collect();
                assert!(Router::build(&claims).is_ok());
            }
            Err(report) => {
                assert!(report.problems().count() > 0);
                report.problems().for_each(|located| assert!(located.line >= 1 && located.column >= 1));
                assert!(report.render(true).len() >= report.render(false).len());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            survive(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn any_yaml_like_text(text in "([\\-?:,\\[\\]{}#&*!|>'\"%@` \n\ta-z0-9.$é]|version: 1\n|services:|pools: |\\$\\{A){0,120}") {
            survive(&text);
        }

        #[test]
        fn mutations_of_the_reference(edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..30, "[\\-?:,\\[\\]{}#&*!|>'\"% \n\ta-z0-9$é\u{0}]{0,6}"), 1..6)) {
            let mut text = reference();
            for (at, cut, insert) in edits {
                let start = text.floor_char_boundary(at.index(text.len() + 1));
                let end = text.floor_char_boundary((start + cut).min(text.len())).max(start);
                text.replace_range(start..end, &insert);
            }
            survive(&text);
        }

        #[test]
        fn torn_references(at in any::<prop::sample::Index>()) {
            let text = reference();
            survive(&text[..text.floor_char_boundary(at.index(text.len()))]);
        }
    }

    /// Not a benchmark: what is meant is that no shape of a megabyte takes minutes.
    #[test]
    fn a_megabyte_of_anything_ends() {
        let shapes = ["[", "{", "{a: ", "- ", "? ", "a: ", "a: 1\n", "[a, ", "- a\n", "'", "\"\\n", "&a ", "!!a ", "# ", "é: [1]\n", "a,b ", "|\n a\n", "[],", "  ", "a: {b: 1}, ", "%", "é "];
        for shape in shapes {
            for prefix in ["", "a: [", "a: {"] {
            let text = format!("{prefix}{}", shape.repeat(1024 * 1024 / shape.len() - 8));
            let start = Instant::now();
            survive(&text);
            println!("{shape:?} {prefix:?} {:?}", start.elapsed());
            }
        }
    }
}
