//! A client connection, whatever it speaks: what the worker knows of it, and its life from accept to close.
//!
//! No connection owns a timer. The worker's sweep looks at every client now and then and tells one that is silent
//! for too long, that does not read, or that may go because the process drains; it is told by a flag and a wake.
//!
//! Invariant: a connection is cut only between requests or inside a request head, never inside an answer that moves.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bridge::admission::Closed;
use crate::clock::{self, Micros};
use crate::config::settings;
use crate::domain::placement;
use crate::proxy::http1;
use crate::proxy::stream::Stream;
use crate::proxy::tunnel;
use crate::proxy::worker::Worker;

/// While draining, how long an idle connection is kept for a request that may be on its way: it is answered, and the
/// answer says that it was the last. Closing at once would hang up on clients that were never told.
const LINGER: Duration = Duration::from_millis(500);

/// How long a client may leave an answer unread that is complete on our side.
const UNREAD: Duration = Duration::from_secs(30);

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
    /// The other end.
    pub peer: SocketAddr,
    /// The peer's address as it goes into `X-Forwarded-For`.
    pub forwarded_for: String,
    /// Reaches the connection's task.
    pub waiter: Rc<Waiter>,
    phase: Cell<Phase>,
    since: Cell<Micros>,
    cut: Cell<bool>,
    over: Cell<bool>,
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
    /// A client that has just connected.
    pub fn new(peer: SocketAddr) -> Client {
        Client {
            peer,
            forwarded_for: peer.ip().to_canonical().to_string(),
            waiter: Rc::default(),
            phase: Cell::new(Phase::Fresh),
            since: Cell::new(clock::now()),
            cut: Cell::default(),
            over: Cell::default(),
        }
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
    }

    /// The client does not take what is left of its answer; `moved` if it took some since the last time.
    pub fn stalls(&self, moved: bool) {
        if moved || self.phase.replace(Phase::Reading) != Phase::Reading {
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

    /// It has a request, or had one lately, or is too fresh to tell. A tunnel counts as one long request.
    pub fn is_busy(&self, now: Micros) -> bool {
        matches!(self.phase.get(), Phase::Busy | Phase::Reading) || now <= self.since.get().after(placement::RECENT)
    }

    /// Cuts the connection if it has been silent for too long; closes an idle one politely while draining. Says why,
    /// the first time it does either.
    pub fn sweep(&self, now: Micros, limits: &settings::Client, draining: Option<Micros>) -> Option<Closed> {
        let (idle, limit, why) = match self.phase.get() {
            Phase::Busy => return None,
            Phase::Reading => {
                let unread = now > self.since.get().after(UNREAD) && !self.cut.replace(true);
                return unread.then(|| {
                    self.waiter.give_up();
                    Closed::Unread
                });
            }
            Phase::Fresh => (true, limits.head_timeout, Closed::HeadTimeout),
            Phase::Idle => (true, limits.keep_alive, Closed::KeepAlive),
            Phase::Head => (false, limits.head_timeout, Closed::HeadTimeout),
        };
        let told = self.over.get() || self.cut.get();
        let mut closed = None;
        let since = self.since.get();
        if let Some(began) = draining.filter(|_| idle)
            && now > began.max(since).after(LINGER)
            && !self.over.replace(true)
        {
            self.waiter.wake();
            closed = Some(Closed::Drained);
        }
        if now > since.after(limit) && !self.cut.replace(true) {
            self.waiter.wake();
            closed = closed.or(Some(why));
        }
        closed.filter(|_| !told)
    }
}

/// How a connection is to be closed.
pub enum Close {
    /// Nothing is owed by either side.
    Clean(Stream),
    /// The client may still be sending: closing over unread bytes would reset the connection, and the answer that
    /// explains the early end may be lost with it.
    Unread(Stream),
    /// The end of the connection would look like the end of an answer that was cut short.
    Reset(Stream),
}

/// Serves one client connection until either side ends it. It counts from the call on, not from the first poll, so
/// that a drain never overlooks it.
pub fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) -> impl Future<Output = ()> {
    let client = Rc::new(Client::new(peer));
    let place = Place::take(&worker, &client);
    drive(worker, client, Stream::Tcp(stream), place)
}

async fn drive(worker: Rc<Worker>, client: Rc<Client>, stream: Stream, _place: Place) {
    // Outside tokio's budget: a poll that stops for fairness before it wrote would leave a head to a later moment, when
    // the table may already say otherwise. What streams yields by itself now and then.
    let ended = tokio::task::unconstrained(http1::client::serve(&worker, &client, stream)).await;
    match ended {
        http1::client::Ended::Closed(close) => close.perform().await,
        http1::client::Ended::Switched(side, tunnel) => {
            client.busy();
            tunnel::run(side, tunnel).await;
        }
    }
}

impl Close {
    async fn perform(self) {
        match self {
            Close::Clean(mut stream) => {
                let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
            }
            Close::Reset(stream) => stream.reset_on_close(),
            Close::Unread(mut stream) => {
                let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
                let mut sink = [0; 4_096];
                let drained = async { while let Ok(1..) = stream.read(&mut sink).await {} };
                let _ = tokio::time::timeout(LINGER, drained).await;
            }
        }
    }
}

/// A connection's place among the worker's clients; given back however the task ends.
struct Place {
    worker: Rc<Worker>,
    key: usize,
}

impl Place {
    fn take(worker: &Rc<Worker>, client: &Rc<Client>) -> Place {
        Place { worker: Rc::clone(worker), key: worker.join(client) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.worker.leave(self.key);
    }
}
