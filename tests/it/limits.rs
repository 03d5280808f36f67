//! What a route lets through: bodies and heads of a size, waits of a length, protocols to switch to.

use super::support::client::Client;
use super::support::teal::Teal;
use super::support::upstream::{Act, Upstream, ok};

fn routed(blue: &Upstream, routes: &str) -> Teal {
    let routes: String = routes.trim().lines().map(|line| format!("  - {}\n", line.trim())).collect();
    Teal::with(&[("blue", &blue.url())], &format!("health: off\nroutes:\n{routes}"))
}

fn failures(teal: &Teal) -> u64 {
    teal.shop_now().pools.iter().flat_map(|pool| pool.failures).sum()
}

/// A `POST` in chunks of these sizes, sent one by one as long as anybody listens.
fn chunks(client: &mut Client, path: &str, sizes: &[usize]) {
    client.send(&format!("POST {path} HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n"));
    let sent = sizes.iter().all(|size| client.try_send(format!("{size:x}\r\n{}\r\n", "x".repeat(*size)).as_bytes()));
    let _ = sent && client.try_send(b"0\r\n\r\n");
}

#[test]
fn a_body_past_its_limit_is_413_by_its_length_before_anything_goes_up() {
    let blue = Upstream::plain("blue");
    let teal = routed(&blue, "{ name: up, match: { path: { prefix: /up } }, limits: { body: 1KiB } }\n{ name: rest }");
    let mut client = teal.client();
    assert_eq!(client.post("/up", &"x".repeat(1024)).status, 200, "exactly the limit");
    assert_eq!(client.post("/rest", &"x".repeat(1025)).status, 200, "where there is none");
    let large = client.post("/up", &"x".repeat(1025));
    assert_eq!((large.status, large.header("connection"), blue.count()), (413, Some("close"), 2));
    // Nobody waits for leave that never comes.
    let mut patient = teal.client();
    patient.send("POST /up HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1025\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(patient.answer().map(|answer| answer.status), Some(413));
    assert_eq!((blue.count(), failures(&teal)), (2, 0));
}

#[test]
fn a_body_past_its_limit_is_413_in_chunks_and_blames_no_upstream() {
    let blue = Upstream::plain("blue");
    let teal = routed(&blue, "{ name: up, limits: { body: 1KiB } }");
    let mut client = teal.client();
    for sizes in [&[1024][..], &[1, 1022, 1], &[512, 512]] {
        chunks(&mut client, "/up", sizes);
        assert_eq!(client.answer().map(|answer| answer.status), Some(200), "{sizes:?}");
    }
    for sizes in [&[1025][..], &[1024, 1], &[1000, 1000, 1000], &[65_536, 65_536]] {
        let mut client = teal.client();
        chunks(&mut client, "/up", sizes);
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.header("connection")), (413, Some("close")), "{sizes:?}");
        assert!(client.is_closed());
    }
    assert_eq!((blue.count(), failures(&teal)), (3, 0), "no request too large arrived whole");
}

#[test]
fn a_head_past_its_routes_limits_is_431() {
    let blue = Upstream::plain("blue");
    let teal = routed(
        &blue,
        "{ name: small, match: { path: { prefix: /small } }, limits: { head: 512B, headers: 5 } }\n{ name: rest }",
    );
    let line = "GET /small HTTP/1.1\r\nHost: shop.test\r\n";
    let filled = |size: usize| format!("{line}X: {}\r\n\r\n", "x".repeat(size - line.len() - 7));
    let many = |count: usize| (1..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    for (head, status) in [(filled(512), 200), (filled(513), 431)] {
        let mut client = teal.client();
        client.send(&head);
        assert_eq!(client.answer().map(|answer| answer.status), Some(status), "{}", head.len());
    }
    for (path, count, status) in [("/small", 5, 200), ("/small", 6, 431), ("/rest", 6, 200), ("/rest", 101, 431)] {
        assert_eq!(teal.client().get(path, &many(count)).status, status, "{path} with {count} fields");
    }
    assert_eq!(blue.count(), 3);
}

#[test]
fn a_route_has_its_own_patience() {
    let blue = Upstream::start(|request| match request.line.contains("/hang") {
        true => Act::Hang,
        false if request.line.contains("/stall") => {
            Act::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun".to_vec())
        }
        false => Act::Answer(ok("blue")),
    });
    let teal = routed(
        &blue,
        "{ name: head, match: { path: { prefix: /hang/head } }, timeouts: { head: 50ms } }
         { name: request, match: { path: { prefix: /hang/request } }, timeouts: { request: 50ms } }
         { name: idle, match: { path: { prefix: /stall/idle } }, timeouts: { idle: 100ms } }
         { name: total, match: { path: { prefix: /stall/total } }, timeouts: { request: 50ms } }
         { name: rest }",
    );
    let mut client = teal.client();
    for path in ["/hang/head", "/hang/request"] {
        assert_eq!(client.get(path, "").status, 504, "{path}");
    }
    assert_eq!(client.get("/", "").body, "blue", "the connection goes on");
    for path in ["/stall/idle", "/stall/total"] {
        let mut client = teal.client();
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
        assert_eq!(client.answer(), None, "{path}: what was begun is cut, not completed");
    }
    teal.until("all are booked", || failures(&teal) == 4);
}

/// Switches to what is asked for, whatever it is.
fn switching() -> Upstream {
    Upstream::start(|request| match request.header("upgrade") {
        Some(token) => {
            let head = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {token}\r\n\r\n");
            Act::Echo(head.into_bytes())
        }
        None => Act::Answer(ok("plain")),
    })
}

#[test]
fn a_client_switches_only_to_what_its_route_lists() {
    let blue = switching();
    let teal = routed(
        &blue,
        "{ name: none, match: { path: { prefix: /none } }, upgrades: [] }
         { name: tus, match: { path: { prefix: /chat } }, upgrades: [websocket, x-chat/2] }
         { name: rest }",
    );
    let table = [
        ("/none", "websocket", None),
        ("/chat", "websocket", Some("websocket")),
        ("/chat", "X-Chat/2", Some("X-Chat/2")),
        ("/chat", "x-chat/3", None),
        ("/chat", "websocket, x-chat/2", None),
        ("/rest", "websocket", Some("websocket")),
        ("/rest", "WebSocket", Some("WebSocket")),
        ("/rest", "x-chat/2", None),
        ("/rest", "h2c", None),
    ];
    for (path, token, switched) in table {
        let mut client = teal.client();
        client.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: shop.test\r\nConnection: upgrade\r\nUpgrade: {token}\r\n\r\n"
        ));
        match switched {
            Some(token) => {
                let head = client.head().unwrap();
                assert_eq!((head.status, head.header("upgrade")), (101, Some(token)), "{path}");
                client.send("ping");
                assert_eq!(client.bytes(4), b"ping");
            }
            None => {
                let answer = client.answer().unwrap();
                assert_eq!((answer.status, answer.body.as_str()), (200, "plain"), "{path} {token}");
                assert_eq!(blue.arrived().pop().unwrap().header("connection"), None);
            }
        }
    }
}

#[test]
fn a_switch_that_nobody_asked_for_is_the_upstreams_fault() {
    let blue = Upstream::start(|_| {
        Act::Echo(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x-chat/9\r\n\r\n".to_vec())
    });
    let teal = routed(&blue, "{ name: chat, upgrades: [websocket, x-chat/9] }");
    assert_eq!(teal.client().get("/", "").status, 502);
    assert_eq!(teal.client().get("/", "Connection: upgrade\r\nUpgrade: websocket\r\n").status, 502, "not this one");
}
