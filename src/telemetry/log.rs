//! The process log: human lines on standard error, or JSON lines for collectors.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::clock::Micros;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Style {
    /// For people.
    #[default]
    Text,
    /// For collectors.
    Json,
}

/// Installs the log for the process; a second call changes nothing.
pub fn start(level: LevelFilter, style: Style) {
    let base = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let _ = match style {
        Style::Text => base.with_ansi(colour).try_init(),
        Style::Json => base.json().try_init(),
    };
}

/// Lets one line a second through, so that trouble which repeats does not fill a disk.
#[derive(Debug, Default)]
pub struct Throttle(AtomicU64);

impl Throttle {
    /// One that lets the first line through.
    pub const fn new() -> Throttle {
        Throttle(AtomicU64::new(0))
    }

    /// True if a line may be written now.
    pub fn allows(&self, now: Micros) -> bool {
        let free_at = self.0.load(Relaxed);
        let next = now.after(Duration::from_secs(1)).0;
        now.0 >= free_at && self.0.compare_exchange(free_at, next, Relaxed, Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second() {
        let throttle = Throttle::new();
        let times = [0, 1, 999_999, 1_000_000, 1_900_000, 2_500_000, 2_500_000];
        let allowed: Vec<_> = times.into_iter().filter(|at| throttle.allows(Micros(*at))).collect();
        assert_eq!(allowed, [0, 1_000_000, 2_500_000]);
    }
}
