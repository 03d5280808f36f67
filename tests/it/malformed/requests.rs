//! Malformed requests: each gets the one answer that it deserves, the connection ends, and no upstream sees any of it.

use super::wire::{SMUGGLED, ask, ask_and_end, statuses, teal};
use crate::support::upstream::Upstream;

/// Request lines and heads: what is sent is `line`, CRLF, a Host field, `fields`, the empty line, a body, and behind it
/// [`SMUGGLED`].
const FIELDS: &[(u16, &str)] = &[
    // Content-Length beside Transfer-Encoding, and lengths that are no lengths.
    (400, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
    (400, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
    (400, "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
    (400, "Transfer-Encoding: gzip, chunked\r\nContent-Length: 5\r\n"),
    (400, "Content-Length: 5\r\nContent-Length: 6\r\n"),
    (400, "Content-Length: 5\r\nContent-Length: 5\r\n"),
    (400, "Content-Length: 5\r\ncontent-length: 0\r\n"),
    (400, "Content-Length: 5, 5\r\n"),
    (400, "Content-Length: 5,\r\n"),
    (400, "Content-Length:\r\n"),
    (400, "Content-Length: \t \r\n"),
    (400, "Content-Length: +5\r\n"),
    (400, "Content-Length: -5\r\n"),
    (400, "Content-Length: -0\r\n"),
    (400, "Content-Length: 0x5\r\n"),
    (400, "Content-Length: 5 5\r\n"),
    (400, "Content-Length: 5;\r\n"),
    (400, "Content-Length: 5.0\r\n"),
    (400, "Content-Length: 1e1\r\n"),
    (400, "Content-Length: \"5\"\r\n"),
    (400, "Content-Length: 5a\r\n"),
    (400, "Content-Length: \u{665}\r\n"),
    (400, "Content-Length: 9223372036854775808\r\n"),
    (400, "Content-Length: 18446744073709551616\r\n"),
    (400, "Content-Length: 18446744073709551621\r\n"),
    (400, "Content-Length: 00000000000000000005\r\n"),
    (400, "Content-Length: 5\x0b\r\n"),
    // Transfer codings: a single `chunked`, or nothing.
    (400, "Transfer-Encoding: gzip\r\n"),
    (400, "Transfer-Encoding: identity\r\n"),
    (400, "Transfer-Encoding: identity, chunked, identity\r\n"),
    (400, "Transfer-Encoding: chunked, gzip\r\n"),
    (400, "Transfer-Encoding: chunked, identity\r\n"),
    (400, "Transfer-Encoding: chunked, chunked\r\n"),
    (400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    (400, "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
    (400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
    (400, "Transfer-Encoding: xchunked\r\n"),
    (400, "Transfer-Encoding: chunked;q=1\r\n"),
    (400, "Transfer-Encoding: \"chunked\"\r\n"),
    (400, "Transfer-Encoding: 'chunked'\r\n"),
    (400, "Transfer-Encoding: chunked chunked\r\n"),
    (400, "Transfer-Encoding:\r\n"),
    (400, "Transfer-Encoding: , chunked\r\n"),
    (400, "Transfer-Encoding: chunked,\r\n"),
    (400, "Transfer-Encoding: chunked\x0b\r\n"),
    (400, "Transfer-Encoding: \x0cchunked\r\n"),
    (400, "Transfer-Encoding: chunked\x00\r\n"),
    (400, "Transfer-Encoding: \u{a0}chunked\r\n"),
    (400, "Transfer-Encoding: \u{212a}chunked\r\n"),
    (501, "Transfer-Encoding: gzip, chunked\r\n"),
    (501, "Transfer-Encoding: br, gzip, chunked\r\n"),
    // White space where none belongs, folded lines, line ends that are none.
    (400, "Transfer-Encoding : chunked\r\n"),
    (400, "Transfer-Encoding\t: chunked\r\n"),
    (400, "Content-Length : 5\r\n"),
    (400, " Transfer-Encoding: chunked\r\n"),
    (400, "Transfer-Encoding:\r\n chunked\r\n"),
    (400, "Transfer-Encoding:\r\n\tchunked\r\n"),
    (400, "X-A: 1\r\n folded\r\n"),
    (400, "X-A: 1\r\n\tfolded\r\n"),
    (400, "X-A: 1\r\n \r\n"),
    (400, "X-A: 1\nTransfer-Encoding: chunked\r\n"),
    (400, "X-A: 1\rTransfer-Encoding: chunked\r\n"),
    (400, "X-A: 1\r\r\n"),
    (400, "X-A: 1\n\r\n"),
    (400, "X-A:\n"),
    (400, "X-A: \n"),
    (400, "X-A: 1\n"),
    (400, "X-A:\r1\r\n"),
    (400, "\rX-A: 1\r\n"),
    (400, "\nX-A: 1\r\n"),
    // Names and values.
    (400, "X-A\r\n"),
    (400, ": 1\r\n"),
    (400, ":\r\n"),
    (400, " : 1\r\n"),
    (400, "X A: 1\r\n"),
    (400, "X(A): 1\r\n"),
    (400, "X/A: 1\r\n"),
    (400, "X@A: 1\r\n"),
    (400, "X\"A: 1\r\n"),
    (400, "X{A}: 1\r\n"),
    (400, "X\u{e4}: 1\r\n"),
    (400, "X\x7fA: 1\r\n"),
    (400, "Transfer\x00-Encoding: chunked\r\n"),
    (400, "X-A: a\x00b\r\n"),
    (400, "X-A: a\x01b\r\n"),
    (400, "X-A: a\x08b\r\n"),
    (400, "X-A: a\x1bb\r\n"),
    (400, "X-A: a\x7fb\r\n"),
    // A second Host, expectations, upgrades.
    (400, "Host: shop.test\r\n"),
    (400, "hOST: evil.test\r\n"),
    (417, "Expect: 200-ok\r\n"),
    (417, "Expect:\r\n"),
    (417, "Expect: 100-continue, 100-continue\r\n"),
    (417, "Expect: 100-continue\r\nExpect: 100-continue\r\n"),
    (400, "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n"),
    (400, "Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n"),
    (400, "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nContent-Length: 5\r\n"),
];

/// Values of a single Host field.
const HOSTS: &[&str] = &[
    "user@shop.test",
    "shop.test/x",
    "shop.test?x",
    "shop.test#x",
    "shop test",
    "shop\ttest",
    "shop.test, evil.test",
    "shop.test:80x",
    "shop.test:+80",
    "shop.test:80:80",
    "shop.test:123456",
    ":80",
    ":",
    "::1",
    "[::1",
    "::1]",
    "[]",
    "[shop.test]",
    "[::1]80",
    "http://shop.test",
    "shop%2etest",
    "\"shop.test\"",
    "shop.test\\evil.test",
    "sh\u{f6}p.test",
    "shop.test\x00",
];

/// Request lines.
const LINES: &[(u16, &str)] = &[
    (400, "GET x HTTP/1.1"),
    (400, "GET ?x HTTP/1.1"),
    (400, "GET * HTTP/1.1"),
    (400, "GET shop.test:80 HTTP/1.1"),
    (400, "GET  HTTP/1.1"),
    (400, "GET HTTP/1.1"),
    (400, "GET"),
    (400, ""),
    (400, "GET /#x HTTP/1.1"),
    (400, "GET /\u{e4} HTTP/1.1"),
    (400, "GET /\x01 HTTP/1.1"),
    (400, "GET /\x7f HTTP/1.1"),
    (400, "GET /\x00 HTTP/1.1"),
    (400, "GET /a b HTTP/1.1"),
    (400, "GET /a\tb HTTP/1.1"),
    (400, "GET /a\rb HTTP/1.1"),
    (400, "GET  / HTTP/1.1"),
    (400, "GET /  HTTP/1.1"),
    (400, "GET\t/\tHTTP/1.1"),
    (400, " GET / HTTP/1.1"),
    (400, "\rGET / HTTP/1.1"),
    (400, "\nGET / HTTP/1.1"),
    (400, "\r\n\r\n\r\nGET / HTTP/1.1"),
    (400, "GET / HTTP/1.1 "),
    (400, "GET / HTTP/1.1\t"),
    (400, "GET / HTTP/1.1 x"),
    (400, "GET / HTTP/1.1\r"),
    (400, "GET ftp://shop.test/ HTTP/1.1"),
    (400, "GET javascript:alert(1) HTTP/1.1"),
    (400, "GET http:// HTTP/1.1"),
    (400, "GET http:///x HTTP/1.1"),
    (400, "GET http:/x HTTP/1.1"),
    (400, "GET http://user@shop.test/ HTTP/1.1"),
    (400, "GET http://shop.test:x/ HTTP/1.1"),
    (400, "GET http://:80/ HTTP/1.1"),
    (400, "GET http://:/ HTTP/1.1"),
    (400, "GET http://shop.test#x HTTP/1.1"),
    // Legal, and never seen: it would need a target that is not among the bytes.
    (400, "GET http://shop.test?x HTTP/1.1"),
    (400, "GET /"),
    (505, "GET / HTTP/0.9"),
    (505, "GET / HTTP/1.2"),
    (505, "GET / HTTP/2.0"),
    (505, "GET / HTTP/3.0"),
    (400, "GET / HTTP/1.10"),
    (400, "GET / HTTP/01.1"),
    (400, "GET / HTTP/1"),
    (400, "GET / HTTP/11"),
    (400, "GET / HTTP/1,1"),
    (400, "GET / HTTP/+1.1"),
    (400, "GET / HTTPS/1.1"),
    (400, "GET / HTTP /1.1"),
    (400, "GET / http/1.1"),
    (400, "GET / HTTP/1.1\x00"),
    (400, " / HTTP/1.1"),
    (400, "G(T / HTTP/1.1"),
    (400, "G\x00T / HTTP/1.1"),
    (400, "G\u{e4}T / HTTP/1.1"),
    (400, "G:T / HTTP/1.1"),
    (405, "CONNECT shop.test:443 HTTP/1.1"),
    (405, "CONNECT / HTTP/1.1"),
    (405, "CONNECT http://shop.test/ HTTP/1.1"),
    (405, "TRACE / HTTP/1.1"),
    // What an upstream could fold into a method that frames differently.
    (400, "head / HTTP/1.1"),
    (400, "Head / HTTP/1.1"),
    (405, "connect / HTTP/1.1"),
    (405, "Trace / HTTP/1.1"),
];

/// Whole messages that fit no table.
fn whole() -> Vec<(u16, Vec<u8>)> {
    let host = "Host: shop.test\r\n";
    let text = |status, text: String| (status, text.into_bytes());
    vec![
        text(400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        text(400, format!("GET / HTTP/1.1\n{host}\r\n")),
        text(400, format!("GET / HTTP/1.1\r\n{host}\n")),
        text(400, "GET / HTTP/1.1\nHost: shop.test\n\n".to_owned()),
        text(400, "GET / HTTP/1.1\rHost: shop.test\r\r".to_owned()),
        text(400, "\nGET / HTTP/1.0\n\n".to_owned()),
        text(400, format!("GET / HTTP/1.1\r\n {host}\r\n")),
        text(400, format!("POST / HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        text(400, format!("POST / HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello")),
        text(400, "GET /\r\n".to_owned()),
        text(400, "GET /\r\n\r\n".to_owned()),
        text(414, format!("GET /{} HTTP/1.1\r\n{host}\r\n", "x".repeat(8 * 1024))),
        text(414, format!("GET http://shop.test/{} HTTP/1.1\r\n{host}\r\n", "x".repeat(8 * 1024))),
        text(414, format!("GET /{}", "x".repeat(40 * 1024))),
        text(414, "X".repeat(40 * 1024)),
        text(431, format!("GET / HTTP/1.1\r\n{host}X-A: {}\r\n\r\n", "x".repeat(32 * 1024))),
        text(431, format!("GET / HTTP/1.1\r\n{host}X-A: {}", "x".repeat(40 * 1024))),
        text(431, format!("GET / HTTP/1.1\r\n{host}{}\r\n", "X-A: 1\r\n".repeat(100))),
        text(431, format!("GET / HTTP/1.1\r\n{host}{}\r\n", "A:\r\n".repeat(8 * 1024))),
        text(431, format!("GET / HTTP/1.1\r\n{host}{}: 1\r\n\r\n", "X".repeat(33 * 1024))),
        text(400, format!("GET / HTTP/1.1\r\n{host}Connection: {}\r\n\r\n", "a,".repeat(1_000))),
        text(400, "EHLO shop.test\r\n".to_owned()),
        text(400, "SSH-2.0-OpenSSH_9.6\r\n".to_owned()),
        text(400, "{\"method\": \"GET\"}\r\n\r\n".to_owned()),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a hello of TLS on a plain port \r\n\r\n".to_vec()),
        (400, b"\x80\x2e\x01\x00\x02\x00\x15 an older one".to_vec()),
        (400, b"\x00\x00\x00\x00".to_vec()),
        (400, b"\xef\xbb\xbfGET / HTTP/1.1\r\nHost: shop.test\r\n\r\n".to_vec()),
    ]
}

/// Bodies in chunks, each behind a head that is good: what went up already is cut, and never looks complete.
const CHUNKS: &[&str] = &[
    "\r\n0\r\n\r\n",
    "g\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "5\t\r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\rhello\r\n0\r\n\r\n",
    "5\r\rhello\r\n0\r\n\r\n",
    "5,\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello\r0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello!\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\n\r\n",
    "5\r\nhello\r\n0\r\n\n",
    "5\r\nhello\r\n0\r\nX-A: 1\n\r\n",
    "5\r\nhello\r\n0\r\nX-A : 1\r\n\r\n",
    "5\r\nhello\r\n0\r\nX-A\r\n\r\n",
    "5\r\nhello\r\n0\r\nX-A: 1\r\n folded\r\n\r\n",
    "5\r\nhello\r\n0\r\n: 1\r\n\r\n",
    "5\r\nhello\r\n0\r\nX-A: a\x00b\r\n\r\n",
    "5;\nx\r\nhello\r\n0\r\n\r\n",
    "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n",
    "5;a\x00\r\nhello\r\n0\r\n\r\n",
    "5;a\x7f\r\nhello\r\n0\r\n\r\n",
    ";a\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "0000000000000005\r\nhello\r\n0\r\n\r\n",
    "fffffffffffffffffb\r\nhello\r\n0\r\n\r\n",
];

#[test]
fn malformed_heads_are_answered_once_and_reach_nobody() {
    let blue = Upstream::plain("blue");
    let teal = teal(blue.address, "", "");
    let body = format!("\r\n5\r\nhello\r\n0\r\n\r\n{SMUGGLED}");
    let fields = FIELDS.iter().map(|(status, fields)| (*status, "POST / HTTP/1.1", "shop.test", *fields));
    let fields = fields.map(|(status, line, host, fields)| {
        let method = if fields.contains("Upgrade") { line.replace("POST", "GET") } else { line.to_owned() };
        (status, latin1(&format!("{method}\r\nHost: {host}\r\n{fields}{body}")))
    });
    let hosts = HOSTS.iter().map(|host| (400, latin1(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n{SMUGGLED}"))));
    let lines = LINES.iter();
    let lines = lines.map(|(status, line)| (*status, latin1(&format!("{line}\r\nHost: shop.test\r\n{body}"))));
    let whole = whole().into_iter().map(|(status, bytes)| (status, [&bytes[..], SMUGGLED.as_bytes()].concat()));
    let table: Vec<_> = fields.chain(hosts).chain(lines).chain(whole).collect();
    let mut wrong = Vec::new();
    for (status, sent) in &table {
        let got = ask(teal.address, sent);
        let shown = sent[..sent.len().min(120)].escape_ascii();
        if statuses(&got) != [*status] || got.ends_with('>') {
            wrong.push(format!("{status} expected: {shown}\n    {got:?}"));
        }
        if status / 100 == 4 && !got.to_ascii_lowercase().contains("\r\nconnection: close\r\n") {
            wrong.push(format!("does not say that it closes: {shown}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), table.len(), wrong.join("\n"));
    assert!(table.len() >= 200, "{} cases", table.len());
    assert_eq!(blue.count(), 0);
}

#[test]
fn malformed_chunks_end_the_connection_and_are_never_passed_on_as_whole() {
    let blue = Upstream::plain("blue");
    let teal = teal(blue.address, "", "");
    let long_extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(5_000));
    let many_extensions = format!("{}0\r\n\r\n", "1;xxxxxxxx\r\n!\r\n".repeat(600));
    let long_trailer = format!("0\r\nX-A: {}\r\n\r\n", "x".repeat(9_000));
    let many_trailers = format!("0\r\n{}\r\n", "X-A: 1\r\n".repeat(65));
    let long = [&long_extension, &many_extensions, &long_trailer, &many_trailers].map(String::as_str);
    for chunks in CHUNKS.iter().copied().chain(long) {
        let head = "POST /cut HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let got = ask(teal.address, format!("{head}{chunks}{SMUGGLED}").as_bytes());
        assert_eq!(statuses(&got), [400], "{:.100}: {got}", chunks.escape_debug());
    }
    assert_eq!(blue.arrived().len(), 0);
}

#[test]
fn bodies_that_end_early_are_400_and_never_passed_on_as_whole() {
    let blue = Upstream::plain("blue");
    let teal = teal(blue.address, "", "");
    for (fields, part) in [
        ("Content-Length: 10", "short"),
        ("Content-Length: 10", ""),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n"),
        ("Transfer-Encoding: chunked", "5\r\nhel"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\nX-A: 1\r\n"),
        ("Transfer-Encoding: chunked", ""),
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n\r\n{part}");
        assert_eq!(statuses(&ask_and_end(teal.address, head.as_bytes())), [400], "{fields} {part:?}");
    }
    for head in ["G", "GET / HTT", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: shop.test\r\n"] {
        assert_eq!(statuses(&ask_and_end(teal.address, head.as_bytes())), [400], "{head:?}");
    }
    assert_eq!(ask_and_end(teal.address, b""), "", "nothing said, nothing answered");
    assert_eq!(ask_and_end(teal.address, b"\r\n"), "");
    assert_eq!(blue.arrived().len(), 0);
}

#[test]
fn what_stands_behind_a_refused_request_is_read_only_where_its_end_is_certain() {
    let blue = Upstream::plain("blue");
    let teal = teal(blue.address, "hosts: shop.test", "");
    let last = "GET /last HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    // Nobody's host: the request is well-formed, and its body is there.
    let nobody = "POST / HTTP/1.1\r\nHost: nobody.test\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(statuses(&ask(teal.address, format!("{nobody}{last}").as_bytes())), [404, 200]);
    let chunked = "POST / HTTP/1.1\r\nHost: nobody.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(statuses(&ask(teal.address, format!("{chunked}{last}").as_bytes())), [404, 200]);
    // Its body may still come, so what follows could be body.
    let waits = "POST / HTTP/1.1\r\nHost: nobody.test\r\nContent-Length: 500\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(statuses(&ask(teal.address, format!("{waits}{last}").as_bytes())), [404]);
    let broken = "POST / HTTP/1.1\r\nHost: nobody.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n";
    assert_eq!(statuses(&ask(teal.address, format!("{broken}{last}").as_bytes())), [404]);
    let lines: Vec<_> = blue.arrived().into_iter().map(|request| request.line).collect();
    assert_eq!(lines, ["GET /last HTTP/1.1", "GET /last HTTP/1.1"]);
}

#[test]
fn good_requests_before_a_malformed_one_are_answered_in_order() {
    let blue = Upstream::plain("blue");
    let teal = teal(blue.address, "", "");
    let good = "GET /good HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    let bad = "GET /bad HTTP/1.1\r\nHost: shop.test\r\nContent-Length: x\r\n\r\n";
    assert_eq!(statuses(&ask(teal.address, format!("{good}{good}{bad}{SMUGGLED}").as_bytes())), [200, 200, 400]);
    let head = "HEAD /good HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    let got = ask(teal.address, format!("{head}{bad}").as_bytes());
    assert!(got.ends_with(")\n") && statuses(&got)[1] == 400, "an error behind a HEAD has a body: {got:?}");
}

/// Characters past ASCII stand for the byte of their number.
fn latin1(text: &str) -> Vec<u8> {
    let byte = |c: char| u8::try_from(u32::from(c)).ok();
    let encode = |c: char| byte(c).map_or_else(|| c.to_string().into_bytes(), |byte| vec![byte]);
    text.chars().flat_map(encode).collect()
}
