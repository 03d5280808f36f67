//! Drills of resilience under load: what dies, hangs, breaks or lies, and what users and upstreams see of it.
//!
//! Every request has an id. The client keeps a record of each, every upstream a log that survives its death; both
//! sides are counted against each other.
//!
//! Invariant: whatever happens, no POST reaches upstreams twice, and none is answered that reached none.

mod canary;
mod endings;
mod endpoints;
mod failover;
mod posts;
mod rescue;

use std::time::Duration;

use super::support::load::{Load, Record};

/// On the drill's clock, from when to when something was done to an upstream.
#[derive(Clone, Copy, Debug)]
struct Deed {
    begin: Duration,
    end: Duration,
}

impl Deed {
    fn done(load: &Load, deed: impl FnOnce()) -> Deed {
        let begin = load.origin.elapsed();
        deed();
        Deed { begin, end: load.origin.elapsed() }
    }

    /// A request that was under way then.
    fn hit(self, record: &Record) -> bool {
        record.was_open(self.begin, self.end)
    }
}
