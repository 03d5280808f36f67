//! One request, one answer: heads, bodies, faults and retries between a real client and a real upstream.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::support::teal::Teal;
use super::support::upstream::{Act, Upstream, ok};

#[test]
fn a_request_goes_up_and_its_answer_comes_down_on_kept_connections() {
    let blue = Upstream::plain("blue");
    let teal = Teal::with(&[("blue", &blue.url())], "");
    let mut client = teal.client();
    for _ in 0..20 {
        assert_eq!(client.get("/a?b=c", "").body, "blue");
    }
    assert_eq!(client.post("/p", "hello").body, "blue");
    let arrived = blue.arrived();
    assert_eq!(arrived[0].line, "GET /a?b=c HTTP/1.1");
    assert_eq!((arrived[20].line.as_str(), arrived[20].body.as_slice()), ("POST /p HTTP/1.1", &b"hello"[..]));
    // One more for the health checks' own.
    assert!(blue.connections() <= 4, "{} connections for 21 requests", blue.connections());
}

#[test]
fn forwarding_fields_are_replaced_and_hop_by_hop_fields_dropped() {
    let blue = Upstream::start(|_| {
        Act::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: timeout=5\r\nConnection: x-secret\r\nX-Secret: 1\r\nX-Kept: 1\r\n\r\n".to_vec())
    });
    let teal = Teal::with(&[("blue", &blue.url())], "");
    let spoofed = "X-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
                   Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nX-Mine: kept\r\n";
    let answer = teal.client().get("/", spoofed);
    assert_eq!(
        (answer.header("x-kept"), answer.header("x-secret"), answer.header("keep-alive")),
        (Some("1"), None, None)
    );
    assert_eq!(answer.header("via"), Some("1.1 teal"));
    let request = &blue.arrived()[0];
    let seen = |name| request.header(name);
    assert_eq!(seen("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(
        (seen("x-real-ip"), seen("x-forwarded-proto"), seen("x-forwarded-host")),
        (None, Some("http"), Some("shop.test"))
    );
    assert_eq!((seen("host"), seen("x-mine"), seen("via")), (Some("shop.test"), Some("kept"), Some("1.1 teal")));
    assert_eq!(seen("x-request-id").map(str::len), Some(32));
    for gone in ["x_forwarded_for", "forwarded", "x-hop", "te", "connection"] {
        assert_eq!(seen(gone), None, "{gone}");
    }
}

#[test]
fn a_sane_request_id_is_kept_and_a_wild_one_replaced() {
    let blue = Upstream::plain("blue");
    let teal = Teal::with(&[("blue", &blue.url())], "");
    teal.client().get("/", "X-Request-Id: abc-1\r\n");
    teal.client().get("/", &format!("X-Request-Id: {}\r\n", "x".repeat(200)));
    let ids: Vec<_> = blue.arrived().iter().map(|request| request.header("x-request-id").unwrap().to_owned()).collect();
    assert_eq!((ids[0].as_str(), ids[1].len()), ("abc-1", 32));
}

#[test]
fn bodies_stream_both_ways_in_chunks() {
    let blue = Upstream::start(|_| {
        Act::Answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_vec())
    });
    let teal = Teal::with(&[("blue", &blue.url())], "");
    let mut client = teal.client();
    client.send("POST /up HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client.send("6\r\n world\r\n0\r\n\r\n");
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "abcde"));
    assert_eq!(blue.arrived()[0].body, b"hello world");
    assert_eq!(client.get("/again", "").body, "abcde");
}

#[test]
fn large_bodies_arrive_whole_in_both_directions() {
    let big: &'static str = Box::leak("0123456789abcdef".repeat(1 << 16).into_boxed_str());
    let blue = Upstream::plain(big);
    let teal = Teal::with(&[("blue", &blue.url())], "");
    let mut client = teal.client();
    for _ in 0..3 {
        let answer = client.post("/", big);
        assert_eq!((answer.status, answer.body.len(), answer.body == big), (200, big.len(), true));
    }
    assert!(blue.arrived().iter().all(|request| request.body == big.as_bytes()));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let blue = Upstream::start(|request| Act::Answer(ok(request.line.split(' ').nth(1).unwrap())));
    let teal = Teal::with(&[("blue", &blue.url())], "");
    let mut client = teal.client();
    let request = |path| format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    client.send(&[request("/1"), request("/2"), request("/3")].concat());
    let bodies: Vec<_> = (0..3).map(|_| client.answer().unwrap().body).collect();
    assert_eq!(bodies, ["/1", "/2", "/3"]);
}

#[test]
fn a_head_answer_has_no_body_and_the_connection_goes_on() {
    let blue = Upstream::start(|request| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
        let body = if request.line.starts_with("HEAD") { "" } else { "blue" };
        Act::Answer(format!("{head}{body}").into_bytes())
    });
    let teal = Teal::with(&[("blue", &blue.url())], "");
    let mut client = teal.client();
    client.send(
        "HEAD / HTTP/1.1\r\nHost: shop.test\r\n\r\nGET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n",
    );
    let all = String::from_utf8(std::iter::from_fn(|| client.answer().map(|_| b' ')).take(0).collect()).unwrap();
    assert_eq!(all, "");
    let mut text = String::new();
    while !text.ends_with("blue") {
        text.push(char::from(client.bytes(1)[0]));
    }
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2);
    assert_eq!(text.to_ascii_lowercase().matches("content-length: 4").count(), 2);
}

#[test]
fn the_clients_faults_are_4xx_and_reach_no_upstream() {
    let blue = Upstream::plain("blue");
    let teal = Teal::with(&[("blue", &blue.url())], "hosts: shop.test");
    let table = [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: user@shop.test\r\n\r\n", 400),
        ("CONNECT shop.test:443 HTTP/1.1\r\nHost: shop.test\r\n\r\n", 405),
        ("TRACE / HTTP/1.1\r\nHost: shop.test\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n", 404),
        ("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        ("POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: shop.test\r\nBad Name: x\r\n\r\n", 400),
        ("GARBAGE\r\n\r\n", 400),
    ];
    for (request, status) in table {
        let mut client = teal.client();
        client.send(request);
        assert_eq!(client.answer().map(|answer| answer.status), Some(status), "{request:?}");
    }
    assert_eq!(blue.count(), 0);
}

#[test]
fn two_framings_never_go_up() {
    let blue = Upstream::plain("blue");
    let teal = Teal::with(&[("blue", &blue.url())], "");
    let mut client = teal.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(client.answer().map(|answer| answer.status), Some(400));
    assert_eq!(blue.count(), 0);
}

#[test]
fn the_upstreams_faults_are_5xx_with_an_id_and_no_inside() {
    let blue = Upstream::start(|request| match request.line.split(' ').nth(1) {
        Some("/close") => Act::Close,
        Some("/garbage") => Act::AnswerAndClose(b"nonsense\r\n\r\n".to_vec()),
        Some("/hang") => Act::Hang,
        _ => Act::Answer(ok("fine")),
    });
    let teal = Teal::with(&[("blue", &blue.url())], "timeouts: { head: 100ms }");
    for (path, status) in [("/close", 502), ("/garbage", 502), ("/hang", 504), ("/", 200)] {
        let answer = teal.client().get(path, "X-Request-Id: id-7\r\n");
        assert_eq!(answer.status, status, "{path}");
        if status != 200 {
            assert!(answer.body.contains("id-7") && !answer.body.contains("127.0.0.1"), "{}", answer.body);
        }
    }
}

#[test]
fn a_cut_answer_is_never_delivered_as_complete() {
    let blue = Upstream::start(|request| match request.line.split(' ').nth(1) {
        Some("/length") => Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort".to_vec()),
        _ => Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n".to_vec()),
    });
    let teal = Teal::with(&[("blue", &blue.url())], "");
    for path in ["/length", "/chunked"] {
        let mut client = teal.client();
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
        assert_eq!(client.answer(), None, "{path}");
    }
}

#[test]
fn nobody_listening_is_a_502_and_no_endpoint_a_503() {
    let gone = { Upstream::plain("gone").url() };
    let teal = Teal::with(&[("blue", &gone)], "health: off");
    assert_eq!(teal.client().get("/", "").status, 502);
    let teal = Teal::with(&[("blue", &gone)], "health: { interval: 100ms, timeout: 100ms }");
    teal.until("unhealthy", || teal.client().get("/", "").status == 503);
}

#[test]
fn a_get_that_died_on_a_reused_connection_is_repeated_but_a_post_never() {
    let seen = std::sync::Arc::new(AtomicU64::new(0));
    let counter = std::sync::Arc::clone(&seen);
    // Every second request on a connection dies after it was read.
    let blue = Upstream::start(move |_| match counter.fetch_add(1, SeqCst) % 2 {
        0 => Act::Answer(ok("blue")),
        _ => Act::Close,
    });
    let teal = Teal::with(&[("blue", &blue.url())], "");
    let mut client = teal.client();
    assert_eq!(client.get("/1", "").status, 200);
    assert_eq!(client.get("/2", "").status, 200, "repeated on a fresh connection");
    assert_eq!(blue.count(), 3);
    assert_eq!(client.post("/3", "x").status, 502);
    assert_eq!(blue.count(), 4, "sent once");
}

#[test]
fn a_connection_that_died_while_idle_costs_no_request() {
    let blue = Upstream::plain("blue");
    let teal = Teal::with(&[("blue", &blue.url())], "");
    let mut client = teal.client();
    for _ in 0..20 {
        assert_eq!(client.post("/", "once").status, 200);
        blue.cut();
    }
    assert_eq!(blue.arrived().iter().filter(|request| request.line.starts_with("POST")).count(), 20);
}

#[test]
fn a_dead_endpoint_costs_no_request_while_another_lives() {
    let alive = Upstream::plain("alive");
    let dead = { Upstream::plain("dead").url() };
    let teal = Teal::with(&[("blue", &format!("[{}, {dead}]", alive.url()))], "health: off");
    let mut client = teal.client();
    let statuses: Vec<_> = (0..10).map(|_| client.get("/", "").status).collect();
    assert_eq!(statuses, [200; 10]);
}

#[test]
fn a_websocket_is_tunnelled_only_after_101() {
    let blue = Upstream::start(|request| {
        match request.header("upgrade") {
        Some("websocket") if request.line.contains("/ws") => Act::Echo(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nearly".to_vec(),
        ),
        Some(_) => Act::Answer(ok("refused")),
        None => Act::Answer(ok("plain")),
    }
    });
    let teal = Teal::with(&[("blue", &blue.url())], "");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n";
    let mut client = teal.client();
    client.send(&format!("GET /ws HTTP/1.1\r\nHost: shop.test\r\n{upgrade}\r\n"));
    let answer = client.answer().unwrap();
    assert_eq!(
        (answer.status, answer.header("upgrade"), answer.header("sec-websocket-accept")),
        (101, Some("websocket"), Some("x"))
    );
    assert_eq!(client.bytes(5), b"early");
    for _ in 0..3 {
        client.send("ping");
        assert_eq!(client.bytes(4), b"ping");
    }
    assert_eq!(teal.client().get("/no", upgrade).body, "refused");
    assert_eq!(teal.client().get("/h2c", "Connection: Upgrade\r\nUpgrade: h2c\r\n").body, "plain");
}

#[test]
fn absolute_form_decides_the_host_and_goes_up_as_origin_form() {
    let blue = Upstream::plain("blue");
    let teal = Teal::with(&[("blue", &blue.url())], "hosts: shop.test");
    let mut client = teal.client();
    client.send("GET http://shop.test/x?y=1 HTTP/1.1\r\nHost: evil.test\r\n\r\n");
    assert_eq!(client.answer().unwrap().status, 200);
    assert_eq!(
        (blue.arrived()[0].line.as_str(), blue.arrived()[0].header("host")),
        ("GET /x?y=1 HTTP/1.1", Some("shop.test"))
    );
}

#[test]
fn an_answer_with_an_encoding_beside_a_length_is_not_delivered() {
    let blue = Upstream::start(|_| {
        Act::Answer(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n9\r\nall of it\r\n0\r\n\r\n"
                .to_vec(),
        )
    });
    let teal = Teal::with(&[("blue", &blue.url())], "");
    let answer = teal.client().get("/", "");
    assert_eq!((answer.status, failures(&teal)), (502, 1));
    assert!(!answer.body.contains("all of it"), "{}", answer.body);
}

#[test]
fn a_cut_answer_is_a_reset_for_clients_that_read_to_the_end_of_the_connection() {
    let blue = Upstream::start(|_| {
        Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n".to_vec())
    });
    let teal = Teal::with(&[("blue", &blue.url())], "");
    let mut stream = TcpStream::connect(teal.address).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n").unwrap();
    let end = stream.read_to_end(&mut Vec::new());
    assert_eq!(end.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_get_in_chunks_keeps_its_body() {
    let blue = Upstream::plain("blue");
    let teal = Teal::with(&[("blue", &blue.url())], "");
    let mut client = teal.client();
    client.send("GET /_search HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{q}\r\n0\r\n\r\n");
    assert_eq!(client.answer().map(|answer| answer.status), Some(200));
    assert_eq!(blue.arrived()[0].body, b"{q}");
}

#[test]
fn an_answer_with_trailers_is_complete_and_its_connection_goes_on() {
    let blue = Upstream::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
        Act::Answer(format!("{head}4\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n").into_bytes())
    });
    let teal = Teal::with(&[("blue", &blue.url())], "health: off");
    let mut client = teal.client();
    assert!((0..20).all(|_| client.get("/", "").body == "body"));
    assert_eq!((blue.connections(), in_flight(&teal)), (1, 0));
}

#[test]
fn a_client_that_does_not_read_is_given_up_and_nobody_is_blamed() {
    let big: &'static str = Box::leak("x".repeat(64 << 20).into_boxed_str());
    let blue = Upstream::plain(big);
    let teal = Teal::with(&[("blue", &blue.url())], "timeouts: { idle: 300ms }");
    let mut client = teal.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    teal.until("dispatched", || blue.count() == 1);
    teal.until("given up", || in_flight(&teal) == 0);
    assert_eq!(failures(&teal), 0);
}

#[test]
fn a_client_that_stalls_or_breaks_its_upload_blames_nobody_else() {
    let blue = Upstream::plain("blue");
    let teal = Teal::with(&[("blue", &blue.url())], "timeouts: { head: 200ms }");
    let mut client = teal.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100\r\n\r\nx");
    assert_eq!(client.answer().map(|answer| answer.status), Some(408));
    let mut client = teal.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense\r\n");
    drop(client.answer());
    teal.until("over", || in_flight(&teal) == 0);
    assert_eq!((failures(&teal), blue.count()), (0, 0));
}

#[test]
fn trailers_of_a_request_do_not_carry_what_its_head_may_not() {
    let blue = Upstream::plain("blue");
    let teal = Teal::with(&[("blue", &blue.url())], "");
    let mut client = teal.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.test\r\nTrailer: X-Forwarded-For\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("1\r\nx\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n");
    assert_eq!(client.answer().map(|answer| answer.status), Some(200));
    let request = &blue.arrived()[0];
    assert_eq!((request.header("trailer"), request.header("x-forwarded-for")), (None, Some("127.0.0.1")));
    assert_eq!(client.get("/", "").status, 200, "and the connection to the upstream is in step");
}

fn in_flight(teal: &Teal) -> u64 {
    let shop = teal.running().controller.service("shop").unwrap();
    shop.pools.iter().map(|pool| pool.in_flight).sum()
}

fn failures(teal: &Teal) -> u64 {
    let shop = teal.running().controller.service("shop").unwrap();
    shop.pools.iter().flat_map(|pool| pool.failures).sum()
}

#[test]
fn the_access_log_says_where_a_request_went_or_could_not_go() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let (blue, gone) = (Upstream::plain("blue"), { Upstream::plain("gone").url() });
    let text = format!(
        "version: 1\nlisten: 127.0.0.1:0\nadmin: off\nstate: none\nworkers: 1\naccess_log: {}\nservices:\n  shop: {{ hosts: shop.test, pools: {{ blue: \"{}\" }} }}\n  gone: {{ hosts: gone.test, pools: {{ blue: \"{gone}\" }}, health: {{ interval: 100ms }} }}\n",
        log.display(),
        blue.url()
    );
    let teal = Teal::start(&text);
    assert_eq!(teal.client().get("/a?secret=1", "X-Request-Id: one\r\n").status, 200);
    let unhealthy = || {
        let mut client = teal.client();
        client.send("GET /b HTTP/1.1\r\nHost: gone.test\r\nX-Request-Id: two\r\n\r\n");
        client.answer().unwrap().status == 503
    };
    teal.until("unhealthy", unhealthy);
    drop(teal);
    let lines = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (first, last) = (&lines[0], lines.last().unwrap());
    assert_eq!(
        (&first["path"], &first["status"], &first["bytes"], &first["id"]),
        (&"/a".into(), &200.into(), &4.into(), &"one".into())
    );
    assert_eq!(
        (&first["service"], &first["pool"], &first["reason"]),
        (&"shop".into(), &"blue".into(), &"split".into())
    );
    assert_eq!((&first["endpoint"], &last["service"]), (&blue.url().into(), &"gone".into()));
    assert_eq!(
        (&last["status"], &last["pool"], &last["endpoint"]),
        (&503.into(), &"blue".into(), &serde_json::Value::Null)
    );
}
