//! Files that are fine, and what they mean.

use super::*;

#[test]
fn every_example_loads() {
    for path in examples() {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.display().to_string();
        parse_in(&name, &text, &environment, certificates()).unwrap_or_else(|report| panic!("{report}"));
    }
}

#[test]
fn what_a_file_leaves_out_has_its_default() {
    let settings = parse("version: 1\nservices: { shop: { pools: { blue: 'http://a:1' } } }").unwrap();
    let pools = vec![crate::config::settings::Pool::new(
        "blue",
        vec!["http://a:1".parse::<crate::config::settings::Address>().unwrap()],
    )];
    assert_eq!(settings.services, [Service::new("shop".into(), pools)]);
    assert_eq!(settings.listen, [Listen::plain("0.0.0.0:8080".parse().unwrap())]);
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
client: { head_timeout: 1s, keep_alive: 2m, max_connections: 5, max_connections_per_source: 3, max_head: 64KiB, max_headers: 50,
          min_upload_rate: 2KiB }
shutdown: { delay: 5s, grace: 0s }
services: { shop: { pools: { blue: 'http://a' } } }
";
    let settings = parse(text).unwrap();
    let plain = |text: &str| Listen::plain(text.parse().unwrap());
    assert_eq!(settings.listen, [plain("0.0.0.0:81"), plain("[::1]:0")]);
    let admin = settings.admin.unwrap();
    assert_eq!(admin.token.as_ref().unwrap().expose(), "s3cret-value");
    assert!(!format!("{admin:?}").contains("s3cret"));
    assert_eq!(settings.state, State::Folder("/etc/teal/state".into()));
    assert_eq!((settings.workers.get(), settings.access_log), (3, AccessLog::File("/etc/teal/access.log".into())));
    let client = settings.client;
    assert_eq!((client.head_timeout, client.keep_alive), (Duration::from_secs(1), Duration::from_secs(120)));
    assert_eq!((client.max_connections, client.max_head, client.max_headers), (NonZeroUsize::new(5), 65_536, 50));
    assert_eq!(client.max_connections_per_source, NonZeroUsize::new(3));
    assert_eq!(client.min_upload_rate, NonZeroUsize::new(2_048));
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
    assert_eq!(shop("health: { path: /h?deep=1 }").health.probe, Probe::get("/h?deep=1"));
    assert_eq!(shop("retry: off").retry.attempts, 0);
    assert_eq!(shop("split_by: client").split_by, SplitBy::Client);
    assert_eq!(shop("split_by: { header: X-User }").split_by, SplitBy::Header("x-user".into()));
    assert_eq!(shop("active: green").active, 1);
    assert_eq!(shop("timeouts: { request: 3s }").timeouts.request, Some(Duration::from_secs(3)));
    let pools =
        |text: &str| parse(&format!("version: 1\nservices: {{ a: {{ pools: {{ b: {text} }} }} }}")).unwrap().services;
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
