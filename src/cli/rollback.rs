//! `teal rollback SVC`: all traffic back to the active pool, whatever is under way.

use std::time::Duration;

use http::Method;
use http::header::HeaderMap;

use super::client::{Client, path};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::text;
use crate::control::admin::wire::{Done, Rollback};

/// What `rollback` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  teal rollback shop --reason 'checkout is slow'")]
pub(super) struct Arguments {
    /// The service
    #[arg(value_name = "SVC")]
    service: String,
    /// Why, for the records
    #[arg(long, value_name = "TEXT", env = "TEAL_ROLLBACK_REASON")]
    reason: Option<String>,
}

/// How long a rollback is asked for again of a process that is being succeeded, and how often.
const HANDOVER: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(100));

/// Rolls back; ends when every worker has done so.
pub(super) async fn run(arguments: Arguments, client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    let Arguments { service, reason } = arguments;
    let path = path(&["services", &service, "rollback"]);
    let order = Rollback { reason };
    let mut done: Result<Done, Failure> = client.send(Method::POST, &path, &order, HeaderMap::new()).await;
    let (time, pause) = HANDOVER;
    for _ in 0..time.as_millis() / pause.as_millis() {
        let Err(Failure::Problem(problem)) = &done else { break };
        if problem.code != "shutting_down" {
            break;
        }
        // Whoever takes over answers at the same address, and doing it twice is doing it once.
        tokio::time::sleep(pause).await;
        done = client.send(Method::POST, &path, &order, HeaderMap::new()).await;
    }
    let done = done?;
    output.show(&done, |done| text::done(&service, done))?;
    Ok(Exit::Done)
}
