//! Upstream connections: opened per worker and endpoint, reused last-in first-out, driven by their request.
//!
//! A connection has no task of its own: whoever sends a request over it polls it, and while it is idle nobody
//! does. So the head leaves in the same poll in which the dispatch was decided, which the acknowledgement of a
//! switch relies on, and no task is woken per request. An idle connection that the server closed is found at its
//! next use, before a byte of the request is written, or by the sweep.
//!
//! Invariant: a connection goes back to the list only if its last exchange ended cleanly on both sides.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::bridge::endpoint::{Endpoint, Target};
use crate::bridge::observations::Failure;
use crate::clock::{self, Micros};
use crate::config::settings;
use crate::proxy::body::Upload;
use crate::proxy::recorder::Attempt;

/// One open connection to an endpoint.
pub struct Connection {
    sender: http1::SendRequest<Upload>,
    /// Gone once hyper said that it ended.
    link: Option<Link>,
    endpoint: Arc<Endpoint>,
    keep: settings::Connections,
    idle_since: Micros,
    /// It has answered a request before.
    pub is_reused: bool,
    /// Never to be reused: bytes may still be owed on it, or it speaks HTTP/1.0, of which hyper would then frame
    /// uploads.
    pub is_spent: bool,
}

type Link = http1::Connection<TokioIo<TcpStream>, Upload>;

/// Why no response head came.
pub enum Broken {
    /// Nothing was written; the request is handed back.
    Unsent(Box<Request<Upload>>),
    /// The upstream failed.
    Failed(Failure),
}

/// What a 101 leaves: the raw stream, and what was read past the head.
pub struct Raw {
    /// The stream.
    pub stream: TcpStream,
    /// Bytes of the new protocol that came with the head.
    pub early: bytes::Bytes,
}

impl Connection {
    /// Opens a connection within `limit`.
    ///
    /// # Errors
    /// When the endpoint has no address, refuses, or does not answer in time.
    pub async fn open(
        endpoint: &Arc<Endpoint>,
        keep: &settings::Connections,
        limit: Duration,
    ) -> io::Result<Box<Connection>> {
        let address = match endpoint.resolved() {
            Some(Target::Tcp(address)) => *address,
            Some(Target::Unix(_)) => return Err(io::ErrorKind::Unsupported.into()),
            None => return Err(io::Error::other("the endpoint's name has not resolved")),
        };
        let stream = tokio::time::timeout(limit, TcpStream::connect(address)).await;
        let stream = stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        let handshake = http1::Builder::new().writev(false).handshake(TokioIo::new(stream)).await;
        let (sender, link) = handshake.map_err(io::Error::other)?;
        let mut connection = Connection {
            sender,
            link: Some(link),
            endpoint: Arc::clone(endpoint),
            keep: keep.clone(),
            idle_since: clock::now(),
            is_reused: false,
            is_spent: false,
        };
        // One poll makes the sender ready.
        connection.drive(&mut Context::from_waker(Waker::noop()));
        Ok(Box::new(connection))
    }

    /// Sends a request and waits for its response head; writes within the first poll, without yielding before.
    ///
    /// # Errors
    /// See [`Broken`].
    pub async fn exchange(
        &mut self,
        request: Request<Upload>,
        attempt: &Attempt,
    ) -> Result<Response<Incoming>, Broken> {
        let mut head = std::pin::pin!(self.sender.try_send_request(request));
        let link = &mut self.link;
        let answer = std::future::poll_fn(|cx| {
            if attempt.is_expired() {
                return Poll::Ready(Err(Broken::Failed(Failure::Timeout)));
            }
            let ended = link.as_mut().is_none_or(|link| link.poll_without_shutdown(cx).is_ready());
            let answer = head.as_mut().poll(cx);
            if answer.is_pending() && ended {
                // It died while idle: only its drop gives the unsent request back.
                *link = None;
                return head.as_mut().poll(cx).map_err(Broken::from);
            }
            answer.map_err(Broken::from)
        });
        // Outside tokio's budget: a poll that stops for fairness before it wrote would leave the head to a later moment,
        // when the table may already say otherwise.
        tokio::task::unconstrained(answer).await
    }

    /// Drives the connection for the body that it is receiving or sending.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        if self.link.as_mut().is_some_and(|link| link.poll_without_shutdown(cx).is_ready()) {
            // What it had to say to the body it said before it ended.
            self.link = None;
        }
    }

    /// True if the connection can take the next request: its last exchange is over on both sides.
    fn is_clean(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.link.is_some() && self.sender.is_ready()
    }

    /// After a 101: waits until hyper lets go of the stream and takes it. `None` if it broke off meanwhile.
    pub async fn into_raw(mut self: Box<Self>) -> Option<Raw> {
        let mut link = self.link.take()?;
        std::future::poll_fn(|cx| link.poll_without_shutdown(cx)).await.ok()?;
        let parts = link.into_parts();
        Some(Raw { stream: parts.io.into_inner(), early: parts.read_buf })
    }
}

impl From<TrySendError<Request<Upload>>> for Broken {
    fn from(mut error: TrySendError<Request<Upload>>) -> Broken {
        match error.take_message() {
            Some(request) => Broken::Unsent(Box::new(request)),
            None => Broken::Failed(Failure::Reset),
        }
    }
}

/// The idle connections of one worker, by endpoint.
#[derive(Default)]
#[allow(
    clippy::vec_box,
    reason = "a connection is over 500 bytes and moves between list and exchange on every request"
)]
pub struct Connections(RefCell<HashMap<u64, Vec<Box<Connection>>, BuildHasherDefault<Identity>>>);

/// Endpoint ids are small consecutive numbers: they are their own hash.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, id: u64) {
        // The table's control bits come from the top, its place from the bottom.
        self.0 = id | id << 57;
    }
}

impl Connections {
    /// The connection used last, if one is idle. It may have died since: the exchange finds out before it writes.
    pub fn take(&self, endpoint: &Endpoint) -> Option<Box<Connection>> {
        self.0.borrow_mut().get_mut(&endpoint.id)?.pop()
    }

    /// Puts a connection back, or drops it: unclean, one too many, or its endpoint is gone.
    pub fn put(&self, mut connection: Box<Connection>) {
        if connection.is_spent || connection.endpoint.is_retired() || !connection.is_clean() {
            return;
        }
        let mut lists = self.0.borrow_mut();
        let list = lists.entry(connection.endpoint.id).or_default();
        if list.len() < connection.keep.max_idle {
            connection.idle_since = clock::now();
            connection.is_reused = true;
            list.push(connection);
        }
    }

    /// Closes what died, was idle for too long, or belongs to an endpoint that is gone.
    pub fn sweep(&self, now: Micros) {
        self.0.borrow_mut().retain(|_, list| {
            list.retain_mut(|connection| {
                let expires = connection.idle_since.after(connection.keep.idle);
                !connection.endpoint.is_retired() && now < expires && connection.is_clean()
            });
            !list.is_empty()
        });
    }
}
