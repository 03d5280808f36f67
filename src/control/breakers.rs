//! Breakers as people hear of them: a look at all of them ten times a second.
//!
//! Workers open breakers without telling anybody; this tells it, with numbers. It also ends cool-downs that no request
//! asked about: an endpoint whose breaker is open gets no request that could.
//!
//! Invariant: nothing here changes whether requests pass but the clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::bridge::breaker::Breaker;
use crate::bridge::table::{Plane, Pool, Service};
use crate::clock;
use crate::control::command::BreakerStatus;
use crate::control::events::Events;
use crate::domain::breaker::{Phase, Policy};

/// How often all breakers are looked at: the grain of an endpoint's cool-down.
const LOOK: Duration = Duration::from_millis(100);

/// Watches every breaker of the current table until dropped.
pub async fn run(plane: Arc<Plane>, events: Arc<Events>) {
    let mut known = Known::default();
    loop {
        known.look(&plane, &events);
        tokio::time::sleep(LOOK).await;
    }
}

/// What was told last of each breaker.
#[derive(Default)]
struct Known(HashMap<Key, Seen>);

/// Breakers by who has them; a pool under other rules has another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Pool(usize),
    Endpoint(u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    trips: u64,
    phase: &'static str,
    round: u64,
}

/// Whose breaker it is, for sentences.
struct Owner<'a> {
    service: &'a str,
    name: String,
    /// What becomes of requests while it is open.
    instead: String,
}

impl Known {
    fn look(&mut self, plane: &Plane, events: &Events) {
        let table = plane.table.load_full();
        let round = table.version;
        let mut any = false;
        for service in &table.services {
            let pools = service.pools.iter().zip(&service.settings.pools).enumerate();
            for (at, (pool, settings)) in pools {
                any |= settings.breaker.pool.is_some() || settings.breaker.endpoint.is_some();
                if let Some(policy) = &settings.breaker.pool {
                    let key = Key::Pool(Arc::as_ptr(&pool.breaker) as usize);
                    self.hear(key, &pool.breaker, policy, round, events, || owner_pool(service, at));
                }
                let Some(policy) = &settings.breaker.endpoint else { continue };
                for endpoint in &pool.endpoints {
                    if endpoint.breaker.tick(clock::now().0) {
                        endpoint.follow_breaker(policy.trials);
                    }
                    let name = || owner_endpoint(service, pool, endpoint.to_string());
                    self.hear(Key::Endpoint(endpoint.id), &endpoint.breaker, policy, round, events, name);
                }
            }
        }
        if any || !self.0.is_empty() {
            self.0.retain(|_, seen| seen.round == round);
        }
    }

    fn hear<'a>(
        &mut self,
        key: Key,
        breaker: &Breaker,
        policy: &Policy,
        round: u64,
        events: &Events,
        owner: impl FnOnce() -> Owner<'a>,
    ) {
        let (trips, phase) = (breaker.trips(), word(breaker));
        let rest = Seen { trips: 0, phase: CLOSED, round };
        let before = self.0.insert(key, Seen { trips, phase, round }).unwrap_or(rest);
        if (before.trips, before.phase) == (trips, phase) {
            return;
        }
        let Owner { service, name, instead } = owner();
        if let Some(opening) = breaker.opening().filter(|_| trips > before.trips) {
            let again = if trips > 1 { " again" } else { "" };
            let (why, time) = (opening.cause.sentence(policy), span(opening.cool_down));
            events.tell(
                "breaker",
                Some(service),
                None,
                format!("{name}'s breaker opened{again}: {why}; {instead} for {time}"),
            );
        }
        match phase {
            HALF_OPEN => {
                let sentence = format!("{name}'s breaker lets {} through on trial", requests(policy.trials));
                events.tell("breaker", Some(service), None, sentence);
            }
            CLOSED => {
                let sentence = format!("{name}'s breaker closed: {} on trial went well", requests(policy.trials));
                events.tell("breaker", Some(service), None, sentence);
            }
            _ => {}
        }
    }
}

fn owner_pool(service: &Service, at: usize) -> Owner<'_> {
    let (name, active) = (service.pools[at].name.clone(), &service.pools[service.active].name);
    let instead = match at == service.active {
        true => "its requests are answered 503".to_owned(),
        false => format!("its requests go to {active}"),
    };
    Owner { service: &service.settings.name, name, instead }
}

fn owner_endpoint<'a>(service: &'a Service, pool: &Pool, endpoint: String) -> Owner<'a> {
    let instead = format!("the other endpoints of {} take its requests", pool.name);
    Owner { service: &service.settings.name, name: endpoint, instead }
}

const CLOSED: &str = "closed";
const HALF_OPEN: &str = "half_open";
const OPEN: &str = "open";

fn word(breaker: &Breaker) -> &'static str {
    match breaker.state().phase {
        Phase::Closed { .. } => CLOSED,
        Phase::Open { .. } => OPEN,
        Phase::HalfOpen { .. } => HALF_OPEN,
    }
}

fn requests(count: u8) -> String {
    if count == 1 { "a request".to_owned() } else { format!("{count} requests") }
}

/// A breaker as it stands; `None` where there are no rules for one.
pub fn status(breaker: &Breaker, policy: Option<&Policy>) -> Option<BreakerStatus> {
    let policy = policy?;
    let wait = match breaker.state().phase {
        Phase::Open { until } => Some(until.saturating_sub(clock::now().0 / 1_000)),
        _ => None,
    };
    let reason = breaker.opening().map(|opening| opening.cause.sentence(policy)).unwrap_or_default();
    Some(BreakerStatus { phase: word(breaker), trips: breaker.trips(), wait_ms: wait, reason, diverted: 0, blocked: 0 })
}

/// Milliseconds as people write them.
pub fn span(millis: u64) -> String {
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings;
    use crate::domain::breaker::Report;

    const GOOD: Report = Report { bad: false, slow: false, is_first: true };
    const BAD: Report = Report { bad: true, slow: false, is_first: true };

    #[tokio::test(start_paused = true)]
    async fn what_a_breaker_does_is_told_once_and_with_numbers() {
        let policy = Policy { consecutive: Some(2), trials: 1, ..Policy::default() };
        let (breaker, events, mut known) = (Breaker::default(), Events::default(), Known::default());
        breaker.arm(1);
        let owner =
            || Owner { service: "shop", name: "green".to_owned(), instead: "its requests go to blue".to_owned() };
        let mut look = || {
            let before = events.after(0).len();
            known.hear(Key::Endpoint(1), &breaker, &policy, 1, &events, owner);
            let told = events.after(0).split_off(before);
            told.into_iter().map(|event| event.sentence).collect::<Vec<_>>()
        };
        let told = |report, now, trial| breaker.tell(&policy, 0, now, report, trial);
        assert!(look().is_empty());
        told(BAD, 0, None);
        told(BAD, 0, None);
        assert_eq!(look(), ["green's breaker opened: 2 errors in a row; its requests go to blue for 5s"]);
        assert!(look().is_empty());
        let trial = breaker.enter(&policy, 5_000_000).unwrap();
        assert_eq!(look(), ["green's breaker lets a request through on trial"]);
        told(BAD, 5_000_000, trial);
        let again = "green's breaker opened again: a request on trial did not go well; its requests go to blue for 10s";
        assert_eq!(look(), [again]);
        let trial = breaker.enter(&policy, 15_000_000).unwrap();
        told(GOOD, 15_000_000, trial);
        assert_eq!(look(), ["green's breaker closed: a request on trial went well"]);
        assert!(look().is_empty());
    }

    #[test]
    fn a_pool_without_rules_has_no_breaker_to_show() {
        assert_eq!(status(&Breaker::default(), settings::Breaker::default().pool.as_ref()), None);
        let shown = status(&Breaker::default(), Some(&Policy::default())).unwrap();
        assert_eq!((shown.phase, shown.trips, shown.wait_ms), (CLOSED, 0, None));
    }
}
