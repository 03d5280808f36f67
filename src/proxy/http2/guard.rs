//! The wire beneath `h2`: counts what comes, and gathers what goes.
//!
//! Reading passes every byte through the [`Scanner`]; after its verdict nothing is read any more, and whoever drives
//! the connection says goodbye. Writing gathers the small frames of many streams, so that a turn of the connection
//! ends in one system call whatever the number of its streams: `h2` would write for each body of a few hundred bytes.
//!
//! Invariant: bytes leave in the order they were written, and all that `h2` was told is written leaves before the
//! end of the stream.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::bridge::admission::Abuse;
use crate::clock;
use crate::proxy::buffer::{Buffer, SMALL};
use crate::proxy::http2::names::Names;
use crate::proxy::http2::scanner::Scanner;
use crate::proxy::stream::Stream;
use crate::proxy::worker::Worker;

/// Reads in one turn of the connection; then others get theirs. What `h2` reads at once is 8 KiB and more.
const READS: u32 = 32;
/// Slices written at once: what is gathered, a frame's header and its payload, and room to spare.
const SLICES: usize = 8;

/// Bytes of heads that one connection may have us hold. Compressed they may be a byte for each field: without a limit
/// over all streams a client could pin thousands of bytes for each that it sends. A hundred requests with the cookies
/// of a large site fit.
pub const HEADS: usize = 1024 * 1024;

/// What `h2` holds: a handle to the wire.
pub struct Guard(Rc<Wire>);

/// A client's stream with what is counted and gathered over it.
pub struct Wire {
    worker: Rc<Worker>,
    stream: RefCell<Stream>,
    early: RefCell<Early>,
    scanner: RefCell<Scanner>,
    gathered: RefCell<Buffer>,
    /// Bytes of requests' heads that are held for the streams under way.
    heads: Cell<usize>,
    abuse: Cell<Option<Abuse>>,
    reads: Cell<u32>,
    wrote: Cell<bool>,
    /// TLS may hold back some of what was written.
    is_unflushed: Cell<bool>,
}

/// Bytes read before HTTP/2 was known to be spoken.
struct Early {
    bytes: Vec<u8>,
    taken: usize,
}

impl Wire {
    /// A wire over `stream`, of which `early` was read already; a request's head may have `max_head` bytes.
    pub fn new(worker: &Rc<Worker>, stream: Stream, early: Vec<u8>, max_head: usize) -> Rc<Wire> {
        Rc::new(Wire {
            worker: Rc::clone(worker),
            stream: RefCell::new(stream),
            early: RefCell::new(Early { bytes: early, taken: 0 }),
            scanner: RefCell::new(Scanner::new(max_head, clock::now())),
            gathered: RefCell::default(),
            heads: Cell::default(),
            abuse: Cell::default(),
            reads: Cell::default(),
            wrote: Cell::default(),
            is_unflushed: Cell::default(),
        })
    }

    /// The end for `h2`.
    pub fn guard(self: &Rc<Wire>) -> Guard {
        Guard(Rc::clone(self))
    }

    /// The names of fields that its worker remembers.
    pub fn names(&self) -> &Names {
        &self.worker.names
    }

    /// A new turn begins.
    pub fn begin_turn(&self) {
        self.reads.set(0);
    }

    /// It read all it may in this turn.
    pub fn is_tired(&self) -> bool {
        self.reads.get() >= READS
    }

    /// What the client did too much of.
    pub fn abuse(&self) -> Option<Abuse> {
        self.abuse.get()
    }

    /// A request's head began and is not complete.
    pub fn is_inside_head(&self) -> bool {
        self.scanner.borrow().is_inside_head()
    }

    /// So many bytes of an answer's body were given to `h2`.
    pub fn moved(&self, bytes: usize) {
        self.scanner.borrow_mut().moved(bytes as u64);
    }

    /// Counts a request's head of so many bytes, until the value is dropped; `None` if [`HEADS`] would be passed.
    pub fn hold_head(self: &Rc<Wire>, bytes: usize) -> Option<HeldHead> {
        let total = self.heads.get() + bytes;
        (total <= HEADS).then(|| {
            self.heads.set(total);
            HeldHead { wire: Rc::clone(self), bytes }
        })
    }

    /// True if any bytes left since this was last asked.
    pub fn wrote(&self) -> bool {
        self.wrote.take()
    }

    /// Writes what was gathered, and what TLS holds back, all of it.
    pub fn poll_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.gathered.borrow_mut();
        while !gathered.is_empty() {
            let written = ready!(self.stream.borrow_mut().poll_write_some(cx, gathered.filled()))?;
            self.left(written)?;
            gathered.consume(written);
        }
        if gathered.is_allocated() {
            self.worker.buffers.put(std::mem::take(&mut gathered));
        }
        if self.is_unflushed.get() {
            ready!(self.stream.borrow_mut().poll_flushed(cx))?;
            self.is_unflushed.set(false);
        }
        Poll::Ready(Ok(()))
    }

    /// The stream, once `h2` let go of its end.
    pub fn into_stream(self: Rc<Wire>) -> Option<Stream> {
        let wire = Rc::into_inner(self)?;
        wire.worker.buffers.put(wire.gathered.into_inner());
        Some(wire.stream.into_inner())
    }

    fn left(&self, written: usize) -> io::Result<()> {
        self.wrote.set(true);
        self.is_unflushed.set(true);
        if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }

    /// Gathers `parts`, or writes them behind what was gathered; the number of their bytes that were taken.
    fn poll_take(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        loop {
            let mut gathered = self.gathered.borrow_mut();
            if gathered.len() + total <= SMALL {
                if !gathered.is_allocated() {
                    *gathered = self.worker.buffers.take(SMALL);
                }
                parts.iter().for_each(|part| gathered.end().extend_from_slice(part));
                return Poll::Ready(Ok(total));
            }
            let part = |at: usize| parts.get(at).map_or(&[][..], |part| part);
            let slices: [_; SLICES] =
                std::array::from_fn(|at| IoSlice::new(if at == 0 { gathered.filled() } else { part(at - 1) }));
            let written = ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_write_vectored(cx, &slices))?;
            self.left(written)?;
            let held = gathered.len();
            gathered.consume(written.min(held));
            if written > held {
                return Poll::Ready(Ok(written - held));
            }
        }
    }
}

/// A head that is held.
pub struct HeldHead {
    wire: Rc<Wire>,
    bytes: usize,
}

impl Drop for HeldHead {
    fn drop(&mut self) {
        self.wire.heads.set(self.wire.heads.get() - self.bytes);
    }
}

impl Early {
    /// Moves what fits into `buf`; false if nothing is left.
    fn take_into(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = &self.bytes[self.taken..];
        let n = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..n]);
        self.taken += n;
        if self.taken == self.bytes.len() {
            (self.bytes, self.taken) = (Vec::new(), 0);
        }
        n > 0
    }
}

impl AsyncRead for Guard {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = &self.0;
        if wire.abuse.get().is_some() {
            // Nobody is to be woken: what comes is never looked at.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if !wire.early.borrow_mut().take_into(buf) {
            if wire.is_tired() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(Pin::new(&mut *wire.stream.borrow_mut()).poll_read(cx, buf))?;
            wire.reads.set(wire.reads.get() + 1);
        }
        let came = &buf.filled()[before..];
        if let Err(abuse) = wire.scanner.borrow_mut().feed(came, clock::now()) {
            wire.abuse.set(Some(abuse));
            buf.set_filled(before);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guard {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_take(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_take(cx, &bufs[..bufs.len().min(SLICES - 1)])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing: whoever drives the connection writes what was gathered when the turn ends.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Writes the rest; how the stream is closed is decided by who owns it.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_out(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::bridge::table::Plane;
    use crate::bridge::tls::{Connector, Server, SystemRoots};
    use crate::config::settings::Address;
    use crate::config::settings::tls::desk::Desk;
    use crate::proxy::tls;

    static FRAME: [u8; 16_393] = [7; 16_393];

    /// Both ends of a connection under TLS, the near one as a stream.
    async fn pair() -> (Stream, tokio_rustls::client::TlsStream<TcpStream>) {
        let desk = Desk::new();
        let server = Server::new(&desk.server("").unwrap(), None).unwrap();
        let pool = desk.pool("endpoints: 'https://a.test', tls: { insecure_skip_verify: true }").unwrap();
        let connector = Connector::new(&pool.tls.unwrap(), pool.protocol, &SystemRoots::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let address = Address { tls: true, ..Address::http("a.test", 443) };
        let (server, client) =
            tokio::join!(tls::accept(&server, far.unwrap().0), connector.connect(&address, near.unwrap()));
        (Stream::TlsServer(Box::new(server.unwrap().stream)), client.unwrap())
    }

    #[tokio::test]
    async fn what_tls_holds_back_leaves_once_the_client_reads() {
        let (near, mut far) = pair().await;
        let worker = Worker::alone(&Arc::new(Plane::new(1)));
        let wire = Wire::new(&worker, near, Vec::new(), 8_192);
        let mut guard = wire.guard();
        let mut written = 0;
        // Nobody reads: frames past what is gathered go straight to TLS, until the socket takes no more.
        std::future::poll_fn(|cx| {
            while let Poll::Ready(n) = Pin::new(&mut guard).poll_write(cx, &FRAME) {
                written += n.unwrap();
                if wire.poll_out(cx).is_pending() {
                    break;
                }
            }
            Poll::Ready(())
        })
        .await;
        let (mut bytes, mut out) = (vec![0; written], Box::pin(std::future::poll_fn(|cx| wire.poll_out(cx))));
        let all = async { tokio::join!(far.read_exact(&mut bytes), &mut out) };
        let (read, out) = tokio::time::timeout(std::time::Duration::from_secs(20), all).await.expect("some is kept");
        assert!(read.is_ok() && out.is_ok() && bytes.iter().all(|byte| *byte == 7));
    }
}
