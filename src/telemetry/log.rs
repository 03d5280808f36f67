//! The process log: human lines on standard error, or JSON lines for collectors.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;

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
