//! Room in a pool: how many requests and connections it has at a time over all workers, and who waits for one.
//!
//! Places are permits of a semaphore: taking one is an atomic exchange while there are any, and those who wait get them
//! in the order they came. Where nothing is limited there is no semaphore, and nothing is counted.
//!
//! Invariants: never more places are taken than there are; never more requests wait than may; a place is free again
//! when its holder is dropped, however that comes about.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::settings::Limits;

/// The room of one pool.
#[derive(Debug, Default)]
pub struct Room {
    /// For requests in flight.
    pub requests: Places,
    /// For connections.
    pub connections: Places,
}

/// Places of one kind.
#[derive(Debug, Default)]
pub struct Places {
    /// `None` without a limit.
    free: Option<Arc<Semaphore>>,
    waiting: AtomicUsize,
    /// Who may wait.
    most_waiting: usize,
    /// And for how long.
    patience: Duration,
}

/// A place that is taken. Free again when dropped.
pub type Taken = OwnedSemaphorePermit;

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All are taken, and as many wait as may.
    Crowded,
    /// It waited for as long as it may.
    TimedOut,
}

impl Room {
    /// Room by these limits.
    pub fn new(limits: &Limits) -> Room {
        let places = |most: Option<std::num::NonZeroUsize>| Places {
            free: most.map(|most| Arc::new(Semaphore::new(most.get()))),
            waiting: AtomicUsize::new(0),
            most_waiting: limits.max_pending,
            patience: limits.queue_timeout,
        };
        Room { requests: places(limits.max_in_flight), connections: places(limits.max_connections) }
    }

    /// True if there is a limit of either kind.
    pub fn is_limited(&self) -> bool {
        self.requests.is_limited() || self.connections.is_limited()
    }

    /// How many requests wait for either.
    pub fn waiting(&self) -> usize {
        self.requests.waiting() + self.connections.waiting()
    }
}

impl Places {
    /// True if there is a limit at all: what nearly every request asks.
    pub fn is_limited(&self) -> bool {
        self.free.is_some()
    }

    /// A place if one is free now; `Ok(None)` without a limit.
    ///
    /// # Errors
    /// When all are taken.
    pub fn take(&self) -> Result<Option<Taken>, Full> {
        let Some(free) = &self.free else { return Ok(None) };
        Arc::clone(free).try_acquire_owned().map(Some).map_err(|_| Full::Crowded)
    }

    /// A place, waited for if need be. Dropping the future gives up waiting.
    ///
    /// # Errors
    /// When too many wait already, or it takes too long.
    pub async fn wait(&self) -> Result<Option<Taken>, Full> {
        let Some(free) = &self.free else { return Ok(None) };
        if let Ok(taken) = self.take() {
            return Ok(taken);
        }
        let _waiting = Waiting::at(self)?;
        let place = tokio::time::timeout(self.patience, Arc::clone(free).acquire_owned()).await;
        // The semaphore is never closed.
        place.ok().and_then(Result::ok).map(Some).ok_or(Full::TimedOut)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }
}

/// One that waits.
struct Waiting<'a>(&'a Places);

impl Waiting<'_> {
    fn at(places: &Places) -> Result<Waiting<'_>, Full> {
        let room = |waiting: usize| (waiting < places.most_waiting).then_some(waiting + 1);
        let entered = places.waiting.fetch_update(Relaxed, Relaxed, room);
        entered.map(|_| Waiting(places)).map_err(|_| Full::Crowded)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn room(most: usize, max_pending: usize) -> Room {
        let max_in_flight = NonZeroUsize::new(most);
        Room::new(&Limits { max_in_flight, max_pending, queue_timeout: Duration::from_secs(1), ..Limits::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_there_is_always_room() {
        let room = Room::new(&Limits::default());
        assert!(!room.requests.is_limited() && !room.connections.is_limited());
        assert!(room.requests.take().unwrap().is_none() && room.requests.wait().await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_next_place_in_order_and_who_is_too_many_none() {
        let room = room(1, 2);
        let places = &room.requests;
        let first = places.wait().await.unwrap();
        assert_eq!(places.take().unwrap_err(), Full::Crowded);
        let (mut second, mut third) = (Box::pin(places.wait()), Box::pin(places.wait()));
        assert!(futures_pending(&mut second).await && futures_pending(&mut third).await);
        assert_eq!((places.waiting(), places.wait().await.unwrap_err()), (2, Full::Crowded));
        drop(first);
        assert!(futures_pending(&mut third).await);
        let second = second.await.unwrap();
        assert_eq!(third.await.unwrap_err(), Full::TimedOut);
        assert_eq!(places.waiting(), 0);
        drop(second);
        assert!(places.take().unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_makes_room_for_another() {
        let room = room(1, 1);
        let _first = room.requests.take().unwrap();
        let mut second = Box::pin(room.requests.wait());
        assert!(futures_pending(&mut second).await);
        drop(second);
        assert_eq!((room.requests.waiting(), room.requests.wait().await.unwrap_err()), (0, Full::TimedOut));
    }

    /// True if a future is still not done after a first look.
    async fn futures_pending<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())).await
    }

    #[test]
    fn many_threads_never_take_more_places_than_there_are() {
        let (room, taken, most) = (room(3, 0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        if let Ok(place) = room.requests.take() {
                            most.fetch_max(taken.fetch_add(1, Relaxed) + 1, Relaxed);
                            std::thread::yield_now();
                            taken.fetch_sub(1, Relaxed);
                            drop(place);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
    }
}
