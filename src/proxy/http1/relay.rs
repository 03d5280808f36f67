//! Relaying an answer to an HTTP/1.1 client: from the upstream's buffer into the socket, in the client's own task.
//!
//! A body of known length is written from where it was read, its first stretch together with the head; chunks are
//! encoded anew. What the client does not take is not read from the upstream either.
//!
//! Invariant: the proper end of an answer is written only after the upstream's own proper end.

use std::task::{Context, Poll, ready};

use crate::proxy::buffer::SMALL;
use crate::proxy::exchange::{Broken, Exchange};
use crate::proxy::hop;
use crate::proxy::http1::chunked;
use crate::proxy::http1::client::Connection;
use crate::proxy::http1::put_field;

/// Bytes of an answer held back for one write: more gains nothing.
const HELD: usize = 64 * 1024;
/// Stretches relayed before other connections get their turn.
const TURNS: u32 = 32;

/// How relaying a body ended.
pub(super) enum Relayed {
    Complete(u64),
    Cut(u64),
}

/// How the answer's body is framed towards the client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Downwards {
    /// There is none.
    Nothing,
    /// As it comes: the length is known, or the connection's end is the body's.
    Raw,
    Chunked,
}

/// An answer on its way down.
pub(super) struct Relay {
    /// Gone once the upstream said everything.
    pub(super) exchange: Option<Exchange>,
    pub(super) downwards: Downwards,
    pub(super) has_length: bool,
    pub(super) sent: u64,
}

impl Connection {
    /// Moves the answer's body down and what is left of the request's body up, until one of them has to be waited for.
    pub(super) fn poll_relay(&mut self, cx: &mut Context<'_>, relay: &mut Relay) -> Poll<Relayed> {
        self.client.waiter.register(cx.waker());
        let mut turns = 0;
        loop {
            let Some(exchange) = &mut relay.exchange else {
                return match ready!(self.poll_last(cx)) {
                    true => Poll::Ready(Relayed::Complete(relay.sent)),
                    false => Poll::Ready(self.cut(relay)),
                };
            };
            if self.client.waiter.is_given_up() {
                return Poll::Ready(self.lose(relay));
            }
            if !exchange.is_uploaded() && matches!(exchange.poll_upload(cx, self), Poll::Ready(Err(Broken::Client(_))))
            {
                return Poll::Ready(self.lose(relay));
            }
            turns += 1;
            if turns > TURNS {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.output.len() >= HELD {
                match ready!(self.poll_write(cx)) {
                    true => continue,
                    false => return Poll::Ready(self.lose(relay)),
                }
            }
            let n = match exchange.poll_data(cx) {
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(failure)) => {
                    if let Some(exchange) = relay.exchange.take() {
                        exchange.fail(failure);
                    }
                    // As far as it came; without its end.
                    let _ = self.poll_flush(cx);
                    return Poll::Ready(self.cut(relay));
                }
                Poll::Pending => match ready!(self.poll_flush(cx)) {
                    true => return self.poll_client(cx, relay),
                    false => return Poll::Ready(self.lose(relay)),
                },
            };
            if n == 0 {
                self.end_body(relay);
            } else if relay.downwards == Downwards::Chunked {
                chunked::encode(exchange.data(n), self.output.end());
                exchange.took(n);
                relay.sent += n as u64;
            } else if !self.output.is_empty() && self.output.len() + n <= SMALL {
                self.output.end().extend_from_slice(exchange.data(n));
                exchange.took(n);
                relay.sent += n as u64;
            } else {
                let held = self.output.len();
                let written = match held {
                    0 => ready!(self.stream.poll_write_some(cx, exchange.data(n))),
                    _ => ready!(self.stream.poll_write_two(cx, self.output.filled(), exchange.data(n))),
                };
                let Ok(written @ 1..) = written else { return Poll::Ready(self.lose(relay)) };
                self.output.consume(written.min(held));
                let body = written.saturating_sub(held);
                exchange.took(body);
                relay.sent += body as u64;
            }
        }
    }

    /// The upstream said everything.
    fn end_body(&mut self, relay: &mut Relay) {
        let Some(exchange) = relay.exchange.take() else { return };
        if relay.downwards == Downwards::Chunked {
            let out = self.output.end();
            out.extend_from_slice(chunked::LAST);
            if self.takes_trailers {
                hop::trailers(exchange.trailers(), |name, value| put_field(out, name, value));
            }
            out.extend_from_slice(b"\r\n");
        }
        exchange.complete();
    }

    /// While the upstream is waited for: a client that reset its connection is noticed, one that only closed its side
    /// is still answered.
    fn poll_client(&mut self, cx: &mut Context<'_>, relay: &mut Relay) -> Poll<Relayed> {
        match self.poll_gone(cx) {
            Poll::Ready(()) => Poll::Ready(self.lose(relay)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The client is gone or does not read.
    fn lose(&mut self, relay: &mut Relay) -> Relayed {
        if let Some(exchange) = relay.exchange.take() {
            exchange.abandon();
        }
        self.cut(relay)
    }

    fn cut(&mut self, relay: &Relay) -> Relayed {
        self.keeps_alive = false;
        self.is_cut_short = relay.downwards == Downwards::Raw && !relay.has_length;
        Relayed::Cut(relay.sent)
    }
}
