//! The breaker's whole transition table, and what holds for any traffic.

use proptest::prelude::*;

use super::*;
use crate::domain::outcome::Failure;

const GOOD: Report = Report { bad: false, slow: false, is_first: true };
const BAD: Report = Report { bad: true, slow: false, is_first: true };
const SLOW: Report = Report { bad: false, slow: true, is_first: true };

/// Two in a row, half of ten, a second of cool-down up to four, two trials.
fn policy() -> Policy {
    Policy {
        min_requests: 10,
        consecutive: Some(2),
        slow: Some(Slow { over: Duration::from_millis(100), share: Share::from_basis_points(5_000).unwrap() }),
        cool_down: Duration::from_secs(1),
        max_cool_down: Duration::from_secs(4),
        trials: 2,
        ..Policy::default()
    }
}

fn closed(since: u64, row: u16) -> State {
    State { phase: Phase::Closed { since, row }, strikes: 1 }
}

fn open(until: u64) -> State {
    State { phase: Phase::Open { until }, strikes: 1 }
}

fn half(given: u8, good: u8) -> State {
    State { phase: Phase::HalfOpen { since: 500, given, good }, strikes: 1 }
}

fn counts(n: u64, bad: u64, slow: u64) -> Counts {
    Counts { n, bad, slow }
}

const NOW: u64 = 1_000;
/// A trial of this half-open time, and one of another.
const OURS: Option<Trial> = Some(Trial { since: 500 });
const LATE: Option<Trial> = Some(Trial { since: 7 });

/// Open by `cause` for the second time.
fn opened(cause: Cause) -> (State, Option<Change>) {
    let state = State { phase: Phase::Open { until: NOW + 2_000 }, strikes: 2 };
    (state, Some(Change::Opened { cause, cool_down: 2_000 }))
}

#[test]
fn every_outcome_in_every_phase_leads_where_the_drawing_says() {
    let few = counts(9, 9, 9);
    let shut = (State { phase: Phase::Closed { since: NOW, row: 0 }, strikes: 1 }, Some(Change::Closed));
    let stays = |state: State| (state, None);
    let table = [
        // state, report, trial, counts -> state, change
        (closed(0, 0), GOOD, None, few, stays(closed(0, 0))),
        (closed(0, 1), GOOD, None, few, stays(closed(0, 0))),
        (closed(0, 1), SLOW, None, few, stays(closed(0, 0))),
        (closed(0, 0), BAD, None, few, stays(closed(0, 1))),
        (closed(0, 1), BAD, None, few, opened(Cause::Row(2))),
        (closed(0, 0), BAD, None, counts(10, 4, 9), stays(closed(0, 1))),
        (closed(0, 0), BAD, None, counts(10, 5, 0), opened(Cause::Errors { bad: 5, n: 10 })),
        (closed(0, 0), SLOW, None, counts(10, 9, 4), stays(closed(0, 0))),
        (closed(0, 0), SLOW, None, counts(10, 0, 5), opened(Cause::Slow { slow: 5, n: 10 })),
        (closed(0, 0), BAD, LATE, few, stays(closed(0, 1))),
        (open(2_000), GOOD, None, few, stays(open(2_000))),
        (open(2_000), BAD, LATE, counts(99, 99, 99), stays(open(2_000))),
        (open(500), GOOD, None, few, stays(open(500))),
        (half(1, 0), GOOD, None, few, stays(half(1, 0))),
        (half(1, 0), BAD, None, few, stays(half(1, 0))),
        (half(1, 0), BAD, LATE, few, stays(half(1, 0))),
        (half(1, 0), GOOD, OURS, few, stays(half(1, 1))),
        (half(2, 1), GOOD, OURS, few, shut),
        (half(2, 1), BAD, OURS, few, opened(Cause::Trial)),
        (half(1, 0), SLOW, OURS, few, opened(Cause::Trial)),
    ];
    for (state, report, trial, counts, expected) in table {
        let found = state.tell(&policy(), NOW, report, trial, || counts);
        assert_eq!(found, expected, "{state:?} {report:?} {trial:?} {counts:?}");
    }
}

#[test]
fn requests_time_and_clients_that_go_away_lead_where_the_drawing_says() {
    let trial = |since| Answer::OnTrial(Trial { since });
    let fresh = |given| State { phase: Phase::HalfOpen { since: NOW, given, good: 0 }, strikes: 1 };
    let table = [
        (closed(0, 1), (closed(0, 1), Answer::Pass), (closed(0, 1), None), closed(0, 1)),
        (open(1_001), (open(1_001), Answer::Blocked { wait: 1 }), (open(1_001), None), open(1_001)),
        (open(NOW), (fresh(1), trial(NOW)), (fresh(0), Some(Change::HalfOpened)), open(NOW)),
        (half(0, 0), (half(1, 0), trial(500)), (half(0, 0), None), half(0, 0)),
        (half(1, 1), (half(2, 1), trial(500)), (half(1, 1), None), half(1, 1)),
        (half(2, 1), (half(2, 1), Answer::Blocked { wait: TRIAL_WAIT }), (half(2, 1), None), half(1, 1)),
    ];
    for (state, admitted, ticked, given_back) in table {
        assert_eq!(state.admit(2, NOW), admitted, "{state:?}");
        assert_eq!(state.tick(NOW), ticked, "{state:?}");
        assert_eq!(state.give_back(Trial { since: 500 }), given_back, "{state:?}");
        assert_eq!(state.give_back(Trial { since: 7 }), state);
        assert_eq!(state.blocks(2), matches!(state.phase, Phase::Open { .. }) || state == half(2, 1));
    }
}

#[test]
fn cool_downs_double_up_to_the_longest_and_a_quiet_time_forgives() {
    let trip = |state: State, now| match state.tell(&policy(), now, BAD, Some(Trial { since: now }), Counts::default) {
        (state, Some(Change::Opened { cool_down, .. })) => (state, cool_down),
        other => panic!("{other:?}"),
    };
    let (mut state, mut now) = (closed(0, 1), 0);
    state.strikes = 0;
    let mut cool_downs = Vec::new();
    for _ in 0..40 {
        let (opened, cool_down) = trip(state, now);
        cool_downs.push(cool_down);
        now += cool_down;
        state = opened.admit(2, now).0;
    }
    assert_eq!(cool_downs[..5], [1_000, 2_000, 4_000, 4_000, 4_000]);
    assert_eq!((cool_downs[39], state.strikes), (4_000, MOST_STRIKES));
    // Closed for twice the longest cool-down: two openings less.
    let closed = State { phase: Phase::Closed { since: now, row: 1 }, strikes: 3 };
    assert_eq!(trip(closed, now + 3_999).1, 4_000);
    assert_eq!(trip(closed, now + 8_000).1, 2_000);
    assert_eq!(trip(closed, now + 99_000).1, 1_000);
}

#[test]
fn only_what_the_policy_names_opens() {
    let off = Policy { consecutive: None, error_rate: None, slow: None, ..policy() };
    for report in [BAD, SLOW] {
        assert_eq!(closed(0, 900).tell(&off, NOW, report, None, || counts(100, 100, 100)).1, None);
    }
    let rare = Policy { consecutive: None, error_rate: Share::from_basis_points(1), ..policy() };
    assert_eq!(closed(0, 0).tell(&rare, NOW, BAD, None, || counts(10_001, 1, 0)).1, None);
    assert!(closed(0, 0).tell(&rare, NOW, BAD, None, || counts(10_000, 1, 0)).1.is_some());
}

#[test]
fn what_an_outcome_says_depends_on_the_policy_and_on_whose_fault_it_was() {
    let answered = |status, latency| Outcome::Answered { status, latency };
    let said = |outcome, excused| {
        let report = policy().report(outcome, excused, true);
        (report.bad, report.slow)
    };
    assert_eq!(said(answered(200, 100_000), false), (false, false));
    assert_eq!(said(answered(200, 100_001), false), (false, true));
    assert_eq!(said(answered(200, 100_001), true), (false, false));
    assert_eq!(said(answered(500, 100_001), false), (true, false));
    assert_eq!(said(Outcome::Failed(Failure::Timeout), true), (true, false));
    assert!(!Policy::default().report(answered(200, u64::MAX), false, true).slow);
}

#[test]
fn a_cause_is_told_with_its_numbers() {
    let table = [
        (Cause::Row(1), "an error"),
        (Cause::Row(5), "5 errors in a row"),
        (Cause::Errors { bad: 6, n: 10 }, "6 of 10 requests within 10s failed"),
        (Cause::Slow { slow: 6, n: 10 }, "6 of 10 requests within 10s took longer than 100ms"),
        (Cause::Trial, "a request on trial did not go well"),
    ];
    for (cause, sentence) in table {
        assert_eq!(cause.sentence(&policy()), sentence);
    }
}

/// What traffic can do to a breaker.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ask,
    Tick,
    /// One of the trials under way ends: well, badly, slowly, or without a word.
    End(usize, u8),
    /// A request that was sent before.
    Stray(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Ask),
        1 => Just(Step::Tick),
        3 => (0usize..4, 0u8..4).prop_map(|(at, how)| Step::End(at, how)),
        2 => (0u8..3).prop_map(Step::Stray),
        2 => (0u64..3_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn trials_and_cool_downs_keep_their_bounds(steps in prop::collection::vec(step(), 1..200), trials in 1u8..5) {
        let policy = Policy { trials, ..policy() };
        let (mut state, mut now, mut out) = (State::default(), 0, Vec::new());
        for step in steps {
            let before = state;
            let mut change = None;
            match step {
                Step::Ask => {
                    let (next, answer) = state.admit(trials, now);
                    state = next;
                    match (before.phase, answer) {
                        (Phase::Closed { .. }, answer) => prop_assert_eq!(answer, Answer::Pass),
                        (Phase::Open { until }, Answer::OnTrial(_)) => prop_assert!(now >= until),
                        (Phase::Open { until }, answer) => prop_assert_eq!(answer, Answer::Blocked { wait: until - now }),
                        (Phase::HalfOpen { .. }, answer) => prop_assert!(answer != Answer::Pass),
                    }
                    if let Answer::OnTrial(trial) = answer {
                        out.push(trial);
                    }
                }
                Step::Tick => (state, change) = state.tick(now),
                Step::End(at, how) if at < out.len() => {
                    let trial = out.swap_remove(at);
                    match [GOOD, BAD, SLOW].get(usize::from(how)) {
                        Some(report) => (state, change) = state.tell(&policy, now, *report, Some(trial), Counts::default),
                        None => state = state.give_back(trial),
                    }
                }
                Step::Stray(how) => {
                    let report = [GOOD, BAD, SLOW][usize::from(how)];
                    (state, change) = state.tell(&policy, now, report, None, Counts::default);
                }
                Step::End(..) => {}
                // One moment is never two half-open times: a cool-down lies between.
                Step::Wait(more) => now += more + 1,
            }
            if let Phase::HalfOpen { since, given, good } = state.phase {
                let ours = out.iter().filter(|trial| trial.since == since).count();
                prop_assert_eq!(ours, usize::from(given - good));
                prop_assert!(given <= trials && good < trials);
            }
            if let Some(Change::Opened { cool_down, .. }) = change {
                prop_assert!((1_000..=4_000).contains(&cool_down));
                prop_assert_eq!(state.phase, Phase::Open { until: now + cool_down });
            }
            // Only a bad or slow outcome opens, and only trials close.
            let opens = !matches!(before.phase, Phase::Open { .. }) && matches!(state.phase, Phase::Open { .. });
            prop_assert_eq!(opens, matches!(change, Some(Change::Opened { .. })));
            prop_assert!(!opens || matches!(step, Step::End(_, 1 | 2) | Step::Stray(1 | 2)));
        }
    }
}
