//! The faults that are injected into a service now, with how often each was.
//!
//! They come with the table and go with it; the control plane takes them out once they are over, and a worker that is
//! faster looks at the clock itself.
//!
//! Invariant: without faults nobody looks at anything but an empty list.

use std::sync::Arc;

use crate::bridge::counters::{PerWorker, Tally};
use crate::domain::injection::Injection;
use crate::domain::route::RequestView;

/// One fault that is being injected.
#[derive(Debug)]
pub struct Live {
    /// The fault.
    pub injection: Injection,
    injected: PerWorker<Tally>,
}

/// The faults of one service, in order.
pub type Faults = Arc<[Arc<Live>]>;

impl Live {
    /// A fault that begins now.
    pub fn new(injection: Injection, workers: usize) -> Live {
        Live { injection, injected: PerWorker::new(workers) }
    }

    /// Requests that it hit.
    pub fn injected(&self) -> u64 {
        self.injected.total()
    }
}

/// The first fault whose turn it is; each draws anew.
pub fn choose<'a>(
    faults: &'a [Arc<Live>],
    worker: usize,
    pool: &str,
    request: &impl RequestView,
    now: u64,
    mut random: impl FnMut() -> u64,
) -> Option<&'a Arc<Live>> {
    let hit = faults.iter().find(|live| live.injection.hits(pool, request, now, random()))?;
    hit.injected.of(worker).add(1);
    Some(hit)
}
