//! What happened: a bounded ring of sentences that API, CLI and `watch` follow.
//!
//! Ids count up from 1 within one process, so a follower that lost its connection resumes after the last id it
//! saw; what fell out of the ring is gone, and the follower can tell by the gap.
//!
//! Invariant: ids have no holes inside the ring.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::clock;

/// Events kept: hours of rollouts, well under a megabyte.
const KEPT: usize = 1_024;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts up from 1 since the process began.
    pub id: u64,
    /// Wall milliseconds.
    pub at: u64,
    /// The service it concerns; none for the process.
    pub service: Option<String>,
    /// The rollout it concerns.
    pub rollout: Option<String>,
    /// A stable word: `weights`, `rollback`, `reload`, `health`, `held`, `ended`...
    pub kind: &'static str,
    /// One sentence.
    pub sentence: String,
    /// How long it took, in microseconds, for what takes time: from decision to the last worker's acknowledgement.
    pub took_us: Option<u64>,
}

/// The ring.
#[derive(Debug)]
pub struct Events {
    ring: Mutex<VecDeque<Event>>,
    newest: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Events {
        Events { ring: Mutex::default(), newest: watch::Sender::new(0) }
    }
}

impl Events {
    /// Adds an event and wakes the followers; it goes to the process log too.
    pub fn tell(&self, kind: &'static str, service: Option<&str>, rollout: Option<&str>, sentence: String) {
        self.add(kind, service, rollout, sentence, None);
    }

    /// The same for something that took `took_us` microseconds.
    pub fn tell_timed(
        &self,
        kind: &'static str,
        service: Option<&str>,
        rollout: Option<&str>,
        sentence: String,
        took_us: u64,
    ) {
        self.add(kind, service, rollout, sentence, Some(took_us));
    }

    fn add(
        &self,
        kind: &'static str,
        service: Option<&str>,
        rollout: Option<&str>,
        sentence: String,
        took_us: Option<u64>,
    ) {
        tracing::info!(kind, service, rollout, "{sentence}");
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let id = ring.back().map_or(0, |event| event.id) + 1;
        let (service, rollout) = (service.map(str::to_owned), rollout.map(str::to_owned));
        ring.push_back(Event { id, at: clock::wall_millis(), service, rollout, kind, sentence, took_us });
        if ring.len() > KEPT {
            ring.pop_front();
        }
        self.newest.send_replace(id);
    }

    /// All events after `id` that are still kept, oldest first.
    pub fn after(&self, id: u64) -> Vec<Event> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.iter().filter(|event| event.id > id).cloned().collect()
    }

    /// A receiver that wakes whenever there is a newer event; its value is the newest id.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest_without_holes() {
        let events = Events::default();
        (0..KEPT + 10).for_each(|n| events.tell("test", Some("shop"), None, format!("event {n}")));
        let kept = events.after(0);
        assert_eq!((kept.len(), kept[0].id, kept[KEPT - 1].id), (KEPT, 11, KEPT as u64 + 10));
        assert_eq!(events.after(KEPT as u64 + 9).len(), 1);
        assert_eq!(*events.follow().borrow(), KEPT as u64 + 10);
    }
}
