//! Tests of the rollout machine: its whole transition table, its journeys and its sentences.

use std::time::Duration;

use super::machine::*;
use super::plan::{OnInconclusive, Pause, Plan, Step};
use crate::domain::split::Share;

const SECOND: u64 = 1_000;
pub(super) const MINUTE: u64 = 60 * SECOND;

pub(super) fn percent(percent: u16) -> Share {
    Share::from_basis_points(percent * 100).unwrap()
}

fn weight(points: u16) -> Step {
    Step::Weight(percent(points))
}

pub(super) fn analyze() -> Step {
    Step::Analyze { dwell: Duration::from_secs(60), deadline: Some(Duration::from_secs(1_800)) }
}

/// 5 %, analysis, 25 %, one minute, 50 %, approval, 100 %.
fn steps() -> Vec<Step> {
    let timed = Step::Pause(Pause::For(Duration::from_secs(60)));
    vec![weight(5), analyze(), weight(25), timed, weight(50), Step::Pause(Pause::UntilApproved), weight(100)]
}

pub(super) fn rollout(steps: Vec<Step>, on_inconclusive: OnInconclusive) -> Rollout {
    let text = str::to_owned;
    Rollout::new(Order {
        id: text("r1"),
        service: text("shop"),
        baseline: text("blue"),
        canary: text("green"),
        plan: Plan { steps, on_inconclusive },
        started_by: text("ann"),
        started_at: UnixMillis(0),
    })
}

fn applied(share: u16) -> Event {
    Event::Applied { share: percent(share), promote: false }
}

pub(super) fn promoted() -> Event {
    Event::Applied { share: Share::ALL, promote: true }
}

pub(super) fn judged(approved: bool) -> Event {
    Event::Judged { approved, sentence: "412 requests each".to_owned() }
}

fn by() -> String {
    "bob".to_owned()
}

/// The name of an event in the table, and the event.
pub(super) fn events() -> Vec<(&'static str, Event)> {
    let (reason, sentence) = (|| "worker 3 is late".to_owned(), || "12 of 100 failed".to_owned());
    vec![
        ("start", Event::Start),
        ("applied", applied(25)),
        ("stale", applied(7)),
        ("promoted", promoted()),
        ("reverted", Event::Reverted),
        ("failed", Event::ApplyFailed { reason: reason() }),
        ("tick", Event::Tick),
        ("approved", judged(true)),
        ("unsure", judged(false)),
        ("worse", Event::Worse { sentence: sentence() }),
        ("advised", Event::HoldAdvised { sentence: sentence() }),
        ("broken", Event::BreakerOpened { sentence: "green's breaker".to_owned() }),
        ("mended", Event::BreakerClosed),
        ("pause", Event::Pause { by: by() }),
        ("resume", Event::Resume { by: by() }),
        ("promote", Event::Promote { by: by() }),
        ("abort", Event::Abort { by: by(), reason: reason() }),
        ("rollback", Event::Rollback { by: by(), reason: String::new() }),
        ("restarted", Event::Restarted),
    ]
}

/// The rollout in a phase of the table. Its clock began a minute before the events: every dwell, timed
/// pause and wait before a repeated rollback is over, no deadline is.
fn in_phase(name: &str) -> Rollout {
    let mut rollout = rollout(steps(), OnInconclusive::Hold);
    let place = |rollout: &mut Rollout, phase, step, share| {
        (rollout.phase, rollout.step, rollout.applied) = (phase, step, percent(share));
        rollout.reason = "it is so".to_owned();
    };
    let held = |cause| (Phase::Held(cause), 1, 5);
    let (phase, step, share) = match name {
        "Ready" => (Phase::Ready, 0, 0),
        "Applying" => (Phase::Applying { share: percent(25) }, 2, 5),
        "Analyzing" => (Phase::Analyzing, 1, 5),
        "Waiting(time)" => (Phase::Waiting, 3, 25),
        "Waiting(approval)" => (Phase::Waiting, 5, 50),
        "Held(Advised)" => held(Cause::Advised),
        "Held(Inconclusive)" => held(Cause::Inconclusive),
        "Held(Breaker)" => held(Cause::Breaker),
        "Held(Paused)" => held(Cause::Paused),
        "Held(Failed)" => (Phase::Held(Cause::Failed), 2, 5),
        "Held(Restarted)" => (Phase::Held(Cause::Restarted), 0, 0),
        "Promoting" => (Phase::Promoting, 6, 50),
        "RollingBack(RolledBack)" => (Phase::RollingBack(End::RolledBack), 1, 0),
        "RollingBack(Aborted)" => (Phase::RollingBack(End::Aborted), 1, 0),
        "Ended(Promoted)" => (Phase::Ended(End::Promoted), 7, 100),
        "Ended(RolledBack)" => (Phase::Ended(End::RolledBack), 1, 0),
        "Ended(Aborted)" => (Phase::Ended(End::Aborted), 1, 0),
        other => panic!("no such phase: {other}"),
    };
    place(&mut rollout, phase, step, share);
    rollout
}

fn phase_name(rollout: &Rollout) -> String {
    match (rollout.phase, rollout.order.plan.steps.get(rollout.step)) {
        (Phase::Applying { share }, _) => format!("Applying({share})"),
        (Phase::Waiting, Some(Step::Pause(Pause::For(_)))) => "Waiting(time)".to_owned(),
        (Phase::Waiting, _) => "Waiting(approval)".to_owned(),
        (phase, _) => format!("{phase:?}"),
    }
}

fn action_name(action: &Action) -> String {
    match action {
        Action::Move { share, promote: false } => format!("move {share}"),
        Action::Move { promote: true, .. } => "move promote".to_owned(),
        Action::Restore { share } => format!("restore {share}"),
        Action::Revert => "revert".to_owned(),
        Action::Settle => "settle".to_owned(),
        Action::Announce(notice) => format!("say {:?}", notice.kind),
    }
}

/// What `event` makes of the phase: `phase: action, action`, or `refused`.
fn transition(phase: &str, event: &Event) -> String {
    let mut rollout = in_phase(phase);
    let before = rollout.clone();
    let Ok(actions) = rollout.step(event.clone(), Millis(MINUTE)) else {
        assert_eq!(rollout, before, "a refusal must change nothing");
        return "refused".to_owned();
    };
    let actions: Vec<String> = actions.iter().map(action_name).collect();
    let after = phase_name(&rollout);
    if actions.is_empty() && after == phase_name(&before) {
        return "-".to_owned();
    }
    format!("{after}: {}", actions.join(", "))
}

const BACK: &str = "RollingBack(RolledBack): revert, settle, say RollingBack";
const GIVE_UP: &str = "RollingBack(Aborted): revert, settle, say RollingBack";
const PROMOTE: &str = "Promoting: say Promoting, move promote";

/// phase, then (event, what follows); an event that is not named is ignored (`-`).
type Row = (&'static str, &'static [(&'static str, &'static str)]);

const HARM: [(&str, &str); 3] = [("worse", BACK), ("rollback", BACK), ("abort", GIVE_UP)];

const TABLE: [Row; 12] = [
    (
        "Ready",
        &[
            ("start", "Applying(5%): say Started, say Stepped, move 5%"),
            ("failed", "Held(Failed): settle, say Held"),
            ("advised", "Held(Advised): settle, say Held"),
            ("pause", "Held(Paused): settle, say Held"),
            ("resume", "refused"),
            ("promote", PROMOTE),
            ("restarted", "Held(Restarted): restore 0%, settle, say Held"),
        ],
    ),
    (
        "Applying",
        &[
            ("applied", "Waiting(time): settle, say Stepped, settle"),
            ("failed", "Held(Failed): restore 5%, settle, say Held"),
            ("advised", "Held(Advised): restore 5%, settle, say Held"),
            ("broken", "Held(Breaker): restore 5%, settle, say Held"),
            ("pause", "Held(Paused): restore 5%, settle, say Held"),
            ("resume", "refused"),
            ("promote", PROMOTE),
            ("restarted", "Analyzing: restore 5%, say Restarted, say Stepped, settle"),
        ],
    ),
    (
        "Analyzing",
        &[
            ("failed", "Held(Failed): settle, say Held"),
            ("approved", "Applying(25%): say Stepped, move 25%"),
            ("advised", "Held(Advised): settle, say Held"),
            ("broken", "Held(Breaker): settle, say Held"),
            ("pause", "Held(Paused): settle, say Held"),
            ("resume", "refused"),
            ("promote", PROMOTE),
            ("restarted", "Analyzing: restore 5%, say Restarted, say Stepped, settle"),
        ],
    ),
    (
        "Waiting(time)",
        &[
            ("failed", "Held(Failed): settle, say Held"),
            ("tick", "Applying(50%): say Stepped, move 50%"),
            ("advised", "Held(Advised): settle, say Held"),
            ("broken", "Held(Breaker): settle, say Held"),
            ("pause", "Held(Paused): settle, say Held"),
            ("resume", "Applying(50%): say Resumed, say Stepped, move 50%"),
            ("promote", PROMOTE),
            ("restarted", "Waiting(time): restore 25%, say Restarted, say Stepped, settle"),
        ],
    ),
    (
        "Waiting(approval)",
        &[
            ("failed", "Held(Failed): settle, say Held"),
            ("advised", "Held(Advised): settle, say Held"),
            ("broken", "Held(Breaker): settle, say Held"),
            ("pause", "Held(Paused): settle, say Held"),
            ("resume", "Promoting: say Resumed, say Promoting, move promote"),
            ("promote", PROMOTE),
            ("restarted", "Waiting(approval): restore 50%, say Restarted, say Stepped, settle"),
        ],
    ),
    (
        "Held(Advised)",
        &[
            ("pause", "refused"),
            ("resume", "Analyzing: say Resumed, say Stepped, settle"),
            ("promote", PROMOTE),
            ("restarted", "Held(Advised): restore 5%, say Restarted"),
        ],
    ),
    (
        "Held(Inconclusive)",
        &[
            ("approved", "Applying(25%): say Stepped, move 25%"),
            ("advised", "Held(Advised): settle, say Held"),
            ("broken", "Held(Breaker): settle, say Held"),
            ("pause", "Held(Paused): settle, say Held"),
            ("resume", "Analyzing: say Resumed, say Stepped, settle"),
            ("promote", PROMOTE),
            ("restarted", "Held(Inconclusive): restore 5%, say Restarted"),
        ],
    ),
    (
        "Held(Breaker)",
        &[
            ("advised", "Held(Advised): settle, say Held"),
            ("mended", "Analyzing: say Resumed, say Stepped, settle"),
            ("pause", "Held(Paused): settle, say Held"),
            ("resume", "refused"),
            ("promote", PROMOTE),
            ("restarted", "Analyzing: restore 5%, say Restarted, say Stepped, settle"),
        ],
    ),
    (
        "Held(Paused)",
        &[
            ("advised", "Held(Advised): settle, say Held"),
            ("pause", "refused"),
            ("resume", "Analyzing: say Resumed, say Stepped, settle"),
            ("promote", PROMOTE),
            ("restarted", "Held(Paused): restore 5%, say Restarted"),
        ],
    ),
    (
        "Held(Failed)",
        &[
            ("advised", "Held(Advised): settle, say Held"),
            ("pause", "refused"),
            ("resume", "Applying(25%): say Resumed, say Stepped, move 25%"),
            ("promote", PROMOTE),
            ("restarted", "Held(Failed): restore 5%, say Restarted"),
        ],
    ),
    (
        "Held(Restarted)",
        &[
            ("advised", "Held(Advised): settle, say Held"),
            ("pause", "refused"),
            ("resume", "Applying(5%): say Resumed, say Stepped, move 5%"),
            ("promote", PROMOTE),
            ("restarted", "Held(Restarted): restore 0%, say Restarted"),
        ],
    ),
    (
        "Promoting",
        &[
            ("promoted", "Ended(Promoted): settle, say Ended"),
            ("failed", "Held(Failed): restore 50%, settle, say Held"),
            ("advised", "Held(Advised): restore 50%, settle, say Held"),
            ("broken", "Held(Breaker): restore 50%, settle, say Held"),
            ("pause", "Held(Paused): restore 50%, settle, say Held"),
            ("resume", "refused"),
            ("promote", "refused"),
            ("restarted", "Waiting(approval): restore 50%, say Restarted, say Stepped, settle"),
        ],
    ),
];

#[test]
fn every_transition_of_a_rollout_that_may_still_go_forward() {
    for (phase, row) in TABLE {
        for (name, event) in events() {
            let expected = row.iter().chain(&HARM).find(|(event, _)| *event == name).map_or("-", |(_, then)| then);
            assert_eq!(transition(phase, &event), expected, "{phase} x {name}");
        }
    }
}

#[test]
fn every_transition_on_the_way_back_and_after_the_end() {
    for end in [End::RolledBack, End::Aborted] {
        let phase = format!("RollingBack({end:?})");
        for (name, event) in events() {
            let expected = match name {
                "reverted" => format!("Ended({end:?}): settle, say Ended"),
                "failed" => format!("{phase}: say Delayed"),
                "tick" | "rollback" | "abort" | "restarted" => format!("{phase}: revert, settle"),
                "pause" | "resume" | "promote" => "refused".to_owned(),
                _ => "-".to_owned(),
            };
            assert_eq!(transition(&phase, &event), expected, "{phase} x {name}");
        }
    }
    for phase in ["Ended(Promoted)", "Ended(RolledBack)", "Ended(Aborted)"] {
        for (name, event) in events() {
            let expected = if event.command().is_some() { "refused" } else { "-" };
            assert_eq!(transition(phase, &event), expected, "{phase} x {name}");
        }
    }
}

/// Steps `rollout` through events at times in seconds; the last actions.
fn play(rollout: &mut Rollout, script: impl IntoIterator<Item = (u64, Event)>) -> Vec<Action> {
    let mut last = Vec::new();
    for (second, event) in script {
        last = rollout.step(event, Millis(second * SECOND)).unwrap();
    }
    last
}

fn in_analysis(on_inconclusive: OnInconclusive) -> Rollout {
    let mut rollout = rollout(steps(), on_inconclusive);
    play(&mut rollout, [(0, Event::Start), (100, applied(5))]);
    assert_eq!(rollout.phase, Phase::Analyzing);
    rollout
}

#[test]
fn a_good_canary_walks_the_whole_plan() {
    let mut rollout = in_analysis(OnInconclusive::Hold);
    play(&mut rollout, [(160, judged(true)), (161, applied(25)), (221, Event::Tick), (222, applied(50))]);
    play(&mut rollout, [(9_000, Event::Tick), (9_001, Event::Resume { by: by() }), (9_002, promoted())]);
    assert_eq!((rollout.end(), rollout.step, rollout.applied), (Some(End::Promoted), 7, Share::ALL));
}

#[test]
fn an_approval_counts_only_after_the_dwell_and_only_while_it_is_the_latest_word() {
    let mut rollout = in_analysis(OnInconclusive::Hold);
    play(&mut rollout, [(159, judged(true)), (159, Event::Tick)]);
    assert_eq!(rollout.phase, Phase::Analyzing, "a second before the dwell is over");
    play(&mut rollout, [(159, judged(false)), (161, Event::Tick)]);
    assert_eq!(rollout.phase, Phase::Analyzing, "the approval was taken back");
    play(&mut rollout, [(162, judged(true))]);
    assert_eq!(rollout.phase, Phase::Applying { share: percent(25) });
}

#[test]
fn an_approval_from_before_a_hold_is_worth_nothing_after_it() {
    let mut rollout = in_analysis(OnInconclusive::Hold);
    let (pause, resume) = (Event::Pause { by: by() }, Event::Resume { by: by() });
    play(&mut rollout, [(110, judged(true)), (120, pause), (130, judged(true)), (400, resume), (460, Event::Tick)]);
    assert_eq!((rollout.phase, rollout.approved), (Phase::Analyzing, false));
}

#[test]
fn an_analysis_without_a_verdict_holds_at_its_deadline_and_goes_on_with_a_late_approval() {
    let mut rollout = in_analysis(OnInconclusive::Hold);
    play(&mut rollout, [(200, judged(false)), (1_899, Event::Tick)]);
    assert_eq!(rollout.phase, Phase::Analyzing);
    play(&mut rollout, [(1_900, Event::Tick)]);
    assert_eq!(rollout.phase, Phase::Held(Cause::Inconclusive));
    assert_eq!(rollout.reason, "step 2 of 7: analysis at 5% inconclusive after 30m: 412 requests each");
    play(&mut rollout, [(5_000, Event::Tick), (5_001, judged(true))]);
    assert_eq!(rollout.phase, Phase::Applying { share: percent(25) });
}

#[test]
fn an_analysis_without_a_verdict_rolls_back_where_the_plan_says_so() {
    let mut rollout = in_analysis(OnInconclusive::Rollback);
    let actions = play(&mut rollout, [(1_900, Event::Tick)]);
    assert_eq!((rollout.phase, &actions[0]), (Phase::RollingBack(End::RolledBack), &Action::Revert));
    assert_eq!(rollout.reason, "step 2 of 7: analysis at 5% inconclusive after 30m: the judge has said nothing yet");
}

#[test]
fn an_approval_inside_a_dwell_longer_than_the_deadline_still_waits_for_the_dwell() {
    let dwell = Duration::from_secs(100);
    let step = Step::Analyze { dwell, deadline: Some(Duration::from_secs(50)) };
    let mut rollout = rollout(vec![weight(5), step, weight(100)], OnInconclusive::Hold);
    play(&mut rollout, [(0, Event::Start), (0, applied(5)), (50, Event::Tick), (60, judged(true)), (99, Event::Tick)]);
    assert_eq!(rollout.phase, Phase::Held(Cause::Inconclusive));
    play(&mut rollout, [(100, Event::Tick)]);
    assert_eq!(rollout.phase, Phase::Promoting);
}

#[test]
fn a_plan_that_ends_below_everything_is_promoted_all_the_same() {
    let mut rollout = rollout(vec![weight(5)], OnInconclusive::Hold);
    let actions = play(&mut rollout, [(0, Event::Start), (1, applied(5))]);
    assert_eq!(actions.last(), Some(&Action::Move { share: Share::ALL, promote: true }));
}

#[test]
fn a_whole_share_before_an_analysis_is_a_move_and_not_yet_a_promotion() {
    let mut rollout = rollout(vec![weight(100), analyze()], OnInconclusive::Hold);
    let actions = play(&mut rollout, [(0, Event::Start)]);
    assert_eq!(actions.last(), Some(&Action::Move { share: Share::ALL, promote: false }));
    let promote = Event::Promote { by: by() };
    play(&mut rollout, [(1, promote), (2, applied(100))]);
    assert_eq!(rollout.phase, Phase::Promoting, "the overtaken move's acknowledgement is not the promotion's");
}

#[test]
fn an_incomplete_rollback_is_repeated_but_not_at_every_tick() {
    let mut rollout = in_analysis(OnInconclusive::Hold);
    let (rollback, failed) = (
        Event::Rollback { by: by(), reason: "smoke".to_owned() },
        Event::ApplyFailed { reason: "disk full".to_owned() },
    );
    play(&mut rollout, [(200, rollback), (201, failed)]);
    assert_eq!(rollout.reason, "rolled back by bob: smoke");
    assert_eq!(rollout.step(Event::Tick, Millis(201_999)), Ok(vec![]));
    assert_eq!(rollout.step(Event::Tick, Millis(202_000)), Ok(vec![Action::Revert, Action::Settle]));
}

#[test]
fn refusals_say_why() {
    let refusal = |phase: &str, event: Event| in_phase(phase).step(event, Millis(0)).unwrap_err().to_string();
    for (phase, event, says) in [
        ("Ended(RolledBack)", Event::Promote { by: by() }, "cannot promote: the rollout is over, it was rolled back"),
        (
            "Ended(Promoted)",
            Event::Rollback { by: by(), reason: by() },
            "cannot roll back: the rollout is over, it was promoted",
        ),
        (
            "RollingBack(Aborted)",
            Event::Promote { by: by() },
            "cannot promote: the rollout is being rolled back, it is so",
        ),
        ("Held(Paused)", Event::Pause { by: by() }, "cannot pause: the rollout is held already, it is so"),
        ("Analyzing", Event::Resume { by: by() }, "cannot resume: nothing is held, step 2 of 7: analysis at 5%"),
    ] {
        assert_eq!(refusal(phase, event), says);
    }
}

#[test]
fn places_read_as_sentences() {
    let mut rollout = rollout(steps(), OnInconclusive::Hold);
    rollout.applied = percent(25);
    let places = (0..8).map(|step| {
        rollout.step = step;
        rollout.place()
    });
    let expected = [
        "step 1 of 7: from 25% to 5%",
        "step 2 of 7: analysis at 25%",
        "step 3 of 7: from 25% to 25%",
        "step 4 of 7: pause of 1m at 25%",
        "step 5 of 7: from 25% to 50%",
        "step 6 of 7: awaits approval at 25%",
        "step 7 of 7: from 25% to 100%",
        "all 7 steps done, at 25%",
    ];
    assert_eq!(places.collect::<Vec<_>>(), expected);
}
