//! Following what happens: the stream of events, taken up again after a lost connection, and a rollout to its end.
//!
//! Events give the sentences; the rollout itself, read again and again, gives the truth about its end. So an event
//! that was lost (a restart, a full ring) costs a line of output, never the result.

use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{interval, sleep, timeout};

use super::client::{Client, path};
use super::failure::{Exit, Failure};
use crate::control::admin::wire::{Event, Rollout, Rollouts, ServiceStatus};

/// Attempts, a second apart, before it is given up: a restart takes seconds, a minute is an outage.
const ATTEMPTS: u32 = 60;
/// Events on their way to a slow terminal; more wait in Teal.
const QUEUE: usize = 64;

/// What a follower hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Something happened.
    Event(Event),
    /// The connection was lost; it is being taken up again.
    Lost(Failure),
}

/// Follows the events after the id `after` (`None`: from where Teal begins). The last item is the failure that ended it.
pub(super) fn follow(client: Client, after: Option<String>) -> Receiver<Result<Heard, Failure>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        if let Err(failure) = pump(&client, after, &sender).await {
            let _ = sender.send(Err(failure)).await;
        }
    });
    receiver
}

/// Returns when nobody listens any more, or with the failure that no further attempt can mend.
async fn pump(
    client: &Client,
    mut last: Option<String>,
    sender: &Sender<Result<Heard, Failure>>,
) -> Result<(), Failure> {
    let (mut reached, mut attempts) = (false, 0);
    loop {
        let failure = match client.events(last.as_deref()).await {
            Ok(mut events) => {
                (reached, attempts) = (true, 0);
                loop {
                    let (id, event) = match events.next().await {
                        Ok(next) => next,
                        Err(failure) => break failure,
                    };
                    last = Some(id).filter(|id| !id.is_empty()).or_else(|| Some(event.id.to_string()));
                    if sender.send(Ok(Heard::Event(event))).await.is_err() {
                        return Ok(());
                    }
                }
            }
            Err(failure) => failure,
        };
        attempts += 1;
        if !reached || attempts > ATTEMPTS || !failure.may_pass() {
            return Err(failure);
        }
        if attempts == 1 && sender.send(Ok(Heard::Lost(failure))).await.is_err() {
            return Ok(());
        }
        sleep(client.limits.again).await;
    }
}

/// Follows the rollout `id` to its end; `tell` gets its events but the last, and lost connections.
pub(super) async fn to_end(
    client: &Client,
    id: &str,
    mut tell: impl FnMut(&Heard) -> Result<(), Failure>,
) -> Result<Rollout, Failure> {
    let from_the_first = Some("0".to_owned());
    let mut heard = follow(client.clone(), from_the_first);
    let mut pass = |heard: &Heard| match heard {
        Heard::Event(event) if event.rollout.as_deref() != Some(id) || is_end(event) => Ok(()),
        _ => tell(heard),
    };
    let mut look = interval(client.limits.look);
    look.tick().await;
    loop {
        if let Some(rollout) = over(client, id).await? {
            while let Ok(Ok(next)) = heard.try_recv() {
                pass(&next)?;
            }
            return Ok(rollout);
        }
        loop {
            tokio::select! {
                next = next(&mut heard) => match next? {
                    Heard::Event(event) if event.rollout.as_deref() == Some(id) && is_end(&event) => break,
                    next => pass(&next)?,
                },
                _ = look.tick() => break,
            }
        }
    }
}

/// What is heard next; the failure that ended it comes last.
pub(super) async fn next(heard: &mut Receiver<Result<Heard, Failure>>) -> Result<Heard, Failure> {
    heard.recv().await.unwrap_or_else(|| Err(Failure::Local("following the events stopped".to_owned())))
}

/// The rollout `id` if it is over; `None` too if Teal cannot be asked just now: the follower says when it is gone for good.
pub(super) async fn over(client: &Client, id: &str) -> Result<Option<Rollout>, Failure> {
    match client.get::<Rollout>(&path(&["rollouts", id])).await {
        Ok(rollout) => Ok(Some(rollout).filter(|rollout| rollout.ended.is_some())),
        Err(failure) if failure.may_pass() => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// `work`, for at most `limit`.
pub(super) async fn within<T>(
    limit: Option<Duration>,
    service: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let Some(limit) = limit else { return work.await };
    let late = || {
        let limit = humantime::format_duration(limit);
        Failure::Timeout(format!("the rollout of `{service}` did not end within {limit}; it goes on"))
    };
    timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}

/// The rollout under way, or the last one.
pub(super) async fn latest(client: &Client, service: &str) -> Result<Option<Rollout>, Failure> {
    let rollouts: Rollouts = client.get(&path(&["services", service, "rollouts"])).await?;
    Ok(rollouts.rollouts.into_iter().next())
}

/// The rollout under way.
pub(super) async fn running(client: &Client, service: &str) -> Result<Option<Rollout>, Failure> {
    let status: ServiceStatus = client.get(&path(&["services", service])).await?;
    Ok(status.rollout)
}

/// True for the event that tells of a rollout's end.
pub(super) fn is_end(event: &Event) -> bool {
    event.kind == "ended" && event.rollout.is_some()
}

/// The exit code of a rollout that is over.
pub(super) fn exit(rollout: &Rollout) -> Exit {
    match rollout.ended.as_ref().map(|ended| ended.how.as_str()) {
        Some("promoted") => Exit::Done,
        Some("rolled_back") => Exit::RolledBack,
        _ => Exit::Failed,
    }
}
