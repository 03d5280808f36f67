//! Hedging: a request whose answer takes unusually long is sent to a second endpoint as well; the first head wins.
//!
//! Both attempts are polled by the request's own task. The one that loses is dropped, which says nothing about its
//! endpoint; the latency marks it had passed stay booked. Kept in a box, so that requests that are not hedged, which is
//! nearly all of them, have no room for a second attempt in their task.
//!
//! Invariant: a hedge never makes an answer worse: it wins with a good one only, and its failure ends nothing.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::sleep;

use crate::bridge::endpoint::Endpoint;
use crate::bridge::table::Assignment;
use crate::clock;
use crate::domain::retry::Safety;
use crate::proxy::connection::{Client, Waiter};
use crate::proxy::error::Fault;
use crate::proxy::exchange::{Exchange, Upload};
use crate::proxy::forwarder::{self, Carried, Setback};
use crate::proxy::head::{Fields, ResponseHead};
use crate::proxy::http1::framing::Framing;
use crate::proxy::pipeline::{Asker, Request};
use crate::proxy::recorder::Place;
use crate::proxy::replay::Replay;
use crate::proxy::worker::Worker;

/// What wins with this status or above is none.
const FAILED: u16 = 500;

/// How long a first attempt at `place` is waited for before a second one begins; `None` if none does.
pub fn delay(request: &Request<'_>, place: &Place) -> Option<Duration> {
    let policy = place.service().settings.hedge.as_ref()?;
    if place.pool().endpoints.len() < 2 || request.upgrade.is_some() {
        return None;
    }
    let safety = std::str::from_utf8(request.head.method()).map_or(Safety::Neither, Safety::of);
    let has_body = !matches!(request.framing, Framing::None | Framing::Length(0));
    policy.delay(safety, has_body, place.pool().pace.read())
}

/// An attempt that may be hedged.
pub struct Hedged<'a> {
    /// Who sends it.
    pub worker: &'a Rc<Worker>,
    /// What is sent.
    pub request: &'a Request<'a>,
    /// Where.
    pub place: &'a Place,
    /// Why there.
    pub assignment: Assignment,
    /// To whom first.
    pub endpoint: &'a Arc<Endpoint>,
    /// How long that one is waited for.
    pub delay: Duration,
}

impl Hedged<'_> {
    /// Sends it as [`forwarder::send`] does, and to the endpoint that `rival` names if that takes too long; says who
    /// answered or failed it.
    pub async fn send<A: Asker>(
        &self,
        asker: &mut A,
        rival: impl FnOnce() -> Option<Arc<Endpoint>>,
    ) -> (Arc<Endpoint>, Result<Exchange, Setback>) {
        let Hedged { worker, request, place, assignment, endpoint, delay } = *self;
        let mut shadow = Shadow { client: request.client, waiter: asker.waiter() };
        let (mut nothing, mut nothing_either) = (Replay::default(), Replay::default());
        let carried = Carried { begun: None, replay: &mut nothing };
        let mut first = pin!(forwarder::send(worker, request, place, assignment, endpoint, carried, asker));
        let mut due = pin!(sleep(delay));
        let early = poll_fn(|cx| match first.as_mut().poll(cx) {
            Poll::Ready(sent) => Poll::Ready(Some(sent)),
            Poll::Pending => due.as_mut().poll(cx).map(|()| None),
        });
        if let Some(sent) = early.await {
            return (Arc::clone(endpoint), sent);
        }
        let Some(rival) = self.may_begin().then(rival).flatten() else {
            return (Arc::clone(endpoint), first.await);
        };
        place.hedged(worker.index);
        let unjudged = Place { judged: false, ..place.clone() };
        let carried = Carried { begun: None, replay: &mut nothing_either };
        let second = forwarder::send(worker, request, &unjudged, assignment, &rival, carried, &mut shadow);
        let mut second = pin!(second);
        // How the first one failed, once it has; whether the second is still under way.
        let (mut failed, mut runs) = (None, true);
        let won = poll_fn(|cx| {
            if failed.is_none()
                && let Poll::Ready(sent) = first.as_mut().poll(cx)
            {
                match sent {
                    Err(setback @ Setback::Failed(_)) if runs => failed = Some(setback),
                    sent => return Poll::Ready((false, sent)),
                }
            }
            if runs && let Poll::Ready(sent) = second.as_mut().poll(cx) {
                runs = false;
                match sent {
                    Ok(exchange) if exchange.head().status < FAILED => return Poll::Ready((true, Ok(exchange))),
                    Ok(exchange) => exchange.let_go(),
                    Err(_) => {}
                }
            }
            match failed {
                Some(setback) if !runs => Poll::Ready((false, Err(setback))),
                _ => Poll::Pending,
            }
        });
        match won.await {
            (true, sent) => {
                place.hedge_won(worker.index);
                (Arc::clone(&rival), sent)
            }
            (false, sent) => (Arc::clone(endpoint), sent),
        }
    }

    fn may_begin(&self) -> bool {
        let service = self.place.service();
        let hedge = service.settings.hedge.as_ref();
        hedge.is_some_and(|hedge| service.purse.hedge(&hedge.budget, clock::now().0))
    }
}

/// Who asks for a second attempt: the same client, but for what only one attempt may do.
struct Shadow<'a> {
    client: &'a Client,
    waiter: Rc<Waiter>,
}

impl Upload for Shadow<'_> {
    fn poll_upload(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Fault>> {
        Poll::Ready(Ok(None))
    }

    fn took(&mut self, _: usize) {}

    fn trailers(&self) -> Fields<'_> {
        Fields::NONE
    }

    fn awaits_leave(&self) -> bool {
        false
    }
}

impl Asker for Shadow<'_> {
    fn client(&self) -> &Client {
        self.client
    }

    fn waiter(&self) -> Rc<Waiter> {
        Rc::clone(&self.waiter)
    }

    /// The first attempt looks after that.
    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    /// Hints of an attempt that may lose are of no use.
    async fn interim(&mut self, _: ResponseHead<'_>) {}
}
