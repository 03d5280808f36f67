//! The queue before a pool whose places are all taken.
//!
//! A request waits here before an endpoint is chosen for it, so that the choice is fresh; whether the pool may still be
//! sent anything is asked again at dispatch, as after every other wait (Decisions 1). A client that goes away stops
//! waiting. What finds no room is answered 503: for the judge that is a bad unit of the pool it was assigned to, because
//! a version that cannot carry its share is worse, and its users see it.
//!
//! Invariant: a place is held from before the choice of an endpoint to the end of the attempt.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use crate::bridge::room::{Full, Taken};
use crate::proxy::pipeline::Downstream;
use crate::proxy::recorder::Place;

/// Why a request got no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// There is no room.
    Away(Full),
    /// Its client is gone.
    ClientGone,
}

/// Takes a place among the requests of a pool, waiting for it if need be; `None` where they are not limited.
///
/// # Errors
/// See [`Turned`].
pub async fn enter<D: Downstream>(worker: usize, place: &Place, down: &mut D) -> Result<Option<Rc<Taken>>, Turned> {
    let places = &place.pool().room.requests;
    if !places.is_limited() {
        return Ok(None);
    }
    let waiter = down.waiter();
    let mut waiting = pin!(places.wait());
    let taken = poll_fn(|cx| {
        waiter.register(cx.waker());
        match waiting.as_mut().poll(cx) {
            Poll::Ready(taken) => Poll::Ready(taken.map_err(Turned::Away)),
            Poll::Pending => down.poll_gone(cx).map(|()| Err(Turned::ClientGone)),
        }
    })
    .await;
    if let Err(Turned::Away(full)) = taken {
        let tally = place.pool().tally.of(worker);
        match full {
            Full::Crowded => tally.overflowed.add(1),
            Full::TimedOut => tally.queued_too_long.add(1),
        }
    }
    taken.map(|taken| taken.map(Rc::new))
}
