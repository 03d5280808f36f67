//! Rescue: what fails on a canary is answered by the active pool, and is charged to the canary all the same.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Request};
use teal::control::command::PoolStatus;
use teal::domain::outcome::Failure;
use teal::domain::rescue::Refused;

use super::http2::peer::{Peer, run, whole};
use super::retries::busy;
use super::support::http2::{self, Http2, Said};
use super::support::load::Load;
use super::support::raw::Raw;
use super::support::teal::Teal;
use super::support::upstream::{Act, Upstream, broken, ok};

/// Nobody takes the traffic back, so that what is rescued can be counted.
const UNGUARDED: &str = "health: off\nguard: observe\n";

/// Teal before blue and such a green, which has this share in percent.
fn before(blue: &Upstream, green: &Upstream, share: u16, more: &str) -> Teal {
    let teal = Teal::shop(blue, green, &format!("{UNGUARDED}{more}"));
    teal.weigh(share).unwrap();
    teal
}

fn green(teal: &Teal) -> PoolStatus {
    teal.shop_now().pools.into_iter().find(|pool| pool.name == "green").unwrap()
}

fn refused(teal: &Teal, reason: Refused) -> u64 {
    green(teal).unrescued[reason as usize]
}

/// A port where nobody listens.
fn nobody() -> Upstream {
    let gone = Upstream::plain("gone");
    gone.crash();
    gone
}

#[test]
fn users_of_a_canary_that_fails_are_answered_by_the_baseline_and_it_is_charged() {
    for act in [Act::Answer(broken()), Act::Close, Act::AnswerAndClose(b"nonsense\r\n\r\n".to_vec())] {
        let (blue, green) = (Upstream::plain("blue"), Upstream::start(move |_| act.clone()));
        let teal = before(&blue, &green, 50, "rescue: { budget: 100% }\nretry: off");
        let mut client = teal.client();
        for _ in 0..100 {
            let answer = client.get("/", "");
            assert_eq!((answer.status, answer.body.as_str()), (200, "blue"));
            assert_eq!(answer.header("x-teal-rescued"), None);
        }
        let now = self::green(&teal);
        let failed = now.responses[4] + now.failures.iter().sum::<u64>();
        assert!((20..=80).contains(&failed), "{now:?}");
        assert_eq!((now.rescued, green.count()), (failed, failed));
        assert_eq!(blue.count(), 100);
        teal.until("the judge has seen each of them, and no good one", || {
            teal.shop_now().judge.is_some_and(|judge| {
                judge.canary_units == (failed, failed) && judge.baseline_units == (100 - failed, 0)
            })
        });
    }
}

#[test]
fn the_rollback_still_happens_and_nobody_saw_an_error() {
    let seen = AtomicU64::new(0);
    let green = Upstream::start(move |_| match seen.fetch_add(1, SeqCst) % 10 {
        9 => Act::Answer(broken()),
        _ => Act::Answer(ok("green")),
    });
    let blue = Upstream::plain("blue");
    let teal = Teal::shop(
        &blue,
        &green,
        "health: off\nanalysis: { alpha: 1%, tolerate: { latency: 300% }, approve: { latency: 1000% } }",
    );
    let load = Load::start(teal.address, 3);
    teal.weigh(50).unwrap();
    teal.until("the judge rolls back", || teal.split().0 == 0.0);
    assert_eq!(load.finish(), Default::default());
    let now = self::green(&teal);
    assert!(now.rescued >= 3 && now.rescued == now.responses[4], "{now:?}");
    assert!(teal.told("rollback")[0].contains("green is worse: errors"), "{:?}", teal.told("rollback"));
}

#[test]
fn an_answer_says_where_it_failed_if_it_is_to_and_so_do_log_and_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let (blue, green) = (Upstream::plain("blue"), Upstream::start(|_| Act::Answer(broken())));
    let pools = [("blue", &*blue.url()), ("green", &*green.url())];
    let text = super::support::teal::shop_text("none", &pools, &format!("{UNGUARDED}rescue: {{ header: true }}"));
    let teal = Teal::start(&text.replace("workers: 2", &format!("workers: 2\naccess_log: {}", log.display())));
    teal.weigh(100 - 1).unwrap();
    let mut client = teal.client();
    let rescued = (0..20).filter(|_| client.get("/", "").header("x-teal-rescued") == Some("green")).count();
    assert!(rescued > 0);
    let metrics = teal.admin().get_from("localhost", "/metrics", "").body;
    let line = format!("teal_pool_rescued_total{{service=\"shop\",pool=\"green\"}} {rescued}\n");
    assert!(metrics.contains(&line), "{metrics}");
    let status = teal.admin().get_from("localhost", "/v1/services/shop/status", "").body;
    assert!(status.contains(&format!("\"rescued\":{rescued},")), "{status}");
    drop((client, teal));
    let lines = std::fs::read_to_string(&log).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let lines: Vec<_> = lines.filter(|line| line["rescued_from"] == "green").collect();
    assert_eq!(lines.len(), rescued);
    let first = &lines[0];
    assert_eq!((&first["pool"], &first["reason"], &first["status"]), (&"blue".into(), &"rescue".into(), &200.into()));
    assert_eq!(first["attempts"], 2);
}

#[test]
fn a_post_is_rescued_only_if_nothing_of_it_left() {
    let blue = Upstream::plain("blue");
    let failing = Upstream::start(|_| Act::Answer(broken()));
    let teal = before(&blue, &failing, 99, "");
    let mut client = teal.client();
    let failed = (0..20).filter(|_| client.post("/", "once").status == 500).count() as u64;
    assert!(failed > 0 && failing.count() == failed && blue.count() == 20 - failed);
    assert_eq!((green(&teal).rescued, refused(&teal, Refused::Method)), (0, failed));

    let (blue, gone) = (Upstream::plain("blue"), nobody());
    let teal = before(&blue, &gone, 99, "");
    let mut client = teal.client();
    assert!((0..20).all(|_| client.post("/", "once").body == "blue"));
    assert!(blue.arrived().iter().all(|arrived| arrived.body == b"once"));
    assert_eq!((blue.count(), green(&teal).rescued > 0), (20, true));
}

#[test]
fn overrides_are_not_rescued_and_neither_is_anything_that_is_off() {
    let (blue, green) = (Upstream::plain("blue"), Upstream::start(|_| Act::Answer(broken())));
    let rule = "overrides: [ { name: qa, match: { header: { x-qa: { present: true } } }, pool: green } ]";
    let teal = before(&blue, &green, 1, rule);
    assert_eq!(teal.client().get("/", "X-QA: 1\r\n").status, 500);
    let teal = before(&blue, &green, 99, "rescue: off");
    let mut client = teal.client();
    assert!((0..20).any(|_| client.get("/", "").status == 500));
    assert_eq!(self::green(&teal).rescued, 0);
}

#[test]
fn a_canary_that_hangs_is_not_waited_for() {
    let (blue, hangs) = (Upstream::plain("blue"), Upstream::start(|_| Act::Hang));
    let teal = before(&blue, &hangs, 99, "rescue: { after: 100ms }");
    let mut client = teal.client();
    assert!((0..10).all(|_| client.get("/", "").body == "blue"));
    let now = green(&teal);
    assert!(now.rescued > 0 && now.rescued == now.failures[Failure::Timeout as usize], "{now:?}");
}

#[test]
fn a_baseline_as_slow_as_that_counts_as_failed_too() {
    let late = || Upstream::start(|_| Act::Slowly(Duration::from_millis(250), ok("late")));
    let (blue, green) = (late(), late());
    let teal = before(&blue, &green, 50, "rescue: { after: 100ms }");
    let mut client = teal.client();
    assert!((0..8).all(|_| client.get("/", "").body == "late"), "the baseline has its time");
    teal.until("both look the same to the judge", || {
        teal.shop_now().judge.is_some_and(|judge| {
            let (canary, baseline) = (judge.canary_units, judge.baseline_units);
            canary.0 + baseline.0 == 8 && canary.0 == canary.1 && baseline.0 == baseline.1
        })
    });
    // What could not be rescued is not cut short.
    assert!((0..8).all(|_| client.post("/", "once").body == "late"));
}

#[test]
fn a_dead_canary_with_nearly_everything_does_not_double_the_load_of_the_baseline() {
    let (blue, gone) = (Upstream::plain("blue"), nobody());
    let teal = before(&blue, &gone, 99, "");
    let mut client = teal.client();
    let statuses: Vec<_> = (0..1_000).map(|_| client.get("/", "").status).collect();
    let good = statuses.iter().filter(|status| **status == 200).count() as u64;
    assert!(statuses.iter().all(|status| matches!(status, 200 | 502)));
    let now = green(&teal);
    // A fifth of the requests, and a hundred saved up.
    assert!((295..=300).contains(&now.rescued), "{now:?}");
    assert_eq!((good, blue.count()), (good, good));
    assert_eq!(now.rescued + refused(&teal, Refused::Budget), now.failures[Failure::Connect as usize]);
    assert_eq!(now.retries, 0, "nobody stays on the sick version");
}

#[test]
fn a_baseline_that_cannot_help_leaves_what_the_canary_said() {
    let green = Upstream::start(|_| Act::Answer(busy("green is busy")));
    let teal = before(&nobody(), &green, 99, "retry: off");
    let mut client = teal.client();
    let answers: Vec<_> = (0..20).map(|_| client.get("/", "")).collect();
    assert!(answers.iter().any(|answer| (answer.status, answer.body.as_str()) == (503, "green is busy")));
    assert!(answers.iter().all(|answer| matches!(answer.status, 502 | 503)));
    assert_eq!((self::green(&teal).rescued, refused(&teal, Refused::Baseline)), (0, green.count()));
}

#[test]
fn bodies_reach_the_baseline_exactly() {
    let (blue, green) = (Upstream::plain("blue"), Upstream::start(|_| Act::Answer(broken())));
    let teal = before(&blue, &green, 99, "rescue: { methods: idempotent, budget: 100% }");
    let mut client = teal.client();
    for length in [1, 20_000, 65_536] {
        let body: String = (0..length).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
        client.send(&format!("PUT / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n{body}"));
        assert_eq!(client.answer().unwrap().body, "blue", "{length}");
        assert!(blue.arrived().last().unwrap().body == body.as_bytes(), "{length}");
    }
    let long = "x".repeat(65_537);
    client.send(&format!("PUT /long HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 65537\r\n\r\n{long}"));
    let status = client.answer().unwrap().status;
    let arrived = if status == 500 { green.arrived() } else { blue.arrived() };
    assert_eq!(arrived.last().unwrap().body.len(), 65_537, "it streams as ever");
    assert_eq!(refused(&teal, Refused::Body), u64::from(status == 500));
}

#[test]
fn bodies_with_trailers_reach_an_http2_baseline_from_an_http2_client() {
    let blue = Http2::start(|_| http2::Act::Answer(http2::ok("blue")));
    let green = Http2::start(|arrived| match arrived.number % 2 {
        0 => http2::Act::Reset(Reason::INTERNAL_ERROR),
        _ => http2::Act::Answer(Said { status: 503, ..http2::ok("green") }),
    });
    let (blue_pool, green_pool) = (blue.pool("protocol: h2"), green.pool("protocol: h2"));
    let more = format!("{UNGUARDED}rescue: {{ methods: idempotent, budget: 100% }}");
    let teal = Teal::with(&[("blue", &blue_pool), ("green", &green_pool)], &more);
    teal.weigh(99).unwrap();
    run(async {
        let mut peer = Peer::connect(teal.address).await;
        for _ in 0..6 {
            let (answer, mut up) = peer.begin(Request::put("http://shop.test/").body(()).unwrap(), false).await;
            up.send_data(Bytes::from_static(b"first, "), false).unwrap();
            up.send_data(Bytes::from(vec![b'x'; 30_000]), false).unwrap();
            up.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())])).unwrap();
            assert_eq!(whole(answer.await.unwrap()).await.unwrap().text(), "blue");
        }
    });
    let expected = [b"first, ".as_slice(), &[b'x'; 30_000]].concat();
    for arrived in blue.arrived() {
        assert!(arrived.body == expected);
        assert_eq!(arrived.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    }
    assert!(green.count() > 1 && self::green(&teal).rescued == green.count());
}

#[test]
fn a_body_that_is_still_on_its_way_goes_on_to_the_baseline() {
    let (reached, reaches) = mpsc::channel();
    let reached = std::sync::Mutex::new(reached);
    let blue = Raw::start(move |_, talk| {
        while let Some(_head) = talk.head() {
            reached.lock().unwrap().send(()).unwrap();
            let body = talk.bytes(10).unwrap();
            talk.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", String::from_utf8(body).unwrap()));
        }
    });
    let green = Raw::start(|_, talk| {
        talk.head().unwrap();
        talk.say("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
        talk.until_ended();
    });
    let more = format!("{UNGUARDED}rescue: {{ methods: idempotent, budget: 100% }}");
    let teal = Teal::with(&[("blue", &blue.url()), ("green", &green.url())], &more);
    teal.weigh(99).unwrap();
    for _ in 0..5 {
        let mut client = teal.client();
        client.send("PUT / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 10\r\n\r\nfirst");
        reaches.recv_timeout(Duration::from_secs(10)).expect("the baseline is asked meanwhile");
        client.send("later");
        assert_eq!(client.answer().unwrap().body, "firstlater");
    }
    assert!(self::green(&teal).rescued > 0);
}

#[test]
fn leave_to_go_on_is_the_baselines_to_give() {
    let blue = Raw::start(|_, talk| {
        let head = talk.head().unwrap();
        assert!(head.to_ascii_lowercase().contains("expect: 100-continue"), "{head}");
        talk.say("HTTP/1.1 100 Continue\r\n\r\n");
        talk.bytes(4).unwrap();
        talk.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nblue");
    });
    // Green answers without waiting for a body that it was not promised yet.
    let refusing = Raw::start(|_, talk| {
        talk.head().unwrap();
        talk.say("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
        talk.until_ended();
    });
    let more = format!("{UNGUARDED}rescue: {{ methods: idempotent, budget: 100% }}");
    let teal = Teal::with(&[("blue", &blue.url()), ("green", &refusing.url())], &more);
    teal.weigh(99).unwrap();
    for _ in 0..5 {
        let mut client = teal.client();
        client.send("PUT / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(client.head().unwrap().status, 100);
        client.send("body");
        assert_eq!(client.answer().unwrap().body, "blue");
    }
}

#[test]
fn a_canary_without_a_healthy_endpoint_is_rescued() {
    let (blue, gone) = (Upstream::plain("blue"), Upstream::plain("green"));
    let teal = Teal::shop(
        &blue,
        &gone,
        "guard: observe\nrescue: { budget: 100% }\nhealth: { interval: 100ms, unhealthy_after: 1 }",
    );
    teal.weigh(99).unwrap();
    gone.crash();
    let mut client = teal.client();
    teal.until("nobody may be asked", || {
        assert_eq!(client.get("/", "").status, 200);
        green(&teal).failures[Failure::NoEndpoint as usize] > 0
    });
    assert_eq!(client.get("/", "").body, "blue");
}
