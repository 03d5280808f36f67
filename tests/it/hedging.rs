//! Hedging: what takes unusually long is asked of a second endpoint as well, within a budget.

use std::time::Duration;

use teal::domain::hedge::RESERVE;

use super::retries::busy;
use super::support::teal::Teal;
use super::support::upstream::{Act, Upstream, ok};

/// Teal in front of one pool of these in turn, without health checks.
fn before(pool: &[&Upstream], more: &str) -> Teal {
    let urls: Vec<_> = pool.iter().map(|upstream| upstream.url()).collect();
    Teal::with(
        &[("blue", &format!("[{}]", urls.join(", ")))],
        &format!("health: off\nejection: off\nbalance: round_robin\nretry: off\n{more}"),
    )
}

/// How often pools were hedged, and how often that paid.
fn hedges(teal: &Teal) -> (u64, u64) {
    let text = teal.admin().get_from("localhost", "/metrics", "").body;
    let value = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    (value("teal_pool_hedges_total"), value("teal_pool_hedge_wins_total"))
}

#[test]
fn a_slow_answer_is_overtaken_by_one_of_another_endpoint() {
    let (hangs, well) = (Upstream::start(|_| Act::Hang), Upstream::plain("well"));
    let teal = before(&[&hangs, &well], "hedge: { after: 50ms, budget: 100% }");
    let mut client = teal.client();
    assert!((0..10).all(|_| client.get("/", "").body == "well"));
    let (begun, won) = hedges(&teal);
    assert!(begun > 0 && begun == won && begun == hangs.count(), "{begun} {won} {}", hangs.count());
    let shop = teal.shop_now();
    assert_eq!((shop.pools[0].failures, shop.pools[0].in_flight), ([0; 6], 0), "who is overtaken is not blamed");
}

#[test]
fn a_hedge_that_fails_ends_nothing() {
    for act in [Act::Close, Act::Answer(busy("no"))] {
        let slow = Upstream::start(|_| Act::Slowly(Duration::from_millis(300), ok("slow")));
        let sick = Upstream::start(move |_| act.clone());
        let teal = before(&[&slow, &sick], "hedge: { after: 50ms, budget: 100% }");
        let answers: Vec<_> = (0..6).map(|_| teal.client().get("/", "")).collect();
        // Whoever began at the slow one is answered by it, whatever the hedge came to.
        let good = answers.iter().filter(|answer| answer.body == "slow").count();
        assert!(good > 0 && hedges(&teal) == (good as u64, 0), "{good} {:?}", hedges(&teal));
        assert_eq!(slow.count(), good as u64);
    }
}

#[test]
fn only_what_has_the_effect_of_one_and_no_body_is_hedged() {
    let late = || Upstream::start(|_| Act::Slowly(Duration::from_millis(150), ok("late")));
    let (one, other) = (late(), late());
    let teal = before(&[&one, &other], "hedge: { after: 20ms, budget: 100% }");
    let mut client = teal.client();
    assert_eq!(client.post("/", "once").body, "late");
    client.send("PUT / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.answer().unwrap().body, "late");
    assert_eq!((one.count() + other.count(), hedges(&teal)), (2, (0, 0)));
    assert_eq!(client.get("/", "").body, "late");
    assert_eq!(hedges(&teal).0, 1);
}

#[test]
fn the_budget_keeps_hedges_a_small_part() {
    let late = || Upstream::start(|_| Act::Slowly(Duration::from_millis(25), ok("late")));
    let (one, other) = (late(), late());
    let teal = before(&[&one, &other], "hedge: { after: 1ms, budget: 5% }");
    let mut client = teal.client();
    assert!((0..100).all(|_| client.get("/", "").body == "late"));
    let (begun, _) = hedges(&teal);
    assert!((u64::from(RESERVE) + 4..=u64::from(RESERVE) + 5).contains(&begun), "{begun}");
}

#[test]
fn a_percentile_is_measured_before_anything_is_hedged_by_it() {
    let (hangs, well) = (
        Upstream::start(|request| match request.line.contains("/hang") {
            true => Act::Hang,
            false => Act::Answer(ok("well")),
        }),
        Upstream::plain("well"),
    );
    let teal = before(&[&hangs, &well], "hedge: { after: p95, budget: 100% }\ntimeouts: { head: 5s }");
    let mut client = teal.client();
    // Until enough was answered there is no pace; from then on no hang is waited for.
    teal.until("the pace is known", || {
        assert!((0..50).all(|_| client.get("/", "").body == "well"));
        hedges(&teal).0 > 0
    });
    for _ in 0..6 {
        assert_eq!(client.get("/hang", "").body, "well");
    }
    assert!(hedges(&teal).1 > 0);
}
