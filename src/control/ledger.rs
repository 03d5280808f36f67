//! The judge's ledger: its evidence on every canary, kept in the store so that a restart does not spend alpha
//! again.
//!
//! The evidence on all canaries of a service is one record of the store. What an earlier process left is handed
//! out once, and only to the comparison it came from: a canary against another baseline starts anew. Until
//! then it is written back unchanged beside newer records, so a crash right after a restart loses nothing.
//!
//! Invariant: evidence that cannot be read is no evidence; it is dropped with a warning, never guessed at.

mod record;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::control::store::{Batch, Journal};
use crate::domain::analysis::State;

/// The evidence on one canary.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseRecord {
    /// The service.
    pub service: String,
    /// The pool under judgement.
    pub canary: String,
    /// The pool it is compared with.
    pub baseline: String,
    /// What the comparator knows.
    pub state: State,
}

/// The evidence of all services, as it is in the store or on its way there.
pub struct Ledger {
    journal: Journal,
    services: BTreeMap<String, Page>,
    /// Services whose last write the journal refused.
    refused: BTreeSet<String>,
}

/// One service's record.
#[derive(Default)]
struct Page {
    cases: BTreeMap<String, Case>,
    written: Vec<u8>,
}

/// What is known of one canary.
struct Case {
    baseline: String,
    state: State,
    /// Of an earlier process, and not handed out yet.
    inherited: bool,
}

impl Ledger {
    /// A ledger that continues from `evidence`, the bytes that the store loaded for each service.
    pub fn new(journal: Journal, evidence: BTreeMap<String, Vec<u8>>) -> Ledger {
        let services = evidence.into_iter().map(|(service, written)| {
            let cases = record::decode(&written).unwrap_or_else(|error| {
                tracing::warn!(%service, %error, "stored evidence is unreadable and starts anew");
                BTreeMap::new()
            });
            (service, Page { cases, written })
        });
        Ledger { journal, services: services.collect(), refused: BTreeSet::new() }
    }

    /// What an earlier process knew of this comparison; handed out once.
    pub fn recall(&mut self, service: &str, canary: &str, baseline: &str) -> Option<State> {
        let case = self.services.get_mut(service)?.cases.get_mut(canary)?;
        let known = case.inherited && case.baseline == baseline;
        known.then(|| {
            case.inherited = false;
            case.state.clone()
        })
    }

    /// Keeps what is known now, in place of what was.
    pub fn record(&mut self, record: CaseRecord) {
        let CaseRecord { service, canary, baseline, state } = record;
        let page = self.services.entry(service.clone()).or_default();
        page.cases.insert(canary, Case { baseline, state, inherited: false });
        self.write(&service);
    }

    /// Drops what is known of a canary: its comparison is over.
    pub fn forget(&mut self, service: &str, canary: &str) {
        if let Some(page) = self.services.get_mut(service) {
            page.cases.remove(canary);
        }
        self.write(service);
    }

    /// Drops what is known of every canary (service and pool) that `wanted` does not name: its comparison ended
    /// before this could be written, and must not speak in a later one.
    pub fn keep(&mut self, wanted: impl Fn(&str, &str) -> bool) {
        for (service, page) in &mut self.services {
            page.cases.retain(|canary, _| wanted(service, canary));
        }
        let services: Vec<String> = self.services.keys().cloned().collect();
        services.iter().for_each(|service| self.write(service));
    }

    /// Sends a service's record to the journal, and those that it refused before.
    fn write(&mut self, service: &str) {
        self.refused.insert(service.to_owned());
        let Ledger { journal, services, refused } = self;
        refused.retain(|service| match services.entry(service.clone()) {
            Entry::Occupied(mut page) => !page.get_mut().write(service, journal),
            Entry::Vacant(_) => false,
        });
    }
}

impl Page {
    /// True once the journal has the record.
    fn write(&mut self, service: &str, journal: &Journal) -> bool {
        let bytes = if self.cases.is_empty() { Vec::new() } else { record::encode(&self.cases) };
        if bytes == self.written {
            return true;
        }
        let taken = journal.write_later(Batch::new().evidence(service, bytes.clone()));
        if taken {
            self.written = bytes;
        }
        taken
    }
}

#[cfg(test)]
mod tests;
