//! Verbs that stay to the end of a rollout: `deploy --wait` and `wait`.

use std::time::Duration;

use super::fake::{self, Fake, Reply, event, json, problem, stream, teal, teal_with};
use super::rendering::service;
use super::rollout;
use crate::cli::client::Limits;
use crate::control::admin::wire::Rollouts;

const END: &str = "rollout of shop rolled back: step 3 of 7: analysis at 5%: 9 of 40 failed\n";

/// A Teal whose rollout `r1` ends so, after its events were told.
async fn deploying(how: &'static str) -> Fake {
    let mut other = event(2, "stepped", "of an older rollout");
    other.rollout = Some("r0".to_owned());
    let events = [event(1, "started", "it began"), other, event(3, "stepped", "step 2"), event(4, "ended", "over")];
    let reply = move |request: &str, before| match request.lines().next().unwrap_or_default() {
        "POST /v1/services/shop/rollouts HTTP/1.1" => json(&rollout(None)),
        "GET /v1/services/shop/rollouts HTTP/1.1" => {
            json(&Rollouts { rollouts: vec![rollout(None), rollout(Some("aborted"))] })
        }
        "GET /v1/services/shop HTTP/1.1" => {
            let mut status = service();
            status.rollout = Some(rollout(None));
            json(&status)
        }
        "GET /v1/events HTTP/1.1" => Reply::Open(stream(&events)),
        "GET /v1/rollouts/r1 HTTP/1.1" if before == 0 => json(&rollout(None)),
        "GET /v1/rollouts/r1 HTTP/1.1" => json(&rollout(Some(how))),
        other => panic!("{other}"),
    };
    Fake::start(reply).await
}

#[tokio::test]
async fn a_deploy_returns_at_once_unless_it_is_to_wait() {
    let fake = deploying("promoted").await;
    let ended = teal("deploy shop --to green --key build-7", &fake.address).await;
    let expected = "rollout r1 of shop from blue to green, step 3 of 7: analysis at 5%\n";
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, expected, ""));
    let asked = fake.asked();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].contains("\r\nidempotency-key: build-7\r\n"), "{}", asked[0]);
    assert!(asked[0].ends_with("\r\n\r\n{\"to\":\"green\"}"), "{}", asked[0]);
}

#[tokio::test]
async fn a_deploy_that_waits_tells_every_step_and_the_end() {
    for (how, code) in [("promoted", 0), ("rolled_back", 3), ("aborted", 1)] {
        let fake = deploying(how).await;
        let ended = teal("deploy shop --to green --wait", &fake.address).await;
        let end = END.replace("rolled back", &how.replace('_', " "));
        assert_eq!((ended.code, ended.out, ended.err), (code, format!("it began\nstep 2\n{end}"), String::new()));
        let followed =
            fake.asked().iter().any(|asked| asked.contains("GET /v1/events") && asked.contains("last-event-id: 0\r\n"));
        assert!(followed, "the steps before the connection are told too");
    }
}

#[tokio::test]
async fn scripts_get_one_document() {
    let fake = deploying("rolled_back").await;
    let ended = teal("deploy shop --to green --wait -o json", &fake.address).await;
    let expected = format!("{}\n", serde_json::to_string_pretty(&rollout(Some("rolled_back"))).unwrap());
    assert_eq!((ended.code, ended.out, ended.err), (3, expected, String::new()));
}

#[tokio::test]
async fn a_wait_ends_with_the_rollout_under_way() {
    for (wanted, how, code) in
        [("promoted", "rolled_back", 3), ("rolled-back", "rolled_back", 0), ("idle", "aborted", 0)]
    {
        let fake = deploying(how).await;
        let ended = teal(&format!("wait shop --for {wanted}"), &fake.address).await;
        let end = END.replace("rolled back", &how.replace('_', " "));
        assert_eq!((ended.code, ended.out), (code, format!("it began\nstep 2\n{end}")), "{wanted}: {}", ended.err);
    }
}

#[tokio::test]
async fn a_wait_without_a_rollout_under_way_looks_at_the_last() {
    let fake =
        Fake::start(|_, _| json(&Rollouts { rollouts: vec![rollout(Some("rolled_back")), rollout(Some("promoted"))] }));
    let fake = fake.await;
    assert_eq!(teal("wait shop --for promoted", &fake.address).await.code, 3);
    assert_eq!(teal("wait shop --for rolled-back", &fake.address).await.out, END);
    let fake = Fake::start(|_, _| json(&Rollouts { rollouts: vec![] })).await;
    let ended = teal("wait shop --for promoted", &fake.address).await;
    assert_eq!((ended.code, ended.err.as_str()), (5, "teal: `shop` has had no rollout\n"));
    let fake = Fake::start(|_, _| json(&service())).await;
    let ended = teal("wait shop --for idle", &fake.address).await;
    assert_eq!((ended.code, ended.out.as_str()), (0, "no rollout of shop is under way\n"));
}

#[tokio::test]
async fn an_end_that_nobody_told_is_seen() {
    let fake = Fake::start(|request, before| match request.lines().next().unwrap_or_default() {
        "GET /v1/services/shop HTTP/1.1" => {
            let mut status = service();
            status.rollout = Some(rollout(None));
            json(&status)
        }
        "POST /v1/services/shop/rollouts HTTP/1.1" => json(&rollout(None)),
        "GET /v1/events HTTP/1.1" => Reply::Open(stream(&[])),
        _ if before == 1 => problem("503 Service Unavailable", "shutting_down", "teal is shutting down"),
        _ if before < 3 => json(&rollout(None)),
        _ => json(&rollout(Some("rolled_back"))),
    });
    let fake = fake.await;
    let limits = Limits { look: Duration::from_millis(5), ..fake::limits() };
    let ended = teal_with("deploy shop --to green --wait", &fake.address, limits).await;
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (3, END, ""));
    let fake = fake.address;
    assert_eq!(teal_with("watch shop --until-ended", &fake, limits).await.code, 3);
}

#[tokio::test]
async fn waiting_has_its_own_limit() {
    let fake = Fake::start(|request, _| match request.lines().next().unwrap_or_default() {
        "GET /v1/events HTTP/1.1" => Reply::Open(stream(&[])),
        "GET /v1/rollouts/r1 HTTP/1.1" => json(&rollout(None)),
        _ => json(&Rollouts { rollouts: vec![rollout(None)] }),
    });
    let fake = fake.await;
    let ended = teal("wait shop --for promoted --timeout 30ms", &fake.address).await;
    let expected = "teal: the rollout of `shop` did not end within 30ms; it goes on\n";
    assert_eq!((ended.code, ended.err.as_str()), (4, expected));
}

#[tokio::test]
async fn a_rollout_that_vanished_is_not_waited_for() {
    let fake = Fake::start(|request, _| match request.lines().next().unwrap_or_default() {
        "POST /v1/services/shop/rollouts HTTP/1.1" => json(&rollout(None)),
        "GET /v1/events HTTP/1.1" => Reply::Open(stream(&[])),
        _ => problem("404 Not Found", "unknown", "there is no rollout `r1`"),
    });
    let fake = fake.await;
    let ended = teal("deploy shop --to green --wait", &fake.address).await;
    assert_eq!((ended.code, ended.err.as_str()), (1, "teal: there is no rollout `r1`\n"));
}
