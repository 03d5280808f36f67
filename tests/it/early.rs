//! What does not come in the usual order: answers before their requests are over, leave to go on, clients that leave,
//! and bytes that nobody asked for.

use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use super::support::client::Client;
use super::support::pace;
use super::support::raw::Raw;
use super::support::teal::Teal;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Teal in front of it, with one worker, so that connections are reused if they may be.
fn before(upstream: &Raw, more: &str) -> Teal {
    let text = super::support::teal::shop_text("none", &[("blue", &upstream.url())], &format!("health: off\n{more}"));
    Teal::start(&text.replace("workers: 2", "workers: 1"))
}

fn in_flight(teal: &Teal) -> u64 {
    teal.shop_now().pools.iter().map(|pool| pool.in_flight).sum()
}

fn failures(teal: &Teal) -> u64 {
    teal.shop_now().pools.iter().flat_map(|pool| pool.failures).sum()
}

const POST: &str = "POST / HTTP/1.1\r\nHost: shop.test\r\n";

#[test]
fn leave_to_go_on_is_asked_for_and_given_by_the_upstream() {
    let blue = Raw::start(|_, talk| {
        while let Some(head) = talk.head() {
            assert!(head.contains("expect: 100-continue\r\n"), "{head}");
            talk.say("HTTP/1.1 100 Continue\r\n\r\n");
            assert_eq!(talk.bytes(5).as_deref(), Some(&b"hello"[..]));
            talk.say(OK);
        }
    });
    let teal = before(&blue, "");
    let mut client = teal.client();
    for _ in 0..3 {
        client.send(&format!("{POST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"));
        assert_eq!(client.head().map(|answer| answer.status), Some(100));
        client.send("hello");
        assert_eq!(client.answer().map(|answer| answer.body), Some("ok".to_owned()));
    }
    // Who did not wait is not told to go on.
    client.send(&format!("{POST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"));
    assert_eq!(client.answer().map(|answer| answer.status), Some(200));
    assert_eq!(blue.connections(), 1);
}

#[test]
fn a_refusal_in_place_of_leave_ends_the_connections_on_both_sides() {
    let blue = Raw::start(|_, talk| {
        if talk.head().is_some() {
            talk.say("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
            talk.until_ended();
        }
    });
    let teal = before(&blue, "");
    for round in 1..=3 {
        let mut client = teal.client();
        client.send(&format!("{POST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"));
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
        assert!(client.is_closed(), "a body may or may not follow: nobody could tell it from a request");
        assert_eq!(blue.connections(), round, "the one before is owed a body");
    }
    assert_eq!((in_flight(&teal), failures(&teal)), (0, 0));
}

#[test]
fn an_upstream_that_never_gives_leave_is_late_and_not_the_client() {
    let blue = Raw::start(|_, talk| talk.until_ended());
    let teal = before(&blue, "timeouts: { head: 100ms }");
    let mut client = teal.client();
    client.send(&format!("{POST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!(client.answer().map(|answer| answer.status), Some(504));
    assert_eq!(failures(&teal), 1);
}

#[test]
fn an_answer_may_come_before_the_body_is_over() {
    let blue = Raw::start(|_, talk| {
        if talk.head().is_some() {
            talk.say(OK);
            talk.until_ended();
        }
    });
    let teal = before(&blue, "");
    for (round, framing) in [(1, "Content-Length: 1000000"), (2, "Transfer-Encoding: chunked")] {
        let mut client = teal.client();
        client.send(&format!("{POST}{framing}\r\n\r\n5\r\nhello\r\n"));
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.body.as_str(), answer.header("connection")), (200, "ok", Some("close")));
        assert!(client.is_closed());
        assert_eq!(blue.connections(), round);
    }
    assert_eq!((in_flight(&teal), failures(&teal)), (0, 0));
}

#[test]
fn an_answer_that_has_begun_does_not_end_the_upload() {
    let blue = Raw::start(|_, talk| {
        talk.head().unwrap();
        talk.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..3 {
            let said = talk.bytes(4).unwrap();
            talk.say(&format!("4\r\n{}\r\n", String::from_utf8(said).unwrap()));
        }
        talk.say("0\r\n\r\n");
        talk.until_ended();
    });
    let teal = before(&blue, "");
    let mut client = teal.client();
    client.send(&format!("{POST}Content-Length: 12\r\n\r\n"));
    assert_eq!(client.head().map(|answer| answer.status), Some(200));
    for word in ["ping", "pong", "pang"] {
        client.send(word);
        assert_eq!(client.chunk().as_deref(), Some(word), "both ways at once");
    }
    assert_eq!(client.chunk().as_deref(), Some(""));
}

#[test]
fn interim_answers_pass_to_those_who_know_them() {
    let blue = Raw::start(|_, talk| {
        while talk.head().is_some() {
            talk.say("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
            talk.say(OK);
        }
    });
    let teal = before(&blue, "");
    let mut client = teal.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        let hints = client.head().unwrap();
        assert_eq!((hints.status, hints.header("link"), hints.header("x-hop")), (103, Some("</a.css>"), None));
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "nobody asked for leave");
    }
    let mut old = teal.client();
    old.send("GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n");
    assert_eq!(old.answer().map(|answer| answer.status), Some(200), "HTTP/1.0 knows no interim answers");
    assert_eq!(blue.connections(), 1);
}

/// An upstream that tells of each head and then waits for the word.
fn told() -> (Raw, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let ((heads, head), (words, word)) = (mpsc::channel(), mpsc::channel::<()>());
    let word = Mutex::new(word);
    let blue = Raw::start(move |_, talk| {
        while talk.head().is_some() {
            heads.send(()).unwrap();
            let _ = word.lock().unwrap().recv_timeout(Duration::from_secs(10));
            talk.say(OK);
        }
    });
    (blue, head, words)
}

#[test]
fn a_client_that_resets_its_connection_ends_its_request_and_blames_nobody() {
    let (blue, head, _word) = told();
    let teal = before(&blue, "");
    let stream = TcpStream::connect(teal.address).unwrap();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    let mut client = Client::over(stream);
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    head.recv_timeout(Duration::from_secs(10)).unwrap();
    drop(client);
    teal.until("it is given up", || in_flight(&teal) == 0);
    assert_eq!(failures(&teal), 0);
}

#[test]
fn a_client_that_only_closes_its_side_is_still_answered() {
    let (blue, head, word) = told();
    let teal = before(&blue, "");
    let stream = TcpStream::connect(teal.address).unwrap();
    let half = stream.try_clone().unwrap();
    let mut client = Client::over(stream);
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    head.recv_timeout(Duration::from_secs(10)).unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    word.send(()).unwrap();
    assert_eq!(client.answer().map(|answer| answer.body), Some("ok".to_owned()));
    assert!(client.is_closed());
}

#[test]
fn the_upstream_is_hung_up_on_when_the_client_is_gone_and_its_connection_never_used_again() {
    let (ended, end) = mpsc::channel();
    let blue = Raw::start(move |number, talk| {
        talk.head().unwrap();
        match number {
            1 => {
                talk.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun");
                talk.until_ended();
                ended.send(()).unwrap();
            }
            _ => talk.say(OK),
        }
    });
    let teal = before(&blue, "");
    let stream = TcpStream::connect(teal.address).unwrap();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    let mut client = Client::over(stream);
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!(client.head().map(|answer| answer.status), Some(200));
    drop(client);
    end.recv_timeout(Duration::from_secs(10)).expect("the upstream is told");
    assert_eq!(teal.client().get("/", "").body, "ok");
    assert_eq!((blue.connections(), failures(&teal)), (2, 0));
}

#[test]
fn bytes_behind_an_answer_are_never_taken_for_the_next() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let (ended, end) = mpsc::channel();
    let blue = Raw::start(move |_, talk| {
        let Some(head) = talk.head() else { return };
        match head.contains("/late") {
            true => {
                talk.say(OK);
                pace(Duration::from_millis(20));
                talk.say(EVIL);
            }
            false => talk.say(&format!("{OK}{EVIL}")),
        }
        talk.until_ended();
        let _ = ended.send(());
    });
    let teal = before(&blue, "");
    let mut client = teal.client();
    for round in 1..=5 {
        assert_eq!(client.get("/early", "").body, "ok");
        assert_eq!(blue.connections(), round, "what came behind goes with its connection");
        end.recv_timeout(Duration::from_secs(10)).expect("it is hung up on");
    }
    assert_eq!(client.get("/late", "").body, "ok");
    end.recv_timeout(Duration::from_secs(10)).expect("it is hung up on though nobody asks for anything");
    assert_eq!(client.get("/early", "").body, "ok");
    assert_eq!((blue.connections(), failures(&teal)), (7, 0));
}

#[test]
fn an_upstream_that_wants_to_close_is_let_go() {
    let blue = Raw::start(|number, talk| {
        talk.head().unwrap();
        match number % 3 {
            0 => talk.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"),
            1 => talk.say("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            _ => talk.say("HTTP/1.1 200 OK\r\n\r\nok"),
        }
        // Without an end of its own, the last kind has to be closed to be over; the others linger.
        if number % 3 != 2 {
            talk.until_ended();
        }
    });
    let teal = before(&blue, "");
    let mut client = teal.client();
    for round in 1..=9 {
        assert_eq!(client.post("/", "once").body, "ok");
        assert_eq!(blue.connections(), round, "none is used twice");
    }
    assert_eq!(failures(&teal), 0);
}

#[test]
fn answers_without_bodies_leave_the_connection_in_step() {
    let blue = Raw::start(|_, talk| {
        while let Some(head) = talk.head() {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            match path.as_str() {
                "/204" => talk.say("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
                "/304" => talk.say("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n"),
                "/head" => talk.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
                "/empty" => talk.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
                _ => talk.say(OK),
            }
        }
    });
    let teal = before(&blue, "");
    let mut client = teal.client();
    for (method, path, status, length) in [
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("5")),
        ("HEAD", "/head", 200, None),
        ("GET", "/empty", 200, Some("0")),
    ] {
        client.send(&format!("{method} {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
        let answer = client.head().unwrap();
        assert_eq!((answer.status, answer.header("content-length")), (status, length), "{path}");
        assert_eq!(answer.header("transfer-encoding"), None, "{path}");
        assert_eq!(client.get("/", "").body, "ok", "after {path}");
    }
    assert_eq!(blue.connections(), 1);
}

#[test]
fn an_old_client_keeps_its_connection_only_where_the_length_is_known() {
    let blue = Raw::start(|_, talk| {
        while let Some(head) = talk.head() {
            match head.contains("/chunks") {
                true => talk.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
                false => talk.say(OK),
            }
        }
    });
    let teal = before(&blue, "");
    let mut client = teal.client();
    let ask = |client: &mut Client, path: &str, option: &str| {
        client.send(&format!("GET {path} HTTP/1.0\r\nHost: shop.test\r\n{option}\r\n"));
        client.answer().unwrap()
    };
    for _ in 0..2 {
        let answer = ask(&mut client, "/", "Connection: keep-alive\r\n");
        assert_eq!((answer.body.as_str(), answer.header("connection")), ("ok", Some("keep-alive")));
    }
    let last = ask(&mut client, "/chunks", "Connection: keep-alive\r\n");
    assert_eq!(
        (last.body.as_str(), last.header("connection"), last.header("transfer-encoding")),
        ("ok", Some("close"), None)
    );
    assert!(client.is_closed());
    let mut client = teal.client();
    assert_eq!(ask(&mut client, "/", "").body, "ok");
    assert!(client.is_closed());
}
