//! Injected faults on the way of a request: it waits, or is answered, in place of what the pool would have done.
//!
//! The attempt begins with the fault: from there on time counts for the pool, the judge sees a hang before it ends, and
//! an answer made here is booked like one from there, for the pool and its breaker. The endpoint is left out of that: it
//! did nothing, so nothing is held against it. After a delay it answers, and then both are its latency.
//!
//! Invariant: what waits here ends with its client, and goes on only where the current table still allows it.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::bridge::endpoint::Endpoint;
use crate::bridge::injection::{self, Live};
use crate::bridge::table::Assignment;
use crate::clock;
use crate::domain::outcome::{Failure, Outcome};
use crate::domain::route::RequestView;
use crate::proxy::breaker::{self, Passage, Trials};
use crate::proxy::forwarder::still_allowed;
use crate::proxy::pipeline::Downstream;
use crate::proxy::recorder::{Attempt, Place};
use crate::proxy::worker::Worker;

/// The field that marks an answer that a fault had a part in.
pub const FIELD: &str = "x-teal-fault";

/// The attempt that has begun, and what delayed it; nothing of both for a request that no fault hits.
pub type Begun = (Option<Attempt>, Option<Arc<Live>>);

/// What a fault did in place of an endpoint, so that the request does not go there.
pub enum Stood {
    /// It is answered with this status in place of the pool.
    Aborted(u16, Arc<Live>),
    /// It was delayed for longer than the pool may take.
    TimedOut,
    /// What it was to be sent to is being taken out of use, and the time for that is over.
    Cut,
    /// The pool gets nothing any more: decide anew.
    TableMoved,
    /// The client is gone.
    ClientGone,
}

/// Does to a request what a fault asks for, if there is any that hits it.
///
/// # Errors
/// When the request does not go on to the endpoint.
pub async fn inject<D: Downstream>(
    worker: &Rc<Worker>,
    place: &Place,
    assignment: Assignment,
    endpoint: &Arc<Endpoint>,
    request: &impl RequestView,
    down: &mut D,
) -> Result<Begun, Stood> {
    let faults = &place.service().faults;
    if faults.is_empty() {
        return Ok((None, None));
    }
    let random = || worker.random() >> 32;
    let hit = injection::choose(faults, worker.index, &place.pool().name, request, clock::now().0, random);
    let Some(live) = hit else { return Ok((None, None)) };
    let effect = live.injection.effect;
    let (waiter, client) = (down.waiter(), request.client());
    // What it owes the breakers is settled once it goes on, or is answered.
    let attempt = Attempt::begin(worker, &waiter, place.clone(), Arc::clone(endpoint), client, Trials::default());
    if let Some(delay) = effect.delay {
        // Boxed, because almost no request waits here.
        Box::pin(wait(delay, &attempt, down)).await?;
        if attempt.is_cut() {
            return Err(Stood::Cut);
        }
        if attempt.is_expired() {
            attempt.stood_in(Outcome::Failed(Failure::Timeout));
            return Err(Stood::TimedOut);
        }
    }
    if !worker.is_current(&place.snapshot) && !still_allowed(worker, place, assignment) {
        return Err(Stood::TableMoved);
    }
    let Some(status) = effect.abort else { return Ok((Some(attempt), Some(Arc::clone(live)))) };
    let passage = Passage::enter(place, endpoint, breaker::is_chosen_in_spite(endpoint)).ok_or(Stood::TableMoved)?;
    let latency = attempt.age();
    attempt.owing(passage.begin()).stood_in(Outcome::Answered { status, latency });
    Err(Stood::Aborted(status, Arc::clone(live)))
}

/// Waits for so long, or until the client is gone or the attempt has had its time.
async fn wait<D: Downstream>(delay: Duration, attempt: &Attempt, down: &mut D) -> Result<(), Stood> {
    let waiter = down.waiter();
    let mut sleep = pin!(tokio::time::sleep(delay));
    poll_fn(|cx| {
        waiter.register(cx.waker());
        if sleep.as_mut().poll(cx).is_ready() || attempt.is_expired() {
            return Poll::Ready(Ok(()));
        }
        down.poll_gone(cx).map(|()| Err(Stood::ClientGone))
    })
    .await
}
