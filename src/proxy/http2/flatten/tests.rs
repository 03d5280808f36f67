//! What becomes of heads on the way in and out, and what is refused.

use proptest::prelude::*;

use super::*;
use crate::proxy::head::Span;
use crate::proxy::proxy_protocol::{Ends, LOCAL};

const LIMIT: usize = 20;

fn parts(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> Parts {
    let mut request = http::Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    request.body(()).unwrap().into_parts().0
}

/// Flattens a request without a body into lines as HTTP/1.1 would show them.
fn lines(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> Result<Vec<String>, u16> {
    let mut head = RequestHead::default();
    request(parts(method, uri, fields), true, LIMIT, &mut head).map_err(Fault::status)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let first = format!("{} {} {}", text(head.method()), text(head.target()), text(head.host()));
    let fields = head.fields().iter().map(|(name, value, _)| format!("{}: {}", text(name), text(value)));
    Ok(std::iter::once(first).chain(fields).collect())
}

#[test]
fn heads_become_what_http_1_would_have_sent() {
    type Case<'a> = (&'a str, &'a str, &'a [(&'static str, &'a str)], &'a [&'a str]);
    let table: &[Case<'_>] = &[
        ("GET", "http://shop/a?b=c", &[], &["GET /a?b=c shop"]),
        ("GET", "https://shop:8443/", &[("accept", "*/*")], &["GET / shop:8443", "accept: */*"]),
        ("GET", "/a", &[("host", "shop")], &["GET /a shop"]),
        ("GET", "http://Shop/", &[("host", "sHOP")], &["GET / Shop"]),
        ("PURGE", "http://[::1]:80/x", &[], &["PURGE /x [::1]:80"]),
        ("GET", "http://a/", &[("x", "1"), ("y", "2"), ("x", "3")], &["GET / a", "x: 1", "x: 3", "y: 2"]),
        ("GET", "http://a/", &[("x-empty", "")], &["GET / a", "x-empty: "]),
        ("GET", "http://a/", &[("x", "caf\u{e9}")], &["GET / a", "x: caf\u{e9}"]),
        (
            "GET",
            "http://a/",
            &[("cookie", "a=1"), ("z", "0"), ("cookie", "b=2"), ("cookie", "c=3")],
            &["GET / a", "cookie: a=1; b=2; c=3", "z: 0"],
        ),
    ];
    for (method, uri, fields, expected) in table {
        assert_eq!(lines(method, uri, fields).unwrap(), *expected, "{method} {uri} {fields:?}");
    }
}

#[test]
fn the_whole_server_may_be_asked_for_its_options() {
    let mut parts = parts("OPTIONS", "http://a/", &[("host", "a")]);
    parts.uri = http::Uri::from_static("*");
    let mut head = RequestHead::default();
    assert!(request(parts, true, LIMIT, &mut head).is_ok());
    assert_eq!((head.target(), head.host()), (&b"*"[..], &b"a"[..]));
}

#[test]
fn what_http_1_would_refuse_is_refused() {
    let long = format!("http://a/{}", "x".repeat(MAX_TARGET));
    type Case<'a> = (&'a str, &'a str, &'a [(&'static str, &'a str)], u16);
    let many = [("x", "1"); LIMIT + 1];
    let crumbs = [("cookie", "a=1"); LIMIT + 1];
    let table: &[Case<'_>] = &[
        ("CONNECT", "a:80", &[], 405),
        ("TRACE", "http://a/", &[], 405),
        ("GET", "ftp://a/", &[], 400),
        ("GET", "/", &[], 400),
        ("GET", "*", &[("host", "a")], 400),
        ("GET", "http://user@a/", &[], 400),
        // Legal, and nobody's.
        ("GET", "/", &[("host", "")], 200),
        ("GET", "/", &[("host", "a b")], 400),
        ("GET", "/", &[("host", "a/b")], 400),
        ("GET", "/", &[("host", "a"), ("host", "a")], 400),
        ("GET", "http://a/", &[("host", "b")], 400),
        ("GET", "http://a/", &[("host", "a:80")], 400),
        ("GET", "http://a/caf\u{e9}", &[], 400),
        ("GET", "http://a/\"", &[], 200),
        ("GET", &long, &[], 414),
        ("GET", "http://a/", &many, 431),
        ("GET", "http://a/", &crumbs, 431),
        ("GET", "http://a/", &[("x", " 1")], 400),
        ("GET", "http://a/", &[("x", "1\t")], 400),
        ("GET", "http://a/", &[("content-length", "5"), ("content-length", "5")], 400),
        ("GET", "http://a/", &[("content-length", "+5")], 400),
        ("GET", "http://a/", &[("content-length", "")], 400),
        ("GET", "http://a/", &[("content-length", "5")], 400),
        ("GET", "http://a/", &[("transfer-encoding", "chunked")], 400),
        ("GET", "http://a/", &[("expect", "100-continue"), ("expect", "100-continue")], 417),
        ("GET", "http://a/", &[("expect", "a miracle")], 417),
    ];
    for (method, uri, fields, expected) in table {
        let status = lines(method, uri, fields).err().unwrap_or(200);
        assert_eq!(status, *expected, "{method} {uri:.40} {fields:?}");
    }
}

#[test]
fn bodies_are_framed_by_length_or_by_the_stream() {
    type Case = (bool, &'static [(&'static str, &'static str)], Framing, bool);
    let table: &[Case] = &[
        (true, &[], Framing::None, false),
        (true, &[("content-length", "0")], Framing::Length(0), false),
        (false, &[], Framing::Chunked, false),
        (false, &[("content-length", "7")], Framing::Length(7), false),
        (false, &[("content-length", "0")], Framing::Length(0), false),
        (false, &[("expect", "100-Continue")], Framing::Chunked, true),
        (true, &[("expect", "100-continue")], Framing::None, false),
    ];
    for (is_over, fields, framing, expects_continue) in table {
        let asked = request(parts("POST", "http://a/", fields), *is_over, LIMIT, &mut RequestHead::default());
        let expected = Asked { framing: *framing, expects_continue: *expects_continue };
        assert_eq!(asked, Ok(expected), "{is_over} {fields:?}");
    }
}

/// An upstream's head of these fields.
fn upstream(status: u16, fields: &[(&str, &str)], check: impl FnOnce(ResponseHead<'_>)) {
    let mut head = RequestHead::default();
    for (name, value) in fields {
        let (name_span, value) = (head.push(name.as_bytes()), head.push(value.as_bytes()));
        head.list.push(Field { name: name_span, value, known: Known::of(name.as_bytes()) });
    }
    check(ResponseHead { status, version: Version::Http11, fields: head.fields() });
}

#[test]
fn an_answer_keeps_its_fields_but_for_those_of_the_connection() {
    let fields = [
        ("Content-Type", "text/html"),
        ("Set-Cookie", "a=1"),
        ("Connection", "close"),
        ("Keep-Alive", "timeout=5"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "9"),
        ("Set-Cookie", "b=2"),
        ("Upgrade", "h2c"),
        ("Trailer", "grpc-status"),
    ];
    upstream(201, &fields, |head| {
        let ends = Ends { client: LOCAL, destination: None };
        let mut additions = Additions::default();
        additions.cookie = Some("teal=1".to_owned());
        let response =
            response(head, Some(HeaderValue::from(12u64)), &Client::new(ends, None), &additions, &Names::default());
        let lines = response.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        let mut lines: Vec<_> = lines.collect();
        lines.sort();
        let expected = [
            "content-length: 12",
            "content-type: text/html",
            "set-cookie: a=1",
            "set-cookie: b=2",
            "set-cookie: teal=1",
            "trailer: grpc-status",
            "via: 1.1 teal",
        ];
        assert_eq!((response.status().as_u16(), &lines[..]), (201, &expected.map(str::to_owned)[..]));
    });
}

#[test]
fn trailers_pass_both_ways_but_for_those_that_frame_or_route() {
    let mut map = HeaderMap::new();
    for (name, value) in [("grpc-status", "0"), ("content-length", "1"), ("host", "evil"), ("x", "a"), ("x", "b")] {
        append(&mut map, name.as_bytes(), value.as_bytes());
    }
    let (mut bytes, mut list) = (Vec::new(), Vec::new());
    trailers(&map, &mut bytes, &mut list);
    let down = trailers_down(Fields { bytes: &bytes, list: &list });
    let names: Vec<_> = down.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
    assert_eq!(names, ["grpc-status=0", "x=a", "x=b"]);
}

fn token() -> impl Strategy<Value = String> {
    "[a-z0-9!#$%&'*+.^_`|~-]{1,12}"
}

/// A value as `h2` lets it through: any byte but control characters, tabs excepted.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(b'\t'), 0x20u8..0x7f, 0x80u8..], 0..20)
}

proptest! {
    /// Whatever `h2` hands over, a head that is accepted cannot be read as another by an HTTP/1.1 parser.
    #[test]
    fn an_accepted_head_reads_back_as_the_same_in_http_1(
        method in "[A-Z]{1,7}",
        path in "[!-~]{0,30}",
        fields in prop::collection::vec((token(), value()), 0..10),
        is_over in any::<bool>(),
    ) {
        let uri = http::Uri::builder().scheme("http").authority("shop.test").path_and_query(format!("/{path}"));
        let Ok(uri) = uri.build() else { return Ok(()) };
        let mut request_parts = parts("GET", "http://a/", &[]);
        request_parts.method = method.parse().unwrap();
        request_parts.uri = uri;
        fields.iter().for_each(|(name, value)| append(&mut request_parts.headers, name.as_bytes(), value));
        let mut head = RequestHead::default();
        let Ok(asked) = request(request_parts, is_over, LIMIT, &mut head) else { return Ok(()) };
        let mut text = head.method().to_vec();
        let mut put = |part: &[u8]| text.extend_from_slice(part);
        put(b" ");
        put(head.target());
        put(b" HTTP/1.1\r\nhost: ");
        put(head.host());
        for (name, value, _) in head.fields().iter() {
            put(b"\r\n");
            put(name);
            put(b": ");
            put(value);
        }
        put(b"\r\n\r\n");
        let mut again = RequestHead::default();
        let limits = parse::Limits { bytes: 1 << 20, fields: 100 };
        let parsed = parse::request(&text, limits, &mut again).unwrap().unwrap();
        prop_assert_eq!(parsed.length, text.len());
        prop_assert_eq!(head.method(), again.method.of(&text));
        prop_assert_eq!(head.target(), again.target.of(&text));
        let read: Vec<_> = again.list.iter().skip(1).map(|f| (f.name.of(&text), f.value.of(&text))).collect();
        let wrote: Vec<_> = head.fields().iter().map(|(name, value, _)| (name, value)).collect();
        prop_assert_eq!(read, wrote);
        if let Framing::Length(_) = asked.framing {
            prop_assert_eq!(parsed.framing, asked.framing);
        }
    }

    /// Every span lies within the bytes, whatever the trailers.
    #[test]
    fn trailers_never_panic(fields in prop::collection::vec((token(), value()), 0..20)) {
        let mut map = HeaderMap::new();
        fields.iter().for_each(|(name, value)| append(&mut map, name.as_bytes(), value));
        let (mut bytes, mut list) = (Vec::new(), Vec::new());
        trailers(&map, &mut bytes, &mut list);
        let total: usize = list.iter().map(|field: &Field| field.name.len() + field.value.len()).sum();
        prop_assert_eq!((total, list.len()), (bytes.len(), map.len()));
        prop_assert_eq!(Span::default().of(&bytes), b"");
    }
}

#[test]
fn a_method_that_an_upstream_could_take_for_another_is_refused_as_over_http_1() {
    for (method, status) in [("connect", 405), ("Connect", 405), ("trace", 405), ("head", 400), ("Head", 400)] {
        assert_eq!(lines(method, "http://a/", &[]), Err(status), "{method}");
    }
    assert!(lines("HEAD", "http://a/", &[]).is_ok() && lines("get", "http://a/", &[]).is_ok());
}
