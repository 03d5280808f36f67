//! Forwarding: one attempt of a request at one endpoint, up to its response head.
//!
//! A connection is taken from the list or opened; then, without yielding in between, the current table is asked
//! once more whether the pool may still get requests, the attempt is booked, and the head is written.
//!
//! Invariant: whatever comes of an attempt is told to the books once, and nothing is sent that the current table forbids.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use crate::bridge::ejection;
use crate::bridge::endpoint::Endpoint;
use crate::bridge::table::Assignment;
use crate::clock;
use crate::config::settings::Protocol;
use crate::domain::outcome::{Failure, Outcome};
use crate::domain::retry::Trouble;
use crate::proxy::breaker::{self, Passage};
use crate::proxy::error::Fault;
use crate::proxy::exchange::{Broken, Exchange};
use crate::proxy::pipeline::{Asker, Request};
use crate::proxy::recorder::{Attempt, Place};
use crate::proxy::replay::Replay;
use crate::proxy::upstream::{self, Dial, Reached, Unopened};
use crate::proxy::worker::Worker;

/// Connections in a row that may turn out to be dead before a request counts as failed: a restart of the endpoint can
/// take all that were idle.
const MOST_STALE: u32 = 64;

/// Why an attempt brought no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setback {
    /// Before anything was sent the table changed so that this pool gets nothing any more, or its breaker opened: where
    /// the request goes must be decided anew.
    TableMoved,
    /// The upstream failed.
    Failed(Trouble),
    /// The client sent nonsense, broke off, or took too long: nobody else's fault.
    ClientFailed(Fault),
    /// The client is gone.
    ClientGone,
    /// This process has no descriptor or memory left.
    Exhausted,
}

/// What a request brings along to an attempt.
pub struct Carried<'a> {
    /// The attempt, if it has begun already because a fault delayed it.
    pub begun: Option<Attempt>,
    /// What was kept of the body: it goes up first, and is in the exchange that is returned, or comes back for another
    /// attempt.
    pub replay: &'a mut Replay,
}

/// Sends a request to `endpoint` and waits for the final response head; interim ones go down at once.
///
/// # Errors
/// See [`Setback`].
pub async fn send<D: Asker>(
    worker: &Rc<Worker>,
    request: &Request<'_>,
    place: &Place,
    assignment: Assignment,
    endpoint: &Arc<Endpoint>,
    carried: Carried<'_>,
    down: &mut D,
) -> Result<Exchange, Setback> {
    let Carried { mut begun, replay } = carried;
    let mut stale = 0;
    let in_spite = breaker::is_chosen_in_spite(endpoint);
    loop {
        let mut passage = Passage::enter(place, endpoint, in_spite).ok_or(Setback::TableMoved)?;
        let reached = reach(worker, request, place, endpoint, down, &mut passage).await?;
        let is_current = worker.is_current(&place.snapshot);
        if endpoint.is_draining() || !is_current && (endpoint.is_retired() || !still_allowed(worker, place, assignment))
        {
            worker.connections.give_back(reached);
            return Err(Setback::TableMoved);
        }
        let (present, trials) = (present(worker, place), passage.begin());
        let attempt = match begun.take() {
            Some(attempt) => attempt.owing(trials),
            None => {
                let client = request.origin.client;
                Attempt::begin(worker, &down.waiter(), present, Arc::clone(endpoint), client, trials)
            }
        };
        let upward = request.upward(down.client(), place);
        let (limit, kept) = (place.route().limits.body, std::mem::take(replay));
        let mut exchange = Exchange::begin(worker, reached, attempt, upward, request.framing, limit, kept);
        let headed = head_of(&mut exchange, request, place, down).await;
        if headed.is_err() {
            *replay = exchange.take_replay();
        }
        match headed {
            Ok(()) => {
                exchange.begin_body();
                return Ok(exchange);
            }
            // The connection died or was going away; that says nothing about the request or the endpoint.
            Err(Some(Broken::Unsent)) if exchange.is_reused() && stale < MOST_STALE && replay.is_whole() => {
                stale += 1;
                exchange.abandon();
            }
            Err(Some(Broken::Unsent)) => {
                exchange.into_attempt().fail(Failure::Reset);
                return Err(Setback::Failed(Trouble::Unsent));
            }
            Err(Some(Broken::Client(fault))) => {
                exchange.abandon();
                return Err(Setback::ClientFailed(fault));
            }
            Err(Some(Broken::Upstream(failure))) => {
                let trouble = match failure {
                    Failure::Timeout => Trouble::Timeout,
                    Failure::Malformed => Trouble::Malformed,
                    _ => Trouble::Reset { reused: exchange.is_reused() },
                };
                exchange.into_attempt().fail(failure);
                return Err(Setback::Failed(trouble));
            }
            Err(None) => {
                exchange.abandon();
                return Err(Setback::ClientGone);
            }
        }
    }
}

/// A way to the endpoint: at hand, or opened now, as long as the client is there.
async fn reach<D: Asker>(
    worker: &Rc<Worker>,
    request: &Request<'_>,
    place: &Place,
    endpoint: &Arc<Endpoint>,
    down: &mut D,
    passage: &mut Passage,
) -> Result<Reached, Setback> {
    let switches = request.switch(place).is_some();
    if switches && place.pool().protocol == Protocol::Http2 {
        return Err(Setback::ClientFailed(Fault::NoSwitch));
    }
    if let Some(reached) = upstream::at_hand(worker, endpoint, place.pool(), switches) {
        return Ok(reached);
    }
    let most = place.settings().limits.max_requests_per_connection;
    let dial = Dial::new(endpoint, place.pool(), &place.service().settings, switches, most, down.client().ends());
    // Boxed: it is seldom needed, and every request would be larger by all that TLS takes to begin.
    let mut opening = Box::pin(dial.reach(worker));
    let waiter = down.waiter();
    let opened = poll_fn(|cx| {
        waiter.register(cx.waker());
        match opening.as_mut().poll(cx) {
            Poll::Ready(opened) => Poll::Ready(Ok(opened)),
            Poll::Pending => down.poll_gone(cx).map(|()| Err(Setback::ClientGone)),
        }
    });
    opened.await?.map_err(|error| {
        tracing::debug!(%endpoint, %error, "connect failed");
        let (trouble, failure) = match Unopened::of(&error) {
            Unopened::Failed => {
                let (now, outcome) = (clock::now().0, Outcome::Failed(Failure::Connect));
                endpoint.turned_out(worker.index, now, outcome);
                ejection::turned_out(place.pool(), endpoint, worker.index, now, outcome);
                passage.fail(place, endpoint, worker.index, outcome);
                (Trouble::Connect, Failure::Connect)
            }
            Unopened::Full => {
                place.pool().tally.of(worker.index).overflowed.add(1);
                (Trouble::Full, Failure::NoEndpoint)
            }
            Unopened::Exhausted => return Setback::Exhausted,
        };
        // By the present epoch: nobody reads the book of an old one that has nothing open any more.
        present(worker, place).charge(worker.index, failure);
        Setback::Failed(trouble)
    })
}

/// Waits for the final head. `None` as error: the client is gone.
async fn head_of<D: Asker>(
    exchange: &mut Exchange,
    request: &Request<'_>,
    place: &Place,
    down: &mut D,
) -> Result<(), Option<Broken>> {
    let waiter = down.waiter();
    loop {
        poll_fn(|cx| {
            waiter.register(cx.waker());
            match exchange.poll_head(cx, down) {
                Poll::Pending => down.poll_gone(cx).map(|()| Err(None)),
                Poll::Ready(head) => Poll::Ready(head.map_err(Some)),
            }
        })
        .await?;
        match exchange.head().status {
            101 if request.accepts_switch(place, exchange.head()) => return Ok(()),
            101 => return Err(Some(Broken::Upstream(Failure::Malformed))),
            100..200 => {
                down.interim(exchange.head()).await;
                exchange.skip_interim();
            }
            _ => return Ok(()),
        }
    }
}

/// The place by the table that is current now: observations belong to the epoch at dispatch (Decisions 2).
fn present(worker: &Worker, place: &Place) -> Place {
    let current = worker.snapshot();
    if Rc::ptr_eq(&current, &place.snapshot) {
        return place.clone();
    }
    let (name, pool) = (&place.service().settings.name, &place.pool().name);
    let services = &current.table.services;
    let service = services.iter().position(|service| service.settings.name == *name);
    let known = service.and_then(|service| Some((service, services[service].pool_named(pool)?)));
    match known.filter(|(service, _)| Arc::ptr_eq(&services[*service].settings, &place.service().settings)) {
        Some((service, pool)) => Place { snapshot: current, service, pool, ..place.clone() },
        // Other rules: the indices of the old table mean nothing in it.
        None => place.clone(),
    }
}

/// Asks the current table whether the pool still gets requests.
pub(super) fn still_allowed(worker: &Worker, place: &Place, assignment: Assignment) -> bool {
    let now = present(worker, place);
    if Rc::ptr_eq(&now.snapshot, &place.snapshot) {
        // The service or pool is gone, or its rules are others: deciding anew is always right.
        return false;
    }
    now.service().still_allows(Assignment { pool: now.pool, ..assignment })
}
