//! Upstream connections: opened per worker and endpoint, reused last-in first-out.
//!
//! A connection has no task of its own: whoever sends a request over it polls it, and while it is idle nobody
//! does. An idle connection that the server closed shows by its readiness, before a byte of a request is written.
//!
//! Invariant: a connection that is not quiet is never used, and one of a retired endpoint never kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use crate::bridge::endpoint::{Endpoint, Target};
use crate::bridge::table::Pool;
use crate::clock::{self, Micros};
use crate::config::settings;
use crate::proxy::http1::upstream::Connection;
use crate::proxy::proxy_protocol::{self, Ends};
use crate::proxy::stream::Stream;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Unopened {
    /// The endpoint has no address, refused, or did not answer in time.
    #[error("{0}")]
    Failed(io::Error),
    /// It has as many connections as it may have.
    #[error("the endpoint has as many connections as it may have")]
    Full,
    /// This process has no descriptor or memory left: nobody else's fault.
    #[error("out of descriptors or memory: {0}")]
    Exhausted(io::Error),
}

impl From<io::Error> for Unopened {
    fn from(error: io::Error) -> Unopened {
        match Errno::from_io_error(&error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL) => {
                Unopened::Exhausted(error)
            }
            _ => Unopened::Failed(error),
        }
    }
}

/// Opens a connection within `limit`.
///
/// # Errors
/// See [`Unopened`].
pub async fn open(
    endpoint: &Arc<Endpoint>,
    pool: &Pool,
    keep: &settings::Connections,
    limit: Duration,
    client: Ends,
) -> Result<Box<Connection>, Unopened> {
    let slot = endpoint.enter(keep.max).ok_or(Unopened::Full)?;
    let stream = tokio::time::timeout(limit, connect(endpoint, pool, client)).await;
    let stream = stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(Unopened::from)?;
    let mut connection = Connection::new(stream, slot, keep);
    connection.is_private = pool.proxy_protocol.is_some();
    Ok(connection)
}

async fn connect(endpoint: &Endpoint, pool: &Pool, client: Ends) -> io::Result<Stream> {
    let mut stream = match endpoint.resolved() {
        None => return Err(io::Error::other("the endpoint's name has not resolved")),
        Some(Target::Unix(path)) => Stream::Unix(UnixStream::connect(path).await?),
        Some(Target::Tcp(address)) => {
            let stream = TcpStream::connect(*address).await?;
            stream.set_nodelay(true)?;
            Stream::Tcp(stream)
        }
    };
    if let Some(version) = pool.proxy_protocol {
        stream.write_all(&proxy_protocol::greeting(version, client)).await?;
    }
    Ok(match (&pool.connector, stream) {
        (Some(connector), Stream::Tcp(stream)) => {
            Stream::TlsClient(Box::new(connector.connect(&endpoint.address, stream).await?))
        }
        (_, stream) => stream,
    })
}

/// The idle connections of one worker, by endpoint.
#[derive(Default)]
#[allow(
    clippy::vec_box,
    reason = "a connection is over 100 bytes and moves between list and exchange on every request"
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
    /// The connection used last that is still quiet, if one is idle.
    pub fn take(&self, endpoint: &Endpoint) -> Option<Box<Connection>> {
        let mut lists = self.0.borrow_mut();
        let list = lists.get_mut(&endpoint.id)?;
        std::iter::from_fn(|| list.pop()).find_map(|mut connection| connection.is_quiet().then_some(connection))
    }

    /// Puts a clean connection back, or drops it: one too many, or its endpoint is gone.
    pub fn put(&self, mut connection: Box<Connection>) {
        if connection.endpoint().is_retired() || connection.is_private {
            return;
        }
        let mut lists = self.0.borrow_mut();
        let list = lists.entry(connection.endpoint().id).or_default();
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
                !connection.endpoint().is_retired() && now < expires && connection.is_quiet()
            });
            !list.is_empty()
        });
    }
}
