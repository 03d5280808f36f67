//! `teal wait SVC --for END --timeout D`: for pipelines that started a rollout elsewhere.

use std::time::Duration;

use clap::ValueEnum;

use super::client::Client;
use super::failure::{Exit, Failure};
use super::output::Output;
use super::{deploy, follow, parse, text};
use crate::control::admin::wire::Rollout;

/// What `wait` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Looks at the rollout under way, or else at the last one.\n\n\
    Example:\n  teal wait shop --for promoted --timeout 30m")]
pub(super) struct Arguments {
    /// The service
    #[arg(value_name = "SVC")]
    service: String,
    /// The end to wait for; another end is exit code 3 (rolled back) or 1
    #[arg(long = "for", value_name = "END", env = "TEAL_WAIT_FOR")]
    wanted: Wanted,
    /// Give up waiting after this long, exit code 4
    #[arg(long, value_name = "DURATION", env = "TEAL_WAIT_TIMEOUT", value_parser = parse::duration)]
    timeout: Option<Duration>,
}

/// What is waited for: the new pool is the active one, the old one has everything again, no rollout is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wanted {
    Promoted,
    RolledBack,
    Idle,
}

/// Waits for the end of the rollout under way; without one, looks at the last.
pub(super) async fn run(arguments: &Arguments, client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    let service = &arguments.service;
    let work = async {
        let rollout = match arguments.wanted {
            Wanted::Idle => follow::running(client, service).await?,
            Wanted::Promoted | Wanted::RolledBack => follow::latest(client, service).await?,
        };
        match rollout {
            Some(rollout) if rollout.ended.is_none() => {
                follow::to_end(client, &rollout.id, |heard| deploy::tell(heard, output)).await.map(Some)
            }
            other => Ok(other),
        }
    };
    let rollout = follow::within(arguments.timeout, service, work).await?;
    match (&rollout, arguments.wanted) {
        (None, Wanted::Idle) => output.show(&rollout, |_| format!("no rollout of {service} is under way"))?,
        (None, _) => return Err(Failure::Conflict(format!("`{service}` has had no rollout"))),
        (Some(rollout), _) => output.show(rollout, text::rollout)?,
    }
    Ok(exit(arguments.wanted, rollout.as_ref()))
}

fn exit(wanted: Wanted, rollout: Option<&Rollout>) -> Exit {
    match (wanted, rollout.map(follow::exit)) {
        (Wanted::Idle, _) | (Wanted::RolledBack, Some(Exit::RolledBack)) => Exit::Done,
        (Wanted::Promoted, Some(exit)) => exit,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::rollout;

    #[test]
    fn the_exit_code_says_how_it_ended() {
        let table = [
            ("promoted", [0, 1, 0]),
            ("rolled_back", [3, 0, 0]),
            ("aborted", [1, 1, 0]),
            ("a word of the future", [1, 1, 0]),
        ];
        for (how, codes) in table {
            let over = rollout(Some(how));
            let wanted = [Wanted::Promoted, Wanted::RolledBack, Wanted::Idle];
            assert_eq!(wanted.map(|wanted| exit(wanted, Some(&over)) as u8), codes, "{how}");
        }
        assert_eq!(exit(Wanted::Idle, None), Exit::Done);
    }
}
