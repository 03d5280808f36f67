//! Client connections over their life: naps between requests, answers that nobody reads, uploads that nobody wants, and
//! how many requests there may be.

use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::support::client::{Client, PATIENCE};
use super::support::pace;
use super::support::raw::Raw;
use super::support::teal::{Teal, shop_text};
use super::support::upstream::{Act, Upstream, ok};

/// Teal with one worker, these lines about clients, and these of the service.
fn limited(url: &str, client: &str, more: &str) -> Teal {
    let text = shop_text("none", &[("blue", url)], &format!("health: off\n{more}"));
    let text = text.replace("workers: 2", "workers: 1");
    Teal::start(&text.replace("services:", &format!("client: {{ {client} }}\nservices:")))
}

fn metric(teal: &Teal, series: &str) -> u64 {
    let text = teal.admin().order("GET", "/metrics", "", "").body;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse::<f64>().unwrap() as u64
}

/// Longer than an idle connection keeps the memory of its last request, and the sweep needs to see it.
const NAP: Duration = Duration::from_millis(1_100);

#[test]
fn a_connection_that_dozed_off_serves_on() {
    let blue = Upstream::plain("blue");
    let teal = limited(&blue.url(), "keep_alive: 60s", "");
    let (mut fresh, mut client) = (teal.client(), teal.client());
    assert_eq!(client.get("/", "").body, "blue");
    for _ in 0..2 {
        pace(NAP);
        assert_eq!(client.get("/", "").body, "blue");
    }
    assert_eq!(fresh.get("/", "").body, "blue", "before its first request as well");
    assert_eq!(metric(&teal, "teal_client_connections"), 2);
    // What it speaks was settled by its first word.
    pace(NAP);
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(client.answer().map(|answer| answer.status), Some(505));
}

#[test]
fn a_connection_that_dozed_off_is_still_cut_in_time() {
    let blue = Upstream::plain("blue");
    let teal = limited(&blue.url(), "keep_alive: 1s, head_timeout: 2s", "");
    let (mut silent, mut idle) = (teal.client(), teal.client());
    assert_eq!(idle.get("/", "").body, "blue");
    assert!(idle.is_closed() && silent.is_closed());
    let closed = |reason: &str| metric(&teal, &format!("teal_client_connections_closed_total{{reason=\"{reason}\"}}"));
    assert_eq!((closed("keep_alive"), closed("head_timeout")), (1, 1));
}

#[test]
fn answers_that_are_complete_and_left_unread_end_the_connection() {
    const ASKED: usize = 4_000;
    let blue = Upstream::start(|_| Act::Answer(ok(&"x".repeat(8 * 1024))));
    let teal = limited(&blue.url(), "unread: 300ms", "");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect(&teal.address.into()).unwrap();
    let mut client = Client::over(socket.into());
    // Each answer is small and complete at once; they are more than the kernel holds.
    client.send(&"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n".repeat(ASKED));
    let unread = "teal_client_connections_closed_total{reason=\"unread\"}";
    teal.until("it is given up", || metric(&teal, unread) == 1);
    teal.until("its place is free", || metric(&teal, "teal_client_connections") == 0);
    let answers = std::iter::from_fn(|| client.answer()).count();
    assert!(answers < ASKED, "{answers}");
    assert!(blue.count() < ASKED as u64, "and no request is begun whose answer finds no room");
    assert_eq!(teal.shop_now().pools.iter().flat_map(|pool| pool.failures).sum::<u64>(), 0, "nobody else's fault");
}

#[test]
fn who_reads_no_answer_before_the_upload_is_over_reads_it_then() {
    let blue = Upstream::plain("blue");
    let teal = limited(&blue.url(), "keep_alive: 60s", "routes:\n  - { name: small, limits: { body: 1KiB } }");
    let mut client = teal.client();
    let part = "x".repeat(100_000);
    client.send(&format!("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {}\r\n\r\n", 4 * part.len()));
    for _ in 0..4 {
        client.send(&part);
        // Slower than any fixed time that the answer itself would get.
        pace(Duration::from_millis(300));
    }
    let answer = client.answer().expect("no reset took it away");
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
    assert!(client.is_closed());
}

/// An upstream that tells of each request and answers when it is told to.
fn held() -> (Raw, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let ((heads, head), (words, word)) = (mpsc::channel(), mpsc::channel::<()>());
    let word = Mutex::new(word);
    let blue = Raw::start(move |_, talk| {
        while talk.head().is_some() {
            heads.send(()).unwrap();
            let _ = word.lock().unwrap().recv_timeout(PATIENCE.unwrap());
            talk.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    (blue, head, words)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";

#[test]
fn requests_beyond_those_that_may_be_in_flight_are_refused_at_once() {
    let (blue, head, words) = held();
    let teal = limited(&blue.url(), "max_in_flight: 2", "");
    let mut clients = [teal.client(), teal.client()];
    for client in &mut clients {
        client.send(GET);
        head.recv_timeout(PATIENCE.unwrap()).expect("it is in flight");
    }
    let mut third = teal.client();
    for _ in 0..3 {
        assert_eq!(third.get("/", "").status, 503);
    }
    assert_eq!(blue.connections(), 2, "nothing of it went up");
    clients.iter().for_each(|_| words.send(()).unwrap());
    assert!(clients.iter_mut().all(|client| client.answer().is_some_and(|answer| answer.status == 200)));
    words.send(()).unwrap();
    assert_eq!(third.get("/", "").status, 200, "there is room again, and the connection goes on");
}

#[test]
fn an_endpoint_gets_no_more_connections_than_it_may_have() {
    let (blue, head, words) = held();
    let teal = limited(&blue.url(), "keep_alive: 60s", "connections: { max: 1 }\nretry: { attempts: 0 }");
    let (mut first, mut second) = (teal.client(), teal.client());
    first.send(GET);
    head.recv_timeout(PATIENCE.unwrap()).expect("it is in flight");
    assert_eq!(second.get("/", "").status, 503);
    words.send(()).unwrap();
    assert_eq!(first.answer().map(|answer| answer.status), Some(200));
    words.send(()).unwrap();
    assert_eq!(second.get("/", "").status, 200, "over the same connection");
    assert_eq!(blue.connections(), 1);
}

#[test]
fn an_upload_slower_than_the_least_rate_is_408_and_a_faster_one_is_not() {
    let blue = Upstream::plain("blue");
    let teal = limited(&blue.url(), "min_upload_rate: 1KiB", "");
    let upload = |size: usize| {
        let mut client = teal.client();
        client.send("POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = format!("{size:x}\r\n{}\r\n", "x".repeat(size));
        // Longer than the rate is taken over.
        for _ in 0..110 {
            if !client.try_send(chunk.as_bytes()) {
                break;
            }
            pace(Duration::from_millis(100));
        }
        let _ = client.try_send(b"0\r\n\r\n");
        client.answer().map(|answer| answer.status)
    };
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| upload(10));
        assert_eq!(upload(1_000), Some(200));
        assert_eq!(slow.join().unwrap(), Some(408));
    });
    assert_eq!(teal.shop_now().pools.iter().flat_map(|pool| pool.failures).sum::<u64>(), 0, "nobody else's fault");
}
