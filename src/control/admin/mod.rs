//! The admin API: HTTP in front of the [`Controller`].
//!
//! It translates and protects; it decides nothing. In the order of a request: [`serve`] accepts, `problem` clothes
//! whatever comes back, `entry` checks who asks, `routes` calls the controller, [`wire`] is what goes over the line.
//!
//! hyper's own limits stand for a request head (100 fields; the buffer is bounded here); a head it cannot read
//! it answers itself, with a bare 400 or 431: the one error that is no problem document. A client that does not
//! read its answer holds its connection: only their number is bounded.
//!
//! Invariant: nothing here runs on a worker's thread, and no number of callers grows without a limit.

#![allow(clippy::result_large_err, reason = "a problem is made once and sent; a box would save nothing")]

mod entry;
mod metrics;
mod problem;
mod routes;
mod stream;
pub mod wire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::config::settings::Secret;
use crate::control::controller::Controller;

/// Connections at one time; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// For a request head, and for the silence before one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request head.
const MAX_HEAD: usize = 32 * 1024;
/// How long requests under way may take once the process ends.
const GRACE: Duration = Duration::from_secs(5);
/// How long accepting pauses when the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(20);

/// Serves the admin API on `listener` until `shutdown` completes, then lets requests under way finish.
///
/// With a `token` every caller but the probes must show it.
pub async fn serve(listener: TcpListener, controller: Controller, token: Option<Secret>, shutdown: impl Future) {
    let (end, ending) = watch::channel(false);
    let router = routes::router(controller, token, ending.clone());
    accept(listener, router, ending, async {
        shutdown.await;
        end.send_replace(true);
    })
    .await;
}

async fn accept(listener: TcpListener, router: Router, ending: watch::Receiver<bool>, shutdown: impl Future) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        // The place comes first: what is accepted is served.
        let arrival = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            biased;
            _ = &mut shutdown => break,
            (place, accepted) = arrival => match accepted {
                Ok((stream, _)) => {
                    let serving = connection(stream, router.clone(), ending.clone());
                    connections.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }
                Err(error) => pause_after(&error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, all).await;
}

async fn connection(stream: TcpStream, router: Router, mut ending: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    // An error here is the client's: it went away, or never spoke HTTP.
    tokio::select! {
        _ = &mut serving => return,
        _ = ending.wait_for(|ending| *ending) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

/// Errors of one connection pass; errors of the process (descriptors, memory) need a breath.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "accepting on the admin address paused");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{Notify, oneshot};

    use super::*;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("the listener listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers and closes");
        answer
    }

    #[tokio::test]
    async fn requests_under_way_are_finished_and_the_rest_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = {
            let (entered, leave) = (Arc::clone(&entered), Arc::clone(&leave));
            async move || {
                entered.notify_one();
                leave.notified().await;
                "done"
            }
        };
        let router = Router::new().route("/fast", get(async || "fast")).route("/slow", get(slow));
        let (end, ending) = watch::channel(false);
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(accept(listener, router, ending, async move {
            let _ = stopped.await;
            end.send_replace(true);
        }));
        let fast = ask(address, "GET /fast HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        assert!(fast.starts_with("HTTP/1.1 200") && fast.ends_with("fast"), "{fast}");
        let garbage = ask(address, "\u{1}\r\n\r\n").await;
        assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
        // Kept open by the client between requests: the end of the process closes it.
        let mut idle = TcpStream::connect(address).await.expect("the listener listens");
        idle.write_all(b"GET /fast HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it reads");
        assert_eq!(idle.read_u8().await.expect("it answers"), b'H');
        let slow = ask(address, "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (slow, ()) = tokio::join!(slow, async {
            entered.notified().await;
            stop.send(()).expect("the server runs");
            leave.notify_one();
        });
        assert!(slow.starts_with("HTTP/1.1 200") && slow.ends_with("done"), "{slow}");
        idle.read_to_end(&mut Vec::new()).await.expect("it closes");
        server.await.expect("the server ends");
        assert!(TcpStream::connect(address).await.is_err());
    }
}
