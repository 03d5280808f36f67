//! A client connection, whatever it speaks: what the worker knows of it, and its life from accept to close.
//!
//! No connection owns a timer. The worker's sweep looks at every client now and then and tells one that is silent
//! for too long, that does not read, or that may go because the process drains; it is told by a flag and a wake.
//!
//! Most connections are idle most of the time, so what a request needs is not part of the connection: it is allocated
//! with the first byte, kept as long as requests follow each other, and let go when the sweep finds the connection idle
//! for [`DOZES`]. What stays is a stream and whom it belongs to.
//!
//! Invariant: a connection is cut only between requests or inside a request head, never inside an answer that moves.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::bridge::admission::{self, Closed, Refusal};
use crate::bridge::table::Listener;
use crate::bridge::tls::{ClientIdentity, Server};
use crate::clock::{self, Micros};
use crate::config::settings;
use crate::domain::placement;
use crate::domain::route::{Location, PathEdit, Redirect, Scheme};
use crate::proxy::http1::{self, client::Ended};
use crate::proxy::http2;
use crate::proxy::proxy_protocol::{self, Ends};
use crate::proxy::stream::Stream;
use crate::proxy::tls;
use crate::proxy::tunnel;
use crate::proxy::worker::Worker;

/// While draining, how long an idle connection is kept for a request that may be on its way: it is answered, and the
/// answer says that it was the last. Closing at once would hang up on clients that were never told.
pub const LINGER: Duration = Duration::from_millis(500);

/// An idle connection lets its memory go after so long. To take it again costs a tenth of a microsecond, nothing beside
/// the wait; connections that are busy never do.
const DOZES: Duration = Duration::from_millis(500);

/// How the sweep reaches whoever waits in a request: the connection's task, or a stream's.
#[derive(Default)]
pub struct Waiter {
    waker: RefCell<Option<Waker>>,
    given_up: Cell<bool>,
}

impl Waiter {
    /// Polls the task.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The client does not read: nothing more is written to it.
    pub fn give_up(&self) {
        self.given_up.set(true);
        self.wake();
    }

    /// See [`Waiter::give_up`].
    pub fn is_given_up(&self) -> bool {
        self.given_up.get()
    }

    /// Whom to wake from now on.
    pub fn register(&self, waker: &Waker) {
        let mut registered = self.waker.borrow_mut();
        if !registered.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *registered = Some(waker.clone());
        }
    }
}

/// What the worker knows of one client connection.
pub struct Client {
    ends: Cell<Ends>,
    forwarded_for: OnceCell<String>,
    /// Reaches the connection's task.
    pub waiter: Rc<Waiter>,
    /// Where it was received; `None` if no table named the listener yet.
    listener: Option<Arc<Listener>>,
    /// Where every request is redirected, if the listener does nothing else.
    redirect: Option<Redirect>,
    identity: OnceCell<Arc<ClientIdentity>>,
    phase: Cell<Phase>,
    since: Cell<Micros>,
    cut: Cell<bool>,
    over: Cell<bool>,
    leaving: Cell<Option<Micros>>,
    dozes: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Connected, and nothing said yet.
    Fresh,
    /// Between requests.
    Idle,
    /// Inside a request head.
    Head,
    /// A request is being answered.
    Busy,
    /// The upstream is done; the client has the rest of the answer to read.
    Reading,
}

impl Client {
    /// A client that has just connected, to a listener that some table named.
    pub fn new(ends: Ends, listener: Option<Arc<Listener>>) -> Client {
        Client {
            ends: Cell::new(ends),
            forwarded_for: OnceCell::new(),
            waiter: Rc::default(),
            redirect: listener.as_ref().and_then(|listener| listener.settings.redirect_https).map(to_https),
            listener,
            identity: OnceCell::new(),
            phase: Cell::new(Phase::Fresh),
            since: Cell::new(clock::now()),
            cut: Cell::default(),
            over: Cell::default(),
            leaving: Cell::default(),
            dozes: Cell::default(),
        }
    }

    /// The two ends of its connection: the socket's, or as the PROXY protocol names them.
    pub fn ends(&self) -> Ends {
        self.ends.get()
    }

    /// Whom requests come from at first hand.
    pub fn peer(&self) -> IpAddr {
        self.ends.get().client.ip()
    }

    /// The peer's address as it goes into `X-Forwarded-For`.
    pub fn forwarded_for(&self) -> &str {
        self.forwarded_for.get_or_init(|| self.peer().to_canonical().to_string())
    }

    /// How it speaks to us.
    pub fn scheme(&self) -> Scheme {
        match self.listener.as_ref().is_some_and(|listener| listener.tls.is_some()) {
            true => Scheme::Https,
            false => Scheme::Http,
        }
    }

    /// It may begin with the preface of HTTP/2 without having agreed on it: by prior knowledge, only in the clear, and
    /// before anything else.
    pub fn may_begin_http2(&self) -> bool {
        self.phase.get() == Phase::Fresh
            && self.listener.as_ref().is_none_or(|listener| listener.settings.http2 && listener.tls.is_none())
    }

    /// The fields that tell upstreams who it is, by its certificate.
    pub fn identity(&self) -> &[(&'static str, String)] {
        self.identity.get().map_or(&[], |identity| &identity.fields)
    }

    /// The value of `Strict-Transport-Security` that its answers carry.
    pub fn strict_transport(&self) -> Option<&str> {
        self.listener.as_ref()?.strict_transport.as_deref()
    }

    /// Where its requests are sent instead of being served.
    pub fn redirect(&self) -> Option<&Redirect> {
        self.redirect.as_ref()
    }

    /// It is idle for so long that it lets go what only requests need.
    pub fn dozes(&self) -> bool {
        self.dozes.get()
    }

    /// Waits until a connection that dozes has something to do.
    pub fn poll_roused(&self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<()> {
        self.waiter.register(cx.waker());
        if !self.is_cut() && !self.is_over() {
            ready!(stream.poll_readable(cx));
        }
        self.dozes.set(false);
        Poll::Ready(())
    }

    /// The first bytes of a request came.
    pub fn begins_head(&self) {
        if matches!(self.phase.get(), Phase::Idle | Phase::Fresh) {
            self.phase.set(Phase::Head);
            self.since.set(clock::now());
        }
    }

    /// A request head is complete.
    pub fn busy(&self) {
        self.phase.set(Phase::Busy);
    }

    /// The answer is complete, or given up.
    pub fn idle(&self) {
        self.phase.set(Phase::Idle);
        self.since.set(clock::now());
        self.dozes.set(false);
    }

    /// The client does not take what is left of its answer; `moved` if it took some since the last time.
    pub fn stalls(&self, moved: bool) {
        let before = self.phase.replace(Phase::Reading);
        if moved || before != Phase::Reading {
            self.since.set(clock::now());
        }
    }

    /// It was silent for too long, or took too long over a head.
    pub fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// The process drains, and the client had its time.
    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    /// The process ends: the next answer is its last, and it is closed once it has been idle for a while.
    pub fn leave(&self, now: Micros) {
        self.leaving.set(Some(now));
        self.waiter.wake();
    }

    /// See [`Client::leave`].
    pub fn is_leaving(&self) -> bool {
        self.leaving.get().is_some()
    }

    /// Nothing of a request is under way.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase.get(), Phase::Fresh | Phase::Idle)
    }

    /// The process has no more time for it.
    pub fn cut_off(&self) {
        self.leaving.set(Some(clock::now()));
        self.cut.set(true);
        match self.phase.get() {
            Phase::Reading => self.waiter.give_up(),
            _ => self.waiter.wake(),
        }
    }

    /// It has a request, or had one lately, or is too fresh to tell. A tunnel counts as one long request.
    pub fn is_busy(&self, now: Micros) -> bool {
        matches!(self.phase.get(), Phase::Busy | Phase::Reading) || now <= self.since.get().after(placement::RECENT)
    }

    /// Cuts the connection if it has been silent for too long; closes an idle one that was told to leave. Says why,
    /// the first time it does either.
    pub fn sweep(&self, now: Micros, limits: &settings::Client) -> Option<Closed> {
        let (idle, limit, why) = match self.phase.get() {
            Phase::Busy => return None,
            Phase::Reading => {
                // Even if it was cut before: what explains that may be what it does not read.
                let unread = now > self.since.get().after(limits.unread) && !self.waiter.is_given_up();
                return unread.then(|| {
                    self.cut.set(true);
                    self.waiter.give_up();
                    Closed::Unread
                });
            }
            Phase::Fresh => (true, limits.head_timeout, Closed::HeadTimeout),
            Phase::Idle => (true, limits.keep_alive, Closed::KeepAlive),
            Phase::Head => (false, limits.head_timeout, Closed::HeadTimeout),
        };
        let known = self.over.get() || self.cut.get();
        let mut closed = None;
        let since = self.since.get();
        if let Some(told) = self.leaving.get().filter(|_| idle)
            && now > told.max(since).after(LINGER)
            && !self.over.replace(true)
        {
            self.waiter.wake();
            closed = Some(Closed::Drained);
        }
        if now > since.after(limit) && !self.cut.replace(true) {
            self.waiter.wake();
            closed = closed.or(Some(why));
        }
        if idle && now > since.after(DOZES) && !self.dozes.replace(true) {
            self.waiter.wake();
        }
        closed.filter(|_| !known)
    }
}

/// The port that `https` means by itself (RFC 9110 section 4.2.2).
const HTTPS_PORT: u16 = 443;

fn to_https(port: u16) -> Redirect {
    let port = Some(port).filter(|port| *port != HTTPS_PORT);
    let location = Location::Parts { scheme: Some(Scheme::Https), host: None, port, path: PathEdit::Keep };
    Redirect { status: 308, location }
}

/// Serves one client connection, received by a listener of this number, until either side ends it. It counts from the
/// call on, not from the first poll, so that a drain never overlooks it. `place` is the connection's among all.
pub fn serve(
    worker: Rc<Worker>,
    stream: Stream,
    peer: SocketAddr,
    listener: usize,
    place: admission::Place,
) -> impl Future<Output = ()> {
    let listener = worker.snapshot().table.listeners.get(listener).cloned();
    let ends = Ends { client: peer, destination: None };
    let client = Rc::new(Client::new(ends, listener));
    let seat = Seat::take(&worker, &client);
    async move {
        drive(worker, client, stream, place).await;
        drop(seat);
    }
}

// What is larger than an idle connection need be is boxed.
async fn drive(worker: Rc<Worker>, client: Rc<Client>, stream: Stream, mut place: admission::Place) {
    let received = Box::pin(receive(&worker, &client, stream, &mut place)).await;
    let mut stream = match received {
        None => return,
        Some(Received { stream, speaks_http2: true }) => {
            return serve_http2(&worker, &client, stream, Vec::new()).await;
        }
        Some(Received { stream, .. }) => stream,
    };
    loop {
        // Outside tokio's budget: a poll that stops for fairness before it wrote would leave a head to a later moment,
        // when the table may already say otherwise. What streams yields by itself now and then.
        let serving = tokio::task::unconstrained(Box::pin(http1::client::serve(&worker, &client, stream)));
        let ended = serving.await;
        stream = match ended {
            Ended::Dozing(stream) => stream,
            Ended::Closed(close) => return Box::pin(close.perform(&worker)).await,
            Ended::Http2(stream, early) => return serve_http2(&worker, &client, stream, early).await,
            Ended::Switched(side, tunnel) => {
                client.busy();
                return Box::pin(tunnel::run(side, tunnel)).await;
            }
        };
        poll_fn(|cx| client.poll_roused(cx, &mut stream)).await;
    }
}

async fn serve_http2(worker: &Rc<Worker>, client: &Rc<Client>, stream: Stream, early: Vec<u8>) {
    let serving = tokio::task::unconstrained(Box::pin(http2::server::serve(worker, client, stream, early)));
    let close = serving.await;
    Box::pin(close.perform(worker)).await;
}

/// A connection at the first byte of its first request.
struct Received {
    stream: Stream,
    /// It agreed on HTTP/2.
    speaks_http2: bool,
}

/// What comes before the first request: whose connection it is, and TLS. `None` if it ends there.
async fn receive(
    worker: &Worker,
    client: &Client,
    mut stream: Stream,
    place: &mut admission::Place,
) -> Option<Received> {
    let ends = Ends { destination: stream.local_address(), ..client.ends() };
    client.ends.set(ends);
    let Some(listener) = &client.listener else { return Some(Received { stream, speaks_http2: false }) };
    if let Some(settings) = &listener.settings.proxy_protocol {
        let limits = worker.snapshot();
        let limits = &limits.table.client;
        match proxy_protocol::welcome(&mut stream, Some(settings), ends, limits.head_timeout).await {
            Ok(ends) => client.ends.set(ends),
            Err(error) => {
                tracing::debug!(peer = %ends.client, %error, "connection refused");
                worker.tally().turned_away[Refusal::ProxyProtocol as usize].add(1);
                return None;
            }
        }
        if limits.max_connections_per_source.is_some_and(|limit| !place.claim(client.peer(), limit)) {
            worker.tally().turned_away[Refusal::SourceLimit as usize].add(1);
            return None;
        }
    }
    match (&listener.tls, stream) {
        (None, stream) => Some(Received { stream, speaks_http2: false }),
        (Some(server), Stream::Tcp(stream)) => shake_hands(worker, client, server, stream).await,
        // The configuration allows TLS on TCP only.
        (Some(_), _) => None,
    }
}

/// Shakes hands; `None` if that failed, which is counted.
async fn shake_hands(worker: &Worker, client: &Client, server: &Server, stream: TcpStream) -> Option<Received> {
    let accepted = tls::accept(server, stream).await;
    worker.tally().handshakes.note(accepted.as_ref().map(|accepted| accepted.resumed).map_err(|failure| *failure));
    let accepted = accepted.ok()?;
    if let Some(identity) = accepted.identity {
        let _ = client.identity.set(identity);
    }
    Some(Received { stream: Stream::TlsServer(Box::new(accepted.stream)), speaks_http2: accepted.http2 })
}

/// A connection's seat among the worker's clients; given back however the task ends.
struct Seat {
    worker: Rc<Worker>,
    key: usize,
}

impl Seat {
    fn take(worker: &Rc<Worker>, client: &Rc<Client>) -> Seat {
        Seat { worker: Rc::clone(worker), key: worker.join(client) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.worker.leave(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        let ends = Ends { client: proxy_protocol::LOCAL, destination: None };
        Client::new(ends, None)
    }

    #[test]
    fn a_client_that_read_some_and_then_nothing_is_given_up() {
        for moved in [false, true] {
            let (client, limits) = (client(), settings::Client::default());
            client.busy();
            client.stalls(moved);
            let now = clock::now();
            assert_eq!(client.sweep(now, &limits), None);
            let late = now.after(limits.unread + Duration::from_secs(1));
            assert_eq!(client.sweep(late, &limits), Some(Closed::Unread), "moved: {moved}");
            assert!(client.is_cut() && client.waiter.is_given_up());
            assert_eq!(client.sweep(late, &limits), None, "it is told of once");
        }
    }

    #[test]
    fn an_idle_client_dozes_once_and_not_before_its_time() {
        let (client, limits) = (client(), settings::Client::default());
        for is_busy in [false, true] {
            if is_busy {
                client.busy();
            } else {
                client.idle();
            }
            let now = clock::now();
            assert_eq!(client.sweep(now, &limits), None);
            assert!(!client.dozes());
            assert_eq!(client.sweep(now.after(DOZES * 2), &limits), None);
            assert_eq!(client.dozes(), !is_busy);
            client.dozes.set(false);
        }
        assert!(!client.may_begin_http2(), "it has spoken already");
    }

    #[test]
    fn a_client_that_does_not_read_why_it_was_cut_is_given_up_too() {
        let (client, limits) = (client(), settings::Client::default());
        client.begins_head();
        let slow = clock::now().after(limits.head_timeout + Duration::from_secs(1));
        assert_eq!(client.sweep(slow, &limits), Some(Closed::HeadTimeout));
        client.stalls(false);
        let late = clock::now().after(limits.unread + Duration::from_secs(1));
        assert_eq!(client.sweep(late, &limits), Some(Closed::Unread));
        assert!(client.waiter.is_given_up());
    }
}
