//! What must hold for the rollout machine under any plan and any sequence of events.

use std::time::Duration;

use proptest::prelude::*;

use super::machine::*;
use super::plan::{OnInconclusive, Pause, Step};
use super::tests::{MINUTE, analyze, events, judged, promoted, rollout};
use crate::domain::split::Share;

/// What the world shows: the share published, and whether everything was told to go back.
#[derive(Clone, Default)]
struct World {
    published: Share,
    settled: Option<Rollout>,
    reverted: bool,
}

impl World {
    fn perform(&mut self, rollout: &Rollout, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Move { share, .. } => self.published = *share,
                Action::Restore { share } => self.published = *share,
                Action::Revert => (self.published, self.reverted) = (Share::NONE, true),
                Action::Settle => self.settled = Some(rollout.clone()),
                Action::Announce(notice) => assert!(!notice.sentence.is_empty()),
            }
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let time = || (0u64..100).prop_map(Duration::from_secs);
    prop_oneof![
        3 => (0u16..=10_000).prop_map(|points| Step::Weight(Share::from_basis_points(points).unwrap())),
        2 => (time(), proptest::option::of(time())).prop_map(|(dwell, deadline)| Step::Analyze { dwell, deadline }),
        1 => time().prop_map(|time| Step::Pause(Pause::For(time))),
        1 => Just(Step::Pause(Pause::UntilApproved)),
    ]
}

prop_compose! {
    fn any_rollout()(mut steps in prop::collection::vec(any_step(), 1..7), back: bool) -> Rollout {
        // Weights of a plan never fall.
        let mut shares: Vec<_> = steps.iter().filter_map(|step| match step { Step::Weight(s) => Some(*s), _ => None }).collect();
        shares.sort();
        let mut shares = shares.into_iter();
        for step in &mut steps {
            if let Step::Weight(share) = step { *share = shares.next().unwrap() }
        }
        rollout(steps, if back { OnInconclusive::Rollback } else { OnInconclusive::Hold })
    }
}

/// Either the acknowledgement the rollout waits for, or any event of the table.
fn any_script() -> impl Strategy<Value = Vec<(Option<usize>, u64)>> {
    let event = prop_oneof![2 => Just(None), 3 => (0..events().len()).prop_map(Some)];
    prop::collection::vec((event, 0u64..60_000), 1..60)
}

fn pick(rollout: &Rollout, choice: Option<usize>) -> Event {
    match (choice, rollout.phase) {
        (Some(index), _) => events().swap_remove(index).1,
        (None, Phase::Ready) => Event::Start,
        (None, Phase::Applying { share }) => Event::Applied { share, promote: false },
        (None, Phase::Promoting) => promoted(),
        (None, Phase::RollingBack(_)) => Event::Reverted,
        (None, Phase::Analyzing) => judged(true),
        (None, _) => Event::Tick,
    }
}

/// True for what nobody but a person may cause, and for an acknowledgement of a move.
fn moves_forward(event: &Event) -> bool {
    matches!(
        event,
        Event::Start
            | Event::Applied { .. }
            | Event::Judged { approved: true, .. }
            | Event::Tick
            | Event::BreakerClosed
            | Event::Resume { .. }
            | Event::Promote { .. }
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_holds_for_any_sequence_of_events(mut rollout in any_rollout(), script in any_script()) {
        let (mut world, mut now) = (World::default(), Millis(0));
        for (choice, pause) in script {
            now.0 += pause;
            let event = pick(&rollout, choice);
            let (before, world_before) = (rollout.clone(), world.clone());
            let Ok(actions) = rollout.step(event.clone(), now) else {
                prop_assert_eq!(&rollout, &before);
                continue;
            };
            world.perform(&rollout, &actions);
            // Ends are ends.
            if before.end().is_some() {
                prop_assert!(rollout == before && actions.is_empty());
            }
            // The share rises only through a move, or back to what was acknowledged; and a move only follows from
            // what may cause one.
            let acknowledged = world_before.published.max(before.applied);
            let moved = actions.iter().any(|action| matches!(action, Action::Move { .. }));
            prop_assert!(world.published <= acknowledged || moved, "{event:?}: {actions:?}");
            prop_assert!(!moved || moves_forward(&event), "{event:?}: {actions:?}");
            // After a revert nothing but the baseline.
            prop_assert!(!world_before.reverted || (world.published.is_none() && !moved));
            // Where nothing is under way, the world shows what was acknowledged.
            if !matches!(rollout.phase, Phase::Applying { .. } | Phase::Promoting) {
                prop_assert_eq!(world.published, rollout.applied);
            }
            // A halt or an end carries its sentence.
            if matches!(rollout.phase, Phase::Held(_) | Phase::RollingBack(_) | Phase::Ended(_)) {
                prop_assert!(!rollout.reason.is_empty());
            }
            prop_assert!(rollout.step <= rollout.order.plan.steps.len());
        }
    }

    #[test]
    fn without_an_approval_or_a_promote_no_plan_with_an_analysis_is_promoted(
        mut rollout in any_rollout(), script in any_script(), at: prop::sample::Index,
    ) {
        let steps = &mut rollout.order.plan.steps;
        let place = at.index(steps.len() + 1);
        steps.insert(place, analyze());
        let mut now = Millis(0);
        for (choice, pause) in script {
            now.0 += pause;
            let event = pick(&rollout, choice);
            if !matches!(event, Event::Judged { approved: true, .. } | Event::Promote { .. }) {
                let _ = rollout.step(event, now);
            }
            prop_assert_ne!(rollout.end(), Some(End::Promoted));
            prop_assert_ne!(rollout.phase, Phase::Promoting);
            prop_assert!(rollout.step <= place, "it went past its analysis");
        }
    }

    #[test]
    fn a_restart_never_shows_more_than_was_settled_and_never_goes_forward_by_itself(
        mut rollout in any_rollout(), script in any_script(), ticks in 1usize..20,
    ) {
        let (mut world, mut now) = (World::default(), Millis(0));
        for (choice, pause) in script {
            now.0 += pause;
            if let Ok(actions) = rollout.step(pick(&rollout, choice), now) {
                world.perform(&rollout, &actions);
            }
            let Some(mut loaded) = world.settled.clone() else { continue };
            let settled = loaded.applied;
            let gates = loaded.order.plan.steps.iter().filter(|step| matches!(step, Step::Pause(Pause::For(_)))).count();
            let mut after = World { published: settled, ..World::default() };
            let actions = loaded.step(Event::Restarted, Millis(0)).unwrap();
            after.perform(&loaded, &actions);
            prop_assert!(after.published <= settled);
            prop_assert!(!actions.iter().any(|action| matches!(action, Action::Move { .. })), "{actions:?}");
            // Without a timed pause, no time moves it either.
            for tick in 0..ticks {
                let actions = loaded.step(Event::Tick, Millis(tick as u64 * MINUTE)).unwrap();
                after.perform(&loaded, &actions);
                prop_assert!(gates > 0 || after.published <= settled, "{actions:?}");
            }
        }
    }
}
