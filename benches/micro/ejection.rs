//! What ejection keeps of each attempt: at its head and at its end.

use std::hint::black_box;
use std::sync::Arc;

use teal::bridge::balancer::Balancer;
use teal::bridge::counters::PerWorker;
use teal::bridge::ejection;
use teal::bridge::endpoint::Endpoint;
use teal::bridge::table::Pool;
use teal::config::settings::{Address, Protocol};
use teal::domain::balance::Balance;
use teal::domain::outcome::{Failure, Outcome};
use teal::domain::outlier::{Policy, SuccessRate};

use crate::Table;

pub(crate) fn rows(table: &Table) {
    let comparing = Policy { success_rate: Some(SuccessRate::default()), ..Policy::default() };
    for (name, policy) in [("rows only", Policy::default()), ("rows and comparisons", comparing)] {
        let pool = pool_of(policy);
        let endpoint = &pool.endpoints[0];
        table.row(&format!("ejection: a good attempt, {name}"), || {
            let answered = Outcome::Answered { status: 200, latency: black_box(700) };
            black_box(ejection::turned_out(black_box(&pool), endpoint, 0, 1, answered));
            ejection::went_well(&pool, endpoint, 0);
        });
    }
    let pool = pool_of(Policy { max_ejected: "0%".parse().expect("a share"), ..Policy::default() });
    let failed = Outcome::Failed(Failure::Reset);
    table.row("ejection: a failure past the row, without a seat", || {
        ejection::turned_out(black_box(&pool), &pool.endpoints[0], 0, 1, failed)
    });
}

fn pool_of(ejection: Policy) -> Pool {
    let endpoint = |port: u16| Arc::new(Endpoint::new(port.into(), Address::http("127.0.0.1", port), 1));
    Pool {
        name: "green".to_owned(),
        rolled_back: false,
        endpoints: (1..=3).map(endpoint).collect(),
        protocol: Protocol::default(),
        connector: None,
        proxy_protocol: None,
        pace: Arc::default(),
        breaker: Arc::default(),
        room: Arc::default(),
        balancer: Arc::new(Balancer::new(Balance::default(), &[], &Arc::default(), 1)),
        tally: Arc::new(PerWorker::new(1)),
        ejection,
        bench: Arc::default(),
    }
}
