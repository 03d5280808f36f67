//! An HTTP/2 client connection, from its preface to its end.
//!
//! One task polls it all, in turns: the streams that were woken, then `h2`, which reads frames, begins streams and
//! puts what they sent into frames, then one write. Limits keep what a client can make us hold small; what it can
//! make us do is counted beneath (see [`crate::proxy::http2::scanner`]).
//!
//! Invariant: a stream that was accepted is served to its end before the connection closes, unless the client breaks
//! the rules, goes away, or does not read.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, Connection, Handshake};

use crate::bridge::admission::Abuse;
use crate::proxy::close::Close;
use crate::proxy::connection::Client;
use crate::proxy::http2::downstream;
use crate::proxy::http2::guard::{Guard, Wire};
use crate::proxy::http2::scanner::MAX_FRAME;
use crate::proxy::http2::streams::Streams;
use crate::proxy::stream::Stream;
use crate::proxy::worker::Worker;

/// Streams at one time.
const MAX_STREAMS: u32 = 100;
/// Bytes a client may send ahead on one stream.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Bytes a client may send ahead in all: what is held for a connection whose upstreams do not read.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one stream's answer that `h2` holds for the socket.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams reset by the client before they were begun (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that were reset by us and are remembered, so that frames under way do not look like errors.
const REMEMBERED_RESETS: usize = 50;
/// Streams that a client may make us reset by its own errors, over the life of the connection (CVE-2025-8671). A client
/// that opens more than it may before it has read our SETTINGS makes a burst of them.
const ERROR_RESETS: usize = 256;
/// Rounds of one turn: a stream that can always go on leaves room for other connections.
const ROUNDS: u32 = 4;

/// Serves a connection that speaks HTTP/2 until it ends; `early` was read of it already.
pub async fn serve(worker: &Rc<Worker>, client: &Rc<Client>, stream: Stream, early: Vec<u8>) -> Close {
    worker.tally().http2.add(1);
    let max_head = worker.snapshot().table.client.max_head;
    let wire = Wire::new(worker, stream, early, max_head);
    let streams = Streams::default();
    let mut served = Served {
        worker: Rc::clone(worker),
        client: Rc::clone(client),
        state: State::Opening(builder(max_head).handshake(wire.guard())),
        wire: Rc::clone(&wire),
        waker: streams.connection(),
        streams,
        phase: Phase::Fresh,
        is_leaving: false,
        is_parting: false,
    };
    let end = poll_fn(|cx| served.poll(cx)).await;
    served.end_streams();
    drop(served);
    let stream = wire.into_stream().expect("h2 and the streams, which had the other handles, are gone");
    match end {
        End::Over => Close::Unread(stream),
        End::Stuck => Close::Reset(stream),
    }
}

fn builder(max_head: usize) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(max_head).unwrap_or(u32::MAX))
        .max_frame_size(MAX_FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .max_local_error_reset_streams(Some(ERROR_RESETS));
    builder
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All was said; the client may not have read it yet, and may still be sending.
    Over,
    /// The client does not read.
    Stuck,
}

enum State {
    /// Before the client's preface.
    Opening(Handshake<Guard, Bytes>),
    Open(Connection<Guard, Bytes>),
    Over,
}

/// What the sweep was told of the connection last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No stream was ever begun.
    Fresh,
    Idle,
    /// A head is coming, and no stream is open.
    Head,
    Busy,
    /// The client does not take what was written.
    Stalled,
}

struct Served {
    worker: Rc<Worker>,
    client: Rc<Client>,
    state: State,
    wire: Rc<Wire>,
    streams: Streams,
    /// Has the connection polled in this turn or the next.
    waker: Waker,
    phase: Phase,
    /// The client was asked to begin no more streams.
    is_leaving: bool,
    /// The last word was said.
    is_parting: bool,
}

impl Served {
    /// One turn.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.client.waiter.register(cx.waker());
        self.streams.attend(cx.waker());
        self.wire.begin_turn();
        if self.client.waiter.is_given_up() {
            return Poll::Ready(End::Stuck);
        }
        self.heed();
        for _ in 0..ROUNDS {
            if !self.streams.poll_woken() {
                break;
            }
            if self.poll_connection().is_ready() {
                return Poll::Ready(End::Over);
            }
            if self.wire.is_tired() {
                break;
            }
        }
        let out = self.wire.poll_out(&mut Context::from_waker(&self.waker));
        if let Poll::Ready(Err(_)) = out {
            return Poll::Ready(End::Over);
        }
        self.tell(out.is_pending());
        self.streams.rest(cx.waker());
        Poll::Pending
    }

    /// Does what the sweep and the drain ask for.
    fn heed(&mut self) {
        let (is_cut, is_over) = (self.client.is_cut(), self.client.is_over());
        if is_cut || (is_over && self.streams.is_empty()) {
            return self.part(Reason::NO_ERROR);
        }
        if (is_over || self.client.is_leaving())
            && let State::Open(connection) = &mut self.state
            && !std::mem::replace(&mut self.is_leaving, true)
        {
            connection.graceful_shutdown();
            self.waker.wake_by_ref();
        }
    }

    /// Says the last word; the connection ends once it is written.
    fn part(&mut self, reason: Reason) {
        if std::mem::replace(&mut self.is_parting, true) {
            return;
        }
        match &mut self.state {
            State::Open(connection) => connection.abrupt_shutdown(reason),
            State::Opening(_) | State::Over => self.state = State::Over,
        }
        self.waker.wake_by_ref();
    }

    /// Lets `h2` read and write, and begins what streams there are. Ready at the end.
    fn poll_connection(&mut self) -> Poll<()> {
        let mut cx = Context::from_waker(&self.waker);
        if let State::Opening(handshake) = &mut self.state {
            match ready!(Pin::new(handshake).poll(&mut cx)) {
                Ok(connection) => self.state = State::Open(connection),
                Err(error) => {
                    self.blame(&error);
                    return Poll::Ready(());
                }
            }
        }
        let State::Open(connection) = &mut self.state else { return Poll::Ready(()) };
        while let Poll::Ready(accepted) = connection.poll_accept(&mut cx) {
            let (request, respond) = match accepted {
                Some(Ok(accepted)) => accepted,
                Some(Err(error)) => {
                    self.blame(&error);
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            };
            let (worker, client, wire) = (Rc::clone(&self.worker), Rc::clone(&self.client), Rc::clone(&self.wire));
            self.streams.begin(Box::pin(downstream::answer(worker, client, wire, request, respond)));
        }
        if let Some(abuse) = self.wire.abuse().filter(|_| !self.is_parting) {
            self.count(abuse);
            self.part(if abuse == Abuse::FrameSize { Reason::FRAME_SIZE_ERROR } else { Reason::ENHANCE_YOUR_CALM });
        }
        Poll::Pending
    }

    /// Counts an error of the connection, if it is the client's doing.
    fn blame(&self, error: &h2::Error) {
        match error.reason().filter(|_| error.is_library()) {
            Some(Reason::ENHANCE_YOUR_CALM) => self.count(Abuse::Excess),
            Some(Reason::FRAME_SIZE_ERROR) => self.count(Abuse::FrameSize),
            Some(_) => self.count(Abuse::Protocol),
            None => {}
        }
    }

    fn count(&self, abuse: Abuse) {
        tracing::debug!(client = %self.client.peer(), reason = abuse.name(), "HTTP/2 abused");
        self.worker.tally().abuses[abuse as usize].add(1);
    }

    /// Tells the sweep what the connection is doing.
    fn tell(&mut self, is_stalled: bool) {
        let phase = match (is_stalled, self.streams.is_empty(), self.wire.is_inside_head(), self.phase) {
            (true, ..) => Phase::Stalled,
            (_, false, ..) => Phase::Busy,
            (_, _, true, _) => Phase::Head,
            (_, _, _, Phase::Fresh) => Phase::Fresh,
            _ => Phase::Idle,
        };
        let wrote = self.wire.wrote();
        if std::mem::replace(&mut self.phase, phase) == phase && phase != Phase::Stalled {
            return;
        }
        match phase {
            Phase::Fresh => {}
            Phase::Idle => self.client.idle(),
            Phase::Head => {
                self.client.idle();
                self.client.begins_head();
            }
            Phase::Busy => self.client.busy(),
            Phase::Stalled => self.client.stalls(wrote),
        }
    }

    /// What is still under way notices that the client is gone, and says so in the books.
    fn end_streams(&mut self) {
        self.state = State::Over;
        self.streams.poll_all();
    }
}
