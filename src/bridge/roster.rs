//! The roster of workers: who has taken up which version of the table.
//!
//! A change is acknowledged once every worker has reported its version (Decisions 1). The publisher wakes
//! the workers; each swaps its cached snapshot and reports; the last report completes the wait.
//!
//! Invariant: a worker reports a version only after it can no longer dispatch by an older one.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::Notify;

use crate::bridge::counters::PerWorker;

/// All workers of the data plane.
#[derive(Debug)]
pub struct Roster {
    workers: PerWorker<Member>,
    reported: Notify,
    ending: AtomicBool,
    draining: OnceLock<Ending>,
}

/// How the workers are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// How long what is in flight may take before it is cut.
    pub grace: Duration,
    /// Connections told to go within a second, over all workers; `None` tells all at once.
    pub pace: Option<NonZeroUsize>,
    /// Another process accepts from the same sockets.
    pub is_succeeded: bool,
}

#[derive(Debug, Default)]
struct Member {
    seen: AtomicU64,
    wake: Notify,
}

/// Workers that did not take up a version in time, by number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not taken up in time by worker {}", workers.iter().map(usize::to_string).collect::<Vec<_>>().join(", "))]
pub struct Stragglers {
    /// Their numbers.
    pub workers: Vec<usize>,
}

impl Roster {
    /// A roster of `workers`, none of which has seen a table.
    pub fn new(workers: usize) -> Roster {
        Roster {
            workers: PerWorker::new(workers),
            reported: Notify::new(),
            ending: AtomicBool::new(false),
            draining: OnceLock::new(),
        }
    }

    /// Wakes every worker to look at the table, or at [`Roster::is_draining`].
    pub fn wake_all(&self) {
        self.workers.iter().for_each(|member| member.wake.notify_one());
    }

    /// Returns when there may be something new for `worker`.
    pub async fn woken(&self, worker: usize) {
        self.workers.of(worker).wake.notified().await;
    }

    /// Says that `worker` now works by `version`.
    pub fn report(&self, worker: usize, version: u64) {
        self.workers.of(worker).seen.store(version, SeqCst);
        self.reported.notify_waiters();
    }

    /// Announces the end: readiness fails, requests are still taken.
    pub fn end(&self) {
        self.ending.store(true, SeqCst);
    }

    /// See [`Roster::end`].
    pub fn is_ending(&self) -> bool {
        self.ending.load(Relaxed)
    }

    /// Tells every worker to stop accepting and to finish what it has.
    pub fn drain(&self, ending: Ending) {
        self.end();
        // The first word stands.
        let _ = self.draining.set(ending);
        self.wake_all();
    }

    /// See [`Roster::drain`].
    pub fn is_draining(&self) -> bool {
        self.draining.get().is_some()
    }

    /// How to end, once that has begun.
    pub fn ending(&self) -> Option<Ending> {
        self.draining.get().copied()
    }

    /// True once every worker has taken up `version`.
    pub fn has_seen(&self, version: u64) -> bool {
        self.behind(version).is_empty()
    }

    fn behind(&self, version: u64) -> Vec<usize> {
        let late = |(index, member): (usize, &Member)| (member.seen.load(SeqCst) < version).then_some(index);
        self.workers.iter().enumerate().filter_map(late).collect()
    }

    /// Waits until every worker has taken up `version`, at most `limit`.
    ///
    /// # Errors
    /// Names the workers that had not.
    pub async fn acknowledged(&self, version: u64, limit: Duration) -> Result<(), Stragglers> {
        let all = async {
            loop {
                // Registered before the check, so that a report in between is not missed.
                let mut reported = std::pin::pin!(self.reported.notified());
                reported.as_mut().enable();
                if self.has_seen(version) {
                    return;
                }
                reported.await;
            }
        };
        tokio::time::timeout(limit, all).await.map_err(|_| Stragglers { workers: self.behind(version) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_version_is_acknowledged_by_the_last_worker() {
        let roster = Roster::new(2);
        roster.report(0, 5);
        let error = roster.acknowledged(5, Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.to_string(), "not taken up in time by worker 1");
        let (waited, ()) = tokio::join!(roster.acknowledged(5, Duration::from_secs(1)), async {
            tokio::task::yield_now().await;
            roster.report(1, 6);
        });
        assert_eq!(waited, Ok(()));
    }
}
