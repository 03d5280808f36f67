//! The HTTP/1.1 client side: reads requests, hands them to the pipeline, writes answers in order.
//!
//! A head is parsed where it was read, and the buffer that holds it becomes the request's; what follows is body. The
//! answer's head is written anew; a body of known length goes from the upstream's buffer straight into the socket,
//! the first stretch together with the head. A pipelined request waits in the kernel or in the input buffer until
//! the answer before it is complete.
//!
//! Invariant: an answer is ended properly only if it is complete; and after a request whose end is not certain the
//! connection takes no other.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::proxy::buffer::{Buffer, SMALL};
use crate::proxy::close::Close;
use crate::proxy::connection::{Client, Waiter};
use crate::proxy::error::{self, Fault};
use crate::proxy::exchange::{Exchange, Upload};
use crate::proxy::head::{Field, Fields, Known, RequestHead, ResponseHead, Version};
use crate::proxy::hop::{self, Additions};
use crate::proxy::http1::body::Body;
use crate::proxy::http1::chunked::Step;
use crate::proxy::http1::framing::Framing;
use crate::proxy::http1::parse::{self, Limits};
use crate::proxy::http1::relay::{Downwards, Relay, Relayed};
use crate::proxy::http1::{decimal, put_field};
use crate::proxy::http2::preface::{self, Spoken};
use crate::proxy::pipeline::{self, Answer, Asker, Downstream, Request};
use crate::proxy::reply::Reply;
use crate::proxy::stream::Stream;
use crate::proxy::tunnel::{Side, Tunnel};
use crate::proxy::worker::Worker;

/// Empty lines in front of a request line that are passed over (RFC 9112 section 2.2 asks for one).
const EMPTY_LINES: usize = 2;

/// Requests answered in a row before other connections get their turn: who sends many ahead always finds the next.
const TURNS: u32 = 16;

/// How serving a connection ended.
pub enum Ended {
    /// It is to be closed.
    Closed(Close),
    /// Nothing came for a while, and nothing is left of what came before.
    Dozing(Stream),
    /// It became a tunnel.
    Switched(Side, Tunnel),
    /// It began with the preface of HTTP/2, which is among what was read.
    Http2(Stream, Vec<u8>),
}

/// Serves requests until the connection ends or dozes off.
pub async fn serve(worker: &Rc<Worker>, client: &Rc<Client>, stream: Stream) -> Ended {
    let mut connection = Connection::new(Rc::clone(worker), Rc::clone(client), stream);
    let mut head = RequestHead::default();
    let mut turns = 0;
    loop {
        match connection.read_head(&mut head).await {
            Ok(Some(parsed)) => {
                connection.accept(&parsed, &head);
                let request = Request {
                    framing: parsed.framing,
                    expects_continue: parsed.expects_continue,
                    upgrade: parsed.upgrade,
                    ..Request::new(worker, client, &head)
                };
                pipeline::handle(worker, request, &mut connection).await;
            }
            Ok(None) => break,
            Err(fault) => {
                connection.forget_request();
                pipeline::refuse(worker, fault, &mut connection).await;
                break;
            }
        }
        worker.buffers.put_bytes(std::mem::take(&mut head.bytes));
        client.idle();
        if let Some(tunnel) = connection.tunnel.take() {
            return Ended::Switched(connection.into_side(), tunnel);
        }
        if !connection.keeps_alive {
            break;
        }
        turns += 1;
        if turns == TURNS {
            turns = 0;
            tokio::task::yield_now().await;
        }
    }
    if connection.is_dozing {
        return Ended::Dozing(connection.into_side().stream);
    }
    if connection.is_http2 {
        let Side { stream, early } = connection.into_side();
        return Ended::Http2(stream, early);
    }
    Ended::Closed(connection.close())
}

/// A client connection that speaks HTTP/1.1.
pub(super) struct Connection {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Rc<Client>,
    pub(super) stream: Stream,
    pub(super) input: Buffer,
    pub(super) output: Buffer,
    /// The rest of the request's body.
    pub(super) body: Body,
    /// Memory for trailer fields.
    pub(super) list: Vec<Field>,
    pub(super) version: Version,
    pub(super) to_head: bool,
    pub(super) takes_trailers: bool,
    /// The client waits for leave to send its body.
    pub(super) awaits_leave: bool,
    /// The connection may take another request.
    pub(super) keeps_alive: bool,
    /// The client sent its end.
    pub(super) is_ended: bool,
    /// An answer was cut that only the connection's end delimits.
    pub(super) is_cut_short: bool,
    /// Nothing tells yet which HTTP it speaks.
    is_first: bool,
    is_http2: bool,
    is_dozing: bool,
    pub(super) tunnel: Option<Tunnel>,
}

impl Connection {
    fn new(worker: Rc<Worker>, client: Rc<Client>, stream: Stream) -> Connection {
        let is_first = client.may_begin_http2();
        Connection {
            worker,
            client,
            stream,
            input: Buffer::default(),
            output: Buffer::default(),
            body: Body::Over,
            list: Vec::new(),
            version: Version::Http11,
            to_head: false,
            takes_trailers: false,
            awaits_leave: false,
            keeps_alive: true,
            is_ended: false,
            is_cut_short: false,
            is_first,
            is_http2: false,
            is_dozing: false,
            tunnel: None,
        }
    }

    /// Waits for the next request head. `None` when the connection is to be closed without a word.
    async fn read_head(&mut self, head: &mut RequestHead) -> Result<Option<parse::Request>, Fault> {
        let limits = &self.worker.snapshot().table.client;
        let limits = Limits { bytes: limits.max_head, fields: limits.max_headers };
        let mut is_fresh = !self.input.is_empty();
        let mut empty_lines = 0;
        poll_fn(|cx| {
            self.client.waiter.register(cx.waker());
            loop {
                if self.client.is_cut() {
                    return Poll::Ready(if self.input.is_empty() { Ok(None) } else { Err(Fault::TooSlow) });
                }
                if self.client.is_over() && self.input.is_empty() {
                    return Poll::Ready(Ok(None));
                }
                while is_fresh && empty_lines < EMPTY_LINES && self.input.filled().starts_with(b"\r\n") {
                    self.input.consume(2);
                    empty_lines += 1;
                }
                if is_fresh && self.is_first && !self.input.is_empty() {
                    let spoken = preface::spoken(self.input.filled());
                    self.is_first = spoken == Spoken::Undecided;
                    self.is_http2 = spoken == Spoken::Http2;
                    is_fresh = spoken == Spoken::Http1;
                    if self.is_http2 {
                        return Poll::Ready(Ok(None));
                    }
                }
                if std::mem::take(&mut is_fresh) && !self.input.is_empty() {
                    self.client.begins_head();
                    if let Some(parsed) = parse::request(self.input.filled(), limits, head)? {
                        self.take_head(parsed.length, head);
                        return Poll::Ready(Ok(Some(parsed)));
                    }
                }
                let filled = self.poll_fill(cx, limits.bytes);
                if filled.is_pending() && self.client.dozes() && self.input.is_empty() {
                    self.is_dozing = true;
                    return Poll::Ready(Ok(None));
                }
                match ready!(filled) {
                    Some(_) => is_fresh = true,
                    None if self.input.is_empty() => return Poll::Ready(Ok(None)),
                    None => return Poll::Ready(Err(Fault::BadRequest("the head ended early"))),
                }
            }
        })
        .await
    }

    /// The head's bytes become the request's; what follows stays.
    fn take_head(&mut self, length: usize, head: &mut RequestHead) {
        let follows = self.input.len() > length;
        let spare = if follows { self.worker.buffers.take(SMALL) } else { Buffer::default() };
        self.worker.buffers.put_bytes(std::mem::replace(&mut head.bytes, self.input.split_front(length, spare)));
    }

    /// Reads more; `None` at the end of the stream. Holds no buffer while there is nothing to read.
    fn poll_fill(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<Option<usize>> {
        if self.input.is_empty() {
            if self.stream.poll_stirred(cx).is_pending() {
                self.worker.buffers.put(std::mem::take(&mut self.input));
                return Poll::Pending;
            }
            if !self.input.is_allocated() {
                self.input = self.worker.buffers.take(SMALL);
            }
        }
        if !self.input.make_room(limit) {
            return Poll::Ready(Some(0));
        }
        let read = self.stream.poll_read_into(cx, self.input.end());
        if read.is_pending() && self.input.is_empty() {
            self.worker.buffers.put(std::mem::take(&mut self.input));
        }
        match ready!(read) {
            Ok(n @ 1..) => Poll::Ready(Some(n)),
            Ok(0) | Err(_) => {
                self.is_ended = true;
                self.keeps_alive = false;
                Poll::Ready(None)
            }
        }
    }

    fn accept(&mut self, parsed: &parse::Request, head: &RequestHead) {
        self.client.busy();
        self.body = Body::of(parsed.framing);
        self.version = head.version;
        self.to_head = head.is("HEAD");
        self.awaits_leave = parsed.expects_continue;
        self.keeps_alive = parsed.keeps_alive && !(self.is_ended && self.input.is_empty());
        self.takes_trailers = head.takes_trailers();
    }

    /// What cannot be parsed is answered like any request of today.
    fn forget_request(&mut self) {
        (self.version, self.to_head, self.keeps_alive) = (Version::Http11, false, false);
    }

    /// True if the body is over, as far as what was read already tells.
    fn settle_body(&mut self) -> bool {
        while let Ok(step) = self.body.step(self.input.filled()) {
            match step {
                Step::Data { skip, length } => {
                    self.input.consume(skip + length);
                    self.body.took(length);
                }
                Step::End { skip } => {
                    self.input.consume(skip);
                    return true;
                }
                Step::More => break,
            }
        }
        false
    }

    /// Appends what ends every head of ours: whether the connection goes on, and the empty line.
    fn end_head(&mut self) {
        if self.client.is_leaving() {
            // Told now, the client opens its next connection elsewhere; cut later, it might lose a request.
            self.keeps_alive = false;
        }
        let out = self.output.end();
        match (self.keeps_alive, self.version) {
            (false, _) => put_field(out, b"connection", b"close"),
            (true, Version::Http10) => put_field(out, b"connection", b"keep-alive"),
            (true, _) => {}
        }
        out.extend_from_slice(b"\r\n");
    }

    fn begin_head(&mut self, status: u16) {
        if !self.output.is_allocated() {
            self.output = self.worker.buffers.take(SMALL);
        }
        let out = self.output.end();
        out.extend_from_slice(b"HTTP/1.1 ");
        decimal(u64::from(status), out);
        out.push(b' ');
        out.extend_from_slice(error::reason(status).as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// Serialises an upstream's head, and says how the body goes down.
    fn put_head(&mut self, exchange: &Exchange, additions: &Additions) -> Downwards {
        let head = exchange.head();
        self.begin_head(head.status);
        let (framing, is_old) = (exchange.framing(), self.version == Version::Http10);
        let downwards = match framing {
            Framing::None | Framing::Length(0) => Downwards::Nothing,
            Framing::Length(_) => Downwards::Raw,
            Framing::Chunked | Framing::UntilClose if is_old => Downwards::Raw,
            Framing::Chunked | Framing::UntilClose => Downwards::Chunked,
        };
        if is_old && matches!(framing, Framing::Chunked | Framing::UntilClose) {
            self.keeps_alive = false;
        }
        let out = self.output.end();
        let trailers = self.takes_trailers && downwards == Downwards::Chunked;
        hop::downward(head, trailers, &self.client, additions, |name, value| put_field(out, name, value));
        match framing {
            Framing::Length(length) => {
                out.extend_from_slice(b"content-length: ");
                decimal(length, out);
                out.extend_from_slice(b"\r\n");
            }
            // What a GET would have had (RFC 9110 section 8.6); not for statuses that never have any.
            Framing::None if self.to_head || head.status == 304 => {
                if let Some(length) = head.fields.known(Known::ContentLength).next() {
                    put_field(out, b"content-length", length);
                }
            }
            _ if downwards == Downwards::Chunked => put_field(out, b"transfer-encoding", b"chunked"),
            _ => {}
        }
        if head.status == 101 {
            put_field(out, b"connection", b"upgrade");
            let token = head.fields.known(Known::Upgrade).next().unwrap_or_default();
            put_field(out, b"upgrade", token);
            out.extend_from_slice(b"\r\n");
        } else {
            self.end_head();
        }
        downwards
    }

    /// Ready if the client reset the connection. What it pipelines is read as far as there is room.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.body.is_within(self.input.len()) && !self.is_ended && self.input.len() < SMALL {
            if self.stream.poll_stirred(cx).is_pending() {
                return Poll::Pending;
            }
            if !self.input.is_allocated() {
                self.input = self.worker.buffers.take(SMALL);
            }
            if !self.input.make_room(SMALL) {
                return Poll::Pending;
            }
            match ready!(self.stream.poll_read_into(cx, self.input.end())) {
                Ok(1..) => {}
                Ok(0) => self.is_ended = true,
                Err(_) => {
                    (self.is_ended, self.keeps_alive) = (true, false);
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }

    /// Writes some of what is held back; false if the client is gone.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let written = ready!(self.stream.poll_write_some(cx, self.output.filled()));
        let Ok(written @ 1..) = written else { return Poll::Ready(false) };
        self.output.consume(written);
        Poll::Ready(true)
    }

    /// Writes all of what is held back; false if the client is gone.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while !self.output.is_empty() {
            if !ready!(self.poll_write(cx)) {
                return Poll::Ready(false);
            }
        }
        self.stream.poll_flushed(cx).map(|flushed| flushed.is_ok())
    }

    /// Writes the rest of an answer that is complete; no attempt watches the client any more, so the sweep does.
    pub(super) fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.client.waiter.is_given_up() {
            return Poll::Ready(false);
        }
        let before = self.output.len();
        let flushed = self.poll_flush(cx);
        if flushed.is_pending() {
            self.client.stalls(self.output.len() < before);
        }
        flushed
    }

    async fn flush(&mut self) -> bool {
        poll_fn(|cx| {
            self.client.waiter.register(cx.waker());
            self.poll_last(cx)
        })
        .await
    }

    fn into_side(self) -> Side {
        let early = self.input.filled().to_vec();
        self.worker.buffers.put(self.input);
        self.worker.buffers.put(self.output);
        Side { stream: self.stream, early }
    }

    fn close(self) -> Close {
        let unread = !self.body.is_over() || !self.input.is_empty();
        self.worker.buffers.put(self.input);
        self.worker.buffers.put(self.output);
        // Who does not read its answers reads no farewell either: the kernel would keep all of it for minutes.
        let is_lost = self.is_cut_short || self.client.waiter.is_given_up();
        match (is_lost, unread && !self.is_ended) {
            (true, _) => Close::Reset(self.stream),
            (false, true) => Close::Unread(self.stream),
            (false, false) => Close::Clean(self.stream),
        }
    }
}

impl Upload for Connection {
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Fault>> {
        loop {
            match self.body.step(self.input.filled()).map_err(|_| Fault::BrokenBody)? {
                Step::Data { skip, length } => {
                    self.input.consume(skip);
                    self.awaits_leave = false;
                    return Poll::Ready(Ok(Some(&self.input.filled()[..length])));
                }
                Step::End { skip } => {
                    self.input.consume(skip);
                    if !self.body.trailers().is_empty() {
                        parse::trailers(self.body.trailers(), &mut self.list).map_err(|_| Fault::BrokenBody)?;
                    }
                    return Poll::Ready(Ok(None));
                }
                Step::More => self.input.clear(),
            }
            if ready!(self.poll_fill(cx, SMALL)).is_none() {
                return Poll::Ready(Err(Fault::BrokenBody));
            }
        }
    }

    fn took(&mut self, n: usize) {
        self.input.consume(n);
        self.body.took(n);
    }

    fn trailers(&self) -> Fields<'_> {
        match self.body.trailers() {
            [] => Fields::NONE,
            bytes => Fields { bytes, list: &self.list },
        }
    }

    fn awaits_leave(&self) -> bool {
        self.awaits_leave
    }
}

impl Asker for Connection {
    fn client(&self) -> &Client {
        &self.client
    }

    fn waiter(&self) -> Rc<Waiter> {
        Rc::clone(&self.client.waiter)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Connection::poll_gone(self, cx)
    }

    async fn interim(&mut self, head: ResponseHead<'_>) {
        if self.version == Version::Http10 || (head.status == 100 && !self.awaits_leave) {
            return;
        }
        if head.status == 100 {
            self.awaits_leave = false;
        }
        self.begin_head(head.status);
        let out = self.output.end();
        hop::downward(head, false, &self.client, &Additions::default(), |name, value| put_field(out, name, value));
        out.extend_from_slice(b"\r\n");
        self.flush().await;
        // The answer itself is still to come: its client is not the one to be waited for.
        self.client.busy();
    }
}

impl Downstream for Connection {
    async fn deliver(&mut self, answer: Answer) -> u64 {
        let Answer { mut exchange, additions } = answer;
        if !exchange.is_uploaded() {
            // What the client still sends would have to be read before its next request.
            self.keeps_alive = false;
        }
        let downwards = self.put_head(&exchange, &additions);
        if exchange.head().status == 101 {
            let flushed = self.flush().await;
            self.keeps_alive = false;
            if let Some((stream, early, attempt)) = exchange.into_tunnel().filter(|_| flushed) {
                self.tunnel = Some(Tunnel { upstream: Side { stream, early }, attempt });
            }
            return 0;
        }
        let has_length = matches!(exchange.framing(), Framing::Length(_) | Framing::None);
        exchange.drop_head();
        let mut relay = Relay { exchange: Some(exchange), downwards, has_length, sent: 0 };
        let relayed = poll_fn(|cx| self.poll_relay(cx, &mut relay)).await;
        self.worker.buffers.put(std::mem::take(&mut self.output));
        match relayed {
            Relayed::Complete(sent) | Relayed::Cut(sent) => sent,
        }
    }

    async fn reply(&mut self, reply: Reply) {
        let over = self.settle_body();
        self.keeps_alive &= over && !reply.closes;
        self.begin_head(reply.status);
        let out = self.output.end();
        reply.fields.iter().for_each(|(name, value)| put_field(out, name.as_bytes(), value));
        if let Some(promise) = self.client.strict_transport().filter(|_| !reply.has(hop::STRICT_TRANSPORT)) {
            put_field(out, hop::STRICT_TRANSPORT.as_bytes(), promise.as_bytes());
        }
        out.extend_from_slice(b"content-length: ");
        decimal(reply.text.len() as u64, out);
        out.extend_from_slice(b"\r\n");
        self.end_head();
        if !self.to_head {
            self.output.end().extend_from_slice(reply.text.as_bytes());
        }
        if !self.flush().await {
            self.keeps_alive = false;
        }
        self.worker.buffers.put(std::mem::take(&mut self.output));
    }
}

#[cfg(test)]
mod tests;
