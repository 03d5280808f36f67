//! The judge: a thread that reads what the workers counted and acts when a canary is worse.
//!
//! It looks every [`TICK`] at every service whose traffic is shared between pools, whoever shared it (Decisions 6).
//! Each canary is a *case* with a comparator of its own; a case begins when the pool first gets a share and ends
//! when it has none left or is the active one, so alpha is spent per rollout, not per step. What its last requests
//! turn out to be after that concerns nobody: a canary that is given traffic again is a new case at once. When a case is proven, the judge itself
//! publishes the rollback: no queue, no disk and no other thread stands between the evidence and the swap.
//!
//! Invariant: counts of different weight epochs never share a block, and each is read until its last request ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::bridge::observations::{Book, Reader, latency_of};
use crate::bridge::table::{Plane, Service, Table};
use crate::clock::{self, Micros};
use crate::config::settings::Guard;
use crate::control::driver::Command;
use crate::control::ledger::{CaseRecord, Ledger};
use crate::control::publisher::{Published, Publisher};
use crate::domain::analysis::{Approval, Block, Comparator, Evidence, Finding, Marks, Policy};

/// The judge's tick (Decisions 19).
pub const TICK: Duration = Duration::from_millis(100);
/// Ticks between two entries of a case in the ledger.
const RECORD_EVERY: u64 = 10;

/// What the judge says of one canary now.
#[derive(Clone, Debug)]
pub struct View {
    /// The pool under judgement.
    pub canary: String,
    /// The pool it is compared with.
    pub baseline: String,
    /// The weight epoch that approval counts.
    pub epoch: u64,
    /// What speaks against the canary.
    pub evidence: Evidence,
    /// What speaks for it.
    pub approval: Approval,
}

/// The judge's views by service; of several canaries the one with most against it.
pub type Views = Arc<Mutex<BTreeMap<String, View>>>;

/// The judge found a canary worse.
#[derive(Clone, Debug)]
pub struct Sentence {
    /// The service.
    pub service: String,
    /// The canary.
    pub canary: String,
    /// Why, with numbers.
    pub text: String,
    /// When it was decided.
    pub decided: Micros,
    /// What the judge published at once; `None` if the guard does not roll back.
    pub published: Option<Published>,
    /// What the guard asks for.
    pub guard: Guard,
}

/// The judge and its cases.
pub struct Judge {
    plane: Arc<Plane>,
    publisher: Arc<Publisher>,
    views: Views,
    commands: UnboundedSender<Command>,
    ledger: Ledger,
    workers: usize,
    cases: HashMap<(String, String), Case>,
    ticks: u64,
}

struct Case {
    comparator: Comparator,
    watched: Vec<Watched>,
    /// The pool it is compared with.
    baseline: String,
    closed: Option<Closed>,
}

/// The finding was acted upon; a case speaks once.
#[derive(Clone, Copy)]
struct Closed {
    /// The epoch of the rollback, if the guard rolled back: later ones are not this case's.
    reverted: Option<u64>,
}

/// A book being read.
struct Watched {
    book: Arc<Book>,
    reader: Reader,
    canary: usize,
    baseline: usize,
    /// The first table without it.
    replaced_by: Option<u64>,
}

impl Judge {
    /// A judge without cases; `ledger` holds the evidence of an earlier process.
    pub fn new(
        plane: Arc<Plane>,
        publisher: Arc<Publisher>,
        views: Views,
        commands: UnboundedSender<Command>,
        ledger: Ledger,
        workers: usize,
    ) -> Judge {
        Judge { plane, publisher, views, commands, ledger, workers, cases: HashMap::new(), ticks: 0 }
    }

    /// Runs on a thread of its own until `stop` is set.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn spawn(mut self, stop: Arc<AtomicBool>) -> std::io::Result<JoinHandle<()>> {
        let run = move || {
            while !stop.load(SeqCst) {
                std::thread::park_timeout(TICK);
                self.tick();
            }
            self.record(true);
        };
        std::thread::Builder::new().name("judge".into()).spawn(run)
    }

    /// One look at every service.
    pub fn tick(&mut self) {
        self.ticks += 1;
        let table = self.plane.table.load_full();
        if self.ticks == 1 {
            self.ledger.keep(|name, canary| {
                let service = table.services.iter().find(|service| service.settings.name == name);
                service.is_some_and(|service| is_canary(service, canary))
            });
        }
        for service in &table.services {
            for canary in canaries(service) {
                self.open(service, canary);
            }
        }
        let mut views = BTreeMap::new();
        let mut over = Vec::new();
        for ((name, canary), case) in &mut self.cases {
            let service = table.services.iter().find(|service| service.settings.name == *name);
            let Some(service) = service.filter(|service| is_canary(service, canary)) else {
                over.push((name.clone(), canary.clone()));
                continue;
            };
            case.follow(service, &table, canary, self.workers);
            let finding = case.look(&self.plane, service);
            if let Some(finding) = finding.filter(|_| case.closed.is_none()) {
                let marks = case.watched.last().and_then(|last| last.book.marks());
                let sentence = sentence(service, canary, &finding, marks, &self.publisher);
                case.closed = Some(Closed { reverted: sentence.published.map(|published| published.epoch) });
                let _ = self.commands.send(Command::Worse(sentence));
            }
            let view = case.view(service, canary);
            let shown = views.get(name).is_none_or(|other: &View| other.evidence.now < view.evidence.now);
            if shown {
                views.insert(name.clone(), view);
            }
        }
        for case in over {
            self.cases.remove(&case);
            self.ledger.forget(&case.0, &case.1);
        }
        *self.views.lock().unwrap_or_else(PoisonError::into_inner) = views;
        self.record(false);
    }

    /// Opens a case for a canary, unless the one there is still about the same comparison.
    fn open(&mut self, service: &Service, canary: usize) {
        let (name, canary) = (&service.settings.name, &service.pools[canary].name);
        let baseline = &service.pools[service.active].name;
        let key = (name.clone(), canary.clone());
        if let Some(case) = self.cases.get(&key) {
            // Rolled back and given traffic again, or the active pool changed, between two looks.
            let reverted = case.closed.and_then(|closed| closed.reverted).is_some_and(|at| service.epoch > at);
            if !reverted && case.baseline == *baseline {
                return;
            }
            self.ledger.forget(name, canary);
        }
        let policy = policy_of(service);
        let known = self.ledger.recall(name, canary, baseline).and_then(|state| {
            let resumed = Comparator::resume(policy.clone(), state);
            resumed.inspect_err(|error| tracing::warn!(service = %name, %error, "evidence starts anew")).ok()
        });
        let comparator = known.unwrap_or_else(|| Comparator::new(policy));
        let case = Case { comparator, watched: Vec::new(), baseline: baseline.clone(), closed: None };
        self.cases.insert(key, case);
    }

    fn record(&mut self, now: bool) {
        if !now && !self.ticks.is_multiple_of(RECORD_EVERY) {
            return;
        }
        for ((service, canary), case) in &self.cases {
            self.ledger.record(CaseRecord {
                service: service.clone(),
                canary: canary.clone(),
                baseline: case.baseline.clone(),
                state: case.comparator.state(),
            });
        }
    }
}

/// Pools beside the active one that get traffic by the split.
fn canaries(service: &Service) -> impl Iterator<Item = usize> {
    let watched = service.settings.guard != Guard::Off && service.settings.pools.len() > 1;
    let shares = service.split.iter().enumerate().filter(move |_| watched);
    shares.filter(|(pool, slot)| *pool != service.active && !slot.share.is_none()).map(|(pool, _)| pool)
}

fn is_canary(service: &Service, name: &str) -> bool {
    canaries(service).any(|pool| service.pools[pool].name == name)
}

/// The service's policy; with more than one possible canary they share alpha (a union bound).
fn policy_of(service: &Service) -> Policy {
    let policy = service.settings.analysis.clone();
    let others = service.settings.pools.len().saturating_sub(1).max(1);
    Policy { alpha: policy.alpha / others as f64, ..policy }
}

fn sentence(
    service: &Service,
    canary: &str,
    finding: &Finding,
    marks: Option<&Marks>,
    publisher: &Publisher,
) -> Sentence {
    let decided = clock::now();
    let name = &service.settings.name;
    let guard = service.settings.guard;
    let published = (guard == Guard::Rollback).then(|| publisher.revert(name)).flatten();
    let baseline = &service.pools[service.active].name;
    let text = finding.sentence(canary, baseline, marks);
    Sentence { service: name.clone(), canary: canary.to_owned(), text, decided, published, guard }
}

impl Case {
    /// Takes up the service's present book, if it is a new one.
    fn follow(&mut self, service: &Service, table: &Table, canary: &str, workers: usize) {
        if self.watched.last().is_some_and(|last| Arc::ptr_eq(&last.book, &service.book)) {
            return;
        }
        if let Some(last) = self.watched.last_mut() {
            last.replaced_by = Some(table.version);
        }
        let Some(canary) = service.pool_named(canary) else { return };
        self.comparator.weight_step(service.epoch);
        self.watched.push(Watched {
            book: Arc::clone(&service.book),
            reader: Reader::new(service.pools.len(), workers),
            canary,
            baseline: service.active,
            replaced_by: None,
        });
    }

    /// Reads all books and moves the evidence on by one tick.
    fn look(&mut self, plane: &Plane, service: &Service) -> Option<Finding> {
        let comparator = &mut self.comparator;
        self.watched.retain_mut(|watched| {
            // Asked before reading: what ends in between is read now, not lost.
            let over =
                watched.replaced_by.is_some_and(|table| plane.roster.has_seen(table) && watched.book.open() == 0);
            let arms = watched.reader.take(&watched.book);
            let block = Block { canary: arms[watched.canary], baseline: arms[watched.baseline] };
            comparator.observe(watched.book.epoch, &block);
            if over {
                comparator.retire(watched.book.epoch);
            }
            !over
        });
        let finding = comparator.tick();
        if let Some(last) = self.watched.last().filter(|last| last.book.marks().is_none()) {
            let past = latency_of(&service.pools[last.baseline].tally);
            if let Some(marks) = Marks::learn(&past, &service.settings.analysis) {
                last.book.learned(marks);
            }
        }
        finding
    }

    fn view(&self, service: &Service, canary: &str) -> View {
        View {
            canary: canary.to_owned(),
            baseline: service.pools[service.active].name.clone(),
            epoch: service.epoch,
            evidence: self.comparator.evidence(),
            approval: self.comparator.approval(),
        }
    }
}
