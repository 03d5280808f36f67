//! `teal deploy SVC --to POOL`: starts a rollout, and with `--wait` stays until it is over.

use std::time::Duration;

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::client::{Client, path};
use super::failure::{Exit, Failure};
use super::follow::{self, Heard};
use super::output::Output;
use super::{parse, text};
use crate::control::admin::wire::{Deploy, Rollout};

/// Repeating a deploy with the same key starts nothing new.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What `deploy` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  teal deploy shop --to green --wait --timeout 30m")]
pub(super) struct Arguments {
    /// The service
    #[arg(value_name = "SVC")]
    service: String,
    /// The pool that is to serve
    #[arg(long, value_name = "POOL", env = "TEAL_DEPLOY_TO")]
    to: String,
    /// Stay until it is over: exit code 0 promoted, 3 rolled back, 1 aborted
    #[arg(long, env = "TEAL_DEPLOY_WAIT", value_parser = clap::builder::FalseyValueParser::new())]
    wait: bool,
    /// With --wait: give up waiting (not the rollout) after this long, exit code 4
    #[arg(long, value_name = "DURATION", env = "TEAL_DEPLOY_TIMEOUT", requires = "wait", value_parser = parse::duration)]
    timeout: Option<Duration>,
    /// Deploying again with the same key starts nothing new
    #[arg(long, value_name = "TEXT", env = "TEAL_DEPLOY_KEY")]
    key: Option<String>,
}

/// Starts the rollout.
pub(super) async fn run(arguments: Arguments, client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    let Arguments { service, to, wait, timeout, key } = arguments;
    let key = key.map(|key| HeaderValue::from_str(&key)).transpose();
    let key = key.map_err(|_| Failure::Usage("the key holds characters that a header cannot have".to_owned()))?;
    let fields = HeaderMap::from_iter(key.map(|key| (IDEMPOTENCY_KEY, key)));
    let path = path(&["services", &service, "rollouts"]);
    let rollout: Rollout = client.send(Method::POST, &path, &Deploy { to, plan: None }, fields).await?;
    if !wait {
        output.show(&rollout, text::rollout)?;
        return Ok(Exit::Done);
    }
    let work = follow::to_end(client, &rollout.id, |heard| tell(heard, output));
    let rollout = follow::within(timeout, &service, work).await?;
    output.show(&rollout, text::rollout)?;
    Ok(follow::exit(&rollout))
}

/// Prints a step's sentence as it happens.
pub(super) fn tell(heard: &Heard, output: Output<'_>) -> Result<(), Failure> {
    match heard {
        Heard::Event(event) => output.say(&event.sentence),
        Heard::Lost(failure) => {
            output.remark(&format!("{failure}; trying again"));
            Ok(())
        }
    }
}
