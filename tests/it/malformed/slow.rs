//! Clients that are slow, silent, or in two minds: each limit holds, and nobody else is blamed.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use super::wire::{Scripted, Then, ask, connect, ok, read_to_end, statuses, teal};
use crate::support::client::Client;
use crate::support::pace;
use crate::support::upstream::Upstream;

const HEAD_LIMIT: &str = "client: { head_timeout: 1s, keep_alive: 1s }\n";

#[test]
fn a_head_that_never_ends_is_408_however_busily_it_comes() {
    let blue = Upstream::plain("blue");
    let teal = teal(blue.address, "", HEAD_LIMIT);
    let mut stream = connect(teal.address);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n").unwrap();
    // Until it is told off: a field every now and then never resets the limit.
    let mut reader = stream.try_clone().unwrap();
    let told = std::thread::spawn(move || read_to_end(&mut reader));
    while stream.write_all(b"X-A: 1\r\n").is_ok() && !told.is_finished() {
        pace(Duration::from_millis(20));
    }
    assert_eq!(statuses(&told.join().unwrap())[0], 408);
    assert_eq!(blue.count(), 0);
}

#[test]
fn a_silent_connection_is_closed_without_a_word() {
    let blue = Upstream::plain("blue");
    let teal = teal(blue.address, "", HEAD_LIMIT);
    assert_eq!(read_to_end(&mut connect(teal.address)), "", "a new one");
    let mut client = Client::connect(teal.address);
    assert_eq!(client.get("/", "").status, 200);
    assert!(client.is_closed(), "one that was answered");
    let mut stream = connect(teal.address);
    stream.write_all(b"\r\n").unwrap();
    assert_eq!(read_to_end(&mut stream), "", "one that sent an empty line");
}

#[test]
fn a_body_that_stalls_is_408() {
    let blue = Upstream::plain("blue");
    let teal = teal(blue.address, "timeouts: { head: 300ms }", "");
    for (fields, part) in [
        ("Content-Length: 100", "half"),
        ("Content-Length: 100", ""),
        ("Transfer-Encoding: chunked", "5\r\nhel"),
        ("Transfer-Encoding: chunked", "5"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n"),
    ] {
        let got = ask(teal.address, format!("POST / HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n\r\n{part}").as_bytes());
        assert_eq!(statuses(&got), [408], "{fields} {part:?}");
    }
    assert_eq!(blue.count(), 0);
}

#[test]
fn a_body_that_moves_is_waited_for() {
    let blue = Upstream::plain("blue");
    let teal = teal(blue.address, "timeouts: { head: 1s }", "");
    let mut stream = connect(teal.address);
    stream.write_all(b"POST / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nContent-Length: 12\r\n\r\n").unwrap();
    for _ in 0..12 {
        pace(Duration::from_millis(120));
        stream.write_all(b"x").unwrap();
    }
    assert_eq!(statuses(&read_to_end(&mut stream)), [200], "longer than the limit, but it moves");
    assert_eq!(blue.arrived()[0].body, b"xxxxxxxxxxxx");
}

#[test]
fn a_client_that_reads_slowly_gets_everything() {
    let big = "0123456789abcdef".repeat(1 << 18);
    let body = big.clone();
    let blue = Scripted::start(move |_, talk| {
        talk.say(ok(&body));
        Then::Keep
    });
    let teal = teal(blue.address, "", "");
    let mut stream = connect(teal.address);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").unwrap();
    let (mut got, mut buffer) = (Vec::new(), vec![0; 128 * 1024]);
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        got.extend_from_slice(&buffer[..n]);
        pace(Duration::from_millis(5));
    }
    assert!(got.ends_with(big.as_bytes()), "{} bytes", got.len());
}

#[test]
fn an_answer_may_come_before_the_body_is_there() {
    let blue = Scripted::start(|_, talk| {
        talk.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nlong");
        Then::Keep
    });
    let teal = teal(blue.address, "", "");
    let mut stream = connect(teal.address);
    stream.write_all(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1000000\r\n\r\nbegin").unwrap();
    let got = read_to_end(&mut stream);
    assert!(got.contains("connection: close\r\n") && got.ends_with("\r\n\r\nlong"), "{got}");
    // One that sends everything before it reads, as most do, gets the answer too.
    let mut all = b"POST / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n".to_vec();
    all.extend_from_slice(&[b'x'; 100_000]);
    assert_eq!(statuses(&ask(teal.address, &all)), [413]);
    let seen = blue.connections();
    assert_eq!(seen, 2, "a connection that still owes a body is used no more");
}

#[test]
fn leave_is_given_by_the_upstream() {
    let blue = Scripted::start(|asked, talk| {
        assert!(asked.head.to_ascii_lowercase().contains("\r\nexpect: 100-continue\r\n"));
        talk.say("HTTP/1.1 100 Continue\r\nX-A: 1\r\n\r\n");
        let body = talk.take(5);
        talk.say(ok(&String::from_utf8_lossy(&body)));
        Then::Keep
    });
    let teal = teal(blue.address, "", "");
    let mut client = Client::connect(teal.address);
    for _ in 0..3 {
        client.send("POST / HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(client.head().unwrap().status, 100);
        client.send("hello");
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
    }
    // One that does not wait may get the interim answer or not, but only one final.
    client.send("POST / HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
    let first = client.answer().unwrap();
    let last = if first.status == 100 { client.answer().unwrap() } else { first };
    assert_eq!((last.status, last.body.as_str()), (200, "hello"));
    assert_eq!(blue.connections(), 1, "all over one connection");
}

#[test]
fn a_refusal_instead_of_leave_ends_the_connection() {
    let blue = Scripted::start(|_, talk| {
        talk.say("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
        Then::Keep
    });
    let teal = teal(blue.address, "", "");
    let expects = "POST / HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    for _ in 0..2 {
        let mut stream = connect(teal.address);
        stream.write_all(expects.as_bytes()).unwrap();
        let mut head = vec![0; 12];
        stream.read_exact(&mut head).unwrap();
        // It could be the body or a request: nobody can tell, so nobody reads it.
        let _ = stream.write_all(b"GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        let got = read_to_end(&mut stream);
        assert!(head == b"HTTP/1.1 401" && got.contains("connection: close") && statuses(&got).is_empty(), "{got}");
    }
    assert!(blue.lines().iter().all(|line| line == "POST / HTTP/1.1"), "{:?}", blue.lines());
    assert_eq!(blue.connections(), 2, "nor is the upstream's used again");
}

#[test]
fn leave_that_nobody_waits_for_is_swallowed() {
    let blue = Scripted::start(|_, talk| {
        talk.say("HTTP/1.1 100 Continue\r\n\r\n");
        talk.take(5);
        talk.say(ok("fine"));
        Then::Keep
    });
    let teal = teal(blue.address, "", "");
    for version in ["1.0", "1.1"] {
        let sent =
            format!("POST / HTTP/{version}\r\nHost: shop.test\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(statuses(&ask(teal.address, sent.as_bytes())), [200]);
    }
    let old = b"POST / HTTP/1.0\r\nHost: shop.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(statuses(&ask(teal.address, old)), [200]);
}

#[test]
fn hints_go_down_to_those_who_know_them() {
    let blue = Scripted::start(|_, talk| {
        let hint =
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\r\n";
        talk.say(format!("{hint}HTTP/1.1 102 Processing\r\n\r\n{hint}{}", ok("fine")));
        Then::Keep
    });
    let teal = teal(blue.address, "", "");
    let mut client = Client::connect(teal.address);
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    let heads: Vec<_> = (0..3).map(|_| client.head().unwrap()).collect();
    assert_eq!(heads.iter().map(|head| head.status).collect::<Vec<_>>(), [103, 102, 103]);
    assert_eq!((heads[0].header("link"), heads[0].header("x-hop")), (Some("</a.css>"), None));
    assert_eq!((heads[0].header("keep-alive"), heads[0].header("content-length")), (None, None));
    assert_eq!(client.answer().unwrap().body, "fine");
    let old = ask(teal.address, b"GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n");
    assert_eq!(statuses(&old), [200], "{old}");
}

#[test]
fn a_client_that_closed_its_side_is_still_answered() {
    let blue = Scripted::start(|_, talk| {
        pace(Duration::from_millis(50));
        talk.say(ok("fine"));
        Then::Keep
    });
    let teal = teal(blue.address, "", "");
    let one = "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0\r\n\r\n";
    for sent in [one.to_owned(), one.repeat(3), format!("{one}{post}{one}")] {
        let mut stream = connect(teal.address);
        stream.write_all(sent.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let got = read_to_end(&mut stream);
        assert_eq!(got.matches("\r\n\r\nfine").count(), sent.matches("HTTP/1.1").count(), "{got}");
        assert!(got.ends_with("\r\n\r\nfine"), "{got}");
    }
}
