//! Further attempts inside a pool: what is repeated, where, how often, and what the client gets if nothing helps.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use h2::Reason;

use super::support::client::Client;
use super::support::http2::{self, Http2};
use super::support::raw::Raw;
use super::support::teal::Teal;
use super::support::upstream::{Act, Upstream, ok};

/// A 503 with a text.
pub fn busy(text: &str) -> Vec<u8> {
    format!("HTTP/1.1 503 Service Unavailable\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
}

/// Teal in front of one pool of these, without health checks, whose connections would be counted.
fn before(pool: &[&Upstream], more: &str) -> Teal {
    let urls: Vec<_> = pool.iter().map(|upstream| upstream.url()).collect();
    Teal::with(&[("blue", &format!("[{}]", urls.join(", ")))], &format!("health: off\n{more}"))
}

fn retries(teal: &Teal) -> u64 {
    teal.shop_now().pools[0].retries
}

#[test]
fn an_answer_that_is_named_is_asked_for_again_elsewhere_and_never_twice_at_one_place() {
    let (sick, ill) = (Upstream::start(|_| Act::Answer(busy("no"))), Upstream::start(|_| Act::Answer(busy("no"))));
    let well = Upstream::plain("well");
    let budget = "budget: { share: 100%, floor: 100 }";
    let teal = before(&[&sick, &ill, &well], &format!("retry: {{ attempts: 2, on: 503, {budget} }}"));
    let mut client = teal.client();
    for round in 1..=30 {
        assert_eq!(client.get("/", "").body, "well");
        assert_eq!(well.count(), round);
    }
    assert_eq!(sick.count() + ill.count(), retries(&teal));
}

#[test]
fn a_retry_that_fails_leaves_the_first_answer_and_one_that_is_answered_replaces_it() {
    // By path: what each attempt is given in turn.
    let turns = AtomicU64::new(0);
    let blue = Upstream::start(move |request| {
        let second = turns.fetch_add(1, SeqCst) % 2 == 1;
        match (request.line.contains("/dies"), second) {
            (true, true) => Act::Close,
            (false, true) => Act::Answer(busy("second")),
            (_, false) => Act::Answer(busy("first")),
        }
    });
    let teal = before(&[&blue], "retry: { attempts: 1, on: 503, budget: 100% }");
    let mut client = teal.client();
    for _ in 0..5 {
        let answer = client.get("/", "");
        assert_eq!((answer.status, answer.body.as_str()), (503, "second"));
    }
    assert_eq!((blue.count(), blue.connections()), (10, 2), "connections of answers that were let go are kept");
    for _ in 0..3 {
        let answer = client.get("/dies", "");
        assert_eq!((answer.status, answer.body.as_str()), (503, "first"), "it is no worse than without a retry");
    }
    assert_eq!((blue.count(), retries(&teal)), (16, 8));
    assert_eq!(teal.shop_now().pools[0].in_flight, 0);
}

#[test]
fn an_answer_that_was_kept_waits_as_long_as_it_takes() {
    let turns = AtomicU64::new(0);
    let blue = Upstream::start(move |_| match turns.fetch_add(1, SeqCst) {
        0 => Act::Answer(busy("first")),
        _ => Act::Hang,
    });
    // The second attempt takes far longer than anything may be idle.
    let teal = before(&[&blue], "retry: { on: 503 }\ntimeouts: { head: 700ms, idle: 100ms }");
    let answer = teal.client().get("/", "");
    assert_eq!((answer.status, answer.body.as_str()), (503, "first"));
}

#[test]
fn only_answers_that_say_so_are_repeated_by_their_header() {
    let (no, yes) = ("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n", "X-Teal-Retriable: true\r\n");
    let turns = AtomicU64::new(0);
    let blue = Upstream::start(move |request| match request.line.contains("/says-so") {
        false => Act::Answer(format!("{no}\r\n").into_bytes()),
        true if turns.fetch_add(1, SeqCst) == 0 => Act::Answer(format!("{no}{yes}\r\n").into_bytes()),
        true => Act::Answer(ok("now")),
    });
    let teal = before(&[&blue], "retry: { on: retriable_header }");
    let mut client = teal.client();
    assert_eq!((client.get("/", "").status, blue.count()), (429, 1));
    assert_eq!((client.get("/says-so", "").body.as_str(), blue.count()), ("now", 3));
}

#[test]
fn a_try_that_takes_too_long_is_followed_by_another_and_the_last_has_its_time() {
    let (hangs, well) = (Upstream::start(|_| Act::Hang), Upstream::plain("well"));
    let retry = "retry: { attempts: 1, on: timeout, per_try: 100ms, budget: { share: 100%, floor: 1000 } }";
    let teal = before(&[&hangs, &well], &format!("{retry}\nbalance: round_robin"));
    let mut client = teal.client();
    assert!((0..6).all(|_| client.get("/", "").body == "well"));
    assert!(hangs.count() > 0 && retries(&teal) == hangs.count());

    let turns = AtomicU64::new(0);
    let slow = Upstream::start(move |_| match turns.fetch_add(1, SeqCst) {
        0 => Act::Hang,
        _ => Act::Slowly(Duration::from_millis(300), ok("at last")),
    });
    let teal = before(&[&slow], retry);
    assert_eq!((teal.client().get("/", "").body.as_str(), retries(&teal)), ("at last", 1));
    // What may not be repeated is not cut short either.
    assert_eq!((teal.client().post("/", "once").body.as_str(), retries(&teal)), ("at last", 1));
    assert_eq!(slow.count(), 3);
}

#[test]
fn what_was_sent_of_a_post_is_never_sent_again_unless_its_route_says_so() {
    let turns = AtomicU64::new(0);
    let blue = Upstream::start(move |_| match turns.fetch_add(1, SeqCst) % 2 {
        0 => Act::Answer(busy("no")),
        _ => Act::Answer(ok("yes")),
    });
    let routes = "routes:\n  - { name: twice, match: { path: { prefix: /twice } }, retry: { non_idempotent: true } }\n  - { name: rest }";
    let teal = before(&[&blue], &format!("retry: {{ on: 503 }}\n{routes}"));
    let mut client = teal.client();
    assert_eq!((client.post("/once", "body").status, blue.count()), (503, 1));
    assert_eq!((client.get("/", "").status, blue.count()), (200, 2), "in step again");
    assert_eq!((client.post("/twice", "body").body.as_str(), blue.count()), ("yes", 4));
    let bodies: Vec<_> = blue.arrived().into_iter().map(|arrived| arrived.body).collect();
    assert_eq!(bodies, [b"body".to_vec(), Vec::new(), b"body".to_vec(), b"body".to_vec()]);
}

#[test]
fn bodies_are_sent_again_exactly_however_they_came() {
    let turns = AtomicU64::new(0);
    let blue = Upstream::start(move |_| match turns.fetch_add(1, SeqCst) % 2 {
        0 => Act::Close,
        _ => Act::Answer(ok("yes")),
    });
    let teal = before(&[&blue], "retry: { budget: { share: 100%, floor: 1000 } }");
    let mut client = teal.client();
    for length in [1, 5_000, 17_000, 65_536] {
        let body: String = (0..length).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
        client.send(&format!("PUT / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n{body}"));
        assert_eq!(client.answer().unwrap().body, "yes", "{length}");
        client.send("PUT / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        body.as_bytes().chunks(4_000).for_each(|chunk| {
            client.send(&format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap()));
        });
        client.send("0\r\n\r\n");
        assert_eq!(client.answer().unwrap().body, "yes", "{length} in chunks");
        let arrived = blue.arrived();
        let last = arrived.iter().rev().take(4);
        assert!(last.into_iter().all(|arrived| arrived.body == body.as_bytes()), "{length}");
    }
    assert_eq!(retries(&teal), 8);
}

#[test]
fn a_body_that_does_not_fit_passes_and_is_not_sent_again() {
    let turns = AtomicU64::new(0);
    let blue = Upstream::start(move |_| match turns.fetch_add(1, SeqCst) % 2 {
        0 => Act::Answer(busy("no")),
        _ => Act::Answer(ok("yes")),
    });
    let teal = before(&[&blue], "retry: { on: 503 }\nreplay: 10KiB");
    let mut client = teal.client();
    let body = "x".repeat(10_241);
    let length = body.len();
    client.send(&format!("PUT / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n{body}"));
    assert_eq!(client.answer().unwrap().status, 503);
    assert_eq!(client.get("/", "").body, "yes");
    client.send("PUT / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(&format!("1\r\ny\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"));
    assert_eq!(client.answer().unwrap().status, 503);
    let lengths: Vec<_> = blue.arrived().iter().map(|arrived| arrived.body.len()).collect();
    assert_eq!((lengths, retries(&teal)), (vec![length, 0, length + 1], 0));
}

#[test]
fn a_refused_stream_is_sent_again_even_if_much_of_its_body_went_up() {
    let blue = Http2::start(|arrived| match arrived.number {
        1 => http2::Act::Reset(Reason::REFUSED_STREAM),
        _ => http2::Act::Answer(http2::ok("taken")),
    });
    let teal = Teal::with(&[("blue", &blue.pool("protocol: h2"))], "health: off");
    let body: String = (0..50_000).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
    let answer = teal.client().post("/", &body);
    assert_eq!((answer.status, answer.body.as_str()), (200, "taken"));
    let arrived = blue.arrived();
    assert_eq!(arrived.len(), 2);
    assert!(arrived[1].body == body.as_bytes());
}

#[test]
fn the_budget_keeps_a_dying_pool_from_being_hit_twice_as_hard() {
    let dying = Upstream::start(|_| Act::Close);
    let teal = before(&[&dying], "retry: { attempts: 5, budget: { share: 10%, floor: 0 } }");
    let mut client = teal.client();
    (0..200).for_each(|_| assert_eq!(client.get("/", "").status, 502));
    // A tenth of them, and a hundred saved up; what the first one earned found no room.
    assert_eq!((dying.count(), retries(&teal)), (319, 119));
}

#[test]
fn only_so_many_retries_are_in_flight() {
    let hangs = Upstream::start(|request| match request.line.contains("/first") {
        true => Act::Close,
        false => Act::Answer(ok("here")),
    });
    let other = Upstream::start(|_| Act::Hang);
    let teal = before(
        &[&hangs, &other],
        "balance: round_robin\nretry: { budget: { share: 100%, floor: 1000, in_flight: 2 } }",
    );
    // All retries end up where nothing is answered, and are in flight from then on.
    let mut clients: Vec<_> = (0..12).map(|_| teal.client()).collect();
    clients.iter_mut().for_each(|client| client.send("GET /first HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
    teal.until("each was tried", || hangs.count() + other.count() >= 12 + retries(&teal) && retries(&teal) == 2);
    let metrics = teal.admin().get_from("localhost", "/metrics", "").body;
    assert!(metrics.contains("teal_service_retries_in_flight{service=\"shop\"} 2"), "{metrics}");
    // Who only closes its side would still be answered.
    clients.into_iter().for_each(Client::reset);
    teal.until("they are over", || {
        teal.admin()
            .get_from("localhost", "/metrics", "")
            .body
            .contains("teal_service_retries_in_flight{service=\"shop\"} 0")
    });
}

#[test]
fn a_client_that_leaves_while_a_retry_waits_ends_it() {
    let dying = Upstream::start(|_| Act::Close);
    let backoff = "backoff: { base: 1m, max: 1m }";
    let teal = before(&[&dying], &format!("retry: {{ {backoff}, budget: {{ share: 100%, floor: 1000 }} }}"));
    let mut client = teal.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    teal.until("it waits", || retries(&teal) == 1);
    client.reset();
    let idle = || teal.admin().get_from("localhost", "/metrics", "").body.contains("teal_client_connections 0");
    teal.until("its connection is gone", idle);
    assert_eq!(dying.count(), 1);
}

/// Posts with ids of their own through an upstream that kills connections at random, before it has read a request,
/// after, and in the middle of its answer.
#[test]
fn no_post_is_ever_done_twice_and_none_is_lost_without_a_word() {
    let random = AtomicU64::new(0x5eed);
    let done = std::sync::Arc::new(std::sync::Mutex::new(BTreeMap::<String, u32>::new()));
    let book = std::sync::Arc::clone(&done);
    let blue = Raw::start(move |_, talk| {
        let draw = || {
            let seen = random.fetch_add(0x9e37_79b9_7f4a_7c15, SeqCst);
            (seen ^ (seen >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 60
        };
        while draw() != 0 {
            let Some(head) = talk.head() else { return };
            let id = head.split(' ').nth(1).unwrap().to_owned();
            if talk.bytes(4).is_none() {
                return;
            }
            *book.lock().unwrap().entry(id).or_default() += 1;
            match draw() {
                0 => return,
                1 => return talk.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndo"),
                _ => talk.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"),
            }
        }
    });
    let retry = "retry: { attempts: 3, on: [connect_error, reset, timeout, refused_stream, 5xx], budget: 100% }";
    let teal = Teal::with(&[("blue", &blue.url())], &format!("health: off\n{retry}"));
    let (mut client, mut good) = (teal.client(), 0);
    for id in 0..400 {
        client.send(&format!("POST /{id} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 4\r\n\r\nonce"));
        let answer = client.answer();
        let times = done.lock().unwrap().get(&format!("/{id}")).copied().unwrap_or(0);
        assert!(times <= 1, "{id} was done {times} times");
        match answer.as_ref().map(|answer| answer.status) {
            Some(200) => {
                assert_eq!(times, 1, "{id} was answered and never done");
                good += 1;
            }
            // It was told that something is wrong.
            Some(502) => {}
            None => client = teal.client(),
            Some(other) => panic!("{other}"),
        }
    }
    assert!((200..400).contains(&good), "{good} of 400");
}
