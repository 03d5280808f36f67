//! What a service takes in: its limits and what they refused, as the control plane shows them.

use crate::bridge::rate::Limiter;
use crate::bridge::table::Service;
use crate::domain::rate::Rate;

/// The limits of a service. Counts are since the process began or the limit was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntakeStatus {
    /// The service's own first, then route by route.
    pub rate_limits: Vec<RateLimitStatus>,
    /// `None` if those in flight are not limited.
    pub concurrency: Option<ConcurrencyStatus>,
}

/// One rate limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitStatus {
    /// Its name.
    pub name: String,
    /// The route it belongs to; none if it is the service's.
    pub route: Option<String>,
    /// How often.
    pub rate: Rate,
    /// How many at once after a silence.
    pub burst: u32,
    /// Requests refused.
    pub refused: u64,
    /// Keys that began with the debt of another: the limit remembers too few.
    pub crowded: u64,
}

/// How many requests may be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrencyStatus {
    /// In flight now.
    pub in_flight: u32,
    /// As many as there may be now.
    pub limit: u32,
    /// Refused because there were as many.
    pub shed: u64,
}

impl IntakeStatus {
    /// As it is now.
    pub fn of(service: &Service) -> IntakeStatus {
        let own = service.intake.of_service().iter().map(|limiter| limit(None, limiter));
        let routes = service.settings.routes.all().iter().enumerate();
        let of_routes = routes.flat_map(|(at, route)| {
            service.intake.of_route(at).iter().map(move |limiter| limit(Some(&route.name), limiter))
        });
        let concurrency = service.intake.occupancy().map(|occupancy| ConcurrencyStatus {
            in_flight: occupancy.in_flight(),
            limit: occupancy.limit(),
            shed: occupancy.shed(),
        });
        IntakeStatus { rate_limits: own.chain(of_routes).collect(), concurrency }
    }
}

fn limit(route: Option<&str>, limiter: &Limiter) -> RateLimitStatus {
    RateLimitStatus {
        name: limiter.limit.name.clone(),
        route: route.map(str::to_owned),
        rate: limiter.limit.rate,
        burst: limiter.limit.burst,
        refused: limiter.total(|tally| tally.refused.read()),
        crowded: limiter.total(|tally| tally.crowded.read()),
    }
}
