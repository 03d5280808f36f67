//! One exchange with an upstream: a request going up and its answer coming down, whatever the wires on either side.
//!
//! The client's own task polls it: what the client sends is taken through [`Upload`], what the upstream answers is
//! shown as stretches of bytes. So both directions move in one task with bounded buffers, a slow side holds the
//! other back, and no request costs a task or a channel (Decisions 10).
//!
//! Invariant: an answer that the upstream cut short ends in a failure, never as if it were complete.

use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use crate::bridge::streams::Kind;
use crate::domain::outcome::Failure;
use crate::proxy::buffer::Buffers;
use crate::proxy::error::Fault;
use crate::proxy::head::{Fields, ResponseHead};
use crate::proxy::hop::Upward;
use crate::proxy::http1::framing::Framing;
use crate::proxy::http1::upstream as http1;
use crate::proxy::http2::upstream as http2;
use crate::proxy::recorder::Attempt;
use crate::proxy::replay::Replay;
use crate::proxy::stream::Stream;
use crate::proxy::upstream::Reached;
use crate::proxy::worker::Worker;

/// Stretches of an answer that nobody wants any more that are read to keep its connection: small error pages are.
const STRETCHES: usize = 4;

/// A request's body, as the client's side gives it.
pub trait Upload {
    /// The next bytes of the body, or `None` at its end; bytes stay until [`Upload::took`].
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Fault>>;
    /// `n` bytes of those last shown were used.
    fn took(&mut self, n: usize);
    /// Fields behind the body, once it is over.
    fn trailers(&self) -> Fields<'_>;
    /// The bytes last shown are the last of the body, and nothing follows them: known beforehand, it saves a frame.
    fn is_last(&self) -> bool {
        false
    }
    /// The client holds its body back until it is told to go on: waiting is then the upstream's doing.
    fn awaits_leave(&self) -> bool;
}

/// Why no response head came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nothing was written, or certainly nothing processed.
    Unsent,
    /// The upstream failed.
    Upstream(Failure),
    /// The client failed, or an order cut the attempt: not the upstream's fault.
    Client(Fault),
}

/// A request under way at an endpoint.
pub struct Exchange {
    wire: Wire,
    attempt: Attempt,
    worker: Rc<Worker>,
    replay: Replay,
    /// Bytes of the request's body that may still come.
    allowance: u64,
    /// The body goes to another attempt.
    is_mute: bool,
}

/// An upload of which as much is kept as another attempt may need, and that ends in a fault once it is longer than it
/// may be.
struct Limited<'a, U> {
    upload: &'a mut U,
    replay: &'a mut Replay,
    buffers: &'a Buffers,
    allowance: &'a mut u64,
}

impl<U: Upload> Upload for Limited<'_, U> {
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Fault>> {
        match self.replay.poll_upload(cx, self.upload, self.buffers) {
            Poll::Ready(Ok(Some(data))) if data.len() as u64 > *self.allowance => Poll::Ready(Err(Fault::LargeBody)),
            polled => polled,
        }
    }

    fn took(&mut self, n: usize) {
        *self.allowance -= n as u64;
        self.replay.took(n, self.upload, self.buffers);
    }

    fn trailers(&self) -> Fields<'_> {
        self.upload.trailers()
    }

    fn is_last(&self) -> bool {
        self.replay.is_last(self.upload)
    }

    fn awaits_leave(&self) -> bool {
        self.upload.awaits_leave()
    }
}

/// What the upstream is spoken to by.
enum Wire {
    Http1(http1::Exchange),
    Http2(Box<http2::Exchange>),
}

/// Calls what both wires have.
macro_rules! each {
    ($wire:expr, $inner:ident => $call:expr) => {
        match $wire {
            Wire::Http1($inner) => $call,
            Wire::Http2($inner) => $call,
        }
    };
}

impl Exchange {
    /// Begins an exchange: the head is put together, and goes out with the first poll. The body begins with what `replay`
    /// kept of it; one longer than `limit` bytes is the client's fault.
    pub fn begin(
        worker: &Rc<Worker>,
        reached: Reached,
        attempt: Attempt,
        request: Upward<'_>,
        framing: Framing,
        limit: Option<u64>,
        mut replay: Replay,
    ) -> Exchange {
        replay.rewind();
        let wire = match reached {
            Reached::Http1(connection) => {
                Wire::Http1(http1::Exchange::begin(&worker.buffers, connection, request, framing))
            }
            Reached::Http2(seat) => Wire::Http2(http2::Exchange::begin(seat, request, framing)),
        };
        let (worker, allowance) = (Rc::clone(worker), limit.unwrap_or(u64::MAX));
        Exchange { wire, attempt, worker, replay, allowance, is_mute: false }
    }

    /// Drives the upload and waits for a response head, interim ones included; see [`Exchange::head`].
    pub fn poll_head(&mut self, cx: &mut Context<'_>, upload: &mut impl Upload) -> Poll<Result<(), Broken>> {
        if let Poll::Ready(Err(broken)) = self.poll_upload(cx, upload) {
            return Poll::Ready(Err(broken));
        }
        if self.attempt.is_expired() {
            let broken = match (self.attempt.is_cut(), self.attempt.blames_client()) {
                (true, _) => Broken::Client(Fault::Drained),
                (false, true) => Broken::Client(Fault::TooSlow),
                (false, false) => Broken::Upstream(Failure::Timeout),
            };
            return Poll::Ready(Err(broken));
        }
        match &mut self.wire {
            Wire::Http1(wire) => wire.poll_head(cx, &self.worker.buffers).map_err(Broken::Upstream),
            Wire::Http2(wire) => {
                ready!(wire.poll_head(cx, &self.worker.buffers))?;
                let (replay, allowance, buffers) = (&mut self.replay, &mut self.allowance, &self.worker.buffers);
                Limited { upload, replay, buffers, allowance }.took(wire.take_untaken());
                Poll::Ready(Ok(()))
            }
        }
    }

    /// The response head that came.
    pub fn head(&self) -> ResponseHead<'_> {
        each!(&self.wire, wire => wire.head())
    }

    /// Where the answer's body ends.
    pub fn framing(&self) -> Framing {
        each!(&self.wire, wire => wire.framing())
    }

    /// Lets an interim head go, to wait for the next.
    pub fn skip_interim(&mut self) {
        each!(&mut self.wire, wire => wire.skip_interim());
    }

    /// The final head is there: books it, and makes ready for the body.
    pub fn begin_body(&mut self) {
        let kind = kind_of(self.head(), self.framing());
        self.attempt.head(self.head().status, kind);
    }

    /// Lets the head go once it was written down; the body follows.
    pub fn drop_head(&mut self) {
        each!(&mut self.wire, wire => wire.drop_head());
    }

    /// Drives the upload while the answer comes down.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>, upload: &mut impl Upload) -> Poll<Result<(), Broken>> {
        if self.is_mute {
            return Poll::Pending;
        }
        let (replay, allowance, buffers) = (&mut self.replay, &mut self.allowance, &self.worker.buffers);
        let mut upload = Limited { upload, replay, buffers, allowance };
        match &mut self.wire {
            Wire::Http1(wire) => wire.poll_upload(cx, &self.worker.buffers, &mut upload, &self.attempt),
            Wire::Http2(wire) => wire.poll_upload(cx, &mut upload, &self.attempt),
        }
    }

    /// True once all of the request went up.
    pub fn is_uploaded(&self) -> bool {
        each!(&self.wire, wire => wire.is_uploaded())
    }

    /// The number of bytes of the body that are there, see [`Exchange::data`]; 0 at its end.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Failure>> {
        if self.attempt.is_expired() {
            return Poll::Ready(Err(Failure::Timeout));
        }
        let polled = match &mut self.wire {
            Wire::Http1(wire) => wire.poll_data(cx, &self.worker.buffers),
            Wire::Http2(wire) => wire.poll_data(cx),
        };
        self.attempt.waits(polled.is_pending());
        polled
    }

    /// The first `n` bytes of what [`Exchange::poll_data`] announced.
    pub fn data(&self, n: usize) -> &[u8] {
        each!(&self.wire, wire => wire.data(n))
    }

    /// `n` bytes of the body went on towards the client.
    pub fn took(&mut self, n: usize) {
        each!(&mut self.wire, wire => wire.took(n));
        self.attempt.moved(n);
    }

    /// Fields behind the body, at its end.
    pub fn trailers(&self) -> Fields<'_> {
        each!(&self.wire, wire => wire.trailers())
    }

    /// What a gRPC answer over HTTP/2 says of itself, at its end.
    pub fn grpc_status(&self) -> Option<u16> {
        match &self.wire {
            Wire::Http1(_) => None,
            Wire::Http2(wire) => wire.grpc_status(),
        }
    }

    /// What was used of the request's body can be sent again.
    pub fn is_replayable(&self) -> bool {
        self.replay.is_whole()
    }

    /// This answer is the one that goes down: nothing need be kept any more.
    pub fn is_final(&mut self) {
        self.replay.ends(&self.worker.buffers);
    }

    /// Another attempt is made before this answer goes down, if it does: takes no more of the request's body, which
    /// that attempt begins anew.
    pub fn rests(&mut self) -> Replay {
        self.is_mute = !self.is_uploaded();
        self.attempt.rests();
        std::mem::take(&mut self.replay)
    }

    /// Nothing better came: this answer goes down after all.
    pub fn resumes(&mut self) {
        self.attempt.resumes();
    }

    /// A better answer came. The connection is kept if what is left of this one is there already; it is not waited for.
    pub fn let_go(mut self) {
        self.drop_head();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..STRETCHES {
            match self.poll_data(&mut cx) {
                Poll::Ready(Ok(0)) => return self.complete(),
                Poll::Ready(Ok(n)) => self.took(n),
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        self.abandon();
    }

    /// Takes what was kept of the request's body, for another attempt.
    pub fn take_replay(&mut self) -> Replay {
        std::mem::take(&mut self.replay)
    }

    /// The answer is complete: books it, and keeps the connection if it is clean.
    pub fn complete(self) {
        self.attempt.complete();
        self.replay.put(&self.worker.buffers);
        match self.wire {
            Wire::Http1(wire) => wire.release(&self.worker),
            Wire::Http2(wire) => wire.release(&self.worker.buffers),
        }
    }

    /// The upstream broke off or took too long; the client is told by the way its answer ends.
    pub fn fail(self, failure: Failure) {
        if !self.attempt.blames_client() && !self.attempt.is_cut() {
            self.attempt.fail(failure);
        }
        self.replay.put(&self.worker.buffers);
        self.wire.discard(&self.worker.buffers);
    }

    /// The client is gone: neutral. What carried the request carries no other.
    pub fn abandon(self) {
        self.replay.put(&self.worker.buffers);
        self.wire.discard(&self.worker.buffers);
    }

    /// After a 101: the stream, what came behind the head, and the attempt, which lasts as long as the tunnel. `None` over
    /// HTTP/2, where nothing switches.
    pub fn into_tunnel(self) -> Option<(Stream, Vec<u8>, Attempt)> {
        let Wire::Http1(wire) = self.wire else { return None };
        self.attempt.tunnels();
        let (stream, early) = wire.into_raw(&self.worker.buffers);
        Some((stream, early, self.attempt))
    }

    /// True if the connection had served an earlier request, so that it may have been about to close.
    pub fn is_reused(&self) -> bool {
        each!(&self.wire, wire => wire.is_reused())
    }

    /// Takes attempt and connection apart after [`Broken`]: the connection is gone, the attempt is the caller's to book.
    pub fn into_attempt(self) -> Attempt {
        self.wire.discard(&self.worker.buffers);
        self.attempt
    }
}

/// What an answer is, should it stream for long. One that says how long it is, is no stream.
fn kind_of(head: ResponseHead<'_>, framing: Framing) -> Kind {
    if matches!(framing, Framing::None | Framing::Length(_)) {
        return Kind::Answer;
    }
    match head.fields.named("content-type").next().unwrap_or_default() {
        kind if kind.starts_with(b"text/event-stream") => Kind::Events,
        kind if kind.starts_with(b"application/grpc") => Kind::Grpc,
        _ => Kind::Answer,
    }
}

impl Wire {
    fn discard(self, buffers: &Buffers) {
        match self {
            Wire::Http1(wire) => wire.discard(buffers),
            Wire::Http2(wire) => wire.release(buffers),
        }
    }
}
