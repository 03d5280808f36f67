//! Upstream connections: opened per worker and endpoint, and reused.
//!
//! Over HTTP/1.1 each request has a connection to itself; idle ones are kept and reused last-in first-out. Such a
//! connection has no task of its own: whoever sends a request over it polls it, and while it is idle nobody does. One that
//! the server closed shows by its readiness, before a byte of a request is written. Over HTTP/2 requests share
//! connections; see [`crate::proxy::http2::lane`]. Which of the two it is says the pool, or by ALPN the endpoint.
//!
//! Invariant: a connection that is not quiet is never used, and one of an endpoint that leaves never kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use crate::bridge::endpoint::{Endpoint, Slot, Target};
use crate::bridge::room::{Room, Taken};
use crate::bridge::table::Pool;
use crate::bridge::tls::{self, Connector};
use crate::clock::{self, Micros};
use crate::config::settings::{self, Protocol};
use crate::domain::proxy_protocol::Version;
use crate::proxy::http1::upstream::Connection;
use crate::proxy::http2::lane::Lane;
use crate::proxy::http2::link::Seat;
use crate::proxy::proxy_protocol::{self, Ends};
use crate::proxy::stream::Stream;
use crate::proxy::worker::Worker;

/// A way to an endpoint that is open for one request.
pub enum Reached {
    /// A connection of its own.
    Http1(Box<Connection>),
    /// A place on a shared one.
    Http2(Seat),
}

/// How an endpoint is called.
#[derive(Clone)]
pub struct Dial {
    /// Whom.
    pub endpoint: Arc<Endpoint>,
    /// The client side of TLS; `None` without.
    pub connector: Option<Arc<Connector>>,
    /// What it speaks.
    pub protocol: Protocol,
    /// How long connections may be kept.
    pub keep: settings::Connections,
    /// The time it may take until a request can be sent.
    pub limit: Duration,
    /// Where a connection finds its place among those of the pool.
    pub room: Arc<Room>,
    /// The endpoint is told whose connection it is, and whose that is: no other client's request may use it.
    pub greeting: Option<(Version, Ends)>,
}

/// Why there is no connection, as far as it matters who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// The endpoint has no address, refused, or did not answer in time.
    Failed,
    /// It has as many connections as it may have.
    Full,
    /// This process has no descriptor or memory left: nobody else's fault.
    Exhausted,
}

impl Unopened {
    /// What an error of opening means.
    pub fn of(error: &io::Error) -> Unopened {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL) => {
                Unopened::Exhausted
            }
            None if error.kind() == io::ErrorKind::QuotaExceeded => Unopened::Full,
            _ => Unopened::Failed,
        }
    }
}

/// A stream on which the endpoint is to be spoken to.
pub struct Opened {
    /// The stream.
    pub stream: Stream,
    /// Its place among the endpoint's connections.
    pub slot: Slot,
    /// HTTP/2 was agreed on, or is known beforehand.
    pub is_http2: bool,
}

/// What a request goes by: one that wants to switch protocols needs a connection to itself, and gets it where the pool
/// leaves the choice open.
fn protocol_for(pool: &Pool, switches: bool) -> Protocol {
    match pool.protocol {
        Protocol::Auto if switches || pool.connector.is_none() => Protocol::Http1,
        protocol => protocol,
    }
}

/// A way for one request that is open already, if there is one.
pub fn at_hand(worker: &Worker, endpoint: &Arc<Endpoint>, pool: &Pool, switches: bool) -> Option<Reached> {
    let connections = &worker.connections;
    let protocol = protocol_for(pool, switches);
    let lane = (protocol != Protocol::Http1).then(|| connections.lane(endpoint));
    match lane.filter(|lane| !lane.is_for_http1(protocol)) {
        Some(lane) => lane.take().map(Reached::Http2),
        None => connections.take(endpoint).map(Reached::Http1),
    }
}

impl Dial {
    /// How an endpoint of a pool is called for a request.
    pub fn new(
        endpoint: &Arc<Endpoint>,
        pool: &Pool,
        settings: &settings::Service,
        switches: bool,
        max_requests: Option<NonZeroU32>,
        client: Ends,
    ) -> Dial {
        Dial {
            endpoint: Arc::clone(endpoint),
            connector: pool.connector.clone(),
            protocol: protocol_for(pool, switches),
            keep: settings::Connections { max_requests, ..settings.connections.clone() },
            room: Arc::clone(&pool.room),
            limit: settings.timeouts.connect,
            greeting: pool.proxy_protocol.map(|version| (version, client)),
        }
    }

    /// Opens a way for one request, alone or together with others that ask for the same.
    ///
    /// # Errors
    /// When the endpoint has no address, refuses, does not speak what the pool wants, or takes too long.
    pub async fn reach(self, worker: &Rc<Worker>) -> io::Result<Reached> {
        if self.protocol == Protocol::Http1 {
            return self.reach_alone(worker).await;
        }
        let lane = worker.connections.lane(&self.endpoint);
        if !lane.is_for_http1(self.protocol)
            && let Some(seat) = lane.seat(worker, self.clone()).await?
        {
            return Ok(Reached::Http2(seat));
        }
        self.reach_alone(worker).await
    }

    async fn reach_alone(self, worker: &Rc<Worker>) -> io::Result<Reached> {
        if let Some(connection) = worker.connections.take(&self.endpoint) {
            return Ok(Reached::Http1(connection));
        }
        // Waited for outside the limit of time, which is the endpoint's.
        let place = self.room.connections.wait().await.map_err(|_| no_room())?;
        if let Some(connection) = worker.connections.take(&self.endpoint) {
            return Ok(Reached::Http1(connection));
        }
        let opening = async {
            let opened = self.open(place).await?;
            if !opened.is_http2 {
                let mut connection = Connection::new(opened.stream, opened.slot, &self.keep);
                connection.is_private = self.greeting.is_some();
                return Ok(Reached::Http1(connection));
            }
            // The endpoint has learned it since it was last asked.
            let lane = worker.connections.lane(&self.endpoint);
            lane.join(opened, &self).await?;
            lane.take().map(Reached::Http2).ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
        };
        tokio::time::timeout(self.limit, opening).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Opens a connection that has its place in the pool. The caller sets the limit of time.
    ///
    /// # Errors
    /// See [`Dial::reach`].
    pub async fn open(&self, place: Option<Taken>) -> io::Result<Opened> {
        let full = || io::Error::new(io::ErrorKind::QuotaExceeded, "the endpoint has all the connections it may have");
        let slot = self.endpoint.enter(self.keep.max).ok_or_else(full)?.within(&self.room, place);
        let mut stream = self.connect().await?;
        if let Some((version, client)) = self.greeting {
            stream.write_all(&proxy_protocol::greeting(version, client)).await?;
        }
        match (&self.connector, stream) {
            (Some(connector), Stream::Tcp(stream)) => {
                let stream = connector.connect_for(self.protocol, &self.endpoint.address, stream).await?;
                Ok(Opened { is_http2: tls::is_http2(&stream), stream: Stream::TlsClient(Box::new(stream)), slot })
            }
            (_, stream) => Ok(Opened { stream, slot, is_http2: self.protocol == Protocol::Http2 }),
        }
    }

    async fn connect(&self) -> io::Result<Stream> {
        match self.endpoint.resolved() {
            None => Err(io::Error::other("the endpoint's name has not resolved")),
            Some(Target::Unix(path)) => UnixStream::connect(path).await.map(Stream::Unix),
            Some(Target::Tcp(address)) => {
                let stream = TcpStream::connect(*address).await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

/// The pool has all the connections it may have.
pub fn no_room() -> io::Error {
    io::Error::new(io::ErrorKind::QuotaExceeded, "the pool has all the connections it may have")
}

/// The connections of one worker, by endpoint.
#[derive(Default)]
pub struct Connections {
    idle: RefCell<ByEndpoint<Idle>>,
    lanes: RefCell<ByEndpoint<Rc<Lane>>>,
}

type ByEndpoint<T> = HashMap<u64, T, BuildHasherDefault<Identity>>;

#[allow(
    clippy::vec_box,
    reason = "a connection is over 100 bytes and moves between list and exchange on every request"
)]
type Idle = Vec<Box<Connection>>;

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
    /// The connection used last that is still quiet, if one is idle.
    pub fn take(&self, endpoint: &Endpoint) -> Option<Box<Connection>> {
        let mut lists = self.idle.borrow_mut();
        let list = lists.get_mut(&endpoint.id)?;
        std::iter::from_fn(|| list.pop()).find_map(|mut connection| connection.is_quiet().then_some(connection))
    }

    /// Puts a clean connection back, or drops it: one too many, or its endpoint is gone.
    pub fn put(&self, mut connection: Box<Connection>) {
        if connection.endpoint().is_leaving() || connection.is_private || connection.is_wanted() {
            return;
        }
        let mut lists = self.idle.borrow_mut();
        let list = lists.entry(connection.endpoint().id).or_default();
        if list.len() < connection.keep.max_idle {
            connection.idle_since = clock::now();
            list.push(connection);
        }
    }

    /// Gives back what a request did not use after all.
    pub fn give_back(&self, reached: Reached) {
        match reached {
            Reached::Http1(connection) => self.put(connection),
            Reached::Http2(seat) => drop(seat),
        }
    }

    /// The shared connections to an endpoint.
    fn lane(&self, endpoint: &Arc<Endpoint>) -> Rc<Lane> {
        let mut lanes = self.lanes.borrow_mut();
        Rc::clone(lanes.entry(endpoint.id).or_insert_with(|| Rc::new(Lane::new(endpoint))))
    }

    /// Closes what is idle towards endpoints that are gone or out of use; what is busy closes after its request.
    pub fn let_go(&self) {
        let stays = |list: &Idle| list.first().is_some_and(|connection| !connection.endpoint().is_leaving());
        self.idle.borrow_mut().retain(|_, list| stays(list));
        self.lanes.borrow().values().for_each(|lane| lane.let_go());
    }

    /// Closes what died, was idle for too long, or belongs to an endpoint that is gone.
    pub fn sweep(&self, now: Micros) {
        self.idle.borrow_mut().retain(|_, list| {
            list.retain_mut(|connection| {
                let expires = connection.idle_since.after(connection.keep.idle);
                let is_kept = !connection.endpoint().is_leaving() && !connection.is_wanted();
                is_kept && now < expires && connection.is_quiet()
            });
            !list.is_empty()
        });
        self.lanes.borrow_mut().retain(|_, lane| lane.sweep(now));
    }
}
