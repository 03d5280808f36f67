//! How much one pool may be given at a time.
//!
//! What a pool says is read over what its service says, key by key, as breakers are.

use std::num::NonZeroU32;
use std::time::Duration;

use super::file::most;
use super::section::Value;
use super::settings::Limits;

pub(super) const POOL_LIMITS: &[&str] =
    &["max_connections", "max_in_flight", "max_pending", "queue_timeout", "max_requests_per_connection"];

/// Reads a mapping over what holds without it.
pub(super) fn limits(value: Value<'_>, base: &Limits) -> Option<Limits> {
    let section = value.section(POOL_LIMITS)?;
    let time = Duration::from_millis(1)..=Duration::from_secs(60);
    Some(Limits {
        max_connections: section.or("max_connections", base.max_connections, |v| most(v, "none")),
        max_in_flight: section.or("max_in_flight", base.max_in_flight, |v| most(v, "none")),
        max_pending: section.or("max_pending", base.max_pending, |v| v.count(0..=100_000)),
        queue_timeout: section.or("queue_timeout", base.queue_timeout, |v| v.duration(time)),
        max_requests_per_connection: section.or(
            "max_requests_per_connection",
            base.max_requests_per_connection,
            requests,
        ),
    })
}

fn requests(value: Value<'_>) -> Option<Option<NonZeroU32>> {
    if value.is("none") { Some(None) } else { value.count(1..=1_000_000).map(NonZeroU32::new) }
}
