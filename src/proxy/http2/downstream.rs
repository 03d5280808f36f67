//! One HTTP/2 stream as the client's side of a request.
//!
//! The body is shown as `h2` received it, and window is given back only for what went up: a slow upstream holds the
//! client back. Of an answer no more is given to `h2` than the client's windows take at once, so that what waits for
//! a client waits in the exchange's one buffer, where the sweep sees it; `h2` holds what the socket has yet to take.
//!
//! Invariant: a stream is ended properly only if its answer is complete; one that was cut is reset.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use http::header::HeaderValue;

use crate::domain::outcome::Failure;
use crate::proxy::connection::{Client, Waiter};
use crate::proxy::error::Fault;
use crate::proxy::exchange::{Broken, Exchange, Upload};
use crate::proxy::head::{Field, Fields, Known, RequestHead, ResponseHead, Version};
use crate::proxy::hop::{self, Additions};
use crate::proxy::http1::framing::Framing;
use crate::proxy::http2::flatten;
use crate::proxy::http2::guard::Wire;
use crate::proxy::pipeline::{self, Answer, Asker, Downstream, Request};
use crate::proxy::reply::Reply;
use crate::proxy::worker::Worker;

/// Bytes given to `h2` at once: four frames.
const STRETCH: usize = 64 * 1024;
/// Stretches relayed before other streams get their turn.
const TURNS: u32 = 8;
/// How long a client that was answered may take to end its request, if so many bytes of it are to come at most: it has
/// windows for more.
const FAREWELL: Duration = Duration::from_secs(5);
const FAREWELL_BYTES: u64 = 16 * 1024;

/// Answers one request.
pub async fn answer(
    worker: Rc<Worker>,
    client: Rc<Client>,
    wire: Rc<Wire>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let (parts, body) = request.into_parts();
    let limit = worker.snapshot().table.client.max_headers;
    let mut side = Side {
        client: Rc::clone(&client),
        wire,
        waiter: Rc::default(),
        to_head: parts.method == http::Method::HEAD,
        respond,
        down: None,
        shown: Bytes::new(),
        trailers: Trailers::default(),
        awaits_leave: false,
        body,
        used: 0,
    };
    let mut head = RequestHead::default();
    let flattened = flatten::request(parts, side.body.is_end_stream(), limit, &mut head);
    let Some(_held) = side.wire.hold_head(head.bytes.capacity()) else {
        // Nothing was done for it: the client may try again (RFC 9113 section 8.7).
        return side.reset(Reason::REFUSED_STREAM);
    };
    match flattened {
        Ok(asked) => {
            side.awaits_leave = asked.expects_continue;
            let request = Request {
                framing: asked.framing,
                expects_continue: asked.expects_continue,
                ..Request::new(&worker, &client, &head)
            };
            pipeline::handle(&worker, request, &mut side).await;
            side.part(asked.framing).await;
        }
        Err(fault) => pipeline::refuse(&worker, fault, &mut side).await,
    }
}

/// A stream.
struct Side {
    client: Rc<Client>,
    wire: Rc<Wire>,
    waiter: Rc<Waiter>,
    to_head: bool,
    respond: SendResponse<Bytes>,
    /// There once the answer's head went down.
    down: Option<SendStream<Bytes>>,
    body: RecvStream,
    /// Bytes of the body that were used.
    used: u64,
    /// What came of the body and was not used yet.
    shown: Bytes,
    trailers: Trailers,
    /// The client waits for leave to send its body.
    awaits_leave: bool,
}

/// Fields behind the request's body.
#[derive(Default)]
struct Trailers {
    bytes: Vec<u8>,
    list: Vec<Field>,
}

/// An answer on its way down.
struct Relay {
    /// Gone once the upstream said everything.
    exchange: Option<Exchange>,
    /// How much of it is to come, if that is known and nothing follows its last byte.
    left: Option<u64>,
    /// What was seen of the body before the head went down.
    seen: Option<Result<usize, Failure>>,
    /// The upstream broke off.
    is_cut: bool,
    sent: u64,
}

impl Relay {
    /// Looks whether the answer is over with its head: then the head has to say so, or clients miss the trailers that it
    /// stands for (gRPC's answers without a message).
    fn look(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(exchange) = &mut self.exchange
            && let Poll::Ready(seen) = exchange.poll_data(cx)
        {
            if seen == Ok(0) && exchange.trailers().list.is_empty() {
                self.left = Some(0);
            }
            self.seen = Some(seen);
        }
        Poll::Ready(())
    }
}

impl Side {
    /// Moves the answer's body down and what is left of the request's up, until one of them has to be waited for.
    fn poll_relay(&mut self, cx: &mut Context<'_>, relay: &mut Relay) -> Poll<()> {
        self.waiter.register(cx.waker());
        for _ in 0..TURNS {
            let Some(exchange) = &mut relay.exchange else {
                if relay.is_cut {
                    self.reset(Reason::INTERNAL_ERROR);
                }
                return Poll::Ready(());
            };
            if self.waiter.is_given_up() {
                return self.lose(relay);
            }
            if !exchange.is_uploaded() && matches!(exchange.poll_upload(cx, self), Poll::Ready(Err(Broken::Client(_))))
            {
                return self.lose(relay);
            }
            let polled = relay.seen.take().map_or_else(|| exchange.poll_data(cx), Poll::Ready);
            match polled {
                Poll::Ready(Ok(0)) => self.end(relay),
                Poll::Ready(Ok(n)) => {
                    if !ready!(self.poll_send(cx, relay, n)) {
                        return self.lose(relay);
                    }
                }
                Poll::Ready(Err(failure)) => {
                    if let Some(exchange) = relay.exchange.take() {
                        exchange.fail(failure);
                    }
                    // What came so far leaves first: a reset makes `h2` forget it. So the next turn does the rest.
                    relay.is_cut = true;
                    break;
                }
                Poll::Pending => {
                    ready!(self.poll_gone(cx));
                    return self.lose(relay);
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends some of `n` bytes, as many as the client's windows take; false if the client is gone.
    fn poll_send(&mut self, cx: &mut Context<'_>, relay: &mut Relay, n: usize) -> Poll<bool> {
        let (Some(down), Some(exchange)) = (&mut self.down, &mut relay.exchange) else { return Poll::Ready(false) };
        let wanted = n.min(STRETCH);
        down.reserve_capacity(wanted);
        let mut room = down.capacity();
        while room == 0 {
            match ready!(down.poll_capacity(cx)) {
                Some(Ok(_)) => room = down.capacity(),
                Some(Err(_)) | None => return Poll::Ready(false),
            }
        }
        let part = wanted.min(room);
        let is_last = relay.left == Some(part as u64);
        if down.send_data(Bytes::copy_from_slice(exchange.data(part)), is_last).is_err() {
            return Poll::Ready(false);
        }
        self.wire.moved(part);
        exchange.took(part);
        relay.left = relay.left.map(|left| left.saturating_sub(part as u64));
        relay.sent += part as u64;
        Poll::Ready(true)
    }

    /// The upstream said everything.
    fn end(&mut self, relay: &mut Relay) {
        let (Some(exchange), Some(down)) = (relay.exchange.take(), &mut self.down) else { return };
        if relay.left != Some(0) {
            let trailers = flatten::trailers_down(exchange.trailers());
            // An error means that the client is gone, which is nobody's fault.
            let _ = match trailers.is_empty() {
                true => down.send_data(Bytes::new(), true),
                false => down.send_trailers(trailers),
            };
        }
        exchange.complete();
    }

    /// The client is gone or does not read.
    fn lose(&mut self, relay: &mut Relay) -> Poll<()> {
        if let Some(exchange) = relay.exchange.take() {
            exchange.abandon();
        }
        self.reset(Reason::CANCEL);
        Poll::Ready(())
    }

    /// Lets a client that was answered end its request if that takes no further window: to reset its stream at once would
    /// be legal (RFC 9113 section 8.1), but `httpx` and older versions of curl lose the answer over it.
    async fn part(&mut self, framing: Framing) {
        let is_near = matches!(framing, Framing::Length(length) if length.saturating_sub(self.used) <= FAREWELL_BYTES);
        if !is_near || self.body.is_end_stream() {
            return;
        }
        let rest = async {
            while let Some(Ok(data)) = poll_fn(|cx| self.body.poll_data(cx)).await {
                let _ = self.body.flow_control().release_capacity(data.len());
            }
        };
        let _ = tokio::time::timeout(FAREWELL, rest).await;
    }

    fn reset(&mut self, reason: Reason) {
        match &mut self.down {
            Some(down) => down.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }

    /// Sends a head; false if the client is gone.
    fn send_head(&mut self, head: http::Response<()>, is_all: bool) -> bool {
        self.down = self.respond.send_response(head, is_all).ok();
        self.down.is_some()
    }
}

impl Upload for Side {
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Fault>> {
        while self.shown.is_empty() {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.awaits_leave = false;
                    self.shown = data;
                }
                // A length that does not fit, and the like. That the client is gone shows elsewhere.
                Some(Err(error)) if error.is_library() => return Poll::Ready(Err(Fault::BrokenBody)),
                Some(Err(_)) => return Poll::Pending,
                None => match ready!(self.body.poll_trailers(cx)) {
                    Ok(fields) => {
                        let Trailers { bytes, list } = &mut self.trailers;
                        bytes.clear();
                        list.clear();
                        fields.iter().for_each(|fields| flatten::trailers(fields, bytes, list));
                        return Poll::Ready(Ok(None));
                    }
                    Err(error) if error.is_library() => return Poll::Ready(Err(Fault::BrokenBody)),
                    Err(_) => return Poll::Pending,
                },
            }
        }
        Poll::Ready(Ok(Some(&self.shown)))
    }

    fn took(&mut self, n: usize) {
        if n == 0 {
            return;
        }
        self.shown.advance(n);
        self.used += n as u64;
        // It fails only for more than was received.
        let _ = self.body.flow_control().release_capacity(n);
    }

    fn trailers(&self) -> Fields<'_> {
        Fields { bytes: &self.trailers.bytes, list: &self.trailers.list }
    }

    fn is_last(&self) -> bool {
        self.body.is_end_stream()
    }

    fn awaits_leave(&self) -> bool {
        self.awaits_leave
    }
}

impl Asker for Side {
    fn client(&self) -> &Client {
        &self.client
    }

    fn waiter(&self) -> Rc<Waiter> {
        Rc::clone(&self.waiter)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.down {
            Some(down) => down.poll_reset(cx).map(drop),
            None => self.respond.poll_reset(cx).map(drop),
        }
    }

    async fn interim(&mut self, head: ResponseHead<'_>) {
        if head.status == 100 && !std::mem::take(&mut self.awaits_leave) {
            return;
        }
        let mut headers = HeaderMap::new();
        let nothing = Additions::default();
        hop::downward(head, false, &self.client, &nothing, |name, value| flatten::append(&mut headers, name, value));
        // An error means that the client is gone.
        let _ = self.respond.send_informational(flatten::with_headers(head.status, headers));
    }
}

impl Downstream for Side {
    async fn deliver(&mut self, answer: Answer) -> u64 {
        let Answer { mut exchange, additions } = answer;
        let (head, framing) = (exchange.head(), exchange.framing());
        let length = match framing {
            Framing::Length(length) => Some(HeaderValue::from(length)),
            // What a GET would have had (RFC 9110 section 8.6); not for statuses that never have any.
            Framing::None if self.to_head || head.status == 304 => {
                let theirs = head.fields.known(Known::ContentLength).next();
                theirs.and_then(|length| HeaderValue::from_bytes(length).ok())
            }
            _ => None,
        };
        // An upstream that speaks HTTP/2 may send trailers behind any body.
        let left = match framing {
            Framing::None if head.version != Version::Http2 => Some(0),
            Framing::Length(length) if head.version != Version::Http2 => Some(length),
            _ => None,
        };
        let response = flatten::response(head, length, &self.client, &additions, self.wire.names());
        exchange.drop_head();
        let mut relay = Relay { exchange: Some(exchange), left, seen: None, is_cut: false, sent: 0 };
        if left.is_none() {
            poll_fn(|cx| relay.look(cx)).await;
        }
        if self.send_head(response, relay.left == Some(0)) {
            poll_fn(|cx| self.poll_relay(cx, &mut relay)).await;
        } else {
            let _ = self.lose(&mut relay);
        }
        relay.sent
    }

    async fn reply(&mut self, reply: Reply) {
        let mut headers = HeaderMap::new();
        if !reply.text.is_empty() {
            headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(reply.text.len()));
        }
        reply.fields.iter().for_each(|(name, value)| flatten::append(&mut headers, name.as_bytes(), value));
        if let Some(promise) = self.client.strict_transport().filter(|_| !reply.has(hop::STRICT_TRANSPORT)) {
            flatten::append(&mut headers, hop::STRICT_TRANSPORT.as_bytes(), promise.as_bytes());
        }
        let is_all = self.to_head || reply.text.is_empty();
        if self.send_head(flatten::with_headers(reply.status, headers), is_all)
            && let Some(down) = self.down.as_mut().filter(|_| !is_all)
        {
            // Short enough to wait in `h2` for a window, should there be none.
            let _ = down.send_data(reply.text.into(), true);
        }
    }
}
