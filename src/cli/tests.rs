//! The command line as a whole: what is parsed, what is printed, what is asked of a fake Teal.

mod asking;
mod fake;
mod following;
mod rendering;
mod waiting;

use clap::FromArgMatches;
use clap::error::ErrorKind;

use super::*;
use crate::config::settings::{Listen, Secret, State};
use crate::control::admin::wire;

/// A rollout of `shop` in its third step, or one that ended so.
pub(super) fn rollout(how: Option<&str>) -> wire::Rollout {
    wire::Rollout {
        id: "r1".to_owned(),
        service: "shop".to_owned(),
        baseline: "blue".to_owned(),
        canary: "green".to_owned(),
        phase: if how.is_some() { "ended" } else { "analyzing" }.to_owned(),
        held: None,
        step: 3,
        steps_total: 7,
        place: "step 3 of 7: analysis at 5%".to_owned(),
        share: "5%".to_owned(),
        approved: false,
        verdict: String::new(),
        reason: how.map_or(String::new(), |_| "step 3 of 7: analysis at 5%: 9 of 40 failed".to_owned()),
        started_by: "ops".to_owned(),
        started_at: "2026-01-02T03:04:05.006Z".to_owned(),
        ended: how.map(|how| wire::Ended { how: how.to_owned(), at: None }),
        plan: wire::Plan {
            steps: vec![wire::Step::Weight("5%".to_owned())],
            on_inconclusive: wire::OnInconclusive::Hold,
        },
    }
}

fn parsed(arguments: &str) -> Result<Cli, clap::Error> {
    let arguments = std::iter::once("teal").chain(arguments.split_whitespace());
    command().try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches))
}

#[test]
fn clap_finds_no_fault_in_it() {
    command().debug_assert();
}

#[test]
fn every_verb_has_an_example_and_short_help() {
    for verb in command().get_subcommands().filter(|verb| verb.get_name() != "help") {
        let name = verb.get_name();
        let example = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(example.contains("Example") && example.contains(&format!("  teal {name}")), "{name}: {example}");
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        assert!((10..=80).contains(&about.len()) && !about.ends_with('.'), "{name}: {about}");
    }
}

#[test]
fn every_flag_has_its_own_variable() {
    let mut command = command();
    command.build();
    let verbs = std::iter::once(&command).chain(command.get_subcommands());
    let mut flags: Vec<(String, String)> = Vec::new();
    for (index, verb) in verbs.enumerate() {
        let own = |flag: &&clap::Arg| flag.get_long().is_some() && (index == 0 || !flag.is_global_set());
        let asks = |flag: &&clap::Arg| !["help", "version"].contains(&flag.get_id().as_str());
        for flag in verb.get_arguments().filter(own).filter(asks) {
            let variable = flag.get_env().unwrap_or_else(|| panic!("{flag} of {} has no variable", verb.get_name()));
            assert!(flag.is_hide_env_values_set(), "{flag} would show its value");
            flags.push((variable.to_string_lossy().into_owned(), format!("{} {flag}", verb.get_name())));
        }
    }
    assert!(flags.iter().all(|(variable, _)| variable.starts_with("TEAL_")), "{flags:?}");
    let mut variables: Vec<_> = flags.iter().map(|(variable, _)| variable).collect();
    variables.sort_unstable();
    variables.dedup();
    assert_eq!(variables.len(), flags.len(), "{flags:?}");
}

#[test]
fn examples_of_the_verbs_are_parsed() {
    let good = [
        "demo --fail latency --headless --for 30s -o json",
        "proxy --blue http://127.0.0.1:3001 --green http://127.0.0.1:3002",
        "run -c teal.yaml --log-format json --log-level debug",
        "check teal.yaml -o json",
        "reload",
        "status",
        "-o json status shop",
        "status shop --admin http://10.0.0.1:9900 --token file:/run/token",
        "weight shop green=10% --if-epoch 4",
        "weight shop blue=50% green=50%",
        "rollback shop",
        "rollback shop --reason slow",
        "fault shop",
        "fault shop --off",
        "fault shop --pool green --abort 503 --share 10% --for 5m",
        "fault shop --delay 200ms --abort 500 --share 100% --path /api --header x-team=payments --header a=b --for 1m",
        "deploy shop --to green --wait --timeout 30m --key build-7",
        "pause shop",
        "resume shop",
        "approve shop",
        "promote shop",
        "abort shop --reason wrong",
        "endpoints shop",
        "streams shop",
        "upgrade",
        "drain shop green",
        "drain shop blue http://10.0.0.1:80 --deadline 30s --wait --timeout 5m --force",
        "undrain shop blue http://10.0.0.1:80",
        "watch",
        "watch shop --until-ended",
        "wait shop --for promoted --timeout 10m",
        "wait shop --for=rolled-back",
        "wait shop --for idle",
    ];
    for line in good {
        assert!(parsed(line).is_ok(), "{line}: {}", parsed(line).unwrap_err());
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let bad = [
        ("", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("statsu", ErrorKind::InvalidSubcommand),
        ("status -o yaml", ErrorKind::InvalidValue),
        ("status --admin 127.0.0.1:9900", ErrorKind::ValueValidation),
        ("status --admin https://127.0.0.1:9900", ErrorKind::ValueValidation),
        ("status --admin unix:/run/teal.sock", ErrorKind::ValueValidation),
        ("weight shop", ErrorKind::MissingRequiredArgument),
        ("weight shop green", ErrorKind::ValueValidation),
        ("weight shop green=10", ErrorKind::ValueValidation),
        ("weight shop green=10% --if-epoch x", ErrorKind::ValueValidation),
        ("fault", ErrorKind::MissingRequiredArgument),
        ("fault shop --pool green --abort 503 --share 10%", ErrorKind::MissingRequiredArgument),
        ("fault shop --abort 503 --for 5m", ErrorKind::MissingRequiredArgument),
        ("fault shop --abort 503 --share 10 --for 5m", ErrorKind::ValueValidation),
        ("fault shop --abort 503 --share 10% --for 5", ErrorKind::ValueValidation),
        ("fault shop --header x --share 10% --for 5m", ErrorKind::ValueValidation),
        ("fault shop --off --share 10% --for 5m", ErrorKind::ArgumentConflict),
        ("deploy shop", ErrorKind::MissingRequiredArgument),
        ("deploy shop --to green --timeout 5m", ErrorKind::MissingRequiredArgument),
        ("deploy shop --to green --wait --timeout 5", ErrorKind::ValueValidation),
        ("drain shop", ErrorKind::MissingRequiredArgument),
        ("drain shop green --timeout 5m", ErrorKind::MissingRequiredArgument),
        ("drain shop green --deadline 5", ErrorKind::ValueValidation),
        ("watch --until-ended", ErrorKind::MissingRequiredArgument),
        ("wait shop --timeout 5m", ErrorKind::MissingRequiredArgument),
        ("wait shop --for success", ErrorKind::InvalidValue),
        ("demo --fail dns", ErrorKind::InvalidValue),
        ("demo --for soon", ErrorKind::ValueValidation),
        ("proxy --blue http://127.0.0.1:1", ErrorKind::MissingRequiredArgument),
        ("proxy --blue http://a:1/x --green http://b:1", ErrorKind::ValueValidation),
        ("proxy --blue http://a:1 --green http://b:1 --listen 8080", ErrorKind::ValueValidation),
    ];
    for (line, kind) in bad {
        let error = parsed(line).map(|_| ()).expect_err(line);
        assert_eq!(error.kind(), kind, "{line}: {error}");
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn a_typo_is_answered_with_the_right_word() {
    for (line, word) in
        [("statsu", "status"), ("wait shop --for promotd", "promoted"), ("deploy shop --too green", "--to")]
    {
        let error = parsed(line).expect_err(line).to_string();
        assert!(error.contains("similar") && error.contains(word), "{error}");
    }
}

#[test]
fn proxy_means_two_pools_and_no_state() {
    let settings = |line: &str| {
        let cli = parsed(line).unwrap();
        let token = cli.global.token().unwrap();
        let Command::Proxy(arguments) = cli.command else { panic!("{line}") };
        proxy::settings(arguments, token)
    };
    let plain = settings("proxy --blue http://127.0.0.1:3001 --green http://[::1]:3002,http://b:3003").unwrap();
    assert_eq!(plain.listen, [Listen::plain("127.0.0.1:8080".parse().unwrap())]);
    let admin = plain.admin.unwrap();
    assert_eq!((admin.listen, admin.token), ("127.0.0.1:9900".parse().unwrap(), None));
    assert_eq!((plain.state, plain.services.len()), (State::Ephemeral, 1));
    let service = &plain.services[0];
    let pools: Vec<_> = service.pools.iter().map(|pool| (pool.name.as_str(), pool.endpoints.len())).collect();
    assert_eq!((service.name.as_str(), service.active, pools), ("default", 0, vec![("blue", 1), ("green", 2)]));

    let twice = settings("proxy --blue http://a:1 --green http://b:1,http://c:1,http://b:1").unwrap_err();
    assert_eq!(twice, Failure::Usage("--green names http://b:1 twice".to_owned()));
    let mixed = settings("proxy --blue https://a,http://b --green http://c").unwrap_err();
    assert!(matches!(mixed, Failure::Usage(text) if text.contains("all endpoints are https")));
    let secure = settings("proxy --blue https://a --green http://c").unwrap();
    assert!(secure.services[0].pools[0].tls.is_some() && secure.services[0].pools[1].tls.is_none());
    let open = "proxy --blue http://a:1 --green http://b:1 --admin-listen 0.0.0.0:9900";
    let expected = "--admin-listen 0.0.0.0:9900 is open to the network: give a token with --token";
    assert_eq!(settings(open).unwrap_err(), Failure::Usage(expected.to_owned()));
    let guarded = settings(&format!("{open} --token secret")).unwrap().admin.unwrap();
    assert_eq!(guarded.token, Some(Secret::new("secret".to_owned())));
}
