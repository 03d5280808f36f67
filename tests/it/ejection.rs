//! Endpoints that their own results take out: at once, for a while, and never too many of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use teal::bridge::endpoint::Obstacle;

use super::support::load::Load;
use super::support::teal::Teal;
use super::support::upstream::{Act, Upstream, broken, ok};

/// An upstream that does what `does` says once it is told to be bad.
struct Fickle {
    upstream: Upstream,
    bad: Arc<AtomicBool>,
}

impl Fickle {
    fn new(does: impl Fn() -> Act + Send + Sync + 'static) -> Fickle {
        let bad = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&bad);
        let upstream = Upstream::start(move |_| if told.load(SeqCst) { does() } else { Act::Answer(ok("well")) });
        Fickle { upstream, bad }
    }

    /// Bad, or well again; how many requests arrived before.
    fn turn(&self, bad: bool) -> u64 {
        self.bad.store(bad, SeqCst);
        self.upstream.count()
    }
}

/// A service whose one pool has these endpoints, that nobody checks.
fn pool_of(endpoints: &[&Upstream], ejection: &str) -> Teal {
    let urls: Vec<_> = endpoints.iter().map(|upstream| upstream.url()).collect();
    let blue = format!("[{}]", urls.join(", "));
    Teal::with(&[("blue", &blue)], &format!("health: off\nejection: {ejection}"))
}

/// Obstacles and reason of the endpoint of this number.
fn standing(teal: &Teal, at: usize) -> (Vec<Obstacle>, Option<String>) {
    let endpoint = teal.shop_now().pools[0].endpoints[at].clone();
    (endpoint.obstacles, endpoint.reason)
}

#[test]
fn a_sick_endpoint_is_out_after_five_failures_in_a_row_and_gets_nothing_more() {
    let (one, other, sick) = (Upstream::plain("well"), Upstream::plain("well"), Fickle::new(|| Act::Close));
    let teal = pool_of(&[&one, &other, &sick.upstream], "{ base_time: 1h, max_time: 1h }");
    let get = || teal.client().get("/", "").status;
    assert!((0..30).all(|_| get() == 200) && sick.upstream.count() > 0);
    let before = sick.turn(true);
    // One after the other, so that each failure is known before the next request.
    for _ in 0..400 {
        get();
    }
    assert_eq!(sick.upstream.count() - before, 5);
    assert!((0..50).all(|_| get() == 200));
    teal.until("it is told", || !teal.told("ejection").is_empty());
    let told = teal.told("ejection").remove(0);
    let sentence = format!("{} of shop/blue ejected for ", sick.upstream.url());
    assert!(told.starts_with(&sentence) && told.ends_with(": 5 gateway failures in a row"), "{told}");
    let (obstacles, reason) = standing(&teal, 2);
    assert_eq!(obstacles, [Obstacle::Ejected]);
    assert!(reason.as_ref().is_some_and(|reason| reason.starts_with("5 gateway failures in a row, out for ")));
    let status = teal.admin().order("GET", "/v1/services/shop", "", "").body;
    assert!(status.contains(r#""obstacles":["ejected"]"#), "{status}");
    let metrics = teal.admin().order("GET", "/metrics", "", "").body;
    for line in [
        "teal_pool_ejections_total{service=\"shop\",pool=\"blue\",cause=\"consecutive_gateway\"} 1",
        "teal_pool_obstructed_endpoints{service=\"shop\",pool=\"blue\",obstacle=\"ejected\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[test]
fn an_endpoint_that_was_out_comes_back() {
    let (well, sick) = (Upstream::plain("well"), Fickle::new(|| Act::Close));
    let teal = pool_of(&[&well, &sick.upstream], "{ consecutive_gateway: 2, base_time: 300ms }");
    sick.turn(true);
    teal.until("it is out", || {
        teal.client().get("/", "");
        !teal.told("ejection").is_empty()
    });
    let before = sick.turn(false);
    teal.until("it serves again", || {
        assert_eq!(teal.client().get("/", "").status, 200);
        sick.upstream.count() > before
    });
    let back = format!("{} of shop/blue is back", sick.upstream.url());
    teal.until("it is told", || teal.told("ejection").contains(&back));
    assert_eq!(standing(&teal, 1), (vec![], None));
}

#[test]
fn an_endpoint_that_dies_under_load_costs_nobody_an_answer() {
    let (one, other, dying) = (Upstream::plain("a"), Upstream::plain("b"), Upstream::plain("c"));
    let teal = pool_of(&[&one, &other, &dying], "{ base_time: 1h, max_time: 1h }");
    let clients = 4;
    let load = Load::start(teal.address, clients);
    teal.until("all three serve", || load.served() > 200 && dying.count() > 0);
    dying.crash();
    teal.until("it is out", || standing(&teal, 2).0 == [Obstacle::Ejected]);
    let (served, failed) = (load.served(), load.failed());
    teal.until("the others serve on", || load.served() > served + 500);
    // At most what was in flight when it died.
    assert!(failed.values().sum::<u64>() <= clients as u64, "{failed:?}");
    assert_eq!(load.finish(), failed);
}

#[test]
fn cut_answers_make_a_row_although_their_heads_are_good() {
    let cut = || Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut".to_vec());
    let (well, sick) = (Upstream::plain("well"), Fickle::new(cut));
    let teal = pool_of(&[&well, &sick.upstream], "{ base_time: 1h, max_time: 1h }");
    let before = sick.turn(true);
    for _ in 0..200 {
        let mut client = teal.client();
        client.send("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n");
        // Whole or not: the answer is waited for, so that its end is known.
        client.answer();
    }
    assert_eq!(sick.upstream.count() - before, 5);
    assert_eq!(standing(&teal, 1).0, [Obstacle::Ejected]);
}

#[test]
fn plain_errors_eject_only_where_they_are_counted() {
    let (well, sick) = (Upstream::plain("well"), Fickle::new(|| Act::Answer(broken())));
    let teal = pool_of(&[&well, &sick.upstream], "on");
    sick.turn(true);
    (0..100).for_each(|_| drop(teal.client().get("/", "")));
    assert_eq!(standing(&teal, 1).0, []);
    let teal = pool_of(&[&well, &sick.upstream], "{ consecutive_5xx: 3, base_time: 1h, max_time: 1h }");
    (0..100).for_each(|_| drop(teal.client().get("/", "")));
    assert_eq!(standing(&teal, 1).0, [Obstacle::Ejected]);
}

#[test]
fn an_endpoint_that_fails_more_than_its_pool_is_found_by_comparison() {
    let (one, other, sick) = (Upstream::plain("a"), Upstream::plain("b"), Fickle::new(|| Act::Answer(broken())));
    let ejection = "{ success_rate: { min_requests: 20 }, interval: 100ms, base_time: 1h, max_time: 1h }";
    let teal = pool_of(&[&one, &other, &sick.upstream], ejection);
    sick.turn(true);
    let mut client = teal.client();
    teal.until("it is out", || {
        client.get("/", "");
        standing(&teal, 2).0 == [Obstacle::Ejected]
    });
    assert!((0..100).all(|_| client.get("/", "").status == 200));
    let told = teal.told("ejection").remove(0);
    assert!(told.contains("of its requests succeed, 100.0% of the others'"), "{told}");
}

#[test]
fn the_only_endpoint_of_a_pool_stays_whatever_it_does() {
    let sick = Upstream::start(|_| Act::Close);
    let teal = pool_of(&[&sick], "{ consecutive_gateway: 1 }");
    for _ in 0..20 {
        assert_eq!(teal.client().get("/", "").status, 502);
    }
    assert_eq!(standing(&teal, 0).0, []);
    assert_eq!(teal.told("ejection"), [""; 0]);
}
