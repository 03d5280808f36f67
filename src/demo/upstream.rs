//! The embedded versions: four small HTTP servers on one thread, two endpoints each of blue and green.
//!
//! Both pools share one thread and one source of service times, so that until green is broken nothing but its name
//! tells it from blue. What green does badly is counted here, where it happens, with its time.
//!
//! Invariant: blue never misbehaves; green only after [`Upstreams::break_green`].

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::{self, Micros};
use crate::demo::fault::{Fail, Fate, service_time};

/// Endpoints of each pool.
const ENDPOINTS: usize = 2;
/// Bad requests whose times are kept: far more than a rollout lets happen.
const KEPT: usize = 100_000;
/// The same service times in every run.
const SEED: u64 = 0x7ea1;

/// The running servers; they stop when dropped.
pub struct Upstreams {
    /// Where blue listens.
    pub blue: Vec<SocketAddr>,
    /// Where green listens.
    pub green: Vec<SocketAddr>,
    shared: Arc<Shared>,
    state: watch::Sender<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Serving,
    GreenGone,
    Stopped,
}

struct Shared {
    broken: OnceLock<Fail>,
    random: Mutex<fastrand::Rng>,
    green_requests: AtomicU64,
    bad: Mutex<Vec<Micros>>,
}

/// Which server this is.
#[derive(Clone, Copy)]
struct Name {
    is_green: bool,
    number: usize,
}

impl Upstreams {
    /// Starts the servers on free loopback ports.
    ///
    /// # Errors
    /// When the system refuses a socket or a thread.
    pub fn start() -> io::Result<Upstreams> {
        let (blue, green) = (bind()?, bind()?);
        let addresses = |sockets: &[TcpListener]| sockets.iter().map(TcpListener::local_addr).collect();
        let addresses: [io::Result<Vec<SocketAddr>>; 2] = [addresses(&blue), addresses(&green)];
        let shared = Arc::new(Shared {
            broken: OnceLock::new(),
            random: Mutex::new(fastrand::Rng::with_seed(SEED)),
            green_requests: AtomicU64::new(0),
            bad: Mutex::default(),
        });
        let (state, states) = watch::channel(State::Serving);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serving = Arc::clone(&shared);
        let run = move || runtime.block_on(serve_all(blue, green, serving, states));
        let thread = std::thread::Builder::new().name("demo-upstreams".into()).spawn(run)?;
        let [blue, green] = addresses;
        Ok(Upstreams { blue: blue?, green: green?, shared, state, thread: Some(thread) })
    }

    /// Breaks green from now on; only the first call counts.
    pub fn break_green(&self, fail: Fail) {
        let _ = self.shared.broken.set(fail);
        if fail == Fail::Crash {
            self.state.send_replace(State::GreenGone);
        }
    }

    /// Requests that reached green.
    pub fn green_requests(&self) -> u64 {
        self.shared.green_requests.load(Relaxed)
    }

    /// When the first request that green served badly arrived (under `crash`: was cut off).
    pub fn first_bad(&self) -> Option<Micros> {
        self.shared.bad().first().copied()
    }

    /// Requests that green served badly up to a moment.
    pub fn bad_until(&self, moment: Micros) -> u64 {
        self.shared.bad().partition_point(|at| *at <= moment) as u64
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        self.state.send_replace(State::Stopped);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn bad(&self) -> std::sync::MutexGuard<'_, Vec<Micros>> {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book_bad(&self) {
        let mut bad = self.bad();
        if bad.len() < KEPT {
            bad.push(clock::now());
        }
    }

    fn draw(&self) -> [f64; 3] {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        std::array::from_fn(|_| random.f64())
    }
}

fn bind() -> io::Result<Vec<TcpListener>> {
    let one = |_| {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    (0..ENDPOINTS).map(one).collect()
}

async fn serve_all(
    blue: Vec<TcpListener>,
    green: Vec<TcpListener>,
    shared: Arc<Shared>,
    states: watch::Receiver<State>,
) {
    let named = |is_green| move |(at, socket)| (Name { is_green, number: at + 1 }, socket);
    let blue = blue.into_iter().enumerate().map(named(false));
    let green = green.into_iter().enumerate().map(named(true));
    let mut servers = JoinSet::new();
    for (name, socket) in blue.chain(green) {
        servers.spawn(serve(name, socket, Arc::clone(&shared), states.clone()));
    }
    servers.join_all().await;
}

/// One endpoint, until it is told to go; then its listener and all its connections are dropped at once.
async fn serve(name: Name, socket: TcpListener, shared: Arc<Shared>, mut states: watch::Receiver<State>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(socket) else { return };
    let mut connections = JoinSet::new();
    let gone = move |state: &State| *state == State::Stopped || (*state == State::GreenGone && name.is_green);
    let told = states.wait_for(gone);
    tokio::pin!(told);
    loop {
        tokio::select! {
            _ = &mut told => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                // Without it the delay would depend on how the kernel groups small writes.
                let _ = stream.set_nodelay(true);
                let shared = Arc::clone(&shared);
                let answer = service_fn(move |request| answer(name, request, Arc::clone(&shared)));
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        }
    }
}

async fn answer(
    name: Name,
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let broken = shared.broken.get().copied().filter(|_| name.is_green);
    let [fate, first, second] = shared.draw();
    let fate = Fate::of(broken, fate);
    if name.is_green {
        shared.green_requests.fetch_add(1, Relaxed);
    }
    if fate.is_bad() {
        shared.book_bad();
    }
    let mut cut = Cut { shared: &shared, is_watched: name.is_green };
    let body = request.into_body().collect().await.map(|body| body.to_bytes().len());
    match fate {
        Fate::Hang => std::future::pending().await,
        Fate::Error => tokio::time::sleep(service_time(first, second)).await,
        Fate::Answer { slower } => tokio::time::sleep(service_time(first, second) * slower).await,
    }
    cut.is_watched = false;
    let (pool, number) = (if name.is_green { "green" } else { "blue" }, name.number);
    let text = match (fate, body) {
        (Fate::Error, _) => format!("{pool} endpoint {number} failed\n"),
        (_, Ok(length)) => format!("{pool} endpoint {number} received {length} bytes\n"),
        (_, Err(_)) => format!("{pool} endpoint {number} received half a request\n"),
    };
    let mut response = Response::new(Full::from(text));
    if fate == Fate::Error {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    Ok(response)
}

/// Books a request that a crash cut off before its answer.
struct Cut<'a> {
    shared: &'a Shared,
    is_watched: bool,
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        if self.is_watched && self.shared.broken.get() == Some(&Fail::Crash) {
            self.shared.book_bad();
        }
    }
}
