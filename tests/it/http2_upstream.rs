//! Upstreams that speak HTTP/2: shared connections, flow control, and what may be repeated when they go away.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use h2::Reason;

use super::support::client::Client;
use super::support::frames::{self, Framed};
use super::support::http2::{Act, Arrived, Http2, Said, ok};
use super::support::teal::Teal;

const H2: &str = "protocol: h2";

/// Teal in front of one upstream, without health checks, whose connections would be counted.
fn before(pool: &str, more: &str) -> Teal {
    Teal::with(&[("blue", pool)], &format!("health: off\n{more}"))
}

fn before_h2(upstream: &Http2) -> Teal {
    before(&upstream.pool(H2), "")
}

fn said(status: u16, fields: &[(&'static str, &str)], body: &'static str) -> Said {
    Said { status, fields: fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), ..ok(body) }
}

#[test]
fn a_request_reaches_an_http2_upstream_with_the_same_fields_as_any() {
    let upstream = Http2::start(|_| Act::Answer(said(200, &[("x-colour", "blue"), ("content-length", "5")], "hello")));
    let teal = before_h2(&upstream);
    let mut client = teal.client();
    let headers =
        "X-Custom: One\r\nCookie: a=1\r\nConnection: x-hop\r\nX-Hop: gone\r\nTE: trailers\r\nUpgrade: foo\r\n";
    let answer = client.get("/a/b?c=d", headers);
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
    assert_eq!((answer.header("x-colour"), answer.header("content-length")), (Some("blue"), Some("5")));
    assert_eq!(answer.header("via"), Some("2.0 teal"));
    let answer = client.post("/form", "name=value");
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));

    let arrived = upstream.arrived();
    let (get, post) = (&arrived[0], &arrived[1]);
    assert_eq!(get.line, "GET http://shop.test/a/b?c=d");
    assert_eq!(
        (get.field("x-custom"), get.field("cookie"), get.field("te")),
        (Some("One"), Some("a=1"), Some("trailers"))
    );
    assert_eq!((get.field("via"), get.field("x-forwarded-for")), (Some("1.1 teal"), Some("127.0.0.1")));
    assert_eq!(get.field("x-forwarded-host"), Some("shop.test"));
    for gone in ["host", "connection", "x-hop", "upgrade", "content-length", "transfer-encoding"] {
        assert_eq!(get.field(gone), None, "{gone}");
    }
    assert_eq!(post.line, "POST http://shop.test/form");
    assert_eq!((post.field("content-length"), post.body.as_slice()), (Some("10"), b"name=value".as_slice()));
    assert_eq!(post.field("te"), None);
}

#[test]
fn bodies_of_unknown_length_go_up_with_their_trailers() {
    let upstream = Http2::plain("ok");
    let teal = before_h2(&upstream);
    let mut client = teal.client();
    client.send("PUT /up HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    client.send("4\r\ndefg\r\n0\r\nX-Sum: 7\r\nContent-Type: no\r\n\r\n");
    assert_eq!(client.answer().unwrap().status, 200);
    assert_eq!(client.get("/", "").status, 200);
    let arrived = upstream.arrived();
    assert_eq!(arrived[0].body, b"abcdefg");
    assert_eq!(arrived[0].trailers, [("x-sum".to_owned(), "7".to_owned())]);
}

#[test]
fn answers_without_a_body_and_odd_requests() {
    let upstream = Http2::start(|arrived| {
        Act::Answer(match arrived.line.as_str() {
            line if line.starts_with("HEAD") => said(200, &[("content-length", "1234")], ""),
            line if line.ends_with("/304") => said(304, &[("etag", "\"x\"")], ""),
            line if line.ends_with("/204") => said(204, &[], ""),
            _ => said(200, &[], ""),
        })
    });
    let teal = before_h2(&upstream);
    let mut client = teal.client();
    client.send("HEAD / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    let head = client.head().unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("1234")));
    assert_eq!((client.get("/204", "").status, client.get("/304", "").status), (204, 304));
    let empty = client.get("/", "");
    assert_eq!((empty.header("content-length"), empty.header("transfer-encoding")), (Some("0"), None));
    client.send("OPTIONS * HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!(client.answer().unwrap().status, 200);
    // `<` is visible ASCII, and in no URI.
    assert_eq!(client.get("/a<b", "").status, 400);
    let mut old = teal.client();
    old.send("GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(old.answer().unwrap().status, 200);
    let lines: Vec<_> = upstream.arrived().into_iter().map(|arrived| arrived.line).collect();
    assert!(lines.contains(&"OPTIONS http://shop.test*".to_owned()), "{lines:?}");
    assert!(lines.contains(&format!("GET http://{}/old", upstream.address)), "{lines:?}");
}

#[test]
fn many_requests_share_one_connection_of_each_worker() {
    let upstream = Http2::plain("blue");
    let teal = before_h2(&upstream);
    let barrier = Barrier::new(16);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = teal.client();
                barrier.wait();
                (0..40).for_each(|_| assert_eq!(client.get("/", "").body, "blue"));
            });
        }
    });
    assert_eq!(upstream.count(), 640);
    assert!((1..=2).contains(&upstream.connections()), "{} connections", upstream.connections());
}

#[test]
fn no_connection_gets_more_streams_than_it_allows_and_further_ones_are_opened() {
    let act = |_: &Arrived| Act::Slowly(Duration::from_millis(30), ok("blue"));
    let upstream = Http2::with(2, None, act);
    let teal = before_h2(&upstream);
    thread::scope(|scope| {
        for _ in 0..48 {
            scope.spawn(|| {
                let mut client = teal.client();
                (0..3).for_each(|_| assert_eq!(client.get("/", "").body, "blue"));
            });
        }
    });
    assert_eq!((upstream.count(), upstream.most_open()), (144, 2));
    assert!((3..=16).contains(&upstream.connections()), "{} connections", upstream.connections());
}

#[test]
fn an_upstream_that_restarts_gracefully_costs_no_request() {
    let upstream = Http2::plain("blue");
    // Time enough for a busy machine; what counts is that no request fails.
    let teal = before(&upstream.pool(H2), "timeouts: { connect: 10s }\nretry: { attempts: 3 }");
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for number in 0..4 {
            let (teal, stop, served) = (&teal, &stop, &served);
            scope.spawn(move || {
                let mut client = teal.client();
                while !stop.load(SeqCst) {
                    let answer = if number % 2 == 0 { client.get("/", "") } else { client.post("/", "x") };
                    assert_eq!(answer.status, 200, "{answer:?}");
                    served.fetch_add(1, SeqCst);
                }
            });
        }
        for _ in 0..30 {
            let target = served.load(SeqCst) + 20;
            teal.until("requests are served", || served.load(SeqCst) >= target || stop.load(SeqCst));
            upstream.go_away();
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(upstream.count(), served.load(SeqCst));
    assert!(upstream.connections() > 10, "{} connections", upstream.connections());
}

#[test]
fn what_a_goaway_left_out_is_sent_again_whatever_its_method() {
    let upstream = Framed::start(|frames, number| {
        if number == 1 {
            let first = frames.request()?;
            frames.answer(first, b"one")?;
            frames.request()?;
            frames.go_away(first, 0)?;
            return frames.await_kind(frames::GOAWAY, true).map(drop);
        }
        loop {
            let stream = frames.request()?;
            frames.answer(stream, b"two")?;
        }
    });
    // Of one worker, so that the second request meets the first connection.
    let teal = Teal::start(
        &super::support::teal::shop_text("none", &[("blue", &upstream.pool())], "health: off\nretry: off")
            .replace("workers: 2", "workers: 1"),
    );
    let mut client = teal.client();
    assert_eq!(client.post("/", "body").body, "one");
    assert_eq!(client.post("/", "body").body, "two");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_refused_stream_is_sent_again_with_its_body() {
    let upstream = Http2::start(|arrived| match arrived.number {
        1 => Act::Reset(Reason::REFUSED_STREAM),
        _ => Act::Answer(ok("taken")),
    });
    let teal = before_h2(&upstream);
    let answer = teal.client().post("/", "once only");
    assert_eq!((answer.status, answer.body.as_str()), (200, "taken"));
    let arrived = upstream.arrived();
    assert_eq!((arrived.len(), arrived[1].body.as_slice()), (2, b"once only".as_slice()));
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn refusals_without_end_are_answered_and_used_up_bodies_not_repeated() {
    let upstream = Http2::start(|_| Act::Reset(Reason::REFUSED_STREAM));
    let teal = before_h2(&upstream);
    assert_eq!(teal.client().post("/", "body").status, 502);
    assert_eq!(upstream.count(), 2, "one try and one retry");

    // The first stretch is answered by a window update, so the second has been taken from the client.
    let upstream = Framed::start(|frames, _| {
        let stream = frames.await_kind(frames::HEADERS, true)?.stream;
        let mut got = 0;
        while got < 40_000 {
            got += frames.await_kind(frames::DATA, true)?.payload.len();
        }
        frames.write(frames::RST_STREAM, 0, stream, &7u32.to_be_bytes())?;
        frames.request().map(drop)
    });
    let teal = before(&upstream.pool(), "");
    let mut client = teal.client();
    // More than is kept of any body.
    client.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100000\r\n\r\n");
    client.send(&"x".repeat(100_000));
    assert_eq!(client.answer().unwrap().status, 502);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_reset_before_the_head_is_a_502_and_repeated_only_if_nothing_can_happen_twice() {
    let upstream = Http2::start(|_| Act::Reset(Reason::INTERNAL_ERROR));
    let teal = before_h2(&upstream);
    let mut client = teal.client();
    assert_eq!((client.get("/", "").status, client.post("/", "x").status), (502, 502));
    assert_eq!((upstream.count(), upstream.connections()), (3, 1), "the GET twice, the POST once");
}

#[test]
fn an_answer_that_was_cut_never_looks_whole() {
    let upstream = Http2::start(|arrived| match arrived.line.rsplit('/').next() {
        Some("reset") => Act::Cut(said(200, &[], "half"), Reason::INTERNAL_ERROR),
        // Even if the upstream means no harm, the end of the body is missing.
        Some("calm") => Act::Cut(said(200, &[], "half"), Reason::NO_ERROR),
        Some("short") => Act::Cut(said(200, &[("content-length", "10")], "half"), Reason::NO_ERROR),
        _ => Act::Answer(ok("whole")),
    });
    let teal = before_h2(&upstream);
    for path in ["/reset", "/calm", "/short"] {
        let mut client = teal.client();
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
        assert_eq!(client.answer(), None, "{path}");
    }
    assert_eq!(teal.client().get("/", "").body, "whole");
    assert!(upstream.connections() <= 2, "{} connections", upstream.connections());
}

#[test]
fn lengths_that_do_not_hold_are_faults_of_the_upstream() {
    let upstream = Framed::start(|frames, _| {
        loop {
            let head = frames.await_kind(frames::HEADERS, true)?;
            // `:status: 200`, then `content-length: 9` as a literal with an indexed name; then five bytes.
            let fields = [0x88, 0x0f, 0x0d, 1, b'9'];
            frames.write(frames::HEADERS, 4, head.stream, &fields)?;
            frames.write(frames::DATA, frames::END_STREAM, head.stream, b"short")?;
        }
    });
    let teal = before(&upstream.pool(), "");
    let mut client = teal.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert!(client.answer().is_none_or(|answer| answer.status == 502));
}

#[test]
fn a_slow_client_holds_its_own_answer_back_and_nobody_elses() {
    const MUCH: usize = 64 * 1024 * 1024;
    let upstream = Http2::start(|arrived| match arrived.line.ends_with("/much") {
        true => Act::Pour(MUCH),
        false => Act::Answer(ok("quick")),
    });
    let teal = before(&upstream.pool(H2), "");
    let mut slow = teal.client();
    slow.send("GET /much HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!(slow.head().unwrap().status, 200);
    // What everybody has let in: then it stands still, while others get their answers.
    let mut before = 0;
    teal.until("the upstream has to wait", || {
        let now = upstream.poured();
        assert_eq!(teal.client().get("/", "").body, "quick");
        std::mem::replace(&mut before, now) == now && now > 0
    });
    assert!(upstream.poured() < MUCH as u64 / 4, "{} bytes are held somewhere", upstream.poured());
    let mut got = 0;
    while let Some(chunk) = slow.chunk().filter(|chunk| !chunk.is_empty()) {
        got += chunk.len();
    }
    assert_eq!(got, MUCH);
}

#[test]
fn bodies_stream_both_ways_at_once() {
    let upstream = Http2::start(|_| Act::Echo);
    let teal = before_h2(&upstream);
    let mut client = teal.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.test\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 200);
    for word in ["one", "two", "three"] {
        client.send(&format!("{:x}\r\n{word}\r\n", word.len()));
        assert_eq!(client.chunk().as_deref(), Some(word));
    }
    client.send("0\r\n\r\n");
    let end = b"0\r\nx-echoed: whole\r\n\r\n";
    assert_eq!(client.bytes(end.len()), end);
    // The answer began before the request was over, so the connection was not kept.
    assert_eq!(teal.client().post("/", "again").body, "again");

    let large = "y".repeat(3_000_000);
    let mut reader = teal.client();
    thread::scope(|scope| {
        let (sender, body) = (reader.writer(), &large);
        scope.spawn(move || {
            let mut sender = sender;
            let head = format!("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {}\r\n\r\n", body.len());
            std::io::Write::write_all(&mut sender, (head + body).as_bytes()).unwrap();
        });
        assert!(reader.answer().unwrap().body == large);
    });
}

#[test]
fn trailers_go_down_to_who_takes_them() {
    let answer =
        || Said { trailers: vec![("x-sum", "5"), ("grpc-status", "0")], ..said(200, &[("trailer", "x-sum")], "hello") };
    let upstream = Http2::start(move |_| Act::Answer(answer()));
    let teal = before_h2(&upstream);
    let mut client = teal.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\nTE: trailers\r\n\r\n");
    let head = client.head().unwrap();
    assert_eq!((head.header("trailer"), head.header("transfer-encoding")), (Some("x-sum"), Some("chunked")));
    let rest = b"5\r\nhello\r\n0\r\nx-sum: 5\r\ngrpc-status: 0\r\n\r\n";
    assert_eq!(client.bytes(rest.len()), rest);
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!(client.head().unwrap().header("trailer"), None);
    let rest = b"5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(client.bytes(rest.len()), rest);
}

#[test]
fn interim_answers_go_down_before_the_final_one() {
    let upstream = Http2::start(|_| Act::Answer(Said { interim: vec![103, 103], ..ok("done") }));
    let teal = before_h2(&upstream);
    let mut client = teal.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    for _ in 0..2 {
        let hint = client.head().unwrap();
        assert_eq!((hint.status, hint.header("link")), (103, Some("</style.css>")));
    }
    assert_eq!(client.answer().unwrap().body, "done");

    let upstream = Http2::plain("got it");
    let teal = before_h2(&upstream);
    let mut client = teal.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 100);
    client.send("body");
    assert_eq!(client.answer().unwrap().body, "got it");
    assert_eq!(upstream.arrived()[0].body, b"body");

    let endless = Http2::start(|_| Act::Answer(Said { interim: vec![103; 40], ..ok("done") }));
    let teal = before_h2(&endless);
    let mut client = teal.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    let statuses: Vec<_> = std::iter::from_fn(|| client.head()).map(|head| head.status).take(17).collect();
    assert_eq!(statuses, [vec![103; 16], vec![502]].concat());
}

#[test]
fn a_client_that_leaves_ends_its_stream_and_not_the_connection() {
    let upstream = Http2::start(|arrived| match arrived.line.ends_with("/hang") {
        true => Act::Hang,
        false => Act::Answer(ok("here")),
    });
    let teal = before_h2(&upstream);
    assert_eq!(teal.client().get("/", "").body, "here");
    for (number, request) in
        ["GET /hang HTTP/1.1\r\n", "POST /hang HTTP/1.1\r\nContent-Length: 4\r\n"].iter().enumerate()
    {
        let mut client = teal.client();
        client.send(&format!("{request}Host: shop.test\r\n\r\n{}", if number == 0 { "" } else { "body" }));
        let before = upstream.count();
        teal.until("the request arrives", || upstream.count() > before || upstream.arrived().len() > number + 1);
        client.reset();
        teal.until("its stream is reset", || upstream.resets() == vec![Reason::CANCEL; number + 1]);
    }
    assert_eq!(teal.client().get("/", "").body, "here");
    assert!(upstream.connections() <= 2, "{} connections", upstream.connections());
}

#[test]
fn swaps_under_load_cost_no_request_and_no_new_one_reaches_the_old_pool() {
    let (blue, green) = (Http2::plain("blue"), Http2::plain("green"));
    let teal = Teal::with(&[("blue", &blue.pool(H2)), ("green", &green.pool(H2))], "health: off");
    let stop = AtomicBool::new(false);
    let (failed, served) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for number in 0..4 {
            let (teal, stop, failed, served) = (&teal, &stop, &failed, &served);
            scope.spawn(move || {
                let mut client = teal.client();
                while !stop.load(SeqCst) {
                    let answer = if number % 2 == 0 { client.get("/", "") } else { client.post("/", "x") };
                    if answer.status != 200 {
                        failed.fetch_add(1, SeqCst);
                    }
                    served.fetch_add(1, SeqCst);
                }
            });
        }
        for round in 0..40 {
            let to_green = round % 2 == 0;
            teal.weigh(if to_green { 100 } else { 0 }).unwrap();
            let old = if to_green { &blue } else { &green };
            // What was dispatched before the acknowledgement may still be on its way into the upstream's count.
            let pool = &teal.shop_now().pools[usize::from(!to_green)];
            let ceiling = old.count() + pool.in_flight + 4;
            let target = served.load(SeqCst) + 100;
            while served.load(SeqCst) < target {
                thread::yield_now();
            }
            assert!(old.count() <= ceiling, "round {round}: {} > {ceiling}", old.count());
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(failed.load(SeqCst), 0);
    assert_eq!(blue.count() + green.count(), served.load(SeqCst));
}

#[test]
fn an_upgrade_towards_http2_is_refused_in_words() {
    let upstream = Http2::plain("blue");
    let teal = before_h2(&upstream);
    let mut client = teal.client();
    let answer = client.get("/", "Connection: upgrade\r\nUpgrade: websocket\r\n");
    assert_eq!(answer.status, 501);
    assert!(answer.body.contains("cannot switch protocols"), "{}", answer.body);
    assert_eq!((client.get("/", "").body.as_str(), upstream.count()), ("blue", 1));
}

#[test]
fn what_does_not_speak_http2_is_found_out_before_a_request_is_lost_to_it() {
    let plain = super::support::upstream::Upstream::plain("http/1.1");
    let teal = before(&format!("{{ endpoints: [{}], protocol: h2 }}", plain.url()), "");
    assert_eq!(teal.client().post("/", "x").status, 502);
    assert_eq!(teal.shop_now().pools[0].in_flight, 0);
}

#[test]
fn idle_connections_are_closed() {
    let upstream = Http2::plain("blue");
    let teal = before(&upstream.pool(H2), "connections: { idle: 300ms }");
    assert_eq!(teal.client().get("/", "").body, "blue");
    teal.until("the connection is closed", || upstream.open() == 0);
    assert_eq!(teal.client().get("/", "").body, "blue");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_silent_connection_gets_no_more_requests() {
    let upstream = Framed::start(|frames, number| {
        let stream = frames.request()?;
        frames.answer(stream, b"first")?;
        loop {
            // The first connection lives, and says nothing any more.
            match frames.await_kind(frames::HEADERS, number > 1)?.stream {
                stream if number > 1 => frames.answer(stream, b"again")?,
                _ => {}
            }
        }
    });
    let text = super::support::teal::shop_text("none", &[("blue", &upstream.pool())], "health: off");
    let teal = Teal::start(&text.replace("workers: 2", "workers: 1"));
    assert_eq!(teal.client().get("/", "").body, "first");
    let mut hung: Vec<Client> = Vec::new();
    teal.until("a request goes elsewhere", || {
        let mut client = teal.client();
        client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        hung.push(client);
        super::support::pace(Duration::from_millis(50));
        upstream.connections() > 1
    });
    assert_eq!(teal.client().get("/", "").body, "again");
    hung.into_iter().for_each(Client::reset);
}

#[test]
fn over_tls_the_endpoint_picks_and_is_remembered() {
    let both = Http2::with(100, Some(tls(&[b"h2", b"http/1.1"])), |_| Act::Answer(ok("h2")));
    let old = Http2::with(100, Some(tls(&[b"http/1.1"])), |_| Act::Answer(ok("never")));
    let auto = "protocol: auto, tls: { insecure_skip_verify: true }";
    for (upstream, expected) in [(&both, "h2"), (&old, "http/1.1")] {
        let teal = before(&upstream.pool(auto), "");
        let barrier = Barrier::new(8);
        let bodies: BTreeSet<_> = thread::scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let mut client = teal.client();
                        barrier.wait();
                        (0..20).map(|_| client.get("/", "").body).collect::<BTreeSet<_>>()
                    })
                })
                .collect();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        });
        assert_eq!(bodies, BTreeSet::from([expected.to_owned()]));
        // A switch of protocols has its own connection, by HTTP/1.1.
        let mut client = teal.client();
        client.send("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(client.head().unwrap().status, 101);
        client.send("ping");
        assert_eq!(client.bytes(4), b"ping");
    }
    assert!(both.connections() <= 3, "{} connections", both.connections());
    assert_eq!(both.arrived()[0].line, "GET https://shop.test/");
    let strict = before(&old.pool("protocol: h2, tls: { insecure_skip_verify: true }"), "");
    assert_eq!(strict.client().get("/", "").status, 502);
}

fn tls(protocols: &[&[u8]]) -> std::sync::Arc<tokio_rustls::rustls::ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let builder = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    std::sync::Arc::new(config)
}
