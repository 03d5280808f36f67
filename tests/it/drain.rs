//! Drains: endpoints and pools that leave by an order, and come back by one.

use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use serde_json::Value;

use super::support::client::{Answer, Client};
use super::support::load::Load;
use super::support::teal::{Teal, shop_text};
use super::support::upstream::{Act, Upstream, ok};

/// An upstream that says when `/slow` arrives, and answers it only once it is told to.
struct Patient {
    upstream: Upstream,
    arrives: Receiver<()>,
    go_on: Sender<()>,
}

fn patient(name: &'static str) -> Patient {
    let (arrived, arrives) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let (arrived, goes_on) = (Mutex::new(arrived), Mutex::new(goes_on));
    let upstream = Upstream::start(move |request| {
        if request.line.contains("/slow") {
            arrived.lock().unwrap().send(()).unwrap();
            // An error: the test is over.
            let _ = goes_on.lock().unwrap().recv();
        }
        Act::Answer(ok(name))
    });
    Patient { upstream, arrives, go_on }
}

/// Two endpoints in blue, one in green; every request goes up on a connection that is kept.
fn text(state: &str, first: &Upstream, second: &Upstream, green: &Upstream) -> String {
    let blue = format!("[\"{}\", \"{}\"]", first.url(), second.url());
    shop_text(state, &[("blue", &blue), ("green", &green.url())], "balance: round_robin")
}

fn at(endpoint: &Upstream) -> String {
    let encoded = endpoint.url().replace(':', "%3A").replace('/', "%2F");
    format!("/v1/services/shop/pools/blue/endpoints/{encoded}")
}

fn order(admin: &mut Client, path: &str, json: &str) -> Answer {
    admin.order("PUT", path, "", json)
}

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap()
}

/// What the API says of an endpoint.
fn endpoint(teal: &Teal, address: &str) -> Value {
    let all = json(&teal.admin().get_from("localhost", "/v1/services/shop/endpoints", ""));
    all["endpoints"].as_array().unwrap().iter().find(|known| known["address"] == address).unwrap().clone()
}

#[test]
fn an_endpoint_leaves_without_a_lost_request_and_comes_back() {
    let (slow, fast, green) = (patient("slow"), Upstream::plain("fast"), Upstream::plain("green"));
    let teal = Teal::start(&text("none", &slow.upstream, &fast, &green));
    let (mut admin, mut client) = (teal.admin(), teal.client());
    // One connection to the endpoint is busy, one is idle.
    let mut busy = teal.client();
    let mut asked = 0;
    while slow.arrives.try_recv().is_err() {
        busy = teal.client();
        busy.send("GET /slow HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        asked += 1;
        if slow.arrives.recv_timeout(Duration::from_millis(200)).is_ok() {
            break;
        }
        assert!(asked < 20, "round robin never came round");
    }
    while client.get("/", "").body != "slow" {}
    assert_eq!(endpoint(&teal, &slow.upstream.url())["state"], "in_use");

    let drained = order(&mut admin, &at(&slow.upstream), r#"{"state": "drained"}"#);
    assert_eq!(drained.status, 200, "{drained:?}");
    assert_eq!((&json(&drained)["state"], &json(&drained)["in_flight"]), (&"draining".into(), &1.into()));
    let before = slow.upstream.count();
    for _ in 0..20 {
        assert_eq!(client.get("/", "").body, "fast");
    }
    assert_eq!(slow.upstream.count(), before, "nothing new goes there");
    teal.until("its idle connections are closed", || endpoint(&teal, &slow.upstream.url())["connections"] == 1);
    assert!(teal.told("drained").is_empty(), "it is not over while a request is in flight");

    slow.go_on.send(()).unwrap();
    assert_eq!(busy.answer().unwrap().body, "slow", "what was in flight is answered");
    teal.until("the drain ends", || !teal.told("drained").is_empty());
    let told = teal.told("drained").remove(0);
    assert!(told.contains("is out of use: 1 request in flight at first, over after "), "{told}");
    assert!(!told.contains("cut"), "{told}");
    let now = endpoint(&teal, &slow.upstream.url());
    assert_eq!((&now["state"], &now["connections"]), (&"drained".into(), &0.into()));

    let back = order(&mut admin, &at(&slow.upstream), r#"{"state": "in_use"}"#);
    assert_eq!((back.status, &json(&back)["state"]), (200, &"in_use".into()));
    let bodies: Vec<_> = (0..4).map(|_| client.get("/", "").body).collect();
    assert!(bodies.iter().any(|body| body == "slow"), "{bodies:?}");
}

#[test]
fn what_is_in_flight_at_the_deadline_is_cut_and_nobody_is_blamed() {
    let (slow, fast, green) = (patient("slow"), Upstream::plain("fast"), Upstream::plain("green"));
    let teal = Teal::start(&text("none", &slow.upstream, &fast, &green));
    let mut busy = teal.client();
    while slow.arrives.try_recv().is_err() {
        busy = teal.client();
        busy.send("GET /slow HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        if slow.arrives.recv_timeout(Duration::from_millis(200)).is_ok() {
            break;
        }
    }
    let drained = order(&mut teal.admin(), &at(&slow.upstream), r#"{"state": "drained", "deadline": "50ms"}"#);
    assert_eq!(drained.status, 200, "{drained:?}");
    let answer = busy.answer().unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("taken out of use before an answer came"), "{answer:?}");
    teal.until("the drain ends", || !teal.told("drained").is_empty());
    assert!(teal.told("drained")[0].contains("1 cut at the deadline"), "{:?}", teal.told("drained"));
    assert_eq!(teal.shop_now().pools[0].failures, [0; 6], "the endpoint did nothing wrong");
    assert!(teal.admin().get_from("localhost", "/metrics", "").body.contains("\nteal_requests_cut_total 1\n"));
}

#[test]
fn a_tunnel_is_cut_at_the_deadline() {
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec();
    let (echo, green) = (Upstream::start(move |_| Act::Echo(switch.clone())), Upstream::plain("green"));
    let teal = Teal::shop(&echo, &green, "");
    let mut client = teal.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 101);
    client.send("hello");
    assert_eq!(client.bytes(5), b"hello");
    let all = "/v1/services/shop/pools/blue";
    let forced = r#"{"state": "drained", "deadline": "20ms", "force": true}"#;
    assert_eq!(order(&mut teal.admin(), all, forced).status, 200);
    assert!(client.is_closed());
    teal.until("the drain ends", || teal.told("drained").iter().any(|told| told.contains("1 cut")));
}

#[test]
fn the_last_endpoint_of_a_pool_with_traffic_stays_unless_forced() {
    let (first, second, green) = (Upstream::plain("first"), Upstream::plain("second"), Upstream::plain("green"));
    let teal = Teal::start(&text("none", &first, &second, &green));
    let mut admin = teal.admin();
    let drain = r#"{"state": "drained"}"#;
    assert_eq!(order(&mut admin, &at(&first), drain).status, 200);
    let refused = order(&mut admin, &at(&second), drain);
    assert_eq!((refused.status, &json(&refused)["code"]), (409, &"conflict".into()));
    assert!(refused.body.contains("`blue` is the active one and has 100% of the traffic"), "{}", refused.body);
    assert_eq!(order(&mut admin, "/v1/services/shop/pools/blue", drain).status, 409, "nor all of it");
    assert_eq!(teal.client().get("/", "").body, "second");

    // What has no traffic may leave, and then gets none.
    assert_eq!(order(&mut admin, "/v1/services/shop/pools/green", drain).status, 200);
    let refused = teal.weigh(10).unwrap_err().to_string();
    assert!(refused.contains("`green` has no healthy endpoint") && refused.contains("is draining"), "{refused}");
    assert!(teal.deploy("green").unwrap_err().to_string().contains("is drained"));
    let one_of_it = format!("/v1/services/shop/pools/green/endpoints/{}", green.address);
    let refused = order(&mut admin, &one_of_it, r#"{"state": "in_use"}"#);
    assert!(refused.status == 409 && refused.body.contains("out of use as a whole"), "{refused:?}");
    assert_eq!(order(&mut admin, "/v1/services/shop/pools/green", r#"{"state": "in_use"}"#).status, 200);
    teal.weigh(10).unwrap();

    let forced = order(&mut admin, &at(&second), r#"{"state": "drained", "force": true}"#);
    assert_eq!(forced.status, 200);
    let unknown = order(&mut admin, "/v1/services/shop/pools/blue/endpoints/10.0.0.1", drain);
    assert_eq!((unknown.status, &json(&unknown)["code"]), (404, &"unknown".into()));
    assert_eq!(order(&mut admin, "/v1/services/shop/pools/bleu", drain).status, 404);
    assert_eq!(admin.get_from("localhost", "/v1/services/shop/pools/bleu/endpoints", "").status, 404);
}

#[test]
fn a_drain_outlives_reloads_and_restarts() {
    let (first, second, green) = (Upstream::plain("first"), Upstream::plain("second"), Upstream::plain("green"));
    let text = text("./state", &first, &second, &green);
    let teal = Teal::in_folder(&text);
    assert_eq!(order(&mut teal.admin(), &at(&first), r#"{"state": "drained"}"#).status, 200);
    let only_second = |teal: &Teal| {
        let mut client = teal.client();
        (0..6).for_each(|_| assert_eq!(client.get("/", "").body, "second"));
    };
    only_second(&teal);
    let file = teal.folder.as_ref().unwrap().path().join("teal.yaml");
    std::fs::write(file, text.replace("round_robin", "least_request")).unwrap();
    teal.wait(teal.running().controller.reload("test")).unwrap();
    only_second(&teal);
    let teal = teal.restart();
    only_second(&teal);
    assert_eq!(endpoint(&teal, &first.url())["state"], "drained");
    assert_eq!(order(&mut teal.admin(), &at(&first), r#"{"state": "in_use"}"#).status, 200);
    let teal = teal.restart();
    assert_eq!(endpoint(&teal, &first.url())["state"], "in_use");
}

#[test]
fn endpoints_leave_and_return_under_load_without_a_failure() {
    let (first, second, green) = (Upstream::plain("first"), Upstream::plain("second"), Upstream::plain("green"));
    let teal = Teal::start(&text("none", &first, &second, &green));
    let load = Load::start(teal.address, 4);
    let mut admin = teal.admin();
    for round in 0..10 {
        let leaves = if round % 2 == 0 { &first } else { &second };
        assert_eq!(order(&mut admin, &at(leaves), r#"{"state": "drained"}"#).status, 200);
        // Acknowledged, and what was in flight has ended: nothing arrives any more.
        teal.until("it is empty", || endpoint(&teal, &leaves.url())["state"] == "drained");
        let (arrived, served) = (leaves.count(), load.served());
        teal.until("traffic goes on", || load.served() > served + 20);
        assert_eq!(leaves.count(), arrived, "a request after the drain");
        assert_eq!(order(&mut admin, &at(leaves), r#"{"state": "in_use"}"#).status, 200);
    }
    assert_eq!(load.finish(), Default::default());
}
