//! Long streams: who they are, and since when.

use serde_json::Value;

use super::support::teal::Teal;
use super::support::upstream::{Act, Upstream};

fn streams(teal: &Teal) -> Value {
    serde_json::from_str(&teal.admin().get_from("localhost", "/v1/services/shop/streams", "").body).unwrap()
}

/// They are listed once they are ten seconds old: so long this test takes.
#[test]
fn a_tunnel_and_a_stream_of_events_are_listed_until_they_end() {
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec();
    let events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n".to_vec();
    let blue = Upstream::start(move |request| match request.header("upgrade") {
        Some(_) => Act::Echo(switch.clone()),
        None => Act::AnswerAndHang(events.clone()),
    });
    let teal = Teal::with(&[("blue", &blue.url())], "timeouts: { idle: 5m }");
    let (mut tunnel, mut listener) = (teal.client(), teal.client());
    tunnel.send("GET /chat HTTP/1.1\r\nHost: shop.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(tunnel.head().unwrap().status, 101);
    tunnel.send("hello");
    assert_eq!(tunnel.bytes(5), b"hello");
    listener.send("GET /news HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!(listener.head().unwrap().status, 200);
    assert_eq!(streams(&teal)["total"], 0, "they are young");

    teal.until("both are old", || streams(&teal)["streams"].as_array().unwrap().len() == 2);
    let listed = streams(&teal);
    let (first, second) = (&listed["streams"][0], &listed["streams"][1]);
    assert_eq!((&first["kind"], &second["kind"]), (&"tunnel".into(), &"events".into()), "the oldest first");
    assert_eq!((&first["pool"], &first["client"]), (&"blue".into(), &"127.0.0.1".into()));
    let (up, down) = (first["bytes_up"].as_u64().unwrap(), &first["bytes_down"]);
    assert!(up >= 5 && down == 5, "{listed}");
    assert_eq!(first["endpoint"].as_str(), Some(blue.url().as_str()));
    assert!(first["age_seconds"].as_f64().unwrap() >= 10.0 && listed["total"] == 2, "{listed}");
    let metrics = teal.admin().get_from("localhost", "/metrics", "").body;
    let gauge = metrics.lines().find(|line| line.starts_with("teal_pool_long_streams{")).unwrap_or_default();
    assert!(gauge.ends_with(" 2"), "{gauge}");

    drop((tunnel, listener));
    blue.cut();
    teal.until("they have ended", || streams(&teal)["total"] == 0);
    assert!(streams(&teal)["streams"].as_array().unwrap().is_empty());
    assert_eq!(teal.admin().get_from("localhost", "/v1/services/shup/streams", "").status, 404);
}
