//! The state on its way to a successor.

use super::*;
use crate::control::store::Store;

#[tokio::test(start_paused = true)]
async fn changes_wait_until_the_state_is_back_and_are_then_done() {
    let disk = Disk::default();
    let rig = Rig::start(&disk).await.unwrap();
    rig.weigh(10).await.unwrap();
    rig.controller.release_state().await.unwrap();
    // Somebody else has it now.
    let mut other = Store::on_disk(&disk).unwrap();
    assert_eq!(other.load().unwrap().services[SHOP].share("green"), percent(10));
    let waiting = rig.weigh(20);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_secs(5), &mut waiting).await.is_err());
    assert_eq!(rig.published().green, percent(10));
    assert!(!rig.controller.is_overtaken());
    drop(other);
    rig.controller.reclaim_state().await;
    waiting.await.unwrap();
    assert_eq!(rig.published().green, percent(20));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_moves_the_traffic_at_once_and_calls_the_succession_off() {
    let disk = Disk::default();
    let rig = Rig::start(&disk).await.unwrap();
    rig.weigh(10).await.unwrap();
    rig.controller.rollback(SHOP, "ann", "early").await.unwrap();
    rig.weigh(10).await.unwrap();
    rig.controller.release_state().await.unwrap();
    assert!(!rig.controller.is_overtaken(), "what was rolled back before is in the state");
    let waiting = rig.controller.rollback(SHOP, "ann", "slow");
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_secs(5), &mut waiting).await.is_err());
    assert_eq!(rig.published().green, Share::NONE);
    assert!(rig.controller.is_overtaken());
    rig.controller.reclaim_state().await;
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_when_the_process_ends_is_told() {
    let disk = Disk::default();
    let rig = Rig::start(&disk).await.unwrap();
    rig.controller.release_state().await.unwrap();
    let (weighed, ()) = tokio::join!(rig.weigh(20), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rig.controller.close().await;
    });
    assert_eq!(weighed, Err(Refusal::ShuttingDown));
}
