//! Choosing: the pool by override or split, the endpoint by balance.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use teal::bridge::balancer::{Ask, Balancer};
use teal::bridge::counters::PerWorker;
use teal::bridge::endpoint::Endpoint;
use teal::bridge::observations::Book;
use teal::bridge::purse::Purse;
use teal::bridge::table::{Pool, Service};
use teal::config::settings::{self, Address};
use teal::domain::balance::{Balance, Factor, Hashing, Key, Policy, Rank};
use teal::domain::outcome::Outcome;
use teal::domain::route::{Condition, Override, RequestView, Scheme, Test};
use teal::domain::split::{self, Share, Slot};

use crate::Table;

/// A browser's request, as decisions see it.
pub(crate) struct Request {
    pub(crate) headers: Vec<(&'static str, &'static str)>,
}

impl RequestView for Request {
    fn method(&self) -> &str {
        "GET"
    }

    fn path(&self) -> &str {
        "/products/list"
    }

    fn query(&self) -> &str {
        ""
    }
    fn scheme(&self) -> Scheme {
        Scheme::Http
    }
    fn host(&self) -> &str {
        "www.example.com"
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn client(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }
}

pub(crate) fn rows(table: &Table) {
    let request = Request {
        headers: vec![
            ("user-agent", "Mozilla/5.0"),
            ("accept", "text/html"),
            ("accept-language", "en"),
            ("cookie", "_ga=GA1.2.1234567890.1690000000; session=8f14e45fceea167a5a36dedd4bea2543; theme=dark"),
        ],
    };
    for rules in [0, 1, 8] {
        let service = service(rules);
        let mut key = 0_u64;
        table.row(&format!("pool: split after {rules} overrides that do not match"), || {
            key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
            black_box(&service).assign(&request, black_box(key))
        });
    }
    table.row("pool: key of a sticky cookie", || split::hash_bytes(black_box(b"8f14e45fceea167a"), 0));
    picks(table);
}

/// One pick of each policy, as a worker makes it: with some requests in flight at every endpoint, and a key where the
/// policy goes by one.
fn picks(table: &Table) {
    let hashing = || Hashing { by: Key::Client, load_factor: Some(Factor::from_hundredths(125)) };
    let policies = [
        ("least request", Policy::LeastRequest),
        ("round robin", Policy::RoundRobin),
        ("peak EWMA", Policy::PeakEwma),
        ("ring hash", Policy::RingHash(hashing())),
        ("Maglev", Policy::Maglev(hashing())),
    ];
    for (name, policy) in policies {
        for count in [3, 10, 100] {
            let ranked: Vec<_> = endpoints_of(count).into_iter().map(|one| (one, Rank::default())).collect();
            let balance = Balance { policy: policy.clone(), ..Balance::default() };
            let balancer = Balancer::new(balance, &ranked, &Arc::default(), 1);
            let endpoints: Vec<_> = ranked.into_iter().map(|(endpoint, _)| endpoint).collect();
            let mut turn = 0_u64;
            table.row(&format!("endpoint: {name} among {count}"), || {
                turn += 1;
                let random = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let ask = Ask { worker: 0, key: balancer.plan().key().map(|_| random), random, now: turn, avoid: &[] };
                balancer.pick(black_box(&endpoints), ask).map(|endpoint| endpoint.id)
            });
        }
    }
}

fn endpoints_of(count: u16) -> Vec<Arc<Endpoint>> {
    let endpoint = |at: u16| {
        let endpoint = Endpoint::new(at.into(), Address::http("127.0.0.1", at), 1);
        endpoint.in_flight_of(0).add(u64::from(at) % 4);
        endpoint.turned_out(0, 1, Outcome::Answered { status: 200, latency: 1_000 + u64::from(at) });
        Arc::new(endpoint)
    };
    (1..=count).map(endpoint).collect()
}

/// Two pools with half of the traffic each, behind so many overrides.
fn service(rules: usize) -> Service {
    let names = ["blue", "green"].map(str::to_owned);
    let pool = |name: &String| settings::Pool::new(name.clone(), [] as [Address; 0]);
    let mut settings = settings::Service::new("shop".to_owned(), names.iter().map(pool).collect());
    settings.overrides = (0..rules).map(rule).collect();
    let share = Share::from_basis_points(5_000).expect("half is a share");
    let pool = |name: &String| {
        let tally = Arc::new(PerWorker::new(1));
        Arc::new(Pool {
            name: name.clone(),
            rolled_back: false,
            endpoints: Vec::new(),
            balancer: Arc::new(Balancer::new(Balance::default(), &[], &Arc::default(), 1)),
            protocol: settings::Protocol::default(),
            connector: None,
            proxy_protocol: None,
            pace: Arc::default(),
            tally,
            breaker: Arc::default(),
            room: Arc::default(),
            ejection: Default::default(),
            bench: Arc::default(),
        })
    };
    Service {
        settings: Arc::new(settings),
        epoch: 1,
        active: 0,
        split: names.iter().map(|name| Slot { seed: split::seed(name, 1), share }).collect(),
        pools: names.iter().map(pool).collect(),
        book: Arc::new(Book::new(1, 0, 2, 1, None)),
        purse: Arc::new(Purse::new(1)),
        intake: Arc::default(),
        faults: Arc::default(),
    }
}

/// Headers and cookies in turn.
fn rule(at: usize) -> Override {
    let test = Test::Exact("always".to_owned());
    let name = format!("x-canary-{at}");
    let condition = if at.is_multiple_of(2) { Condition::Header(name, test) } else { Condition::Cookie(name, test) };
    Override { name: format!("rule {at}"), conditions: vec![condition], pool: 1, even_when_rolled_back: false }
}
