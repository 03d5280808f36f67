//! The controller: the handle through which everything in the control plane is asked and changed.
//!
//! Reading takes snapshots and disturbs nobody. Changing sends a command to the driver, except for a rollback, whose
//! first act is to publish: it waits for no queue and no disk (Decisions 12).
//!
//! Invariant: whatever is answered as done was taken up by every worker and is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::bridge::endpoint::{Endpoint, Obstacle};
use crate::bridge::observations::{PoolTally, latency_of};
use crate::bridge::table::{Plane, Pool, Service};
use crate::clock;
use crate::config::settings;
use crate::control::breakers;
use crate::control::command::{
    Act, BreakerStatus, Deploy, Done, Drain, Drained, EndpointNow, EndpointStatus, Found, IntakeStatus, JudgeStatus,
    PoolStatus, Refusal, Reloaded, RoomStatus, ServiceStatus, StreamNow,
};
use crate::control::discovery::{Discovery, Known};
use crate::control::driver::{self, Command, Shared, nearest};
use crate::control::events::Events;
use crate::control::faults::{self, FaultOrder, FaultStatus};
use crate::control::judge::{View, Views};
use crate::control::publisher::Publisher;
use crate::control::state::{Finished, ServiceState};
use crate::control::store::Journal;
use crate::control::upgrade::{Upgrade, Upgraded};
use crate::domain::balance::Rank;
use crate::domain::rollout::machine::UnixMillis;
use crate::domain::split::Share;
use crate::domain::stats::histogram;

/// The cloneable handle.
#[derive(Clone)]
pub struct Controller {
    plane: Arc<Plane>,
    publisher: Arc<Publisher>,
    events: Arc<Events>,
    shared: Arc<Shared>,
    discovery: Arc<Discovery>,
    views: Views,
    journal: Journal,
    commands: mpsc::UnboundedSender<Command>,
}

impl Controller {
    /// The handle to the driver that these parts will make, which takes `commands`.
    pub fn new(driver: &driver::Parts, commands: mpsc::UnboundedSender<Command>) -> Controller {
        Controller {
            plane: Arc::clone(&driver.plane),
            publisher: Arc::clone(&driver.publisher),
            events: Arc::clone(&driver.events),
            shared: Arc::clone(&driver.shared),
            discovery: Arc::clone(&driver.discovery),
            views: Arc::clone(&driver.views),
            journal: driver.journal.clone(),
            commands,
        }
    }

    /// What both planes share.
    pub fn plane(&self) -> &Plane {
        &self.plane
    }

    /// What happened.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// How the names of endpoints are doing.
    pub fn names(&self) -> Vec<Known> {
        self.discovery.names()
    }

    /// True once every worker has taken up a table and the process is not ending.
    pub fn is_ready(&self) -> bool {
        self.plane.roster.has_seen(1) && !self.is_ending()
    }

    /// True once the process ends, the time before it refuses connections included.
    pub fn is_ending(&self) -> bool {
        self.plane.roster.is_draining() || self.plane.roster.is_ending()
    }

    /// Readiness fails from now on.
    pub fn not_ready(&self) {
        self.plane.roster.end();
    }

    /// True if the last reload was taken (or none was tried).
    pub fn last_reload_ok(&self) -> bool {
        !self.shared.reload_refused.load(SeqCst)
    }

    /// Files beside the configuration whose change is a reload.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        self.shared.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Rollbacks since the process began: by the judge, by people, by a breaker's rule.
    pub fn rollbacks(&self) -> (u64, u64, u64) {
        *self.shared.rollbacks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All services as they are now.
    pub fn services(&self) -> Vec<ServiceStatus> {
        let table = self.plane.table.load_full();
        table.services.iter().map(|service| self.status(service)).collect()
    }

    /// One service as it is now.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn service(&self, name: &str) -> Result<ServiceStatus, Refusal> {
        Ok(self.status(&*self.find(name)?))
    }

    /// Sets the split; shares must sum to 100 %, pools left out get nothing.
    ///
    /// # Errors
    /// When it is not legal, not possible during a rollout, or `expected` is not the current epoch.
    pub async fn set_weights(
        &self,
        service: &str,
        shares: Vec<(String, Share)>,
        expected: Option<u64>,
        by: &str,
    ) -> Result<Done, Refusal> {
        let (service, by) = (service.to_owned(), by.to_owned());
        let shares = shares.into_iter().collect();
        self.ask(|reply| Command::Weights { service, shares, expected, by, reply }).await
    }

    /// All traffic to the active pool, at once.
    ///
    /// # Errors
    /// When there is no such service.
    pub async fn rollback(&self, service: &str, by: &str, reason: &str) -> Result<Done, Refusal> {
        let asked = clock::now();
        let Some(published) = self.publisher.revert(service) else { return Err(self.unknown(service)) };
        self.shared.overtaken.store(true, SeqCst);
        let (service, by, reason) = (service.to_owned(), by.to_owned(), reason.to_owned());
        self.ask(|reply| Command::Rollback { service, by, reason, asked, published, reply }).await
    }

    /// Reads the configuration file again.
    ///
    /// # Errors
    /// When there is no file, it is not legal, or it takes away what is in use.
    pub async fn reload(&self, by: &str) -> Result<Reloaded, Refusal> {
        let by = by.to_owned();
        self.ask(|reply| Command::Reload { by, reply }).await
    }

    /// Starts a rollout; answers once it is journalled, before its first step is done.
    ///
    /// # Errors
    /// When one is running already, the pool is active already, or it has no healthy endpoint.
    pub async fn deploy(&self, deploy: Deploy) -> Result<Found, Refusal> {
        self.ask(|reply| Command::Deploy(Box::new(deploy), reply)).await
    }

    /// Acts on a rollout.
    ///
    /// # Errors
    /// When there is no such rollout, or the act is not possible now.
    pub async fn act(&self, rollout: &str, act: Act, by: &str) -> Result<Found, Refusal> {
        let (rollout, by) = (rollout.to_owned(), by.to_owned());
        let swapped = matches!(act, Act::Abort { .. }).then(|| self.revert_rollout(&rollout)).flatten();
        self.ask(|reply| Command::Act { rollout, act, by, swapped, reply }).await
    }

    /// Takes a part of a service out of use, or puts it into use again; done once every worker has taken it up, whatever
    /// is still in flight there.
    ///
    /// # Errors
    /// When there is no such thing, or a pool that has traffic would be left without an endpoint.
    pub async fn drain(&self, order: Drain) -> Result<Drained, Refusal> {
        self.ask(|reply| Command::Drain(Box::new(order), reply)).await
    }

    /// The endpoints of a service, or of one of its pools.
    ///
    /// # Errors
    /// When there is no such service or pool.
    pub fn endpoints(&self, service: &str, pool: Option<&str>) -> Result<Vec<EndpointNow>, Refusal> {
        let service = self.find(service)?;
        if let Some(name) = pool.filter(|name| service.pool_named(name).is_none()) {
            let suggestion = nearest(name, service.pools.iter().map(|pool| pool.name.as_str()));
            return Err(Refusal::Unknown { kind: "pool", name: name.to_owned(), suggestion });
        }
        let pools = service.pools.iter().filter(|known| pool.is_none_or(|name| known.name == name));
        let all = pools.flat_map(|pool| pool.endpoints.iter().enumerate().map(move |(at, one)| (pool, at, one)));
        Ok(all.map(|(pool, at, endpoint)| endpoint_now(pool, at, endpoint)).collect())
    }

    /// How many streams of a service have been there for long, and the oldest of them.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn streams(&self, service: &str) -> Result<(u64, Vec<StreamNow>), Refusal> {
        let known = self.find(service)?;
        let now = clock::now().0;
        let listed = self.plane.streams.oldest(service).into_iter().map(|stream| StreamNow {
            kind: stream.kind.name(),
            pool: stream.pool.clone(),
            endpoint: stream.endpoint.clone(),
            client: stream.client,
            age_us: now.saturating_sub(stream.dispatched),
            bytes: stream.bytes(),
        });
        let listed: Vec<_> = listed.collect();
        let counted = known.pools.iter().flat_map(|pool| pool.tally.iter().map(|tally| tally.streams.read()));
        // Of a pool that is gone nobody counts any more.
        let total = counted.fold(0, u64::wrapping_add).max(listed.len() as u64);
        Ok((total, listed))
    }

    /// A rollout by id.
    ///
    /// # Errors
    /// When there is no such rollout.
    pub async fn rollout(&self, id: &str) -> Result<Found, Refusal> {
        let running = |state: &ServiceState| state.rollout.clone().filter(|rollout| rollout.order.id == id);
        let running = self.states().values().find_map(running);
        if let Some(rollout) = running {
            return Ok(Found::Running(Box::new(rollout)));
        }
        let over = self.journal.rollout(id).await.map_err(|error| Refusal::Failed(error.to_string()))?;
        let unknown = || Refusal::Unknown { kind: "rollout", name: id.to_owned(), suggestion: None };
        over.map(|over| Found::Over(Box::new(over))).ok_or_else(unknown)
    }

    /// Rollouts of a service that are over, newest first.
    ///
    /// # Errors
    /// When there is no such service or the store fails.
    pub async fn history(&self, service: &str, limit: usize) -> Result<Vec<Finished>, Refusal> {
        self.find(service)?;
        self.journal.history(service, limit).await.map_err(|error| Refusal::Failed(error.to_string()))
    }

    /// Has this process succeeded by a new one.
    ///
    /// # Errors
    /// When it cannot be, or there was no successor: then nothing has changed.
    pub async fn upgrade(&self, by: &str) -> Result<Upgraded, Refusal> {
        let orders = self.shared.upgrades.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = "this teal is a part of another program: it has no process of its own to replace";
        let orders = orders.ok_or_else(|| Refusal::Conflict(text.to_owned()))?;
        let (reply, answer) = oneshot::channel();
        orders.send(Upgrade { by: by.to_owned(), reply }).map_err(|_| Refusal::ShuttingDown)?;
        answer.await.unwrap_or(Err(Refusal::ShuttingDown))
    }

    /// Orders for upgrades, for whoever owns the process.
    pub fn take_upgrades(&self) -> mpsc::UnboundedReceiver<Upgrade> {
        let (orders, queue) = mpsc::unbounded_channel();
        *self.shared.upgrades.lock().unwrap_or_else(PoisonError::into_inner) = Some(orders);
        queue
    }

    /// Writes what is owed and lets go of the state. From here on changes wait; rollbacks are published.
    ///
    /// # Errors
    /// When something cannot be written; then the state stays.
    pub async fn release_state(&self) -> Result<(), Refusal> {
        self.ask(Command::ReleaseState).await
    }

    /// Takes the state back, and does what waited.
    pub async fn reclaim_state(&self) {
        let (done, reclaimed) = oneshot::channel();
        if self.commands.send(Command::ReclaimState(done)).is_ok() {
            // An error means it had ended already.
            let _ = reclaimed.await;
        }
    }

    /// True if somebody rolled back since the state was let go of.
    pub fn is_overtaken(&self) -> bool {
        self.shared.overtaken.load(SeqCst)
    }

    /// The faults that are injected into a service now.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn faults(&self, service: &str) -> Result<Vec<FaultStatus>, Refusal> {
        Ok(FaultStatus::of(&*self.find(service)?))
    }

    /// Injects these faults in place of those that are there; none ends them. Nothing of it is kept on disk.
    ///
    /// # Errors
    /// When there is no such service or pool, or a worker is late: then it may hold only in part.
    pub async fn set_faults(
        &self,
        service: &str,
        faults: Vec<FaultOrder>,
        by: &str,
    ) -> Result<Vec<FaultStatus>, Refusal> {
        let known = self.find(service)?;
        let version = faults::replace(&self.publisher, &self.events, &known, faults, by)?;
        let seen = self.plane.roster.acknowledged(version, driver::ACKNOWLEDGE).await;
        seen.map_err(|late| Refusal::Failed(format!("{late}; the others work by it already")))?;
        self.faults(service)
    }

    /// Writes what is owed and ends the driver.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).is_ok() {
            // An error means it had ended already.
            let _ = closed.await;
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Command) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| Refusal::ShuttingDown)?;
        answer.await.unwrap_or(Err(Refusal::ShuttingDown))
    }

    /// An abort swaps before it queues, like a rollback; the service that it swapped.
    fn revert_rollout(&self, id: &str) -> Option<String> {
        let states = self.states();
        let running = |state: &ServiceState| state.rollout.as_ref().is_some_and(|r| r.order.id == id && r.is_running());
        let (service, _) = states.iter().find(|(_, state)| running(state))?;
        self.publisher.revert(service).map(|_| service.clone())
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<String, ServiceState>> {
        self.shared.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &str) -> Result<Arc<Service>, Refusal> {
        let table = self.plane.table.load();
        let found = table.services.iter().find(|service| service.settings.name == name).cloned();
        found.ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Refusal {
        let table = self.plane.table.load();
        let suggestion = nearest(name, table.services.iter().map(|service| service.settings.name.as_str()));
        Refusal::Unknown { kind: "service", name: name.to_owned(), suggestion }
    }

    fn status(&self, service: &Service) -> ServiceStatus {
        let name = &service.settings.name;
        let state = self.states().get(name).cloned();
        let view = self.views.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let pools = service.pools.iter().enumerate();
        ServiceStatus {
            name: name.clone(),
            hosts: service.settings.hosts.iter().map(ToString::to_string).collect(),
            paths: service.settings.paths.clone(),
            active: service.pools[service.active].name.clone(),
            epoch: service.epoch,
            guard: service.settings.guard,
            pools: pools.map(|(at, pool)| pool_status(service, at, pool)).collect(),
            intake: IntakeStatus::of(service),
            faults: FaultStatus::of(service),
            changed_by: state.as_ref().map_or_else(String::new, |state| state.changed_by.clone()),
            changed_at: state.as_ref().map_or(UnixMillis(0), |state| state.changed_at),
            rollout: state.and_then(|state| state.rollout),
            judge: view.filter(|view| view.epoch == service.epoch).map(judge_status),
        }
    }
}

fn pool_status(service: &Service, at: usize, pool: &Pool) -> PoolStatus {
    let rules = &service.settings.pools[at].breaker;
    let latency = latency_of(&pool.tally);
    let sum = |read: &dyn Fn(&PoolTally) -> u64| pool.tally.iter().map(read).fold(0, u64::wrapping_add);
    let standing = pool.standing(clock::now().0);
    let priorities = pool.balancer.plan().priorities().enumerate();
    let endpoints = pool.endpoints.iter().enumerate();
    PoolStatus {
        name: pool.name.clone(),
        share: service.share(at),
        rolled_back: pool.rolled_back,
        in_flight: sum(&|tally| tally.in_flight.read()),
        responses: std::array::from_fn(|class| sum(&|tally| tally.classes[class].read())),
        failures: std::array::from_fn(|kind| sum(&|tally| tally.failures[kind].read())),
        retries: sum(&|tally| tally.retries.read()),
        rescued: sum(&|tally| tally.rescued.read()),
        unrescued: std::array::from_fn(|reason| sum(&|tally| tally.unrescued[reason].read())),
        p50_us: histogram::quantile(&latency, 0.5),
        p99_us: histogram::quantile(&latency, 0.99),
        panics: standing.panics,
        priorities: priorities.map(|(level, priority)| (priority, standing.share(level))).collect(),
        room: RoomStatus {
            waiting: pool.room.waiting() as u64,
            overflowed: sum(&|tally| tally.overflowed.read()),
            queued_too_long: sum(&|tally| tally.queued_too_long.read()),
        },
        breaker: breakers::status(&pool.breaker, rules.pool.as_ref()).map(|status| BreakerStatus {
            diverted: sum(&|tally| tally.diverted.read()),
            blocked: sum(&|tally| tally.blocked.read()),
            ..status
        }),
        endpoints: endpoints.map(|(at, endpoint)| endpoint_status(endpoint, pool.balancer.rank(at), rules)).collect(),
    }
}

fn endpoint_status(endpoint: &Endpoint, rank: Rank, rules: &settings::Breaker) -> EndpointStatus {
    EndpointStatus {
        address: endpoint.to_string(),
        rank,
        health: endpoint.health(),
        obstacles: endpoint.obstacles().collect(),
        reason: endpoint.reason(),
        in_flight: endpoint.in_flight(),
        breaker: breakers::status(&endpoint.breaker, rules.endpoint.as_ref()),
    }
}

fn endpoint_now(pool: &Pool, at: usize, endpoint: &Endpoint) -> EndpointNow {
    EndpointNow {
        pool: pool.name.clone(),
        address: endpoint.address.to_string(),
        target: endpoint.resolved().map(ToString::to_string),
        rank: pool.balancer.rank(at),
        is_draining: endpoint.is_draining(),
        obstacles: endpoint.obstacles().map(Obstacle::name).collect(),
        reason: endpoint.reason(),
        in_flight: endpoint.in_flight(),
        connections: endpoint.connections() as u64,
    }
}

fn judge_status(view: View) -> JudgeStatus {
    let View { canary, baseline, evidence, approval, .. } = view;
    let units = evidence.errors;
    JudgeStatus {
        sentence: approval.sentence(&canary, &baseline),
        approved: approval.is_passed(),
        evidence: evidence.now,
        needed: evidence.needed,
        p: evidence.p_value(),
        canary_units: (units.canary.n, units.canary.bad),
        baseline_units: (units.baseline.n, units.baseline.bad),
        canary,
        baseline,
    }
}
