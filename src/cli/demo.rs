//! `teal demo`: what it is told.

use std::time::Duration;

use clap::ValueEnum;

use super::parse;

/// What `demo` is told.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(after_help = "Examples:\n  teal demo\n  teal demo --fail latency --headless --for 30s -o json")]
pub struct DemoOptions {
    /// What goes wrong in the new version
    #[arg(long, value_name = "FAULT", env = "TEAL_DEMO_FAIL", default_value = "errors")]
    pub fail: Fault,
    /// Only print, no dashboard
    #[arg(long, env = "TEAL_DEMO_HEADLESS", value_parser = clap::builder::FalseyValueParser::new())]
    pub headless: bool,
    /// Stop after this long
    #[arg(long = "for", value_name = "DURATION", env = "TEAL_DEMO_FOR", value_parser = parse::duration)]
    pub time: Option<Duration>,
    /// Repeat a run: the same number, the same traffic
    #[arg(long, value_name = "N", env = "TEAL_DEMO_SEED")]
    pub seed: Option<u64>,
}

/// What goes wrong in the demo's new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Some requests are answered with 500
    Errors,
    /// It becomes slow
    Latency,
    /// It accepts requests and never answers
    Hang,
    /// It goes away
    Crash,
}
