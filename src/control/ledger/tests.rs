//! Tests of the ledger, through a store on disk.

use super::*;
use crate::control::store::Store;
use crate::domain::analysis::{Arm, Block, Comparator, MARKS, Policy, Units};

/// A block of one tick, different at each.
fn block(tick: u32) -> Block {
    let arm = |n: u32, bad: u32| Arm { errors: Units { n, bad }, slow: [Units { n, bad: bad + tick % 3 }; MARKS] };
    Block { canary: arm(7 + tick % 5, tick % 2), baseline: arm(31 + tick % 11, u32::from(tick.is_multiple_of(7))) }
}

fn advance(comparator: &mut Comparator, ticks: std::ops::Range<u32>) {
    for tick in ticks {
        comparator.observe(u64::from(tick / 50), &block(tick));
        // Too little to close: open blocks of other epochs stay in the state.
        let single = Arm { errors: Units { n: 1, bad: 0 }, ..Arm::default() };
        comparator.observe(1_000 + u64::from(tick % 3), &Block { canary: single, ..Block::default() });
        if tick.is_multiple_of(50) {
            comparator.weight_step(u64::from(tick / 50));
        }
        comparator.tick();
    }
}

/// A comparator whose every field has been in use.
fn busy() -> Comparator {
    let mut comparator = Comparator::new(Policy::default());
    advance(&mut comparator, 0..137);
    let state = comparator.state();
    assert!(state.step.is_some() && !state.open.is_empty() && state.max > 1.0, "{state:?}");
    comparator
}

fn record(canary: &str, baseline: &str, state: &State) -> CaseRecord {
    let (service, canary, baseline) = ("shop".to_owned(), canary.to_owned(), baseline.to_owned());
    CaseRecord { service, canary, baseline, state: state.clone() }
}

/// Runs `work` on a ledger over a store in `folder`; returns what it left there for `shop`.
async fn session(folder: &std::path::Path, work: impl FnOnce(&mut Ledger)) -> Vec<u8> {
    let mut store = Store::open(folder).unwrap();
    let evidence = store.load().unwrap().evidence;
    let journal = Journal::spawn(store).unwrap();
    work(&mut Ledger::new(journal.clone(), evidence));
    journal.close().await;
    Store::open(folder).unwrap().load().unwrap().evidence.remove("shop").unwrap_or_default()
}

/// A ledger over `bytes` for `shop`, without a disk.
fn ledger(bytes: &[u8]) -> Ledger {
    let journal = Journal::spawn(Store::ephemeral().unwrap()).unwrap();
    Ledger::new(journal, BTreeMap::from([("shop".to_owned(), bytes.to_vec())]))
}

#[tokio::test]
async fn a_restart_continues_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    let mut unbroken = busy();
    session(folder.path(), |ledger| ledger.record(record("green", "blue", &unbroken.state()))).await;
    session(folder.path(), |ledger| {
        let state = ledger.recall("shop", "green", "blue").expect("recorded");
        assert_eq!(state, unbroken.state());
        let mut resumed = Comparator::resume(Policy::default(), state).expect("sound");
        advance(&mut unbroken, 137..400);
        advance(&mut resumed, 137..400);
        let bits = |comparator: &Comparator| comparator.state().errors.map(f64::to_bits);
        assert_eq!((resumed.state(), bits(&resumed)), (unbroken.state(), bits(&unbroken)));
    })
    .await;
}

#[test]
fn every_mass_comes_back_to_the_last_bit() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..2_000 {
        let mut state = State { max: 1e200, ..State::default() };
        let odd = |_: f64| f64::from_bits(random.u64(..0x6974_0000_0000_0000));
        state.errors = state.errors.map(odd);
        let case = Case { baseline: "blue".into(), state, inherited: false };
        let errors = case.state.errors;
        let back = record::decode(&record::encode(&BTreeMap::from([("green".to_owned(), case)]))).unwrap();
        assert_eq!(back["green"].state.errors.map(f64::to_bits), errors.map(f64::to_bits));
    }
}

#[tokio::test]
async fn evidence_is_handed_out_once_and_only_to_its_own_comparison() {
    let folder = tempfile::tempdir().unwrap();
    let state = busy().state();
    let bytes = session(folder.path(), |ledger| ledger.record(record("green", "blue", &state))).await;
    let mut ledger = ledger(&bytes);
    let strangers = [("shop", "green", "red"), ("shop", "red", "blue"), ("cart", "green", "blue")];
    for (service, canary, baseline) in strangers {
        assert_eq!(ledger.recall(service, canary, baseline), None, "{service} {canary} {baseline}");
    }
    assert_eq!(ledger.recall("shop", "green", "blue"), Some(state.clone()));
    assert_eq!(ledger.recall("shop", "green", "blue"), None);
    ledger.record(record("green", "blue", &state));
    assert_eq!(ledger.recall("shop", "green", "blue"), None, "a process has no need of its own records");
}

#[tokio::test]
async fn canaries_of_one_service_live_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let state = busy().state();
    session(folder.path(), |ledger| {
        ledger.record(record("green", "blue", &state));
        ledger.record(record("red", "blue", &state));
    })
    .await;
    // The next process meets one of them only; the other one's evidence must not be lost by that.
    session(folder.path(), |ledger| ledger.record(record("red", "blue", &State::default()))).await;
    let bytes = session(folder.path(), |ledger| {
        assert_eq!(ledger.recall("shop", "green", "blue"), Some(state));
        assert_eq!(ledger.recall("shop", "red", "blue"), Some(State::default()));
        ledger.forget("shop", "green");
    })
    .await;
    assert_eq!(record::decode(&bytes).unwrap().into_keys().collect::<Vec<_>>(), ["red"]);
    let bytes = session(folder.path(), |ledger| ledger.forget("shop", "red")).await;
    assert!(bytes.is_empty());
}

#[tokio::test]
async fn foreign_and_damaged_bytes_are_no_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = session(folder.path(), |ledger| ledger.record(record("green", "blue", &busy().state()))).await;
    let text = String::from_utf8(bytes.clone()).unwrap();
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    assert_ne!(newer, text);
    let damaged: [&[u8]; 6] =
        [b"", b"\x00\xff", b"{}", b"{\"version\":1}", newer.as_bytes(), &bytes[..bytes.len() / 2]];
    for bytes in damaged {
        let mut ledger = ledger(bytes);
        assert_eq!(ledger.recall("shop", "green", "blue"), None, "{:?}", String::from_utf8_lossy(bytes));
    }
    assert!(ledger(&bytes).recall("shop", "green", "blue").is_some());
}

#[test]
fn the_same_record_is_written_once() {
    let journal = Journal::spawn(Store::ephemeral().unwrap()).unwrap();
    let mut page = Page::default();
    page.cases.insert("green".into(), Case { baseline: "blue".into(), state: State::default(), inherited: false });
    assert!(page.write("shop", &journal));
    close(&journal);
    assert!(page.write("shop", &journal), "nothing new, so a closed journal does not matter");
    page.cases.clear();
    assert!(!page.write("shop", &journal), "this is new, and the journal is closed");
    let mut ledger = Ledger { journal, services: BTreeMap::from([("shop".into(), page)]), refused: BTreeSet::new() };
    ledger.forget("cart", "green");
    ledger.forget("shop", "green");
    assert_eq!(ledger.refused, BTreeSet::from(["shop".to_owned()]), "kept, to be tried again");
}

fn close(journal: &Journal) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(journal.close());
}
