//! Breakers and rollouts: a canary that is blocked is not moved on, and one that is blocked too often is rolled back.
//!
//! The hold is reversible and takes no decision about the canary (Decisions 7): its requests go to the baseline already.
//! A rollback after repeated openings is a rule that somebody wrote down, not a finding of the judge; its sentence says so.

use std::sync::PoisonError;

use super::{Driver, millis};
use crate::clock;
use crate::config::settings::Guard;
use crate::control::breakers::span;
use crate::domain::breaker::{Phase as BreakerPhase, Policy};
use crate::domain::rollout::machine::Event;

/// What is remembered of a canary's breaker for the length of a rollout.
pub(super) struct Watched {
    rollout: String,
    /// Its openings before.
    from: u64,
    /// That there were too many was told.
    told: bool,
}

impl Driver {
    /// Passes on how the canary's breaker stands.
    pub(super) async fn hear_the_breaker(&mut self, service: &str) {
        let Some(rollout) = self.rollout_of(service).filter(|rollout| rollout.is_running()) else { return };
        let (id, canary) = (rollout.order.id.clone(), rollout.order.canary.clone());
        let Some(settings) = self.definition(service) else { return };
        let (guard, rules) = (settings.guard, settings.pools.iter().find(|pool| pool.name == canary));
        let Some(rules) = rules.map(|pool| pool.breaker.clone()) else { return };
        let Some(pool) = self.pool(service, &canary) else { return };
        let Some(policy) = &rules.pool else {
            // Perhaps there was one before a reload.
            return self.event(service, Event::BreakerClosed).await;
        };
        let trips = self.trips_within(service, &id, pool.breaker.trips());
        let why = pool.breaker.opening().map(|opening| opening.cause.sentence(policy)).unwrap_or_default();
        if let Some(limit) = rules.rollback_after.filter(|limit| trips >= u64::from(limit.get())) {
            let sentence = format!(
                "{canary}'s breaker opened {} in this rollout, lastly by {why}; `rollback_after: {limit}` is a rule, not the \
                 judge's finding",
                times(trips)
            );
            self.opened_too_often(service, &id, guard, sentence).await;
        }
        let event = match pool.breaker.is_closed() {
            true => Event::BreakerClosed,
            false => {
                Event::BreakerOpened { sentence: held_by(&canary, pool.breaker.state().phase, policy, &why, trips) }
            }
        };
        self.event(service, event).await;
    }

    /// From here on openings count as this rollout's.
    pub(super) fn begin_to_count_trips(&mut self, service: &str) {
        let Some(rollout) = self.rollout_of(service) else { return };
        let (id, canary) = (rollout.order.id.clone(), rollout.order.canary.clone());
        let trips = self.pool(service, &canary).map_or(0, |pool| pool.breaker.trips());
        self.trips_within(service, &id, trips);
    }

    /// Openings within a rollout: since it began, or since this process did.
    fn trips_within(&mut self, service: &str, rollout: &str, trips: u64) -> u64 {
        let fresh = || Watched { rollout: rollout.to_owned(), from: trips, told: false };
        let watched = self.breakers.entry(service.to_owned()).or_insert_with(fresh);
        if watched.rollout != rollout {
            *watched = fresh();
        }
        // Other rules came with another breaker, which counts anew.
        watched.from = watched.from.min(trips);
        trips - watched.from
    }

    async fn opened_too_often(&mut self, service: &str, rollout: &str, guard: Guard, sentence: String) {
        let first = self.breakers.get_mut(service).is_none_or(|watched| !std::mem::replace(&mut watched.told, true));
        if !first {
            return;
        }
        match guard {
            Guard::Rollback => {
                let began = clock::now();
                let Some(published) = self.publisher.revert(service) else { return };
                let swap = self.acknowledged(published.version).await;
                let took = clock::now().since(began);
                let outcome = swap.map_or_else(|late| format!(" ({late})"), |()| String::new());
                self.shared.rollbacks.lock().unwrap_or_else(PoisonError::into_inner).2 += 1;
                let told = format!("rolled back: {sentence}; swapped in {}{outcome}", millis(took));
                self.events.tell_timed("rollback", Some(service), Some(rollout), told, took);
                self.event(service, Event::Worse { sentence }).await;
            }
            Guard::Hold => {
                self.events.tell("breaker", Some(service), Some(rollout), format!("hold: {sentence}"));
                self.event(service, Event::HoldAdvised { sentence }).await;
            }
            Guard::Observe | Guard::Off => self.events.tell("breaker", Some(service), Some(rollout), sentence),
        }
    }
}

fn held_by(canary: &str, phase: BreakerPhase, policy: &Policy, why: &str, trips: u64) -> String {
    let state = match phase {
        BreakerPhase::Open { until } => {
            let wait = until.saturating_sub(clock::now().0 / 1_000);
            format!("open for another {}", span(wait.next_multiple_of(100)))
        }
        _ => format!("half open, with {} requests on trial", policy.trials),
    };
    format!("{canary}'s breaker ({why}), {state}; it opened {} in this rollout", times(trips))
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}
