//! The split: overrides, stickiness, swaps under load and what an acknowledgement means.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use super::support::teal::Teal;
use super::support::upstream::Upstream;

fn pools() -> (Upstream, Upstream) {
    (Upstream::plain("blue"), Upstream::plain("green"))
}

#[test]
fn the_first_pool_has_everything_until_told_otherwise() {
    let (blue, green) = pools();
    let teal = Teal::shop(&blue, &green, "");
    let mut client = teal.client();
    assert!((0..50).all(|_| client.get("/", "").body == "blue"));
    teal.weigh(100).unwrap();
    assert!((0..50).all(|_| client.get("/", "").body == "green"));
    teal.weigh(50).unwrap();
    let greens = (0..400).filter(|_| client.get("/", "").body == "green").count();
    // Six sigma of a fair coin.
    assert!((140..=260).contains(&greens), "{greens} of 400");
}

#[test]
fn overrides_beat_the_split() {
    let (blue, green) = pools();
    let rules = "overrides:\n  - { name: qa, match: { header: { x-canary: always } }, pool: green }\n  - { name: beta, match: { cookie: { beta: present } }, pool: green }";
    let rules = rules.replace("beta: present }", "beta: { present: true } }");
    let teal = Teal::shop(&blue, &green, &rules);
    let mut client = teal.client();
    assert_eq!(client.get("/", "X-Canary: always\r\n").body, "green");
    assert_eq!(client.get("/", "Cookie: a=1; beta=2\r\n").body, "green");
    assert_eq!(client.get("/", "X-Canary: never\r\n").body, "blue");
}

#[test]
fn a_rollback_moves_qa_too_unless_the_rule_insists() {
    let (blue, green) = pools();
    let rules = "overrides:\n  - { name: qa, match: { header: { x-qa: yes } }, pool: green }\n  - { name: keen, match: { header: { x-keen: yes } }, pool: green, even_when_rolled_back: true }";
    let teal = Teal::shop(&blue, &green, &rules.replace("yes", "\"1\""));
    let mut client = teal.client();
    teal.weigh(10).unwrap();
    assert_eq!(client.get("/", "X-QA: 1\r\n").body, "green");
    teal.wait(teal.running().controller.rollback("shop", "test", "")).unwrap();
    assert_eq!(client.get("/", "X-QA: 1\r\n").body, "blue");
    assert_eq!(client.get("/", "X-Keen: 1\r\n").body, "green");
    teal.weigh(10).unwrap();
    assert_eq!(client.get("/", "X-QA: 1\r\n").body, "green");
}

#[test]
fn a_sticky_client_stays_on_its_side_and_a_rollback_moves_it() {
    let (blue, green) = pools();
    let teal = Teal::shop(&blue, &green, "sticky: { cookie: side, max_age: 1h }");
    teal.weigh(50).unwrap();
    for _ in 0..20 {
        let first = teal.client().get("/", "");
        let cookie = first.header("set-cookie").unwrap().to_owned();
        assert!(cookie.contains("Max-Age=3600") && cookie.contains("HttpOnly"), "{cookie}");
        let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
        let again = teal.client().get("/", &cookie);
        assert_eq!((again.body.as_str(), again.header("set-cookie")), (first.body.as_str(), None));
    }
    let odd = teal.client().get("/", "Cookie: side=green\r\n");
    assert!(odd.header("set-cookie").is_some(), "only ids of our own making count");
}

#[test]
fn a_header_key_falls_on_one_side_and_raising_the_share_moves_it_one_way() {
    let (blue, green) = pools();
    let teal = Teal::shop(&blue, &green, "split_by: { header: x-user }");
    let mut client = teal.client();
    let sides = |client: &mut super::support::client::Client| -> Vec<bool> {
        (0..200).map(|user| client.get("/", &format!("X-User: u{user}\r\n")).body == "green").collect()
    };
    let mut before = vec![false; 200];
    for share in [10, 30, 60, 90, 100] {
        teal.weigh(share).unwrap();
        let now = sides(&mut client);
        assert_eq!(now, sides(&mut client));
        assert!(before.iter().zip(&now).all(|(before, now)| !before || *now), "at {share}%");
        before = now;
    }
    assert!(before.iter().all(|green| *green));
}

#[test]
fn swaps_under_load_cost_no_request_and_no_new_one_reaches_the_old_pool() {
    let (blue, green) = pools();
    let teal = Teal::shop(&blue, &green, "");
    let stop = AtomicBool::new(false);
    let (failed, served) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for number in 0..4 {
            let (teal, stop, failed, served) = (&teal, &stop, &failed, &served);
            scope.spawn(move || {
                let mut client = teal.client();
                while !stop.load(SeqCst) {
                    let answer = if number % 2 == 0 { client.get("/", "") } else { client.post("/", "x") };
                    if answer.status != 200 {
                        failed.fetch_add(1, SeqCst);
                    }
                    served.fetch_add(1, SeqCst);
                }
            });
        }
        for round in 0..40 {
            let to_green = round % 2 == 0;
            teal.weigh(if to_green { 100 } else { 0 }).unwrap();
            let old = if to_green { &blue } else { &green };
            // What was dispatched before the acknowledgement may still be on its way into the upstream's count.
            let flying = teal.running().controller.service("shop").unwrap();
            let pool = &flying.pools[usize::from(!to_green)];
            let ceiling = old.count() + pool.in_flight + 4;
            let target = served.load(SeqCst) + 100;
            while served.load(SeqCst) < target {
                thread::yield_now();
            }
            assert!(old.count() <= ceiling, "round {round}: {} > {ceiling}", old.count());
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(failed.load(SeqCst), 0);
    assert_eq!(blue.count() + green.count(), served.load(SeqCst));
}

#[test]
fn nonsense_weights_are_refused_with_a_hint() {
    let (blue, green) = pools();
    let teal = Teal::shop(&blue, &green, "");
    let set = |pool: &str, share: &str| {
        let shares = vec![(pool.to_owned(), share.parse().unwrap())];
        teal.wait(teal.running().controller.set_weights("shop", shares, None, "test")).unwrap_err().to_string()
    };
    assert_eq!(set("gren", "100%"), "there is no pool `gren`; did you mean `green`?");
    assert_eq!(set("green", "40%"), "shares must sum to 100%, these sum to 40%");
    let stale = vec![("green".to_owned(), "100%".parse().unwrap())];
    let stale = teal.wait(teal.running().controller.set_weights("shop", stale, Some(99), "test")).unwrap_err();
    assert_eq!(stale.to_string(), "the service is at epoch 0, not 99: look again and decide anew");
}
