//! `teal pause|resume|approve|promote|abort SVC`: what a person does to the rollout under way.

use http::Method;
use http::header::HeaderMap;

use super::client::{Client, path};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::{follow, text};
use crate::control::admin::wire::{Action, Rollout, Verb};

/// What these verbs are told.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The service
    #[arg(value_name = "SVC")]
    service: String,
}

/// What `abort` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  teal abort shop --reason 'wrong build'")]
pub(super) struct AbortArguments {
    /// The service
    #[arg(value_name = "SVC")]
    service: String,
    /// Why, for the records
    #[arg(long, value_name = "TEXT", env = "TEAL_ABORT_REASON")]
    reason: Option<String>,
}

/// Does `verb` to the service's rollout.
pub(super) async fn run(
    arguments: &Arguments,
    verb: Verb,
    client: &Client,
    output: Output<'_>,
) -> Result<Exit, Failure> {
    act(&arguments.service, Action { action: verb, reason: None }, client, output).await
}

/// Aborts the service's rollout.
pub(super) async fn abort(arguments: AbortArguments, client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    let AbortArguments { service, reason } = arguments;
    act(&service, Action { action: Verb::Abort, reason }, client, output).await
}

async fn act(service: &str, action: Action, client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    let Some(rollout) = follow::running(client, service).await? else {
        return Err(Failure::Conflict(format!("no rollout of `{service}` is under way")));
    };
    let path = path(&["rollouts", &rollout.id, "actions"]);
    let rollout: Rollout = client.send(Method::POST, &path, &action, HeaderMap::new()).await?;
    output.show(&rollout, text::rollout)?;
    Ok(Exit::Done)
}
