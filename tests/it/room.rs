//! How much a pool is given at a time: requests in flight, who waits for how long, connections and what they carry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::support::client::Client;
use super::support::teal::Teal;
use super::support::upstream::{Act, Upstream, ok};

/// An upstream that answers nothing until it is let go.
fn held() -> (Upstream, Arc<AtomicBool>) {
    let free = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&free);
    let upstream = Upstream::start(move |_| {
        while !told.load(SeqCst) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Act::Answer(ok("blue"))
    });
    (upstream, free)
}

fn teal(blue: &Upstream, more: &str) -> Teal {
    Teal::with(&[("blue", &blue.url())], &format!("guard: off\nhealth: off\nretry: off\n{more}"))
}

fn ask(teal: &Teal) -> Client {
    let mut client = teal.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    client
}

/// Requests of blue that wait, that found no room, and that waited in vain.
fn queue(teal: &Teal) -> (u64, u64, u64) {
    let room = teal.shop_now().pools.swap_remove(0).room;
    (room.waiting, room.overflowed, room.queued_too_long)
}

#[test]
fn past_the_limit_requests_wait_and_past_the_queue_they_are_turned_away() {
    let (blue, free) = held();
    let teal = teal(&blue, "limits: { max_in_flight: 2, max_pending: 3, queue_timeout: 30s }");
    let mut clients: Vec<Client> = (0..2).map(|_| ask(&teal)).collect();
    teal.until("two are in flight", || blue.count() == 2);
    clients.extend((0..3).map(|_| ask(&teal)));
    teal.until("three wait", || queue(&teal).0 == 3);
    let answer = ask(&teal).answer().expect("an answer");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    assert_eq!((queue(&teal), blue.count()), ((3, 1, 0), 2));
    let metrics = teal.admin().get_from("localhost", "/metrics", "").body;
    let waiting = metrics.lines().find(|line| line.starts_with("teal_pool_queue{") && line.contains("blue"));
    assert!(waiting.is_some_and(|line| line.ends_with(" 3")), "{waiting:?}");
    free.store(true, SeqCst);
    assert!(clients.iter_mut().all(|client| client.answer().is_some_and(|answer| answer.body == "blue")));
    assert_eq!((queue(&teal).0, blue.count()), (0, 5));
    // All places are free again.
    assert!((0..10).all(|_| teal.client().get("/", "").status == 200));
}

#[test]
fn who_waits_too_long_is_told_and_who_goes_away_waits_no_longer() {
    let (blue, free) = held();
    let teal = teal(&blue, "limits: { max_in_flight: 1, max_pending: 1, queue_timeout: 300ms }");
    let mut first = ask(&teal);
    teal.until("one is in flight", || blue.count() == 1);
    let begin = Instant::now();
    let answer = ask(&teal).answer().expect("an answer");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert_eq!(queue(&teal), (0, 0, 1));
    let gone = ask(&teal);
    teal.until("one waits", || queue(&teal).0 == 1);
    gone.reset();
    teal.until("nobody waits", || queue(&teal).0 == 0);
    free.store(true, SeqCst);
    assert_eq!(first.answer().expect("an answer").body, "blue");
    assert_eq!(blue.count(), 1);
}

#[test]
fn after_its_time_in_the_queue_a_request_goes_where_the_split_is_now() {
    let (blue, free) = held();
    let green = Upstream::plain("green");
    let more = "guard: off\nhealth: off\nretry: off\nlimits: { max_in_flight: 1, queue_timeout: 30s }";
    let teal = Teal::shop(&blue, &green, more);
    let mut first = ask(&teal);
    teal.until("one is in flight", || blue.count() == 1);
    let mut second = ask(&teal);
    teal.until("one waits", || queue(&teal).0 == 1);
    teal.weigh(100).unwrap();
    free.store(true, SeqCst);
    assert_eq!(first.answer().expect("an answer").body, "blue");
    assert_eq!(second.answer().expect("an answer").body, "green");
    assert_eq!(blue.count(), 1);
}

#[test]
fn a_pool_has_no_more_connections_than_it_may_over_all_workers() {
    let (blue, free) = held();
    let teal = teal(&blue, "limits: { max_connections: 2, max_pending: 10, queue_timeout: 30s }");
    let mut clients: Vec<Client> = (0..6).map(|_| ask(&teal)).collect();
    teal.until("two are in flight and four wait", || blue.count() == 2 && queue(&teal).0 == 4);
    assert_eq!(blue.connections(), 2);
    free.store(true, SeqCst);
    assert!(clients.iter_mut().all(|client| client.answer().is_some_and(|answer| answer.body == "blue")));
    // Whichever worker asks: idle connections of the other are no reason to turn anybody away.
    assert!((0..20).all(|_| teal.client().get("/", "").status == 200));
}

#[test]
fn who_goes_away_waits_no_longer_for_a_connection() {
    let (blue, free) = held();
    let teal = teal(&blue, "limits: { max_connections: 1, max_pending: 10, queue_timeout: 30s }");
    let mut first = ask(&teal);
    teal.until("one is in flight", || blue.count() == 1);
    let gone = ask(&teal);
    teal.until("one waits", || queue(&teal).0 == 1);
    gone.reset();
    teal.until("nobody waits", || queue(&teal).0 == 0);
    free.store(true, SeqCst);
    assert_eq!(first.answer().expect("an answer").body, "blue");
    assert_eq!((blue.count(), blue.connections()), (1, 1));
}

#[test]
fn a_connection_carries_as_many_requests_as_it_may() {
    let blue = Upstream::plain("blue");
    let teal = teal(&blue, "limits: { max_requests_per_connection: 3 }");
    let mut client = teal.client();
    assert!((0..9).all(|_| client.get("/", "").body == "blue"));
    assert_eq!((blue.count(), blue.connections()), (9, 3));
}
