//! The access log's end on a worker: finished requests are gathered and handed over in batches.
//!
//! A worker never waits for the log: batches go through a bounded channel to the log's own thread, and what does
//! not fit is dropped and counted. Lines are put into text on that thread, not here.
//!
//! Invariant: a full channel costs log lines, never a request.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::{SyncSender, TrySendError};

use crate::bridge::counters::Tally;
use crate::bridge::endpoint::Endpoint;
use crate::bridge::table::{Assignment, Reason, Service};
use crate::clock::{self, Micros};
use crate::proxy::recorder::Place;
use crate::proxy::worker::Worker;
use crate::telemetry::access_log::Entry;

/// Lines gathered before they are handed over without waiting for the sweep.
const BATCH: usize = 256;

/// Gathers finished requests of one worker.
#[derive(Debug)]
pub struct AccessBuffer {
    lines: RefCell<Vec<Entry>>,
    log: SyncSender<Vec<Entry>>,
}

impl Clone for AccessBuffer {
    /// Another worker's end of the same log.
    fn clone(&self) -> AccessBuffer {
        AccessBuffer::new(self.log.clone())
    }
}

impl AccessBuffer {
    /// An empty buffer towards `log`.
    pub fn new(log: SyncSender<Vec<Entry>>) -> AccessBuffer {
        AccessBuffer { lines: RefCell::default(), log }
    }

    /// Adds a line.
    pub fn push(&self, entry: Entry, dropped: &Tally) {
        let full = {
            let mut lines = self.lines.borrow_mut();
            lines.push(entry);
            lines.len() >= BATCH
        };
        if full {
            self.flush(dropped);
        }
    }

    /// Hands over what was gathered.
    pub fn flush(&self, dropped: &Tally) {
        let lines = self.lines.take();
        if lines.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(lines) | TrySendError::Disconnected(lines)) = self.log.try_send(lines) {
            dropped.add(lines.len() as u64);
        }
    }
}

/// A line of a request that is still being answered.
pub struct Line {
    started: Micros,
    entry: Entry,
}

impl Line {
    /// Begins a line; `entry` holds what is known so far.
    pub fn new(started: Micros, entry: Entry) -> Line {
        Line { started, entry }
    }

    /// Notes what was answered.
    pub fn status(&mut self, status: u16) {
        self.entry.status = status;
    }

    /// Notes where the request belongs, and where it failed if it is being rescued; a later attempt overwrites an earlier
    /// one.
    pub fn assigned(&mut self, service: &Service, assignment: Assignment, rescued_from: Option<&Place>) {
        self.entry.service = Some(service.settings.name.clone());
        self.entry.pool = Some(service.pools[assignment.pool].name.clone());
        self.entry.reason = Some(match assignment.reason {
            Reason::Split => "split".to_owned(),
            Reason::Rescue => "rescue".to_owned(),
            Reason::Diverted => "diverted".to_owned(),
            Reason::Override(index) => format!("override:{}", service.settings.overrides[index].name),
        });
        self.entry.rescued_from = rescued_from.map(|failed| failed.pool().name.clone());
    }

    /// Notes the endpoint it is sent to.
    pub fn sent_to(&mut self, endpoint: &Endpoint) {
        self.entry.attempts += 1;
        self.entry.endpoint = Some(endpoint.address.to_string());
    }

    /// The line once `bytes` of body were sent.
    pub fn finished(mut self, bytes: u64) -> Entry {
        self.entry.bytes = bytes;
        self.entry.duration_us = clock::now().since(self.started);
        self.entry
    }
}

/// The line of a request, if there is a log; it is handed over when this is dropped, however the request ended.
pub struct Logged {
    line: Option<(Rc<Worker>, Box<Line>)>,
    sent: u64,
}

impl Logged {
    /// Begins a line if there is a log.
    pub fn new(worker: &Rc<Worker>, begin: impl FnOnce() -> Box<Line>) -> Logged {
        Logged { line: worker.access.as_ref().map(|_| (Rc::clone(worker), begin())), sent: 0 }
    }

    /// See [`Line::status`].
    pub fn status(&mut self, status: u16) {
        self.note(|line| line.status(status));
    }

    /// See [`Line::assigned`].
    pub fn assigned(&mut self, service: &Service, assignment: Assignment, rescued_from: Option<&Place>) {
        self.note(|line| line.assigned(service, assignment, rescued_from));
    }

    /// See [`Line::sent_to`].
    pub fn sent_to(&mut self, endpoint: &Endpoint) {
        self.note(|line| line.sent_to(endpoint));
    }

    /// How many bytes of the body went down.
    pub fn sent(&mut self, bytes: u64) {
        self.sent = bytes;
    }

    fn note(&mut self, note: impl FnOnce(&mut Line)) {
        if let Some((_, line)) = &mut self.line {
            note(line);
        }
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        if let Some((worker, line)) = self.line.take()
            && let Some(access) = &worker.access
        {
            access.push(line.finished(self.sent), &worker.tally().log_dropped);
        }
    }
}
