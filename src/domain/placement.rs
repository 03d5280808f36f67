//! Placement: which worker serves a fresh connection (Decisions 11).
//!
//! The kernel spreads connections by a hash of their addresses and knows nothing of what a worker carries: half of
//! the time the two busy connections of a sidecar share one worker while the other sleeps. So whoever accepts a
//! connection compares loads before its first byte is read, and hands it over if another worker carries notably less.
//! Busy connections decide, because they cost time; open ones, which cost memory, decide where the busy ones do not.
//!
//! Invariant: a worker that carries as little as any other keeps what the kernel gave it.

use std::time::Duration;

/// A connection is busy while a request is answered, and for so long after that and after its beginning. Long enough
/// to bridge the pauses of a steady client, short enough that an idle one soon weighs nothing.
pub const RECENT: Duration = Duration::from_secs(1);

/// One in so many more than another carries is no reason to move a connection: waking another worker costs a few
/// microseconds, so with many connections small differences are left alone. Up to here every single one counts.
const SLACK: u32 = 16;

/// What one worker carries. Ordered by what decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load {
    /// Connections that are fresh, or had a request within [`RECENT`].
    pub busy: u32,
    /// All connections.
    pub open: u32,
}

impl Load {
    /// True if a connection is better off here than at a worker that carries `own`.
    fn is_notably_below(self, own: Load) -> bool {
        notably_less(self.busy, own.busy) || (self.busy <= own.busy && notably_less(self.open, own.open))
    }
}

fn notably_less(less: u32, more: u32) -> bool {
    more.saturating_sub(less) > less / SLACK
}

/// The worker to serve a connection that `own` accepted, and the load it was seen with. Workers are known by number.
pub fn place(own: (usize, Load), others: impl IntoIterator<Item = (usize, Load)>) -> (usize, Load) {
    let least = others.into_iter().min_by_key(|(_, load)| *load);
    least.filter(|(_, load)| load.is_notably_below(own.1)).unwrap_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn load(busy: u32, open: u32) -> Load {
        Load { busy, open }
    }

    #[test]
    fn busy_connections_decide_and_open_ones_where_they_do_not() {
        let table = [
            ("nothing anywhere", load(0, 0), load(0, 0), false),
            ("one against none", load(1, 1), load(0, 0), true),
            ("none against one", load(0, 0), load(1, 1), false),
            ("equally busy, fewer open there", load(2, 9), load(2, 4), true),
            ("equally busy, fewer open here", load(2, 4), load(2, 9), false),
            ("busier here, more open there", load(2, 2), load(1, 500), true),
            ("less busy here, more open here", load(1, 500), load(2, 2), false),
            ("a small difference of many", load(102, 102), load(100, 100), false),
            ("a notable difference of many", load(107, 107), load(100, 100), true),
            ("many open, a small difference", load(0, 1_010), load(0, 1_000), false),
        ];
        for (case, own, other, moves) in table {
            assert_eq!(place((0, own), [(1, other)]).0 == 1, moves, "{case}");
        }
    }

    #[test]
    fn a_lone_worker_serves_everything() {
        assert_eq!(place((0, load(9, 9)), []), (0, load(9, 9)));
    }

    #[test]
    fn the_least_loaded_of_several_is_taken() {
        let others = [(1, load(3, 3)), (2, load(1, 7)), (3, load(1, 2)), (4, load(2, 2))];
        assert_eq!(place((0, load(4, 4)), others), (3, load(1, 2)));
    }

    /// Connections come in one by one, each accepted by whichever worker the kernel chose.
    fn filled(workers: usize, kernel: &[usize]) -> Vec<Load> {
        let mut loads = vec![Load::default(); workers];
        for chosen in kernel.iter().map(|chosen| chosen % workers) {
            let others = loads.iter().copied().enumerate().filter(|(other, _)| *other != chosen);
            let (at, seen) = place((chosen, loads[chosen]), others);
            loads[at] = load(seen.busy + 1, seen.open + 1);
        }
        loads
    }

    proptest! {
        #[test]
        fn few_connections_are_shared_evenly_whatever_the_kernel_does(
            workers in 1_usize..9, kernel in prop::collection::vec(0_usize..8, 0..100),
        ) {
            let loads = filled(workers, &kernel);
            let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            prop_assert!(most.busy - least.busy <= 1 + least.busy / SLACK, "{:?}", loads);
            if kernel.len() < workers * SLACK as usize {
                prop_assert!(most.busy - least.busy <= 1, "{:?}", loads);
            }
        }

        #[test]
        fn a_connection_never_moves_to_a_worker_that_carries_more(
            own: (u16, u16), others in prop::collection::vec(any::<(u16, u16)>(), 0..6),
        ) {
            let own = load(own.0.into(), own.1.into());
            let others = others.into_iter().map(|(busy, open)| load(busy.into(), open.into())).enumerate();
            let (at, seen) = place((99, own), others);
            prop_assert!(at == 99 || seen < own);
        }
    }
}
