//! The verbs that need no running Teal: `run` and `proxy` become one; `check` reads a file.
//!
//! The only file of the command line that hands over to the process itself.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use tracing::level_filters::LevelFilter;

use super::check;
use super::failure::{Exit, Failure};
use super::output::Format;
use super::{Global, LogFormat, LogLevel, proxy};
use crate::app::{self, succession::Predecessor};
use crate::config::{self, settings::Settings};
use crate::telemetry::log;

/// What `run` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  teal run -c teal.yaml")]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", env = "TEAL_CONFIG")]
    config: PathBuf,
}

/// What `check` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  teal check teal.yaml")]
pub(super) struct CheckArguments {
    /// The configuration file
    #[arg(env = "TEAL_CONFIG")]
    file: PathBuf,
}

/// Serves by a file.
pub(super) fn run(arguments: &Arguments, global: &Global) -> Result<ExitCode, Failure> {
    let unspoken = |error| Failure::Local(format!("the process that is to be succeeded is not there: {error}"));
    let mut predecessor = Predecessor::find().map_err(unspoken)?;
    let settings = config::load(&arguments.config, &variable).inspect_err(|report| {
        predecessor.iter_mut().for_each(|predecessor| predecessor.fail(&report.render(false)));
    });
    let settings = match settings {
        Ok(settings) => settings,
        Err(report) if global.output == Format::Json => return Err(Failure::Local(report.render(false))),
        Err(report) => {
            let _ = write!(std::io::stderr(), "{}", report.render(global.colour()));
            return Ok(Exit::Failed.into());
        }
    };
    start_log(global);
    serve(settings, Some(arguments.config.clone()), predecessor)
}

/// Serves two pools without a file.
pub(super) fn proxy(arguments: proxy::Arguments, global: &Global) -> Result<ExitCode, Failure> {
    let settings = proxy::settings(arguments, global.token()?)?;
    start_log(global);
    serve(settings, None, None)
}

/// Says what a file means on standard output, or on standard error what is wrong with it; JSON is a result either way.
pub(super) fn check(arguments: &CheckArguments, global: &Global) -> Result<ExitCode, Failure> {
    let format = match (global.output, global.colour()) {
        (Format::Json, _) => check::Format::Json,
        (Format::Table, true) => check::Format::Colour,
        (Format::Table, false) => check::Format::Plain,
    };
    let (text, ok) = check::check(&arguments.file, &variable, format);
    let written = match ok || format == check::Format::Json {
        true => std::io::stdout().write_all(text.as_bytes()),
        false => std::io::stderr().write_all(text.as_bytes()),
    };
    written.map_err(|_| Failure::Closed)?;
    Ok(if ok { Exit::Done.into() } else { Exit::Failed.into() })
}

fn serve(settings: Settings, file: Option<PathBuf>, predecessor: Option<Predecessor>) -> Result<ExitCode, Failure> {
    app::run(settings, file, predecessor).map_err(|error| Failure::Local(error.to_string()))?;
    Ok(Exit::Done.into())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn start_log(global: &Global) {
    let level = match global.log_level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let style = match global.log_format {
        LogFormat::Text => log::Style::Text,
        LogFormat::Json => log::Style::Json,
    };
    log::start(level, style);
}
