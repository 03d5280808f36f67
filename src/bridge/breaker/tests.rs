//! The word and the window against their models, and many threads on one breaker.

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::domain::breaker::Slow;
use crate::domain::split::Share;

const GOOD: Report = Report { bad: false, slow: false, is_first: true };
const BAD: Report = Report { bad: true, slow: false, is_first: true };

fn armed(workers: usize) -> Breaker {
    let breaker = Breaker::default();
    breaker.arm(workers);
    breaker
}

/// A second of window, so a tenth of a second a slot; opens by shares only.
fn policy() -> Policy {
    Policy { window: Duration::from_secs(1), consecutive: None, min_requests: 10, trials: 3, ..Policy::default() }
}

fn state() -> impl Strategy<Value = State> {
    let time = || 0..=TIME;
    let phase = prop_oneof![
        (time(), 0..=crate::domain::breaker::MOST_IN_A_ROW).prop_map(|(since, row)| Phase::Closed { since, row }),
        time().prop_map(|until| Phase::Open { until }),
        (time(), 0u8..=100, 0u8..=100).prop_map(|(since, given, good)| Phase::HalfOpen { since, given, good }),
    ];
    (phase, 0..=crate::domain::breaker::MOST_STRIKES).prop_map(|(phase, strikes)| State { phase, strikes })
}

proptest! {
    #[test]
    fn a_word_holds_all_of_a_state(state in state()) {
        prop_assert_eq!(unpack(pack(state)), state);
    }

    #[test]
    fn the_window_holds_what_a_list_of_all_requests_says(
        steps in prop::collection::vec((1u64..300, 0usize..3, any::<bool>(), any::<bool>(), 0u8..10), 1..300),
    ) {
        let breaker = armed(3);
        let never = Policy { error_rate: None, ..policy() };
        let slot = never.slot();
        let (mut now, mut since, mut list) = (5_000, 0, Vec::new());
        for (pause, worker, bad, slow, reset) in steps {
            now += pause;
            if reset == 0 {
                breaker.reset(now * 1_000);
                (since, list) = (now, Vec::new());
            }
            let report = Report { bad, slow, is_first: true };
            breaker.tell(&never, worker, now * 1_000, report, None);
            list.push(((now - since) / slot, report));
            let current = (now - since) / slot;
            let within = list.iter().filter(|(at, _)| at + SLOTS > current);
            let model = within.fold(Counts::default(), |sum, (_, report)| Counts {
                n: sum.n + 1,
                bad: sum.bad + u64::from(report.bad),
                slow: sum.slow + u64::from(report.slow),
            });
            prop_assert_eq!(breaker.counted(&never, since, now), model);
        }
    }
}

#[test]
fn a_second_word_about_a_request_is_no_second_request() {
    let breaker = armed(1);
    breaker.tell(&policy(), 0, 0, GOOD, None);
    breaker.tell(&policy(), 0, 0, Report { is_first: false, ..BAD }, None);
    assert_eq!(breaker.counted(&policy(), 0, 0), Counts { n: 1, bad: 1, slow: 0 });
}

#[test]
fn it_opens_is_tried_and_closes_and_says_why() {
    let (breaker, policy) = (armed(2), policy());
    assert_eq!((breaker.opening(), breaker.enter(&policy, 0)), (None, Ok(None)));
    for at in 0..9 {
        assert!(!breaker.tell(&policy, at % 2, 0, BAD, None));
    }
    assert!(breaker.tell(&policy, 0, 1_000, BAD, None));
    let opening = Opening { cause: Cause::Errors { bad: 10, n: 10 }, cool_down: 5_000 };
    assert_eq!((breaker.trips(), breaker.opening()), (1, Some(opening)));
    assert_eq!(breaker.would_admit(&policy, 1_000), Err(Blocked { wait: 5_000 }));
    assert_eq!(breaker.enter(&policy, 5_000_000), Err(Blocked { wait: 1 }));
    assert!(!breaker.tick(5_000_000) && breaker.tick(5_001_000) && !breaker.tick(5_002_000));
    let trials: Vec<_> = (0..3).map(|_| breaker.enter(&policy, 6_000_000).unwrap().unwrap()).collect();
    assert!(breaker.enter(&policy, 6_000_000).is_err() && breaker.would_admit(&policy, 6_000_000).is_err());
    breaker.give_back(trials[0]);
    let again = breaker.enter(&policy, 6_000_000).unwrap().unwrap();
    let told = [trials[1], trials[2], again].map(|trial| breaker.tell(&policy, 0, 7_000_000, GOOD, Some(trial)));
    assert_eq!((told, breaker.is_closed()), ([false, false, true], true));
    // The bad ones of before are forgotten.
    assert!(!breaker.tell(&policy, 0, 7_000_000, BAD, None) && breaker.is_closed());
}

#[test]
fn errors_in_a_row_are_counted_over_all_workers() {
    let policy = Policy { consecutive: Some(4), ..policy() };
    let breaker = armed(3);
    let told = |worker, report| breaker.tell(&policy, worker, 0, report, None);
    let opened = [(0, BAD), (1, BAD), (2, BAD), (1, GOOD), (0, BAD), (2, BAD), (1, BAD), (0, BAD)];
    let opened = opened.map(|(worker, report)| told(worker, report));
    assert_eq!(opened, [false, false, false, false, false, false, false, true]);
}

#[test]
fn many_threads_never_have_more_on_trial_than_allowed_and_lose_no_error() {
    const THREADS: usize = 8;
    let slow = Slow { over: Duration::from_secs(1), share: Share::ALL };
    let policy = Policy { min_requests: 1_000, error_rate: Some(Share::ALL), slow: Some(slow), ..policy() };
    let breaker = armed(THREADS);
    std::thread::scope(|scope| {
        for worker in 0..THREADS {
            let (breaker, policy) = (&breaker, &policy);
            scope.spawn(move || (0..124).for_each(|_| assert!(!breaker.tell(policy, worker, 0, BAD, None))));
        }
    });
    // 992 of the 1,000 that it takes: eight more open it, the last of them and no other.
    let opened: Vec<_> = (0..8).map(|worker| breaker.tell(&policy, worker, 0, BAD, None)).collect();
    assert_eq!(opened, [false, false, false, false, false, false, false, true]);
    let (on_trial, most) = (AtomicI64::new(0), AtomicI64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let (breaker, policy, on_trial, most) = (&breaker, &policy, &on_trial, &most);
            scope.spawn(move || {
                for _ in 0..1_000 {
                    if let Ok(Some(trial)) = breaker.enter(policy, 60_000_000) {
                        most.fetch_max(on_trial.fetch_add(1, SeqCst) + 1, SeqCst);
                        std::thread::yield_now();
                        on_trial.fetch_sub(1, SeqCst);
                        breaker.give_back(trial);
                    }
                }
            });
        }
    });
    let most = most.into_inner();
    assert!((1..=3).contains(&most), "{most} on trial at a time");
    assert_eq!(breaker.state().admit(3, 60_000).1, Answer::OnTrial(Trial { since: 60_000 }));
}
