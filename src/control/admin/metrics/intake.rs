//! Metrics of what comes in: what was refused by rate, by number in flight, or by a process that has enough to do; and
//! of faults that are injected.

use prometheus::proto::{MetricFamily, MetricType};

use super::{counter, family, gauge};
use crate::bridge::admission::Shed;
use crate::bridge::rate::Limiter;
use crate::bridge::table::{Plane, Service, Table, WorkerTally};
use crate::telemetry::names;

/// The families of the intake.
pub(super) fn families(plane: &Plane, table: &Table) -> [MetricFamily; 8] {
    let (mut refused, mut crowded) = (Vec::new(), Vec::new());
    let (mut drills, mut injected) = (Vec::new(), Vec::new());
    let (mut limits, mut in_flight, mut full) = (Vec::new(), Vec::new(), Vec::new());
    for service in &table.services {
        let name = ("service", service.settings.name.as_str());
        for (route, limiter) in limiters(service) {
            let place = [name, ("route", route), ("limit", limiter.limit.name.as_str())];
            refused.push(counter(&place, limiter.total(|tally| tally.refused.read())));
            crowded.push(counter(&place, limiter.total(|tally| tally.crowded.read())));
        }
        drills.push(gauge(&[name], service.faults.len() as f64));
        for live in service.faults.iter() {
            injected.push(counter(&[name, ("fault", live.injection.name.as_str())], live.injected()));
        }
        if let Some(occupancy) = service.intake.occupancy() {
            limits.push(gauge(&[name], occupancy.limit().into()));
            in_flight.push(gauge(&[name], occupancy.in_flight().into()));
            full.push(counter(&[name], occupancy.shed()));
        }
    }
    let total = |read: &dyn Fn(&WorkerTally) -> u64| plane.workers.iter().map(read).fold(0, u64::wrapping_add);
    let reason =
        |(at, name): (usize, &&'static str)| counter(&[("reason", name)], total(&|tally| tally.shed[at].read()));
    let shed = Shed::NAMES.iter().enumerate().map(reason);
    [
        family(names::REQUESTS_SHED, MetricType::COUNTER, shed),
        family(names::RATE_LIMITED, MetricType::COUNTER, refused),
        family(names::RATE_LIMIT_CROWDED, MetricType::COUNTER, crowded),
        family(names::CONCURRENCY_LIMIT, MetricType::GAUGE, limits),
        family(names::CONCURRENCY, MetricType::GAUGE, in_flight),
        family(names::SERVICE_SHED, MetricType::COUNTER, full),
        family(names::FAULTS_ACTIVE, MetricType::GAUGE, drills),
        family(names::FAULTS_INJECTED, MetricType::COUNTER, injected),
    ]
}

/// All limiters of a service with the names of their routes.
fn limiters(service: &Service) -> impl Iterator<Item = (&str, &Limiter)> {
    let own = service.intake.of_service().iter().map(|limiter| ("", limiter.as_ref()));
    let routes = service.settings.routes.all().iter().enumerate();
    let of_routes = routes.flat_map(|(at, route)| {
        service.intake.of_route(at).iter().map(move |limiter| (route.name.as_str(), limiter.as_ref()))
    });
    own.chain(of_routes)
}
