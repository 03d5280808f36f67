//! `teal status [SVC]`: how services, pools, rollouts and the judge are doing.

use super::client::{Client, path};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::text;
use crate::control::admin::wire::{ServiceStatus, Services};

/// What `status` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  teal status\n  teal status shop -o json")]
pub(super) struct Arguments {
    /// Only this service
    #[arg(value_name = "SVC")]
    service: Option<String>,
}

/// Shows one service, or all.
pub(super) async fn run(arguments: Arguments, client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    match arguments.service {
        Some(name) => output.show(&client.get::<ServiceStatus>(&path(&["services", &name])).await?, text::service)?,
        None => output.show(&client.get::<Services>(&path(&["services"])).await?, text::services)?,
    }
    Ok(Exit::Done)
}
