//! Drains: endpoints and pools that leave by an order, and come back by one.
//!
//! An order is durable before it takes effect, as every forward move. From the last worker's acknowledgement on nothing
//! is sent to what was named; its idle connections close at once, busy ones after their request. What is in flight is
//! watched by the clock, and cut only if the order named a deadline.
//!
//! Invariant: without `force` no order leaves a pool that has traffic without an endpoint that may take it.

use std::sync::Arc;

use super::{Driver, nearest};
use crate::bridge::endpoint::Endpoint;
use crate::bridge::table::Pool;
use crate::clock;
use crate::config::settings::Address;
use crate::control::command::{Drain, Drained, Refusal, Use};
use crate::domain::drain::{self, Next, Orders, Part, requests};

/// A drain that has not come to its end.
pub(super) struct UnderWay {
    service: String,
    part: Part,
    endpoints: Vec<Arc<Endpoint>>,
    drain: drain::Drain,
}

impl UnderWay {
    fn in_flight(&self) -> u64 {
        in_flight(&self.endpoints)
    }
}

impl Driver {
    /// Takes a part of a service out of use, or puts it into use again.
    pub(super) async fn drain(&mut self, order: Drain) -> Result<Drained, Refusal> {
        let Drain { service, pool, endpoint, to, deadline, force, by } = order;
        let mut target = self.state(&service)?.clone();
        self.check_pools(&service, std::iter::once(pool.as_str()))?;
        let known = self.pool(&service, &pool).ok_or(Refusal::ShuttingDown)?;
        let endpoint = endpoint.map(|text| named(&known, &text)).transpose()?;
        let part = Part { pool, endpoint };
        match to {
            Use::Drained => {
                target.drained.drain(part.clone());
                if !force {
                    self.leaves_some(&service, &known, &target.drained)?;
                }
            }
            Use::InUse if part.endpoint.is_some() && target.drained.cover_pool(&part.pool) => {
                let text = format!("pool `{}` is out of use as a whole: put the pool into use", part.pool);
                return Err(Refusal::Conflict(text));
            }
            Use::InUse => target.drained.undrain(&part),
        }
        let before = self.states[&service].clone();
        let changed = before.drained != target.drained;
        if changed {
            self.stamp(&mut target, &by);
            self.states.insert(service.clone(), target.clone());
            if !self.settle(&service).await {
                self.states.insert(service, before);
                return Err(Refusal::Failed("not journalled, so not done".to_owned()));
            }
        }
        let began = clock::now();
        let version = self.publisher.drain(&service, &target.drained).ok_or(Refusal::ShuttingDown)?;
        let late = self.acknowledged(version).await.err();
        let acknowledged_us = clock::now().since(began);
        let endpoints = endpoints_of(&known, &part);
        let in_flight = in_flight(&endpoints);
        self.draining.retain(|other| other.service != service || other.part != part);
        let sentence = match to {
            Use::InUse => format!("{by} put {part} into use again"),
            Use::Drained => {
                let rest = deadline
                    .map(|deadline| format!(", cut what is left after {}", humantime::format_duration(deadline)));
                let drain = drain::Drain::new(began.0, in_flight, deadline);
                self.draining.push(UnderWay { service: service.clone(), part: part.clone(), endpoints, drain });
                format!("{by} takes {part} out of use: {} in flight{}", requests(in_flight), rest.unwrap_or_default())
            }
        };
        if changed || deadline.is_some() {
            self.events.tell_timed("drain", Some(&service), None, sentence, acknowledged_us);
        }
        match late {
            Some(late) => Err(Refusal::Failed(format!("published, but {late}"))),
            None => Ok(Drained { service, part, to, in_flight, version, acknowledged_us }),
        }
    }

    /// Looks after what is under way.
    pub(super) fn look_after_drains(&mut self) {
        let now = clock::now().0;
        let events = &self.events;
        self.draining.retain_mut(|under_way| match under_way.drain.step(now, under_way.in_flight()) {
            Next::Wait => true,
            Next::Cut => {
                under_way.endpoints.iter().for_each(|endpoint| endpoint.cut());
                true
            }
            Next::Ended(ended) => {
                let UnderWay { service, part, .. } = under_way;
                events.tell_timed("drained", Some(service), None, format!("{part} is out of use: {ended}"), ended.took);
                false
            }
        });
    }

    /// Refuses orders that would leave a pool that has traffic with nowhere to send it.
    fn leaves_some(&self, service: &str, pool: &Pool, orders: &Orders) -> Result<(), Refusal> {
        let Some(state) = self.states.get(service) else { return Ok(()) };
        let share = state.share(&pool.name);
        let may_take = |endpoint: &Arc<Endpoint>| {
            endpoint.is_eligible() && !orders.cover(&pool.name, &endpoint.address.to_string())
        };
        if (share.is_none() && state.active != pool.name) || pool.endpoints.iter().any(may_take) {
            return Ok(());
        }
        let has = match state.active == pool.name {
            true => format!("is the active one and has {share} of the traffic"),
            false => format!("has {share} of the traffic"),
        };
        Err(Refusal::Conflict(format!(
            "pool `{}` {has}, and no endpoint that may take it would be left: put another one into use, move the \
             traffic first, or force it",
            pool.name
        )))
    }
}

fn endpoints_of(pool: &Pool, part: &Part) -> Vec<Arc<Endpoint>> {
    let covered = |endpoint: &&Arc<Endpoint>| {
        part.endpoint.as_ref().is_none_or(|address| endpoint.address.to_string() == *address)
    };
    pool.endpoints.iter().filter(covered).cloned().collect()
}

fn in_flight(endpoints: &[Arc<Endpoint>]) -> u64 {
    endpoints.iter().map(|endpoint| endpoint.in_flight()).fold(0, u64::wrapping_add)
}

/// The address of a pool that is meant, as it is configured; `http://` may be left out.
fn named(pool: &Pool, text: &str) -> Result<String, Refusal> {
    let known = || pool.endpoints.iter().map(|endpoint| endpoint.address.to_string());
    let read = text.parse::<Address>().or_else(|_| format!("http://{text}").parse());
    let found = read.ok().map(|address| address.to_string()).filter(|text| known().any(|address| address == *text));
    found.ok_or_else(|| {
        // What is echoed and compared is short.
        let name: String = text.chars().take(128).collect();
        let known: Vec<_> = known().collect();
        let suggestion = nearest(&name, known.iter().map(String::as_str));
        Refusal::Unknown { kind: "endpoint", name, suggestion }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::balancer::Balancer;
    use crate::bridge::counters::PerWorker;
    use crate::config::settings::Protocol;
    use crate::domain::balance::Balance;

    #[test]
    fn an_endpoint_is_named_with_or_without_its_scheme() {
        let endpoint = |address: &str| Arc::new(Endpoint::new(1, address.parse().unwrap(), 1));
        let pool = Pool {
            name: "green".to_owned(),
            rolled_back: false,
            endpoints: vec![endpoint("http://10.0.0.1:8080"), endpoint("https://b"), endpoint("unix:/run/a.sock")],
            balancer: Arc::new(Balancer::new(Balance::default(), &[], &Arc::default(), 1)),
            protocol: Protocol::default(),
            connector: None,
            proxy_protocol: None,
            pace: Arc::default(),
            tally: Arc::new(PerWorker::new(1)),
            breaker: Arc::default(),
            room: Arc::default(),
            ejection: Default::default(),
            bench: Arc::default(),
        };
        for (text, address) in [
            ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("https://b:443", "https://b:443"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(named(&pool, text), Ok(address.to_owned()), "{text}");
        }
        let refused = named(&pool, "http://10.0.0.1:8081").unwrap_err().to_string();
        assert_eq!(refused, "there is no endpoint `http://10.0.0.1:8081`; did you mean `http://10.0.0.1:8080`?");
        assert!(named(&pool, &"x".repeat(10_000)).unwrap_err().to_string().len() < 300);
    }
}
