//! Tunnels: after a 101 the bytes of a WebSocket are copied both ways, in the client's own task.
//!
//! The copy uses a fixed buffer each way, so a slow reader holds the fast side back. A tunnel without a byte
//! for its idle time is closed; a drain gives it the same grace as any other request.
//!
//! Invariant: nothing is tunnelled before the upstream itself answered 101.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::clock::{self, Micros};
use crate::proxy::recorder::Attempt;
use crate::proxy::stream::Stream;

/// Buffer each way.
const BUFFER: usize = 16 * 1024;
/// An open tunnel may be silent for this long: WebSocket clients ping far more often.
const IDLE: Duration = Duration::from_secs(3_600);
/// TLS has a last word, which a client that does not read never takes.
const FAREWELL: Duration = Duration::from_millis(500);

/// One side of a tunnel: its stream, and what was read from it already.
pub struct Side {
    /// The stream.
    pub stream: Stream,
    /// Bytes of the new protocol that came right behind the head.
    pub early: Vec<u8>,
}

/// The upstream's side of a tunnel, waiting for the client's.
pub struct Tunnel {
    /// The upstream's side.
    pub upstream: Side,
    /// Counts as in flight until the tunnel closes.
    pub attempt: Attempt,
}

/// Copies both ways until both sides have closed, one fails, or nothing moved for too long.
pub async fn run(client: Side, tunnel: Tunnel) {
    let Tunnel { upstream, attempt } = tunnel;
    let moved = Cell::new(clock::now());
    attempt.upload_moved(client.early.len());
    attempt.moved(upstream.early.len());
    let mut down = Moving { stream: client.stream, moved: &moved, took: &|bytes| attempt.upload_moved(bytes) };
    let mut up = Moving { stream: upstream.stream, moved: &moved, took: &|bytes| attempt.moved(bytes) };
    let copy = async {
        // Nobody else flushes what TLS holds back of it.
        up.write_all(&client.early).await?;
        up.flush().await?;
        down.write_all(&upstream.early).await?;
        down.flush().await?;
        tokio::io::copy_bidirectional_with_sizes(&mut down, &mut up, BUFFER, BUFFER).await
    };
    tokio::select! {
        copied = copy => drop(copied),
        () = silence(&moved) => {}
        () = cut(&attempt) => {}
    }
    let Moving { stream: mut down, .. } = down;
    drop(up);
    attempt.complete();
    let _ = tokio::time::timeout(FAREWELL, down.shutdown()).await;
}

/// Returns once the attempt is cut by an order.
async fn cut(attempt: &Attempt) {
    let waiter = attempt.waiter();
    poll_fn(|cx| {
        waiter.register(cx.waker());
        if attempt.is_cut() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn silence(moved: &Cell<Micros>) {
    loop {
        let quiet = Duration::from_micros(clock::now().since(moved.get()));
        let Some(left) = IDLE.checked_sub(quiet).filter(|left| !left.is_zero()) else { return };
        tokio::time::sleep(left).await;
    }
}

/// A stream that notes when bytes were last read from it, and how many.
struct Moving<'a> {
    stream: Stream,
    moved: &'a Cell<Micros>,
    took: &'a dyn Fn(usize),
}

impl AsyncRead for Moving<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() {
            self.moved.set(clock::now());
            (self.took)(buf.filled().len() - before);
        }
        polled
    }
}

impl AsyncWrite for Moving<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
