//! Races and faults: a rollback against moves that are on their way, stuck workers, a failing journal, many writers.

use super::*;
use crate::clock;
use crate::control::store::crash::Kept;
use crate::domain::rollout::machine::{Cause, End};

fn blue(green: u16) -> Seen {
    Seen { active: "blue".to_owned(), green: percent(green) }
}

/// What a process would find that starts from what is durable now.
fn durable(disk: &Disk) -> (Seen, Option<Phase>) {
    let loaded = Store::on_disk(&disk.survivor(Kept::None)).unwrap().load().unwrap();
    let state = &loaded.services[SHOP];
    let seen = Seen { active: state.active.clone(), green: state.share("green") };
    (seen, state.rollout.as_ref().map(|rollout| rollout.phase))
}

/// Lets the other tasks run so many turns.
async fn turns(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

/// Turns after which a whole move is long over, disk included.
const TURNS: usize = 60;

#[tokio::test(start_paused = true)]
async fn a_stuck_worker_is_named_in_time_and_the_split_before_is_published_again() {
    let disk = Disk::new();
    let rig = Rig::start(&disk).await.unwrap();
    rig.weigh(5).await.unwrap();
    rig.stick(true);
    let began = clock::now();
    let refusal = rig.weigh(50).await.unwrap_err().to_string();
    let waited = clock::now().since(began);
    assert!(u128::from(waited) <= (ACKNOWLEDGE + TICK).as_micros(), "{waited} us");
    assert_eq!(refusal, "not taken up in time by worker 1; the split before it was published again");
    assert_eq!((rig.published(), durable(&disk).0), (blue(5), blue(5)));
    // A rollback is published all the same, and durable, and says who has not taken it up.
    let refusal = rig.controller.rollback(SHOP, "ann", "").await.unwrap_err().to_string();
    assert_eq!(refusal, "the rollback is published but not taken up in time by worker 1");
    assert_eq!((rig.published(), durable(&disk).0), (blue(0), blue(0)));
    rig.stick(false);
    rig.weigh(50).await.unwrap();
    assert_eq!((rig.published(), durable(&disk).0), (blue(50), blue(50)));
}

#[tokio::test(start_paused = true)]
async fn a_stuck_worker_holds_a_rollout_and_does_not_keep_its_rollback_from_the_disk() {
    let disk = Disk::new();
    let rig = Rig::start(&disk).await.unwrap();
    let id = rig.deploy("green", None).await.unwrap();
    assert!(rig.until(|| rig.phase() == Some(Phase::Waiting)).await);
    rig.stick(true);
    rig.controller.act(&id, Act::Resume, "ann").await.unwrap();
    assert_eq!((rig.phase(), rig.published()), (Some(Phase::Held(Cause::Failed)), blue(5)));
    assert!(rig.told("held")[0].contains("worker 1"), "{:?}", rig.told("held"));
    rig.controller.rollback(SHOP, "ann", "").await.unwrap_err();
    assert_eq!(rig.phase(), Some(Phase::RollingBack(End::RolledBack)));
    assert_eq!(durable(&disk), (blue(0), Some(Phase::RollingBack(End::RolledBack))));
    rig.stick(false);
    assert!(rig.until(|| rig.phase().is_none() && durable(&disk) == (blue(0), None)).await, "{:?}", durable(&disk));
    assert!(rig.until(|| rig.told("ended").len() == 1).await, "{:?}", rig.told("ended"));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_wins_over_a_move_that_a_stuck_worker_keeps_waiting() {
    for rollout in [false, true] {
        let disk = Disk::new();
        let rig = Rig::start(&disk).await.unwrap();
        let id = match rollout {
            true => Some(rig.deploy("green", None).await.unwrap()),
            false => rig.weigh(5).await.map(|_| None).unwrap(),
        };
        assert!(rig.until(|| rig.published() == blue(5) && rig.phase() == id.as_ref().map(|_| Phase::Waiting)).await);
        rig.stick(true);
        let forward = async {
            match &id {
                Some(id) => rig.controller.act(id, Act::Resume, "ann").await.map(drop),
                None => rig.weigh(50).await.map(drop),
            }
        };
        let back = async {
            tokio::time::sleep(ACKNOWLEDGE / 2).await;
            rig.controller.rollback(SHOP, "ann", "").await
        };
        let (forward, back) = tokio::join!(forward, back);
        assert!(back.is_err() && forward.is_err() != rollout, "{forward:?} {back:?}");
        let log = rig.seen.lock().unwrap().clone();
        // The journal has a thread of its own, so the rollback may also come before the move is published.
        assert!(log.last() == Some(&blue(0)) && (3..=4).contains(&log.len()), "0, 5, perhaps 25 or 50, and 0: {log:?}");
        assert_eq!(log[..2], [blue(0), blue(5)]);
        rig.stick(false);
        assert!(rig.until(|| durable(&disk) == (blue(0), None)).await, "{:?}", durable(&disk));
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_wins_over_weights_that_were_asked_for_before_it() {
    let mut lost = 0;
    for turn in 0..TURNS {
        let disk = Disk::new();
        let rig = Rig::start(&disk).await.unwrap();
        let (weights, back) = tokio::join!(rig.weigh(10), async {
            turns(turn).await;
            rig.controller.rollback(SHOP, "ann", "").await
        });
        back.unwrap();
        if let Err(refusal) = weights {
            assert!(matches!(refusal, Refusal::Conflict(_)), "turn {turn}: {refusal}");
            lost += 1;
        }
        assert_eq!((rig.published(), durable(&disk).0), (blue(0), blue(0)), "turn {turn}");
        let log = rig.seen.lock().unwrap().clone();
        assert!(log == [blue(0)] || log == [blue(0), blue(10), blue(0)], "turn {turn}: {log:?}");
        rig.weigh(20).await.unwrap();
        assert_eq!(rig.published(), blue(20), "turn {turn}");
    }
    // The first ones are certain to come before the move is published.
    assert!(lost > 0);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_or_abort_wins_over_a_step_of_its_rollout_that_is_on_its_way() {
    for act in [Act::Resume, Act::Promote] {
        for turn in 0..TURNS {
            for abort in [false, true] {
                let at = format!("{act:?}, turn {turn}, abort {abort}");
                let disk = Disk::new();
                let rig = Rig::start(&disk).await.unwrap();
                let id = rig.deploy("green", None).await.unwrap();
                assert!(rig.until(|| rig.phase() == Some(Phase::Waiting)).await, "{at}");
                let (moved, back) = tokio::join!(rig.controller.act(&id, act.clone(), "ann"), async {
                    turns(turn).await;
                    match abort {
                        true => rig.controller.act(&id, Act::Abort { reason: String::new() }, "ann").await.map(drop),
                        false => rig.controller.rollback(SHOP, "ann", "").await.map(drop),
                    }
                });
                // A promotion may have been over before; then there is nothing left to abort.
                let promoted = matches!(&moved, Ok(Found::Over(over)) if over.rollout.end() == Some(End::Promoted));
                assert!(back.is_ok() || (promoted && abort), "{at}: {back:?}");
                let green = Seen { active: "green".to_owned(), green: Share::ALL };
                let expected = if promoted { green } else { blue(0) };
                assert_eq!((rig.published(), durable(&disk)), (expected.clone(), (expected, None)), "{at}");
                rig.weigh(20).await.unwrap();
                assert_eq!(rig.published().green, percent(20), "{at}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_a_rollback_that_was_published_before_it() {
    let disk = Disk::new();
    let mut changed = settings();
    changed.client.max_headers = 11;
    let rig = Rig::with(&disk, Some(Box::new(move || Ok(changed.clone())))).await.unwrap();
    rig.weigh(10).await.unwrap();
    // As the judge does: it publishes, and its word of it comes to the driver after the reload.
    rig.publisher.revert(SHOP).unwrap();
    assert!(rig.controller.reload("ann").await.unwrap().changed);
    assert_eq!(rig.published(), blue(0));
    rig.controller.rollback(SHOP, "ann", "").await.unwrap();
    assert_eq!((rig.published(), durable(&disk).0), (blue(0), blue(0)));
}

#[tokio::test(start_paused = true)]
async fn an_abort_that_comes_after_the_end_leaves_a_service_that_can_move() {
    let rig = Rig::start(&Disk::new()).await.unwrap();
    let id = rig.deploy("green", None).await.unwrap();
    assert!(rig.until(|| rig.phase() == Some(Phase::Waiting)).await);
    rig.controller.act(&id, Act::Promote, "ann").await.unwrap();
    rig.weigh(80).await.unwrap();
    // As a handle does that has not heard of the end yet.
    rig.publisher.revert(SHOP).unwrap();
    let (reply, answer) = oneshot::channel();
    let (act, by) = (Act::Abort { reason: String::new() }, "ann".to_owned());
    let swapped = Some(SHOP.to_owned());
    rig.commands.send(Command::Act { rollout: id, act, by, swapped, reply }).ok().unwrap();
    assert!(matches!(answer.await.unwrap(), Err(Refusal::Conflict(_))));
    assert_eq!(rig.published(), Seen { active: "green".to_owned(), green: Share::ALL });
    rig.weigh(60).await.unwrap();
    assert_eq!(rig.published().green, percent(60));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_the_journal_fails_is_published_told_so_and_made_durable_later() {
    for rollout in [false, true] {
        let disk = Disk::new();
        let rig = Rig::start(&disk).await.unwrap();
        match rollout {
            false => drop(rig.weigh(5).await.unwrap()),
            true => {
                rig.deploy("green", None).await.unwrap();
                assert!(rig.until(|| rig.phase() == Some(Phase::Waiting)).await);
            }
        }
        disk.die_after(0);
        let refusal = rig.controller.rollback(SHOP, "ann", "").await.unwrap_err().to_string();
        assert_eq!(refusal, "done, but not durable yet: the journal failed and is tried again");
        assert_eq!((rig.published(), durable(&disk).0), (blue(0), blue(5)));
        // No forward move without a journal.
        let refusal = rig.weigh(10).await.unwrap_err();
        assert!(matches!(refusal, Refusal::Failed(_) | Refusal::Conflict(_)), "{refusal}");
        assert_eq!(rig.published(), blue(0));
        disk.recover();
        assert!(rig.until(|| durable(&disk) == (blue(0), None)).await, "{:?}", durable(&disk));
        // Durable first, told after: the store has a thread of its own.
        assert!(rig.until(|| rig.told("ended").len() == usize::from(rollout)).await, "{:?}", rig.told("ended"));
        rig.weigh(10).await.unwrap();
        assert_eq!(durable(&disk).0, blue(10));
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollout_whose_end_the_journal_fails_still_ends_and_says_so_with_its_id() {
    let disk = Disk::new();
    let rig = Rig::start(&disk).await.unwrap();
    let id = rig.deploy("green", None).await.unwrap();
    assert!(rig.until(|| rig.phase() == Some(Phase::Waiting)).await);
    // The intent becomes durable, what follows it does not: one point of the disk's life does just that.
    let mut after = None;
    for operations in 0..60 {
        let disk = Disk::holding(disk.bytes());
        let rig = Rig::start(&disk).await.unwrap();
        assert!(rig.until(|| rig.phase() == Some(Phase::Waiting)).await);
        disk.die_after(operations);
        let answer = rig.controller.act(&id, Act::Promote, "ann").await;
        if rig.phase().is_none() && answer.is_err() {
            after = Some((disk, rig, answer));
            break;
        }
    }
    let (disk, rig, answer) = after.expect("a point between the intent and its settling");
    assert_eq!(answer.unwrap_err().to_string(), "done, but not durable yet: the journal failed and is tried again");
    let ended = rig.events.after(0).into_iter().find(|event| event.kind == "ended").unwrap();
    assert_eq!(ended.rollout, Some(id));
    disk.recover();
    assert!(rig.until(|| durable(&disk).0.active == "green").await);
}

#[tokio::test(start_paused = true)]
async fn of_many_writers_each_is_all_or_nothing_and_the_last_one_stays() {
    let disk = Disk::new();
    let rig = Rig::start(&disk).await.unwrap();
    let write = |green: u16, expected: Option<u64>| {
        let controller = rig.controller.clone();
        let shares = vec![("green".to_owned(), percent(green)), ("blue".to_owned(), percent(green).rest())];
        async move { controller.set_weights(SHOP, shares, expected, "ann").await }
    };
    let all = (1..=64).map(|green| tokio::spawn(write(green, None)));
    let mut done = Vec::new();
    for writer in all.collect::<Vec<_>>() {
        done.push(writer.await.unwrap().unwrap());
    }
    done.sort_by_key(|done| done.epoch);
    let epochs: Vec<u64> = done.iter().map(|done| done.epoch).collect();
    assert_eq!(epochs, (1..=64).collect::<Vec<_>>());
    let last = blue(0).green_of(&done[63]);
    assert_eq!((rig.published(), durable(&disk).0), (last.clone(), last));
    // Every split that was ever seen was exactly one writer's.
    let log = rig.seen.lock().unwrap().clone();
    let writers: Vec<Seen> = done.iter().map(|done| blue(0).green_of(done)).collect();
    assert!(log[1..].iter().all(|seen| writers.contains(seen)), "{log:?}");

    let racing = (1..=64).map(|green| tokio::spawn(write(green, Some(64))));
    let mut won = 0;
    for writer in racing.collect::<Vec<_>>() {
        match writer.await.unwrap() {
            Ok(_) => won += 1,
            Err(refusal) => assert_eq!(refusal, Refusal::Stale { expected: 64, current: 65 }),
        }
    }
    assert_eq!(won, 1);
}

impl Seen {
    fn green_of(self, done: &Done) -> Seen {
        Seen { green: done.shares[1].1, ..self }
    }
}
