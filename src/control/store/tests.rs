//! The store's promises: what was acknowledged is there, and a crash never leaves more canary.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::crash::{Disk, Kept};
use super::*;
use crate::domain::rollout::machine::{Cause, End, Millis, Order, Phase, Rollout, UnixMillis};
use crate::domain::rollout::plan::{OnInconclusive, Pause, Plan, Step};
use crate::domain::split::Share;

const SHOP: &str = "shop";

fn percent(percent: u16) -> Share {
    Share::from_basis_points(percent * 100).unwrap()
}

fn rollout(id: &str) -> Rollout {
    Rollout::new(Order {
        id: id.to_owned(),
        service: SHOP.to_owned(),
        baseline: "blue".to_owned(),
        canary: "green".to_owned(),
        plan: Plan::default(),
        started_by: "ann".to_owned(),
        started_at: UnixMillis(1),
    })
}

fn fresh() -> ServiceState {
    ServiceState::new("blue", "ann", UnixMillis(1))
}

fn finished(id: &str) -> Finished {
    let mut rollout = rollout(id);
    rollout.phase = Phase::Ended(End::RolledBack);
    Finished { rollout, ended_at: UnixMillis(2) }
}

fn shop(loaded: &Loaded) -> &ServiceState {
    &loaded.services[SHOP]
}

#[test]
fn an_intent_is_dropped_until_it_is_settled() {
    let mut store = Store::ephemeral().unwrap();
    let mut state = fresh();
    store.commit(&Batch::new().settle(SHOP, state.clone())).unwrap();
    state.give("green", percent(5));
    store.commit(&Batch::new().intent(SHOP, state.clone())).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!((shop(&loaded), &loaded.dropped[SHOP]), (&fresh(), &state));
    store.commit(&Batch::new().settle(SHOP, state.clone()).evidence(SHOP, vec![1, 2])).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!((shop(&loaded), loaded.dropped.len(), &loaded.evidence[SHOP]), (&state, 0, &vec![1, 2]));
}

#[test]
fn a_service_that_was_never_settled_cannot_move_and_nothing_of_the_batch_is_written() {
    let mut store = Store::ephemeral().unwrap();
    let batch = Batch::new().evidence(SHOP, vec![1]).intent(SHOP, fresh());
    assert!(matches!(store.commit(&batch), Err(StoreError::Unsettled { service }) if service == SHOP));
    assert_eq!(store.load().unwrap(), Loaded::default());
}

#[test]
fn evidence_has_a_limit() {
    let mut store = Store::ephemeral().unwrap();
    store.commit(&Batch::new().evidence(SHOP, vec![0; EVIDENCE_LIMIT])).unwrap();
    let error = store.commit(&Batch::new().evidence(SHOP, vec![0; EVIDENCE_LIMIT + 1])).unwrap_err();
    assert_eq!(error.to_string(), "evidence on service shop has 1048577 bytes, more than the 1048576 that are kept");
}

#[test]
fn the_history_keeps_the_newest_thousand_and_counts_an_id_once() {
    let mut store = Store::ephemeral().unwrap();
    let batch = (0..1_005).fold(Batch::new(), |batch, n| batch.finish(finished(&format!("r{n}"))));
    store.commit(&batch).unwrap();
    let mut again = finished("r1004");
    again.ended_at = UnixMillis(9);
    store.commit(&Batch::new().finish(again)).unwrap();
    let history = store.history(SHOP, 5_000).unwrap();
    let id = |finished: &Finished| finished.rollout.order.id.clone();
    assert_eq!((history.len(), id(&history[0]), id(&history[999])), (1_000, "r1004".to_owned(), "r5".to_owned()));
    assert_eq!(history[0].ended_at, UnixMillis(9));
    assert_eq!((store.rollout("r4").unwrap(), store.rollout("r5").unwrap()), (None, Some(finished("r5"))));
    assert_eq!(store.history(SHOP, 2).unwrap().len(), 2);
    assert_eq!(store.history("sho", 2).unwrap(), []);
}

#[test]
fn a_folder_and_file_are_for_their_owner_alone_and_one_process_at_a_time() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("a/b");
    let mut store = Store::open(&folder).unwrap();
    store.commit(&Batch::new().settle(SHOP, fresh())).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join("teal.redb"))), (0o700, 0o600));
    let second = Store::open(&folder).err().unwrap();
    assert!(matches!(second, StoreError::InUse { .. }), "{second}");
    assert!(second.to_string().starts_with("another teal is running on this state"), "{second}");
    drop(store);
    assert_eq!(shop(&Store::open(&folder).unwrap().load().unwrap()), &fresh());
}

#[test]
fn a_creation_that_was_cut_short_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("teal.redb.new"), [0; 100_000]).unwrap();
    assert_eq!(Store::open(folder.path()).unwrap().load().unwrap(), Loaded::default());
}

#[test]
fn a_foreign_or_newer_file_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("teal.redb");
    let refusal = || Store::open(folder.path()).err().unwrap().to_string();
    fs::write(&path, "some notes of mine").unwrap();
    assert!(refusal().contains("is not a usable state file"), "{}", refusal());
    assert_eq!(fs::read(&path).unwrap(), b"some notes of mine");
    fs::remove_file(&path).unwrap();
    let table = redb::TableDefinition::<u64, u64>::new("theirs");
    write_directly(&path, |write| drop(write.open_table(table).unwrap()));
    assert!(refusal().contains("some other program"), "{}", refusal());
    fs::remove_file(&path).unwrap();
    drop(Store::open(folder.path()).unwrap());
    write_directly(&path, |write| drop(write.open_table(file::META).unwrap().insert("format", 7).unwrap()));
    assert!(refusal().contains("newer teal (format 7, this one knows 1)"), "{}", refusal());
}

fn write_directly(path: &Path, work: impl Fn(&WriteTransaction)) {
    let database = Database::create(path).unwrap();
    let write = database.begin_write().unwrap();
    work(&write);
    write.commit().unwrap();
}

#[test]
fn a_damaged_record_names_its_service() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    for (bytes, says) in [
        (&b"{}"[..], "version"),
        (br#"{"version":2}"#, "record version 2, this teal knows 1 to 1"),
        (
            br#"{"version":1,"active":"a","shares":{"a":9},"epoch":0,"salt":0,"rolled_back":[],"rollout":null,"changed_by":"","changed_at":0}"#,
            "sum to 9",
        ),
    ] {
        let put = |write: &WriteTransaction| drop(write.open_table(SETTLED).unwrap().insert(SHOP, bytes).unwrap());
        write_directly(&folder.path().join("teal.redb"), put);
        let error = Store::open(folder.path()).unwrap().load().unwrap_err().to_string();
        assert!(error.contains("service shop") && error.contains(says), "{error}");
    }
}

#[test]
fn after_an_io_error_the_file_is_opened_again() {
    let disk = Disk::new();
    drop(Store::with_backend(disk.backend()).unwrap());
    let mut store = Store::on_disk(&disk).unwrap();
    store.commit(&Batch::new().settle(SHOP, fresh())).unwrap();
    let mut state = fresh();
    state.give("green", percent(5));
    let batch = Batch::new().settle(SHOP, state.clone());
    disk.die_after(0);
    let error = store.commit(&batch).unwrap_err();
    assert!(matches!(error, StoreError::Disk { .. }) && error.retry_is_safe(), "{error}");
    assert!(store.commit(&batch).is_err());
    disk.recover();
    store.commit(&batch).unwrap();
    assert_eq!(shop(&store.load().unwrap()), &state);
}

/// The script of the crash test: what happens to one service, as the controller would do it.
struct Script<'a> {
    store: &'a mut Store,
    /// Every state that was or may have become the settled one: the last element is the newest told.
    acknowledged: ServiceState,
    /// What a crash may also show: published and journalled, not yet told.
    underway: Option<ServiceState>,
}

impl Script<'_> {
    fn play(&mut self) -> Result<(), StoreError> {
        self.forward(1)?;
        self.forward(5)?;
        self.forward(25)?;
        self.back("r1")?;
        self.forward(1)?;
        self.store.commit(&Batch::new().evidence(SHOP, vec![7; 5_000]))?;
        self.forward(50)?;
        let mut promoted = self.acknowledged.clone();
        promoted.activate("green");
        promoted.rollout = None;
        self.advance(promoted, Some(finished("r2")))
    }

    fn forward(&mut self, share: u16) -> Result<(), StoreError> {
        let mut next = self.acknowledged.clone();
        next.give("green", percent(share));
        let mut rollout = rollout("r");
        rollout.applied = percent(share);
        rollout.phase = Phase::Analyzing;
        next.rollout = Some(rollout);
        self.advance(next, None)
    }

    fn advance(&mut self, next: ServiceState, end: Option<Finished>) -> Result<(), StoreError> {
        self.store.commit(&Batch::new().intent(SHOP, next.clone()))?;
        // Here it is published and every worker acknowledges.
        self.underway = Some(next.clone());
        let settle = Batch::new().settle(SHOP, next.clone());
        self.store.commit(&end.into_iter().fold(settle, Batch::finish))?;
        self.told(next);
        Ok(())
    }

    fn back(&mut self, id: &str) -> Result<(), StoreError> {
        let mut next = self.acknowledged.clone();
        next.give("green", Share::NONE);
        next.rolled_back.insert("green".to_owned());
        next.rollout = None;
        // Published first: the caller waits, the traffic does not.
        self.underway = Some(next.clone());
        self.store.commit(&Batch::new().settle(SHOP, next.clone()).finish(finished(id)))?;
        self.told(next);
        Ok(())
    }

    fn told(&mut self, next: ServiceState) {
        self.acknowledged = next;
        self.underway = None;
    }
}

/// Plays the script on a disk that dies after `operations`; `None` once it outlives the script.
fn play_until(operations: u64) -> (Disk, ServiceState, Option<ServiceState>, bool) {
    let disk = Disk::new();
    let mut store = Store::with_backend(disk.backend()).unwrap();
    store.commit(&Batch::new().settle(SHOP, fresh())).unwrap();
    disk.die_after(operations);
    let mut script = Script { store: &mut store, acknowledged: fresh(), underway: None };
    let finished = script.play().is_ok();
    let Script { acknowledged, underway, .. } = script;
    // A killed process does not close its store.
    if !disk.is_dead() {
        disk.die_after(0);
    }
    drop(store);
    (disk, acknowledged, underway, finished)
}

#[test]
fn a_crash_at_any_operation_resumes_what_was_acknowledged_or_something_safer() {
    let seeds = [1, 2, 3].map(Kept::Some);
    let ways = [Kept::None, Kept::All, Kept::Prefix(333), Kept::Prefix(700)].into_iter().chain(seeds);
    let ways: Vec<Kept> = ways.collect();
    let mut points = 0;
    loop {
        let (disk, acknowledged, underway, finished) = play_until(points);
        for way in &ways {
            let at = format!("operation {points}, {way:?}");
            let mut store = Store::with_backend(disk.survivor(*way).backend()).unwrap_or_else(|e| panic!("{at}: {e}"));
            let loaded = store.load().unwrap_or_else(|error| panic!("{at}: {error}"));
            let state = shop(&loaded);
            assert!(*state == acknowledged || Some(state) == underway.as_ref(), "{at}: {state:?}");
            // What is underway was acknowledged by every worker, or is a rollback: both are safe to show.
            store.commit(&Batch::new().settle(SHOP, fresh())).unwrap_or_else(|error| panic!("{at}: {error}"));
        }
        if finished {
            break;
        }
        points += 1;
    }
    assert!(points > 50, "the script is too short to mean anything: {points} operations");
}

#[test]
fn a_second_crash_inside_the_recovery_from_the_first_loses_nothing() {
    for first in (0..60).step_by(7) {
        let (disk, acknowledged, underway, _) = play_until(first);
        for second in 0.. {
            let survivor = disk.survivor(Kept::Some(first));
            survivor.die_after(second);
            let recovered = Store::with_backend(survivor.backend()).is_ok();
            let at = format!("operations {first} and {second}");
            let again = survivor.survivor(Kept::Some(second));
            let mut store = Store::with_backend(again.backend()).unwrap_or_else(|error| panic!("{at}: {error}"));
            let loaded = store.load().unwrap_or_else(|error| panic!("{at}: {error}"));
            let state = shop(&loaded);
            assert!(*state == acknowledged || Some(state) == underway.as_ref(), "{at}: {state:?}");
            if recovered && !survivor.is_dead() {
                break;
            }
        }
    }
}

#[test]
fn a_commit_costs_one_sync() {
    let disk = Disk::new();
    let mut store = Store::with_backend(disk.backend()).unwrap();
    store.commit(&Batch::new().settle(SHOP, fresh())).unwrap();
    let before = disk.syncs();
    for _ in 0..10 {
        store.commit(&Batch::new().intent(SHOP, fresh())).unwrap();
    }
    assert_eq!(disk.syncs() - before, 10);
}

#[tokio::test]
async fn a_journal_answers_after_the_write_and_closes_once() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::spawn(Store::open(folder.path()).unwrap()).unwrap();
    let other = journal.clone();
    journal.write(Batch::new().settle(SHOP, fresh()).finish(finished("r1"))).await.unwrap();
    assert_eq!(other.history(SHOP, 9).await.unwrap(), [finished("r1")]);
    assert_eq!(other.rollout("r1").await.unwrap(), Some(finished("r1")));
    assert!(other.write_later(Batch::new().evidence(SHOP, vec![1])));
    other.close().await;
    journal.close().await;
    assert!(matches!(journal.write(Batch::new()).await, Err(StoreError::Closed)));
    assert!(!journal.write_later(Batch::new()));
    // The file is free again, and what was queued before the close is in it.
    let loaded = Store::open(folder.path()).unwrap().load().unwrap();
    assert_eq!((shop(&loaded), &loaded.evidence[SHOP]), (&fresh(), &vec![1]));
}

#[tokio::test]
async fn a_full_queue_refuses_evidence_instead_of_waiting() {
    let gate = Arc::new(AtomicBool::new(false));
    let (started, held) = std::sync::mpsc::channel();
    let waiting = Arc::clone(&gate);
    // A store that was closed by an error opens again first, and here that takes as long as we want.
    let reopen: Reopen = Box::new(move || {
        started.send(()).unwrap();
        while !waiting.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        file::open_backend(redb::backends::InMemoryBackend::new(), "memory")
    });
    let store = Store { place: "memory".to_owned(), database: None, reopen: Some(reopen), is_released: false };
    let journal = Journal::spawn(store).unwrap();
    assert!(journal.write_later(Batch::new().evidence(SHOP, vec![0])));
    held.recv().unwrap();
    let queued = (0..1_000).take_while(|_| journal.write_later(Batch::new().evidence(SHOP, vec![1]))).count();
    gate.store(true, Ordering::Release);
    assert_eq!(queued, 256);
    journal.close().await;
}

prop_compose! {
    fn shares()(points in 0u16..=10_000) -> Share { Share::from_basis_points(points).unwrap() }
}

fn steps() -> impl Strategy<Value = Step> {
    let millis = || any::<u32>().prop_map(|ms| Duration::from_millis(ms.into()));
    prop_oneof![
        shares().prop_map(Step::Weight),
        (millis(), proptest::option::of(millis())).prop_map(|(dwell, deadline)| Step::Analyze { dwell, deadline }),
        millis().prop_map(|time| Step::Pause(Pause::For(time))),
        Just(Step::Pause(Pause::UntilApproved)),
    ]
}

fn phases() -> impl Strategy<Value = Phase> {
    let ends = || prop::sample::select(vec![End::Promoted, End::RolledBack, End::Aborted]);
    let causes = [Cause::Advised, Cause::Breaker, Cause::Inconclusive, Cause::Paused, Cause::Failed, Cause::Restarted];
    prop_oneof![
        prop::sample::select(vec![Phase::Ready, Phase::Analyzing, Phase::Waiting, Phase::Promoting]),
        shares().prop_map(|share| Phase::Applying { share }),
        prop::sample::select(causes.to_vec()).prop_map(Phase::Held),
        ends().prop_map(Phase::RollingBack),
        ends().prop_map(Phase::Ended),
    ]
}

prop_compose! {
    fn rollouts()(
        texts in prop::array::uniform7(".{0,8}"), steps in prop::collection::vec(steps(), 1..8), hold: bool,
        started_at: u64, phase in phases(), step in 0usize..9, applied in shares(),
    ) -> Rollout {
        let [id, service, baseline, canary, started_by, verdict, reason] = texts;
        let step = step.min(steps.len());
        let on_inconclusive = if hold { OnInconclusive::Hold } else { OnInconclusive::Rollback };
        let plan = Plan { steps, on_inconclusive };
        let order = Order { id, service, baseline, canary, plan, started_by, started_at: UnixMillis(started_at) };
        Rollout { order, phase, step, applied, entered: Millis(0), approved: false, verdict, reason }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(rollout in proptest::option::of(rollouts()), share in shares(), epoch: u64, salt: u64) {
        let mut state = fresh();
        state.give("green", share);
        state.rolled_back.insert("green".to_owned());
        state = ServiceState { epoch, salt, rollout: rollout.clone(), ..state };
        prop_assert_eq!(record::decode_state(&record::encode_state(&state)), Ok(state));
        if let Some(rollout) = rollout {
            let finished = Finished { rollout, ended_at: UnixMillis(salt) };
            prop_assert_eq!(record::decode_finished(&record::encode_finished(&finished)), Ok(finished));
        }
    }

    #[test]
    fn any_bytes_as_a_record_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(record::decode_state(&bytes).is_err() && record::decode_finished(&bytes).is_err());
    }

    #[test]
    fn any_bytes_as_the_file_are_an_error(bytes in prop::collection::vec(any::<u8>(), 1..20_000), magic: bool) {
        let mut bytes = bytes;
        if magic {
            bytes.splice(0..0, *b"redb\x1A\x0A\xA9\x0D\x0A");
        }
        prop_assert!(Store::with_backend(Disk::holding(bytes).backend()).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_damaged_file_is_an_error_or_still_right(at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let disk = Disk::new();
        let mut store = Store::with_backend(disk.backend()).unwrap();
        store.commit(&Batch::new().settle(SHOP, fresh()).evidence(SHOP, vec![7; 9_000])).unwrap();
        drop(store);
        let mut bytes = disk.bytes();
        // Half of the damage falls on the first pages, where everything is, the rest anywhere.
        for (index, byte) in at {
            let span = if byte % 2 == 0 { 65_536.min(bytes.len()) } else { bytes.len() };
            let place = index.index(span);
            bytes[place] ^= byte | 1;
        }
        if let Ok(mut store) = Store::with_backend(Disk::holding(bytes).backend())
            && let Ok(loaded) = store.load()
        {
            prop_assert!(loaded.services.get(SHOP).is_none_or(|state| *state == fresh()));
        }
    }
}
