//! Breakers and limits in `/metrics`: how they stand, how often they opened, and what became of requests meanwhile.

use prometheus::proto::{MetricFamily, MetricType};

use super::{counter, family, gauge};
use crate::bridge::breaker::Breaker;
use crate::bridge::observations::PoolTally;
use crate::bridge::table::Table;
use crate::domain::breaker::Phase;
use crate::telemetry::names;

/// The families, with series for what the settings have a breaker or a limit for.
pub(super) fn families(table: &Table) -> [MetricFamily; 8] {
    let (mut states, mut trips, mut diverted, mut blocked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut endpoint_states, mut endpoint_trips) = (Vec::new(), Vec::new());
    let (mut queues, mut overflows) = (Vec::new(), Vec::new());
    for service in &table.services {
        for (pool, settings) in service.pools.iter().zip(&service.settings.pools) {
            let place = [("service", service.settings.name.as_str()), ("pool", pool.name.as_str())];
            let sum = |read: &dyn Fn(&PoolTally) -> u64| pool.tally.iter().map(read).fold(0, u64::wrapping_add);
            if pool.room.is_limited() {
                queues.push(gauge(&place, pool.room.waiting() as f64));
                let reasons = [
                    ("full", sum(&|tally| tally.overflowed.read())),
                    ("timeout", sum(&|tally| tally.queued_too_long.read())),
                ];
                overflows
                    .extend(reasons.map(|(reason, count)| counter(&[place[0], place[1], ("reason", reason)], count)));
            }
            if settings.breaker.pool.is_some() {
                states.push(gauge(&place, number(&pool.breaker)));
                trips.push(counter(&place, pool.breaker.trips()));
                diverted.push(counter(&place, sum(&|tally| tally.diverted.read())));
                blocked.push(counter(&place, sum(&|tally| tally.blocked.read())));
            }
            if settings.breaker.endpoint.is_none() {
                continue;
            }
            for endpoint in &pool.endpoints {
                let address = endpoint.to_string();
                let place = [place[0], place[1], ("endpoint", address.as_str())];
                endpoint_states.push(gauge(&place, number(&endpoint.breaker)));
                endpoint_trips.push(counter(&place, endpoint.breaker.trips()));
            }
        }
    }
    [
        family(names::QUEUE, MetricType::GAUGE, queues),
        family(names::OVERFLOWED, MetricType::COUNTER, overflows),
        family(names::BREAKER_STATE, MetricType::GAUGE, states),
        family(names::BREAKER_TRIPS, MetricType::COUNTER, trips),
        family(names::DIVERTED, MetricType::COUNTER, diverted),
        family(names::BLOCKED, MetricType::COUNTER, blocked),
        family(names::ENDPOINT_BREAKER_STATE, MetricType::GAUGE, endpoint_states),
        family(names::ENDPOINT_BREAKER_TRIPS, MetricType::COUNTER, endpoint_trips),
    ]
}

fn number(breaker: &Breaker) -> f64 {
    match breaker.state().phase {
        Phase::Closed { .. } => 0.0,
        Phase::HalfOpen { .. } => 1.0,
        Phase::Open { .. } => 2.0,
    }
}
