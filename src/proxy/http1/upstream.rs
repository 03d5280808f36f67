//! The HTTP/1.1 upstream side: a connection, and an exchange over it.
//!
//! The head is serialised into the write buffer and leaves in the first poll, together with what is already there of
//! the body: so a dispatch follows its decision without a moment in between (Decisions 1), and a small request is
//! one write. An answer is read into one buffer and shown from there; its body is not copied.
//!
//! Invariant: a connection is released for reuse only if both messages ended where their framing says and nothing
//! came behind them.

use std::task::{Context, Poll, ready};

use crate::bridge::endpoint::{Endpoint, Slot};
use crate::clock::{self, Micros};
use crate::config::settings;
use crate::domain::outcome::Failure;
use crate::proxy::buffer::{Buffer, Buffers, LARGE, SMALL};
use crate::proxy::error::Fault;
use crate::proxy::exchange::{Broken, Upload};
use crate::proxy::head::{Field, Fields, ResponseHead, Version};
use crate::proxy::hop::{self, Upward};
use crate::proxy::http1::body::Body;
use crate::proxy::http1::chunked::{self, Step};
use crate::proxy::http1::framing::Framing;
use crate::proxy::http1::parse::{self, MAX_RESPONSE_HEAD};
use crate::proxy::http1::{decimal, put_field};
use crate::proxy::recorder::Attempt;
use crate::proxy::stream::Stream;
use crate::proxy::worker::Worker;

/// Upload bytes held between client and upstream: what one read of the client brings.
const UPLOAD: usize = SMALL;
/// Writes of an upload before other connections get their turn: a fast client with a fast endpoint never has to wait.
const TURNS: u32 = 8;
/// Interim answers to one request: more than any protocol needs.
const MAX_INTERIM: u8 = 16;

/// An open connection to an endpoint.
pub struct Connection {
    stream: Stream,
    slot: Slot,
    /// How long it may be kept.
    pub keep: settings::Connections,
    /// When its last exchange ended.
    pub idle_since: Micros,
    /// It has answered a request before.
    pub is_reused: bool,
    /// It was opened for one client, and told so: no other's request may use it.
    pub is_private: bool,
    /// The size of what it reads at once: grows with the answers it brings.
    appetite: usize,
    /// Requests answered.
    served: u32,
    /// Memory for the fields of heads.
    list: Vec<Field>,
}

impl Connection {
    /// A fresh connection over `stream`.
    pub fn new(stream: Stream, slot: Slot, keep: &settings::Connections) -> Box<Connection> {
        Box::new(Connection {
            stream,
            slot,
            keep: keep.clone(),
            idle_since: clock::now(),
            is_reused: false,
            is_private: false,
            appetite: SMALL,
            served: 0,
            list: Vec::new(),
        })
    }

    /// Whom it leads to.
    pub fn endpoint(&self) -> &Endpoint {
        self.slot.endpoint()
    }

    /// True if others wait for its place in the pool.
    pub fn is_wanted(&self) -> bool {
        self.slot.is_wanted()
    }

    /// True if the other side neither closed nor spoke while nobody had asked (Decisions 18).
    pub fn is_quiet(&mut self) -> bool {
        self.stream.is_quiet()
    }
}

/// A request and its answer on a connection.
pub struct Exchange {
    connection: Box<Connection>,
    input: Buffer,
    output: Buffer,
    upload: Uploading,
    /// Bytes of the client's body that are in `output` but not taken from it yet: nothing has been written so far.
    untaken: usize,
    /// At least a byte of the request left.
    is_sent: bool,
    /// All of it left: TLS holds nothing back.
    is_flushed: bool,
    /// Writing failed; the upstream may still have answered.
    is_deaf: bool,
    to_head: bool,
    response: Option<parse::Response>,
    interim: u8,
    body: Body,
    /// More came since the head was last looked for.
    is_fresh: bool,
    brought: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Uploading {
    /// So many bytes are left of a body of known length.
    Length(u64),
    Chunked,
    Done,
}

impl Exchange {
    /// Puts the head together; it leaves with the first poll.
    pub fn begin(buffers: &Buffers, connection: Box<Connection>, request: Upward<'_>, framing: Framing) -> Exchange {
        let mut output = buffers.take(SMALL);
        put_request(output.end(), request, framing);
        let upload = match framing {
            Framing::Length(length @ 1..) => Uploading::Length(length),
            Framing::Chunked => Uploading::Chunked,
            Framing::None | Framing::Length(0) | Framing::UntilClose => Uploading::Done,
        };
        Exchange {
            connection,
            input: Buffer::default(),
            output,
            upload,
            untaken: 0,
            is_sent: false,
            is_flushed: false,
            is_deaf: false,
            to_head: request.head.is("HEAD"),
            response: None,
            interim: 0,
            body: Body::Over,
            is_fresh: false,
            brought: 0,
        }
    }

    /// Writes what there is and takes more from the client, until one of them has to be waited for.
    pub fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        upload: &mut impl Upload,
        attempt: &Attempt,
    ) -> Poll<Result<(), Broken>> {
        let mut turns = 0;
        loop {
            if self.is_deaf {
                attempt.upload_waits(false);
                return Poll::Pending;
            }
            if turns == TURNS {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let waits = self.upload != Uploading::Done && self.untaken == 0 && self.output.len() < UPLOAD && {
                match self.fill(cx, upload) {
                    Poll::Ready(Err(fault)) => return Poll::Ready(Err(Broken::Client(fault))),
                    Poll::Ready(Ok(())) => false,
                    Poll::Pending => true,
                }
            };
            attempt.upload_waits(waits && !upload.awaits_leave());
            if self.output.is_empty() {
                if self.upload == Uploading::Done {
                    // The answer may take its time.
                    buffers.put(std::mem::take(&mut self.output));
                    // An error shows when the answer is read.
                    let _ = ready!(self.connection.stream.poll_flushed(cx));
                    self.is_flushed = true;
                    return Poll::Ready(Ok(()));
                }
                if waits {
                    let _ = self.connection.stream.poll_flushed(cx);
                    return Poll::Pending;
                }
                continue;
            }
            match self.connection.stream.poll_write_some(cx, self.output.filled()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(n @ 1..)) => {
                    turns += 1;
                    self.is_sent = true;
                    self.output.consume(n);
                    upload.took(std::mem::take(&mut self.untaken));
                    attempt.upload_moved(n);
                }
                Poll::Ready(_) if !self.is_sent => return Poll::Ready(Err(Broken::Unsent)),
                Poll::Ready(_) => {
                    // An answer may have come before the end; only without one this is a failure.
                    self.is_deaf = true;
                    buffers.put(std::mem::take(&mut self.output));
                }
            }
        }
    }

    /// Takes a stretch of the client's body into the write buffer.
    fn fill(&mut self, cx: &mut Context<'_>, upload: &mut impl Upload) -> Poll<Result<(), Fault>> {
        let data = match upload.poll_upload(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
            Poll::Ready(Ok(data)) => data,
        };
        let out = self.output.end();
        let Some(data) = data else {
            if matches!(self.upload, Uploading::Length(_)) {
                return Poll::Ready(Err(Fault::BrokenBody));
            }
            out.extend_from_slice(chunked::LAST);
            hop::trailers(upload.trailers(), |name, value| put_field(out, name, value));
            out.extend_from_slice(b"\r\n");
            self.upload = Uploading::Done;
            return Poll::Ready(Ok(()));
        };
        let n = data.len().min(UPLOAD);
        match &mut self.upload {
            Uploading::Length(left) => {
                if n as u64 > *left {
                    return Poll::Ready(Err(Fault::BrokenBody));
                }
                out.extend_from_slice(&data[..n]);
                *left -= n as u64;
                if *left == 0 {
                    self.upload = Uploading::Done;
                }
            }
            Uploading::Chunked => chunked::encode(&data[..n], out),
            Uploading::Done => {}
        }
        if self.is_sent {
            upload.took(n);
        } else {
            self.untaken = n;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for a response head.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> Poll<Result<(), Failure>> {
        loop {
            if std::mem::take(&mut self.is_fresh)
                && let Some(response) = self.look_for_head()?
            {
                self.response = Some(response);
                return Poll::Ready(Ok(()));
            }
            match self.poll_read(cx, buffers, MAX_RESPONSE_HEAD.max(LARGE)) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) if self.input.is_empty() && self.interim == 0 => {
                    return Poll::Ready(Err(Failure::Reset));
                }
                Poll::Ready(_) => return Poll::Ready(Err(Failure::Malformed)),
            }
        }
    }

    fn look_for_head(&mut self) -> Result<Option<parse::Response>, Failure> {
        let parsed = parse::response(self.input.filled(), self.to_head, &mut self.connection.list);
        let refuse = |error: &'static str| {
            tracing::debug!(endpoint = %self.connection.endpoint(), error, "malformed answer");
            Failure::Malformed
        };
        let Some(response) = parsed.map_err(refuse)? else { return Ok(None) };
        if response.status < 200 {
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(refuse("interim answers without end"));
            }
        }
        self.body = Body::of(response.framing);
        Ok(Some(response))
    }

    /// The head that came.
    pub fn head(&self) -> ResponseHead<'_> {
        let (status, version) = self.response.map_or((502, Version::Http11), |head| (head.status, head.version));
        let fields = Fields { bytes: self.input.filled(), list: &self.connection.list };
        ResponseHead { status, version, fields }
    }

    /// Where the answer's body ends.
    pub fn framing(&self) -> Framing {
        self.response.map_or(Framing::None, |response| response.framing)
    }

    /// Lets an interim head go.
    pub fn skip_interim(&mut self) {
        self.drop_head();
        self.response = None;
        self.is_fresh = !self.input.is_empty();
    }

    /// Lets the head go.
    pub fn drop_head(&mut self) {
        if let Some(response) = &mut self.response {
            self.input.consume(std::mem::take(&mut response.length));
        }
    }

    /// The bytes of the body that are there; 0 at its end.
    pub fn poll_data(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> Poll<Result<usize, Failure>> {
        loop {
            match self.body.step(self.input.filled()).map_err(|_| Failure::Truncated)? {
                Step::Data { skip, length } => {
                    self.input.consume(skip);
                    return Poll::Ready(Ok(length));
                }
                Step::End { skip } => {
                    self.input.consume(skip);
                    return Poll::Ready(self.check_trailers().map(|()| 0));
                }
                Step::More => self.input.clear(),
            }
            match self.poll_read(cx, buffers, LARGE) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) if self.body.ends_with_stream() => return Poll::Ready(Ok(0)),
                Poll::Ready(_) => return Poll::Ready(Err(Failure::Truncated)),
            }
        }
    }

    fn check_trailers(&mut self) -> Result<(), Failure> {
        if self.body.trailers().is_empty() {
            self.connection.list.clear();
            return Ok(());
        }
        parse::trailers(self.body.trailers(), &mut self.connection.list).map_err(|_| Failure::Truncated)
    }

    /// The first `n` bytes of what was announced.
    pub fn data(&self, n: usize) -> &[u8] {
        &self.input.filled()[..n]
    }

    /// `n` bytes of the body were used.
    pub fn took(&mut self, n: usize) {
        self.input.consume(n);
        self.body.took(n);
    }

    /// Fields behind the body.
    pub fn trailers(&self) -> Fields<'_> {
        match self.body.trailers() {
            [] => Fields::NONE,
            bytes => Fields { bytes, list: &self.connection.list },
        }
    }

    /// True once all of the request went up.
    pub fn is_uploaded(&self) -> bool {
        self.upload == Uploading::Done && self.output.is_empty() && self.is_flushed && !self.is_deaf
    }

    /// See [`Connection::is_reused`].
    pub fn is_reused(&self) -> bool {
        self.connection.is_reused
    }

    /// Both messages are over: the connection is kept if it is clean.
    pub fn release(mut self, worker: &Worker) {
        let keeps = self.response.is_some_and(|response| response.keeps_alive);
        let clean = self.is_uploaded() && self.body.is_over() && self.input.is_empty();
        self.connection.appetite = if self.brought > SMALL { LARGE } else { SMALL };
        worker.buffers.put(self.input);
        worker.buffers.put(self.output);
        self.connection.served = self.connection.served.saturating_add(1);
        let lives = self.connection.keep.max_requests.is_none_or(|most| self.connection.served < most.get());
        if keeps && clean && lives {
            self.connection.is_reused = true;
            worker.connections.put(self.connection);
        }
    }

    /// Closes the connection.
    pub fn discard(self, buffers: &Buffers) {
        buffers.put(self.input);
        buffers.put(self.output);
    }

    /// The stream, and what came behind the head.
    pub fn into_raw(mut self, buffers: &Buffers) -> (Stream, Vec<u8>) {
        self.drop_head();
        let early = self.input.filled().to_vec();
        buffers.put(self.input);
        buffers.put(self.output);
        (self.connection.stream, early)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffers: &Buffers, limit: usize) -> Poll<std::io::Result<usize>> {
        let appetite = self.connection.appetite;
        if self.input.is_empty() && self.input.end().capacity() < appetite {
            buffers.put(std::mem::replace(&mut self.input, buffers.take(appetite)));
        }
        if !self.input.make_room(limit) {
            return Poll::Ready(Err(std::io::ErrorKind::OutOfMemory.into()));
        }
        let polled = self.connection.stream.poll_read_into(cx, self.input.end());
        if let Poll::Ready(Ok(n)) = polled {
            self.is_fresh = true;
            self.brought += n;
            if self.input.end().len() == self.input.end().capacity() {
                self.connection.appetite = LARGE;
            }
        }
        polled
    }
}

/// Serialises a request.
fn put_request(out: &mut Vec<u8>, request: Upward<'_>, framing: Framing) {
    out.extend_from_slice(request.head.method());
    out.push(b' ');
    out.extend_from_slice(&request.target());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    put_field(out, b"host", request.host());
    request.fields(|name, value| put_field(out, name, value));
    if let Some(token) = request.upgrade {
        put_field(out, b"connection", b"upgrade");
        put_field(out, b"upgrade", token.of(&request.head.bytes));
    }
    match framing {
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            decimal(length, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => put_field(out, b"transfer-encoding", b"chunked"),
        Framing::None | Framing::UntilClose => {}
    }
    out.extend_from_slice(b"\r\n");
}
