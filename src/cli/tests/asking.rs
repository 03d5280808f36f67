//! Verbs that ask once: what goes over the wire, what is printed, which exit code follows.

use std::time::Duration;

use super::fake::{Fake, Reply, json, problem, response, teal, teal_with};
use super::rendering::service;
use super::{fake, rollout};
use crate::cli::client::{Client, Limits, path};
use crate::cli::failure::Failure;
use crate::cli::text;
use crate::control::admin::wire::{ActiveFaults, Done, Ordered, Reloaded, Services};

fn done() -> Done {
    let weights = Ordered(vec![("blue".to_owned(), "90%".to_owned()), ("green".to_owned(), "10%".to_owned())]);
    Done { epoch: 4, version: 9, acknowledged_us: 1_234, weights }
}

const DONE: &str = "shop: blue 90%, green 10% (epoch 4, every worker switched within 1.2ms)\n";

/// Whether the request's head has this line.
fn carries(request: &str, field: &str) -> bool {
    request.split("\r\n\r\n").next().unwrap().lines().any(|line| line == field)
}

#[tokio::test]
async fn status_is_asked_for_with_host_token_and_actor() {
    let fake = Fake::start(|_, _| json(&service())).await;
    let ended = teal("status shop", &fake.address).await;
    assert_eq!((ended.code, ended.out, ended.err), (0, text::service(&service()), String::new()));
    let asked = fake.asked();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].starts_with("GET /v1/services/shop HTTP/1.1\r\n"), "{}", asked[0]);
    let host = fake.address.replace("http://", "host: ");
    for field in [host.as_str(), "authorization: Bearer secret", "x-teal-actor: ops"] {
        assert!(carries(&asked[0], field), "{field}: {}", asked[0]);
    }
}

#[tokio::test]
async fn json_is_what_the_api_said() {
    let services = Services { services: vec![service()] };
    let expected = format!("{}\n", serde_json::to_string_pretty(&services).unwrap());
    let fake = Fake::start(move |_, _| json(&services)).await;
    let ended = teal("status -o json", &fake.address).await;
    assert_eq!((ended.code, ended.out, ended.err), (0, expected, String::new()));
    assert!(fake.asked()[0].starts_with("GET /v1/services HTTP/1.1\r\n"));
}

#[tokio::test]
async fn orders_carry_their_bodies_and_conditions() {
    let table = [
        ("weight shop green=10%", "PUT /v1/services/shop/weights", r#"{"weights":{"green":"10%"}}"#),
        (
            "weight a/b green=0.5% blue=99.5%",
            "PUT /v1/services/a%2Fb/weights",
            r#"{"weights":{"green":"0.5%","blue":"99.5%"}}"#,
        ),
        ("rollback shop", "POST /v1/services/shop/rollback", "{}"),
        ("rollback shop --reason slow", "POST /v1/services/shop/rollback", r#"{"reason":"slow"}"#),
    ];
    for (line, target, body) in table {
        let fake = Fake::start(|_, _| json(&done())).await;
        let ended = teal(line, &fake.address).await;
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{line}");
        let asked = &fake.asked()[0];
        assert!(asked.starts_with(&format!("{target} HTTP/1.1\r\n")), "{line}: {asked}");
        assert!(asked.ends_with(&format!("\r\n\r\n{body}")), "{line}: {asked}");
        assert!(carries(asked, "content-type: application/json"), "{line}: {asked}");
    }
    let fake = Fake::start(|_, _| json(&done())).await;
    assert_eq!(teal("weight shop green=10% --if-epoch 3", &fake.address).await.out, DONE);
    assert!(carries(&fake.asked()[0], "if-match: \"3\""), "{}", fake.asked()[0]);
}

#[tokio::test]
async fn a_rollback_is_asked_for_again_of_whoever_takes_over() {
    let fake = Fake::start(|_, before| match before {
        0 | 1 => problem("503 Service Unavailable", "shutting_down", "teal is shutting down"),
        _ => json(&done()),
    });
    let fake = fake.await;
    let ended = teal("rollback shop", &fake.address).await;
    assert_eq!((ended.code, ended.err.as_str(), fake.asked().len()), (0, "", 3));
    let fake = Fake::start(|_, _| problem("503 Service Unavailable", "timeout", "no answer within 30 s")).await;
    assert_eq!((teal("rollback shop", &fake.address).await.code, fake.asked().len()), (1, 1));
}

#[tokio::test]
async fn faults_are_injected_shown_and_ended() {
    let active = ActiveFaults { faults: vec![] };
    let slow = r#"{"match":{"path":"/api","header":{"x-a":"b=c"}},"share":"100%","delay":"1s 500ms","for":"1m 30s"}"#;
    let table = [
        (
            "fault shop --pool green --abort 503 --share 10% --for 5m",
            "PUT /v1/services/shop/faults",
            r#"{"faults":[{"pool":"green","share":"10%","abort":503,"for":"5m"}]}"#.to_owned(),
        ),
        (
            "fault shop --delay 1500ms --share 100% --path /api --header x-a=b=c --for 90s",
            "PUT /v1/services/shop/faults",
            format!(r#"{{"faults":[{slow}]}}"#),
        ),
        ("fault shop", "GET /v1/services/shop/faults", String::new()),
        ("fault shop --off", "DELETE /v1/services/shop/faults", "null".to_owned()),
    ];
    for (line, target, body) in table {
        let answer = active.clone();
        let fake = Fake::start(move |_, _| json(&answer)).await;
        let ended = teal(line, &fake.address).await;
        assert_eq!((ended.code, ended.out.as_str()), (0, "shop: no fault is injected\n"), "{line}");
        let asked = &fake.asked()[0];
        assert!(asked.starts_with(&format!("{target} HTTP/1.1\r\n")), "{line}: {asked}");
        assert!(asked.ends_with(&format!("\r\n\r\n{body}")), "{line}: {asked}");
    }
}

#[tokio::test]
async fn a_reload_has_no_body() {
    let fake = Fake::start(|_, _| json(&Reloaded { version: 9, changed: true, needs_restart: vec![] })).await;
    assert_eq!(teal("reload", &fake.address).await.out, "reloaded: table version 9\n");
    let asked = &fake.asked()[0];
    assert!(asked.starts_with("POST /v1/config/reload HTTP/1.1\r\n") && asked.ends_with("\r\n\r\n"), "{asked}");
    assert!(carries(asked, "content-length: 0"), "{asked}");
}

#[tokio::test]
async fn refusals_are_explained_with_their_exit_codes() {
    let table = [
        ("409 Conflict", 5, "teal: the detail\n"),
        ("412 Precondition Failed", 5, "teal: the detail\n"),
        ("401 Unauthorized", 1, "teal: the detail (give the token with TEAL_TOKEN or --token)\n"),
        ("404 Not Found", 1, "teal: the detail\n"),
        ("422 Unprocessable Entity", 1, "teal: the detail\n"),
        ("504 Gateway Timeout", 4, "teal: the detail\n"),
    ];
    for (status, code, err) in table {
        let fake = Fake::start(move |_, _| problem(status, "code", "the detail")).await;
        let ended = teal("weight shop green=10%", &fake.address).await;
        assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (code, "", err), "{status}");
    }
}

#[tokio::test]
async fn scripts_get_the_problem_itself() {
    let fake = Fake::start(|_, _| problem("409 Conflict", "conflict", "a rollout is under way")).await;
    let ended = teal("weight shop green=10% -o json", &fake.address).await;
    let expected = r#"{
  "type": "about:blank",
  "title": "Conflict",
  "status": 409,
  "detail": "a rollout is under way",
  "code": "conflict"
}
"#;
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (5, "", expected));
}

#[tokio::test]
async fn what_is_not_teal_is_told_from_teal() {
    type Case = (&'static str, fn() -> Reply, u8, &'static str);
    let cases: [Case; 6] = [
        (
            "not JSON",
            || response("200 OK", "text/html", "<html>"),
            1,
            "no usable answer from teal at ADMIN: the answer is not what",
        ),
        (
            "other JSON",
            || response("200 OK", "application/json", "{}"),
            1,
            "no usable answer from teal at ADMIN: the answer is not what",
        ),
        (
            "a bare 502",
            || response("502 Bad Gateway", "text/html", "<html>"),
            1,
            "ADMIN answered 502 Bad Gateway without an explanation: is it teal's admin API?",
        ),
        (
            "a bare 409",
            || response("409 Conflict", "text/plain", "no"),
            5,
            "ADMIN answered 409 Conflict without an explanation",
        ),
        ("no HTTP", || Reply::Bytes(b"SSH-2.0-x\r\n\r\n".to_vec()), 1, "the connection to teal at ADMIN broke: "),
        (
            "half an answer",
            || Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec()),
            1,
            "the connection to teal at ADMIN broke: ",
        ),
    ];
    for (name, reply, code, message) in cases {
        let fake = Fake::start(move |_, _| reply()).await;
        let ended = teal("status shop", &fake.address).await;
        let message = format!("teal: {}", message.replace("ADMIN", &fake.address));
        assert!(ended.err.starts_with(&message), "{name}: {}", ended.err);
        assert_eq!((ended.code, ended.out.as_str()), (code, ""), "{name}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let fake = Fake::start(|_, _| {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n".as_slice();
        Reply::Open([head, &vec![b' '; 8 * 1024 * 1024 + 1]].concat())
    });
    let fake = fake.await;
    let ended = teal("status", &fake.address).await;
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("length limit exceeded"), "{}", ended.err);
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let short = Duration::from_millis(50);
    let limits = Limits { connect: short, request: short, ..fake::limits() };
    for bytes in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"] {
        let fake = Fake::start(move |_, _| Reply::Open(bytes.as_bytes().to_vec())).await;
        let ended = teal_with("status", &fake.address, limits).await;
        let expected = format!("teal: no answer from teal at {} within 50ms\n", fake.address);
        assert_eq!((ended.code, ended.out, ended.err), (4, String::new(), expected));
    }
}

#[tokio::test]
async fn nobody_at_home_is_said_plainly() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let address = format!("http://{free}");
    let ended = teal("status", &address).await;
    let expected = format!("teal: cannot reach teal at {address}: is it running?\n");
    assert_eq!((ended.code, ended.out, ended.err), (1, String::new(), expected));
}

#[tokio::test]
async fn acts_find_the_rollout_under_way() {
    let table = [
        ("pause", r#"{"action":"pause"}"#),
        ("resume", r#"{"action":"resume"}"#),
        ("approve", r#"{"action":"approve"}"#),
        ("promote", r#"{"action":"promote"}"#),
        ("abort", r#"{"action":"abort"}"#),
    ];
    for (verb, body) in table {
        let fake = Fake::start(|request, _| match request.starts_with("GET") {
            true => {
                let mut status = service();
                status.rollout = Some(rollout(None));
                json(&status)
            }
            false => json(&rollout(None)),
        });
        let fake = fake.await;
        let ended = teal(&format!("{verb} shop"), &fake.address).await;
        let expected = "rollout r1 of shop from blue to green, step 3 of 7: analysis at 5%\n";
        assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, expected, ""), "{verb}");
        let asked = &fake.asked()[1];
        assert!(asked.starts_with("POST /v1/rollouts/r1/actions HTTP/1.1\r\n"), "{asked}");
        assert!(asked.ends_with(&format!("\r\n\r\n{body}")), "{asked}");
    }
}

#[tokio::test]
async fn without_a_rollout_there_is_nothing_to_act_on() {
    let fake = Fake::start(|_, _| json(&service())).await;
    let ended = teal("abort shop --reason wrong", &fake.address).await;
    assert_eq!((ended.code, ended.err.as_str()), (5, "teal: no rollout of `shop` is under way\n"));
    assert_eq!(fake.asked().len(), 1);
}

#[test]
fn names_stay_in_their_segment() {
    let table = [
        (vec!["services", "shop"], "/v1/services/shop"),
        (vec!["services", "a/b?c#d e"], "/v1/services/a%2Fb%3Fc%23d%20e"),
        (vec!["services", "grün\r\n"], "/v1/services/gr%C3%BCn%0D%0A"),
    ];
    for (segments, expected) in table {
        assert_eq!(path(&segments), expected);
    }
}

#[tokio::test]
async fn actors_that_teal_would_refuse_are_left_out() {
    let asks_as = async |actor: Option<&str>| {
        let fake = Fake::start(|_, _| json(&service())).await;
        let client = Client::new(fake.address.parse().unwrap(), None, actor, fake::limits()).unwrap();
        client.get::<serde_json::Value>("/v1").await.unwrap();
        carries(&fake.asked()[0], &format!("x-teal-actor: {}", actor.unwrap_or_default()))
    };
    assert!(asks_as(Some("ops")).await);
    for actor in [None, Some(""), Some("two words"), Some("grün"), Some("x".repeat(65).as_str())] {
        assert!(!asks_as(actor).await, "{actor:?}");
    }
    let refused = Client::new("http://a:1".parse().unwrap(), Some("a\nb"), None, fake::limits()).unwrap_err();
    assert!(matches!(refused, Failure::Usage(_)), "{refused}");
}
