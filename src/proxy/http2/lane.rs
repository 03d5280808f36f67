//! A lane: all links of one worker to one endpoint, and how requests get onto them.
//!
//! A request takes a seat on the first link that has one. If none has, one further link is opened, in a task of its own
//! so that a client that goes away does not take the connection from the others; who came meanwhile waits for it, or for
//! a seat to become free, whichever is first. An endpoint that picks HTTP/1.1 is remembered, so that its requests open
//! their own connections from then on.
//!
//! Invariant: at most one connection of a lane is being opened, at most [`LINKS`] take requests, at most [`WAITING`]
//! requests wait.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::bridge::endpoint::Endpoint;
use crate::clock::Micros;
use crate::config::settings::Protocol;
use crate::proxy::http1::upstream::Connection;
use crate::proxy::http2::link::{self, Door, Link, Seat};
use crate::proxy::upstream::{Dial, Opened, no_room};
use crate::proxy::worker::Worker;

/// Links of one worker to one endpoint: with a hundred streams each, more requests than one core forwards at a time.
pub const LINKS: usize = 8;
/// Requests that wait for a seat: beyond, the endpoint is not slow but down.
pub const WAITING: usize = 1_024;

/// The links to one endpoint.
pub struct Lane {
    endpoint: Arc<Endpoint>,
    links: RefCell<Vec<Rc<Link>>>,
    door: Rc<Door>,
    /// What the endpoint picked last.
    picked: Cell<Option<Picked>>,
    is_opening: Cell<bool>,
    /// Counts attempts to open a link that have ended.
    openings: Cell<u64>,
    /// Which of them failed last, and why.
    failure: RefCell<Option<(u64, io::Error)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Picked {
    Http1,
    Http2,
}

impl Lane {
    /// A lane without links.
    pub fn new(endpoint: &Arc<Endpoint>) -> Lane {
        Lane {
            endpoint: Arc::clone(endpoint),
            links: RefCell::default(),
            door: Rc::default(),
            picked: Cell::default(),
            is_opening: Cell::default(),
            openings: Cell::default(),
            failure: RefCell::default(),
        }
    }

    /// A seat, if a link has one at this moment.
    pub fn take(&self) -> Option<Seat> {
        let mut links = self.links.borrow_mut();
        let seat = links.iter().find_map(Link::seat);
        if seat.is_none() {
            links.retain(|link| !link.is_over());
        }
        seat
    }

    /// True if requests need connections of their own: the choice was the endpoint's, and it picked HTTP/1.1.
    pub fn is_for_http1(&self, protocol: Protocol) -> bool {
        protocol == Protocol::Auto && self.picked.get() == Some(Picked::Http1)
    }

    /// Opens a link over a stream for requests to take seats on.
    ///
    /// # Errors
    /// See [`link::open`].
    pub async fn join(&self, opened: Opened, dial: &Dial) -> io::Result<()> {
        let link = link::open(opened, &dial.keep, &self.door).await?;
        self.picked.set(Some(Picked::Http2));
        self.links.borrow_mut().push(link);
        Ok(())
    }

    /// Waits for a seat, at most for the time that opening a connection may take. `None` if the endpoint picked HTTP/1.1.
    ///
    /// # Errors
    /// When no connection could be opened, or no stream became free in time.
    pub async fn seat(self: &Rc<Lane>, worker: &Rc<Worker>, dial: Dial) -> io::Result<Option<Seat>> {
        let limit = dial.limit;
        let _waiting = Waiting::at(&self.door)?;
        let seated = async {
            loop {
                let freed = self.door.freed.notified();
                if let Some(seat) = self.take() {
                    if self.door.waiting.get() > 1 {
                        // Where one was free, more may be.
                        self.door.freed.notify_one();
                    }
                    return Ok(Some(seat));
                }
                if self.is_for_http1(dial.protocol) {
                    return Ok(None);
                }
                let begun = self.openings.get();
                if !self.is_opening.get() && self.links.borrow().len() < LINKS {
                    tokio::task::spawn_local(Opening::begin(self).run(Rc::clone(worker), dial.clone()));
                }
                freed.await;
                if let Some(error) = self.failed_since(begun) {
                    return Err(error);
                }
            }
        };
        let is_full = || !self.links.borrow().is_empty();
        tokio::time::timeout(limit, seated).await.unwrap_or_else(|_| match is_full() {
            true => Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the endpoint takes no more requests at a time")),
            false => Err(io::ErrorKind::TimedOut.into()),
        })
    }

    /// Why the opening that was waited for failed, unless there are links to wait for all the same.
    fn failed_since(&self, begun: u64) -> Option<io::Error> {
        if !self.links.borrow().is_empty() {
            return None;
        }
        let failure = self.failure.borrow();
        let (_, error) = failure.as_ref().filter(|(opening, _)| *opening > begun)?;
        // The system's own errors stay what they are: some of them are our own fault.
        let same = |code| Some(io::Error::from_raw_os_error(code));
        error.raw_os_error().map_or_else(|| Some(io::Error::new(error.kind(), error.to_string())), same)
    }

    /// Lets links of an endpoint that leaves take no more requests; each ends with its last.
    pub fn let_go(&self) {
        if self.endpoint.is_leaving() {
            self.links.borrow().iter().for_each(|link| link.retire());
        }
    }

    /// Lets idle, silent and ended links go. False once the lane itself can go: its endpoint is gone.
    pub fn sweep(&self, now: Micros) -> bool {
        self.links.borrow_mut().retain(|link| link.sweep(now));
        !self.endpoint.is_retired()
    }
}

/// A connection being opened; however that ends, whoever waits hears of it.
struct Opening(Rc<Lane>);

impl Opening {
    fn begin(lane: &Rc<Lane>) -> Opening {
        lane.is_opening.set(true);
        Opening(Rc::clone(lane))
    }

    async fn run(self, worker: Rc<Worker>, dial: Dial) {
        let opened = tokio::time::timeout(dial.limit, self.open(&worker, &dial)).await;
        if let Err(error) = opened.unwrap_or(Err(io::ErrorKind::TimedOut.into())) {
            let this = self.0.openings.get() + 1;
            self.0.failure.replace(Some((this, error)));
        }
    }

    async fn open(&self, worker: &Worker, dial: &Dial) -> io::Result<()> {
        let place = dial.room.connections.take().map_err(|_| no_room())?;
        let opened = dial.open(place).await?;
        if opened.is_http2 {
            return self.0.join(opened, dial).await;
        }
        self.0.picked.set(Some(Picked::Http1));
        worker.connections.put(Connection::new(opened.stream, opened.slot, &dial.keep));
        Ok(())
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.is_opening.set(false);
        self.0.openings.set(self.0.openings.get() + 1);
        self.0.door.freed.notify_waiters();
    }
}

/// A request that waits.
struct Waiting<'a>(&'a Door);

impl Waiting<'_> {
    fn at(door: &Door) -> io::Result<Waiting<'_>> {
        if door.waiting.get() >= WAITING {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many requests wait for a connection"));
        }
        door.waiting.set(door.waiting.get() + 1);
        Ok(Waiting(door))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}
