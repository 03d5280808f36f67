//! HTTP/2 clients in front: requests, bodies both ways, windows, trailers, refusals, and how connections end.

mod floods;
pub mod peer;
mod raw;
mod rules;

use std::io::{BufReader, Write};
use std::sync::{Arc, Barrier};

use bytes::Bytes;
use h2::Reason;
use h2::client::Builder;
use http::{HeaderMap, HeaderValue, Request};

use super::support::client::Client;
use super::support::teal::{Teal, shop_text};
use super::support::upstream::{Act, Upstream, ok};
use peer::{Peer, Stage, chunk, get, head, post, run, upload, whole};
use raw::{Raw, Told};

/// An upstream that answers everything, and a Teal in front of it.
fn shop() -> (Upstream, Teal) {
    let blue = Upstream::plain("blue");
    let teal = Teal::with(&[("blue", &blue.url())], "health: off");
    (blue, teal)
}

/// A Teal with one pool, limits of client connections, and more lines under the service.
fn limited(url: &str, client: &str, more: &str) -> Teal {
    let text = shop_text("none", &[("blue", url)], &format!("health: off\n{more}"));
    Teal::start(&text.replace("services:", &format!("client: {{ {client} }}\nservices:")))
}

/// The value of one series.
fn metric(teal: &Teal, series: &str) -> u64 {
    let text = teal.admin().order("GET", "/metrics", "", "").body;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse::<f64>().unwrap() as u64
}

#[test]
fn a_request_goes_up_as_http_1_and_its_answer_comes_down() {
    let blue = Upstream::start(|_| {
        Act::Answer(
            b"HTTP/1.1 201 Created\r\nX-A: 1\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 4\r\n\r\nblue"
                .to_vec(),
        )
    });
    let teal = Teal::with(&[("blue", &blue.url())], "health: off");
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        let answer = peer.get("/a?b=c").await;
        assert_eq!((answer.status, answer.text()), (201, "blue"));
        assert_eq!(
            (answer.header("x-a"), answer.header("x-hop"), answer.header("connection")),
            (Some("1"), None, None)
        );
        assert_eq!((answer.header("via"), answer.header("content-length")), (Some("1.1 teal"), Some("4")));
        for _ in 0..20 {
            assert_eq!(peer.get("/").await.text(), "blue");
        }
    });
    let request = &blue.arrived()[0];
    assert_eq!(request.line, "GET /a?b=c HTTP/1.1");
    assert_eq!((request.header("host"), request.header("via")), (Some("shop.test"), Some("2.0 teal")));
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.header("x-request-id").map(str::len), Some(32));
    assert_eq!(blue.connections(), 1, "one after the other on one connection");
    assert_eq!(metric(&teal, "teal_http2_connections_total"), 1);
}

#[test]
fn one_port_speaks_both() {
    let (_blue, teal) = shop();
    assert_eq!(
        teal.client()
            .get("/", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n")
            .status,
        200
    );
    run(async { assert_eq!(Peer::connect(teal.address).await.get("/").await.status, 200) });
}

#[test]
fn cookie_crumbs_and_forwarding_fields_are_put_right() {
    let (blue, teal) = shop();
    run(async {
        let mut request = get("/");
        for (name, value) in [
            ("cookie", "a=1"),
            ("x-forwarded-for", "6.6.6.6"),
            ("cookie", "b=2"),
            ("x_forwarded_for", "6.6.6.6"),
            ("cookie", "c=3"),
            ("te", "trailers"),
            ("x-list", "1"),
            ("x-list", "2"),
        ] {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        assert_eq!(Peer::connect(teal.address).await.ask(request, b"").await.unwrap().status, 200);
    });
    let request = &blue.arrived()[0];
    assert_eq!(
        (request.header("cookie"), request.header("x-forwarded-for")),
        (Some("a=1; b=2; c=3"), Some("127.0.0.1"))
    );
    assert_eq!((request.header("x_forwarded_for"), request.header("te")), (None, None));
    assert_eq!(request.headers.iter().filter(|line| line.starts_with("x-list: ")).count(), 2);
}

#[test]
fn bodies_go_up_by_length_or_in_chunks() {
    let (blue, teal) = shop();
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        let mut sized = post("/sized");
        sized.headers_mut().insert("content-length", HeaderValue::from_static("5"));
        assert_eq!(peer.ask(sized, b"hello").await.unwrap().status, 200);
        assert_eq!(peer.ask(post("/open"), b"world").await.unwrap().status, 200);
    });
    let arrived = blue.arrived();
    assert_eq!((arrived[0].header("content-length"), &arrived[0].body[..]), (Some("5"), &b"hello"[..]));
    assert_eq!((arrived[1].header("transfer-encoding"), &arrived[1].body[..]), (Some("chunked"), &b"world"[..]));
}

#[test]
fn a_hundred_streams_are_served_at_once_and_no_more() {
    let gate = Arc::new(Barrier::new(100));
    let inside = Arc::clone(&gate);
    let blue = Upstream::start(move |_| {
        inside.wait();
        Act::Answer(ok("blue"))
    });
    let teal = Teal::with(&[("blue", &blue.url())], "health: off");
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        let mut answers = Vec::new();
        for _ in 0..100 {
            answers.push(peer.begin(get("/"), true).await.0);
        }
        for answer in answers {
            assert_eq!(whole(answer.await.unwrap()).await.unwrap().text(), "blue");
        }
        assert_eq!(peer.send.current_max_send_streams(), 100);
    });
    assert_eq!(blue.count(), 100);
}

#[test]
fn both_bodies_stream_at_the_same_time() {
    let echo = Stage::play(|stream| {
        let mut input = BufReader::new(stream.try_clone().unwrap());
        let mut out = stream;
        if head(&mut input).is_none() {
            return;
        }
        out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        while let Some(piece) = chunk(&mut input) {
            out.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
            out.write_all(&piece).unwrap();
            out.write_all(b"\r\n").unwrap();
            if piece.is_empty() {
                return;
            }
        }
    });
    let teal = Teal::with(&[("blue", &echo.url())], "health: off");
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        let (answer, mut up) = peer.begin(post("/"), false).await;
        let mut down = answer.await.unwrap().into_body();
        for word in ["one", "two", "three"] {
            up.send_data(Bytes::from_static(word.as_bytes()), false).unwrap();
            assert_eq!(down.data().await.unwrap().unwrap(), word);
            down.flow_control().release_capacity(word.len()).unwrap();
        }
        up.send_data(Bytes::new(), true).unwrap();
        assert!(down.data().await.is_none_or(|last| last.unwrap().is_empty()));
    });
}

#[test]
fn large_bodies_pass_small_windows_both_ways() {
    const SIZE: usize = 4 * 1024 * 1024;
    let pattern = |at: usize| ((at * 31) >> 3) as u8;
    let body: Vec<u8> = (0..SIZE).map(pattern).collect();
    let answer = [format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes(), &body].concat();
    let blue = Upstream::start(move |_| Act::Answer(answer.clone()));
    let teal = Teal::with(&[("blue", &blue.url())], "health: off");
    run(async {
        let mut peer = Peer::with(teal.address, Builder::new().initial_window_size(1_000)).await;
        let (answer, mut up) = peer.begin(post("/"), false).await;
        upload(&mut up, Bytes::from(body.clone())).await.unwrap();
        let answer = whole(answer.await.unwrap()).await.unwrap();
        assert!(answer.body == body, "{} bytes came down", answer.body.len());
    });
    assert!(blue.arrived()[0].body == body, "{} bytes went up", blue.arrived()[0].body.len());
}

#[test]
fn trailers_pass_both_ways() {
    let stage = Stage::play(|stream| {
        let mut input = BufReader::new(stream.try_clone().unwrap());
        let mut out = stream;
        if head(&mut input).is_none() {
            return;
        }
        while chunk(&mut input).is_some_and(|piece| !piece.is_empty()) {}
        let trailers = head(&mut input).unwrap().join(",");
        let answer = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{trailers}\r\n0\r\nGrpc-Status: 0\r\nContent-Length: 9\r\n\r\n",
            trailers.len()
        );
        out.write_all(answer.as_bytes()).unwrap();
    });
    let teal = Teal::with(&[("blue", &stage.url())], "health: off");
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        let (answer, mut up) = peer.begin(post("/"), false).await;
        up.send_data(Bytes::from_static(b"body"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("abc"));
        trailers.insert("authorization", HeaderValue::from_static("evil"));
        up.send_trailers(trailers).unwrap();
        let answer = whole(answer.await.unwrap()).await.unwrap();
        assert_eq!(answer.text(), "x-sum: abc");
        let trailers = answer.trailers.unwrap();
        assert_eq!((trailers.len(), trailers["grpc-status"].to_str().unwrap()), (1, "0"));
    });
}

#[test]
fn some_answers_have_no_body() {
    let blue = Upstream::start(|request| {
        Act::Answer(match request.line.split(' ').nth(1).unwrap() {
            "/204" => b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n".to_vec(),
            "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n".to_vec(),
            "/empty" => ok(""),
            // To HEAD, without the body.
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n".to_vec(),
        })
    });
    let teal = Teal::with(&[("blue", &blue.url())], "health: off");
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        let table = [
            ("GET", "/204", 204, None),
            ("GET", "/304", 304, Some("7")),
            ("GET", "/empty", 200, Some("0")),
            ("HEAD", "/", 200, Some("7")),
        ];
        for (method, path, status, length) in table {
            let request = Request::builder().method(method).uri(format!("http://shop.test{path}")).body(()).unwrap();
            let answer = peer.ask(request, b"").await.unwrap();
            let seen = (answer.status, answer.header("content-length"), answer.body.len());
            assert_eq!(seen, (status, length, 0), "{method} {path}");
        }
    });
    assert_eq!(blue.connections(), 1);
}

#[test]
fn interim_answers_come_before_the_final_one() {
    let stage = Stage::play(|stream| {
        let mut input = BufReader::new(stream.try_clone().unwrap());
        let mut out = stream;
        let Some(lines) = head(&mut input) else { return };
        assert!(lines.iter().any(|line| line == "expect: 100-continue"), "{lines:?}");
        out.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").unwrap();
        assert_eq!(chunk(&mut input).unwrap(), b"body");
        out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    let teal = Teal::with(&[("blue", &stage.url())], "health: off");
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        let mut request = post("/");
        request.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
        let (mut answer, mut up) = peer.begin(request, false).await;
        let mut interim = async || std::future::poll_fn(|cx| answer.poll_informational(cx)).await.unwrap().unwrap();
        let hints = interim().await;
        assert_eq!((hints.status().as_u16(), hints.headers()["link"].to_str().unwrap()), (103, "</a.css>"));
        assert_eq!(interim().await.status().as_u16(), 100);
        up.send_data(Bytes::from_static(b"body"), true).unwrap();
        assert_eq!(whole(answer.await.unwrap()).await.unwrap().text(), "ok");
    });
}

#[test]
fn teal_answers_by_itself_where_no_upstream_can() {
    let (blue, teal) = shop();
    let text = shop_text("none", &[("blue", &blue.url())], "health: off\nhosts: [shop.test]");
    let picky = Teal::start(&text);
    run(async {
        let mut peer = Peer::connect(picky.address).await;
        let stranger = Request::get("http://nobody.test/").body(()).unwrap();
        let answer = peer.ask(stranger, b"").await.unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (404, Some("text/plain; charset=utf-8")));
        assert!(answer.text().starts_with("404 no service for this host and path (request "), "{}", answer.text());
        let quiet = Request::head("http://nobody.test/").body(()).unwrap();
        let answer = peer.ask(quiet, b"").await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (404, 0));
        let trace = Request::builder().method("TRACE").uri("http://shop.test/").body(()).unwrap();
        let answer = peer.ask(trace, b"").await.unwrap();
        assert_eq!((answer.status, answer.header("allow").is_some()), (405, true));
        let mut many = get("/");
        for _ in 0..101 {
            many.headers_mut().append("cookie", HeaderValue::from_static("a=b"));
        }
        assert_eq!(peer.ask(many, b"").await.unwrap().status, 431);
        let mut large = get("/");
        large.headers_mut().insert("x", HeaderValue::from_str(&"x".repeat(40_000)).unwrap());
        assert_eq!(peer.ask(large, b"").await.unwrap().status, 431);
        let long = get(&format!("/{}", "x".repeat(9_000)));
        assert_eq!(peer.ask(long, b"").await.unwrap().status, 414);
        // None of these ended the connection.
        assert_eq!(peer.get("/").await.text(), "blue");
    });
    blue.crash();
    run(async { assert_eq!(Peer::connect(teal.address).await.get("/").await.status, 502) });
}

#[test]
fn a_refused_upload_is_answered_and_then_stopped() {
    let (_blue, teal) = shop();
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        let trace = Request::builder().method("TRACE").uri("http://shop.test/").body(()).unwrap();
        let (answer, mut up) = peer.begin(trace, false).await;
        assert_eq!(whole(answer.await.unwrap()).await.unwrap().status, 405);
        let stopped = std::future::poll_fn(|cx| up.poll_reset(cx)).await.unwrap();
        assert_eq!(stopped, Reason::NO_ERROR, "RFC 9113 section 8.1");
        assert_eq!(peer.get("/").await.text(), "blue");
    });
}

#[test]
fn an_answer_that_the_upstream_cut_ends_in_a_reset() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let blue = Upstream::start(move |request| match request.line.as_str() {
            "GET /cut HTTP/1.1" => Act::AnswerAndClose(answer.to_vec()),
            _ => Act::Answer(ok("blue")),
        });
        let teal = Teal::with(&[("blue", &blue.url())], "health: off");
        run(async {
            let mut peer = Peer::connect(teal.address).await;
            let (cut, _) = peer.begin(get("/cut"), true).await;
            let error = whole(cut.await.unwrap()).await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
            // The connection and its other streams live on.
            assert_eq!(peer.get("/").await.text(), "blue");
        });
        assert_eq!(metric(&teal, "teal_pool_failures_total{service=\"shop\",pool=\"blue\",kind=\"truncated\"}"), 1);
    }
}

#[test]
fn a_client_that_resets_its_streams_is_nobodys_fault() {
    let blue = Upstream::start(|request| match request.line.as_str() {
        "GET /hang HTTP/1.1" => Act::Hang,
        "GET /half HTTP/1.1" => Act::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc".to_vec()),
        _ => Act::Answer(ok("blue")),
    });
    let teal = Teal::with(&[("blue", &blue.url())], "health: off");
    let in_flight = "teal_pool_in_flight{service=\"shop\",pool=\"blue\"}";
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        let (answer, mut up) = peer.begin(get("/hang"), true).await;
        while blue.count() == 0 {
            // The driver of this connection runs on this thread, too.
            tokio::task::yield_now().await;
        }
        assert_eq!(metric(&teal, in_flight), 1);
        up.send_reset(Reason::CANCEL);
        drop(answer);
        let (answer, mut up) = peer.begin(get("/half"), true).await;
        let half = answer.await.unwrap();
        up.send_reset(Reason::CANCEL);
        drop(half);
        let (answer, mut up) = peer.begin(post("/upload"), false).await;
        up.send_data(Bytes::from_static(b"some"), false).unwrap();
        up.send_reset(Reason::CANCEL);
        drop(answer);
        assert_eq!(peer.get("/").await.text(), "blue");
        while metric(&teal, in_flight) != 0 {
            tokio::task::yield_now().await;
        }
    });
    let text = teal.admin().order("GET", "/metrics", "", "").body;
    let failures: Vec<_> = text.lines().filter(|line| line.starts_with("teal_pool_failures_total{")).collect();
    assert!(failures.iter().all(|line| line.ends_with(" 0")), "{failures:?}");
}

#[test]
fn the_end_of_a_connection_ends_its_streams() {
    let blue = Upstream::start(|_| Act::Hang);
    let teal = Teal::with(&[("blue", &blue.url())], "health: off");
    let in_flight = "teal_pool_in_flight{service=\"shop\",pool=\"blue\"}";
    let mut client = Raw::connect(teal.address);
    client.send(&[raw::get(1, &[]), raw::get(3, &[])].concat());
    teal.until("both hang", || blue.count() == 2);
    assert_eq!(metric(&teal, in_flight), 2);
    drop(client);
    teal.until("nothing is in flight", || metric(&teal, in_flight) == 0);
}

#[test]
fn a_shutdown_finishes_open_streams_and_says_goodbye() {
    let gate = Arc::new(Barrier::new(2));
    let inside = Arc::clone(&gate);
    let blue = Upstream::start(move |_| {
        inside.wait();
        inside.wait();
        Act::Answer(ok("blue"))
    });
    let teal = Teal::with(&[("blue", &blue.url())], "health: off");
    let address = teal.address;
    run(async {
        let mut peer = Peer::connect(address).await;
        let (answer, _) = peer.begin(get("/"), true).await;
        tokio::task::spawn_blocking({
            let gate = Arc::clone(&gate);
            move || {
                gate.wait();
            }
        })
        .await
        .unwrap();
        let ending = std::thread::spawn(move || teal.shutdown());
        // The GOAWAY is what tells: no stream can be begun any more.
        while peer.send.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
        gate.wait();
        assert_eq!(whole(answer.await.unwrap()).await.unwrap().text(), "blue");
        peer.closed().await.unwrap();
        ending.join().unwrap();
    });
}

#[test]
fn idle_connections_are_closed_politely() {
    let blue = Upstream::plain("blue");
    let teal = limited(&blue.url(), "keep_alive: 100ms", "");
    let mut client = Raw::connect(teal.address);
    client.send(&raw::get(1, &[]));
    assert_eq!(client.told(1), Told::Status(200));
    assert_eq!(client.ended(), Some(0));
    assert_eq!(metric(&teal, "teal_client_connections_closed_total{reason=\"keep_alive\"}"), 1);
}

#[test]
fn silence_and_half_a_head_are_cut_in_time() {
    let blue = Upstream::plain("blue");
    let teal = limited(&blue.url(), "head_timeout: 100ms", "");
    let mut silent = Raw::connect(teal.address);
    assert_eq!(silent.ended(), Some(0));
    let mut half = Raw::silent(teal.address);
    half.send(&raw::PREFACE[..9]);
    assert_eq!(half.ended(), None);
    let mut slow = Raw::connect(teal.address);
    slow.send(&raw::get(1, &[]));
    assert_eq!(slow.told(1), Told::Status(200));
    slow.send(&raw::frame(raw::HEADERS, 0, 3, b"\x82"));
    assert_eq!(slow.ended(), Some(0));
    assert!(metric(&teal, "teal_client_connections_closed_total{reason=\"head_timeout\"}") >= 2);
}

#[test]
fn a_client_that_opens_no_window_is_given_up() {
    let blue = Upstream::plain("a body that finds no window");
    let teal = limited(&blue.url(), "keep_alive: 60s", "timeouts: { idle: 200ms }");
    let mut client = Raw::with(teal.address, &[(4, 0)]);
    client.send(&raw::get(1, &[]));
    let head = client.frame_of(raw::HEADERS);
    assert_eq!((head.stream, head.flags), (1, raw::END_HEADERS));
    assert_eq!(client.told(1), Told::Reset(8));
    // Another stream of the same connection is not to blame.
    client.send(&raw::get(3, &[]));
    client.send(&raw::frame(raw::WINDOW_UPDATE, 0, 3, &[0, 0, 4, 0]));
    assert_eq!(client.frame_of(raw::DATA).payload, b"a body that finds no window");
    let text = teal.admin().order("GET", "/metrics", "", "").body;
    let failures: Vec<_> = text.lines().filter(|line| line.starts_with("teal_pool_failures_total{")).collect();
    assert!(failures.iter().all(|line| line.ends_with(" 0")), "{failures:?}");
}

#[test]
fn a_slow_upload_is_the_clients_fault() {
    let blue = Upstream::plain("blue");
    let teal = limited(&blue.url(), "keep_alive: 60s", "timeouts: { head: 200ms }");
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        let (answer, _up) = peer.begin(post("/"), false).await;
        assert_eq!(whole(answer.await.unwrap()).await.unwrap().status, 408);
    });
}

#[test]
fn http_1_is_served_as_ever_beside_busy_http_2() {
    let (_blue, teal) = shop();
    let mut one = Client::connect(teal.address);
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        for _ in 0..50 {
            let mut begun = Vec::new();
            for _ in 0..8 {
                begun.push(peer.begin(get("/"), true).await.0);
            }
            assert_eq!(one.get("/", "").body, "blue");
            for answer in begun {
                assert_eq!(whole(answer.await.unwrap()).await.unwrap().status, 200);
            }
        }
    });
}

#[test]
fn a_switch_moves_the_next_stream_of_an_open_connection() {
    let (blue, green) = (Upstream::plain("blue"), Upstream::plain("green"));
    let teal = Teal::shop(&blue, &green, "health: off");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut peer = runtime.block_on(Peer::connect(teal.address));
    for (share, expected) in [(0, "blue"), (100, "green"), (0, "blue"), (100, "green")] {
        teal.weigh(share).unwrap();
        assert_eq!(runtime.block_on(peer.get("/")).text(), expected);
    }
}

#[test]
fn a_client_that_was_answered_early_may_end_its_request() {
    let early = Stage::play(|stream| {
        let mut input = BufReader::new(stream.try_clone().unwrap());
        if head(&mut input).is_some() {
            let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            while chunk(&mut input).is_some() {}
        }
    });
    let blue = Upstream::plain("blue");
    // After all of the body but its end, and before any of it.
    for (url, before, after) in [(blue.url(), "hello", ""), (early.url(), "", "hello")] {
        let teal = Teal::with(&[("blue", &url)], "health: off");
        let mut client = Raw::connect(teal.address);
        client.send(&raw::post(1, &[("content-length", "5")]));
        client.send(&raw::frame(raw::DATA, 0, 1, before.as_bytes()));
        while client.frame_of(raw::DATA).flags & raw::END_STREAM == 0 {}
        client.send(&raw::frame(raw::DATA, raw::END_STREAM, 1, after.as_bytes()));
        client.send(&raw::frame(raw::PING, 0, 0, b"any more"));
        let before_pong = std::iter::from_fn(|| client.frame().filter(|frame| frame.kind != raw::PING));
        let resets: Vec<_> = before_pong.filter(|frame| frame.kind == raw::RST_STREAM).collect();
        assert_eq!(resets, [], "{before:?} {after:?}");
    }
}

#[test]
fn a_body_past_its_limit_ends_an_answer_that_has_begun_and_nobody_blames_the_upstream() {
    let stage = Stage::play(|stream| {
        let mut input = BufReader::new(stream.try_clone().unwrap());
        if head(&mut input).is_some() {
            let early = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
            let _ = (&stream).write_all(early);
            while chunk(&mut input).is_some() {}
        }
    });
    let more = "timeouts: { idle: 1s }\nroutes: [ { name: all, limits: { body: 1KiB } } ]";
    let teal = limited(&stage.url(), "max_headers: 100", more);
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        let (answer, mut up) = peer.begin(post("/"), false).await;
        up.send_data(Bytes::from_static(b"small"), false).unwrap();
        let answer = answer.await.unwrap();
        up.send_data(Bytes::from(vec![7; 4_096]), false).unwrap();
        let Err(error) = whole(answer).await else { panic!("it never ends well") };
        assert_eq!(error.reason(), Some(Reason::CANCEL));
    });
    let failures: u64 = teal.shop_now().pools.iter().flat_map(|pool| pool.failures).sum();
    assert_eq!(failures, 0);
}
