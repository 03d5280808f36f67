//! Injected faults in the table: put in, and taken out.
//!
//! Invariant: no epoch changes, since a drill is judged by the split that is.

use std::sync::Arc;

use super::{Publisher, find};
use crate::bridge::injection::{self, Faults};
use crate::bridge::table::Service;
use crate::domain::injection::Injection;

impl Publisher {
    /// Injects these faults into a service in place of those that are there, whose names are given back with the table's
    /// version. `None` if there is no such service.
    pub fn inject(&self, name: &str, faults: Vec<Injection>) -> Option<(u64, Vec<String>)> {
        let mut inner = self.lock();
        let before = self.plane.table.load_full();
        let (index, known) = find(&before, name)?;
        let ended = known.faults.iter().map(|live| live.injection.name.clone()).collect();
        let faults = faults.into_iter().map(|fault| Arc::new(injection::Live::new(fault, self.workers))).collect();
        let published = self.replace(&mut inner, &before, index, with_faults(known, faults));
        Some((published.version, ended))
    }

    /// Takes out the faults that are over at `now` (microseconds): service and name of each.
    pub fn end_injections(&self, now: u64) -> Vec<(String, String)> {
        let is_over = |live: &Arc<injection::Live>| live.injection.is_over(now);
        // Looked at without the lock, since there is hardly ever anything.
        if !self.plane.table.load().services.iter().any(|service| service.faults.iter().any(is_over)) {
            return Vec::new();
        }
        let mut inner = self.lock();
        let mut ended = Vec::new();
        let count = self.plane.table.load().services.len();
        for index in 0..count {
            let before = self.plane.table.load_full();
            let known = &before.services[index];
            let (over, kept): (Vec<_>, Vec<_>) = known.faults.iter().cloned().partition(is_over);
            if over.is_empty() {
                continue;
            }
            ended.extend(over.iter().map(|live| (known.settings.name.clone(), live.injection.name.clone())));
            self.replace(&mut inner, &before, index, with_faults(known, kept.into()));
        }
        ended
    }
}

fn with_faults(known: &Service, faults: Faults) -> Service {
    Service {
        settings: Arc::clone(&known.settings),
        epoch: known.epoch,
        active: known.active,
        split: known.split.clone(),
        pools: known.pools.clone(),
        book: Arc::clone(&known.book),
        purse: Arc::clone(&known.purse),
        intake: Arc::clone(&known.intake),
        faults,
    }
}
