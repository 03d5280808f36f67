//! The whole decision table, and what must hold for every case.

use proptest::prelude::*;

use super::*;

const TROUBLES: [Trouble; 11] = [
    Trouble::NoEndpoint,
    Trouble::Full,
    Trouble::Connect,
    Trouble::Unsent,
    Trouble::Reset { reused: false },
    Trouble::Reset { reused: true },
    Trouble::Timeout,
    Trouble::Malformed,
    Trouble::Answered { status: 503, retriable: false },
    Trouble::Answered { status: 500, retriable: false },
    Trouble::Answered { status: 429, retriable: true },
];
const CANARY: Role = Role::Canary { baseline_has_share: true };

/// A first attempt at a `GET` of the baseline, without a body.
fn case(trouble: Trouble) -> Case {
    let (safety, role) = (Safety::Safe, Role::Baseline);
    Case { trouble, tries: 0, safety, route_repeats: false, replayable: true, role }
}

fn everything() -> Conditions {
    Conditions {
        connect_error: true,
        reset: true,
        timeout: true,
        refused_stream: true,
        retriable_header: true,
        statuses: Statuses::from_to(503, 503),
    }
}

fn keen() -> Policy {
    Policy { attempts: 5, on: everything(), ..Policy::default() }
}

/// What follows with full budgets.
fn next(case: Case, policy: &Policy, rescue: Option<&rescue::Policy>) -> Next {
    follow(&case, policy, rescue, 0, || true, || true)
}

fn retries(case: Case, policy: &Policy) -> bool {
    matches!(next(case, policy, None), Next::Retry { .. })
}

#[test]
fn a_retry_follows_what_the_policy_names() {
    // Trouble, whether it is repeated by default, and by a policy that names everything.
    let table = [
        (Trouble::NoEndpoint, false, false),
        (Trouble::Full, true, true),
        (Trouble::Connect, true, true),
        (Trouble::Unsent, true, true),
        (Trouble::Reset { reused: false }, true, true),
        (Trouble::Reset { reused: true }, true, true),
        (Trouble::Timeout, false, true),
        (Trouble::Malformed, false, false),
        (Trouble::Answered { status: 503, retriable: false }, false, true),
        (Trouble::Answered { status: 500, retriable: false }, false, false),
        (Trouble::Answered { status: 429, retriable: true }, false, true),
    ];
    assert_eq!(table.map(|(trouble, ..)| trouble), TROUBLES);
    for (trouble, by_default, by_all) in table {
        assert_eq!(retries(case(trouble), &Policy::default()), by_default, "{trouble:?}");
        assert_eq!(retries(case(trouble), &keen()), by_all, "{trouble:?}");
        let silent = Policy { on: Conditions::default(), ..keen() };
        assert_eq!(retries(case(trouble), &silent), trouble == Trouble::Reset { reused: true }, "{trouble:?}");
    }
}

#[test]
fn only_what_cannot_happen_twice_is_repeated() {
    for trouble in TROUBLES.into_iter().filter(|trouble| retries(case(*trouble), &keen())) {
        let once = Case { safety: Safety::Neither, ..case(trouble) };
        assert_eq!(retries(once, &keen()), !trouble.was_sent(), "{trouble:?}");
        assert!(retries(Case { safety: Safety::Idempotent, ..once }, &keen()), "{trouble:?}");
        assert!(retries(Case { route_repeats: true, ..once }, &keen()), "{trouble:?}");
        assert!(!retries(Case { replayable: false, ..case(trouble) }, &keen()), "{trouble:?}");
    }
}

#[test]
fn tries_and_budget_end_it() {
    let reset = case(Trouble::Reset { reused: false });
    let tries: Vec<_> = (0..7).map(|tries| retries(Case { tries, ..reset }, &keen())).collect();
    assert_eq!(tries, [true, true, true, true, true, false, false]);
    assert!(!retries(reset, &Policy { attempts: 0, ..keen() }));
    assert_eq!(follow(&reset, &keen(), None, 0, || false, || true), Next::GiveUp(None));
}

#[test]
fn a_canary_is_rescued_rather_than_tried_again() {
    let rescue = rescue::Policy::default();
    // Trouble of a safe request, and what follows with rescue.
    let table = [
        (Trouble::NoEndpoint, true),
        (Trouble::Full, true),
        (Trouble::Connect, true),
        (Trouble::Unsent, true),
        (Trouble::Reset { reused: false }, true),
        (Trouble::Reset { reused: true }, true),
        (Trouble::Timeout, true),
        (Trouble::Malformed, true),
        (Trouble::Answered { status: 503, retriable: false }, true),
        (Trouble::Answered { status: 500, retriable: false }, true),
        (Trouble::Answered { status: 429, retriable: true }, false),
    ];
    assert_eq!(table.map(|(trouble, _)| trouble), TROUBLES);
    for (trouble, rescued) in table {
        let canary = Case { role: CANARY, ..case(trouble) };
        assert_eq!(next(canary, &Policy::default(), Some(&rescue)) == Next::Rescue, rescued, "{trouble:?}");
        // However often it was tried, and with retries off.
        let late = Case { tries: 9, ..canary };
        assert_eq!(next(late, &Policy { attempts: 0, ..keen() }, Some(&rescue)) == Next::Rescue, rescued);
        assert_ne!(next(case(trouble), &keen(), Some(&rescue)), Next::Rescue, "the baseline has nobody to rescue it");
        assert_ne!(next(canary, &keen(), None), Next::Rescue, "it is off");
    }
}

#[test]
fn a_rescue_is_refused_for_a_reason() {
    let rescue = rescue::Policy::default();
    let of = |case: Case| next(case, &Policy { attempts: 0, ..keen() }, Some(&rescue));
    for trouble in TROUBLES.into_iter().filter(|trouble| rescue.on.name(*trouble)) {
        let canary = Case { role: CANARY, ..case(trouble) };
        let post = Case { safety: Safety::Neither, ..canary };
        match trouble.was_sent() {
            true => assert_eq!(of(post), Next::GiveUp(Some(Refused::Method)), "{trouble:?}"),
            false => assert_eq!(of(post), Next::Rescue, "{trouble:?}"),
        }
        assert_eq!(of(Case { route_repeats: true, ..post }), Next::Rescue, "{trouble:?}");
        let all = rescue::Policy { methods: rescue::Methods::All, ..rescue.clone() };
        assert_eq!(next(post, &keen(), Some(&all)), Next::Rescue, "{trouble:?}");
        assert_eq!(of(Case { replayable: false, ..canary }), Next::GiveUp(Some(Refused::Body)), "{trouble:?}");
        let alone = Case { role: Role::Canary { baseline_has_share: false }, ..canary };
        assert_eq!(of(alone), Next::GiveUp(Some(Refused::Baseline)), "{trouble:?}");
        // The budget is spent: no further try on the sick version either.
        let spent = follow(&canary, &keen(), Some(&rescue), 0, || true, || false);
        assert_eq!(spent, Next::GiveUp(Some(Refused::Budget)), "{trouble:?}");
    }
}

#[test]
fn what_may_not_be_rescued_may_be_tried_again() {
    let rescue = rescue::Policy::default();
    let put = Case { safety: Safety::Idempotent, role: CANARY, ..case(Trouble::Reset { reused: false }) };
    assert!(matches!(next(put, &keen(), Some(&rescue)), Next::Retry { .. }));
    let off = Policy { attempts: 0, ..keen() };
    assert_eq!(next(put, &off, Some(&rescue)), Next::GiveUp(Some(Refused::Method)));
}

#[test]
fn the_first_retry_of_what_never_left_goes_at_once_and_others_wait() {
    let after = |trouble, tries, random| match follow(
        &Case { tries, ..case(trouble) },
        &keen(),
        None,
        random,
        || true,
        || true,
    ) {
        Next::Retry { after } => after.as_micros(),
        other => panic!("{other:?}"),
    };
    for trouble in [Trouble::Connect, Trouble::Unsent, Trouble::Full, Trouble::Reset { reused: true }] {
        assert_eq!(after(trouble, 0, u64::MAX), 0, "{trouble:?}");
        assert_eq!(after(trouble, 1, u64::MAX), 50_000, "{trouble:?}");
    }
    let waits = |random| [0, 1, 2, 3, 4].map(|tries| after(Trouble::Timeout, tries, random));
    assert_eq!(waits(u64::MAX), [25_000, 50_000, 100_000, 200_000, 250_000]);
    assert_eq!(waits(0), [0; 5]);
    assert_eq!(after(Trouble::Reset { reused: false }, 0, u64::MAX / 2), 12_500);
}

#[test]
fn an_attempt_is_cut_short_only_if_another_may_follow() {
    let policy = Policy { per_try: Some(Duration::from_secs(1)), attempts: 1, ..keen() };
    let first = Prospect { tries: 0, safety: Safety::Safe, route_repeats: false, replayable: true };
    let table = [
        (first, true),
        (Prospect { tries: 1, ..first }, false),
        (Prospect { safety: Safety::Idempotent, ..first }, true),
        (Prospect { safety: Safety::Neither, ..first }, false),
        (Prospect { safety: Safety::Neither, route_repeats: true, ..first }, true),
        (Prospect { replayable: false, ..first }, false),
    ];
    for (prospect, cut) in table {
        assert_eq!(policy.patience(&prospect), policy.per_try.filter(|_| cut), "{prospect:?}");
    }
    let patient = Policy { on: Conditions { timeout: false, ..everything() }, ..policy };
    assert_eq!(patient.patience(&first), None);
}

#[test]
fn a_set_of_statuses_holds_what_was_put_in() {
    let set = Statuses::from_to(429, 429).and(Statuses::from_to(500, 599));
    let has = |range: std::ops::Range<u16>| range.filter(|status| set.has(*status)).collect::<Vec<_>>();
    assert_eq!(has(0..500), [429]);
    assert_eq!(has(500..700), (500..600).collect::<Vec<_>>());
    assert_eq!(Statuses::from_to(0, u16::MAX), Statuses::from_to(400, 599));
    assert_eq!(format!("{:?}", Statuses::from_to(502, 504)), "{502, 503, 504}");
}

#[test]
fn methods_are_told_apart() {
    let methods = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH", "get", ""];
    let safe = methods.map(|method| Safety::of(method) == Safety::Safe);
    let same = methods.map(|method| Safety::of(method) != Safety::Neither);
    assert_eq!(safe, [true, true, true, false, false, false, false, false, false]);
    assert_eq!(same, [true, true, true, true, true, false, false, false, false]);
}

fn any_case() -> impl Strategy<Value = Case> {
    let safety = prop::sample::select(vec![Safety::Safe, Safety::Idempotent, Safety::Neither]);
    let roles = vec![Role::Baseline, CANARY, Role::Canary { baseline_has_share: false }];
    let (trouble, role) = (prop::sample::select(TROUBLES.to_vec()), prop::sample::select(roles));
    (trouble, 0u32..7, safety, any::<bool>(), any::<bool>(), role).prop_map(
        |(trouble, tries, safety, route_repeats, replayable, role)| Case {
            trouble,
            tries,
            safety,
            route_repeats,
            replayable,
            role,
        },
    )
}

proptest! {
    /// Whatever the policies name and the budgets say.
    #[test]
    fn nothing_happens_twice_and_no_budget_is_asked_in_vain(
        case in any_case(), random: u64, attempts in 0u32..6, methods in 0usize..3, retry_budget: bool, rescue_budget: bool,
    ) {
        let methods = [rescue::Methods::Safe, rescue::Methods::Idempotent, rescue::Methods::All][methods];
        let rescue = rescue::Policy { methods, ..rescue::Policy::default() };
        let policy = Policy { attempts, ..keen() };
        let (mut asked, mut asked_rescue) = (0, 0);
        let next = follow(
            &case,
            &policy,
            Some(&rescue),
            random,
            || { asked += 1; retry_budget },
            || { asked_rescue += 1; rescue_budget },
        );
        let again = !matches!(next, Next::GiveUp(_));
        let harmless = !case.trouble.was_sent() || case.safety != Safety::Neither || case.route_repeats
            || (methods == rescue::Methods::All && next == Next::Rescue);
        prop_assert!(!again || (harmless && case.replayable));
        prop_assert!(asked + asked_rescue <= 1);
        prop_assert_eq!(asked == 1 && retry_budget, matches!(next, Next::Retry { .. }));
        prop_assert_eq!(asked_rescue == 1 && rescue_budget, next == Next::Rescue);
        if let Next::Retry { after } = next {
            prop_assert!(case.tries < attempts && after <= policy.backoff.max);
        }
        prop_assert!(next != Next::Rescue || case.role == CANARY);
    }
}
