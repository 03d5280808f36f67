//! Ejection over time: ends terms, compares endpoints, and tells what happened.
//!
//! A worker takes an endpoint out at once ([`crate::bridge::ejection`]); everything else is here. A few times a second
//! the [`Sweeper`] looks at every pool: who was taken out since, whose term has passed, and, where the policy compares,
//! who should go. Its clock and its chance are arguments, so a test plays hours in a moment.
//!
//! An endpoint that left the table keeps its seat until it is found out of use: a request may still be in flight there,
//! and whoever could still take a seat must not be forgotten.
//!
//! Invariant: after a sweep no pool has more endpoints out than its policy and its size allow.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::bridge::ejection::{self, Bench, Term};
use crate::bridge::endpoint::{Endpoint, Obstacle};
use crate::bridge::table::{Plane, Pool, Table};
use crate::clock;
use crate::control::events::Events;
use crate::domain::outlier::{Cause, History, Lookback, suspects};

/// How often the pools are looked at: a term may last this much longer than it should.
const LOOK: Duration = Duration::from_millis(100);

/// Sweeps until dropped.
pub async fn run(plane: Arc<Plane>, events: Arc<Events>) {
    let mut sweeper = Sweeper::default();
    loop {
        let table = plane.table.load_full();
        for News { service, sentence } in sweeper.sweep(&table, clock::now().0, fastrand::f64) {
            events.tell("ejection", Some(&service), None, sentence);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The service it concerns.
    pub service: String,
    /// In one sentence.
    pub sentence: String,
}

/// What is known of all pools.
#[derive(Default)]
pub struct Sweeper {
    version: Option<u64>,
    wards: Vec<Ward>,
    /// Endpoints that no table names any more, with the benches they may hold a seat of.
    leavers: Vec<(Arc<Endpoint>, Arc<Bench>)>,
}

/// One pool.
struct Ward {
    service: String,
    pool: Arc<Pool>,
    /// When its endpoints are compared next, in microseconds.
    compares_at: u64,
    patients: Vec<Patient>,
}

/// One endpoint.
struct Patient {
    endpoint: Arc<Endpoint>,
    history: History,
    lookback: Lookback,
    out: Option<Out>,
}

impl Patient {
    fn new(endpoint: &Arc<Endpoint>) -> Patient {
        Patient {
            endpoint: Arc::clone(endpoint),
            history: History::default(),
            lookback: Lookback::default(),
            out: None,
        }
    }
}

/// It is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Out {
    term: Term,
    until: u64,
}

/// What tells endpoints apart when a successor takes over: service, pool, and the endpoint as it is shown.
type Key = (String, String, String);

impl Sweeper {
    /// Looks at every pool of `table` at `now` (microseconds); `chance` gives fresh numbers from 0 to 1.
    pub fn sweep(&mut self, table: &Table, now: u64, chance: impl Fn() -> f64) -> Vec<News> {
        if self.version.replace(table.version) != Some(table.version) {
            self.admit(table);
        }
        self.leavers.retain(|(endpoint, bench)| {
            ejection::restore(bench, endpoint);
            // Ours is the last hand on it: nobody can take a seat for it any more.
            Arc::strong_count(endpoint) > 1
        });
        let mut news = Vec::new();
        for ward in &mut self.wards {
            ward.sweep(now, &chance, &mut news);
        }
        news
    }

    /// Takes up the pools of a new table, with what is known of their endpoints.
    fn admit(&mut self, table: &Table) {
        let mut known: HashMap<Key, (Patient, Arc<Bench>, u64)> = HashMap::new();
        for ward in std::mem::take(&mut self.wards) {
            let place = |endpoint: &Endpoint| (ward.service.clone(), ward.pool.name.clone(), endpoint.to_string());
            for patient in ward.patients {
                let key = place(&patient.endpoint);
                known.insert(key, (patient, Arc::clone(&ward.pool.bench), ward.compares_at));
            }
        }
        for service in &table.services {
            for pool in &service.pools {
                let mut compares_at = 0;
                let patient = |endpoint: &Arc<Endpoint>| {
                    let key = (service.settings.name.clone(), pool.name.clone(), endpoint.to_string());
                    let Some((mut patient, bench, compared)) = known.remove(&key) else {
                        return Patient::new(endpoint);
                    };
                    compares_at = compares_at.max(compared);
                    let before = std::mem::replace(&mut patient.endpoint, Arc::clone(endpoint));
                    if !Arc::ptr_eq(&before, endpoint) {
                        // Its successor has its term; its counts begin anew.
                        patient.lookback.clear();
                        self.leavers.push((before, bench));
                    }
                    patient
                };
                let patients = pool.endpoints.iter().map(patient).collect();
                let service = service.settings.name.clone();
                self.wards.push(Ward { service, pool: Arc::clone(pool), compares_at, patients });
            }
        }
        self.leavers.extend(known.into_values().map(|(patient, bench, _)| (patient.endpoint, bench)));
    }
}

impl Ward {
    fn sweep(&mut self, now: u64, chance: &impl Fn() -> f64, news: &mut Vec<News>) {
        let policy = self.pool.ejection;
        for at in 0..self.patients.len() {
            self.notice(at, now, chance, None, news);
            match self.patients[at].out {
                Some(out) if now >= out.until || policy.is_off() => self.discharge(at, now, "", news),
                _ => {}
            }
            ejection::reconcile(&self.patients[at].endpoint);
        }
        let most = policy.most_out(self.pool.endpoints.len());
        while self.out() > most {
            let next = (0..self.patients.len()).filter_map(|at| Some((self.patients[at].out?.until, at))).min();
            let Some((_, at)) = next else { break };
            self.discharge(at, now, " before its time: the pool has become smaller", news);
        }
        if policy.compares() && now >= self.compares_at {
            self.compares_at = now.saturating_add(micros(policy.interval));
            self.compare(now, chance, news);
        }
    }

    fn out(&self) -> usize {
        self.patients.iter().filter(|patient| patient.out.is_some()).count()
    }

    /// Takes note of an endpoint that was taken out, by a worker or (then with a sentence) by a comparison.
    fn notice(&mut self, at: usize, now: u64, chance: &impl Fn() -> f64, why: Option<String>, news: &mut Vec<News>) {
        let policy = self.pool.ejection;
        let patient = &mut self.patients[at];
        let term = patient.endpoint.conduct.term();
        if term == patient.out.map(|out| out.term) {
            return;
        }
        let Some(term) = term else { return patient.out = None };
        let length = patient.history.ejected(&policy, term.since.min(now), chance());
        patient.out = Some(Out { term, until: term.since.saturating_add(length) });
        let why = why.unwrap_or_else(|| match term.cause {
            Cause::Gateway | Cause::Errors => patient.endpoint.conduct.row().sentence(term.cause),
            other => other.name().replace('_', " "),
        });
        patient.endpoint.explain(Obstacle::Ejected, format!("{why}, out for {}", seconds(length)));
        let sentence = format!("{} ejected for {}: {why}", self.named(at), seconds(length));
        news.push(News { service: self.service.clone(), sentence });
    }

    /// Lets an endpoint have requests again.
    fn discharge(&mut self, at: usize, now: u64, how: &str, news: &mut Vec<News>) {
        let patient = &mut self.patients[at];
        patient.out = None;
        patient.history.returned(now);
        // What it did before does not speak against it again.
        patient.lookback.clear();
        if ejection::restore(&self.pool.bench, &patient.endpoint) {
            let sentence = format!("{} is back{how}", self.named(at));
            news.push(News { service: self.service.clone(), sentence });
        }
    }

    fn compare(&mut self, now: u64, chance: &impl Fn() -> f64, news: &mut Vec<News>) {
        let policy = self.pool.ejection;
        let window = micros(policy.window);
        let seen = |patient: &mut Patient| {
            let counts = patient.lookback.look(now, window, patient.endpoint.conduct.counts());
            patient.out.is_none().then_some(counts)
        };
        let seen: Vec<_> = self.patients.iter_mut().map(seen).collect();
        for suspect in suspects(&policy, &seen) {
            if ejection::eject(&self.pool, &self.patients[suspect.at].endpoint, suspect.cause, now) {
                self.notice(suspect.at, now, chance, Some(suspect.sentence), news);
            }
        }
    }

    /// `http://10.0.0.2:8080 of shop/green`.
    fn named(&self, at: usize) -> String {
        format!("{} of {}/{}", self.patients[at].endpoint, self.service, self.pool.name)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// `30s`, `10.7s`.
fn seconds(micros: u64) -> String {
    let tenths = micros / 100_000;
    match tenths % 10 {
        0 => format!("{}s", tenths / 10),
        part => format!("{}.{part}s", tenths / 10),
    }
}

#[cfg(test)]
mod tests;
