//! Which connections are used again, on either side, after each kind of end.

use super::wire::{Scripted, Then, teal};
use crate::support::client::Client;
use crate::support::upstream::Upstream;

/// What the client sends (behind `VERSION\r\nHost`), what the upstream answers, and whether the client's connection and
/// the upstream's are used again.
const TABLE: &[(&str, &str, &str, bool, bool)] = &[
    ("GET / HTTP/1.1", "", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", true, true),
    ("GET / HTTP/1.1", "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n", true, true),
    (
        "GET / HTTP/1.1",
        "",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\nX: y\r\n\r\n",
        true,
        true,
    ),
    ("GET / HTTP/1.1", "", "HTTP/1.1 204 No Content\r\n\r\n", true, true),
    ("GET / HTTP/1.1", "", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", true, true),
    ("GET / HTTP/1.1", "", "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nfine", true, true),
    ("GET / HTTP/1.1", "", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", true, true),
    ("GET / HTTP/1.1", "", "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nfine", true, true),
    ("GET / HTTP/1.1", "", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine", true, false),
    ("GET / HTTP/1.1", "", "HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\nContent-Length: 4\r\n\r\nfine", true, false),
    ("GET / HTTP/1.1", "", "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine", true, false),
    ("GET / HTTP/1.1", "", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nfine", true, false),
    ("GET / HTTP/1.1", "", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfineX", true, false),
    ("GET / HTTP/1.1", "", "HTTP/1.1 204 No Content\r\n\r\nX", true, false),
    ("GET / HTTP/1.1", "", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nfine", true, false),
    ("GET / HTTP/1.1", "", "nonsense\r\n\r\n", true, false),
    ("GET / HTTP/1.1", "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", false, false),
    ("GET / HTTP/1.1", "Connection: close\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", false, true),
    ("GET / HTTP/1.1", "Connection: x, Close\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", false, true),
    ("GET / HTTP/1.1", "Connection: keep-alive\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", true, true),
    ("GET / HTTP/1.0", "", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", false, true),
    ("GET / HTTP/1.0", "Connection: Keep-Alive\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", true, true),
    (
        "GET / HTTP/1.0",
        "Connection: keep-alive, close\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
        false,
        true,
    ),
    (
        "GET / HTTP/1.0",
        "Connection: keep-alive\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        false,
        true,
    ),
    ("HEAD / HTTP/1.1", "", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", true, true),
    ("HEAD / HTTP/1.1", "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, true),
    ("HEAD / HTTP/1.1", "", "HTTP/1.1 200 OK\r\n\r\n", true, true),
    ("HEAD / HTTP/1.0", "Connection: keep-alive\r\n", "HTTP/1.1 200 OK\r\n\r\n", true, true),
];

#[test]
fn connections_are_used_again_only_if_nothing_is_owed() {
    for (line, fields, answer, keeps_client, keeps_upstream) in TABLE {
        let blue = Scripted::start(move |asked, talk| {
            talk.say(if asked.target() == "/" { answer } else { "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext" });
            Then::Keep
        });
        let teal = teal(blue.address, "retry: off", "");
        let mut client = Client::connect(teal.address);
        let next = "GET /next HTTP/1.1\r\nHost: shop.test\r\n\r\n";
        client.send(&format!("{line}\r\nHost: shop.test\r\n{fields}\r\n"));
        let mut head = client.head().unwrap();
        while head.status < 200 {
            head = client.head().unwrap();
        }
        let length = head.header("content-length").map_or(0, |length| length.parse().unwrap());
        if !line.starts_with("HEAD") && head.status != 304 {
            client.bytes(length);
            while head.header("transfer-encoding").is_some() && client.chunk().is_some_and(|chunk| !chunk.is_empty()) {}
        }
        assert_eq!(
            head.header("connection") == Some("close"),
            !keeps_client && !answer.ends_with("\r\nx\r\n"),
            "{line} {fields:?} {answer:?}"
        );
        if *keeps_client {
            client.send(next);
            let got = client.answer().map(|answer| answer.body);
            assert_eq!(got.as_deref(), Some("next"), "{line} {fields:?} {answer:?}");
        } else {
            assert!(client.is_closed(), "{line} {fields:?} {answer:?}");
            assert_eq!(Client::connect(teal.address).get("/next", "").body, "next");
        }
        let connections = if *keeps_upstream { 1 } else { 2 };
        assert_eq!(blue.connections(), connections, "{line} {fields:?} {answer:?}");
    }
}

#[test]
fn a_body_is_sent_again_whole_when_the_connection_had_died_meanwhile() {
    let blue = Upstream::plain("blue");
    let teal = teal(blue.address, "", "");
    let mut client = Client::connect(teal.address);
    for (fields, sent, body) in [
        ("Transfer-Encoding: chunked", "0\r\n\r\n", ""),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", "abc"),
        ("Transfer-Encoding: chunked", "1;x\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "abc"),
        ("Content-Length: 3", "abc", "abc"),
        ("Content-Length: 0", "", ""),
    ] {
        for _ in 0..10 {
            assert_eq!(client.get("/", "").status, 200);
            blue.cut();
            client.send(&format!("POST / HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n\r\n{sent}"));
            assert_eq!(client.answer().map(|answer| answer.status), Some(200), "{fields} {sent:?}");
            let arrived = blue.arrived();
            let posted: Vec<_> = arrived.iter().rev().take_while(|request| request.line.starts_with("POST")).collect();
            assert_eq!((posted.len(), posted[0].body.as_slice()), (1, body.as_bytes()), "{fields} {sent:?}");
        }
    }
}
