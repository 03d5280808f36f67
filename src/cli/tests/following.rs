//! Following events: `watch`, lost connections, and where a follower resumes.

use std::time::Duration;

use super::fake::{self, Fake, Reply, event, json, problem, response, stream, teal, teal_with};
use super::rendering::service;
use super::rollout;
use crate::cli::client::Limits;

fn under_way() -> Reply {
    let mut status = service();
    status.rollout = Some(rollout(None));
    json(&status)
}

#[tokio::test]
async fn a_lost_connection_is_taken_up_where_it_broke() {
    let fake = Fake::start(|request, before| match request.lines().next().unwrap_or_default() {
        "GET /v1/services/shop HTTP/1.1" => under_way(),
        "GET /v1/events HTTP/1.1" if before == 0 => Reply::Bytes(stream(&[event(7, "stepped", "step 3")])),
        "GET /v1/events HTTP/1.1" if before == 1 => Reply::Bytes(vec![]),
        "GET /v1/events HTTP/1.1" => Reply::Open(stream(&[event(8, "held", "too slow"), event(9, "ended", "over")])),
        // The next look follows the last event only.
        _ if before == 0 => json(&rollout(None)),
        _ => json(&rollout(Some("rolled_back"))),
    });
    let fake = fake.await;
    let ended = teal("watch shop --until-ended", &fake.address).await;
    let expected = "2026-01-02T03:04:05.006Z  shop  stepped: step 3\n\
        2026-01-02T03:04:05.006Z  shop  held: too slow\n\
        2026-01-02T03:04:05.006Z  shop  ended: over\n";
    assert_eq!((ended.code, ended.out.as_str()), (3, expected), "{}", ended.err);
    let remark =
        format!("teal: the connection to teal at {} broke: the stream of events ended; trying again\n", fake.address);
    assert_eq!(ended.err, remark);
    let asked = fake.asked();
    let resumed: Vec<_> = asked
        .iter()
        .filter(|request| request.starts_with("GET /v1/events"))
        .map(|request| request.lines().find(|line| line.starts_with("last-event-id")))
        .collect();
    assert_eq!(resumed, [None, Some("last-event-id: 7"), Some("last-event-id: 7")]);
}

#[tokio::test]
async fn other_services_are_passed_over_and_json_is_a_line_each() {
    let mut other = event(1, "weights", "not this one");
    other.service = Some("api".to_owned());
    let mut process = event(2, "reload", "the file was read");
    (process.service, process.rollout) = (None, None);
    let events = [other, process, event(3, "ended", "over")];
    let expected: String =
        events[1..].iter().map(|event| format!("{}\n", serde_json::to_string(event).unwrap())).collect();
    let fake = Fake::start(move |request, before| match request.lines().next().unwrap_or_default() {
        "GET /v1/services/shop HTTP/1.1" => under_way(),
        "GET /v1/events HTTP/1.1" => Reply::Open(stream(&events)),
        _ if before == 0 => json(&rollout(None)),
        _ => json(&rollout(Some("promoted"))),
    });
    let ended = teal("watch shop --until-ended -o json", &fake.await.address).await;
    assert_eq!((ended.code, ended.out, ended.err), (0, expected, String::new()));
}

#[tokio::test]
async fn silence_is_a_lost_connection() {
    let fake = Fake::start(|request, before| match request.lines().next().unwrap_or_default() {
        "GET /v1/services/shop HTTP/1.1" => under_way(),
        "GET /v1/events HTTP/1.1" if before == 0 => Reply::Open(stream(&[event(7, "stepped", "step 3")])),
        "GET /v1/events HTTP/1.1" => problem("401 Unauthorized", "token", "no"),
        _ => json(&rollout(None)),
    });
    let fake = fake.await;
    let limits = Limits { silence: Duration::from_millis(50), ..fake::limits() };
    let ended = teal_with("watch shop", &fake.address, limits).await;
    let expected = format!(
        "teal: teal at {} fell silent; trying again\nteal: no (give the token with TEAL_TOKEN or --token)\n",
        fake.address
    );
    assert_eq!((ended.code, ended.err), (1, expected));
}

#[tokio::test]
async fn a_teal_that_stays_away_is_given_up() {
    let fake = Fake::start(|request, before| match request.lines().next().unwrap_or_default() {
        "GET /v1/events HTTP/1.1" if before == 0 => Reply::Bytes(stream(&[])),
        _ => problem("503 Service Unavailable", "shutting_down", "teal is shutting down"),
    });
    let fake = fake.await;
    let ended = teal("watch", &fake.address).await;
    assert!(ended.err.ends_with("; trying again\nteal: teal is shutting down\n"), "{}", ended.err);
    assert_eq!((ended.code, fake.asked().len()), (1, 61));
}

#[tokio::test]
async fn the_first_attempt_must_succeed() {
    type Case = (fn() -> Reply, &'static str);
    let cases: [Case; 3] = [
        (|| problem("503 Service Unavailable", "busy", "64 streams are open"), "teal: 64 streams are open\n"),
        (|| response("200 OK", "text/html", "<html>"), "the answer is no stream of events\n"),
        (
            || Reply::Open(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: x\n\n".to_vec()),
            "line 1 column 1\n",
        ),
    ];
    for (reply, message) in cases {
        let fake = Fake::start(move |_, _| reply()).await;
        let ended = teal("watch", &fake.address).await;
        assert!(ended.code == 1 && ended.err.ends_with(message), "{}", ended.err);
        assert_eq!(fake.asked().len(), 1, "{message}");
    }
}

#[tokio::test]
async fn a_wrong_name_is_refused_at_once() {
    let fake =
        Fake::start(|_, _| problem("404 Not Found", "unknown", "there is no service `shp`; did you mean `shop`?"));
    let fake = fake.await;
    let ended = teal("watch shp", &fake.address).await;
    assert_eq!((ended.code, ended.err.as_str()), (1, "teal: there is no service `shp`; did you mean `shop`?\n"));
}
