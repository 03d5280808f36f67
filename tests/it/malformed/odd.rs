//! Odd, but legal: what a strict proxy must still take, and what it makes of it.

use super::wire::{ask, ask_and_end, statuses, teal};
use crate::support::upstream::{Act, Arrived, Upstream, ok};

/// What is sent, and the request line that goes up.
const LINES: &[(&str, &str)] = &[
    ("\r\nGET / HTTP/1.1", "GET / HTTP/1.1"),
    ("\r\n\r\nGET / HTTP/1.1", "GET / HTTP/1.1"),
    ("GET / HTTP/1.0", "GET / HTTP/1.1"),
    ("GET http://shop.test/x?y HTTP/1.1", "GET /x?y HTTP/1.1"),
    ("GET HTTP://shop.test:80/ HTTP/1.1", "GET / HTTP/1.1"),
    ("GET https://shop.test HTTP/1.1", "GET / HTTP/1.1"),
    ("GET http://shop.test:/ HTTP/1.1", "GET / HTTP/1.1"),
    ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"),
    ("OPTIONS http://shop.test HTTP/1.1", "OPTIONS * HTTP/1.1"),
    ("OPTIONS http://shop.test/ HTTP/1.1", "OPTIONS / HTTP/1.1"),
    ("GET // HTTP/1.1", "GET // HTTP/1.1"),
    ("GET //evil.test/x HTTP/1.1", "GET //evil.test/x HTTP/1.1"),
    ("GET /http://evil.test/ HTTP/1.1", "GET /http://evil.test/ HTTP/1.1"),
    ("GET /a/../b/./c HTTP/1.1", "GET /a/../b/./c HTTP/1.1"),
    ("GET /%00%0d%0a%zz HTTP/1.1", "GET /%00%0d%0a%zz HTTP/1.1"),
    ("GET /\"<>\\^`{|}[]'? HTTP/1.1", "GET /\"<>\\^`{|}[]'? HTTP/1.1"),
    ("GET /?a=?b=/c HTTP/1.1", "GET /?a=?b=/c HTTP/1.1"),
    ("PROPFIND / HTTP/1.1", "PROPFIND / HTTP/1.1"),
    ("M-SEARCH / HTTP/1.1", "M-SEARCH / HTTP/1.1"),
    ("get / HTTP/1.1", "get / HTTP/1.1"),
    ("!#$%&'*+-.^_`|~ / HTTP/1.1", "!#$%&'*+-.^_`|~ / HTTP/1.1"),
    ("HEADER / HTTP/1.1", "HEADER / HTTP/1.1"),
];

/// Fields that are sent, and what of them goes up: lines that are there, and names that are not.
const FIELDS: &[(&str, &[&str], &[&str])] = &[
    ("X-A:1\r\n", &["X-A: 1"], &[]),
    ("X-A: \t 1 \t \r\n", &["X-A: 1"], &[]),
    ("X-A:\r\n", &["X-A: "], &[]),
    ("X-A: a\tb  c\r\n", &["X-A: a\tb  c"], &[]),
    ("x-a: 1\r\nX-A: 2\r\n", &["x-a: 1", "X-A: 2"], &[]),
    ("!#$%&'*+-.^_`|~09Az: 1\r\n", &["!#$%&'*+-.^_`|~09Az: 1"], &[]),
    ("X-A: :,;\"\\()\r\n", &["X-A: :,;\"\\()"], &[]),
    ("Connection: close, x-a ,, keep-alive\r\nX-A: 1\r\nX-B: 2\r\n", &["X-B: 2"], &["x-a", "connection"]),
    ("Connection: content-length, host, transfer-encoding\r\n", &["host: shop.test"], &["connection"]),
    ("Connection: close\r\nTE: trailers, deflate\r\nTrailer: X-A\r\n", &[], &["te", "trailer"]),
    (
        "Keep-Alive: 5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: x\r\n",
        &[],
        &["keep-alive", "proxy-connection", "proxy-authorization"],
    ),
    ("Expect: 100-Continue\r\n", &[], &["expect"]),
    ("Upgrade: h2c\r\nConnection: upgrade\r\n", &[], &["upgrade", "connection"]),
    ("Upgrade: websocket\r\n", &[], &["upgrade", "connection"]),
    ("Upgrade: websocket, h2c\r\nConnection: upgrade\r\n", &[], &["upgrade", "connection"]),
    (
        "Content_Length: 5\r\nTransfer.Encoding: chunked\r\nTransfer_Encoding: chunked\r\n",
        &[],
        &["content_length", "transfer.encoding", "transfer_encoding"],
    ),
    ("Content-Length: 0\r\n", &["content-length: 0"], &[]),
    ("Via: 1.0 a, 1.1 b\r\n", &["Via: 1.0 a, 1.1 b", "via: 1.1 teal"], &[]),
];

/// A body as it is sent, behind its fields, and its data. The last byte sent ends it.
const BODIES: &[(&str, &str)] = &[
    ("Content-Length: 5\r\n\r\nhello", "hello"),
    ("Content-Length: 0000005\r\n\r\nhello", "hello"),
    ("content-LENGTH:5\r\n\r\nhello", "hello"),
    ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""),
    ("Transfer-Encoding:Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello"),
    ("transfer-encoding: CHUNKED \r\n\r\n05\r\nhello\r\n000\r\n\r\n", "hello"),
    ("Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
    ("Transfer-Encoding: chunked\r\n\r\n000000000000005\r\nhello\r\n0\r\n\r\n", "hello"),
    ("Transfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d;\u{e4}\"\r\nhello\r\n0;x\r\n\r\n", "hello"),
    ("Transfer-Encoding: chunked\r\n\r\n5;\r\nhello\r\n0\r\n\r\n", "hello"),
    ("Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n", "a\r\n"),
    ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-A: 1\r\nContent-Length: 7\r\nX-B:\r\n\r\n", "hello"),
    ("Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", "hello"),
];

fn upstream() -> Upstream {
    Upstream::start(|_| Act::Answer(ok("blue")))
}

fn arrived(upstream: &Upstream, before: usize) -> Vec<Arrived> {
    upstream.arrived().split_off(before)
}

#[test]
fn odd_request_lines_go_up_in_origin_form() {
    let blue = upstream();
    let teal = teal(blue.address, "", "");
    for (line, goes_up) in LINES {
        let before = blue.arrived().len();
        let got = ask_and_end(teal.address, format!("{line}\r\nHost: shop.test\r\n\r\n").as_bytes());
        assert_eq!(statuses(&got), [200], "{line:?}: {got}");
        let arrived = arrived(&blue, before);
        assert_eq!(arrived.iter().map(|request| request.line.as_str()).collect::<Vec<_>>(), [*goes_up]);
    }
    let longest = format!("/{}", "x".repeat(8 * 1024 - 1));
    let got = ask_and_end(teal.address, format!("GET {longest} HTTP/1.1\r\nHost: shop.test\r\n\r\n").as_bytes());
    assert_eq!(statuses(&got), [200]);
}

#[test]
fn odd_fields_go_up_as_they_are_or_not_at_all() {
    let blue = upstream();
    let teal = teal(blue.address, "", "");
    for (fields, there, gone) in FIELDS {
        let before = blue.arrived().len();
        let got = ask_and_end(teal.address, format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n").as_bytes());
        assert_eq!(statuses(&got), [200], "{fields:?}: {got}");
        let request = arrived(&blue, before).remove(0);
        for line in *there {
            assert!(request.headers.iter().any(|known| known == line), "{line:?} is missing: {request:?}");
        }
        for name in *gone {
            assert_eq!(request.header(name), None, "of {fields:?}");
        }
    }
}

#[test]
fn as_many_fields_and_bytes_as_allowed_go_up() {
    let blue = upstream();
    let teal = teal(blue.address, "", "");
    let head = |fields: &str| format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n");
    let most = head(&"X-A: 1\r\n".repeat(99));
    let room = 32 * 1024 - head("X-A: \r\n").len();
    let largest = head(&format!("X-A: {}\r\n", "x".repeat(room)));
    assert_eq!(largest.len(), 32 * 1024);
    for head in [&most, &largest] {
        assert_eq!(statuses(&ask_and_end(teal.address, head.as_bytes())), [200]);
    }
    let one_more = largest.replacen("X-A: ", "X-A: x", 1);
    assert_eq!(statuses(&ask(teal.address, one_more.as_bytes())), [431]);
    assert_eq!(blue.count(), 2);
}

#[test]
fn hosts_of_every_kind_go_up() {
    let blue = upstream();
    let teal = teal(blue.address, "", "");
    for host in
        ["shop.test:8080", "shop.test:", "SHOP.test.", "a_b~c", "[::1]", "[::1]:80", "[1::2:3.4.5.6]", "1.2.3.4:5", ""]
    {
        let got = ask_and_end(teal.address, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(statuses(&got), [200], "{host:?}: {got}");
        assert_eq!(
            blue.arrived().last().and_then(|request| request.header("host").map(str::to_owned)).as_deref(),
            Some(host)
        );
    }
    assert_eq!(statuses(&ask_and_end(teal.address, b"GET / HTTP/1.0\r\n\r\n")), [200], "1.0 needs no Host");
    let absolute = "GET http://shop.test:81/ HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    assert_eq!(statuses(&ask_and_end(teal.address, absolute.as_bytes())), [200]);
    assert_eq!(blue.arrived().last().unwrap().header("host"), Some("shop.test:81"));
}

#[test]
fn bodies_of_every_kind_go_up_whole_and_the_next_request_too() {
    let blue = upstream();
    let teal = teal(blue.address, "", "");
    let last = "\r\nGET /last HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    for method in ["POST", "GET", "DELETE", "HEAD", "OPTIONS", "PROPFIND"] {
        for (sent, data) in BODIES {
            let before = blue.arrived().len();
            let got = ask(teal.address, format!("{method} / HTTP/1.1\r\nHost: shop.test\r\n{sent}{last}").as_bytes());
            assert_eq!(statuses(&got), [200, 200], "{method} {sent:?}: {got}");
            let arrived = arrived(&blue, before);
            let bodies: Vec<_> = arrived.iter().map(|request| request.body.as_slice()).collect();
            assert_eq!(bodies, [data.as_bytes(), b""], "{method} {sent:?}");
            assert_eq!(arrived[1].line, "GET /last HTTP/1.1");
        }
    }
}

#[test]
fn a_body_may_come_byte_by_byte_and_in_the_smallest_chunks() {
    use std::io::Write;
    let blue = upstream();
    let teal = teal(blue.address, "", "");
    let mut stream = super::wire::connect(teal.address);
    let chunks = "1\r\nx\r\n".repeat(3_000);
    let whole = format!(
        "POST / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
    );
    let (slow, rest) = whole.split_at(200);
    for byte in slow.as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.write_all(rest.as_bytes()).unwrap();
    assert_eq!(statuses(&super::wire::read_to_end(&mut stream)), [200]);
    assert_eq!(blue.arrived()[0].body, "x".repeat(3_000).as_bytes());
}
