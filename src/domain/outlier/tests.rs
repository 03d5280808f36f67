//! Tables for rows, terms and comparisons; a model of a whole pool under arbitrary events.

use proptest::prelude::*;

use super::*;
use crate::domain::outcome::{Failure, Outcome};

const SECOND: u64 = 1_000_000;

fn share(percent: u16) -> Share {
    Share::from_basis_points(percent * 100).expect("a share")
}

#[test]
fn every_outcome_leaves_the_mark_it_should() {
    let answered = |status| Mark::of(Outcome::Answered { status, latency: 1 });
    for status in [101, 200, 302, 404, 429, 499] {
        assert_eq!(answered(status), None, "{status}");
    }
    for (status, mark) in [(500, Mark::Error), (501, Mark::Error), (505, Mark::Error), (599, Mark::Error)] {
        assert_eq!(answered(status), Some(mark), "{status}");
    }
    assert_eq!([502, 503, 504].map(answered), [Some(Mark::Gateway); 3]);
    let failed = |failure| Mark::of(Outcome::Failed(failure));
    let table = [
        (Failure::NoEndpoint, None),
        (Failure::Connect, Some(Mark::Gateway)),
        (Failure::Reset, Some(Mark::Gateway)),
        (Failure::Timeout, Some(Mark::Gateway)),
        (Failure::Truncated, Some(Mark::Gateway)),
        (Failure::Malformed, Some(Mark::Error)),
    ];
    assert_eq!(table.map(|(failure, _)| failure), Failure::ALL);
    table.into_iter().for_each(|(failure, mark)| assert_eq!(failed(failure), mark, "{failure:?}"));
}

#[test]
fn rows_move_by_their_whole_table() {
    for gateway in [0, 1, u32::MAX] {
        for errors in [0, 1, u32::MAX] {
            let row = Row { gateway, errors };
            let more = errors.saturating_add(1);
            let table = [
                (None, Row::default()),
                (Some(Mark::Gateway), Row { gateway: gateway.saturating_add(1), errors: more }),
                (Some(Mark::Error), Row { gateway: 0, errors: more }),
            ];
            table.into_iter().for_each(|(mark, after)| assert_eq!(row.after(mark), after, "{row:?} {mark:?}"));
        }
    }
}

#[test]
fn a_row_ejects_once_it_is_as_long_as_the_policy_says() {
    let policy = |gateway, errors| Policy {
        consecutive_gateway: NonZeroU32::new(gateway),
        consecutive_5xx: NonZeroU32::new(errors),
        ..Policy::default()
    };
    let table = [
        (policy(0, 0), (9, 9), None),
        (policy(3, 0), (2, 9), None),
        (policy(3, 0), (3, 3), Some(Cause::Gateway)),
        (policy(3, 0), (4, 4), Some(Cause::Gateway)),
        (policy(0, 3), (2, 2), None),
        (policy(0, 3), (0, 3), Some(Cause::Errors)),
        (policy(3, 3), (3, 3), Some(Cause::Gateway)),
    ];
    for (policy, (gateway, errors), cause) in table {
        assert_eq!(Row { gateway, errors }.ejects(&policy), cause, "{gateway} {errors}");
    }
    let row = Row { gateway: 5, errors: 7 };
    assert_eq!(row.sentence(Cause::Gateway), "5 gateway failures in a row");
    assert_eq!(row.sentence(Cause::Errors), "7 failures in a row");
}

#[test]
fn the_share_is_rounded_down_and_never_takes_all() {
    let most = |percent, endpoints| Policy { max_ejected: share(percent), ..Policy::default() }.most_out(endpoints);
    let table = [
        ((50, 0), 0),
        ((50, 1), 0),
        ((50, 2), 1),
        ((50, 3), 1),
        ((50, 4), 2),
        ((10, 9), 0),
        ((10, 10), 1),
        ((100, 1), 0),
        ((100, 2), 1),
        ((100, 256), 255),
        ((0, 256), 0),
    ];
    table.into_iter().for_each(|((percent, endpoints), out)| assert_eq!(most(percent, endpoints), out, "{percent}"));
}

#[test]
fn the_term_grows_with_repeats_and_shrinks_with_clean_time() {
    let policy = Policy { max_time: Duration::from_secs(35), ..Policy::default() };
    let mut history = History::default();
    let mut now = 0;
    let mut term = |clean: u64| {
        now += clean * SECOND;
        let term = history.ejected(&policy, now, 0.0);
        now += term;
        history.returned(now);
        term / SECOND
    };
    // The second number is how long it was in before.
    let table = [(0, 10), (9, 20), (0, 30), (0, 35), (9, 35), (50, 10), (10, 10), (5, 20), (15, 20), (1_000_000, 10)];
    for (clean, expected) in table {
        assert_eq!(term(clean), expected, "after {clean}s");
    }
    let mut fresh = History::default();
    assert_eq!(fresh.ejected(&policy, 0, 1.0), 11 * SECOND);
    assert_eq!(History::default().ejected(&policy, 0, 7.0), 11 * SECOND);
    assert_eq!(History::default().ejected(&policy, 0, f64::NAN), 10 * SECOND);
}

#[test]
fn a_lookback_sees_its_window_and_no_more() {
    let mut lookback = Lookback::default();
    let counts = |requests| Counts { requests, ..Counts::default() };
    let window = 3 * SECOND;
    let mut look = |second: u64, total| lookback.look(second * SECOND, window, counts(total)).requests;
    assert_eq!(look(0, 100), 0, "nothing to compare with yet");
    assert_eq!(look(1, 110), 10);
    assert_eq!(look(2, 120), 20);
    assert_eq!(look(3, 130), 30);
    assert_eq!(look(4, 140), 30);
    assert_eq!(look(60, 150), 10, "after a pause: since the last look");
    lookback.clear();
    assert_eq!(lookback.look(61 * SECOND, window, counts(1_000)).requests, 0);
    for second in 62..10_000 {
        lookback.look(second * SECOND, u64::MAX, counts(1_000));
    }
    assert!(lookback.0.len() <= sweep::MOST_LOOKS);
}

fn did(requests: u64, failures: u64, mean: u64) -> Option<Counts> {
    let answers = requests - failures;
    Some(Counts { requests, failures, answers, latency: answers * mean })
}

fn found(policy: &Policy, seen: &[Option<Counts>]) -> Vec<(usize, Cause)> {
    suspects(policy, seen).into_iter().map(|suspect| (suspect.at, suspect.cause)).collect()
}

#[test]
fn success_rates_are_measured_against_the_others() {
    let policy = Policy { success_rate: Some(SuccessRate::default()), ..Policy::default() };
    let rate = |failures: &[u64]| {
        let seen: Vec<_> = failures.iter().map(|failures| did(1_000, *failures, 1_000)).collect();
        found(&policy, &seen).into_iter().map(|(at, _)| at).collect::<Vec<_>>()
    };
    assert_eq!(rate(&[0, 0, 100]), [2]);
    assert_eq!(rate(&[0, 0, 49]), [0; 0], "too small a difference to lose an endpoint");
    assert_eq!(rate(&[100, 100, 100, 100]), [0; 0], "all are bad: that is no outlier");
    assert_eq!(rate(&[0, 300, 0, 500]), [3], "the deviation of the others protects the second worst");
    assert_eq!(rate(&[0, 0, 0, 0, 0, 0, 0, 0, 500, 400]), [8, 9], "the worst first");
    assert_eq!(rate(&[0, 500]), [0; 0], "too few endpoints to say who is normal");
    let few = [did(1_000, 0, 1), did(1_000, 0, 1), did(99, 99, 1)];
    assert_eq!(found(&policy, &few), []);
    let text = &suspects(&policy, &[did(100, 0, 1), did(100, 0, 1), did(100, 30, 1)])[0].sentence;
    assert_eq!(text, "70.0% of its requests succeed, 100.0% of the others'");
}

#[test]
fn a_share_of_failures_needs_no_comparison_but_another_endpoint() {
    let policy = Policy { failure_share: Some(FailureShare::default()), ..Policy::default() };
    let gone = (1, Cause::FailureShare);
    assert_eq!(found(&policy, &[did(100, 0, 1), did(100, 85, 1)]), [gone]);
    assert_eq!(found(&policy, &[did(100, 0, 1), did(100, 84, 1)]), []);
    assert_eq!(found(&policy, &[did(100, 0, 1), did(49, 49, 1)]), []);
    assert_eq!(found(&policy, &[None, did(100, 100, 1)]), []);
    assert_eq!(found(&policy, &[did(100, 90, 1), did(100, 100, 1)]), [gone, (0, Cause::FailureShare)]);
    let text = &suspects(&policy, &[did(100, 0, 1), did(100, 90, 1)])[0].sentence;
    assert_eq!(text, "90 of 100 requests failed");
}

#[test]
fn a_slow_endpoint_is_one_that_is_slow_beside_the_others() {
    let policy = Policy { latency: Some(Latency::default()), ..Policy::default() };
    let slow = |means: &[u64]| {
        let seen: Vec<_> = means.iter().map(|mean| did(100, 0, *mean)).collect();
        found(&policy, &seen).into_iter().map(|(at, _)| at).collect::<Vec<_>>()
    };
    assert_eq!(slow(&[10_000, 10_000, 31_000]), [2]);
    assert_eq!(slow(&[10_000, 10_000, 30_000]), [0; 0]);
    assert_eq!(slow(&[100, 100, 4_900]), [0; 0], "a few milliseconds are noise");
    assert_eq!(slow(&[10_000, 80_000, 90_000, 10_000]), [2, 1]);
    assert_eq!(slow(&[10_000, 90_000]), [0; 0]);
    let seen = [did(100, 0, 10_000), did(100, 0, 10_000), did(100, 0, 50_000)];
    assert_eq!(suspects(&policy, &seen)[0].sentence, "answers take 50.0 ms, 10.0 ms in the pool");
}

#[test]
fn an_endpoint_is_named_once_by_the_first_rule_it_breaks() {
    let policy = Policy {
        success_rate: Some(SuccessRate::default()),
        failure_share: Some(FailureShare::default()),
        latency: Some(Latency { least: Least { requests: 1, endpoints: 3 }, ..Latency::default() }),
        ..Policy::default()
    };
    let seen = [did(100, 0, 1_000), did(100, 90, 90_000), did(100, 0, 1_000), did(100, 0, 1_000)];
    assert_eq!(found(&policy, &seen), [(1, Cause::FailureShare)]);
}

#[test]
fn causes_are_numbered_in_their_order_and_named_apart() {
    for (at, cause) in Cause::ALL.into_iter().enumerate() {
        assert_eq!(cause as usize, at);
        assert_eq!(Cause::ALL.iter().filter(|other| other.name() == cause.name()).count(), 1);
    }
    assert!(Policy::default().off().is_off() && !Policy::default().is_off() && !Policy::default().compares());
}

proptest! {
    #[test]
    fn nobody_is_suspected_without_enough_requests_or_for_nothing(
        seen in prop::collection::vec(prop::option::of((0..300_u64, 0..300_u64, 0..200_000_u64)), 0..12),
    ) {
        let policy = Policy {
            success_rate: Some(SuccessRate::default()),
            failure_share: Some(FailureShare::default()),
            latency: Some(Latency::default()),
            ..Policy::default()
        };
        let seen: Vec<_> = seen.into_iter().map(|one| {
            let (requests, failures, mean) = one?;
            did(requests, failures.min(requests), mean)
        }).collect();
        let found = suspects(&policy, &seen);
        for suspect in &found {
            let counts = seen[suspect.at].expect("those that are out are not suspected again");
            prop_assert!(counts.requests >= 50);
            prop_assert!(counts.failures > 0 || suspect.cause == Cause::Latency);
            prop_assert_eq!(found.iter().filter(|other| other.at == suspect.at).count(), 1);
        }
    }

    #[test]
    fn a_term_is_never_shorter_than_the_base_nor_longer_than_allowed(
        steps in prop::collection::vec((0..100_u64, 0.0..1.0_f64), 1..40),
    ) {
        let policy = Policy::default();
        let (mut history, mut now) = (History::default(), 0);
        for (clean, chance) in steps {
            now += clean * SECOND;
            let term = history.ejected(&policy, now, chance);
            prop_assert!((10 * SECOND..=330 * SECOND).contains(&term));
            now += term;
            history.returned(now);
        }
    }
}
