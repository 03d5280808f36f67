//! Load over HTTP/2: some connections with many streams each, every request on record as that of [`super::load`].
//!
//! A request that the server says it has not processed (`REFUSED_STREAM`, or above the last stream of a `GOAWAY`) goes
//! out again over a fresh connection, as every client of HTTP/2 does it; that is no failure, and counted by itself.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Error, Reason};
use http::Request;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::client::Broken;
use super::load::{Origin, Outcome, Record, judge};

/// Longer than anything a drill waits for on purpose.
const PATIENCE: Duration = Duration::from_secs(15);

/// Load under way.
pub struct Streams {
    stop: Arc<AtomicBool>,
    resent: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Vec<Record>>>,
}

impl Streams {
    /// Starts to ask over `connections`, with so many streams each, every stream's next request `pace` after its last
    /// was sent.
    pub fn start(address: SocketAddr, connections: u64, streams: u64, pace: Duration) -> Streams {
        let (origin, stop, resent) = (Origin::now(), Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let shared = Shared { address, origin, stop: Arc::clone(&stop), resent: Arc::clone(&resent) };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let shared = Rc::new(shared);
            LocalSet::new().block_on(&runtime, async {
                let mut tasks = Vec::new();
                for connection in 1..=connections {
                    let lane = Rc::new(Lane::default());
                    for stream in 0..streams {
                        let lane = Rc::clone(&lane);
                        let index = connection << 12 | stream;
                        tasks.push(tokio::task::spawn_local(one(Rc::clone(&shared), lane, index, pace)));
                    }
                }
                let mut records = Vec::new();
                for task in tasks {
                    records.extend(task.await.unwrap());
                }
                records
            })
        });
        Streams { stop, resent, thread: Some(thread) }
    }

    /// Ends it: all records, and how many requests went out again because they had not been processed.
    pub fn stop(mut self) -> (Vec<Record>, usize) {
        self.stop.store(true, Relaxed);
        let records = self.thread.take().unwrap().join().expect("the load does not panic");
        (records, self.resent.load(Relaxed))
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

struct Shared {
    address: SocketAddr,
    origin: Origin,
    stop: Arc<AtomicBool>,
    resent: Arc<AtomicUsize>,
}

/// A connection that several streams use; opened when one is needed.
#[derive(Default)]
struct Lane {
    open: RefCell<Option<SendRequest<Bytes>>>,
    /// One of them opens, the others wait.
    opening: tokio::sync::Mutex<()>,
}

/// What a try came to.
enum Tried {
    Done(Outcome),
    /// Certainly not processed.
    Unprocessed,
}

async fn one(shared: Rc<Shared>, lane: Rc<Lane>, index: u64, pace: Duration) -> Vec<Record> {
    let mut records = Vec::new();
    let mut due = tokio::time::interval(pace.max(Duration::from_millis(1)));
    for turn in 0u32.. {
        due.tick().await;
        if shared.stop.load(Relaxed) {
            break;
        }
        let id = index << 32 | u64::from(turn);
        let post = (index + u64::from(turn)) % 10 < 3;
        let sent = shared.origin.elapsed();
        let outcome = loop {
            let tried = tokio::time::timeout(PATIENCE, ask(&shared, &lane, id, post)).await;
            match tried.unwrap_or_else(|_| Tried::Done(unanswered("no answer in time"))) {
                Tried::Done(outcome) => break outcome,
                Tried::Unprocessed => {
                    shared.resent.fetch_add(1, Relaxed);
                    *lane.open.borrow_mut() = None;
                }
            }
        };
        let refused = matches!(outcome, Outcome::Broken(Broken::Refused(_)));
        records.push(Record { id, post, sent, done: shared.origin.elapsed(), outcome });
        if refused {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    records
}

fn unanswered(why: impl ToString) -> Outcome {
    Outcome::Broken(Broken::Unanswered(why.to_string()))
}

/// How an error before the head is to be taken.
fn before_head(lane: &Lane, error: &Error) -> Tried {
    let refused = error.reason() == Some(Reason::REFUSED_STREAM);
    let gone = error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
    if !error.is_reset() {
        *lane.open.borrow_mut() = None;
    }
    if refused || gone { Tried::Unprocessed } else { Tried::Done(unanswered(error)) }
}

async fn open(shared: &Shared, lane: &Lane) -> Result<SendRequest<Bytes>, Tried> {
    let _one = lane.opening.lock().await;
    if let Some(open) = &*lane.open.borrow() {
        return Ok(open.clone());
    }
    let refused = |error| Tried::Done(Outcome::Broken(Broken::Refused(error)));
    let stream = TcpStream::connect(shared.address).await.map_err(refused)?;
    stream.set_nodelay(true).map_err(refused)?;
    let (open, connection) = h2::client::handshake(stream).await.map_err(|error| Tried::Done(unanswered(error)))?;
    tokio::task::spawn_local(connection);
    *lane.open.borrow_mut() = Some(open.clone());
    Ok(open)
}

async fn ask(shared: &Shared, lane: &Lane, id: u64, post: bool) -> Tried {
    let open = match open(shared, lane).await {
        Ok(open) => open,
        Err(tried) => return tried,
    };
    // It says so if the connection takes no more requests: nothing was sent then.
    let mut open = match open.ready().await {
        Ok(open) => open,
        Err(_) => return Tried::Unprocessed,
    };
    let method = if post { "POST" } else { "GET" };
    let uri = format!("http://{}/?id={id}", shared.address);
    let body = Bytes::from(vec![b'b'; if post { (id % 7) as usize * 700 } else { 0 }]);
    let request = Request::builder().method(method).uri(uri).body(()).unwrap();
    let (answer, mut up) = match open.send_request(request, body.is_empty()) {
        Ok(sent) => sent,
        Err(_) => return Tried::Unprocessed,
    };
    if !body.is_empty()
        && let Err(error) = up.send_data(body, true)
    {
        return before_head(lane, &error);
    }
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(error) => return before_head(lane, &error),
    };
    let status = answer.status().as_u16();
    let (mut down, mut said) = (answer.into_body(), Vec::new());
    while let Some(data) = down.data().await {
        match data {
            Ok(data) => {
                // A connection that is gone says so at the next read.
                let _ = down.flow_control().release_capacity(data.len());
                said.extend_from_slice(&data);
            }
            Err(error) => return Tried::Done(Outcome::Broken(Broken::Cut(error.to_string()))),
        }
    }
    Tried::Done(judge(status, &said, id))
}
