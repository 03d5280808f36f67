//! Breakers over real traffic: what opens one, who answers meanwhile, how it closes, and what a rollout makes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use teal::control::command::PoolStatus;
use teal::domain::outcome::Failure;
use teal::domain::rollout::machine::{Cause, End, Phase};

use super::support::load::Load;
use super::support::teal::{Teal, shop_text};
use super::support::upstream::{Act, Upstream, broken, ok};

/// Opens after three errors in a row, then for longer each time; two trials.
const QUICK: &str = "{ consecutive: 3, cool_down: 1500ms, max_cool_down: 2s, trials: 2 }";

/// An upstream that fails as long as it is told to.
fn faulty(name: &'static str) -> (Upstream, Arc<AtomicBool>) {
    let bad = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&bad);
    let upstream = Upstream::start(move |_| Act::Answer(if told.load(SeqCst) { broken() } else { ok(name) }));
    (upstream, bad)
}

/// Teal with this breaker for green only, and with half of the traffic there.
fn half_green(blue: &Upstream, green: &Upstream, breaker: &str) -> Teal {
    let green = format!("{{ endpoints: '{}', breaker: {breaker} }}", green.url());
    let pools = [("blue", blue.url()), ("green", green)];
    let pools: Vec<_> = pools.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let teal = Teal::start(&shop_text("none", &pools, "guard: off\nhealth: off\nretry: off"));
    teal.weigh(50).unwrap();
    teal
}

/// The phase, the openings, and the diverted and blocked requests of a pool's breaker.
fn breaker_of(teal: &Teal, pool: usize) -> (&'static str, u64, u64, u64) {
    let status = teal.shop_now().pools.swap_remove(pool).breaker.expect("a breaker");
    (status.phase, status.trips, status.diverted, status.blocked)
}

#[test]
fn a_sick_canary_is_cut_off_blue_answers_and_trials_bring_it_back() {
    let (blue, (green, bad)) = (Upstream::plain("blue"), faulty("green"));
    let teal = half_green(&blue, &green, QUICK);
    let mut client = teal.client();
    let failed = (0..).map(|_| client.get("/", "")).take_while(|_| green.count() < 3).filter(|a| a.status == 500);
    assert!(failed.count() <= 3);
    assert_eq!(breaker_of(&teal, 1).0, "open");
    // Nobody notices any more, and green is left in peace.
    for _ in 0..30 {
        assert_eq!(client.get("/", "").body, "blue");
    }
    assert_eq!(green.count(), 3);
    let (_, trips, diverted, blocked) = breaker_of(&teal, 1);
    assert!(trips == 1 && diverted > 5 && blocked == 0, "{diverted} diverted");
    // Still sick: one request on trial, and a longer time for itself.
    let tried = |client: &mut super::support::client::Client, count| {
        teal.until("a trial", || {
            client.get("/", "");
            green.count() >= count
        });
    };
    tried(&mut client, 4);
    assert_eq!((green.count(), breaker_of(&teal, 1).1), (4, 2));
    bad.store(false, SeqCst);
    tried(&mut client, 6);
    assert_eq!(breaker_of(&teal, 1).0, "closed");
    teal.until("green has its share again", || {
        client.get("/", "");
        green.count() > 20
    });
    teal.until("it is told", || teal.told("breaker").iter().any(|sentence| sentence.contains("closed")));
    let told = teal.told("breaker");
    assert_eq!(told[0], "green's breaker opened: 3 errors in a row; its requests go to blue for 1s 500ms");
    let again = "green's breaker opened again: a request on trial did not go well; its requests go to blue for 2s";
    assert!(told.iter().any(|sentence| sentence == again), "{told:?}");
    assert_eq!(told.last().unwrap(), "green's breaker closed: 2 requests on trial went well");
}

#[test]
fn where_there_is_nobody_else_an_open_breaker_answers_503_and_says_when_to_come_again() {
    let ((blue, bad), green) = (faulty("blue"), Upstream::plain("green"));
    let more = "guard: off\nhealth: off\nretry: off\nbreaker: { consecutive: 3, cool_down: 30s }\n\
                overrides: [ { name: qa, match: { header: { x-qa: '1' } }, pool: green } ]";
    let teal = Teal::shop(&blue, &green, more);
    let mut client = teal.client();
    (0..3).for_each(|_| assert_eq!(client.get("/", "").status, 500));
    let answer = client.get("/", "");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")), "{answer:?}");
    assert!(answer.body.contains("no upstream available for the moment"), "{}", answer.body);
    // The connection serves on, and an override still reaches green.
    assert_eq!(client.get("/", "X-Qa: 1\r\n").body, "green");
    bad.store(false, SeqCst);
    assert_eq!((client.get("/", "").status, blue.count()), (503, 3));
    assert_eq!(breaker_of(&teal, 0), ("open", 1, 0, 2));
    let mut admin = teal.admin();
    let shown = admin.get_from("localhost", "/v1/services/shop", "").body;
    assert!(shown.contains(r#""breaker":{"state":"open","trips":1,"wait_ms":"#), "{shown}");
    let metrics = admin.get_from("localhost", "/metrics", "").body;
    for line in ["teal_pool_breaker_state{", "teal_pool_breaker_trips_total{", "teal_pool_blocked_total{"] {
        let value = if line.contains("trips") { " 1" } else { " 2" };
        let found = metrics.lines().find(|text| text.starts_with(line) && text.contains("blue"));
        assert!(found.is_some_and(|text| text.ends_with(value)), "{line}: {found:?}");
    }
}

#[test]
fn an_override_to_a_blocked_canary_is_answered_503_and_never_sent_elsewhere() {
    let (blue, (green, _bad)) = (Upstream::plain("blue"), faulty("green"));
    let more = "guard: off\nhealth: off\nretry: off\nbreaker: { consecutive: 2, cool_down: 30s }\n\
                overrides: [ { name: qa, match: { header: { x-qa: '1' } }, pool: green } ]";
    let teal = Teal::shop(&blue, &green, more);
    let mut client = teal.client();
    let statuses = [0; 4].map(|_| client.get("/", "X-Qa: 1\r\n").status);
    assert_eq!((statuses, green.count(), blue.count()), ([500, 500, 503, 503], 2, 0));
}

#[test]
fn refused_connections_open_a_breaker_too() {
    let (blue, green) = (Upstream::plain("blue"), Upstream::plain("green"));
    let teal = half_green(&blue, &green, "{ consecutive: 3, cool_down: 1m }");
    green.crash();
    let mut client = teal.client();
    teal.until("it opens", || {
        client.get("/", "");
        breaker_of(&teal, 1).0 == "open"
    });
    let now = teal.shop_now().pools.swap_remove(1);
    // Nobody has knocked since.
    assert!((0..50).all(|_| client.get("/", "").body == "blue"));
    // One of them may have met somebody else who was given the port meanwhile.
    let connect = |pool: &PoolStatus| pool.failures[Failure::Connect as usize];
    assert!((1..=3).contains(&connect(&now)), "{:?}", now.failures);
    assert_eq!(connect(&now), connect(&teal.shop_now().pools[1]));
    assert_eq!(now.breaker.expect("a breaker").reason, "3 errors in a row");
}

#[test]
fn slow_answers_open_a_breaker_that_asks_for_it_and_so_does_silence() {
    let blue = Upstream::plain("blue");
    let green = Upstream::start(|_| Act::Hang);
    let slow =
        "{ consecutive: off, error_rate: off, min_requests: 3, slow: { over: 50ms, share: 50% }, cool_down: 1m }";
    let teal = half_green(&blue, &green, slow);
    // Each of these waits for green until it is cut off; none of them ever ends by itself.
    let waiting: Vec<Load> = (0..12).map(|_| Load::start(teal.address, 1)).collect();
    teal.until("the breaker opens", || breaker_of(&teal, 1).0 == "open");
    let mut client = teal.client();
    assert!((0..50).all(|_| client.get("/", "").body == "blue"));
    green.crash();
    drop(waiting);
}

#[test]
fn one_bad_endpoint_of_several_is_left_alone_and_tried_again() {
    let (good, (sick, bad)) = (Upstream::plain("good"), faulty("mended"));
    let both = format!(
        "{{ endpoints: ['{}', '{}'], breaker: {{ consecutive: off, error_rate: 100%, endpoint: {QUICK} }} }}",
        good.url(),
        sick.url()
    );
    let more = "guard: off\nhealth: off\nretry: off\nbalance: round_robin";
    let teal = Teal::start(&shop_text("none", &[("blue", &both)], more));
    let mut client = teal.client();
    let failed = (0..100).filter(|_| client.get("/", "").status != 200).count();
    // A slow machine may see a trial or two.
    assert!((3..=5).contains(&failed), "{failed}");
    let endpoint = |at: usize| teal.shop_now().pools[0].endpoints[at].breaker.clone().expect("a breaker");
    assert_eq!((endpoint(0).phase, endpoint(1).trips >= 1), ("closed", true));
    bad.store(false, SeqCst);
    teal.until("it is back", || client.get("/", "").body == "mended" && endpoint(1).phase == "closed");
    assert!((0..20).any(|_| client.get("/", "").body == "mended"));
}

/// A rollout whose judge tolerates far more errors than a breaker does, so that the breaker speaks first.
fn rollout_text(blue: &Upstream, green: &Upstream, breaker: &str) -> String {
    let analysis = "alpha: 0.0001%, beta: 40%, min_requests: 50, tolerate: { errors_odds: 20, latency: 900% }, \
                    approve: { errors_odds: 50, latency: 1000% }";
    let steps = "{ weight: 20% }, { analyze: 300ms }, { weight: 50% }, { analyze: 300ms }";
    let more = format!(
        "analysis: {{ {analysis} }}\nhealth: off\nretry: off\nbreaker: {breaker}\nrollout: {{ steps: [ {steps} ] }}"
    );
    shop_text("none", &[("blue", &blue.url()), ("green", &green.url())], &more)
}

/// An upstream that fails now and then, never twice in a row.
fn human(name: &'static str) -> Upstream {
    let turn = AtomicU64::new(0);
    Upstream::start(move |_| Act::Answer(if turn.fetch_add(1, SeqCst) % 10 == 9 { broken() } else { ok(name) }))
}

#[test]
fn a_rollout_is_held_while_the_canary_is_blocked_and_goes_on_by_itself() {
    let (blue, (green, bad)) = (human("blue"), faulty("green"));
    let teal = Teal::start(&rollout_text(&blue, &green, "{ consecutive: 3, cool_down: 300ms, max_cool_down: 300ms }"));
    let load = Load::start(teal.address, 2);
    teal.until("a baseline is learned", || load.served() >= 700);
    let id = teal.deploy("green").unwrap();
    teal.until("it is held", || teal.phase() == Some(Phase::Held(Cause::Breaker)));
    let reason = teal.shop_now().rollout.unwrap().reason;
    assert!(reason.contains("held by green's breaker (") && reason.contains("in this rollout"), "{reason}");
    let refused = teal.act(&id, teal::control::command::Act::Resume).unwrap_err().to_string();
    assert!(refused.contains("once the breaker is closed"), "{refused}");
    assert_eq!(teal.split(), (20.0, "blue".to_owned()));
    bad.store(false, SeqCst);
    teal.until("it goes on", || {
        teal.told("resumed").iter().any(|told| told.contains("green's breaker is closed again"))
    });
    assert_eq!(teal.ended(&id).0, End::Promoted);
    drop(load);
}

#[test]
fn a_breaker_that_opens_too_often_rolls_back_by_rule_and_says_so() {
    let (blue, (green, _bad)) = (human("blue"), faulty("green"));
    let breaker = "{ consecutive: 3, cool_down: 100ms, rollback_after: 3 }";
    let teal = Teal::start(&rollout_text(&blue, &green, breaker));
    let load = Load::start(teal.address, 2);
    teal.until("a baseline is learned", || load.served() >= 700);
    let id = teal.deploy("green").unwrap();
    let (end, reason) = teal.ended(&id);
    assert_eq!((end, teal.split()), (End::RolledBack, (0.0, "blue".to_owned())));
    assert!(reason.contains("green's breaker opened 3 times in this rollout, lastly by "), "{reason}");
    assert!(reason.contains("`rollback_after: 3` is a rule, not the judge's finding"), "{reason}");
    assert_eq!(teal.running().controller.rollbacks(), (0, 0, 1));
    drop(load);
}

#[test]
fn a_breaker_survives_a_reload_and_other_rules_begin_anew() {
    let (blue, (green, _bad)) = (Upstream::plain("blue"), faulty("green"));
    let text = |more: &str| {
        let more = format!("guard: off\nhealth: off\nretry: off\n{more}");
        shop_text("none", &[("blue", &blue.url()), ("green", &green.url())], &more)
    };
    let teal = Teal::in_folder(&text("breaker: { consecutive: 2, cool_down: 1m }"));
    teal.weigh(50).unwrap();
    let mut client = teal.client();
    teal.until("it opens", || {
        client.get("/", "");
        breaker_of(&teal, 1).0 == "open"
    });
    let reload = |more: &str| {
        std::fs::write(teal.folder.as_ref().unwrap().path().join("teal.yaml"), text(more)).unwrap();
        teal.wait(teal.running().controller.reload("test")).unwrap();
    };
    reload("breaker: { consecutive: 2, cool_down: 1m }\ntimeouts: { idle: 59s }");
    assert_eq!((breaker_of(&teal, 1).0, breaker_of(&teal, 1).1), ("open", 1));
    reload("breaker: { consecutive: 4, cool_down: 1m }");
    assert_eq!((breaker_of(&teal, 1).0, breaker_of(&teal, 1).1), ("closed", 0));
    reload("breaker: off");
    assert_eq!(teal.shop_now().pools[1].breaker, None);
}
