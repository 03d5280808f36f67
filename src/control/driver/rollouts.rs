//! Rollouts: the loop between the machine, which decides, and the moves, which perform.

use std::collections::VecDeque;
use std::sync::PoisonError;

use super::{Driver, millis_now};
use crate::clock;
use crate::config::settings::Guard;
use crate::control::command::{Act, Deploy, Found, Refusal};
use crate::control::state::{Finished, ServiceState};
use crate::domain::rollout::machine::{Action, Event, Kind, Order, Rollout, UnixMillis};
use crate::domain::rollout::plan::Step;
use crate::domain::split::Share;

/// Idempotency keys remembered; the oldest deploys' keys have long done their work.
const KEYS: usize = 10_000;

/// A rollout's first actions, still to be performed.
type First = Option<(String, Vec<Action>)>;

impl Driver {
    /// Journals a new rollout and says what its first actions are.
    pub(super) async fn deploy(&mut self, deploy: Deploy) -> Result<(Found, First), Refusal> {
        let Deploy { service, to, plan, key, by } = deploy;
        let state = self.state(&service)?.clone();
        self.check_pools(&service, std::iter::once(to.as_str()))?;
        let key = key.map(|key| (service.clone(), key));
        if let Some(id) = key.as_ref().and_then(|key| self.keys.get(key)).cloned() {
            return Ok((self.find(&id).await?, None));
        }
        if let Some(running) = &state.rollout {
            let (id, canary) = (&running.order.id, &running.order.canary);
            return Err(Refusal::Conflict(format!("rollout {id} to {canary} is running: {}", running.reason)));
        }
        if to == state.active {
            return Err(Refusal::Conflict(format!("`{to}` is active already: it has the traffic")));
        }
        self.check_answers(&service, &to).await?;
        let plan =
            plan.or_else(|| self.definition(&service).map(|service| service.rollout.clone())).unwrap_or_default();
        let unjudged = self.definition(&service).is_some_and(|service| service.guard == Guard::Off);
        if unjudged && plan.steps.iter().any(|step| matches!(step, Step::Analyze { .. })) {
            let text = "the plan has analyze steps, but `guard: off` leaves nobody to pass them: use `observe`, or a plan of \
                        weights and pauses";
            return Err(Refusal::Invalid(text.to_owned()));
        }
        let id = format!("{service}-{}-{:04x}", clock::wall_millis() / 1_000, fastrand::u16(..));
        let order = Order {
            id: id.clone(),
            service: service.clone(),
            baseline: state.active.clone(),
            canary: to.clone(),
            plan,
            started_by: by.clone(),
            started_at: UnixMillis(clock::wall_millis()),
        };
        let mut target = state;
        // A fresh salt: not always the same users go first.
        target.salt = fastrand::u64(..);
        target.rolled_back.remove(&to);
        target.rollout = Some(Rollout::new(order));
        self.stamp(&mut target, &by);
        self.states.insert(service.clone(), target);
        if !self.settle(&service).await {
            self.state(&service)?.rollout = None;
            return Err(Refusal::Failed("not journalled, so not started".to_owned()));
        }
        if let Some(key) = key {
            if self.keys.len() >= KEYS {
                self.keys.clear();
            }
            self.keys.insert(key, id.clone());
        }
        self.begin_to_count_trips(&service);
        let actions = self.step(&service, Event::Start)?;
        Ok((self.find(&id).await?, Some((service, actions))))
    }

    /// Acts on a rollout. `swapped` is the service whose traffic was sent back to its active pool before this was
    /// queued, as an abort is.
    pub(super) async fn act(
        &mut self,
        id: &str,
        act: Act,
        by: &str,
        swapped: Option<String>,
    ) -> Result<Found, Refusal> {
        let running = self.states.iter().find(|(_, state)| state.rollout.as_ref().is_some_and(|r| r.order.id == id));
        let Some(service) = running.map(|(service, _)| service.clone()) else {
            if let Some(service) = swapped {
                self.follow_swap(&service, by).await;
            }
            return match self.find(id).await? {
                Found::Over(over) => Err(Refusal::Conflict(format!("rollout {id} is over: {}", over.rollout.reason))),
                Found::Running(_) => Err(Refusal::Conflict(format!("rollout {id} cannot be changed now"))),
            };
        };
        let by = by.to_owned();
        let event = match act {
            Act::Pause => Event::Pause { by },
            Act::Resume => Event::Resume { by },
            Act::Promote => Event::Promote { by },
            Act::Abort { reason } => Event::Abort { by, reason },
        };
        self.command(&service, event).await?;
        self.is_durable(&service)?;
        self.find(id).await
    }

    /// A rollout that was to be aborted had ended by then: what was published for it holds all the same.
    async fn follow_swap(&mut self, service: &str, by: &str) {
        if self.rollout_of(service).is_some() {
            let reason = "an earlier rollout was aborted late".to_owned();
            self.event(service, Event::Rollback { by: by.to_owned(), reason }).await;
        } else {
            self.reverted(service, by);
            self.settle(service).await;
        }
    }

    /// A rollout by id, running or over.
    pub(super) async fn find(&self, id: &str) -> Result<Found, Refusal> {
        let running = self.states.values().filter_map(|state| state.rollout.as_ref());
        if let Some(rollout) = running.into_iter().find(|rollout| rollout.order.id == id) {
            return Ok(Found::Running(Box::new(rollout.clone())));
        }
        let over = self.ended.iter().find(|over| over.rollout.order.id == id).cloned();
        let over = match over {
            Some(over) => Some(over),
            None => self.journal.rollout(id).await.map_err(|error| Refusal::Failed(error.to_string()))?,
        };
        let unknown = || Refusal::Unknown { kind: "rollout", name: id.to_owned(), suggestion: None };
        over.map(|over| Found::Over(Box::new(over))).ok_or_else(unknown)
    }

    /// What a new process makes of the rollouts it finds.
    pub(super) async fn resume_rollouts(&mut self) {
        let found: Vec<String> =
            self.states.iter().filter(|(_, s)| s.rollout.is_some()).map(|(n, _)| n.clone()).collect();
        for service in found {
            self.event(&service, Event::Restarted).await;
        }
    }

    /// Passes on what the judge says of the present step.
    pub(super) async fn hear_the_judge(&mut self, service: &str) {
        let Some(state) = self.states.get(service) else { return };
        let view = self.views.lock().unwrap_or_else(PoisonError::into_inner).get(service).cloned();
        let Some(view) = view.filter(|view| view.epoch == state.epoch) else { return };
        let about_this = state.rollout.as_ref().is_some_and(|rollout| rollout.order.canary == view.canary);
        if about_this {
            let sentence = view.approval.sentence(&view.canary, &view.baseline);
            self.event(service, Event::Judged { approved: view.approval.is_passed(), sentence }).await;
        }
    }

    /// An event that is nobody's command.
    pub(super) async fn event(&mut self, service: &str, event: Event) {
        // Only commands are refused.
        let actions = self.step(service, event).unwrap_or_default();
        self.perform(service, actions).await;
    }

    /// A user's command; its actions are performed before the answer.
    pub(super) async fn command(&mut self, service: &str, event: Event) -> Result<(), Refusal> {
        let actions = self.step(service, event)?;
        self.perform(service, actions).await;
        Ok(())
    }

    pub(super) fn rollout_of(&self, service: &str) -> Option<&Rollout> {
        self.states.get(service).and_then(|state| state.rollout.as_ref())
    }

    fn step(&mut self, service: &str, event: Event) -> Result<Vec<Action>, Refusal> {
        let rollout = self.states.get_mut(service).and_then(|state| state.rollout.as_mut());
        let Some(rollout) = rollout else { return Ok(Vec::new()) };
        rollout.step(event, millis_now()).map_err(|refused| Refusal::Conflict(refused.reason))
    }

    /// Performs actions in order; one that fails is told to the machine, whose answer replaces what was left.
    pub(super) async fn perform(&mut self, service: &str, actions: Vec<Action>) {
        let mut queue = VecDeque::from(actions);
        let mut reverting = false;
        // The end is announced once the rollout is no longer there.
        let id = self.rollout_of(service).map(|rollout| rollout.order.id.clone());
        while let Some(action) = queue.pop_front() {
            let outcome = match action {
                Action::Announce(notice) => {
                    self.events.tell(word(notice.kind), Some(service), id.as_deref(), notice.sentence);
                    Ok(None)
                }
                Action::Move { share, promote } => self.step_to(service, share, promote).await.map(Some),
                Action::Restore { share } => {
                    self.restore(service, share);
                    Ok(None)
                }
                Action::Revert => {
                    reverting = true;
                    self.revert(service).await.map(|()| None)
                }
                Action::Settle => self
                    .settle_rollout(service)
                    .await
                    .map(|()| std::mem::take(&mut reverting).then_some(Event::Reverted)),
            };
            match outcome {
                Ok(None) => {}
                Ok(Some(event)) => {
                    // Behind what is left: a rollback is announced before its end.
                    queue.extend(self.step(service, event).unwrap_or_default());
                }
                Err(reason) => {
                    reverting = false;
                    queue = self.step(service, Event::ApplyFailed { reason }).unwrap_or_default().into();
                }
            }
        }
    }

    /// A forward move of a rollout, up to the last worker's acknowledgement.
    async fn step_to(&mut self, service: &str, share: Share, promote: bool) -> Result<Event, String> {
        let Some(mut target) = self.states.get(service).cloned() else { return Err("the service is gone".to_owned()) };
        let canary = target.rollout.as_ref().map(|rollout| rollout.order.canary.clone()).unwrap_or_default();
        if promote {
            target.activate(&canary)
        } else {
            target.give(&canary, share)
        }
        self.stamp(&mut target, "rollout");
        self.forward(service, target.clone()).await.map_err(|refusal| refusal.to_string())?;
        self.states.insert(service.to_owned(), target);
        Ok(Event::Applied { share, promote })
    }

    /// The canary's last acknowledged share again, unless that holds: a move that failed was taken back already.
    fn restore(&mut self, service: &str, share: Share) {
        let Some(state) = self.states.get(service) else { return };
        let Some(rollout) = &state.rollout else { return };
        let (baseline, canary) = (&rollout.order.baseline, &rollout.order.canary);
        if state.active == *baseline && state.share(canary) == share {
            return;
        }
        let mut target = ServiceState { active: baseline.clone(), ..state.clone() };
        target.give(canary, share);
        match self.publisher.shift(service, &target) {
            Ok(_) => drop(self.states.insert(service.to_owned(), target)),
            // A rollback came first; it is on its way here as a command.
            Err(overtaken) => tracing::info!(service, %overtaken, "not restored"),
        }
    }

    /// All traffic to the baseline: published at once, then awaited.
    async fn revert(&mut self, service: &str) -> Result<(), String> {
        let Some(state) = self.states.get_mut(service) else { return Ok(()) };
        let Some(rollout) = &state.rollout else { return Ok(()) };
        // A promotion that was under way is undone as well.
        state.active.clone_from(&rollout.order.baseline);
        state.rolled_back.insert(rollout.order.canary.clone());
        let published = self.reverted(service, "rollout").ok_or("the service is gone")?;
        let swap = self.acknowledged(published.version).await;
        if swap.is_err() {
            // The next action would have, but a failed one is the last.
            self.pay_debts().await;
        }
        swap
    }

    /// Journals the state with its rollout; an ended one goes to the history, and then nobody is left to hear of a
    /// failure: the clock repeats it.
    async fn settle_rollout(&mut self, service: &str) -> Result<(), String> {
        let over = self.clear_ended(service);
        if self.settle(service).await || over { Ok(()) } else { Err("the journal failed".to_owned()) }
    }

    /// Moves an ended rollout from the state to the history; both become durable in one transaction.
    fn clear_ended(&mut self, service: &str) -> bool {
        let Some(state) = self.states.get_mut(service) else { return false };
        let ended = state.rollout.take_if(|rollout| rollout.end().is_some());
        let over = ended.is_some();
        let ended_at = UnixMillis(clock::wall_millis());
        self.ended.extend(ended.map(|rollout| Finished { rollout, ended_at }));
        over
    }
}

/// The stable word of a notice.
fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Started => "started",
        Kind::Stepped => "step",
        Kind::Held => "held",
        Kind::Resumed => "resumed",
        Kind::Promoting => "promoting",
        Kind::RollingBack => "rolling_back",
        Kind::Delayed => "delayed",
        Kind::Ended => "ended",
        Kind::Restarted => "restarted",
    }
}
