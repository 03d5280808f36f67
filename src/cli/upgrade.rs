//! `teal upgrade`: the running process is succeeded by a new one, without a connection noticing.

use std::time::Duration;

use super::client::{Client, path};
use super::failure::{Exit, Failure};
use super::output::Output;
use crate::control::admin::wire::upgrade::Upgraded;

/// Upgrades; ends when the new process serves.
pub(super) async fn run(client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    let upgraded: Upgraded = client.post(&path(&["upgrade"])).await?;
    output.show(&upgraded, text)?;
    Ok(Exit::Done)
}

fn text(upgraded: &Upgraded) -> String {
    let Upgraded { process, predecessor, version, took_us } = upgraded;
    let took = humantime::format_duration(Duration::from_millis(took_us / 1_000));
    format!(
        "process {process} (version {version}) serves since {took} after the order; {predecessor} finishes what it has"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_a_sentence() {
        let upgraded = Upgraded { process: 12, predecessor: 7, version: "1.2.3".to_owned(), took_us: 250_900 };
        let expected = "process 12 (version 1.2.3) serves since 250ms after the order; 7 finishes what it has";
        assert_eq!(text(&upgraded), expected);
    }
}
