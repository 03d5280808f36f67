//! Listening: one socket per worker and address, and the loop that accepts from it.
//!
//! Every worker binds the same address with `SO_REUSEPORT`, so the kernel spreads connections and no lock is
//! shared. When descriptors run out, or the connection limit is reached, accepting pauses instead of spinning.
//!
//! Invariant: a connection that the kernel already queued is served even while draining begins.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::proxy::connection;
use crate::proxy::worker::Worker;

/// Queued connections per listener: the kernel's own usual ceiling.
const BACKLOG: i32 = 4_096;
/// How long accepting pauses when the process has no descriptor or place left.
const PAUSE: Duration = Duration::from_millis(20);

/// Binds `address` once per worker; with port 0 the first bind chooses and the others follow.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<StdListener>> {
    let first = bind_one(address)?;
    let chosen = first.local_addr()?;
    let others = (1..workers).map(|_| bind_one(chosen));
    std::iter::once(Ok(first)).chain(others).collect()
}

fn bind_one(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // `[::]` beside `0.0.0.0` on one port is legal and means both.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The accept loop of one listener; ends when the worker drains and the queue is empty.
///
/// # Errors
/// When the socket cannot be registered with the runtime.
pub fn accept(worker: Rc<Worker>, socket: StdListener) -> io::Result<impl Future<Output = ()>> {
    let listener = TcpListener::from_std(socket)?;
    Ok(async move {
        loop {
            let drained = async {
                while !worker.plane.roster.is_draining() {
                    tokio::time::sleep(PAUSE).await;
                }
            };
            tokio::select! {
                biased;
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => admit(&worker, stream, peer).await,
                    Err(error) => pause_after(&error).await,
                },
                () = drained => return,
            }
        }
    })
}

/// With several workers the limit may be passed by one connection each: checking and counting are two steps.
async fn admit(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let limit = worker.snapshot().table.client.max_connections;
    while worker.plane.connections.load(Relaxed) >= limit && !worker.is_draining() {
        tokio::time::sleep(PAUSE).await;
    }
    worker.plane.connections.fetch_add(1, Relaxed);
    let _ = stream.set_nodelay(true);
    tokio::task::spawn_local(connection::serve(Rc::clone(worker), stream, peer));
}

/// Errors of one connection pass; errors of the process (descriptors, memory) need a breath.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "accepting paused");
        tokio::time::sleep(PAUSE).await;
    }
}
