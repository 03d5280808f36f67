//! Breakers on a request's way: where it goes when its pool's breaker is open, whether it passes on trial, and what the
//! breakers hear of it.
//!
//! The pool is asked twice. When it is chosen, nothing is taken: an open canary sends the request to the active pool at
//! once (Decisions 7). When an attempt begins, after any waiting, a trial is taken; if that fails because others were
//! first, the choice is made anew. An endpoint's breaker is an [`Obstacle`] to the balancer, and is asked at the same
//! moment; when the balancer picks one in spite of it, because too few others are left, it passes without a trial.
//!
//! Invariants: a trial that was taken comes back exactly once, with an outcome or without a word; a breaker hears of an
//! attempt at most one good and one bad word.

use std::sync::Arc;

use crate::bridge::breaker::Blocked;
use crate::bridge::endpoint::{Endpoint, Obstacle};
use crate::bridge::table::{Assignment, Reason, Service};
use crate::clock::{self, Micros};
use crate::domain::breaker::{Policy, Report, Trial};
use crate::domain::outcome::Outcome;
use crate::proxy::recorder::Place;
use crate::proxy::worker::Worker;

/// Where a request may go that was assigned like this: there, or to the active pool in its place.
///
/// # Errors
/// When neither passes: the pool's breaker is open and there is nowhere else it may go.
pub fn admit(worker: &Worker, service: &Service, assigned: Assignment) -> Result<Assignment, Blocked> {
    let Err(blocked) = asks(service, assigned.pool) else { return Ok(assigned) };
    let diverted = Assignment { pool: service.active, reason: Reason::Diverted };
    let elsewhere = assigned.reason == Reason::Split && assigned.pool != service.active;
    let tally = service.pools[assigned.pool].tally.of(worker.index);
    if elsewhere && service.still_allows(diverted) && asks(service, service.active).is_ok() {
        tally.diverted.add(1);
        return Ok(diverted);
    }
    tally.blocked.add(1);
    Err(blocked)
}

fn asks(service: &Service, pool: usize) -> Result<(), Blocked> {
    let Some(policy) = &service.settings.pools[pool].breaker.pool else { return Ok(()) };
    let breaker = &service.pools[pool].breaker;
    if breaker.is_closed() { Ok(()) } else { breaker.would_admit(policy, clock::now().0) }
}

/// What an attempt owes the breakers of its pool and its endpoint.
#[derive(Debug, Default)]
pub struct Trials {
    pool: Option<Trial>,
    endpoint: Option<Trial>,
    said: Said,
    /// The client held things up: how long the answer took says nothing.
    is_excused: bool,
}

/// What the breakers heard of an attempt so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Said {
    #[default]
    Nothing,
    /// It was answered, or is late.
    Something,
    Bad,
}

/// A way past the breakers for one attempt; what it took and nobody used is given back.
pub struct Passage {
    trials: Trials,
    /// Who is to be given back to; there only with a trial.
    given_by: Option<Box<(Place, Arc<Endpoint>)>>,
}

/// True if the balancer chose an endpoint although its breaker is open. To be asked at the choice.
pub fn is_chosen_in_spite(endpoint: &Endpoint) -> bool {
    endpoint.has(Obstacle::BreakerOpen)
}

impl Passage {
    /// Takes what an attempt needs. `None` if others were first: where it goes must be decided anew.
    pub fn enter(place: &Place, endpoint: &Arc<Endpoint>, in_spite: bool) -> Option<Passage> {
        let rules = &place.settings().breaker;
        let mut trials = Trials::default();
        if let Some(policy) = &rules.pool
            && !place.pool().breaker.is_closed()
        {
            trials.pool = place.pool().breaker.enter(policy, clock::now().0).ok()?;
        }
        if let Some(policy) = &rules.endpoint
            && !in_spite
            && !endpoint.breaker.is_closed()
        {
            let entered = endpoint.breaker.enter(policy, clock::now().0);
            endpoint.follow_breaker(policy.trials);
            match entered {
                Ok(trial) => trials.endpoint = trial,
                Err(_) => {
                    trials.give_back(place, endpoint);
                    return None;
                }
            }
        }
        let is_on_trial = trials.pool.is_some() || trials.endpoint.is_some();
        let given_by = is_on_trial.then(|| Box::new((place.clone(), Arc::clone(endpoint))));
        Some(Passage { trials, given_by })
    }

    /// The attempt failed before it began.
    pub fn fail(&mut self, place: &Place, endpoint: &Endpoint, worker: usize, outcome: Outcome) {
        self.trials.report(place, endpoint, worker, clock::now(), outcome);
    }

    /// The attempt begins, and owes from here on.
    pub fn begin(mut self) -> Trials {
        self.given_by = None;
        std::mem::take(&mut self.trials)
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if let Some(given_by) = self.given_by.take() {
            self.trials.give_back(&given_by.0, &given_by.1);
        }
    }
}

impl Trials {
    /// Tells the breakers what the attempt turned out to be.
    pub fn report(&mut self, place: &Place, endpoint: &Endpoint, worker: usize, now: Micros, outcome: Outcome) {
        let heard = match (self.said, outcome.is_bad()) {
            (Said::Bad, _) | (Said::Something, false) => return,
            (Said::Nothing | Said::Something, true) => Said::Bad,
            (Said::Nothing, false) => Said::Something,
        };
        let (is_first, excused) = (self.said == Said::Nothing, self.is_excused);
        self.said = heard;
        self.tell(place, endpoint, worker, now, |policy| Some(policy.report(outcome, excused, is_first)));
    }

    /// The same of what the endpoint had no part in: only the pool's breaker is told.
    pub fn report_for_pool(&mut self, place: &Place, worker: usize, now: Micros, outcome: Outcome) {
        if let Some(policy) = &place.settings().breaker.pool {
            let report = policy.report(outcome, self.is_excused, self.said == Said::Nothing);
            place.pool().breaker.tell(policy, worker, now.0, report, self.pool.take());
        }
        self.said = Said::Bad;
    }

    /// The attempt waits for its answer since so many microseconds: one that is late already need not be waited for.
    pub fn waits(&mut self, place: &Place, endpoint: &Endpoint, worker: usize, now: Micros, age: u64) {
        let rules = &place.settings().breaker;
        let is_late = |policy: &Option<Policy>| policy.as_ref().is_some_and(|policy| policy.is_slow(age));
        if self.said != Said::Nothing || self.is_excused || !(is_late(&rules.pool) || is_late(&rules.endpoint)) {
            return;
        }
        self.said = Said::Something;
        let late = |policy: &Policy| policy.is_slow(age).then_some(Report { bad: false, slow: true, is_first: true });
        self.tell(place, endpoint, worker, now, late);
    }

    /// The client holds things up.
    pub fn excuse(&mut self) {
        self.is_excused = true;
    }

    fn tell(
        &mut self,
        place: &Place,
        endpoint: &Endpoint,
        worker: usize,
        now: Micros,
        report: impl Fn(&Policy) -> Option<Report>,
    ) {
        let rules = &place.settings().breaker;
        if let Some(policy) = &rules.pool
            && let Some(report) = report(policy)
        {
            place.pool().breaker.tell(policy, worker, now.0, report, self.pool.take());
        }
        if let Some(policy) = &rules.endpoint
            && let Some(report) = report(policy)
            && endpoint.breaker.tell(policy, worker, now.0, report, self.endpoint.take())
        {
            endpoint.follow_breaker(policy.trials);
        }
    }

    /// The attempt ended; trials that nothing was said of are free for others.
    pub fn give_back(&mut self, place: &Place, endpoint: &Endpoint) {
        if let Some(trial) = self.pool.take() {
            place.pool().breaker.give_back(trial);
        }
        if let Some(trial) = self.endpoint.take() {
            endpoint.breaker.give_back(trial);
            if let Some(policy) = &place.settings().breaker.endpoint {
                endpoint.follow_breaker(policy.trials);
            }
        }
    }
}
