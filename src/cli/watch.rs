//! `teal watch [SVC]`: what happens, one line each, on a terminal and in a pipe alike.

use tokio::time::interval;

use super::client::{Client, path};
use super::failure::{Exit, Failure};
use super::follow::{self, Heard};
use super::output::Output;
use super::text;
use crate::control::admin::wire::{Event, ServiceStatus};

/// What `watch` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  teal watch\n  teal watch shop --until-ended\n  teal watch -o json | jq .sentence")]
pub(super) struct Arguments {
    /// Only this service
    #[arg(value_name = "SVC")]
    service: Option<String>,
    /// Stop when the rollout under way, or else the next, ends: exit code 0 promoted, 3 rolled back, 1 aborted
    #[arg(
        long,
        env = "TEAL_WATCH_UNTIL_ENDED",
        requires = "service",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    until_ended: bool,
}

/// Prints events until somebody stops it, or a rollout ends.
pub(super) async fn run(arguments: &Arguments, client: &Client, output: Output<'_>) -> Result<Exit, Failure> {
    let mut under_way = None;
    let service = arguments.service.as_deref();
    if let Some(service) = service {
        // A wrong name is refused at once: nothing would ever happen to it.
        let status: ServiceStatus = client.get(&path(&["services", service])).await?;
        under_way = status.rollout.map(|rollout| rollout.id);
    }
    let from_now_on = None;
    let mut heard = follow::follow(client.clone(), from_now_on);
    let mut look = interval(client.limits.look);
    look.tick().await;
    loop {
        // An event can be lost with the process that told it; the rollout's own word cannot.
        if let Some(id) = under_way.as_deref().filter(|_| arguments.until_ended)
            && let Some(rollout) = follow::over(client, id).await?
        {
            while let Ok(Ok(next)) = heard.try_recv() {
                tell(next, service, output)?;
            }
            return Ok(follow::exit(&rollout));
        }
        loop {
            tokio::select! {
                next = follow::next(&mut heard) => if let Some(event) = tell(next?, service, output)? {
                    let may_be_over = follow::is_end(&event);
                    under_way = under_way.or(event.rollout);
                    if may_be_over {
                        break;
                    }
                },
                _ = look.tick(), if arguments.until_ended => break,
            }
        }
    }
}

/// Prints what concerns the service; the event printed.
fn tell(heard: Heard, service: Option<&str>, output: Output<'_>) -> Result<Option<Event>, Failure> {
    match heard {
        Heard::Event(event) if concerns(&event, service) => {
            output.show_line(&event, text::event)?;
            Ok(Some(event))
        }
        Heard::Event(_) => Ok(None),
        Heard::Lost(failure) => {
            output.remark(&format!("{failure}; trying again"));
            Ok(None)
        }
    }
}

/// Whether an event belongs to what is watched: the service's own, and those of the whole process.
fn concerns(event: &Event, service: Option<&str>) -> bool {
    match (&event.service, service) {
        (Some(its), Some(watched)) => its == watched,
        _ => true,
    }
}
