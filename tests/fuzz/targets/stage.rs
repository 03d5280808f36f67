//! A client connection served in this thread, between a client and upstreams that do what the input says.
//!
//! No TCP and no other thread: everything is a pair of Unix sockets on one runtime, so an input gives the same run
//! every time, thousands of them a second. The upstream connections are there before the client comes; once they are
//! used up the endpoint cannot be reached any more.
//!
//! Invariant: a run ends by itself, because the client and every upstream close their side when they have said all.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use teal::bridge::table::Plane;
use teal::config::settings::Settings;
use teal::control::publisher::Publisher;
use teal::control::state::ServiceState;
use teal::domain::rollout::machine::UnixMillis;
use teal::proxy::connection::Client;
use teal::proxy::proxy_protocol::Ends;
use teal::proxy::http1::client::{Ended, serve};
use teal::proxy::http1::upstream::Connection;
use teal::proxy::stream::Stream;
use teal::proxy::tunnel;
use teal::proxy::worker::Worker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::LocalRuntime;

/// Far more than any run takes.
const HANG: Duration = Duration::from_secs(10);
/// How often an upstream looks for more of a request before it answers all the same.
const PATIENCE: u32 = 24;

/// The most pieces in which a client sends.
const PIECES: usize = 16;

/// What a run left behind.
#[derive(Default)]
pub struct Played {
    /// What the client got.
    pub down: Vec<u8>,
    /// What each upstream connection got.
    pub up: Vec<Vec<u8>>,
    /// Requests that were handled.
    pub requests: u64,
    /// The connection became a tunnel.
    pub switched: bool,
}

struct Stage {
    runtime: LocalRuntime,
    plane: Arc<Plane>,
    settings: Settings,
}

const SETTINGS: &str = "version: 1\nlisten: 127.0.0.1:0\nadmin: off\nstate: none\nworkers: 1\nservices:\n  shop:\n    \
                        pools: { blue: \"unix:/nowhere/upstream.sock\" }\n    health: off\n    retry: off\n    guard: off\n";

thread_local! {
    static STAGE: Stage = Stage::build();
}

impl Stage {
    fn build() -> Stage {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        let settings = teal::config::parse("fuzz.yaml", SETTINGS, &|_| None, Path::new("."));
        let settings = settings.unwrap_or_else(|report| panic!("{report}"));
        let plane = Arc::new(Plane::new(1));
        let publisher = Publisher::new(Arc::clone(&plane), 1);
        let materials = publisher.materials(&settings).expect("no TLS, so nothing to fail");
        publisher.install(&settings, materials, |_| ServiceState::new("blue", "fuzz", UnixMillis(0)));
        Stage { runtime: runtime.expect("a runtime"), plane, settings }
    }
}

/// Lets a client send `sent`, in pieces of this size, to Teal before upstream connections that answer by `scripts`:
/// a script's parts are written one after another, each when more of a request has come or none comes for a while.
/// No upstream answers before what it has got is `enough`.
pub fn play(sent: &[u8], piece: u8, scripts: &[Vec<&[u8]>], enough: fn(&[u8]) -> bool) -> Played {
    // Small pieces are for small inputs: a run is to be short.
    let piece = usize::from(piece).pow(2).max(1 + sent.len() / PIECES);
    STAGE.with(|stage| {
        let run = async { tokio::time::timeout(HANG, run(stage, sent, piece, scripts, enough)).await };
        stage.runtime.block_on(run).expect("the run hangs")
    })
}

async fn run(stage: &Stage, sent: &[u8], piece: usize, scripts: &[Vec<&[u8]>], enough: fn(&[u8]) -> bool) -> Played {
    let handled = || stage.plane.workers.of(0).requests.read();
    let before = handled();
    let worker = Worker::alone(&stage.plane);
    let endpoint = Arc::clone(&worker.snapshot().table.services[0].pools[0].endpoints[0]);
    let recorded: Vec<_> = scripts.iter().map(|_| Rc::new(RefCell::new(Vec::new()))).collect();
    let mut upstreams = Vec::new();
    for (script, record) in scripts.iter().zip(&recorded) {
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        let script = script.iter().map(|part| part.to_vec()).collect();
        upstreams.push(tokio::task::spawn_local(upstream(far, script, Rc::clone(record), enough)));
        let keep = &stage.settings.services[0].connections;
        let slot = endpoint.enter(None).expect("no limit");
        worker.connections.put(Connection::new(Stream::Unix(near), slot, keep));
    }
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    let client = Rc::new(Client::new(Ends { client: SocketAddr::from(([127, 0, 0, 1], 9)), destination: None }, None));
    let serving = async {
        match tokio::task::unconstrained(serve(&worker, &client, Stream::Unix(near))).await {
            // Nothing sweeps here, so nothing dozes; what begins with the other preface is not for this stage.
            Ended::Closed(_) | Ended::Dozing(_) | Ended::Http2(..) => false,
            Ended::Switched(side, tunnel) => {
                tunnel::run(side, tunnel).await;
                true
            }
        }
    };
    let (switched, down) = tokio::join!(serving, ask(far, sent, piece));
    assert!(worker.in_flight.is_empty(), "an attempt is left in flight");
    drop(worker);
    for upstream in upstreams {
        upstream.await.expect("an upstream does not panic");
    }
    let up = recorded.iter().map(|record| record.take()).collect();
    Played { down, up, requests: handled() - before, switched }
}

/// Sends everything, closes its side, and reads to the end.
async fn ask(stream: UnixStream, sent: &[u8], piece: usize) -> Vec<u8> {
    let (mut input, mut output) = stream.into_split();
    let mut down = Vec::new();
    let sending = async {
        for part in sent.chunks(piece) {
            if output.write_all(part).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(output);
    };
    let reading = async {
        // An error is an end as well: whatever came before it counts.
        let _ = input.read_to_end(&mut down).await;
    };
    tokio::join!(sending, reading);
    down
}

async fn upstream(stream: UnixStream, script: Vec<Vec<u8>>, record: Rc<RefCell<Vec<u8>>>, enough: fn(&[u8]) -> bool) {
    let (mut input, mut output) = stream.into_split();
    let mut buffer = [0; 4096];
    while record.borrow().is_empty() || !enough(&record.borrow()) {
        let Ok(n @ 1..) = input.read(&mut buffer).await else { return };
        record.borrow_mut().extend_from_slice(&buffer[..n]);
    }
    for (number, part) in script.into_iter().enumerate() {
        for _ in 0..if number == 0 { 0 } else { PATIENCE } {
            match input.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => {
                    record.borrow_mut().extend_from_slice(&buffer[..n]);
                    break;
                }
                Err(_) => tokio::task::yield_now().await,
            }
        }
        if output.write_all(&part).await.is_err() {
            break;
        }
    }
    // What is still to come is recorded, but answered no more.
    drop(output);
    while let Ok(n @ 1..) = input.read(&mut buffer).await {
        record.borrow_mut().extend_from_slice(&buffer[..n]);
    }
}
