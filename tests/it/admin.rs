//! The admin API over real sockets: every route, every refusal, the stream of events, and the metrics.

use std::collections::BTreeMap;

use serde_json::Value;

use super::support::client::{Answer, Client};
use super::support::load::Load;
use super::support::teal::{Teal, shop_text};
use super::support::upstream::{Upstream, broken};

/// A service without health checks on two upstreams whose rollouts wait for people.
fn shop(more: &str) -> (Upstream, Upstream, Teal) {
    let (blue, green) = (Upstream::plain("blue"), Upstream::plain("green"));
    let plan = "rollout: { steps: [ { weight: 5% }, { pause: approve }, { weight: 50% }, { pause: approve } ] }\n";
    let teal = Teal::shop(&blue, &green, &format!("{plan}{more}"));
    (blue, green, teal)
}

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

fn get(client: &mut Client, path: &str) -> Value {
    let answer = client.order("GET", path, "", "");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{path}: {answer:?}");
    json(&answer)
}

const WEIGHTS: &str = "/v1/services/shop/weights";
const ROLLOUTS: &str = "/v1/services/shop/rollouts";

#[test]
fn every_route_answers() {
    let (_blue, _green, teal) = shop("");
    let mut client = teal.admin();
    assert_eq!(get(&mut client, "/v1")["services"], serde_json::json!(["shop"]));
    assert_eq!(get(&mut client, "/v1/services")["services"][0]["name"], "shop");
    for path in ["/v1/services/shop", "/v1/services/shop/status"] {
        let status = get(&mut client, path);
        assert_eq!((&status["active"], &status["pools"][1]["share"]), (&Value::from("blue"), &Value::from("0%")));
    }
    for (path, kind, body) in [
        ("/", "text/plain; charset=utf-8", "GET  /v1/services"),
        ("/livez", "text/plain; charset=utf-8", "alive\n"),
        ("/readyz", "text/plain; charset=utf-8", "ready\n"),
        ("/metrics", "text/plain; version=0.0.4", "teal_table_version"),
    ] {
        let answer = client.order("GET", path, "", "");
        assert!(answer.status == 200 && answer.body.contains(body), "{path}: {answer:?}");
        assert!(answer.header("content-type").is_some_and(|said| said.starts_with(kind)), "{path}: {answer:?}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    let set = client.order("PUT", WEIGHTS, "", r#"{"weights": {"green": "12.5%"}}"#);
    assert_eq!((set.status, set.header("etag")), (200, Some("\"1\"")));
    assert_eq!(json(&set)["weights"], serde_json::json!({"blue": "87.5%", "green": "12.5%"}));
    let back = client.order("POST", "/v1/services/shop/rollback", "X-Teal-Actor: ann\r\n", r#"{"reason": "odd"}"#);
    assert_eq!((back.status, &json(&back)["weights"]["green"]), (200, &Value::from("0%")));
    assert_eq!(get(&mut client, "/v1/services/shop")["changed_by"], "ann");
    // Without a body, and again: it is always allowed.
    assert_eq!(client.order("POST", "/v1/services/shop/rollback", "", "").status, 200);

    let deployed = client.order("POST", ROLLOUTS, "", r#"{"to": "green"}"#);
    let place = deployed.header("location").unwrap().to_owned();
    assert_eq!((deployed.status, &json(&deployed)["phase"]), (201, &Value::from("applying")));
    teal.until("it waits", || get(&mut client, &place)["phase"] == "waiting");
    let actions = format!("{place}/actions");
    let mut act = |order: &str| json(&client.order("POST", &actions, "", order))["phase"].clone();
    assert_eq!(act(r#"{"action": "pause"}"#), "held");
    assert_eq!(act(r#"{"action": "resume"}"#), "waiting");
    assert_eq!(act(r#"{"action": "approve"}"#), "waiting");
    assert_eq!(act(r#"{"action": "abort", "reason": "lunch"}"#), "ended");
    let plan = r#"{"to": "green", "plan": {"steps": [{"weight": "100%"}]}}"#;
    let second = json(&client.order("POST", ROLLOUTS, "", plan))["id"].clone();
    teal.until("it is promoted", || get(&mut client, "/v1/services/shop")["active"] == "green");
    teal.until("it is history", || get(&mut client, &format!("{ROLLOUTS}?limit=1"))["rollouts"][0]["phase"] == "ended");
    let history = get(&mut client, ROLLOUTS);
    assert_eq!((&history["rollouts"][0]["id"], &history["rollouts"][0]["ended"]["how"]), (&second, &"promoted".into()));
    assert_eq!(history["rollouts"][1]["ended"]["how"], "aborted");
    assert!(history["rollouts"][1]["reason"].as_str().unwrap().contains("lunch"));
}

#[test]
fn every_refusal_is_a_problem_with_its_status_and_code() {
    let (_blue, _green, teal) = shop("");
    let mut client = teal.admin();
    let weights = r#"{"weights": {"green": "10%"}}"#;
    let plan = |steps: &str| format!(r#"{{"to": "green", "plan": {{"steps": [{steps}]}}}}"#);
    let (empty, falling) = (plan(""), plan(r#"{"weight": "5%"}, {"weight": "5%"}"#));
    let long = format!(r#"{{"reason": "{}"}}"#, "x".repeat(600));
    let huge = format!(r#"{{"reason": "{}"}}"#, "x".repeat(70_000));
    let deep = "[".repeat(20_000);
    let rollback = "/v1/services/shop/rollback";
    let table: &[(&str, &str, &str, &str, u16, &str)] = &[
        ("GET", "/nowhere", "", "", 404, "not_found"),
        ("GET", "/v1/services/shoe", "", "", 404, "unknown"),
        ("GET", "/v1/rollouts/none", "", "", 404, "unknown"),
        ("GET", "/v1/services/shoe/rollouts", "", "", 404, "unknown"),
        ("PUT", "/v1/services/shoe/weights", "", weights, 404, "unknown"),
        ("POST", "/v1/services/shoe/rollback", "", "", 404, "unknown"),
        ("POST", "/v1/services/shoe/rollouts", "", r#"{"to": "green"}"#, 404, "unknown"),
        ("POST", "/v1/rollouts/none/actions", "", r#"{"action": "pause"}"#, 404, "unknown"),
        ("PUT", WEIGHTS, "", r#"{"weights": {"gren": "10%"}}"#, 404, "unknown"),
        ("POST", ROLLOUTS, "", r#"{"to": "gren"}"#, 404, "unknown"),
        ("GET", WEIGHTS, "", "", 405, "method_not_allowed"),
        ("POST", WEIGHTS, "", weights, 405, "method_not_allowed"),
        ("GET", rollback, "", "", 405, "method_not_allowed"),
        ("DELETE", "/v1/services/shop", "", "", 405, "method_not_allowed"),
        ("GET", "/v1/config/reload", "", "", 405, "method_not_allowed"),
        ("POST", "/v1/config/reload", "", "", 409, "conflict"),
        ("POST", ROLLOUTS, "", r#"{"to": "blue"}"#, 409, "conflict"),
        ("PUT", WEIGHTS, "If-Match: \"9\"\r\n", weights, 412, "stale"),
        ("PUT", WEIGHTS, "If-Match: 9\r\n", weights, 400, "bad_request"),
        ("PUT", WEIGHTS, "If-Match: W/\"0\"\r\n", weights, 400, "bad_request"),
        ("PUT", WEIGHTS, "Content-Type: text/plain\r\n", weights, 415, "media_type"),
        ("POST", ROLLOUTS, "Content-Type: application/x-www-form-urlencoded\r\n", "to=green", 415, "media_type"),
        ("POST", rollback, "", &huge, 413, "too_large"),
        ("POST", rollback, "", &long, 422, "invalid"),
        ("POST", rollback, "", r#"{"resaon": "x"}"#, 400, "bad_request"),
        ("PUT", WEIGHTS, "", "", 400, "bad_request"),
        ("PUT", WEIGHTS, "", "{", 400, "bad_request"),
        ("PUT", WEIGHTS, "", &deep, 400, "bad_request"),
        ("PUT", WEIGHTS, "", r#"{"weights": {"green": 1e999}}"#, 400, "bad_request"),
        ("PUT", WEIGHTS, "", r#"{"weights": {"green": "1%", "green": "2%"}}"#, 400, "bad_request"),
        ("PUT", WEIGHTS, "", r#"{"weights": {"green": "101%"}}"#, 422, "invalid"),
        ("PUT", WEIGHTS, "", r#"{"weights": {"green": "NaN%"}}"#, 422, "invalid"),
        ("PUT", WEIGHTS, "", r#"{"weights": {"green": "10%", "blue": "10%"}}"#, 422, "invalid"),
        ("POST", ROLLOUTS, "", &empty, 422, "invalid"),
        ("POST", ROLLOUTS, "", &falling, 422, "invalid"),
        ("POST", ROLLOUTS, "Idempotency-Key: a b\r\n", r#"{"to": "green"}"#, 400, "bad_request"),
        ("POST", rollback, "X-Teal-Actor: \u{20ac}\r\n", "", 400, "bad_request"),
        ("GET", "/v1/services/shop/rollouts?limit=0", "", "", 400, "bad_request"),
        ("GET", "/v1/services/shop/rollouts?limit=101", "", "", 400, "bad_request"),
        ("GET", "/v1/events?after=x", "", "", 400, "bad_request"),
        ("GET", "/v1/events", "Last-Event-ID: x\r\n", "", 400, "bad_request"),
        ("GET", "/v1", "Origin: http://evil.example\r\n", "", 403, "origin"),
        ("PUT", WEIGHTS, "Sec-Fetch-Site: cross-site\r\n", weights, 403, "origin"),
    ];
    for (method, path, headers, body, status, code) in table {
        let at = format!("{method} {path} {headers}{}", body.chars().take(60).collect::<String>());
        // A body beyond the limit may end its connection.
        let mut client = if *status == 413 { teal.admin() } else { std::mem::replace(&mut client, teal.admin()) };
        let answer = client.order(method, path, headers, body);
        assert_eq!(answer.status, *status, "{at}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{at}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{at}");
        let problem = json(&answer);
        assert_eq!((&problem["code"], &problem["status"]), (&Value::from(*code), &Value::from(*status)), "{at}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{at}");
    }
    let epoch = teal.shop_now().epoch;
    assert_eq!((epoch, teal.split()), (0, (0.0, "blue".to_owned())), "a refusal changes nothing");
}

#[test]
fn a_host_that_could_be_rebound_is_misdirected_and_a_token_opens_the_door() {
    let (_blue, _green, open) = shop("");
    let mut client = open.admin();
    assert_eq!(client.get("/v1", "").status, 421, "Host: shop.test");
    assert_eq!(client.get("/livez", "").status, 200, "probes are asked by any name");
    let blue = Upstream::plain("blue");
    let text = shop_text("none", &[("blue", &blue.url())], "");
    let admin = "admin: { listen: \"127.0.0.1:0\", token: hunter2 }";
    let teal = Teal::start(&text.replace("admin: 127.0.0.1:0", admin));
    let mut client = teal.admin();
    for (headers, status) in [
        ("", 401),
        ("Authorization: Bearer hunter\r\n", 401),
        ("Authorization: Basic hunter2\r\n", 401),
        ("Authorization: Bearer hunter2\r\nAuthorization: Bearer hunter2\r\n", 400),
        ("Authorization: Bearer hunter2\r\n", 200),
        ("Authorization: Bearer hunter2\r\nOrigin: http://evil.example\r\n", 403),
    ] {
        let answer = client.order("GET", "/v1", headers, "");
        assert_eq!(answer.status, status, "{headers}: {answer:?}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{headers}");
    }
    assert_eq!(client.get("/v1", "Authorization: Bearer hunter2\r\n").status, 200, "a token needs no special name");
    for path in ["/metrics", "/v1/events", "/nowhere", "/"] {
        assert_eq!(client.order("GET", path, "", "").status, 401, "{path}");
    }
    assert_eq!((client.get("/readyz", "").status, client.get("/livez", "").status), (200, 200));
}

#[test]
fn tags_and_keys_keep_two_callers_apart() {
    let (_blue, _green, teal) = shop("");
    let mut client = teal.admin();
    let tag = client.order("GET", "/v1/services/shop", "", "").header("etag").unwrap().to_owned();
    let order = r#"{"weights": {"green": "10%"}}"#;
    let first = client.order("PUT", WEIGHTS, &format!("If-Match: {tag}\r\n"), order);
    let second = client.order("PUT", WEIGHTS, &format!("If-Match: {tag}\r\n"), order);
    assert_eq!((first.status, second.status), (200, 412));
    assert_eq!(json(&second)["current_epoch"], 1);
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!(client.order("PUT", WEIGHTS, &format!("If-Match: {tag}\r\n"), order).status, 200);
    assert_eq!(client.order("PUT", WEIGHTS, "If-Match: *\r\n", order).status, 200);

    let mut deploy = |key: &str| {
        let headers = format!("Idempotency-Key: {key}\r\n");
        let answer = client.order("POST", ROLLOUTS, &headers, r#"{"to": "green"}"#);
        (answer.status, json(&answer)["id"].clone())
    };
    let (first, again, other) = (deploy("one"), deploy("one"), deploy("two"));
    assert_eq!((first.0, &again), (201, &first));
    assert_eq!(other.0, 409);
    let during = client.order("PUT", WEIGHTS, "", order);
    assert_eq!((during.status, &json(&during)["code"]), (409, &Value::from("conflict")));
    let id = first.1.as_str().unwrap().to_owned();
    let aborted = client.order("POST", &format!("/v1/rollouts/{id}/actions"), "", r#"{"action": "abort"}"#);
    assert_eq!(json(&aborted)["ended"]["how"], "aborted");
    let late = client.order("POST", &format!("/v1/rollouts/{id}/actions"), "", r#"{"action": "resume"}"#);
    assert_eq!(late.status, 409);
    // The key still stands for the same order, though it is over.
    let again = client.order("POST", ROLLOUTS, "Idempotency-Key: one\r\n", r#"{"to": "green"}"#);
    assert_eq!(json(&again)["id"], Value::from(id));
}

#[test]
fn many_writers_at_once_are_each_all_or_nothing() {
    let (_blue, _green, teal) = shop("");
    let answers: Vec<(u64, Value)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (1..=16)
            .map(|green| {
                let mut client = teal.admin();
                scope.spawn(move || {
                    let order = format!(r#"{{"weights": {{"green": "{green}%"}}}}"#);
                    let answer = client.order("PUT", WEIGHTS, "", &order);
                    assert_eq!(answer.status, 200, "{answer:?}");
                    let told = json(&answer);
                    assert_eq!(told["weights"]["green"], format!("{green}%"));
                    assert_eq!(told["weights"]["blue"], format!("{}%", 100 - green));
                    (told["epoch"].as_u64().unwrap(), told["weights"]["green"].clone())
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let told: BTreeMap<u64, Value> = answers.into_iter().collect();
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), (1..=16).collect::<Vec<_>>());
    let status = get(&mut teal.admin(), "/v1/services/shop");
    assert_eq!((&status["epoch"], &status["pools"][1]["share"]), (&Value::from(16), &told[&16]));
}

/// The next event of a stream: its id and its data.
fn event(stream: &mut Client) -> (u64, Value) {
    loop {
        let frame = stream.chunk().expect("the stream goes on");
        if let Some(data) = frame.lines().find_map(|line| line.strip_prefix("data: ")) {
            let data: Value = serde_json::from_str(data).unwrap();
            return (data["id"].as_u64().unwrap(), data);
        }
    }
}

#[test]
fn events_are_followed_live_and_resumed_without_a_gap() {
    let (_blue, _green, teal) = shop("");
    let follow = |headers: &str| {
        let mut stream = teal.admin();
        stream.send(&format!("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"));
        let head = stream.head().unwrap();
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
        assert_eq!(stream.chunk().as_deref(), Some("retry: 2000\n\n"));
        stream
    };
    let mut live = follow("");
    for green in [10, 20, 30] {
        teal.weigh(green).unwrap();
    }
    let live: Vec<(u64, Value)> = (0..3).map(|_| event(&mut live)).collect();
    assert!(live.iter().all(|(_, data)| data["kind"] == "weights" && data["service"] == "shop"), "{live:?}");
    assert!(live[2].1["sentence"].as_str().unwrap().contains("green 30%"), "{live:?}");
    let mut resumed = follow(&format!("Last-Event-ID: {}\r\n", live[0].0));
    assert_eq!([event(&mut resumed), event(&mut resumed)], [live[1].clone(), live[2].clone()]);
    // The end of the process ends a stream in order.
    let ending = std::thread::spawn(move || teal.shutdown());
    assert_eq!(resumed.chunk().as_deref(), Some(""));
    ending.join().unwrap();
}

/// One sample of the metrics, by its name and labels as written.
fn sample(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

#[test]
fn metrics_parse_and_count_what_was_sent() {
    let blue = Upstream::start(|request| match request.line.contains("/bad") {
        true => super::support::upstream::Act::Answer(broken()),
        false => super::support::upstream::Act::Answer(super::support::upstream::ok("blue")),
    });
    let green = Upstream::plain("green");
    let teal = Teal::shop(&blue, &green, "");
    let mut client = teal.client();
    (0..30).for_each(|_| drop(client.get("/", "")));
    (0..3).for_each(|_| drop(client.get("/bad", "")));
    teal.weigh(100).unwrap();
    (0..7).for_each(|_| drop(client.get("/", "")));
    let text = teal.admin().order("GET", "/metrics", "", "").body;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(series.starts_with("teal_") && value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
    }
    let responses = |pool: &str, class: &str| {
        sample(&text, &format!("teal_pool_responses_total{{service=\"shop\",pool=\"{pool}\",class=\"{class}\"}}"))
    };
    assert_eq!((responses("blue", "2xx"), responses("blue", "5xx"), responses("green", "2xx")), (30.0, 3.0, 7.0));
    let pool = |name: &str, pool: &str| sample(&text, &format!("{name}{{service=\"shop\",pool=\"{pool}\"}}"));
    assert_eq!((pool("teal_pool_share_ratio", "green"), pool("teal_pool_active", "green")), (1.0, 1.0));
    assert_eq!(pool("teal_pool_latency_seconds_count", "blue"), 30.0);
    assert_eq!(pool("teal_pool_in_flight", "blue"), 0.0);
    assert_eq!(sample(&text, "teal_service_weight_epoch{service=\"shop\"}"), 1.0);
    assert_eq!(sample(&text, "teal_client_connections_accepted_total"), 1.0);
}

#[test]
fn asking_while_traffic_and_weights_move_disturbs_nobody() {
    let (_blue, _green, teal) = shop("");
    let load = Load::start(teal.address, 2);
    let mut client = teal.admin();
    for round in 0..30 {
        teal.weigh(round % 2 * 50).unwrap();
        let status = get(&mut client, "/v1/services/shop");
        let percent = |pool: usize| -> f64 {
            status["pools"][pool]["share"].as_str().unwrap().trim_end_matches('%').parse().unwrap()
        };
        assert_eq!(percent(0) + percent(1), 100.0);
        assert_eq!(client.order("GET", "/metrics", "", "").status, 200);
    }
    assert_eq!(load.finish(), Default::default());
}
