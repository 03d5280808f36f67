//! The end of a process under load, over HTTP/1.1 and HTTP/2, of our own and of others' making: nothing is lost.
//!
//! As in a rolling restart a second process is ready before the first one is told to end, and a balancer sends new
//! connections there once the readiness of the first one fails. So no tool has an excuse to count a failure.

use std::time::Duration;

use crate::support::account::failures;
use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::hammer::Hammer;
use crate::support::scene::Scene;
use crate::support::streams::Streams;
use crate::support::teal::Teal;
use crate::support::{pace, pick, until};

/// From the signal to the end of accepting.
const ENDING: &str = "shutdown: { delay: 200ms, grace: 10s }";

#[test]
fn sigterm_under_load_costs_no_request() {
    let rounds = pick(2, 20);
    let mut scene = Scene::ending(ENDING);
    let balancer = Balancer::start(scene.teal.listen);
    let listen = balancer.address;
    let time = Duration::from_millis(900) * rounds + Duration::from_secs(2);
    let load = Scene::load_at(listen, 300);
    let streams = Streams::start(listen, 3, 10, Duration::from_millis(100));
    let wrk = Hammer::wrk(scene.folder(), listen, 4);
    let h2load = Hammer::h2load(scene.folder(), listen, 2, time);
    for _ in 0..rounds {
        pace(Duration::from_millis(400));
        let next = scene.teal.successor();
        let last = std::mem::replace(&mut scene.teal, next);
        end(last, &scene.teal, &balancer);
    }
    pace(Duration::from_millis(400));
    let (by_wrk, wrk_text) = wrk.stop();
    let (of_streams, resent) = streams.stop();
    let mut records = load.stop();
    let (by_h2load, h2load_text) = h2load.stop();
    let answered = records.len();
    let failed = format!("{}{}", failures(&records), failures(&of_streams));
    println!(
        "{rounds} processes end under load: {answered} requests of HTTP/1.1, {} of HTTP/2 ({resent} sent again that a \
         GOAWAY had left out), {} of wrk, {} of h2load; failed:{}; {by_wrk:?}; {by_h2load:?}",
        of_streams.len(),
        by_wrk.answered,
        by_h2load.answered,
        if failed.is_empty() { " none" } else { &failed },
    );
    records.extend(of_streams);
    let account = scene.close(&records);
    assert_eq!((account.gets_failed, account.posts_failed, account.posts_twice, account.posts_lost), (0, 0, 0, 0));
    assert_eq!((by_wrk.wrong, by_wrk.refused, by_wrk.broken), (0, 0, 0), "{wrk_text}");
    assert_eq!((by_h2load.wrong, by_h2load.broken), (0, 0), "{h2load_text}");
}

/// SIGTERM: readiness fails first, the balancer looks away, and the process ends by itself, with 0.
fn end(mut teal: Teal, next: &Teal, balancer: &Balancer) {
    let mut probe = Client::connect(teal.admin).unwrap();
    teal.process().signal("TERM");
    until("/readyz turns 503", Duration::from_secs(2), || (probe.get("/readyz").ok()?.status == 503).then_some(()));
    balancer.turn_to(next.listen);
    let status = teal.process().wait(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0), "{}", teal.log());
}
