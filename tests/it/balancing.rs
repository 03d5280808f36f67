//! Balancing: weights, keys and priorities as clients and upstreams see them.

use std::sync::Arc;
use std::time::Duration;

use teal::bridge::endpoint::{Endpoint, Health, Obstacle};

use super::support::teal::Teal;
use super::support::upstream::{Act, Manner, Upstream, ok};

/// A pool of these upstreams, each with more keys, balanced so.
fn pool(members: &[(&Upstream, &str)], balance: &str) -> String {
    let endpoints: Vec<_> = members.iter().map(|(one, more)| format!("{{ url: '{}'{more} }}", one.url())).collect();
    format!("{{ endpoints: [{}], balance: {balance} }}", endpoints.join(", "))
}

/// Teal with `pool` as blue and checks that are quick to notice.
fn behind(pool: &str, more: &str) -> Teal {
    let green = "http://127.0.0.1:9";
    Teal::with(
        &[("blue", pool), ("green", green)],
        &format!("health: {{ interval: 100ms, unhealthy_after: 1 }}\nguard: off\n{more}"),
    )
}

fn bodies(teal: &Teal, count: usize) -> Vec<String> {
    let mut client = teal.client();
    (0..count).map(|_| client.get("/", "").body).collect()
}

fn endpoints(teal: &Teal) -> Vec<Arc<Endpoint>> {
    teal.running().controller.plane().table.load().services[0].pools[0].endpoints.clone()
}

#[test]
fn weights_hold_and_status_shows_them() {
    let (light, heavy) = (Upstream::plain("light"), Upstream::plain("heavy"));
    let teal = behind(&pool(&[(&light, ""), (&heavy, ", weight: 3")], "round_robin"), "");
    // Four whole rounds over one connection, hence at one worker.
    let bodies = bodies(&teal, 16);
    assert_eq!(bodies.iter().filter(|body| *body == "heavy").count(), 12, "{bodies:?}");
    let answer = teal.admin().get_from("localhost", "/v1/services/shop/status", "").body;
    assert!(answer.contains(r#""weight":3,"priority":0"#), "{answer}");
    assert!(answer.contains(r#""priorities":{"0":"100%"}"#), "{answer}");
}

#[test]
fn a_header_keeps_a_user_at_one_endpoint_until_that_is_gone() {
    let upstreams: Vec<_> = ["a", "b", "c"].map(Upstream::plain).into();
    let members: Vec<_> = upstreams.iter().map(|upstream| (upstream, "")).collect();
    for policy in ["ring_hash", "maglev"] {
        let balance = format!("{{ policy: {policy}, by: {{ header: x-user }} }}");
        let teal = behind(&pool(&members, &balance), "");
        // Each from another connection, so from any worker.
        let place = |user: usize| teal.client().get("/", &format!("X-User: u{user}\r\n")).body;
        let before: Vec<_> = (0..60).map(place).collect();
        assert_eq!((0..60).map(place).collect::<Vec<_>>(), before);
        assert!(["a", "b", "c"].iter().all(|name| before.iter().any(|body| body == name)), "{before:?}");
        endpoints(&teal)[0].obstruct(Obstacle::Draining, true);
        for (user, was) in before.iter().enumerate() {
            let is = place(user);
            assert!(is != "a" && (is == *was || was == "a"), "u{user}: {was}, then {is}");
        }
        endpoints(&teal)[0].obstruct(Obstacle::Draining, false);
        assert_eq!((0..60).map(place).collect::<Vec<_>>(), before);
    }
}

#[test]
fn a_part_of_the_path_can_be_the_key() {
    let upstreams: Vec<_> = ["a", "b", "c"].map(Upstream::plain).into();
    let members: Vec<_> = upstreams.iter().map(|upstream| (upstream, "")).collect();
    let teal = behind(&pool(&members, "{ policy: maglev, by: { path: '/carts/([0-9]+)(/.*)?' } }"), "");
    let mut client = teal.client();
    for cart in 0..30 {
        let bodies =
            ["", "/", "/items?x=1", "/%69tems"].map(|rest| client.get(&format!("/carts/{cart}{rest}"), "").body);
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{cart}: {bodies:?}");
    }
}

#[test]
fn the_next_priority_takes_over_when_the_first_dies_and_gives_back() {
    let (near, far) = (Upstream::plain("near"), Upstream::plain("far"));
    let teal = behind(&pool(&[(&near, ""), (&far, ", priority: 1")], "least_request"), "");
    let is = |at: usize, health: Health| endpoints(&teal)[at].health() == health;
    teal.until("both are healthy", || is(0, Health::Healthy) && is(1, Health::Healthy));
    assert!(bodies(&teal, 30).iter().all(|body| body == "near"));

    let address = near.address;
    drop(near);
    teal.until("near is unhealthy", || is(0, Health::Unhealthy));
    assert!(bodies(&teal, 30).iter().all(|body| body == "far"));
    teal.until("it is told", || teal.told("balance") == ["blue sends everything to priority 1"]);

    let manner = Manner { address: Some(address), ..Manner::default() };
    let _near = Upstream::in_manner(manner, |_| Act::Answer(ok("near again")));
    teal.until("near is healthy", || is(0, Health::Healthy));
    assert!(bodies(&teal, 30).iter().all(|body| body == "near again"));
    teal.until("it is told", || teal.told("balance").len() == 2);
    assert_eq!(teal.told("balance")[1], "blue is back at its first priority");
}

#[test]
fn in_panic_own_results_do_not_count_but_orders_do() {
    let upstreams: Vec<_> = ["a", "b", "c"].map(Upstream::plain).into();
    let members: Vec<_> = upstreams.iter().map(|upstream| (upstream, "")).collect();
    let teal = behind(&pool(&members, "round_robin"), "");
    let seen = |name: &str| bodies(&teal, 12).iter().any(|body| body == name);
    let all = endpoints(&teal);
    // Not an ejection, which the control plane would take back: it knows of none.
    all[0].obstruct(Obstacle::BreakerOpen, true);
    assert!(!seen("a") && seen("b") && seen("c"));
    all[1].obstruct(Obstacle::Draining, true);
    assert!(seen("a") && !seen("b") && seen("c"), "one of three is less than half");
    teal.until("it is told", || teal.told("balance").iter().any(|told| told.starts_with("blue panics")));
    all[1].obstruct(Obstacle::Draining, false);
    assert!(!seen("a"));
}

#[test]
fn a_slow_endpoint_is_left_alone() {
    let slow = Upstream::start(|_| Act::Slowly(Duration::from_millis(200), ok("slow")));
    let fast = Upstream::plain("fast");
    let teal = behind(&pool(&[(&slow, ""), (&fast, "")], "p2c_ewma"), "");
    let bodies = bodies(&teal, 40);
    let slow = bodies.iter().filter(|body| *body == "slow").count();
    // Its first answer tells. Until that fades there is no reason to ask again.
    assert!((1..=3).contains(&slow), "{bodies:?}");
}

#[test]
fn who_comes_back_starts_slowly() {
    let (one, other) = (Upstream::plain("one"), Upstream::plain("other"));
    let teal = behind(&pool(&[(&one, ""), (&other, "")], "{ policy: round_robin, slow_start: 15m }"), "");
    let others = || bodies(&teal, 200).iter().filter(|body| *body == "other").count();
    assert!((90..=110).contains(&others()), "at the start all are warm");
    let endpoint = Arc::clone(&endpoints(&teal)[1]);
    endpoint.obstruct(Obstacle::Draining, true);
    assert_eq!(others(), 0);
    endpoint.obstruct(Obstacle::Draining, false);
    // A tenth against the whole of the other: one of eleven.
    let cold = others();
    assert!((1..60).contains(&cold), "{cold}");
}
