//! `teal demo`: a whole release in half a minute, in one process, with nothing else installed.
//!
//! Two embedded versions of a small service stand behind a real proxy; users load it steadily; green is rolled out
//! step by step and judged by the traffic itself. With `--fail` green breaks in the middle, and one sees how soon
//! that is noticed, why, and what the users felt. Everything is real: sockets, proxy, judge, swap; every figure is
//! counted, none is made up.
//!
//! Invariant: nothing outlives [`run`]; the demo keeps no state and touches no file.

pub mod director;
pub mod fault;
pub mod load;
pub mod sampler;
pub mod stage;
pub mod summary;
pub mod terminal;
pub mod upstream;
pub mod view;

use std::io::{self, Write};
use std::time::Duration;

use director::{Director, Outcome, Output, Script};
pub use fault::Fail;
use stage::Stage;
use summary::{Summary, in_millis};
use terminal::Screen;

use crate::clock::Micros;
use crate::demo::load::Counts;
use crate::domain::stats::histogram;

/// How long a run that nobody watches may take when it is not told.
const UNWATCHED: Duration = Duration::from_secs(30);
/// The exit code when the demo could not start.
const FAILED: i32 = 1;

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// How green breaks in the middle of the rollout; `None` for a healthy one.
    pub fail: Option<Fail>,
    /// Plain lines, and an end two seconds after the verdict, also on a terminal.
    pub headless: bool,
    /// The longest the run may take; `None` means 30 seconds if nobody watches, else no limit.
    pub duration: Option<Duration>,
    /// One JSON object on standard output, everything else on standard error.
    pub json: bool,
    /// Colours in the live view; `NO_COLOR` wins over it.
    pub colour: bool,
}

/// Runs the demo to its end and says the exit code: 0 promoted, 3 rolled back, 4 neither within the time, 1 failed
/// to start.
pub fn run(options: Options) -> i32 {
    let screen = (!options.headless && !options.json).then(Screen::open).flatten();
    let script = Script {
        limit: options.duration.or_else(|| screen.is_none().then_some(UNWATCHED)),
        stays: screen.is_some(),
        colour: options.colour && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        ..Script::new(options.fail, UNWATCHED)
    };
    let output = match screen {
        Some(screen) => Output::Block(screen),
        None if options.json => Output::Lines(Box::new(io::stderr())),
        None => Output::Lines(Box::new(io::stdout())),
    };
    match play(script, output) {
        Ok(summary) => {
            let text = if options.json { summary.json() + "\n" } else { format!("\n{}", summary.text()) };
            // A reader that went away needs no answer.
            let _ = io::stdout().write_all(text.as_bytes());
            summary.verdict.exit_code()
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            FAILED
        }
    }
}

/// Plays a script to its end and adds up what was counted.
///
/// # Errors
/// When the system refuses what the stage needs, or the proxy refuses the rollout.
pub fn play(script: Script, mut output: Output) -> Result<Summary, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let stage = Stage::start(script.rate).map_err(|error| error.to_string())?;
    if let Output::Lines(out) = &mut output {
        let _ = out.write_all(greeting(&stage).as_bytes());
    }
    let fail = script.fail;
    let outcome = runtime.block_on(Director::new(&stage, script, output).run());
    match outcome {
        Ok(outcome) => Ok(summarise(fail, stage, outcome)),
        Err(error) => {
            stage.end();
            Err(error)
        }
    }
}

fn greeting(stage: &Stage) -> String {
    let proxy = stage.running.listen.first().map(|at| format!("proxy  http://{at}\n"));
    let admin = stage.running.admin.map(|at| format!("admin  http://{at}\n"));
    proxy.into_iter().chain(admin).collect()
}

/// Ends the stage and adds up what was counted.
fn summarise(fail: Option<Fail>, stage: Stage, outcome: Outcome) -> Summary {
    let until = outcome.decided.unwrap_or(Micros(u64::MAX));
    let upstreams = &stage.upstreams;
    let bad = if fail == Some(Fail::Crash) { outcome.failed_attempts } else { upstreams.bad_until(until) };
    // A crash that cut nothing off is bad from its own moment on.
    let first_bad = upstreams.first_bad().or(outcome.broken.filter(|_| fail == Some(Fail::Crash)));
    let detection = outcome.decided.zip(first_bad).map(|(decided, first)| in_millis(decided.since(first)));
    let (users, green_requests) = stage.end();
    let quantile = |q| histogram::quantile(&users.latency, q).map(in_millis);
    let Counts { answered, errors, .. } = users;
    Summary {
        verdict: outcome.verdict,
        mode: fail.map_or("healthy", Fail::name),
        requests: answered,
        user_visible_errors: errors,
        rescued: outcome.rescued,
        green_requests,
        bad_on_green_until_detection: bad,
        detection_ms: detection,
        swap_ms: outcome.swap.map(in_millis),
        rollout_seconds: (outcome.took as f64 / 1e4).round() / 100.0,
        reason: outcome.reason,
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        rps: (users.rate() * 10.0).round() / 10.0,
    }
}
