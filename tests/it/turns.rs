//! Turns: what one poll of one connection may do, so that the others of its worker get theirs.
//!
//! A connection is driven by hand between pairs of Unix sockets with much room, so that neither side ever makes it wait.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use teal::bridge::table::Plane;
use teal::control::publisher::Publisher;
use teal::control::state::ServiceState;
use teal::domain::rollout::machine::UnixMillis;
use teal::proxy::connection::Client;
use teal::proxy::http1::client::{Ended, serve};
use teal::proxy::http1::upstream::Connection;
use teal::proxy::proxy_protocol::{Ends, LOCAL};
use teal::proxy::stream::Stream;
use teal::proxy::worker::Worker;

const SETTINGS: &str = "version: 1\nlisten: 127.0.0.1:0\nadmin: off\nstate: none\nworkers: 1\nservices:\n  shop:\n    \
                        pools: { blue: \"unix:/nobody/listens.sock\" }\n    health: off\n    guard: off\n";
const BODY: usize = 224 * 1024;
/// Eight writes of 16 KiB, and the head.
const MOST: usize = 8 * 16 * 1024 + 1_024;

/// Both ends, with room for more than a body.
fn pair() -> (Stream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    for end in [&near, &far] {
        end.set_nonblocking(true).unwrap();
        socket2::SockRef::from(end).set_send_buffer_size(1 << 20).unwrap();
    }
    (Stream::Unix(tokio::net::UnixStream::from_std(near).unwrap()), far)
}

/// Reads what is there.
fn came(far: &mut UnixStream) -> usize {
    let (mut total, mut bytes) = (0, [0; 4_096]);
    loop {
        match far.read(&mut bytes) {
            Ok(n @ 1..) => total += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return total,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_fast_upload_leaves_others_their_turn() {
    let settings = teal::config::parse("turns.yaml", SETTINGS, &|_| None, Path::new(".")).unwrap();
    let plane = Arc::new(Plane::new(1));
    let publisher = Publisher::new(Arc::clone(&plane), 1);
    let materials = publisher.materials(&settings).unwrap();
    publisher.install(&settings, materials, |_| ServiceState::new("blue", "turns", UnixMillis(0)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async {
        let worker = Worker::alone(&plane);
        let endpoint = Arc::clone(&worker.snapshot().table.services[0].pools[0].endpoints[0]);
        let (near, mut upstream) = pair();
        let slot = endpoint.enter(None).unwrap();
        worker.connections.put(Connection::new(near, slot, &settings.services[0].connections));
        let (near, mut far) = pair();
        write!(far, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n").unwrap();
        far.write_all(&[b'x'; BODY]).unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        let client = Rc::new(Client::new(Ends { client: LOCAL, destination: None }, None));
        let mut serving = pin!(tokio::task::unconstrained(serve(&worker, &client, near)));
        let (mut total, mut most) = (0, 0);
        let ended = std::future::poll_fn(|cx| {
            let polled = serving.as_mut().poll(cx);
            if total < BODY {
                let moved = came(&mut upstream);
                (total, most) = (total + moved, most.max(moved));
                if total > BODY {
                    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
                }
            }
            polled
        });
        let ended = tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.unwrap();
        assert!(matches!(ended, Ended::Closed(_)));
        drop(ended);
        far.set_nonblocking(false).unwrap();
        let mut answer = String::new();
        far.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
        assert!(most <= MOST, "{most} bytes in one turn");
    });
}
