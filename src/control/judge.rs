//! The judge: a thread that reads what the workers counted and acts when a canary is worse.
//!
//! It looks every [`TICK`] at every service whose traffic is shared between pools, whoever shared it (Decisions 6).
//! Each canary is a *case* with a comparator of its own; a case begins when the pool first gets a share and ends
//! when it has none left or is the active one, so alpha is spent per rollout, not per step. What its last requests
//! turn out to be after that concerns nobody: a canary that is given traffic again is a new case at once. When a case is proven, the judge itself
//! publishes the rollback: no queue, no disk and no other thread stands between the evidence and the swap.
//!
//! Invariant: every pool that shares traffic beside the active one has a case, and no other pool has.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::bridge::table::{Plane, Service};
use crate::clock::{self, Micros};
use crate::config::settings::Guard;
use crate::control::case::Case;
use crate::control::driver::Command;
use crate::control::ledger::{CaseRecord, Ledger};
use crate::control::publisher::{Published, Publisher};
use crate::domain::analysis::{Approval, Evidence, Finding, Marks, Policy};

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
    cases: HashMap<(String, String), Opened>,
    ticks: u64,
}

/// A case and what the judge made of it.
struct Opened {
    case: Case,
    /// The pool the canary is compared with.
    baseline: String,
    closed: Option<Closed>,
}

/// The finding was acted upon; a case speaks once.
#[derive(Clone, Copy)]
struct Closed {
    /// The epoch of the rollback, if the guard rolled back: later ones are not this case's.
    reverted: Option<u64>,
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
                service.is_some_and(|service| canary_named(service, canary).is_some())
            });
        }
        for service in &table.services {
            for canary in canaries(service) {
                self.open(service, canary);
            }
        }
        let mut views = BTreeMap::new();
        let mut over = Vec::new();
        for ((name, canary), opened) in &mut self.cases {
            let service = table.services.iter().find(|service| service.settings.name == *name);
            let sharing = service.and_then(|service| Some((service, canary_named(service, canary)?)));
            let Some((service, pool)) = sharing else {
                over.push((name.clone(), canary.clone()));
                continue;
            };
            let case = &mut opened.case;
            case.follow(&service.book, service.pools.len(), pool, self.workers, table.version);
            let past = &service.pools[service.active].tally;
            let finding = case.look(|version| self.plane.roster.has_seen(version), past);
            if let Some(finding) = finding.filter(|_| opened.closed.is_none()) {
                let marks = case.book().and_then(|book| book.marks());
                let sentence = sentence(service, canary, &finding, marks, &self.publisher);
                opened.closed = Some(Closed { reverted: sentence.published.map(|published| published.epoch) });
                let _ = self.commands.send(Command::Worse(sentence));
            }
            let view = view(service, canary, case);
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
        if let Some(opened) = self.cases.get(&key) {
            // Rolled back and given traffic again, or the active pool changed, between two looks.
            let reverted = opened.closed.and_then(|closed| closed.reverted).is_some_and(|at| service.epoch > at);
            if !reverted && opened.baseline == *baseline {
                return;
            }
            self.ledger.forget(name, canary);
        }
        let known = self.ledger.recall(name, canary, baseline);
        let case = Case::new(policy_of(service), known);
        self.cases.insert(key, Opened { case, baseline: baseline.clone(), closed: None });
    }

    fn record(&mut self, now: bool) {
        if !now && !self.ticks.is_multiple_of(RECORD_EVERY) {
            return;
        }
        for ((service, canary), opened) in &self.cases {
            self.ledger.record(CaseRecord {
                service: service.clone(),
                canary: canary.clone(),
                baseline: opened.baseline.clone(),
                state: opened.case.state(),
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

fn canary_named(service: &Service, name: &str) -> Option<usize> {
    canaries(service).find(|pool| service.pools[*pool].name == name)
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

fn view(service: &Service, canary: &str, case: &Case) -> View {
    View {
        canary: canary.to_owned(),
        baseline: service.pools[service.active].name.clone(),
        epoch: service.epoch,
        evidence: case.evidence(),
        approval: case.approval(),
    }
}
