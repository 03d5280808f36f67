//! A link seen from its other end: when heads leave, when seats are given.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::config::settings::Address;

/// The other end of a link, frame by frame, without any runtime.
struct Peer {
    stream: TcpStream,
    read: Vec<u8>,
}

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

impl Peer {
    fn send(&mut self, kind: u8, payload: &[u8]) {
        let head = [0, 0, u8::try_from(payload.len()).unwrap(), kind, 0, 0, 0, 0, 0];
        self.stream.write_all(&[&head, payload].concat()).unwrap();
    }

    /// The number of request heads among all that came: what is there already, or after waiting for more.
    fn heads(&mut self, wait: bool) -> usize {
        self.stream.set_nonblocking(!wait).unwrap();
        self.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 4_096];
        match self.stream.read(&mut buffer) {
            Ok(n) => self.read.extend_from_slice(&buffer[..n]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let (mut heads, mut rest) = (0, self.read.get(24..).unwrap_or_default());
        while let [a, b, c, kind, ..] = *rest {
            let length = 9 + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
            heads += usize::from(kind == HEADERS && rest.len() >= length);
            rest = rest.get(length..).unwrap_or_default();
        }
        heads
    }
}

/// Plays with a link whose peer has said its settings.
fn play<F: Future<Output = ()>>(settings: &[u8], scene: impl FnOnce(Rc<Link>, Peer) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = Stream::Tcp(tokio::net::TcpStream::connect(address).await.unwrap());
        let mut peer = Peer { stream: listener.accept().unwrap().0, read: Vec::new() };
        peer.send(SETTINGS, settings);
        let endpoint = Arc::new(Endpoint::new(1, Address::http("127.0.0.1", address.port()), 1));
        let slot = endpoint.enter(None).unwrap();
        let opened = Opened { stream, slot, is_http2: true };
        let link = open(opened, &settings::Connections::default(), &Rc::default()).await.unwrap();
        scene(link, peer).await;
    });
}

fn request() -> Request<()> {
    Request::post("http://shop.test/").body(()).unwrap()
}

#[test]
fn a_head_leaves_in_the_poll_that_dispatches_it_and_not_before() {
    play(&[], |link, mut peer| async move {
        let seat = link.seat().unwrap();
        let asked = seat.ask(request(), true).unwrap();
        assert_eq!(peer.heads(false), 0);
        seat.flush();
        // Nothing else has run since, nor can it while this thread waits here.
        while peer.heads(true) == 0 {}
        drop((asked, seat));
    });
}

#[test]
fn a_blocked_link_gives_no_seat_until_it_moves_again() {
    // `INITIAL_WINDOW_SIZE`, and the connection's to match: only the sockets are in the way.
    play(&[0, 4, 0x7f, 0xff, 0xff, 0xff], |link, mut peer| async move {
        peer.send(WINDOW_UPDATE, &[0x3f, 0xff, 0xff, 0xff]);
        let seat = link.seat().unwrap();
        let (answer, mut body) = seat.ask(request(), false).unwrap();
        seat.flush();
        for _ in 0..10_000 {
            body.send_data(Bytes::from(vec![0; 64 * 1024]), false).unwrap();
            tokio::task::yield_now().await;
            if link.seat().is_none() {
                break;
            }
        }
        assert!(link.seat().is_none(), "the sockets took everything");
        let reading = std::thread::spawn(move || std::io::copy(&mut peer.stream, &mut std::io::sink()));
        while link.seat().is_none() {
            tokio::task::yield_now().await;
        }
        drop((answer, body, seat));
        link.retire();
        while link.driven.borrow().is_some() {
            tokio::task::yield_now().await;
        }
        reading.join().unwrap().unwrap();
    });
}

#[test]
fn there_are_no_more_seats_than_the_endpoint_allows_streams() {
    // `MAX_CONCURRENT_STREAMS`.
    play(&[0, 3, 0, 0, 0, 2], |link, _peer| async move {
        let two = (link.seat().unwrap(), link.seat().unwrap());
        assert!(link.seat().is_none());
        drop(two.0);
        let again = link.seat();
        assert!(again.is_some());
        link.retire();
        assert!(link.is_over() && link.seat().is_none());
    });
}
