//! The users: a steady open-loop load through the proxy, each answer checked.
//!
//! Open loop: requests fall due by a seeded Poisson process whatever becomes of those before them, and latency runs
//! from the moment a request was due, so that a stall of the proxy (or of this thread) shows instead of hiding.
//!
//! Invariant: every request sent is counted once, as answered well or as an error its user saw.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::clock::{self, Micros};
use crate::domain::stats::histogram;

/// The part of requests that are `POST` with a body.
const POSTS: f64 = 0.2;
/// Bytes of a `POST`.
const POSTED: usize = 512;
/// The same arrivals in every run.
const SEED: u64 = 0x5eed;
/// Requests at one time, seven times the usual. Each takes four descriptors of this process (both ends of two
/// connections), and many systems allow it 1,024. What falls due beyond waits, and its wait counts as latency.
const AT_ONCE: usize = 200;
/// How soon a waiting request asks again for its place.
const AGAIN: Duration = Duration::from_millis(1);
/// How long a user waits; longer than the proxy's own limit, so that users see its 504.
const PATIENCE: Duration = Duration::from_secs(10);
/// An unused connection is given up after this long, well before the proxy does it.
const IDLE: Duration = Duration::from_secs(20);

/// The running load; [`Load::stop`] ends it.
pub struct Load {
    counts: Arc<Mutex<Counts>>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// What the users saw so far.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Requests that got their answer or gave up on it.
    pub answered: u64,
    /// Those among them that were no whole 2xx answer, or not the right one.
    pub errors: u64,
    /// What was wrong with the last of them.
    pub last_error: Option<String>,
    /// Time to the whole answer: bucket counts of [`histogram`], good answers only.
    pub latency: Vec<u64>,
    /// When the first request fell due.
    pub since: Option<Micros>,
    /// When the last answer came.
    pub until: Micros,
}

impl Counts {
    /// Answers per second over the whole time.
    pub fn rate(&self) -> f64 {
        let span = self.since.map_or(0, |since| self.until.since(since));
        if span == 0 { 0.0 } else { self.answered as f64 * 1e6 / span as f64 }
    }

    fn book(&mut self, due: Micros, outcome: Result<(), String>) {
        self.until = clock::now();
        self.answered += 1;
        match outcome {
            Ok(()) => self.latency[histogram::index(self.until.since(due))] += 1,
            Err(error) => {
                self.errors += 1;
                self.last_error = Some(error);
            }
        }
    }
}

impl Default for Counts {
    fn default() -> Counts {
        let latency = vec![0; histogram::BUCKETS];
        let (since, until) = (None, Micros(0));
        Counts { answered: 0, errors: 0, last_error: None, latency, since, until }
    }
}

impl Load {
    /// Starts `rate` requests a second to `target`.
    ///
    /// # Errors
    /// When the system refuses a thread or a runtime.
    pub fn start(target: SocketAddr, rate: f64) -> io::Result<Load> {
        let counts = Arc::<Mutex<Counts>>::default();
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&counts);
        let runtime = tokio::runtime::Builder::new_current_thread();
        let run = move || {
            let mut runtime = runtime;
            match runtime.enable_all().build_local(Default::default()) {
                Ok(runtime) => runtime.block_on(drive(Users::new(target, shared), rate, stopped)),
                Err(error) => lock(&shared).last_error = Some(format!("no load: {error}")),
            }
        };
        let thread = std::thread::Builder::new().name("demo-load".into()).spawn(run)?;
        Ok(Load { counts, stop, thread })
    }

    /// What the users saw so far.
    pub fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    /// No further requests; waits until those under way are answered (or their users give up) and says the sum.
    pub fn stop(self) -> Counts {
        // An error means it has ended already.
        let _ = self.stop.send(());
        let _ = self.thread.join();
        lock(&self.counts).clone()
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends what falls due until told to stop, then waits for the answers.
async fn drive(users: Users, rate: f64, mut stopped: oneshot::Receiver<()>) {
    let users = Rc::new(users);
    let mut random = fastrand::Rng::with_seed(SEED);
    let begun = clock::now();
    let mut due = begun;
    lock(&users.counts).since = Some(begun);
    loop {
        let wait = match users.under_way.get() {
            AT_ONCE.. => AGAIN,
            _ => Duration::from_micros(due.since(clock::now())),
        };
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            () = tokio::time::sleep(wait) => {}
        }
        let now = clock::now();
        while due <= now && users.under_way.get() < AT_ONCE {
            users.under_way.set(users.under_way.get() + 1);
            tokio::task::spawn_local(Rc::clone(&users).request(due, random.f64() < POSTS));
            // Poisson: exponential gaps.
            let gap = -(1.0 - random.f64()).ln() / rate;
            due = due.after(Duration::from_secs_f64(gap));
        }
    }
    while users.under_way.get() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// Everything of the load's thread.
struct Users {
    target: SocketAddr,
    counts: Arc<Mutex<Counts>>,
    under_way: Cell<usize>,
    idle: RefCell<Vec<(Sender, Micros)>>,
}

impl Users {
    fn new(target: SocketAddr, counts: Arc<Mutex<Counts>>) -> Users {
        Users { target, counts, under_way: Cell::new(0), idle: RefCell::default() }
    }

    async fn request(self: Rc<Users>, due: Micros, posts: bool) {
        let asked = tokio::time::timeout(PATIENCE, self.ask(posts)).await;
        let outcome = asked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        lock(&self.counts).book(due, outcome);
        self.under_way.set(self.under_way.get() - 1);
    }

    /// One request and its answer, checked.
    async fn ask(&self, posts: bool) -> Result<(), String> {
        let mut sender = self.connection().await?;
        let sent = if posts { POSTED } else { 0 };
        let response = sender.send_request(self.compose(sent)).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| format!("cut off: {error}"))?.to_bytes();
        if sender.ready().await.is_ok() {
            self.idle.borrow_mut().push((sender, clock::now()));
        }
        let text = String::from_utf8_lossy(&body);
        if !status.is_success() {
            return Err(format!("{status}: {}", text.trim_end()));
        }
        let whole = text.ends_with(&format!(" received {sent} bytes\n"));
        if whole { Ok(()) } else { Err(format!("a wrong answer: {}", text.trim_end())) }
    }

    fn compose(&self, length: usize) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::from(vec![b'.'; length]));
        let (method, path) = if length > 0 { (Method::POST, "/cart") } else { (Method::GET, "/") };
        *request.method_mut() = method;
        *request.uri_mut() = http::Uri::from_static(path);
        let host = http::HeaderValue::from_static("shop.demo");
        request.headers_mut().insert(http::header::HOST, host);
        request
    }

    /// The connection used last, or a new one.
    async fn connection(&self) -> Result<Sender, String> {
        let now = clock::now();
        let fresh = |since: Micros| now.since(since) < IDLE.as_micros() as u64;
        self.idle.borrow_mut().retain(|(sender, since)| !sender.is_closed() && fresh(*since));
        if let Some((sender, _)) = self.idle.borrow_mut().pop() {
            return Ok(sender);
        }
        let stream = TcpStream::connect(self.target).await.map_err(|error| format!("not connected: {error}"))?;
        // Small requests would otherwise wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        let (sender, link) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::task::spawn_local(link);
        Ok(sender)
    }
}
