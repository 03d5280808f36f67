//! What comes in: rate limits, requests in flight, and that nobody is blamed for what was refused.

use std::time::{Duration, Instant};

use super::support::client::{Answer, Client};
use super::support::teal::{Teal, shop_text};
use super::support::upstream::{Act, Upstream, ok};

/// How a series of answers turned out.
fn statuses(answers: impl IntoIterator<Item = Answer>) -> Vec<u16> {
    answers.into_iter().map(|answer| answer.status).collect()
}

fn limited(blue: &Upstream, limits: &str, more: &str) -> Teal {
    Teal::with(&[("blue", &blue.url())], &format!("rate_limits: [{limits}]\n{more}"))
}

fn metric(teal: &Teal, line: &str) -> bool {
    teal.admin().order("GET", "/metrics", "", "").body.lines().any(|known| known == line)
}

#[test]
fn who_asks_too_often_is_told_when_to_come_again() {
    let blue = Upstream::plain("blue");
    let teal = limited(&blue, "{ name: slow, per: client, rate: 3/h, burst: 2 }", "");
    let mut client = teal.client();
    assert_eq!(statuses([client.get("/", ""), client.get("/", "")]), [200, 200]);
    let refused = client.get("/", "");
    let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(refused.status == 429 && (1_190..=1_200).contains(&wait), "{refused:?}");
    assert!(refused.body.starts_with("429 too many requests (request "), "{refused:?}");
    assert_eq!(refused.header("connection"), None, "the connection goes on");
    assert_eq!(client.post("/", "body").status, 429, "whatever it asks");
    assert_eq!(client.get("/", "").status, 429);
    assert_eq!(blue.count(), 2);
    // It is nobody's failure, and it is seen.
    let shop = teal.shop_now();
    assert_eq!((shop.pools[0].failures.iter().sum::<u64>(), shop.pools[0].responses[4]), (0, 0));
    let limit = &shop.intake.rate_limits[0];
    assert_eq!((limit.name.as_str(), limit.rate.to_string().as_str(), limit.refused), ("slow", "3/h", 3));
    assert!(metric(&teal, "teal_rate_limit_refused_total{service=\"shop\",route=\"\",limit=\"slow\"} 3"));
}

#[test]
fn clients_are_counted_apart_as_trusted_forwarders_name_them() {
    let blue = Upstream::plain("blue");
    let text = shop_text("none", &[("blue", &blue.url())], "rate_limits: [{ name: one, per: client, rate: 1/h }]");
    let teal = Teal::start(&text.replace("workers: 2\n", "workers: 2\nclient: { trusted: 127.0.0.1 }\n"));
    let from = |client: &str| teal.client().get("/", &format!("X-Forwarded-For: {client}\r\n")).status;
    assert_eq!([from("192.0.2.1"), from("192.0.2.1"), from("192.0.2.2")], [200, 429, 200]);
    assert_eq!([from("2001:db8::1"), from("2001:db8::2"), from("2001:db8:0:1::1")], [200, 429, 200], "one /64 is one");
    // Whoever is not trusted speaks for itself.
    let teal = limited(&blue, "{ name: one, per: client, rate: 1/h }", "");
    let from = |client: &str| teal.client().get("/", &format!("X-Forwarded-For: {client}\r\n")).status;
    assert_eq!([from("192.0.2.1"), from("192.0.2.2")], [200, 429]);
    let other = Client::from_source([127, 0, 0, 9], teal.address).get("/", "");
    assert_eq!(other.status, 200);
}

#[test]
fn keys_come_from_a_header_and_those_without_share_one() {
    let blue = Upstream::plain("blue");
    let teal = limited(&blue, "{ name: keys, per: { header: X-Api-Key }, rate: 1/h }", "");
    let mut client = teal.client();
    let mut with = |headers: &str| client.get("/", headers).status;
    assert_eq!([with("X-API-Key: a\r\n"), with("x-api-key: a\r\n"), with("X-API-Key: b\r\n")], [200, 429, 200]);
    assert_eq!([with(""), with("X-Other: c\r\n")], [200, 429]);
}

#[test]
fn a_route_refuses_before_its_service_and_only_what_matches() {
    let blue = Upstream::plain("blue");
    let routes = "routes:
  - { name: login, match: { path: { exact: /login } }, rate_limits: [{ name: guesses, per: all, rate: 1/h, match: { methods: [POST] } }] }
  - { name: rest }";
    let teal = limited(&blue, "{ name: all, per: all, rate: 4/h }", routes);
    let mut client = teal.client();
    assert_eq!(
        statuses([client.post("/login", "a"), client.post("/login", "b"), client.post("/login", "c")]),
        [200, 429, 429]
    );
    assert_eq!(client.get("/login", "").status, 200, "another method");
    // Two of four are used: what the route refused was not counted for the service.
    assert_eq!(statuses([client.get("/", ""), client.get("/", ""), client.get("/", "")]), [200, 200, 429]);
    assert!(metric(&teal, "teal_rate_limit_refused_total{service=\"shop\",route=\"login\",limit=\"guesses\"} 2"));
    assert!(metric(&teal, "teal_rate_limit_refused_total{service=\"shop\",route=\"\",limit=\"all\"} 1"));
}

#[test]
fn a_reload_keeps_what_was_used_of_limits_that_stay() {
    let blue = Upstream::plain("blue");
    let text =
        |limits: &str| shop_text("none", &[("blue", &blue.url())], &format!("rate_limits: [{limits}]\nhealth: off"));
    let (first, other) = ("{ name: a, per: client, rate: 2/h }", "{ name: b, per: all, rate: 100/h }");
    let teal = Teal::in_folder(&text(first));
    let reload = |text: &str| {
        std::fs::write(teal.folder.as_ref().unwrap().path().join("teal.yaml"), text).unwrap();
        // The file is watched as well: whoever comes first reads it.
        teal.wait(teal.running().controller.reload("test")).unwrap();
    };
    let mut client = teal.client();
    assert_eq!(client.get("/", "").status, 200);
    reload(&text(&format!("{first}, {other}")));
    assert_eq!(statuses([client.get("/", ""), client.get("/", "")]), [200, 429]);
    reload(&text(&format!("{}, {other}", first.replace("2/h", "3/h"))));
    assert_eq!(statuses([client.get("/", ""), client.get("/", "")]), [200, 200], "another limit begins anew");
}

#[test]
fn a_full_service_answers_at_once_and_takes_the_next_when_one_is_done() {
    let slow = Upstream::start(|request| match request.line.contains("/hang") {
        true => Act::Hang,
        false => Act::Answer(ok("blue")),
    });
    let teal = Teal::with(&[("blue", &slow.url())], "concurrency: 2\nhealth: off\ntimeouts: { head: 10m }");
    let hanging: Vec<Client> = (0..2)
        .map(|_| {
            let mut client = teal.client();
            client.send("GET /hang HTTP/1.1\r\nHost: shop.test\r\n\r\n");
            client
        })
        .collect();
    teal.until("both are in flight", || slow.count() == 2);
    let mut client = teal.client();
    let refused = client.get("/", "");
    assert_eq!((refused.status, refused.header("retry-after"), refused.header("connection")), (503, Some("1"), None));
    assert!(refused.body.starts_with("503 the service has too many requests at once"), "{refused:?}");
    let shop = teal.shop_now();
    let concurrency = shop.intake.concurrency.unwrap();
    assert_eq!((concurrency.in_flight, concurrency.limit, concurrency.shed), (2, 2, 1));
    assert_eq!(shop.pools[0].failures.iter().sum::<u64>(), 0, "no pool failed");
    assert!(metric(&teal, "teal_service_requests_shed_total{service=\"shop\"} 1"));
    // A client that leaves makes room.
    hanging.into_iter().for_each(Client::reset);
    teal.until("there is room", || client.get("/", "").status == 200);
    teal.until("all are done", || teal.shop_now().intake.concurrency.unwrap().in_flight == 0);
}

#[test]
fn a_limit_that_adapts_falls_under_overload_and_keeps_its_bounds() {
    let blue = Upstream::start(|request| match request.line.contains("/slow") {
        true => Act::Slowly(Duration::from_millis(600), ok("late")),
        false => Act::Slowly(Duration::from_millis(5), ok("blue")),
    });
    // A busy machine makes the fast ones slow as well, but not that slow.
    let concurrency = "concurrency: { max: 200, adaptive: { min: 5, tolerance: 4 } }\nhealth: off";
    let teal = Teal::with(&[("blue", &blue.url())], concurrency);
    let limit = || teal.shop_now().intake.concurrency.unwrap().limit;
    assert_eq!(limit(), 200);
    let mut client = teal.client();
    // It looks five times a second: so many fast answers long that some looks have seen nothing else.
    let begin = Instant::now();
    teal.until("a usual latency is learned", || {
        (0..20).for_each(|_| drop(client.get("/", "")));
        begin.elapsed() > Duration::from_secs(2)
    });
    // Each of them slower than anything before by far, four at a time.
    let mut clients: Vec<Client> = (0..4).map(|_| teal.client()).collect();
    teal.until("the limit falls", || {
        clients.iter_mut().for_each(|client| client.send("GET /slow HTTP/1.1\r\nHost: shop.test\r\n\r\n"));
        clients.iter_mut().for_each(|client| drop(client.answer().unwrap()));
        limit() < 50
    });
    assert!(limit() >= 5);
    assert!(metric(&teal, &format!("teal_service_concurrency_limit{{service=\"shop\"}} {}", limit())));
}
