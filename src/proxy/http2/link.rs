//! A link: one HTTP/2 connection to an endpoint, shared by the requests of one worker.
//!
//! A task of its own drives it. A request's head is not left to that task, because the routing table may change before
//! it runs (Decisions 1): whoever dispatches a request drives the link itself, in the same poll that asked the table
//! ([`Seat::flush`]). `h2` writes new streams before any data that waits, and a seat is given only while the link
//! is not blocked, so the head is handed to the kernel there and then. Should the kernel's buffer be full to the byte,
//! the head waits for the endpoint to read, in our buffer as it would have waited in the kernel's.
//!
//! Every wake goes through a [`Bell`], so that a link that somebody else has just driven is not driven twice.
//!
//! Invariant: a link never holds a request back to open a stream later: there are no more seats than streams.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::Request;
use http::uri::Scheme;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::bridge::endpoint::{Endpoint, Slot};
use crate::clock::{self, Micros};
use crate::config::settings;
use crate::proxy::http1::parse::MAX_RESPONSE_HEAD;
use crate::proxy::stream::Stream;
use crate::proxy::upstream::Opened;

/// Requests at a time over one link, if the endpoint allows as many. More gain nothing: they share one TCP stream, and
/// one loss holds up all of them.
const STREAMS: usize = 100;
/// Bytes of one answer that may wait for a slow client: what a 1 Gbit/s path of 2 ms needs to stay full.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes of all answers together: so many that a slow client never takes the room of another's answer.
const LINK_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;
/// Bytes of one request that may wait for a slow endpoint.
const SEND_BUFFER: usize = 64 * 1024;
/// Larger frames than the 16 KiB everybody takes, so that a large answer needs fewer of them.
const FRAME: u32 = 64 * 1024;
/// Streams we reset are remembered for as long as the endpoint may still be sending on them.
const RESET_MEMORY: Duration = Duration::from_secs(10);
/// And so many of them: a burst of clients that go away.
const RESETS: usize = 1_024;
/// Requests in the life of a link: far from where stream ids end.
const LIFE: u32 = 1_000_000;
/// Frames in the life of a link that break a rule of one stream, before the link is given up. Among them are those for
/// streams that we reset and forgot, so it must not be reached by clients that go away.
const ERRORS: usize = 1_000_000;
/// A link that says nothing for so long to a request is asked whether it is alive.
const PATIENCE: Duration = Duration::from_secs(1);
/// And gets no more requests if it does not answer within this time.
const PONG: Duration = Duration::from_secs(2);

/// Where requests wait for a seat.
#[derive(Default)]
pub struct Door {
    /// Told when there may be a seat.
    pub freed: Notify,
    /// How many wait.
    pub waiting: Cell<usize>,
}

/// One connection to an endpoint.
pub struct Link {
    /// Whom it leads to.
    pub endpoint: Arc<Endpoint>,
    /// Its place among the endpoint's connections.
    slot: Slot,
    /// `https` if it is under TLS.
    pub scheme: Scheme,
    keep: settings::Connections,
    /// Gone once the connection has ended.
    driven: RefCell<Option<client::Connection<Channel, Bytes>>>,
    /// Gone once the link takes no more requests: it ends with its last stream.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    pings: RefCell<Option<PingPong>>,
    bell: Arc<Bell>,
    waker: Waker,
    pulse: Rc<Pulse>,
    door: Rc<Door>,
    /// Seats taken now.
    taken: Cell<usize>,
    /// Seats taken ever.
    served: Cell<u32>,
    has_answered: Cell<bool>,
    idle_since: Cell<Micros>,
    probe: Cell<Probe>,
}

/// What is known of a link that went silent. At most one question between two answers: servers count pings.
#[derive(Clone, Copy)]
enum Probe {
    None,
    Sent(Micros),
    Answered,
}

/// Opens a link over a stream; done once the endpoint said how it wants to be spoken to. So what does not speak HTTP/2
/// at all is found here, before a request is lost to it.
///
/// # Errors
/// When the endpoint closes or says something else. The caller sets the limit of time.
pub async fn open(opened: Opened, keep: &settings::Connections, door: &Rc<Door>) -> io::Result<Rc<Link>> {
    let Opened { stream, slot, .. } = opened;
    let scheme = if matches!(stream, Stream::TlsClient(_)) { Scheme::HTTPS } else { Scheme::HTTP };
    let pulse = Rc::<Pulse>::default();
    let channel = Channel { stream, pulse: Rc::clone(&pulse) };
    let (sender, mut connection) = builder().handshake(channel).await.map_err(io::Error::other)?;
    poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
        Poll::Ready(Err(error)) => Poll::Ready(Err(io::Error::other(error))),
        Poll::Ready(Ok(())) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        // None are allowed until the endpoint's settings came.
        Poll::Pending if sender.current_max_send_streams() == 0 => Poll::Pending,
        Poll::Pending => Poll::Ready(Ok(())),
    })
    .await?;
    let bell = Arc::<Bell>::default();
    let link = Rc::new(Link {
        endpoint: Arc::clone(slot.endpoint()),
        slot,
        scheme,
        keep: keep.clone(),
        pings: RefCell::new(connection.ping_pong()),
        driven: RefCell::new(Some(connection)),
        sender: RefCell::new(Some(sender)),
        waker: Waker::from(Arc::clone(&bell)),
        bell,
        pulse,
        door: Rc::clone(door),
        taken: Cell::default(),
        served: Cell::default(),
        has_answered: Cell::default(),
        idle_since: Cell::new(clock::now()),
        probe: Cell::new(Probe::None),
    });
    tokio::task::spawn_local(keep_driving(Rc::clone(&link)));
    Ok(link)
}

fn builder() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(0)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(LINK_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(MAX_RESPONSE_HEAD as u32)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESETS)
        .reset_stream_duration(RESET_MEMORY)
        .max_local_error_reset_streams(Some(ERRORS));
    builder
}

/// The link's task: drives it whenever its bell rang and nobody else has answered.
async fn keep_driving(link: Rc<Link>) {
    link.bell.ring();
    poll_fn(|cx| {
        link.bell.driver.get_or_init(|| cx.waker().clone());
        let driven = match link.bell.has_rung() {
            true => link.drive(|connection, cx| Pin::new(connection).poll(cx)),
            false => Poll::Pending,
        };
        link.tell_door();
        driven
    })
    .await;
}

impl Link {
    /// A place for one request, if the link can take one at this moment.
    pub fn seat(self: &Rc<Link>) -> Option<Seat> {
        if self.bell.has_rung() || self.pulse.is_blocked.get() {
            // What is known of the link may be about to change: it may be going away.
            self.drive_now();
        }
        if self.pulse.is_blocked.get() || self.taken.get() >= self.limit() {
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        self.served.set(self.served.get() + 1);
        Some(Seat { link: Rc::clone(self), is_held: Cell::new(false) })
    }

    /// True if it will never take another request.
    pub fn is_over(&self) -> bool {
        self.limit();
        self.sender.borrow().is_none()
    }

    /// No more requests: it ends with the last that it has.
    pub fn retire(&self) {
        self.sender.take();
    }

    /// Asks a silent link whether it is alive. False if it is to be let go: it failed to say so, nobody needed it for too
    /// long, or its endpoint is gone.
    pub fn sweep(&self, now: Micros) -> bool {
        let is_over = now >= self.idle_since.get().after(self.keep.idle) || self.slot.is_wanted();
        let is_idle = self.taken.get() == 0 && is_over;
        if is_idle || self.endpoint.is_leaving() || self.is_dead(now) {
            self.retire();
        }
        !self.is_over()
    }

    fn is_dead(&self, now: Micros) -> bool {
        let mut pings = self.pings.borrow_mut();
        let (Some(pings), Some(asked)) = (pings.as_mut(), self.pulse.asked.get()) else { return false };
        match self.probe.get() {
            // Something came since, if not the answer.
            Probe::Sent(at) if asked > at => self.probe.set(Probe::Answered),
            Probe::None if now > asked.after(PATIENCE) => {
                if pings.send_ping(Ping::opaque()).is_ok() {
                    self.probe.set(Probe::Sent(now));
                }
            }
            Probe::Sent(_) if pings.poll_pong(&mut Context::from_waker(Waker::noop())).is_ready() => {
                self.probe.set(Probe::Answered);
            }
            Probe::Sent(at) if now > at.after(PONG) => {
                tracing::debug!(endpoint = %self.endpoint.address, "a connection answers no ping: no more requests");
                return true;
            }
            Probe::None | Probe::Sent(_) | Probe::Answered => {}
        }
        false
    }

    /// Requests at a time, as the endpoint allows now; none once it is over.
    fn limit(&self) -> usize {
        let mut sender = self.sender.borrow_mut();
        let Some(known) = sender.as_mut() else { return 0 };
        let is_open = matches!(known.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())));
        let life = self.keep.max_requests.map_or(LIFE, |most| most.get().min(LIFE));
        if is_open && self.served.get() < life {
            return known.current_max_send_streams().min(STREAMS);
        }
        *sender = None;
        0
    }

    /// Drives the link outside tokio's budget: a poll that stopped for fairness would leave a head to a later moment.
    fn drive_now(&self) {
        let _ = self.drive(|connection, cx| {
            pin!(tokio::task::unconstrained(poll_fn(|cx| Pin::new(&mut *connection).poll(cx)))).poll(cx)
        });
    }

    /// Reads what came and writes what is queued. Ready once the connection has ended.
    fn drive(
        &self,
        poll: impl FnOnce(&mut client::Connection<Channel, Bytes>, &mut Context<'_>) -> Poll<Result<(), h2::Error>>,
    ) -> Poll<()> {
        self.bell.hush();
        let mut driven = self.driven.borrow_mut();
        let Some(connection) = driven.as_mut() else { return Poll::Ready(()) };
        if let Err(error) = ready!(poll(connection, &mut Context::from_waker(&self.waker))) {
            tracing::debug!(endpoint = %self.endpoint.address, %error, "a connection ended");
        }
        *driven = None;
        self.retire();
        // Its task may be asleep, and has nothing left to do.
        self.bell.ring();
        Poll::Ready(())
    }

    fn tell_door(&self) {
        if self.door.waiting.get() > 0 {
            self.door.freed.notify_one();
        }
    }
}

/// A place for one request on a link.
pub struct Seat {
    link: Rc<Link>,
    /// Something is queued that the link's task was not woken for.
    is_held: Cell<bool>,
}

impl Seat {
    /// The link.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Queues a request. It leaves with [`Seat::flush`], which has to follow in the same poll.
    ///
    /// # Errors
    /// When the link has ended meanwhile: nothing was sent.
    pub fn ask(
        &self,
        request: Request<()>,
        is_whole: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), Option<h2::Error>> {
        // A clone: what `h2` remembers in a sender would keep the last stream alive.
        let mut sender = self.link.sender.borrow().clone().ok_or(None)?;
        self.hold();
        if self.link.pulse.asked.get().is_none() {
            self.link.pulse.asked.set(Some(clock::now()));
        }
        sender.send_request(request, is_whole).map_err(Some)
    }

    /// What is queued from here on is flushed by the caller: the link's task need not wake.
    pub fn hold(&self) {
        self.is_held.set(true);
        self.link.bell.hold();
    }

    /// Writes what is queued, now.
    pub fn flush(&self) {
        if self.is_held.take() {
            self.link.drive_now();
        }
    }

    /// How many bytes were written over the link so far.
    pub fn written(&self) -> u64 {
        self.link.pulse.written.get()
    }

    /// A response head came: the link is alive.
    pub fn answered(&self) {
        self.link.has_answered.set(true);
        self.link.probe.set(Probe::None);
    }

    /// True if an earlier request was answered over the link.
    pub fn is_proven(&self) -> bool {
        self.link.has_answered.get()
    }

    /// A request asked at `since` got no answer: if nothing at all came in this time, the link gets no more.
    pub fn doubt(&self, since: Micros) {
        let is_silent = self.link.pulse.asked.get().is_some_and(|asked| asked <= since);
        if is_silent && clock::now() > since.after(PATIENCE + PONG) {
            self.link.retire();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.flush();
        self.link.taken.set(self.link.taken.get() - 1);
        self.link.idle_since.set(clock::now());
        self.link.tell_door();
    }
}

/// What is seen of a link from below `h2`.
#[derive(Default)]
struct Pulse {
    /// The last write could not be completed: what is queued leaves later.
    is_blocked: Cell<bool>,
    written: Cell<u64>,
    /// Since when a request waits without a byte having come.
    asked: Cell<Option<Micros>>,
}

/// The stream beneath `h2`.
struct Channel {
    stream: Stream,
    pulse: Rc<Pulse>,
}

impl Channel {
    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        self.pulse.is_blocked.set(written.is_pending());
        if let Poll::Ready(Ok(n)) = written {
            self.pulse.written.set(self.pulse.written.get() + *n as u64);
        }
    }
}

impl AsyncRead for Channel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pulse.asked.set(None);
        }
        read
    }
}

impl AsyncWrite for Channel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // TLS takes bytes that the socket does not.
        self.pulse.is_blocked.set(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Wakes a link's task once per reason to drive the link. Atomic only because wakers are; nobody else rings it.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    driver: OnceLock<Waker>,
}

impl Bell {
    fn has_rung(&self) -> bool {
        self.rung.load(Relaxed)
    }

    fn hush(&self) {
        self.rung.store(false, Relaxed);
    }

    /// Rings without waking: whoever holds the bell is about to drive.
    fn hold(&self) {
        self.rung.store(true, Relaxed);
    }

    /// Wakes the task even if the bell is held.
    fn ring(&self) {
        self.hold();
        if let Some(driver) = self.driver.get() {
            driver.wake_by_ref();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.has_rung() {
            self.ring();
        }
    }
}

#[cfg(test)]
mod tests;
