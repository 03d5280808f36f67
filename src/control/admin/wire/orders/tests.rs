//! What orders say, and what they must not: tables.

use super::*;
use crate::control::admin::wire::{Ordered, Rollout};
use crate::domain::rollout::machine::{self, Cause, End, Order, Phase, UnixMillis};

fn share(text: &str) -> Share {
    text.parse().expect("a share")
}

/// `green=10% blue=90%`, resolved and written the same way.
fn weights(text: &str, pools: &[&str]) -> Result<String, String> {
    let pair = |word: &str| word.split_once('=').map(|(pool, share)| (pool.to_owned(), share.to_owned()));
    let weights = Weights { weights: Ordered(text.split_whitespace().filter_map(pair).collect()) };
    let shares = weights.resolve(pools, "blue").map_err(|refusal| refusal.to_string())?;
    Ok(shares.iter().map(|(pool, share)| format!("{pool}={share}")).collect::<Vec<_>>().join(" "))
}

#[test]
fn the_active_pool_gets_the_rest_if_it_alone_is_left_out() {
    let table = [
        ("green=10%", "green=10% blue=90%"),
        ("green=0%", "green=0% blue=100%"),
        ("green=100%", "green=100% blue=0%"),
        ("green=0.25%", "green=0.25% blue=99.75%"),
        ("green=10% blue=90%", "green=10% blue=90%"),
        ("blue=100%", "blue=100%"),
    ];
    for (said, expected) in table {
        assert_eq!(weights(said, &["blue", "green"]).as_deref(), Ok(expected), "{said}");
    }
    let three = &["blue", "green", "red"];
    assert_eq!(weights("green=10% red=5%", three).as_deref(), Ok("green=10% red=5% blue=85%"));
    assert_eq!(weights("green=100%", three).as_deref(), Ok("green=100%"));
    assert_eq!(weights("", &["blue"]).as_deref(), Ok("blue=100%"));
}

#[test]
fn weights_that_make_no_sense_are_refused() {
    let two = &["blue", "green"];
    let three = &["blue", "green", "red"];
    let table: [(&str, &[&str], &str); 9] = [
        ("gren=10%", two, "there is no pool `gren`; did you mean `green`?"),
        ("canary=10%", two, "there is no pool `canary`"),
        ("green=10", two, "pool `green`: \"10\" is no share"),
        ("green=101%", two, "pool `green`: \"101%\" is no share"),
        ("green=-1%", two, "pool `green`: \"-1%\" is no share"),
        ("green=10% blue=80%", two, "the weights sum to 90.00%, not 100%; only `blue` may be left to take the rest"),
        ("green=10%", three, "the weights sum to 10.00%"),
        ("green=60% red=40.01%", three, "the weights sum to 100.01%"),
        ("", two, "the weights sum to 0.00%"),
    ];
    for (said, pools, expected) in table {
        let error = weights(said, pools).unwrap_err();
        assert!(error.starts_with(expected), "{said}: {error}");
    }
}

fn plan(json: &str) -> Result<plan::Plan, String> {
    let plan: Plan = serde_json::from_str(json).map_err(|error| error.to_string())?;
    plan.resolve().map_err(|refusal| refusal.to_string())
}

#[test]
fn every_kind_of_step_is_read() {
    let json = r#"{"steps": [{"weight": "5%"}, {"analyze": "2m"}, {"analyze": {"dwell": "1m", "deadline": "10m"}},
        {"analyze": {"deadline": "1h 30m"}}, {"pause": "10m"}, {"pause": "approve"}, {"weight": "50%"}],
        "on_inconclusive": "rollback"}"#;
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let analyze = |dwell, deadline| plan::Step::Analyze { dwell, deadline };
    let expected = plan::Plan {
        steps: vec![
            plan::Step::Weight(share("5%")),
            analyze(minutes(2), None),
            analyze(minutes(1), Some(minutes(10))),
            analyze(minutes(1), Some(minutes(90))),
            plan::Step::Pause(plan::Pause::For(minutes(10))),
            plan::Step::Pause(plan::Pause::UntilApproved),
            plan::Step::Weight(share("50%")),
            plan::Step::Weight(Share::ALL),
        ],
        on_inconclusive: plan::OnInconclusive::Rollback,
    };
    assert_eq!(plan(json), Ok(expected.clone()));
    let shown = serde_json::to_string(&Plan::from(expected.clone())).expect("a plan is JSON");
    assert_eq!(plan(&shown), Ok(expected), "what is shown can be ordered: {shown}");
}

#[test]
fn the_default_plan_survives_being_shown_and_ordered() {
    assert_eq!(Plan::from(plan::Plan::default()).resolve(), Ok(plan::Plan::default()));
}

#[test]
fn plans_that_make_no_sense_are_refused() {
    let table = [
        (r#"{"steps": []}"#, "the plan has no steps"),
        (r#"{"steps": [{"analyze": "2m"}]}"#, "step 1: before the first weight there is nothing to wait for"),
        (r#"{"steps": [{"weight": "0%"}]}"#, "step 1: a weight of 0 % moves nothing"),
        (r#"{"steps": [{"weight": "10%"}, {"weight": "5%"}]}"#, "step 2: 5% does not rise above the 10% before it"),
        (r#"{"steps": [{"weight": "100%"}, {"pause": "1m"}]}"#, "step 2: at 100 % the rollout is over"),
        (r#"{"steps": [{"weight": "10"}]}"#, "step 1: \"10\" is no share"),
        (r#"{"steps": [{"weight": "5%"}, {"pause": "aprove"}]}"#, "step 2: \"aprove\" is no duration"),
        (r#"{"steps": [{"weight": "5%"}, {"pause": "0s"}]}"#, "step 2: \"0s\" is not between 100ms and 30 days"),
        (r#"{"steps": [{"weight": "5%"}, {"pause": "31days"}]}"#, "step 2: \"31days\" is not between"),
        (
            r#"{"steps": [{"weight": "5%"}, {"analyze": {"dwell": "2m", "deadline": "1m"}}]}"#,
            "step 2: the deadline comes before the dwell of 2m is over",
        ),
        (r#"{"steps": [{"weight": "5%"}], "on_inconclusive": "shrug"}"#, "unknown variant `shrug`"),
        (r#"{"steps": [{"weight": "5%"}], "on_failure": "hold"}"#, "unknown field `on_failure`"),
        (r#"{"steps": [{"weight": "5%", "pause": "1m"}]}"#, "expected"),
    ];
    for (json, expected) in table {
        let error = plan(json).unwrap_err();
        assert!(error.starts_with(expected), "{json}: {error}");
    }
    let step = Step::Weight("1%".to_owned());
    let long = Plan { steps: vec![step; MAX_STEPS + 1], on_inconclusive: OnInconclusive::Hold };
    assert_eq!(long.resolve(), Err(invalid("a plan has at most 64 steps, not 65".to_owned())));
}

#[test]
fn verbs_become_acts_and_reasons_stay_short() {
    let action = |verb, reason: &str| Action { action: verb, reason: Some(reason.to_owned()) }.resolve();
    assert_eq!(action(Verb::Pause, ""), Ok(Act::Pause));
    assert_eq!(action(Verb::Resume, ""), Ok(Act::Resume));
    assert_eq!(action(Verb::Approve, "fine"), Ok(Act::Resume));
    assert_eq!(action(Verb::Promote, ""), Ok(Act::Promote));
    assert_eq!(action(Verb::Abort, "slow"), Ok(Act::Abort { reason: "slow".to_owned() }));
    for bad in ["x".repeat(MAX_REASON + 1), "two\nlines".to_owned(), "\u{1b}[31m".to_owned()] {
        assert!(matches!(action(Verb::Abort, &bad), Err(Refusal::Invalid(_))), "{bad:?}");
        assert!(Rollback { reason: Some(bad) }.resolve().is_err());
    }
    assert_eq!(Rollback::default().resolve(), Ok(String::new()));
}

#[test]
fn a_rollout_is_shown_in_words() {
    let order = Order {
        id: "r1".to_owned(),
        service: "shop".to_owned(),
        baseline: "blue".to_owned(),
        canary: "green".to_owned(),
        plan: plan::Plan::default(),
        started_by: "ci".to_owned(),
        started_at: UnixMillis(0),
    };
    let rollout = machine::Rollout { step: 1, applied: share("1%"), ..machine::Rollout::new(order) };
    let shown = |phase| Rollout::from(machine::Rollout { phase, ..rollout.clone() });
    let table = [
        (Phase::Ready, "ready", None),
        (Phase::Applying { share: Share::ALL }, "applying", None),
        (Phase::Analyzing, "analyzing", None),
        (Phase::Waiting, "waiting", None),
        (Phase::Held(Cause::Inconclusive), "held", Some("inconclusive")),
        (Phase::Promoting, "promoting", None),
        (Phase::RollingBack(End::Aborted), "rolling_back", None),
        (Phase::Ended(End::RolledBack), "ended", None),
    ];
    for (phase, word, held) in table {
        let shown = shown(phase);
        assert_eq!((shown.phase.as_str(), shown.held.as_deref()), (word, held));
        assert_eq!(shown.ended.is_some(), word == "ended");
    }
    let over = crate::control::state::Finished {
        rollout: machine::Rollout { phase: Phase::Ended(End::RolledBack), step: 9, ..rollout.clone() },
        ended_at: UnixMillis(1_500),
    };
    let over = Rollout::from(command::Found::Over(Box::new(over)));
    assert_eq!((over.step, over.steps_total, over.started_at.as_str()), (9, 9, "1970-01-01T00:00:00.000Z"));
    let ended = over.ended.clone().expect("it is over");
    assert_eq!((ended.how.as_str(), ended.at.as_deref()), ("rolled_back", Some("1970-01-01T00:00:01.500Z")));
    let text = serde_json::to_string(&over).expect("a rollout is JSON");
    assert_eq!(serde_json::from_str::<Rollout>(&text).expect("and back"), over);
    assert_eq!((shown(Phase::Analyzing).step, shown(Phase::Analyzing).share.as_str()), (2, "1%"));
}
