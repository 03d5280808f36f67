//! Moving traffic: the order in which journal, publisher and workers are asked.
//!
//! Forward: the intent is durable before the table is published, and the caller is told only after every worker
//! took it up and the result is durable too. Back: published first, journalled after (Decisions 12).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use tokio::task::JoinSet;

use super::{Driver, millis, nearest};
use crate::bridge::endpoint::{Health, Obstacle};
use crate::bridge::table::{Pool, Service};
use crate::clock::{self, Micros};
use crate::config::settings::{self, Probe};
use crate::control::command::{Done, Refusal};
use crate::control::health::{Examination, Fault};
use crate::control::publisher::{Overtaken, Published};
use crate::control::state::{Finished, ServiceState};
use crate::control::store::Batch;
use crate::domain::rollout::machine::{Event, UnixMillis};
use crate::domain::split::Share;

/// A forward move that every worker has taken up.
pub(super) struct Moved {
    pub(super) published: Published,
    pub(super) took: u64,
}

impl Driver {
    pub(super) async fn set_weights(
        &mut self,
        service: &str,
        shares: BTreeMap<String, Share>,
        expected: Option<u64>,
        by: &str,
    ) -> Result<Done, Refusal> {
        let mut target = self.state(service)?.clone();
        self.check_pools(service, shares.keys().map(String::as_str))?;
        if let Some(expected) = expected.filter(|expected| *expected != target.epoch) {
            return Err(Refusal::Stale { expected, current: target.epoch });
        }
        if let Some(rollout) = &target.rollout {
            let id = &rollout.order.id;
            return Err(Refusal::Conflict(format!(
                "rollout {id} is moving this service's traffic: abort or promote it first"
            )));
        }
        let sum: u32 = shares.values().map(|share| u32::from(share.basis_points())).sum();
        if sum != u32::from(Share::ALL.basis_points()) {
            let sum = f64::from(sum) / 100.0;
            return Err(Refusal::Invalid(format!("shares must sum to 100%, these sum to {sum}%")));
        }
        for (pool, share) in &shares {
            if *share > target.share(pool) {
                self.check_eligible(service, pool)?;
                target.rolled_back.remove(pool);
            }
        }
        target.shares = shares.into_iter().filter(|(_, share)| !share.is_none()).collect();
        // A pool that now has everything is what rollbacks return to from here on.
        if let Some((pool, _)) = target.shares.iter().find(|(_, share)| **share == Share::ALL) {
            target.active.clone_from(pool);
        }
        target.epoch += 1;
        self.stamp(&mut target, by);
        let moved = self.forward(service, target.clone()).await?;
        self.states.insert(service.to_owned(), target);
        self.settle_or_fail(service).await?;
        let done = self.done(service, moved.published.version, moved.took);
        let sentence = format!("{by} set {}; acknowledged in {}", shares_text(&done.shares), millis(moved.took));
        self.events.tell_timed("weights", Some(service), None, sentence, moved.took);
        Ok(done)
    }

    /// Journals a rollback that was published before it came here.
    pub(super) async fn rolled_back(
        &mut self,
        service: &str,
        by: &str,
        reason: &str,
        asked: Micros,
        published: Published,
    ) -> Result<Done, Refusal> {
        self.state(service)?;
        let swap = self.acknowledged(published.version).await;
        let took = clock::now().since(asked);
        let rollout = self.rollout_of(service).map(|rollout| rollout.order.id.clone());
        if published.changed {
            self.shared.rollbacks.lock().unwrap_or_else(PoisonError::into_inner).1 += 1;
        }
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let told = format!("rolled back by {by}{why}; acknowledged in {}", millis(took));
        self.events.tell_timed("rollback", Some(service), rollout.as_deref(), told, took);
        if rollout.is_some() {
            let event = Event::Rollback { by: by.to_owned(), reason: reason.to_owned() };
            self.command(service, event).await?;
            self.is_durable(service)?;
        } else {
            self.reverted(service, by);
            self.settle_or_fail(service).await?;
        }
        swap.map_err(|late| Refusal::Failed(format!("the rollback is published but {late}")))?;
        Ok(self.done(service, published.version, took))
    }

    /// Journal, publish, acknowledge. Nothing is settled yet; the refusal says what holds now.
    pub(super) async fn forward(&mut self, service: &str, target: ServiceState) -> Result<Moved, Refusal> {
        let intent = Batch::new().intent(service, target.clone());
        let failed = |error| Refusal::Failed(format!("not journalled, so not done: {error}"));
        self.journal.write(intent).await.map_err(failed)?;
        let began = clock::now();
        let overtaken = |overtaken: Overtaken| Refusal::Conflict(overtaken.to_string());
        let published = self.publisher.shift(service, &target).map_err(overtaken)?;
        if let Err(late) = self.acknowledged(published.version).await {
            self.take_back(service, published.epoch);
            return Err(Refusal::Failed(format!("{late}; the split before it was published again")));
        }
        let took = clock::now().since(began);
        match self.publisher.epoch(service) {
            Some(epoch) if epoch == published.epoch => Ok(Moved { published, took }),
            _ => Err(Refusal::Conflict("a rollback was published meanwhile".to_owned())),
        }
    }

    /// Publishes the last settled split again in place of the move to `epoch`, without waiting.
    fn take_back(&mut self, service: &str, epoch: u64) {
        let Some(state) = self.states.get_mut(service) else { return };
        let before = ServiceState { epoch: epoch + 1, ..state.clone() };
        match self.publisher.shift(service, &before) {
            Ok(_) => {
                *state = before;
                self.owed.insert(service.to_owned());
            }
            // A rollback came first; it is on its way here as a command.
            Err(overtaken) => tracing::info!(service, %overtaken, "not taken back"),
        }
    }

    /// Sees to it that state and table give all traffic to the active pool. The table mostly does already: what
    /// brought it there was published before it was told here.
    pub(super) fn reverted(&mut self, service: &str, by: &str) -> Option<Published> {
        let mut state = self.states.get(service)?.clone();
        let others = state.shares.keys().filter(|pool| **pool != state.active).cloned();
        state.rolled_back.extend(others.collect::<Vec<_>>());
        state.shares = BTreeMap::from([(state.active.clone(), Share::ALL)]);
        let published = self.publisher.impose(service, &state)?;
        state.epoch = published.epoch;
        self.stamp(&mut state, by);
        self.states.insert(service.to_owned(), state);
        self.owed.insert(service.to_owned());
        Some(published)
    }

    /// Journals a service's state as it is; what fails is owed and repeated by the clock.
    pub(super) async fn settle(&mut self, service: &str) -> bool {
        self.owed.insert(service.to_owned());
        self.pay_debts().await;
        !self.owed.contains(service)
    }

    async fn settle_or_fail(&mut self, service: &str) -> Result<(), Refusal> {
        self.settle(service).await;
        self.is_durable(service)
    }

    /// What is not durable must not be told as done.
    pub(super) fn is_durable(&self, service: &str) -> Result<(), Refusal> {
        let text = "done, but not durable yet: the journal failed and is tried again";
        if self.owed.contains(service) { Err(Refusal::Failed(text.to_owned())) } else { Ok(()) }
    }

    /// Writes every state that is not durable yet.
    pub(super) async fn pay_debts(&mut self) {
        if self.owed.is_empty() || self.held.is_some() {
            return;
        }
        let mut batch = Batch::new();
        for service in &self.owed {
            if let Some(state) = self.states.get(service).or_else(|| self.dormant.get(service)) {
                batch = batch.settle(service, state.clone());
            }
        }
        for finished in &self.ended {
            batch = batch.finish(Finished::clone(finished));
        }
        match self.journal.write(batch).await {
            Ok(()) => {
                self.owed.clear();
                self.ended.clear();
            }
            Err(error) => tracing::error!(%error, services = ?self.owed, "the journal failed; tried again"),
        }
    }

    pub(super) fn stamp(&self, state: &mut ServiceState, by: &str) {
        by.clone_into(&mut state.changed_by);
        state.changed_at = UnixMillis(clock::wall_millis());
    }

    pub(super) fn definition(&self, service: &str) -> Option<&settings::Service> {
        self.settings.services.iter().find(|known| known.name == service)
    }

    pub(super) fn check_pools<'a>(&self, service: &str, wanted: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
        let pools =
            || self.definition(service).into_iter().flat_map(|service| &service.pools).map(|pool| pool.name.as_str());
        for name in wanted {
            if !pools().any(|pool| pool == name) {
                let suggestion = nearest(name, pools());
                return Err(Refusal::Unknown { kind: "pool", name: name.to_owned(), suggestion });
            }
        }
        Ok(())
    }

    /// A pool that is to get more traffic must be able to take it, as far as health checks know.
    fn check_eligible(&self, service: &str, pool: &str) -> Result<(), Refusal> {
        let endpoints = self.pool(service, pool).map(|pool| pool.endpoints.clone()).unwrap_or_default();
        if endpoints.iter().any(|endpoint| endpoint.is_eligible()) {
            return Ok(());
        }
        let detail = endpoints.iter().map(|endpoint| {
            let words: Vec<_> = endpoint.obstacles().map(Obstacle::name).collect();
            let why = endpoint.reason().map_or(String::new(), |reason| format!(" ({reason})"));
            format!("{endpoint} is {}{why}", words.join(", ").replace('_', " "))
        });
        Err(Refusal::Unhealthy { pool: pool.to_owned(), detail: detail.collect::<Vec<_>>().join(", ") })
    }

    /// Asks every endpoint of a pool right now, all at once; one that answers, and runs what the pool is for, is enough.
    pub(super) async fn check_answers(&self, service: &str, pool: &str) -> Result<(), Refusal> {
        let Some(known) = self.service(service) else { return Ok(()) };
        let at = known.pool_named(pool).filter(|_| known.settings.health.probe != Probe::Off);
        let Some(at) = at else { return Ok(()) };
        let examination = Arc::new(Examination::of(&known, at));
        let mut asked = JoinSet::new();
        for endpoint in &known.pools[at].endpoints {
            let (endpoint, examination) = (Arc::clone(endpoint), Arc::clone(&examination));
            asked.spawn(async move {
                match examination.check(&endpoint).await {
                    Ok(()) if endpoint.is_draining() => Err(format!("{endpoint} is drained")),
                    Ok(()) if endpoint.health() != Health::Unhealthy => Ok(()),
                    Ok(()) => Err(format!("{endpoint} only just answers again")),
                    Err(Fault::Unwell(problem)) => Err(format!("{endpoint}: {problem}")),
                    Err(Fault::OtherVersion(report)) => Err(format!("{endpoint} {report}")),
                }
            });
        }
        let mut problems = Vec::new();
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(problem)) => problems.push(problem),
                Err(_) => problems.push("its check ended early".to_owned()),
            }
        }
        problems.sort();
        Err(Refusal::Unhealthy { pool: pool.to_owned(), detail: problems.join("; ") })
    }

    fn service(&self, service: &str) -> Option<Arc<Service>> {
        let table = self.plane.table.load();
        table.services.iter().find(|known| known.settings.name == service).map(Arc::clone)
    }

    pub(super) fn pool(&self, service: &str, pool: &str) -> Option<Arc<Pool>> {
        self.service(service)?.pools.iter().find(|known| known.name == pool).map(Arc::clone)
    }

    pub(super) fn done(&self, service: &str, version: u64, acknowledged_us: u64) -> Done {
        let state = &self.states[service];
        let pools = self.definition(service).into_iter().flat_map(|service| &service.pools);
        let shares = pools.map(|pool| (pool.name.clone(), state.share(&pool.name))).collect();
        Done { epoch: state.epoch, version, acknowledged_us, shares }
    }
}

fn shares_text(shares: &[(String, Share)]) -> String {
    shares.iter().map(|(pool, share)| format!("{pool} {share}")).collect::<Vec<_>>().join(", ")
}
