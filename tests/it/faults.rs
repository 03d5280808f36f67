//! Injected faults: begun by API, judged as the pool's own, seen by everybody, and over when they were to be.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use teal::control::command::Refusal;
use teal::domain::rollout::machine::End;

use super::support::client::{Answer, Client};
use super::support::load::Load;
use super::support::teal::{Teal, shop_text};
use super::support::upstream::Upstream;

const FAULTS: &str = "/v1/services/shop/faults";

fn shop(more: &str) -> (Upstream, Upstream, Teal) {
    let (blue, green) = (Upstream::plain("blue"), Upstream::plain("green"));
    let teal = Teal::shop(&blue, &green, &format!("health: off\n{more}"));
    (blue, green, teal)
}

/// Asks for these faults; what is injected then.
fn inject(teal: &Teal, faults: Value) -> Value {
    let answer = teal.admin().order("PUT", FAULTS, "X-Teal-Actor: ann\r\n", &json!({ "faults": faults }).to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

fn metric(teal: &Teal, line: &str) -> bool {
    teal.admin().order("GET", "/metrics", "", "").body.lines().any(|known| known == line)
}

fn fault_of(answer: &Answer) -> Option<&str> {
    answer.header("x-teal-fault")
}

#[test]
fn an_abort_stands_in_for_the_pool_and_the_endpoint_sees_nothing() {
    let (blue, _green, teal) = shop("");
    let active = inject(&teal, json!([{ "name": "gone", "pool": "blue", "share": "100%", "abort": 503, "for": "5m" }]));
    assert_eq!(
        (&active["faults"][0]["name"], &active["faults"][0]["effect"]),
        (&json!("gone"), &json!("answered 503"))
    );
    let mut client = teal.client();
    let answer = client.post("/", "with a body");
    assert_eq!((answer.status, fault_of(&answer), blue.count()), (503, Some("gone"), 0));
    assert!(answer.body.starts_with("503 an injected fault (request "), "{answer:?}");
    assert_eq!(client.get("/", "").status, 503, "the connection goes on");
    let shop = teal.shop_now();
    let pool = &shop.pools[0];
    assert_eq!((pool.responses[4], pool.in_flight, pool.endpoints[0].in_flight), (2, 0, 0), "counted as the pool's");
    assert_eq!((shop.faults[0].injected, shop.faults[0].pool.as_deref()), (2, Some("blue")));
    assert!(metric(&teal, "teal_service_injected_faults{service=\"shop\"} 1"));
    assert!(metric(&teal, "teal_injected_faults_total{service=\"shop\",fault=\"gone\"} 2"));
    let told = teal.told("fault");
    assert_eq!(told, ["a fault is injected by ann for 5m, `gone`: 100% of blue is answered 503"]);
    // Ended by hand.
    let ended = teal.admin().order("DELETE", FAULTS, "X-Teal-Actor: ann\r\n", "");
    assert_eq!((ended.status, ended.body.as_str()), (200, "{\"faults\":[]}"));
    let answer = client.get("/", "");
    assert_eq!((answer.status, fault_of(&answer), blue.count()), (200, None, 1));
    assert_eq!(teal.told("fault")[1..], ["the injected fault `gone` was ended by ann"]);
    assert!(metric(&teal, "teal_service_injected_faults{service=\"shop\"} 0"));
}

#[test]
fn a_delay_comes_before_the_pool_and_counts_as_its_latency() {
    let (blue, _green, teal) = shop("");
    inject(&teal, json!([{ "share": "100%", "delay": "150ms", "for": "5m" }]));
    let begin = Instant::now();
    let answer = teal.client().get("/", "");
    assert_eq!((answer.status, answer.body.as_str(), fault_of(&answer)), (200, "blue", Some("fault-1")));
    assert!(begin.elapsed() >= Duration::from_millis(150) && blue.count() == 1);
    let pool = &teal.shop_now().pools[0];
    assert!(pool.p50_us.is_some_and(|us| us >= 140_000), "{:?}", pool.p50_us);
}

#[test]
fn a_delay_ends_with_its_client_and_with_the_patience_of_the_pool() {
    let (blue, _green, teal) = shop("timeouts: { head: 100ms }");
    inject(&teal, json!([{ "share": "100%", "delay": "1m", "for": "5m" }]));
    assert_eq!(teal.client().get("/", "").status, 504);
    assert_eq!(teal.shop_now().pools[0].failures[3], 1, "a timeout like one of the pool's");
    inject(&teal, json!([]));
    let (_blue, _green, patient) = shop("timeouts: { head: 10m }");
    inject(&patient, json!([{ "share": "100%", "delay": "1m", "for": "5m" }]));
    let mut client = patient.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    patient.until("it waits", || patient.shop_now().pools[0].in_flight == 1);
    client.reset();
    patient.until("nobody waits for it", || patient.shop_now().pools[0].in_flight == 0);
    assert_eq!(patient.shop_now().pools[0].failures.iter().sum::<u64>(), 0, "nobody's fault");
    assert_eq!(blue.count(), 0);
}

#[test]
fn a_delayed_request_follows_a_change_of_the_split() {
    let (blue, green, teal) = shop("guard: off");
    teal.weigh(100).unwrap();
    inject(&teal, json!([{ "pool": "green", "share": "100%", "delay": "300ms", "abort": 500, "for": "5m" }]));
    let mut client = teal.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    teal.until("it waits", || teal.shop_now().pools[1].in_flight == 1);
    teal.weigh(0).unwrap();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.body.as_str(), fault_of(&answer)), (200, "blue", None));
    assert_eq!((blue.count(), green.count()), (1, 0), "nothing went to green after it lost its share");
}

#[test]
fn a_fault_hits_its_pool_its_matches_and_about_its_share() {
    let (_blue, _green, teal) =
        shop("guard: off\noverrides: [{ name: qa, match: { header: { x-qa: yes } }, pool: green }]");
    inject(
        &teal,
        json!([
            { "name": "team", "share": "100%", "abort": 418, "for": "5m",
              "match": { "path": "/api", "methods": ["GET"], "header": { "X-Team": "payments" } } },
            { "name": "green", "pool": "green", "share": "100%", "abort": 500, "for": "5m" },
            { "name": "some", "pool": "blue", "match": { "path": "/some" }, "share": "20%", "abort": 503, "for": "5m" },
        ]),
    );
    let mut client = teal.client();
    let team = "X-Team: payments\r\n";
    let table = [
        ("/api/x", team, 418),
        ("/apis", team, 200),
        ("/api", "X-Team: other\r\n", 200),
        ("/api", "", 200),
        ("/", "X-QA: yes\r\n", 500),
        ("/", "", 200),
    ];
    for (path, headers, status) in table {
        assert_eq!(client.get(path, headers).status, status, "{path} {headers}");
    }
    assert_eq!(client.post("/api", "").status, 200, "another method");
    // Of 2,000 at 20 % it is 400; five standard deviations are 90.
    let hit = (0..2_000).filter(|_| client.get("/some", "").status == 503).count();
    assert!((310..490).contains(&hit), "{hit}");
}

#[test]
fn a_fault_ends_by_itself_and_says_so() {
    let (_blue, _green, teal) = shop("");
    inject(&teal, json!([{ "share": "100%", "abort": 503, "for": "1s" }]));
    let mut client = teal.client();
    assert_eq!(client.get("/", "").status, 503);
    teal.until("it is over", || client.get("/", "").status == 200);
    teal.until("it is told", || {
        teal.told("fault").last().is_some_and(|told| told == "the injected fault `fault-1` is over")
    });
    assert_eq!(teal.shop_now().faults, []);
}

#[test]
fn a_fault_survives_a_change_of_the_split_and_a_reload_but_no_restart() {
    let (blue, green) = (Upstream::plain("blue"), Upstream::plain("green"));
    let text = |more: &str| {
        shop_text(
            "state",
            &[("blue", &blue.url()), ("green", &green.url())],
            &format!("health: off\nguard: off\n{more}"),
        )
    };
    let teal = Teal::in_folder(&text(""));
    inject(&teal, json!([{ "pool": "green", "share": "100%", "abort": 503, "for": "1h" }]));
    teal.weigh(100).unwrap();
    assert_eq!(teal.client().get("/", "").status, 503);
    std::fs::write(teal.folder.as_ref().unwrap().path().join("teal.yaml"), text("balance: round_robin")).unwrap();
    teal.wait(teal.running().controller.reload("test")).unwrap();
    assert_eq!(teal.client().get("/", "").status, 503);
    let teal = teal.restart();
    assert_eq!((teal.client().get("/", "").body.as_str(), teal.shop_now().faults.len()), ("green", 0));
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let (_blue, _green, teal) = shop("");
    inject(&teal, json!([{ "name": "kept", "share": "1%", "abort": 503, "for": "5m" }]));
    let mut admin = teal.admin();
    let table = [
        (json!([{ "share": "10%", "abort": 503 }]), 400),
        (json!([{ "share": "10%", "abort": 503, "for": "2h" }]), 422),
        (json!([{ "pool": "gren", "share": "10%", "abort": 503, "for": "5m" }]), 404),
    ];
    for (faults, status) in table {
        let answer = admin.order("PUT", FAULTS, "", &json!({ "faults": faults }).to_string());
        assert_eq!(answer.status, status, "{faults}: {answer:?}");
    }
    assert_eq!(admin.order("GET", "/v1/services/shpo/faults", "", "").status, 404);
    let refused = teal.wait(teal.running().controller.set_faults("shpo", Vec::new(), "test")).unwrap_err();
    assert!(matches!(refused, Refusal::Unknown { suggestion: Some(near), .. } if near == "shop"));
    let active = admin.order("GET", FAULTS, "", "");
    assert!(active.body.contains("\"kept\""), "{active:?}");
}

#[test]
fn what_a_fault_fails_on_a_canary_is_rescued_and_still_charged_to_it() {
    let (blue, green, teal) = shop("guard: off\nrescue: { header: true }");
    teal.weigh(50).unwrap();
    inject(&teal, json!([{ "pool": "green", "share": "100%", "abort": 503, "for": "5m" }]));
    let mut client = teal.client();
    for _ in 0..20 {
        let answer = client.get("/", "");
        assert_eq!((answer.status, answer.body.as_str()), (200, "blue"), "{answer:?}");
    }
    let pool = &teal.shop_now().pools[1];
    assert!(pool.responses[4] > 0 && green.count() == 0, "{:?}", pool.responses);
    assert_eq!(blue.count(), 20);
    // What must not happen twice is not rescued, although nothing was sent: a real pool might have done it.
    let posts = (0..20).filter(|_| client.post("/", "once").status == 503).count();
    assert!(posts > 0, "{posts}");
}

#[test]
fn a_drill_is_rolled_back_like_a_bad_release() {
    let quick = "analysis: { alpha: 1%, beta: 40%, min_requests: 50 }
rollout: { steps: [ { weight: 50% }, { analyze: 1m } ] }";
    let (_blue, green, teal) = shop(quick);
    let load = Load::start(teal.address, 3);
    inject(&teal, json!([{ "pool": "green", "share": "30%", "abort": 500, "for": "5m" }]));
    let id = teal.deploy("green").unwrap();
    let (end, sentence) = teal.ended(&id);
    assert_eq!(end, End::RolledBack, "{sentence}");
    assert!(sentence.contains("green is worse: errors: green ") && green.count() > 0, "{sentence}");
    assert!(load.failed().keys().all(|status| *status == 500), "{:?}", load.failed());
    drop(load);
    let mut client = Client::connect(teal.address);
    assert_eq!(client.get("/", "").status, 200, "blue is in no drill");
}
