//! A sweeper over tables made by hand, in played time; and a pool under arbitrary events.

use proptest::prelude::*;

use super::*;
use crate::bridge::balancer::Balancer;
use crate::bridge::counters::PerWorker;
use crate::bridge::observations::Book;
use crate::bridge::table::Service;
use crate::config::settings::{self, Address, Protocol};
use crate::domain::balance::Balance;
use crate::domain::outcome::{Failure, Outcome};
use crate::domain::outlier::{FailureShare, Latency, Least, Policy};

const SECOND: u64 = 1_000_000;
const RESET: Outcome = Outcome::Failed(Failure::Reset);

/// A service `shop` with a pool `green` of changing endpoints.
struct Stage {
    policy: Policy,
    bench: Arc<Bench>,
    all: Vec<Arc<Endpoint>>,
    table: Table,
    sweeper: Sweeper,
    now: u64,
}

fn endpoint(number: u16) -> Arc<Endpoint> {
    Arc::new(Endpoint::new(number.into(), Address::http("10.0.0.1", number), 1))
}

impl Stage {
    fn new(endpoints: u16, policy: Policy) -> Stage {
        let all = (1..=endpoints).map(endpoint).collect();
        let bench = Arc::default();
        let mut stage = Stage { policy, bench, all, table: Table::empty(), sweeper: Sweeper::default(), now: 0 };
        stage.publish();
        stage
    }

    fn publish(&mut self) {
        let pool = Pool {
            name: "green".to_owned(),
            rolled_back: false,
            endpoints: self.all.clone(),
            protocol: Protocol::Http1,
            connector: None,
            proxy_protocol: None,
            pace: Arc::default(),
            breaker: Arc::default(),
            room: Arc::default(),
            balancer: Arc::new(Balancer::new(Balance::default(), &[], &Arc::default(), 1)),
            tally: Arc::new(PerWorker::new(1)),
            ejection: self.policy,
            bench: Arc::clone(&self.bench),
        };
        let service = Service {
            settings: Arc::new(settings::Service::new("shop".to_owned(), Vec::new())),
            epoch: 0,
            active: 0,
            split: Vec::new(),
            pools: vec![Arc::new(pool)],
            book: Arc::new(Book::new(0, 0, 1, 1, None)),
            purse: Arc::new(crate::bridge::purse::Purse::new(1)),
            intake: Arc::default(),
            faults: Arc::default(),
        };
        let version = self.table.version + 1;
        self.table = Table { version, services: vec![Arc::new(service)], ..Table::empty() };
    }

    fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.table.services[0].pools[0])
    }

    fn fail(&self, at: usize, times: usize) {
        let pool = self.pool();
        for _ in 0..times {
            ejection::turned_out(&pool, &self.all[at], 0, self.now, RESET);
        }
    }

    fn serve(&self, at: usize, times: usize, latency: u64) {
        let pool = self.pool();
        for _ in 0..times {
            ejection::turned_out(&pool, &self.all[at], 0, self.now, Outcome::Answered { status: 200, latency });
            ejection::went_well(&pool, &self.all[at], 0);
        }
    }

    /// Sweeps after so many seconds more; what is told.
    fn after(&mut self, seconds: u64) -> Vec<String> {
        self.now += seconds * SECOND;
        let news = self.sweeper.sweep(&self.table, self.now, || 0.0);
        assert!(news.iter().all(|news| news.service == "shop"));
        news.into_iter().map(|news| news.sentence).collect()
    }

    fn out(&self) -> usize {
        self.all.iter().filter(|endpoint| endpoint.has(Obstacle::Ejected)).count()
    }
}

#[test]
fn an_endpoint_is_out_for_its_term_and_longer_the_next_time() {
    let mut stage = Stage::new(3, Policy::default());
    assert_eq!(stage.after(100), [""; 0]);
    stage.fail(1, 5);
    let gone = "http://10.0.0.1:2 of shop/green ejected for 10s: 5 gateway failures in a row";
    assert_eq!(stage.after(0), [gone]);
    assert_eq!(stage.all[1].reason().as_deref(), Some("5 gateway failures in a row, out for 10s"));
    assert_eq!(stage.after(9), [""; 0]);
    assert_eq!(stage.after(1), ["http://10.0.0.1:2 of shop/green is back"]);
    assert_eq!((stage.out(), stage.all[1].reason()), (0, None));
    stage.fail(1, 6);
    let longer = "http://10.0.0.1:2 of shop/green ejected for 20s: 6 gateway failures in a row";
    assert_eq!(stage.after(0), [longer]);
    assert_eq!(stage.after(19), [""; 0]);
    assert_eq!(stage.after(1).len(), 1);
    assert_eq!((stage.bench.taken(), stage.bench.ejections(Cause::Gateway)), (0, 2));
}

#[test]
fn comparing_takes_out_the_worst_and_not_again_for_the_same() {
    let latency = Latency { least: Least { requests: 10, endpoints: 3 }, ..Latency::default() };
    let policy = Policy { latency: Some(latency), failure_share: Some(FailureShare::default()), ..Policy::default() };
    let policy = Policy { consecutive_gateway: None, ..policy };
    let mut stage = Stage::new(4, policy);
    stage.after(0);
    for at in 0..3 {
        stage.serve(at, 100, 2_000);
    }
    stage.serve(3, 100, 90_000);
    stage.fail(2, 2_000);
    let told = stage.after(1);
    let failing = "http://10.0.0.1:3 of shop/green ejected for 10s: 2000 of 2100 requests failed";
    let slow = "http://10.0.0.1:4 of shop/green ejected for 10s: answers take 90.0 ms, 2.0 ms in the pool";
    assert_eq!(told, [failing, slow]);
    assert_eq!(stage.after(10).len(), 2, "both come back");
    for at in 0..4 {
        stage.serve(at, 100, 2_000);
    }
    assert_eq!(stage.after(1), [""; 0], "what was before does not count again");
}

#[test]
fn an_endpoint_that_leaves_gives_its_seat_back_even_if_it_fails_late() {
    let mut stage = Stage::new(4, Policy::default());
    stage.after(0);
    let before = stage.pool();
    let late = stage.all.pop().unwrap();
    stage.fail(0, 5);
    stage.after(1);
    let gone = stage.all.remove(0);
    stage.publish();
    assert_eq!((stage.bench.taken(), stage.after(1)), (1, vec![]));
    assert_eq!(stage.bench.taken(), 0);
    // A request that was in flight on the table before.
    for _ in 0..5 {
        ejection::turned_out(&before, &late, 0, 0, RESET);
    }
    assert_eq!(stage.bench.taken(), 1);
    stage.after(0);
    assert_eq!((stage.bench.taken(), stage.sweeper.leavers.len()), (0, 2));
    drop((before, late, gone));
    stage.after(0);
    assert_eq!(stage.sweeper.leavers.len(), 0);
}

#[test]
fn a_pool_that_became_smaller_takes_back_what_is_too_much() {
    let mut stage = Stage::new(6, Policy::default());
    stage.after(0);
    (0..3).for_each(|at| stage.fail(at, 5));
    assert_eq!((stage.after(1).len(), stage.out()), (3, 3));
    stage.all.truncate(3);
    stage.publish();
    let early = "is back before its time: the pool has become smaller";
    let told = stage.after(1);
    assert!(told.len() == 2 && told.iter().all(|told| told.ends_with(early)), "{told:?}");
    assert_eq!((stage.out(), stage.bench.taken()), (1, 1));
    stage.policy = stage.policy.off();
    stage.publish();
    assert_eq!((stage.after(0).len(), stage.out(), stage.bench.taken()), (1, 0, 0));
}

#[test]
fn a_successor_serves_the_rest_of_the_term() {
    let mut stage = Stage::new(2, Policy::default());
    stage.after(0);
    stage.fail(0, 5);
    stage.after(4);
    let successor = Arc::new(Endpoint::new(77, Address::http("10.0.0.1", 1), 1));
    successor.succeed(&stage.all[0]);
    stage.all[0].retire();
    stage.all[0] = successor;
    stage.publish();
    assert_eq!((stage.after(5), stage.out()), (vec![], 1));
    assert_eq!((stage.after(1).len(), stage.out(), stage.bench.taken()), (1, 0, 0));
}

#[test]
fn terms_are_written_in_seconds() {
    assert_eq!([10 * SECOND, 10_740_000, 99_999, 301 * SECOND].map(seconds), ["10s", "10.7s", "0s", "301s"]);
}

/// What may happen to a pool.
#[derive(Clone, Debug)]
enum Event {
    Fail(usize),
    Serve(usize),
    Sick(usize, bool),
    Leave(usize),
    Join,
    Share(u16),
    Sweep(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..8_usize).prop_map(Event::Fail),
        2 => (0..8_usize).prop_map(Event::Serve),
        1 => (0..8_usize, any::<bool>()).prop_map(|(at, sick)| Event::Sick(at, sick)),
        1 => (0..8_usize).prop_map(Event::Leave),
        1 => Just(Event::Join),
        1 => (0..=10_000_u16).prop_map(Event::Share),
        3 => (0..15_u64).prop_map(Event::Sweep),
    ]
}

proptest! {
    #[test]
    fn no_more_are_ever_out_than_the_share_allows(events in prop::collection::vec(event(), 0..200), endpoints in 1..8_u16) {
        let failure_share = Some(FailureShare { least: Least { requests: 3, endpoints: 2 }, ..FailureShare::default() });
        let policy = Policy { consecutive_gateway: std::num::NonZeroU32::new(2), failure_share, ..Policy::default() };
        let mut stage = Stage::new(endpoints, policy);
        let mut next = endpoints;
        stage.after(0);
        for event in events {
            let at = |at: usize| at % stage.all.len();
            match event {
                Event::Fail(who) => stage.fail(at(who), 3),
                Event::Serve(who) => stage.serve(at(who), 3, 1_000),
                Event::Sick(who, sick) => {
                    stage.all[at(who)].obstruct(Obstacle::Unhealthy, sick);
                }
                Event::Leave(who) if stage.all.len() > 1 => {
                    let who = at(who);
                    stage.all.remove(who).retire();
                    stage.publish();
                    stage.after(0);
                }
                Event::Leave(_) => {}
                Event::Join => {
                    next += 1;
                    stage.all.push(endpoint(next));
                    stage.publish();
                    stage.after(0);
                }
                Event::Share(points) => {
                    stage.policy.max_ejected = crate::domain::split::Share::from_basis_points(points).unwrap();
                    stage.publish();
                    stage.after(0);
                }
                Event::Sweep(seconds) => drop(stage.after(seconds)),
            }
            let (out, all) = (stage.out(), stage.all.len());
            prop_assert!(out <= stage.policy.most_out(all), "{} of {} are out", out, all);
            prop_assert!(out < all);
            prop_assert_eq!(stage.bench.taken(), out, "a seat for each, and none besides");
        }
        // In the end everybody comes back; the first look may still find somebody.
        (0..2).for_each(|_| drop(stage.after(1_000)));
        prop_assert_eq!((stage.out(), stage.bench.taken()), (0, 0));
    }
}
