//! Handover: what each worker carries, and an inbox through which another worker gives it a fresh connection.
//!
//! Loads are one word each, read by whoever accepts a connection and changed when one opens, closes, or is found busy
//! or idle by the sweep: never by a request. A connection is counted at its worker in the moment it is placed there,
//! so that a second one sees it at once. The choice is made good by compare-and-exchange on the chosen worker's word:
//! two workers cannot both give a third its "first" connection.
//!
//! Invariant: what was given is taken by its worker, or comes back to the giver; a closed inbox takes nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::bridge::counters::PerWorker;
use crate::domain::placement::{self, Load};

/// Connections that wait for one worker at most. A worker that far behind is not the less loaded one.
const INBOX: usize = 128;
/// How many other workers are looked at: reading a load that another core writes costs, and the best of several is
/// nearly as good as the best of all.
const LOOK: usize = 8;
/// Choices that may be overtaken by another worker's before the accepting one keeps the connection.
const TRIES: usize = 4;
/// A fresh connection in a load's word: busy in the upper half, open in the lower.
const FRESH: u64 = BUSY | 1;
const BUSY: u64 = 1 << 32;

/// All workers' loads and inboxes; `T` is what is handed over.
#[derive(Debug)]
pub struct Handover<T> {
    desks: PerWorker<Desk<T>>,
}

#[derive(Debug)]
struct Desk<T> {
    load: AtomicU64,
    inbox: Mutex<Inbox<T>>,
    arrived: Notify,
}

#[derive(Debug)]
struct Inbox<T> {
    is_open: bool,
    waiting: VecDeque<T>,
}

impl<T> Handover<T> {
    /// For so many workers, none of which takes anything yet.
    pub fn new(workers: usize) -> Handover<T> {
        let inbox = || Mutex::new(Inbox { is_open: false, waiting: VecDeque::new() });
        let desk = |_| Desk { load: AtomicU64::new(0), inbox: inbox(), arrived: Notify::new() };
        Handover { desks: PerWorker::from_fn(workers, desk) }
    }

    /// The worker to serve a fresh connection that `own` accepted; it is counted there from now on. `random` chooses
    /// whom to look at if the workers are many.
    pub fn choose(&self, own: usize, random: u64) -> usize {
        let workers = self.desks.iter().count();
        let first = (random % workers.max(1) as u64) as usize;
        // One more than are looked at: `own` may be among them.
        let looked_at = || (0..workers.min(LOOK + 1)).map(|step| (first + step) % workers).filter(|at| *at != own);
        for _ in 0..TRIES {
            let others = looked_at().map(|at| (at, self.load(at)));
            let (chosen, seen) = placement::place((own, self.load(own)), others);
            let seen = u64::from(seen.busy) << 32 | u64::from(seen.open);
            let load = &self.desks.of(chosen).load;
            if load.compare_exchange(seen, seen.wrapping_add(FRESH), Relaxed, Relaxed).is_ok() {
                return chosen;
            }
        }
        self.desks.of(own).load.fetch_add(FRESH, Relaxed);
        own
    }

    /// Gives a connection, counted at `to` already, from `own` to that worker. What its inbox does not take comes
    /// back, and is counted at `own` instead.
    pub fn give(&self, own: usize, to: usize, item: T) -> Option<T> {
        let refused = self.desks.of(to).put(item)?;
        self.left(to, true);
        self.desks.of(own).load.fetch_add(FRESH, Relaxed);
        Some(refused)
    }

    /// What a worker carries.
    pub fn load(&self, worker: usize) -> Load {
        let word = self.desks.of(worker).load.load(Relaxed);
        Load { busy: (word >> 32) as u32, open: word as u32 }
    }

    /// So many more of a worker's connections are busy than before; fewer if negative.
    pub fn busier(&self, worker: usize, by: i32) {
        if by != 0 {
            self.desks.of(worker).load.fetch_add((i64::from(by) as u64).wrapping_mul(BUSY), Relaxed);
        }
    }

    /// A connection of a worker closed; `busy` if it was counted as such.
    pub fn left(&self, worker: usize, busy: bool) {
        self.desks.of(worker).load.fetch_sub(if busy { FRESH } else { 1 }, Relaxed);
    }

    /// From now on a worker takes what it is given.
    pub fn open(&self, worker: usize) {
        self.desks.of(worker).inbox().is_open = true;
    }

    /// From now on a worker takes nothing more; gives what it has not taken yet.
    pub fn close(&self, worker: usize) -> VecDeque<T> {
        let mut inbox = self.desks.of(worker).inbox();
        inbox.is_open = false;
        std::mem::take(&mut inbox.waiting)
    }

    /// Returns when there may be something in a worker's inbox. Only that worker waits.
    pub async fn arrived(&self, worker: usize) {
        self.desks.of(worker).arrived.notified().await;
    }

    /// The longest waiting item of a worker's inbox.
    pub fn take(&self, worker: usize) -> Option<T> {
        self.desks.of(worker).inbox().waiting.pop_front()
    }
}

impl<T> Desk<T> {
    /// `None` if the inbox took it.
    fn put(&self, item: T) -> Option<T> {
        let mut inbox = self.inbox();
        if !inbox.is_open || inbox.waiting.len() >= INBOX {
            return Some(item);
        }
        inbox.waiting.push_back(item);
        drop(inbox);
        self.arrived.notify_one();
        None
    }

    /// Nothing that can panic runs under this lock, so what a poisoned one guards is sound.
    fn inbox(&self) -> MutexGuard<'_, Inbox<T>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn opened<T>(workers: usize) -> Handover<T> {
        let handover = Handover::new(workers);
        (0..workers).for_each(|worker| handover.open(worker));
        handover
    }

    /// Comes back if it is for `own`.
    fn place<T>(handover: &Handover<T>, own: usize, random: u64, item: T) -> Option<T> {
        match handover.choose(own, random) {
            chosen if chosen == own => Some(item),
            chosen => handover.give(own, chosen, item),
        }
    }

    fn loads<T>(handover: &Handover<T>) -> Vec<(u32, u32)> {
        let workers = handover.desks.iter().count();
        (0..workers).map(|worker| handover.load(worker)).map(|load| (load.busy, load.open)).collect()
    }

    #[test]
    fn a_connection_is_counted_where_it_is_placed() {
        let handover = opened(2);
        assert_eq!(place(&handover, 0, 7, 'a'), Some('a'));
        assert_eq!(loads(&handover), [(1, 1), (0, 0)]);
        assert_eq!(place(&handover, 0, 7, 'b'), None);
        assert_eq!((loads(&handover), handover.take(1), handover.take(1)), (vec![(1, 1), (1, 1)], Some('b'), None));
        // The first one goes idle, the second leaves.
        handover.busier(0, -1);
        handover.left(1, true);
        assert_eq!(loads(&handover), [(0, 1), (0, 0)]);
        handover.busier(0, 1);
        handover.left(0, true);
        assert_eq!(loads(&handover), [(0, 0), (0, 0)]);
    }

    #[test]
    fn what_is_not_taken_comes_back_and_is_counted_at_its_giver() {
        let handover = opened(2);
        handover.busier(0, 1_000);
        for item in 0..INBOX {
            assert_eq!(place(&handover, 0, 0, item), None);
        }
        assert_eq!(place(&handover, 0, 0, INBOX), Some(INBOX), "the inbox is full");
        assert_eq!(loads(&handover), [(1_001, 1), (128, 128)]);
        assert_eq!(handover.close(1).len(), INBOX);
        assert_eq!(place(&handover, 0, 0, 0), Some(0), "the inbox is closed");
        assert_eq!(loads(&handover), [(1_002, 2), (128, 128)]);
    }

    #[test]
    fn of_many_workers_some_are_looked_at_and_each_is_found_in_time() {
        let handover = opened(40);
        handover.busier(0, 1_000);
        for random in 0..80 {
            assert_eq!(place(&handover, 0, random, ()), None);
        }
        let carried: u32 = loads(&handover)[1..].iter().map(|(_, open)| open).sum();
        assert_eq!(carried, 80);
        assert!(loads(&handover)[1..].iter().all(|(_, open)| (1..=4).contains(open)), "{:?}", loads(&handover));
    }

    #[tokio::test]
    async fn a_gift_wakes_its_worker_even_if_it_came_first() {
        let handover = opened(2);
        handover.busier(0, 1);
        assert_eq!(place(&handover, 0, 0, ()), None);
        handover.arrived(1).await;
        assert_eq!(handover.take(1), Some(()));
    }

    /// Whoever accepts at the same time as others still leaves the workers evenly loaded.
    #[test]
    fn choices_made_at_once_do_not_add_up() {
        for _ in 0..50 {
            let handover: Handover<()> = opened(4);
            let (left, kept) = (AtomicUsize::new(32), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for own in 0..4 {
                    let (handover, left, kept) = (&handover, &left, &kept);
                    scope.spawn(move || {
                        while left.try_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                            kept.fetch_add(usize::from(place(handover, own, 0, ()).is_some()), Relaxed);
                        }
                    });
                }
            });
            let given: usize = (0..4).map(|worker| handover.close(worker).len()).sum();
            assert_eq!(given + kept.load(Relaxed), 32);
            let loads = loads(&handover);
            let total: u32 = loads.iter().map(|(_, open)| open).sum();
            let (least, most) = (loads.iter().min().unwrap().0, loads.iter().max().unwrap().0);
            assert!(total == 32 && most - least <= 2, "{loads:?}");
        }
    }
}
