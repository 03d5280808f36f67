//! What a service takes in, as JSON: its limits and what they refused. A serde border file.

use serde::{Deserialize, Serialize};

use crate::control::command;

/// The limits of a service. Counts are since the process began or the limit was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intake {
    /// The service's own first, then route by route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RateLimit>,
    /// Missing if those in flight are not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
}

/// One rate limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Its name.
    pub name: String,
    /// The route it belongs to; none if it is the service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Such as `100/s`.
    pub rate: String,
    /// How many at once after a silence.
    pub burst: u32,
    /// Requests answered 429.
    pub refused: u64,
    /// Keys that began with the debt of another: the limit remembers too few.
    pub crowded: u64,
}

/// How many requests may be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// In flight now.
    pub in_flight: u32,
    /// As many as there may be now.
    pub limit: u32,
    /// Answered 503 because there were as many.
    pub shed: u64,
}

impl Intake {
    /// True if there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.rate_limits.is_empty() && self.concurrency.is_none()
    }
}

impl From<command::IntakeStatus> for Intake {
    fn from(status: command::IntakeStatus) -> Intake {
        let limit = |limit: command::RateLimitStatus| {
            let command::RateLimitStatus { name, route, rate, burst, refused, crowded } = limit;
            RateLimit { name, route, rate: rate.to_string(), burst, refused, crowded }
        };
        let concurrency = status.concurrency.map(|known| {
            let command::ConcurrencyStatus { in_flight, limit, shed } = known;
            Concurrency { in_flight, limit, shed }
        });
        Intake { rate_limits: status.rate_limits.into_iter().map(limit).collect(), concurrency }
    }
}
