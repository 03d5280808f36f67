//! The only reader of time.
//!
//! Everything else takes time as an argument or asks here, so that a test that pauses tokio's clock rules
//! all of it. Monotonic time decides (timeouts, drains, schedules); wall time is only ever shown.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Microseconds of monotonic time since the process first asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Micros(pub u64);

impl Micros {
    /// How long ago `earlier` was, in microseconds; zero if it lies ahead.
    pub fn since(self, earlier: Micros) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment and `span` later.
    pub fn after(self, span: Duration) -> Micros {
        Micros(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// The monotonic time now.
pub fn now() -> Micros {
    static START: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    let start = *START.get_or_init(|| now);
    Micros(u64::try_from(now.saturating_duration_since(start).as_micros()).unwrap_or(u64::MAX))
}

/// The wall clock in milliseconds since 1970, for people and logs only.
pub fn wall_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A wall time as RFC 3339 with milliseconds, in UTC.
pub fn rfc3339(wall_millis: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(wall_millis)).to_string()
}
