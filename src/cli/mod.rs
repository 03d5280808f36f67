//! The command line: one file per verb. This one names the verbs and the options they share, and picks.
//!
//! Verbs that ask a running Teal do so through [`client`]; what they print is made by pure functions in [`text`];
//! verbs that serve hand over in [`serve`].
//!
//! Invariant: a verb ends in an [`Exit`] or a [`Failure`], never in a panic; only [`main`] turns them into a process
//! status. A flag of one verb reads `TEAL_VERB_FLAG` from the environment, so that it cannot reach another verb.

mod act;
pub mod check;
mod client;
mod demo;
mod deploy;
mod drain;
mod endpoints;
mod failure;
mod fault;
mod follow;
mod output;
mod parse;
mod proxy;
mod reload;
mod rollback;
mod serve;
mod sse;
mod status;
mod streams;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod upgrade;
mod wait;
mod watch;
mod weight;

use std::cell::RefCell;
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use self::client::{Client, Limits};
use self::failure::{Exit, Failure};
use self::output::{Format, Output};
use crate::config::settings::Address;
use crate::control::admin::wire::Verb;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "teal",
    version,
    about = "Switches traffic between two versions of a service, judges the new one live, and rolls back by itself",
    after_help = "Examples:\n  \
        teal demo                                        see it work\n  \
        teal proxy --blue http://127.0.0.1:3001 --green http://127.0.0.1:3002\n  \
        teal run -c teal.yaml\n  \
        teal deploy shop --to green --wait               release\n\n\
        Exit codes: 0 ok, 1 failed, 2 usage, 3 rolled back, 4 timeout, 5 conflict"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every verb.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// The admin API to ask
    #[arg(long, global = true, value_name = "URL", env = "TEAL_ADMIN", default_value = "http://127.0.0.1:9900")]
    #[arg(value_parser = parse::admin)]
    admin: Address,
    /// Its token, or file:PATH
    #[arg(long, global = true, env = "TEAL_TOKEN")]
    token: Option<String>,
    /// How results are printed
    #[arg(short, long, global = true, value_name = "FORMAT", env = "TEAL_OUTPUT", default_value = "table")]
    output: Format,
    /// off, error, warn, info, debug or trace
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        hide_possible_values = true,
        env = "TEAL_LOG_LEVEL",
        default_value = "info"
    )]
    log_level: LogLevel,
    /// How log lines look
    #[arg(long, global = true, value_name = "FORMAT", env = "TEAL_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Never colour; NO_COLOR does the same
    #[arg(long, global = true, env = "TEAL_NO_COLOR", value_parser = clap::builder::FalseyValueParser::new())]
    no_color: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// The verbs, in the order in which a new user meets them.
#[derive(Debug, Subcommand)]
enum Command {
    /// Show Teal at work: two versions, traffic, a fault, a rollback
    Demo(demo::Arguments),
    /// Serve without a configuration file: one service, two pools
    Proxy(proxy::Arguments),
    /// Serve by a configuration file
    Run(serve::Arguments),
    /// Say what a configuration file means, or everything that is wrong with it
    Check(serve::CheckArguments),
    #[command(flatten)]
    Ask(Question),
}

/// Verbs that ask a running Teal.
#[derive(Debug, Subcommand)]
enum Question {
    /// Read the configuration file again
    #[command(after_help = "Example:\n  teal reload")]
    Reload,
    /// Show services, their pools and what the judge sees
    Status(status::Arguments),
    /// Set the pools' shares of a service's traffic
    Weight(weight::Arguments),
    /// Send all traffic of a service back to its active pool, at once
    Rollback(rollback::Arguments),
    /// Release: move a service to another pool, step by step
    Deploy(deploy::Arguments),
    /// Inject faults into a service for a drill, until a time
    Fault(fault::Arguments),
    /// Hold a service's rollout where it is
    #[command(after_help = "Example:\n  teal pause shop")]
    Pause(act::Arguments),
    /// Let a held rollout go on, or end a pause
    #[command(after_help = "Example:\n  teal resume shop")]
    Resume(act::Arguments),
    /// Let a rollout that waits for approval go on
    #[command(after_help = "Example:\n  teal approve shop")]
    Approve(act::Arguments),
    /// Skip the rest of a rollout: the new pool becomes the active one
    #[command(after_help = "Example:\n  teal promote shop")]
    Promote(act::Arguments),
    /// Give up a rollout: all traffic back to the old pool
    Abort(act::AbortArguments),
    /// Show the endpoints of a service one by one
    Endpoints(endpoints::Arguments),
    /// Take a pool, or one endpoint of it, out of use
    Drain(drain::Arguments),
    /// Put a pool, or one endpoint of it, into use again
    Undrain(drain::UndrainArguments),
    /// Show what has been streaming for long
    Streams(streams::Arguments),
    /// Have a new process take over, without a connection noticing
    #[command(
        after_help = "The program is the one that runs, as it is on the disk now: replace the file first.\n\nExample:\n  teal upgrade"
    )]
    Upgrade,
    /// Print what happens, line by line
    Watch(watch::Arguments),
    /// Wait for the end of a rollout
    Wait(wait::Arguments),
}

/// The whole program: arguments in, process status out.
pub fn main() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help asked for is an "error" too, with status 0. A closed output has nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let (out, err) = (RefCell::new(std::io::stdout()), RefCell::new(std::io::stderr()));
    let coloured = cli.global.may_colour() && std::io::IsTerminal::is_terminal(&std::io::stdout());
    let output = Output { format: cli.global.output, coloured, out: &out, err: &err };
    let ended = match cli.command {
        Command::Demo(options) => Ok(demo::run(&options, &cli.global)),
        Command::Proxy(arguments) => serve::proxy(arguments, &cli.global),
        Command::Run(arguments) => serve::run(&arguments, &cli.global),
        Command::Check(arguments) => serve::check(&arguments, &cli.global),
        Command::Ask(question) => ask(question, cli.global, output).map(ExitCode::from),
    };
    ended.unwrap_or_else(|failure| {
        output.fail(&failure);
        failure.exit().into()
    })
}

/// The arguments as clap sees them, with one short help. Values found in the environment stay out of it: one is a
/// secret.
fn command() -> clap::Command {
    let quiet = |arg: clap::Arg| arg.hide_env_values(true);
    let help =
        clap::Arg::new("help").short('h').long("help").global(true).action(ArgAction::HelpShort).help("Print help");
    let command = Cli::command().mut_args(quiet).mut_subcommands(move |verb| verb.mut_args(quiet));
    command.disable_help_flag(true).arg(help)
}

fn ask(question: Question, global: Global, output: Output<'_>) -> Result<Exit, Failure> {
    let token = global.token()?;
    let actor = std::env::var("USER").ok();
    let client = Client::new(global.admin, token.as_deref(), actor.as_deref(), Limits::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Local(format!("the runtime does not start: {error}")))?;
    runtime.block_on(answer(question, &client, output))
}

async fn answer(question: Question, client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    match question {
        Question::Reload => reload::run(client, output).await,
        Question::Status(arguments) => status::run(arguments, client, output).await,
        Question::Weight(arguments) => weight::run(arguments, client, output).await,
        Question::Rollback(arguments) => rollback::run(arguments, client, output).await,
        Question::Deploy(arguments) => deploy::run(arguments, client, output).await,
        Question::Fault(arguments) => fault::run(arguments, client, output).await,
        Question::Pause(arguments) => act::run(&arguments, Verb::Pause, client, output).await,
        Question::Resume(arguments) => act::run(&arguments, Verb::Resume, client, output).await,
        Question::Approve(arguments) => act::run(&arguments, Verb::Approve, client, output).await,
        Question::Promote(arguments) => act::run(&arguments, Verb::Promote, client, output).await,
        Question::Abort(arguments) => act::abort(arguments, client, output).await,
        Question::Endpoints(arguments) => endpoints::run(arguments, client, output).await,
        Question::Drain(arguments) => drain::run(arguments, client, output).await,
        Question::Undrain(arguments) => drain::undrain(arguments, client, output).await,
        Question::Streams(arguments) => streams::run(arguments, client, output).await,
        Question::Upgrade => upgrade::run(client, output).await,
        Question::Watch(arguments) => watch::run(&arguments, client, output).await,
        Question::Wait(arguments) => wait::run(&arguments, client, output).await,
    }
}

impl Global {
    /// The admin API's token; an empty one is none.
    fn token(&self) -> Result<Option<String>, Failure> {
        let text = self.token.as_deref().map(parse::token).transpose().map_err(Failure::Usage)?;
        Ok(text.filter(|token| !token.is_empty()))
    }

    /// Whether standard error may be coloured.
    fn colour(&self) -> bool {
        self.may_colour() && std::io::IsTerminal::is_terminal(&std::io::stderr())
    }

    /// Whether anything may be coloured.
    fn may_colour(&self) -> bool {
        !(self.no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()))
    }
}
