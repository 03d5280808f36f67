//! Tells how pools stand: when one panics, and which priorities its requests go to.
//!
//! Workers find that out by themselves, each for its own picks; this only looks the same way and tells people.
//!
//! Invariant: an event is told once for each change, never for what was so from the start and is as it should be.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::bridge::table::{Plane, Pool};
use crate::clock;
use crate::control::events::Events;

/// How often pools are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Follows the pools of the current table until dropped.
pub async fn run(plane: Arc<Plane>, events: Arc<Events>) {
    let mut known: HashMap<(String, String), State> = HashMap::new();
    loop {
        let table = plane.table.load_full();
        let mut seen = HashMap::new();
        for service in &table.services {
            for pool in &service.pools {
                let key = (service.settings.name.clone(), pool.name.clone());
                let (before, now) = (known.remove(&key).unwrap_or_default(), State::of(pool));
                for sentence in now.news(&before, pool) {
                    events.tell("balance", Some(&service.settings.name), None, sentence);
                }
                seen.insert(key, now);
            }
        }
        known = seen;
        tokio::time::sleep(LOOK).await;
    }
}

/// What is told of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    panics: bool,
    /// The priorities that requests go to; empty for the first one alone, and while nobody is eligible.
    beyond: Vec<u8>,
}

impl State {
    fn of(pool: &Pool) -> State {
        let standing = pool.standing(clock::now().0);
        let shares = pool.balancer.plan().priorities().enumerate();
        let used: Vec<_> =
            shares.filter(|(level, _)| standing.share(*level) > 0.0).map(|(_, priority)| priority).collect();
        let first = pool.balancer.plan().priorities().next();
        let as_it_should_be = used.len() == 1 && used.first().copied() == first;
        State { panics: standing.panics, beyond: if as_it_should_be { Vec::new() } else { used } }
    }

    fn news(&self, before: &State, pool: &Pool) -> Vec<String> {
        let mut news = Vec::new();
        let (name, all) = (&pool.name, pool.endpoints.len());
        let eligible = pool.endpoints.iter().filter(|endpoint| endpoint.is_eligible()).count();
        match (before.panics, self.panics) {
            (false, true) => news.push(format!(
                "{name} panics: {eligible} of {all} endpoints are eligible, so ejections and breakers do not count"
            )),
            (true, false) => news.push(format!("{name} no longer panics: {eligible} of {all} endpoints are eligible")),
            _ => {}
        }
        if self.beyond != before.beyond {
            let listed: Vec<_> = self.beyond.iter().map(u8::to_string).collect();
            news.push(match listed.as_slice() {
                [] => format!("{name} is back at its first priority"),
                [one] => format!("{name} sends everything to priority {one}"),
                _ => format!("{name} shares its requests between priorities {}", listed.join(", ")),
            });
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::balancer::{Balancer, Changes};
    use crate::bridge::counters::PerWorker;
    use crate::bridge::endpoint::{Endpoint, Obstacle};
    use crate::config::settings::{Address, Protocol};
    use crate::domain::balance::{Balance, Rank};

    /// One endpoint for each priority.
    fn pool(priorities: &[u8]) -> Pool {
        let changes = Arc::<Changes>::default();
        let endpoint = |(id, priority): (u64, &u8)| {
            let endpoint = Endpoint::new(id, Address::http("10.0.0.1", id as u16), 1).among(&changes);
            (Arc::new(endpoint), Rank { weight: 1, priority: *priority })
        };
        let ranked: Vec<_> = (1..).zip(priorities).map(endpoint).collect();
        Pool {
            name: "blue".to_owned(),
            rolled_back: false,
            balancer: Arc::new(Balancer::new(Balance::default(), &ranked, &changes, 1)),
            endpoints: ranked.into_iter().map(|(endpoint, _)| endpoint).collect(),
            protocol: Protocol::default(),
            connector: None,
            proxy_protocol: None,
            pace: Arc::default(),
            tally: Arc::new(PerWorker::new(1)),
            breaker: Arc::default(),
            room: Arc::default(),
            ejection: Default::default(),
            bench: Arc::default(),
        }
    }

    #[test]
    fn failing_over_and_back_is_told_once_each() {
        let pool = pool(&[0, 3, 3, 3]);
        let mut state = State::default();
        let mut told = |at: usize, obstacle, stands| {
            pool.endpoints[at].obstruct(obstacle, stands);
            let now = State::of(&pool);
            let news = now.news(&state, &pool);
            state = now;
            news.join("; ")
        };
        assert_eq!(told(1, Obstacle::Ejected, true), "");
        assert_eq!(told(0, Obstacle::Unhealthy, true), "blue sends everything to priority 3");
        assert_eq!(
            told(2, Obstacle::Draining, true),
            "blue panics: 1 of 4 endpoints are eligible, so ejections and breakers do not count"
        );
        assert_eq!(
            told(0, Obstacle::Unhealthy, false),
            "blue no longer panics: 2 of 4 endpoints are eligible; blue is back at its first priority"
        );
    }
}
