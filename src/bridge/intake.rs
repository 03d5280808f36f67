//! The intake of a service: what its requests are held against once, before a pool is chosen.
//!
//! Rate limits first, the route's before the service's: the narrower one refuses without using up the wider. Then the
//! number in flight, which is for what got so far. Both answer at once: a request that waits for a place costs memory
//! here and patience there, and its client has often gone before it is served.
//!
//! Invariants: a ticket that was given is given back once; requests with a ticket never exceed the limit that held when
//! the last of them came in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::bridge::counters::{PerWorker, Tally};
use crate::bridge::rate::Limiter;
use crate::config::settings;
use crate::domain::concurrency::Policy;
use crate::domain::rate::{Limit, Wait};
use crate::domain::route::RequestView;

/// What a service's requests pass.
#[derive(Debug, Default)]
pub struct Intake {
    limiters: Vec<Arc<Limiter>>,
    /// By route; empty if no route has a limit.
    routes: Vec<Vec<Arc<Limiter>>>,
    occupancy: Option<Arc<Occupancy>>,
    is_open: bool,
}

/// How many requests of a service are in flight, over all workers.
#[derive(Debug)]
pub struct Occupancy {
    /// The definition, from the file.
    pub policy: Policy,
    in_flight: Arc<AtomicU32>,
    limit: AtomicU32,
    shed: Arc<PerWorker<Tally>>,
}

/// The place of one request among those in flight; free again when dropped.
#[derive(Debug)]
pub struct Ticket(Arc<AtomicU32>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Why a request does not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Somebody asks too often.
    TooOften(Wait),
    /// The service has all that it may have.
    Full,
}

impl Intake {
    /// The intake of a service. What is the same as `before`, the service by its former definition, keeps its counts.
    pub fn new(service: &settings::Service, before: Option<(&settings::Service, &Intake)>, workers: usize) -> Intake {
        let known = |list: &[Arc<Limiter>], limit: &Limit| list.iter().find(|known| known.limit == *limit).cloned();
        let kept = |limits: &[Limit], before: &[Arc<Limiter>]| -> Vec<Arc<Limiter>> {
            let fresh = |limit: &Limit| Limiter::new(limit.clone(), workers).map(Arc::new);
            limits.iter().filter_map(|limit| known(before, limit).or_else(|| fresh(limit))).collect()
        };
        let former = |route: &str| -> &[Arc<Limiter>] {
            let Some((settings, intake)) = before else { return &[] };
            let at = settings.routes.all().iter().position(|known| known.name == route);
            at.map_or(&[], |at| intake.of_route(at))
        };
        let limiters = kept(&service.rate_limits, before.map_or(&[], |(_, intake)| &intake.limiters));
        let routes = service.routes.all().iter();
        let mut routes: Vec<_> = routes.map(|route| kept(&route.rate_limits, former(&route.name))).collect();
        if routes.iter().all(Vec::is_empty) {
            routes.clear();
        }
        let former = before.and_then(|(_, intake)| intake.occupancy.as_deref());
        let occupancy = service.concurrency.map(|policy| Arc::new(Occupancy::new(policy, former, workers)));
        let is_open = limiters.is_empty() && routes.is_empty() && occupancy.is_none();
        Intake { limiters, routes, occupancy, is_open }
    }

    /// True if everything passes: nobody has to ask.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// True if time matters to what passes.
    pub fn has_rates(&self) -> bool {
        !(self.limiters.is_empty() && self.routes.is_empty())
    }

    /// Takes in a request of a route (by index) at `now` (ticks of [`crate::domain::rate`]), with a ticket to keep until
    /// it ends if those in flight are counted.
    ///
    /// # Errors
    /// When it may not come in. A limit that let it pass before another refused has counted it.
    pub fn enter(
        &self,
        worker: usize,
        route: usize,
        request: &impl RequestView,
        now: u64,
    ) -> Result<Option<Ticket>, Refused> {
        for limiter in self.of_route(route).iter().chain(&self.limiters) {
            limiter.take(worker, request, now).map_err(Refused::TooOften)?;
        }
        let Some(occupancy) = &self.occupancy else { return Ok(None) };
        occupancy.enter(worker).map(Some).ok_or(Refused::Full)
    }

    /// The limiters of the whole service.
    pub fn of_service(&self) -> &[Arc<Limiter>] {
        &self.limiters
    }

    /// The limiters of a route, by index.
    pub fn of_route(&self, route: usize) -> &[Arc<Limiter>] {
        self.routes.get(route).map_or(&[], Vec::as_slice)
    }

    /// How many requests are in flight, if they are counted.
    pub fn occupancy(&self) -> Option<&Arc<Occupancy>> {
        self.occupancy.as_ref()
    }
}

impl Occupancy {
    fn new(policy: Policy, before: Option<&Occupancy>, workers: usize) -> Occupancy {
        // A limit that has found its place keeps it, unless it was told another.
        let found = before.filter(|before| before.policy == policy).map(Occupancy::limit);
        Occupancy {
            policy,
            in_flight: before.map(|before| Arc::clone(&before.in_flight)).unwrap_or_default(),
            limit: AtomicU32::new(found.unwrap_or(policy.max)),
            shed: before.map_or_else(|| Arc::new(PerWorker::new(workers)), |before| Arc::clone(&before.shed)),
        }
    }

    fn enter(&self, worker: usize) -> Option<Ticket> {
        let limit = self.limit();
        let one_more = |in_flight: u32| (in_flight < limit).then_some(in_flight + 1);
        if self.in_flight.try_update(Relaxed, Relaxed, one_more).is_ok() {
            return Some(Ticket(Arc::clone(&self.in_flight)));
        }
        self.shed.of(worker).add(1);
        None
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// How many there may be now.
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// Moves the limit; called by the one task that adapts it.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Relaxed);
    }

    /// Requests refused because there were as many as there may be.
    pub fn shed(&self) -> u64 {
        self.shed.total()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::domain::concurrency::Adaptive;
    use crate::domain::rate::By;
    use crate::domain::route::{Match, Route, Routes, Scheme};

    struct Request;

    impl RequestView for Request {
        fn method(&self) -> &str {
            "GET"
        }
        fn path(&self) -> &str {
            "/"
        }
        fn query(&self) -> &str {
            ""
        }
        fn host(&self) -> &str {
            ""
        }
        fn header(&self, _: &str) -> Option<&str> {
            None
        }
        fn client(&self) -> IpAddr {
            IpAddr::from([127, 0, 0, 1])
        }
        fn scheme(&self) -> Scheme {
            Scheme::Http
        }
    }

    fn limit(name: &str, burst: u32) -> Limit {
        let (by, rate) = (By::All, "1/h".parse().unwrap());
        Limit { name: name.to_owned(), matches: Match::default(), by, rate, burst, keys: 8 }
    }

    /// A service with these limits, a route `narrow` with those, and a route `wide` without.
    fn service(limits: &[Limit], narrow: &[Limit], concurrency: Option<Policy>) -> settings::Service {
        let mut service = settings::Service::new("shop".to_owned(), Vec::new());
        service.rate_limits = limits.to_vec();
        let narrow = Route { rate_limits: narrow.to_vec(), ..Route::new("narrow") };
        service.routes = Routes::new(vec![narrow, Route::new("wide")]);
        service.concurrency = concurrency;
        service
    }

    fn fixed(max: u32) -> Option<Policy> {
        Some(Policy { max, adaptive: None })
    }

    fn passes(intake: &Intake, route: usize) -> bool {
        intake.enter(0, route, &Request, 0).is_ok()
    }

    #[test]
    fn without_limits_it_is_open() {
        let intake = Intake::new(&service(&[], &[], None), None, 1);
        assert!(intake.is_open() && !intake.has_rates() && passes(&intake, 0));
        assert!(!Intake::new(&service(&[], &[limit("a", 1)], None), None, 1).is_open());
        assert!(!Intake::new(&service(&[], &[], fixed(1)), None, 1).is_open());
    }

    #[test]
    fn the_narrower_limit_refuses_first_and_spares_the_wider() {
        let intake = Intake::new(&service(&[limit("all", 4)], &[limit("narrow", 1)], None), None, 1);
        assert_eq!(
            [0, 0, 0, 1, 1, 1, 1].map(|route| passes(&intake, route)),
            [true, false, false, true, true, true, false]
        );
    }

    #[test]
    fn what_stays_the_same_keeps_its_counts() {
        let old = service(&[limit("all", 2)], &[limit("narrow", 1)], fixed(2));
        let before = Intake::new(&old, None, 1);
        let ticket = before.enter(0, 0, &Request, 0).unwrap();
        let mut new = service(&[limit("more", 9), limit("all", 2)], &[limit("narrow", 1)], fixed(1));
        new.routes = Routes::new(vec![Route::new("first"), new.routes.all()[0].clone()]);
        let after = Intake::new(&new, Some((&old, &before)), 1);
        assert!(!passes(&after, 1), "the route's, although its place is another");
        assert_eq!(after.enter(0, 0, &Request, 0).unwrap_err(), Refused::Full, "what is in flight still is");
        drop(ticket);
        assert!(!passes(&after, 0), "the service's: one of two, and one for the request without a place");
        let fresh = Intake::new(&service(&[limit("all", 3)], &[], None), Some((&new, &after)), 1);
        assert!(passes(&fresh, 0) && passes(&fresh, 0), "other settings begin anew");
    }

    #[test]
    fn tickets_never_exceed_the_limit_and_come_back() {
        let intake = Intake::new(&service(&[], &[], fixed(3)), None, 8);
        let occupancy = intake.occupancy().unwrap();
        std::thread::scope(|scope| {
            for worker in 0..8 {
                let (intake, occupancy) = (&intake, &occupancy);
                scope.spawn(move || {
                    for _ in 0..2_000 {
                        let ticket = intake.enter(worker, 0, &Request, 0);
                        assert!(occupancy.in_flight() <= 3);
                        drop(ticket);
                    }
                });
            }
        });
        assert_eq!(occupancy.in_flight(), 0);
        let shed = occupancy.shed();
        let tickets: Vec<_> = (0..5).filter_map(|_| intake.enter(0, 0, &Request, 0).ok()).collect();
        assert_eq!((tickets.len(), occupancy.shed() - shed), (3, 2));
    }

    #[test]
    fn a_limit_that_moved_stays_while_its_policy_does() {
        let policy = |min| Some(Policy { max: 100, adaptive: Some(Adaptive { min, ..Adaptive::default() }) });
        let old = service(&[], &[], policy(5));
        let before = Intake::new(&old, None, 1);
        before.occupancy().unwrap().set_limit(40);
        let limit = |service: &settings::Service| {
            Intake::new(service, Some((&old, &before)), 1).occupancy().map(|occupancy| occupancy.limit())
        };
        assert_eq!((limit(&old), limit(&service(&[], &[], policy(6)))), (Some(40), Some(100)));
        assert_eq!(limit(&service(&[], &[], None)), None);
    }
}
