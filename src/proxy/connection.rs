//! A client connection: hyper serves HTTP/1.1 on it, a small stream wrapper watches its idle and head times.
//!
//! The worker's sweep marks a connection that is silent for too long; the wrapper then reports the end of the
//! stream, which hyper treats as the client's own close. So no connection owns a timer. A tunnel (WebSocket)
//! takes the socket back from hyper after the 101 and runs in the same task.
//!
//! Invariant: a connection is cut only between requests or inside a request head, never inside an answer.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderValue, Version};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::bridge::admission::Closed;
use crate::clock::{self, Micros};
use crate::config::settings;
use crate::domain::placement;
use crate::proxy::tunnel::{self, Tunnel};
use crate::proxy::worker::Worker;
use crate::proxy::{pipeline, recorder};

/// While draining, how long an idle connection is kept for a request that may be on its way: it is answered, and the
/// answer says that it was the last. Closing at once would hang up on clients that were never told.
const LINGER: Duration = Duration::from_millis(500);

/// What the worker knows of one client connection.
pub struct Client {
    /// The other end.
    pub peer: SocketAddr,
    /// The peer's address as it goes into `X-Forwarded-For`.
    pub forwarded_for: HeaderValue,
    waker: RefCell<Option<Waker>>,
    phase: Cell<Phase>,
    since: Cell<Micros>,
    cut: Cell<bool>,
    over: Cell<bool>,
    given_up: Cell<bool>,
    cut_short: Cell<bool>,
    /// The version of the last request is HTTP/1.0, where the end of the connection may be the end of an answer.
    is_old: Cell<bool>,
    upload: RefCell<Option<Rc<recorder::Upload>>>,
    tunnel: RefCell<Option<Tunnel>>,
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
}

impl Client {
    fn new(peer: SocketAddr) -> Client {
        let text = peer.ip().to_canonical().to_string();
        Client {
            peer,
            forwarded_for: HeaderValue::try_from(text).expect("an address is visible ASCII"),
            waker: RefCell::default(),
            phase: Cell::new(Phase::Fresh),
            since: Cell::new(clock::now()),
            cut: Cell::default(),
            over: Cell::default(),
            given_up: Cell::default(),
            cut_short: Cell::default(),
            is_old: Cell::default(),
            upload: RefCell::default(),
            tunnel: RefCell::default(),
        }
    }

    /// Polls the connection's task.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// A request head is complete.
    pub fn busy(&self, version: Version) {
        self.phase.set(Phase::Busy);
        self.is_old.set(version == Version::HTTP_10);
    }

    /// Its body is on the way; what becomes of it decides how the connection is closed.
    pub fn uploads(&self, upload: Option<Rc<recorder::Upload>>) {
        *self.upload.borrow_mut() = upload;
    }

    /// The answer in progress ended early.
    pub fn cut_short(&self) {
        self.cut_short.set(true);
    }

    /// The client does not read: every further write fails, and with it the connection.
    pub fn give_up(&self) {
        self.given_up.set(true);
        self.wake();
    }

    fn owes_upload(&self) -> bool {
        self.upload.borrow().as_ref().is_some_and(|upload| !upload.done.get())
    }

    /// The answer is complete, or given up.
    pub fn idle(&self) {
        self.phase.set(Phase::Idle);
        self.since.set(clock::now());
    }

    /// Hands the upstream's side of a tunnel over, to run once the 101 is out.
    pub fn tunnels(&self, tunnel: Tunnel) {
        *self.tunnel.borrow_mut() = Some(tunnel);
    }

    /// It has a request, or had one lately, or is too fresh to tell. A tunnel counts as one long request.
    pub fn is_busy(&self, now: Micros) -> bool {
        self.phase.get() == Phase::Busy || now <= self.since.get().after(placement::RECENT)
    }

    /// Cuts the connection if it has been silent for too long; closes an idle one politely while draining. Says why,
    /// the first time it does either.
    pub fn sweep(&self, now: Micros, limits: &settings::Client, draining: Option<Micros>) -> Option<Closed> {
        let (idle, limit, why) = match self.phase.get() {
            Phase::Busy => return None,
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
            self.wake();
            closed = Some(Closed::Drained);
        }
        if now > since.after(limit) && !self.cut.replace(true) {
            self.wake();
            closed = closed.or(Some(why));
        }
        closed.filter(|_| !told)
    }

    fn read(&self, bytes: usize) {
        if bytes > 0 && matches!(self.phase.get(), Phase::Idle | Phase::Fresh) {
            self.phase.set(Phase::Head);
            self.since.set(clock::now());
        }
    }

    fn register(&self, waker: &Waker) {
        let mut registered = self.waker.borrow_mut();
        if !registered.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *registered = Some(waker.clone());
        }
    }
}

/// Serves one client connection until either side ends it. It counts from the call on, not from the first poll, so
/// that a drain never overlooks it.
pub fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) -> impl Future<Output = ()> {
    let client = Rc::new(Client::new(peer));
    let place = Place::take(&worker, &client);
    drive(worker, client, stream, place)
}

async fn drive(worker: Rc<Worker>, client: Rc<Client>, stream: TcpStream, _place: Place) {
    let peer = client.peer;
    let limits = worker.snapshot().table.client.clone();
    let io = TokioIo::new(Watched { stream, client: Rc::clone(&client) });
    let service =
        hyper::service::service_fn(|request| pipeline::handle(Rc::clone(&worker), Rc::clone(&client), request));
    // Vectored writes off: one copy is cheaper than a second segment for small messages (measured).
    let mut connection = http1::Builder::new()
        .writev(false)
        .max_headers(limits.max_headers)
        .max_header_size(limits.max_head)
        .max_buf_size(limits.max_head.max(64 * 1024))
        .serve_connection(io, service);
    let mut told = false;
    let ended = std::future::poll_fn(|cx| {
        client.register(cx.waker());
        if client.over.get() && !std::mem::replace(&mut told, true) {
            Pin::new(&mut connection).graceful_shutdown();
        }
        Pin::new(&mut connection).poll(cx)
    });
    let ended = ended.await;
    let tunnel = client.tunnel.take();
    match (ended, tunnel) {
        (Ok(()), Some(tunnel)) => {
            client.busy(Version::HTTP_11);
            let parts = connection.into_parts();
            tunnel::run(tunnel, parts.io.into_inner(), parts.read_buf).await;
        }
        (Err(error), _) => {
            tracing::debug!(%peer, %error, "client connection ended");
            if client.cut_short.get() && client.is_old.get() {
                // A plain close would look like the end of the answer.
                let stream = connection.into_parts().io.into_inner().stream;
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
        }
        (Ok(()), None) if client.owes_upload() => linger(connection.into_parts().io.into_inner().stream).await,
        (Ok(()), None) => {}
    }
}

/// Reads and drops what the client still sends: closing over unread bytes resets the connection, and the answer that
/// explains the early end may be lost with it.
async fn linger(mut stream: TcpStream) {
    let mut sink = [0; 4_096];
    let drained = async { while let Ok(1..) = stream.read(&mut sink).await {} };
    let _ = tokio::time::timeout(LINGER, drained).await;
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

/// The client's stream, watched.
pub struct Watched {
    stream: TcpStream,
    client: Rc<Client>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.client.cut.get() {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.client.read(buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.client.given_up.get() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Closes a stream politely; the other side may already be gone.
pub async fn close(mut stream: impl AsyncWrite + Unpin) {
    let _ = stream.shutdown().await;
}
