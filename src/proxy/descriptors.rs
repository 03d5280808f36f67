//! File descriptors: how many the process may open, and how many client connections that allows.
//!
//! A connection needs one descriptor for the client and one for an upstream. If the client side may take them all,
//! connects to upstreams fail and a healthy pool looks broken. So the default limit of connections stays below half of
//! the descriptors; a limit that a person wrote is kept, with a warning.
//!
//! Invariant: the soft limit is never lowered, and the hard one never touched.

use std::num::NonZeroUsize;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::bridge::admission::USUAL;

/// Descriptors for listeners, runtimes, logs, the store, the admin API and health checks.
const RESERVED: u64 = 64;
/// Connections that are allowed however few descriptors there are: with less nothing could be found out.
const FEWEST: usize = 8;

/// Raises the soft limit to the hard one and gives the limit of connections where the file names none.
pub fn raise(configured: Option<NonZeroUsize>) -> usize {
    let descriptors = raise_to_hard();
    let fitting = connections(descriptors);
    match configured {
        Some(configured) if configured.get() > fitting => tracing::warn!(
            max_connections = configured,
            descriptors,
            fitting,
            "more client connections are allowed than file descriptors are there for both sides"
        ),
        None if fitting < USUAL => {
            tracing::info!(max_connections = fitting, descriptors, "fewer client connections for want of descriptors");
        }
        _ => {}
    }
    fitting
}

fn raise_to_hard() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current.unwrap_or(u64::MAX);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "the limit of file descriptors stays as it is");
            current.unwrap_or(u64::MAX)
        }
    }
}

/// How many client connections so many descriptors are enough for.
fn connections(descriptors: u64) -> usize {
    let pairs = descriptors.saturating_sub(RESERVED) / 2;
    usize::try_from(pairs).unwrap_or(USUAL).clamp(FEWEST, USUAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_stay_below_half_of_the_descriptors() {
        let table = [(0, 8), (64, 8), (80, 8), (256, 96), (1_024, 480), (4_096, 2_016), (40_064, 20_000)];
        for (descriptors, allowed) in table {
            assert_eq!(connections(descriptors), allowed, "{descriptors}");
        }
        assert_eq!((connections(1 << 20), connections(u64::MAX)), (USUAL, USUAL));
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        raise(None);
        assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: hard, maximum: hard });
    }
}
