//! `teal rollback SVC`: all traffic back to the active pool, whatever is under way.

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

/// Rolls back; ends when every worker has done so.
pub(super) async fn run(arguments: Arguments, client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    let Arguments { service, reason } = arguments;
    let path = path(&["services", &service, "rollback"]);
    let done: Done = client.send(Method::POST, &path, &Rollback { reason }, HeaderMap::new()).await?;
    output.show(&done, |done| text::done(&service, done))?;
    Ok(Exit::Done)
}
