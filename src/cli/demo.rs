//! `teal demo`: what it is told.

use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;

use super::output::Format;
use super::{Global, parse};
use crate::demo;

/// What `demo` is told.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(after_help = "Examples:\n  teal demo\n  teal demo --fail latency --headless --for 30s -o json")]
pub(super) struct Arguments {
    /// Break the new version in the middle
    #[arg(long, value_name = "FAULT", env = "TEAL_DEMO_FAIL")]
    fail: Option<Fault>,
    /// Plain lines, and an end soon after the verdict
    #[arg(long, env = "TEAL_DEMO_HEADLESS", value_parser = clap::builder::FalseyValueParser::new())]
    headless: bool,
    /// The longest the run may take
    #[arg(long = "for", value_name = "DURATION", env = "TEAL_DEMO_FOR", value_parser = parse::duration)]
    time: Option<Duration>,
}

/// Shows Teal at work. The process log stays off: it would write across the live view.
pub(super) fn run(arguments: &Arguments, global: &Global) -> ExitCode {
    let code = demo::run(demo::Options {
        fail: arguments.fail.map(Fault::as_mode),
        headless: arguments.headless,
        duration: arguments.time,
        json: global.output == Format::Json,
        colour: global.colour(),
    });
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// What goes wrong in the demo's new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Fault {
    /// Some requests are answered with 500
    Errors,
    /// It becomes slow
    Latency,
    /// It accepts requests and never answers
    Hang,
    /// It goes away
    Crash,
}

impl Fault {
    fn as_mode(self) -> demo::Fail {
        match self {
            Fault::Errors => demo::Fail::Errors,
            Fault::Latency => demo::Fail::Latency,
            Fault::Hang => demo::Fail::Hang,
            Fault::Crash => demo::Fail::Crash,
        }
    }
}
