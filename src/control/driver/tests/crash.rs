//! The crash loop: the process dies at every operation of its disk, in the middle of rollouts, and what a new one
//! makes of the rest is never more canary than was acknowledged.

use super::*;
use crate::control::store::crash::Kept;
use crate::domain::rollout::machine::End;

/// What happens to the rollout once it waits at 25 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Approve,
    Rollback,
    Abort,
    Promote,
}

/// What was promised before the death.
#[derive(Default)]
struct Promises {
    /// The workers' log at the last answer: what a restart shows is in it from here on.
    since: usize,
    /// Rollouts that were told, and how they ended as far as that was told.
    rollouts: Vec<(String, Option<End>)>,
}

impl Promises {
    /// It was told that green has this share.
    fn holds(&mut self, rig: &Rig, green: u16) {
        let log = rig.seen.lock().unwrap();
        self.since = log.iter().rposition(|seen| seen.green == percent(green)).expect("told and never taken up");
    }
}

/// Plays the script until it is over or the disk is dead; true for over.
async fn play(rig: &Rig, disk: &Disk, variant: Variant, told: &mut Promises) -> bool {
    macro_rules! step {
        ($answer:expr) => {
            match $answer {
                Ok(answer) => answer,
                Err(refusal) => {
                    assert!(disk.is_dead(), "{refusal}");
                    return false;
                }
            }
        };
    }
    macro_rules! reach {
        ($phase:expr) => {{
            let reached = rig.until(|| disk.is_dead() || rig.phase() == $phase).await;
            assert!(reached, "stuck at {:?}", rig.phase());
            if disk.is_dead() {
                return false;
            }
        }};
    }
    step!(rig.weigh(10).await);
    told.holds(rig, 10);
    step!(rig.weigh(0).await);
    told.holds(rig, 0);
    let id = step!(rig.deploy("green", None).await);
    told.rollouts.push((id.clone(), None));
    reach!(Some(Phase::Waiting));
    step!(rig.controller.act(&id, Act::Resume, "ann").await);
    told.holds(rig, 25);
    reach!(Some(Phase::Analyzing));
    let end = match variant {
        Variant::Approve => {
            rig.approve("green", "blue");
            reach!(None);
            End::Promoted
        }
        Variant::Promote => {
            step!(rig.controller.act(&id, Act::Promote, "ann").await);
            End::Promoted
        }
        Variant::Rollback => {
            step!(rig.controller.rollback(SHOP, "ann", "it looks odd").await);
            End::RolledBack
        }
        Variant::Abort => {
            step!(rig.controller.act(&id, Act::Abort { reason: String::new() }, "ann").await);
            End::Aborted
        }
    };
    assert_eq!(rig.phase(), None);
    told.holds(rig, if end == End::Promoted { 100 } else { 0 });
    told.rollouts = vec![(id, Some(end))];
    let other = if end == End::Promoted { 90 } else { 20 };
    step!(rig.weigh(other).await);
    told.holds(rig, other);
    true
}

/// What a new process finds and can still do.
async fn check(survivor: &Disk, log: &[Seen], told: &Promises, works: bool) {
    let mut store = Store::on_disk(survivor).unwrap();
    let loaded = store.load().unwrap();
    let state = &loaded.services[SHOP];
    let found = Seen { active: state.active.clone(), green: state.share("green") };
    assert!(log[told.since..].contains(&found), "{found:?} was never acknowledged: {:?}", &log[told.since..]);
    for (id, end) in &told.rollouts {
        let over = store.rollout(id).unwrap().and_then(|over| over.rollout.end());
        let running = state.rollout.as_ref().is_some_and(|rollout| rollout.order.id == *id);
        assert!(end.map_or(running || over.is_some(), |end| over == Some(end)), "{id} {end:?} is lost");
    }
    drop(store);
    if !works {
        return;
    }
    let rig = Rig::start(survivor).await.unwrap();
    assert_eq!(rig.seen.lock().unwrap()[0], found, "the first table is what was found");
    // Longer than any pause or rollback of the machine: nothing goes forward by itself.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(at_risk(&rig.published()) <= at_risk(&found), "{:?} after {found:?}", rig.published());
    rig.controller.rollback(SHOP, "ann", "").await.unwrap();
    assert_eq!((at_risk(&rig.published()), rig.phase()), (Share::NONE, None));
    let to = if rig.published().active == "green" { "blue" } else { "green" };
    let steps = vec![Step::Weight(percent(50)), Step::Weight(Share::ALL)];
    rig.deploy(to, Some(Plan { steps, on_inconclusive: OnInconclusive::Hold })).await.unwrap();
    assert!(rig.until(|| rig.phase().is_none()).await);
    assert_eq!((rig.published().active.as_str(), at_risk(&rig.published())), (to, Share::NONE));
}

/// What does not go to the active pool.
fn at_risk(seen: &Seen) -> Share {
    if seen.active == "green" { seen.green.rest() } else { seen.green }
}

async fn crash_everywhere(variant: Variant) {
    let seeds = [1, 2].map(Kept::Some);
    let ways: Vec<Kept> =
        [Kept::None, Kept::All, Kept::Prefix(333), Kept::Prefix(700)].into_iter().chain(seeds).collect();
    let fresh = Disk::new();
    drop(Rig::start(&fresh).await.unwrap());
    let seeded = fresh.bytes();
    for operations in 0.. {
        let disk = Disk::holding(seeded.clone());
        disk.die_after(operations);
        let mut told = Promises::default();
        let (mut over, mut log) = (false, vec![Seen { active: "blue".to_owned(), green: Share::NONE }]);
        // It may die before it has opened its store.
        if let Ok(rig) = Rig::start(&disk).await {
            over = play(&rig, &disk, variant, &mut told).await;
            log.clone_from(&rig.seen.lock().unwrap());
        }
        if !disk.is_dead() {
            disk.die_after(0);
        }
        for (number, way) in ways.iter().enumerate() {
            // What can still be done is asked of every second way in turn: at each point all come to the same few.
            let works = over || number % 2 == operations as usize % 2;
            check(&disk.survivor(*way), &log, &told, works).await;
        }
        if over {
            assert!(operations > 60, "the script is too short to mean anything: {operations} operations");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_in_an_approved_rollout_leaves_no_more_canary() {
    crash_everywhere(Variant::Approve).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_around_a_rollback_leaves_no_more_canary() {
    crash_everywhere(Variant::Rollback).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_around_an_abort_leaves_no_more_canary() {
    crash_everywhere(Variant::Abort).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_around_a_promotion_leaves_no_more_canary() {
    crash_everywhere(Variant::Promote).await;
}
