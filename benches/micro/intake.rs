//! Coming in: what a service's limits cost each request, alone and with other threads at the same limit.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use teal::bridge::intake::Intake;
use teal::config::settings::Service;
use teal::domain::concurrency::Policy;
use teal::domain::rate::{By, Limit, TICKS};
use teal::domain::route::Match;

use crate::Table;
use crate::decisions::Request;

/// Threads beside the one that is measured.
const OTHERS: usize = 7;

pub(crate) fn rows(table: &Table) {
    let request = Request { headers: vec![("x-api-key", "8f14e45fceea167a5a36dedd4bea2543")] };
    let limit = |by| Limit {
        name: "limit".to_owned(),
        matches: Match::default(),
        by,
        rate: "100000/s".parse().expect("a rate"),
        burst: 100_000,
        keys: 65_536,
    };
    let rated = |by: &[By]| {
        let mut service = Service::new("shop".to_owned(), Vec::new());
        service.rate_limits = by.iter().cloned().map(limit).collect();
        service
    };
    let mut counted = rated(&[]);
    counted.concurrency = Some(Policy { max: 1_000, adaptive: None });
    let cases = [
        ("nothing configured", rated(&[])),
        ("a rate limit by client", rated(&[By::Client])),
        ("a rate limit by header", rated(&[By::Header("x-api-key".to_owned())])),
        ("a rate limit for all", rated(&[By::All])),
        ("requests in flight counted", counted),
    ];
    for (name, service) in &cases {
        let intake = Intake::new(service, None, OTHERS + 1);
        // Every thread's clock moves as fast as the rate allows, so that nobody is refused.
        let enter = |worker: usize, now: &mut u64| {
            *now += 200 * TICKS;
            black_box(&intake).is_open() || intake.enter(worker, 0, &request, *now).is_ok()
        };
        let mut now = 0;
        table.row(&format!("intake: {name}"), || enter(0, &mut now));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for worker in 1..=OTHERS {
                let (enter, stop) = (&enter, &stop);
                scope.spawn(move || {
                    let mut now = 0;
                    while !stop.load(Relaxed) {
                        black_box(enter(worker, &mut now));
                    }
                });
            }
            table.row(&format!("intake: {name}, {OTHERS} other threads at the same"), || enter(0, &mut now));
            stop.store(true, Relaxed);
        });
    }
}
