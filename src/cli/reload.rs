//! `teal reload`: reads the configuration file again.

use super::client::{Client, path};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::text;
use crate::control::admin::wire::Reloaded;

/// Reloads, and says what changed.
pub(super) async fn run(client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    let reloaded: Reloaded = client.post(&path(&["config", "reload"])).await?;
    output.show(&reloaded, text::reloaded)?;
    Ok(Exit::Done)
}
