//! A connection's turns: what one poll may do.

use std::pin::pin;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::*;
use crate::bridge::table::Plane;
use crate::proxy::proxy_protocol::{Ends, LOCAL};

#[tokio::test]
async fn who_sends_many_requests_ahead_leaves_others_their_turn() {
    const REQUESTS: usize = 200;
    let plane = Arc::new(Plane::new(1));
    let worker = Worker::alone(&plane);
    let client = Rc::new(Client::new(Ends { client: LOCAL, destination: None }, None));
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(REQUESTS).as_bytes()).await.unwrap();
    far.shutdown().await.unwrap();
    let mut serving = pin!(tokio::task::unconstrained(serve(&worker, &client, Stream::Unix(near))));
    let (mut before, mut most) = (0, 0);
    let ended = poll_fn(|cx| {
        let polled = serving.as_mut().poll(cx);
        let answered = worker.tally().requests.read();
        most = most.max(answered - before);
        before = answered;
        polled
    })
    .await;
    assert!(matches!(ended, Ended::Closed(_)));
    assert_eq!(before, REQUESTS as u64);
    assert!(most <= u64::from(TURNS), "{most} in one turn");
    drop(ended);
    let mut answers = String::new();
    far.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 404 ").count(), REQUESTS);
}
