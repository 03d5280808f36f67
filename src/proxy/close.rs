//! The end of a client connection: how it is closed so that what was said last is not lost.
//!
//! To close over bytes that nobody read is a reset, and a reset throws away what the client has not read yet: the 413
//! that explains why its upload was not wanted. So a client that may still be sending is listened to for a while.
//!
//! Invariant: however long a client goes on, its connection ends after [`LISTEN`] or [`MOST`] bytes.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::proxy::connection::LINGER;
use crate::proxy::stream::Stream;
use crate::proxy::worker::Worker;

/// How long a client that was answered is listened to while it goes on sending. Many read no answer before their
/// upload is over; those who are not done in this time are told by a reset.
const LISTEN: Duration = Duration::from_secs(10);
/// A pause this long means that it has stopped: slow links make shorter ones.
const SILENCE: Duration = Duration::from_secs(2);
/// How much is taken from it at most. A gigabit brings as much in a second.
const MOST: usize = 128 * 1024 * 1024;

/// How a connection is to be closed.
pub enum Close {
    /// Nothing is owed by either side.
    Clean(Stream),
    /// The client may still be sending.
    Unread(Stream),
    /// The end of the connection would look like the end of an answer that was cut short.
    Reset(Stream),
}

impl Close {
    /// Closes the connection. A process that drains does not wait long for anybody.
    pub async fn perform(self, worker: &Rc<Worker>) {
        match self {
            Close::Clean(mut stream) => shut(&mut stream).await,
            Close::Reset(stream) => stream.reset_on_close(),
            Close::Unread(mut stream) => {
                shut(&mut stream).await;
                let hurried = async {
                    worker.drains().await;
                    tokio::time::sleep(LINGER).await;
                };
                tokio::select! {
                    () = listen(worker, &mut stream) => {}
                    () = tokio::time::sleep(LISTEN) => {}
                    () = hurried => {}
                }
            }
        }
    }
}

/// Says that nothing more will come.
async fn shut(stream: &mut Stream) {
    // Under TLS that is a last word, which a client that does not read never takes.
    let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
}

/// Takes what still comes, until the client ends, stops, or has sent too much.
async fn listen(worker: &Worker, stream: &mut Stream) {
    let mut sink = worker.buffers.take_bytes();
    let mut taken = 0;
    while taken < MOST {
        sink.clear();
        let read = std::future::poll_fn(|cx| stream.poll_read_into(cx, &mut sink));
        match tokio::time::timeout(SILENCE, read).await {
            Ok(Ok(n @ 1..)) => taken += n,
            _ => break,
        }
    }
    worker.buffers.put_bytes(sink);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::bridge::table::Plane;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn a_client_that_goes_on_sending_reads_its_answer_after_all() {
        let worker = Worker::alone(&Arc::new(Plane::new(1)));
        let (mut client, mut ours) = pair().await;
        ours.write_all(b"413").await.unwrap();
        let closing = Close::Unread(Stream::Tcp(ours)).perform(&worker);
        let uploading = async {
            // With pauses longer than the time that was once all it had.
            for _ in 0..3 {
                client.write_all(&[0; 100_000]).await.unwrap();
                tokio::time::sleep(LINGER + LINGER / 4).await;
            }
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.map(|_| answer).ok()
        };
        let (answer, ()) = tokio::join!(uploading, closing);
        assert_eq!(answer.as_deref(), Some("413"));
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_more_is_left_soon() {
        let worker = Worker::alone(&Arc::new(Plane::new(1)));
        let (_client, ours) = pair().await;
        let closing = Close::Unread(Stream::Tcp(ours)).perform(&worker);
        assert!(tokio::time::timeout(LISTEN, closing).await.is_ok());
    }
}
