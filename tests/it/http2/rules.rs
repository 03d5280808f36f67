//! What breaks a rule, and what the client is told: one connection for each case, and the next is served as ever.

use super::raw::{self, Raw, Told, *};
use super::shop;

type Case = (&'static str, Vec<Vec<u8>>, Told);

/// A `GET` whose pseudo-fields are these.
fn request(fields: &[(&str, &str)]) -> Vec<Vec<u8>> {
    vec![frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(fields))]
}

fn with(more: &[(&str, &str)]) -> Vec<Vec<u8>> {
    vec![raw::get(1, more)]
}

const METHOD: (&str, &str) = GET[0];
const SCHEME: (&str, &str) = GET[1];
const AUTHORITY: (&str, &str) = GET[2];
const PATH: (&str, &str) = GET[3];

/// Heads that mean nothing good.
fn heads() -> Vec<Case> {
    let reset = Told::Reset(PROTOCOL_ERROR);
    let gone = Told::GoAway(PROTOCOL_ERROR);
    let bad = Told::Status(400);
    let path = |path: &'static str| request(&[METHOD, SCHEME, AUTHORITY, (":path", path)]);
    let authority = |authority: &'static str| request(&[METHOD, SCHEME, (":authority", authority), PATH]);
    vec![
        ("no method", request(&[SCHEME, AUTHORITY, PATH]), reset),
        ("no scheme", request(&[METHOD, AUTHORITY, PATH]), reset),
        ("no path", request(&[METHOD, SCHEME, AUTHORITY]), reset),
        ("an empty path", path(""), reset),
        ("no authority", request(&[METHOD, SCHEME, PATH]), bad),
        ("an empty authority", authority(""), reset),
        ("two methods", request(&[METHOD, METHOD, SCHEME, AUTHORITY, PATH]), reset),
        ("two paths", request(&[METHOD, SCHEME, AUTHORITY, PATH, (":path", "/other")]), reset),
        ("a pseudo-field behind a field", request(&[METHOD, SCHEME, AUTHORITY, ("x", "1"), PATH]), reset),
        ("an unknown pseudo-field", request(&[METHOD, SCHEME, AUTHORITY, PATH, (":color", "red")]), gone),
        ("the pseudo-field of answers", request(&[METHOD, SCHEME, AUTHORITY, PATH, (":status", "200")]), reset),
        ("a method with a blank", request(&[(":method", "GET /x"), SCHEME, AUTHORITY, PATH]), gone),
        ("an unknown scheme", request(&[METHOD, (":scheme", "ftp"), AUTHORITY, PATH]), bad),
        ("a path without a slash", path("index.html"), reset),
        ("a path with a blank", path("/a b"), reset),
        ("a path with a line end", path("/a\r\nx: y"), reset),
        ("a path with another character set", path("/caf\u{e9}"), bad),
        ("the path of OPTIONS for GET", path("*"), bad),
        ("an absolute path", path("http://shop.test/"), reset),
        ("an authority with a user", authority("user@shop.test"), bad),
        ("an authority with a blank", authority("shop .test"), reset),
        ("an authority with a path", authority("shop.test/x"), reset),
        ("a host that differs", with(&[("host", "other.test")]), bad),
        ("two hosts", with(&[("host", "shop.test"), ("host", "shop.test")]), bad),
        ("a name in capitals", with(&[("X-Name", "1")]), gone),
        ("a name with a blank", with(&[("x name", "1")]), gone),
        ("a name with a colon", with(&[("x:name", "1")]), gone),
        ("an empty name", with(&[("", "1")]), gone),
        ("a value with a line end", with(&[("x", "1\r\nevil: 1")]), gone),
        ("a value with a bare line feed", with(&[("x", "1\nevil: 1")]), gone),
        ("a value with a zero", with(&[("x", "a\0b")]), gone),
        ("a value with a blank in front", with(&[("x", " 1")]), bad),
        ("a value with a tab behind", with(&[("x", "1\t")]), bad),
        ("connection", with(&[("connection", "close")]), reset),
        ("keep-alive", with(&[("keep-alive", "timeout=5")]), reset),
        ("proxy-connection", with(&[("proxy-connection", "keep-alive")]), reset),
        ("upgrade", with(&[("upgrade", "websocket")]), reset),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), reset),
        ("te with more than trailers", with(&[("te", "gzip")]), reset),
        ("CONNECT", request(&[(":method", "CONNECT"), (":authority", "shop.test:80")]), Told::Status(405)),
        (
            "CONNECT for a websocket",
            request(&[(":method", "CONNECT"), (":protocol", "websocket"), SCHEME, AUTHORITY, PATH]),
            reset,
        ),
        ("TRACE", request(&[(":method", "TRACE"), SCHEME, AUTHORITY, PATH]), Told::Status(405)),
        ("an expectation", with(&[("expect", "a miracle")]), Told::Status(417)),
    ]
}

/// Lengths that do not fit, and frames out of place.
fn bodies_and_frames() -> Vec<Case> {
    let reset = Told::Reset(PROTOCOL_ERROR);
    let gone = Told::GoAway(PROTOCOL_ERROR);
    let posted =
        |length: &str, body: &[u8]| vec![raw::post(1, &[("content-length", length)]), frame(DATA, END_STREAM, 1, body)];
    let fields = block(&GET);
    let open = || raw::post(1, &[]);
    vec![
        ("a body longer than its length", posted("2", b"abc"), reset),
        ("a body shorter than its length", posted("4", b"abc"), reset),
        ("a length that is no number", posted("x", b""), reset),
        ("a length with a sign", posted("+3", b"abc"), reset),
        ("a length with a list", posted("3, 3", b"abc"), reset),
        ("a huge length", posted("99999999999999999999", b"abc"), reset),
        (
            "two lengths that differ",
            vec![raw::post(1, &[("content-length", "3"), ("content-length", "4")]), frame(DATA, END_STREAM, 1, b"abc")],
            reset,
        ),
        (
            "two lengths that agree",
            vec![raw::post(1, &[("content-length", "3"), ("content-length", "3")]), frame(DATA, END_STREAM, 1, b"abc")],
            Told::Status(400),
        ),
        ("a length without a body", with(&[("content-length", "3")]), reset),
        (
            "trailers that do not end the stream",
            vec![open(), frame(HEADERS, END_HEADERS, 1, &block(&[("a", "b")]))],
            reset,
        ),
        (
            "a pseudo-field in trailers",
            vec![open(), frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[(":path", "/")]))],
            Told::Status(200),
        ),
        ("an even stream", vec![frame(HEADERS, END_STREAM | END_HEADERS, 2, &fields)], gone),
        ("stream 0", vec![frame(HEADERS, END_STREAM | END_HEADERS, 0, &fields)], gone),
        ("data on stream 0", vec![frame(DATA, 0, 0, b"abc")], gone),
        ("data on an idle stream", vec![frame(DATA, 0, 1, b"abc")], gone),
        ("a reset of an idle stream", vec![frame(RST_STREAM, 0, 1, &[0; 4])], gone),
        ("a window of an idle stream", vec![frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])], gone),
        ("a window of nothing", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 4])], gone),
        (
            "a window past its largest",
            vec![frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])],
            Told::GoAway(FLOW_CONTROL_ERROR),
        ),
        ("a stream that was passed over", vec![raw::get(5, &[]), raw::get(1, &[])], gone),
        ("a continuation of nothing", vec![frame(CONTINUATION, END_HEADERS, 1, &fields)], gone),
        ("a head that another frame interrupts", vec![frame(HEADERS, 0, 1, &fields), frame(PING, 0, 0, &[0; 8])], gone),
        (
            "a head that continues elsewhere",
            vec![frame(HEADERS, END_STREAM, 1, &fields), frame(CONTINUATION, END_HEADERS, 3, b"")],
            gone,
        ),
        ("a push by the client", vec![frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])], gone),
        ("padding longer than its frame", vec![open(), frame(DATA, 0x8, 1, &[9, 1, 2])], gone),
        ("settings of a stream", vec![frame(SETTINGS, 0, 1, &[])], gone),
        ("settings of an odd size", vec![frame(SETTINGS, 0, 0, &[0; 5])], gone),
        ("settings with an impossible window", vec![frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])], gone),
        ("settings with an impossible frame size", vec![frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])], gone),
        ("a ping of an odd size", vec![frame(PING, 0, 0, &[0; 7])], gone),
        ("a ping of a stream", vec![frame(PING, 0, 1, &[0; 8])], gone),
        ("a header block that is no HPACK", vec![frame(HEADERS, 5, 1, &[0xff; 20])], gone),
        ("a field that was never indexed", vec![frame(HEADERS, 5, 1, &[0x80 | 70])], gone),
        ("a stream that depends on itself", vec![frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0])], reset),
        (
            "a frame larger than allowed",
            vec![raw::post(1, &[]), frame(DATA, 0, 1, &[0; 16_385])],
            Told::GoAway(FRAME_SIZE_ERROR),
        ),
        (
            "a stream's window past its largest",
            vec![open(), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])],
            Told::Reset(FLOW_CONTROL_ERROR),
        ),
    ]
}

/// What looks odd and is legal.
fn odd() -> Vec<Case> {
    let fine = Told::Status(200);
    let fields = block(&GET);
    let (front, back) = fields.split_at(10);
    vec![
        ("a head in two frames", vec![frame(HEADERS, 1, 1, front), frame(CONTINUATION, 4, 1, back)], fine),
        ("padding", vec![frame(HEADERS, 0x8 | 5, 1, &[&[3], &fields[..], &[0; 3]].concat())], fine),
        ("priority in the head", vec![frame(HEADERS, 0x20 | 5, 1, &[&[0, 0, 0, 0, 16], &fields[..]].concat())], fine),
        ("an unknown frame", vec![frame(0xbe, 0xff, 0, b"grease"), raw::get(1, &[])], fine),
        ("unknown settings", vec![frame(SETTINGS, 0, 0, &[0xca, 0xfe, 0, 0, 0, 1]), raw::get(1, &[])], fine),
        ("streams left out", vec![raw::get(77, &[])], fine),
        ("the same host twice said", with(&[("host", "SHOP.test")]), fine),
        ("te: trailers", with(&[("te", "trailers")]), fine),
        ("an unknown method", request(&[(":method", "PURGE"), SCHEME, AUTHORITY, PATH]), fine),
        ("options of the whole server", request(&[(":method", "OPTIONS"), SCHEME, AUTHORITY, (":path", "*")]), fine),
        ("a body of nothing", vec![raw::post(1, &[]), frame(DATA, END_STREAM, 1, b"")], fine),
        ("http2-settings", with(&[("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA")]), fine),
        ("a fragment", request(&[METHOD, SCHEME, AUTHORITY, (":path", "/#top")]), fine),
    ]
}

#[test]
fn every_breach_is_told_as_it_should_and_the_next_client_is_served() {
    let (blue, teal) = shop();
    let table: Vec<Case> = [heads(), bodies_and_frames(), odd()].into_iter().flatten().collect();
    assert!(table.len() >= 80, "{}", table.len());
    let mut wrong = Vec::new();
    for (name, frames, expected) in table {
        let mut client = Raw::connect(teal.address);
        let stream = if name == "streams left out" { 77 } else { 1 };
        client.send(&frames.concat());
        let told = client.told(stream);
        if told != expected {
            wrong.push(format!("{name}: {told:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(teal.client().get("/", "").body, "blue");
    let evil = |line: &String| line.to_ascii_lowercase().contains("evil");
    assert!(!blue.arrived().iter().any(|request| request.headers.iter().any(evil)), "something was smuggled");
}

#[test]
fn what_is_not_the_preface_is_no_http_2() {
    let (_blue, teal) = shop();
    let mut broken = PREFACE.to_vec();
    broken[20] = b'X';
    let mut client = Raw::silent(teal.address);
    client.send(&broken);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut client.stream, &mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 400 ") || text.starts_with("HTTP/1.1 505 "), "{text}");
}

#[test]
fn a_preface_may_come_byte_by_byte() {
    let (_blue, teal) = shop();
    let mut client = Raw::silent(teal.address);
    for byte in [PREFACE, &frame(SETTINGS, 0, 0, &[]), &raw::get(1, &[])].concat() {
        client.send(&[byte]);
    }
    assert_eq!(client.told(1), Told::Status(200));
}

#[test]
fn a_preface_without_settings_is_refused() {
    let (_blue, teal) = shop();
    let mut client = Raw::silent(teal.address);
    client.send(&[PREFACE, &raw::get(1, &[])[..]].concat());
    let told = client.told(1);
    // RFC 9113 section 3.4 asks for a connection error; being served is the worst that may happen otherwise.
    assert!(matches!(told, Told::GoAway(_) | Told::Status(200)), "{told:?}");
}
