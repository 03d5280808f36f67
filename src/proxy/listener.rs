//! Listening: one socket per worker and address, the loop that accepts from it, and who serves what it accepts.
//!
//! Every worker binds the same address with `SO_REUSEPORT`, so the kernel spreads connections without a lock. Where it
//! spreads them badly, the accepting worker hands a fresh connection to the less loaded one before a byte of it is
//! read (Decisions 11).
//!
//! Every connection needs a place. While there is none, or no descriptor, accepting pauses: clients wait in the
//! kernel's queue, and the loop looks again every [`PAUSE`] instead of spinning. A source that has all it may have is
//! hung up on.
//!
//! Invariant: a connection that the kernel already queued is served even while draining begins, if a place becomes
//! free within the grace time, or left to a successor; one that was handed over is served by the worker it was given to.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::bridge::admission::{Arrival, Pause, Place, Refusal, Socket as Arriving};
use crate::clock;
use crate::proxy::connection;
use crate::proxy::proxy_protocol::LOCAL;
use crate::proxy::stream::Stream;
use crate::proxy::worker::Worker;
use crate::telemetry::log::Throttle;

/// Queued connections per listener: the kernel's own usual ceiling.
const BACKLOG: i32 = 4_096;
/// How long accepting pauses when the process has no descriptor or place left.
const PAUSE: Duration = Duration::from_millis(20);

/// A socket that is listened on.
#[derive(Debug)]
pub enum Listening {
    /// TCP, as a rule one for each worker.
    Tcp(StdListener),
    /// A Unix socket, shared by all workers.
    Unix(StdUnixListener),
}

/// The same, registered with a worker's runtime.
enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    /// Another handle for the same socket.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Listening> {
        match self {
            Listening::Tcp(listener) => listener.try_clone().map(Listening::Tcp),
            Listening::Unix(listener) => listener.try_clone().map(Listening::Unix),
        }
    }

    /// Where it listens over TCP.
    ///
    /// # Errors
    /// When the system does not know the socket.
    pub fn local_address(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Listening::Tcp(listener) => listener.local_addr().map(Some),
            Listening::Unix(_) => Ok(None),
        }
    }

    /// A connection that the kernel has queued, not blocking, and its other end.
    fn accept(&self) -> io::Result<(Arriving, SocketAddr)> {
        match self {
            Listening::Tcp(listener) => {
                let (socket, peer) = listener.accept()?;
                socket.set_nonblocking(true)?;
                Ok((Arriving::Tcp(socket), peer))
            }
            Listening::Unix(listener) => {
                let (socket, _) = listener.accept()?;
                socket.set_nonblocking(true)?;
                Ok((Arriving::Unix(socket), LOCAL))
            }
        }
    }
}

impl From<Listening> for OwnedFd {
    fn from(listening: Listening) -> OwnedFd {
        match listening {
            Listening::Tcp(listener) => listener.into(),
            Listening::Unix(listener) => listener.into(),
        }
    }
}

impl Accepting {
    fn new(listening: Listening) -> io::Result<Accepting> {
        Ok(match listening {
            Listening::Tcp(listener) => Accepting::Tcp(TcpListener::from_std(listener)?),
            Listening::Unix(listener) => Accepting::Unix(UnixListener::from_std(listener)?),
        })
    }

    async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Accepting::Tcp(listener) => listener.accept().await.map(|(stream, peer)| (Stream::Tcp(stream), peer)),
            Accepting::Unix(listener) => listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), LOCAL)),
        }
    }

    fn into_std(self) -> io::Result<Listening> {
        match self {
            Accepting::Tcp(listener) => listener.into_std().map(Listening::Tcp),
            Accepting::Unix(listener) => listener.into_std().map(Listening::Unix),
        }
    }
}

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
    // Accepted sockets inherit it, which saves a call for each.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        // `[::]` beside `0.0.0.0` on one port is legal and means both.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The accept loop of the listener with this number; ends when the worker drains and the queue is empty.
///
/// # Errors
/// When the socket cannot be registered with the runtime.
pub fn accept(worker: Rc<Worker>, number: usize, socket: Listening) -> io::Result<impl Future<Output = ()>> {
    let listener = Accepting::new(socket)?;
    Ok(async move {
        let mut paused = None;
        loop {
            let accepted = tokio::select! {
                biased;
                () = worker.drains() => break,
                accepted = listener.accept() => accepted,
            };
            let after = match accepted {
                Ok((stream, peer)) => {
                    admit(&worker, stream, peer, number).await;
                    None
                }
                Err(error) => pause_for(&error),
            };
            if let Some(pause) = after {
                if paused != after {
                    tell(&worker, pause);
                }
                tokio::time::sleep(PAUSE).await;
            }
            paused = after;
        }
        if worker.plane.roster.ending().is_some_and(|ending| ending.is_succeeded) {
            // Whoever waits in the queue is the successor's.
            return;
        }
        // An error means that the socket is gone already.
        if let Ok(listener) = listener.into_std() {
            accept_last(&worker, &listener, number).await;
        }
    })
}

/// The kernel's queue, asked outright: what the runtime knows of it may be old. Strangers cannot prolong it for ever.
async fn accept_last(worker: &Rc<Worker>, listener: &Listening, number: usize) {
    for _ in 0..BACKLOG {
        match listener.accept() {
            Ok((socket, peer)) => match Stream::from_socket(socket) {
                Ok(stream) => admit(worker, stream, peer, number).await,
                Err(_) => turn_away(worker, Refusal::Setup),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || pause_for(&error).is_some() => return,
            Err(_) => {}
        }
    }
}

/// The pause that a failed accept calls for. What became of one connection before it was accepted says nothing about
/// the next (accept(2) of Linux lists these); everything else, known or not, is for the process to get over.
fn pause_for(error: &io::Error) -> Option<Pause> {
    match Errno::from_io_error(error) {
        Some(
            Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::INTR
            | Errno::PERM
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NONET,
        ) => None,
        Some(Errno::MFILE | Errno::NFILE) => Some(Pause::Descriptors),
        Some(Errno::NOBUFS | Errno::NOMEM) => Some(Pause::Memory),
        _ => Some(Pause::Other),
    }
}

fn tell(worker: &Worker, pause: Pause) {
    static TOLD: Throttle = Throttle::new();
    worker.tally().pauses[pause as usize].add(1);
    if TOLD.allows(clock::now()) {
        let open = worker.plane.admission.open();
        tracing::warn!(reason = pause.name(), open, "accepting client connections paused");
    }
}

/// Lets an accepted connection in, as soon as there is a place, and finds the worker to serve it.
async fn admit(worker: &Rc<Worker>, stream: Stream, peer: SocketAddr, listener: usize) {
    let mut place = place(worker).await;
    let snapshot = worker.snapshot();
    let listeners = &snapshot.table.listeners;
    // Behind a balancer the source is known only from its PROXY protocol, and counted then.
    let is_behind = listeners.get(listener).is_some_and(|listener| listener.settings.proxy_protocol.is_some());
    let per_source = snapshot.table.client.max_connections_per_source.filter(|_| !is_behind);
    if per_source.is_some_and(|limit| !place.claim(peer.ip(), limit)) {
        // Reset, so that a flood leaves nothing behind in the kernel.
        stream.reset_on_close();
        return turn_away(worker, Refusal::SourceLimit);
    }
    let chosen = worker.plane.handover.choose(worker.index, worker.random());
    if chosen == worker.index {
        return serve(worker, stream, peer, listener, place);
    }
    match stream.into_socket() {
        Ok(socket) => hand_over(worker, chosen, Arrival { socket, peer, listener, place }),
        Err(_) => {
            worker.plane.handover.left(chosen, true);
            turn_away(worker, Refusal::Setup);
        }
    }
}

/// Reserves a place; while there is none, nothing else is accepted by this listener.
async fn place(worker: &Worker) -> Place {
    let mut paused = false;
    loop {
        let limit = worker.plane.admission.limit(worker.snapshot().table.client.max_connections);
        if let Some(place) = worker.plane.admission.enter(limit) {
            return place;
        }
        if !std::mem::replace(&mut paused, true) {
            tell(worker, Pause::Limit);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn hand_over(worker: &Rc<Worker>, to: usize, arrival: Arrival) {
    match worker.plane.handover.give(worker.index, to, arrival) {
        None => worker.tally().handed_over.add(1),
        Some(arrival) => take_in(worker, arrival),
    }
}

/// Serves a connection that comes from an inbox, and is counted at this worker already.
fn take_in(worker: &Rc<Worker>, Arrival { socket, peer, listener, place }: Arrival) {
    match Stream::from_socket(socket) {
        Ok(stream) => serve(worker, stream, peer, listener, place),
        Err(_) => {
            worker.plane.handover.left(worker.index, true);
            turn_away(worker, Refusal::Setup);
        }
    }
}

fn serve(worker: &Rc<Worker>, stream: Stream, peer: SocketAddr, listener: usize, place: Place) {
    tokio::task::spawn_local(connection::serve(Rc::clone(worker), stream, peer, listener, place));
}

fn turn_away(worker: &Worker, refusal: Refusal) {
    worker.tally().turned_away[refusal as usize].add(1);
}

/// Serves what other workers hand over; never ends.
pub async fn receive(worker: Rc<Worker>) {
    loop {
        worker.plane.handover.arrived(worker.index).await;
        while let Some(arrival) = worker.plane.handover.take(worker.index) {
            take_in(&worker, arrival);
        }
    }
}

/// Serves what was handed over until now. From here on the others keep what they accept.
pub fn receive_last(worker: &Rc<Worker>) {
    worker.plane.handover.close(worker.index).into_iter().for_each(|arrival| take_in(worker, arrival));
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Arc;

    use super::*;
    use crate::bridge::roster::Ending;
    use crate::bridge::table::Plane;
    use crate::domain::placement::Load;
    use crate::proxy::worker::{self, Start};

    #[test]
    fn accepted_sockets_send_without_delay() {
        let listeners = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        listeners[0].set_nonblocking(false).unwrap();
        let client = std::net::TcpStream::connect(listeners[0].local_addr().unwrap()).unwrap();
        let (socket, peer) = listeners[0].accept().unwrap();
        assert!(socket.nodelay().unwrap());
        assert_eq!(peer, client.local_addr().unwrap());
    }

    /// The drain is over before the worker's loop ever looks into its inbox.
    #[test]
    fn what_was_handed_over_before_the_drain_is_served() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let plane = Arc::new(Plane::new(2));
        plane.handover.open(1);
        assert_eq!(plane.handover.choose(1, 0), 1);
        let arrival =
            Arrival { socket: Arriving::Tcp(socket), peer, listener: 0, place: plane.admission.enter(1).unwrap() };
        assert!(plane.handover.give(0, 1, arrival).is_none());
        plane.roster.drain(Ending { grace: Duration::from_secs(20), pace: None, is_succeeded: false });
        client.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
        let start = Start { index: 1, plane: Arc::clone(&plane), listeners: Vec::new(), access: None };
        worker::run(start).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "no service is there to answer: {answer}");
        assert_eq!((plane.admission.open(), plane.handover.load(1)), (0, Load::default()));
    }

    #[test]
    fn errors_of_one_connection_pass_and_all_others_pause() {
        let table = [
            (Errno::CONNABORTED, None),
            (Errno::PERM, None),
            (Errno::PROTO, None),
            (Errno::MFILE, Some(Pause::Descriptors)),
            (Errno::NFILE, Some(Pause::Descriptors)),
            (Errno::NOBUFS, Some(Pause::Memory)),
            (Errno::NOMEM, Some(Pause::Memory)),
            (Errno::INVAL, Some(Pause::Other)),
        ];
        for (error, pause) in table {
            assert_eq!(pause_for(&error.into()), pause, "{error}");
        }
        assert_eq!(pause_for(&io::Error::other("unheard of")), Some(Pause::Other));
    }
}
