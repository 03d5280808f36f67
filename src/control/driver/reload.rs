//! Reloading: a new file becomes a new table, or changes nothing.
//!
//! Invariant: what a user changed at run time is never lost by a reload; a pool that has traffic is never taken away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::SeqCst;

use super::Driver;
use crate::clock;
use crate::config::settings::{self, Settings};
use crate::control::command::{Refusal, Reloaded};
use crate::control::materials::Materials;
use crate::control::state::ServiceState;
use crate::control::store::Batch;
use crate::domain::rollout::machine::UnixMillis;

impl Driver {
    pub(super) async fn reload(&mut self, by: &str) -> Result<Reloaded, Refusal> {
        let outcome = self.try_reload().await;
        self.shared.reload_refused.store(outcome.is_err(), SeqCst);
        match &outcome {
            Ok(reloaded) if reloaded.changed => {
                let restart = reloaded.needs_restart.join(", ");
                let rest =
                    if restart.is_empty() { String::new() } else { format!("; a restart is needed for {restart}") };
                self.events.tell("reload", None, None, format!("configuration reloaded by {by}{rest}"));
            }
            Ok(_) => {}
            Err(refusal) => self.events.tell("reload_refused", None, None, format!("nothing changed: {refusal}")),
        }
        outcome
    }

    async fn try_reload(&mut self) -> Result<Reloaded, Refusal> {
        let Some(source) = &self.source else {
            return Err(Refusal::Conflict("teal was started without a configuration file".to_owned()));
        };
        let new = source().map_err(|report| {
            self.watch_also(report.files());
            Refusal::Config(report.to_string())
        })?;
        let version = self.plane.table.load().version;
        if new == self.settings {
            return Ok(Reloaded { version, changed: false, needs_restart: Vec::new() });
        }
        self.in_use_is_kept(&new)?;
        let needs_restart = needs_restart(&self.settings, &new);
        let materials = self.publisher.materials(&new).map_err(Refusal::Config)?;
        // A pool of new names would else begin with nowhere to send its requests.
        self.discovery.meet(&new).await;
        self.adopt(new).await.map_err(Refusal::Failed)?;
        let version = self.publish_all(materials);
        self.acknowledged(version).await.map_err(|late| Refusal::Failed(format!("published, but {late}")))?;
        Ok(Reloaded { version, changed: true, needs_restart })
    }

    /// Refuses a file that takes away a service in a rollout, or a pool that has traffic.
    fn in_use_is_kept(&self, new: &Settings) -> Result<(), Refusal> {
        for (name, state) in &self.states {
            let kept = new.services.iter().find(|service| service.name == *name);
            let has = |pool: &str| kept.is_some_and(|service| service.pools.iter().any(|known| known.name == pool));
            if let Some(rollout) = &state.rollout {
                let order = &rollout.order;
                if !has(&order.canary) || !has(&order.baseline) {
                    let text = format!("service `{name}` is in rollout {}, which needs its pools", order.id);
                    return Err(Refusal::Conflict(text));
                }
            }
            if kept.is_none() {
                continue;
            }
            if !has(&state.active) {
                let text = format!("pool `{}` of service `{name}` is the active one", state.active);
                return Err(Refusal::Conflict(text));
            }
            if let Some(pool) = state.shares.keys().find(|pool| !has(pool)) {
                let text = format!("pool `{pool}` of service `{name}` has {} of its traffic", state.share(pool));
                return Err(Refusal::Conflict(text));
            }
        }
        Ok(())
    }

    /// Makes `settings` the definition: finds or seeds each service's state. Nothing is published, and on an error
    /// nothing is changed.
    pub(super) async fn adopt(&mut self, settings: Settings) -> Result<(), String> {
        let mut known: BTreeMap<_, _> = self.states.iter().chain(&self.dormant).collect();
        let mut states = BTreeMap::new();
        let mut seeds = Batch::new();
        for service in &settings.services {
            let state = match known.remove(&service.name) {
                Some(state) => fits(service, state).map(|()| state.clone())?,
                None => {
                    let active = &service.pools[service.active].name;
                    let seed = ServiceState::new(active, "file", UnixMillis(clock::wall_millis()));
                    seeds = seeds.settle(&service.name, seed.clone());
                    seed
                }
            };
            states.insert(service.name.clone(), state);
        }
        let dormant = known.into_iter().map(|(name, state)| (name.clone(), state.clone())).collect();
        if !seeds.is_empty() {
            self.journal.write(seeds).await.map_err(|error| error.to_string())?;
        }
        (self.states, self.dormant, self.settings) = (states, dormant, settings);
        self.look_at_certificates();
        Ok(())
    }

    /// Says which certificates are about to expire, and which files are to be watched from now on.
    fn look_at_certificates(&self) {
        let now = i64::try_from(clock::wall_millis() / 1_000).unwrap_or(i64::MAX);
        for worry in self.settings.identities().filter_map(|identity| identity.worry(now)) {
            self.events.tell("certificate", None, None, worry);
        }
        self.watch_also(&[]);
    }

    /// Has the files of the settings watched, and those that a refused configuration looked for: one may be on its way.
    fn watch_also(&self, looked_for: &[PathBuf]) {
        let known = self.settings.files().into_iter().map(Path::to_owned);
        let files = known.chain(looked_for.iter().cloned()).collect();
        *self.shared.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    pub(super) fn publish_all(&mut self, materials: Materials) -> u64 {
        let states = &self.states;
        let fallback = |name: &str| ServiceState::new(name, "file", UnixMillis(0));
        let state = |name: &str| states.get(name).cloned().unwrap_or_else(|| fallback(name));
        self.publisher.install(&self.settings, materials, state)
    }
}

/// The stored state must speak of pools that exist.
fn fits(service: &settings::Service, state: &ServiceState) -> Result<(), String> {
    let has = |pool: &str| service.pools.iter().any(|known| known.name == pool);
    let rollout = state.rollout.iter().flat_map(|rollout| [&rollout.order.canary, &rollout.order.baseline]);
    let missing = std::iter::once(&state.active).chain(state.shares.keys()).chain(rollout).find(|pool| !has(pool));
    missing.map_or(Ok(()), |pool| {
        Err(format!(
            "the stored state of service `{}` gives traffic to pool `{pool}`, which the file does not name: \
             put it back, or remove the state folder to start from the file",
            service.name
        ))
    })
}

/// Where is listened; how clients are received changes without a restart.
fn addresses(settings: &Settings) -> impl Iterator<Item = &settings::Bind> {
    settings.listen.iter().map(|listener| &listener.address)
}

/// What only a restart can change.
fn needs_restart(old: &Settings, new: &Settings) -> Vec<String> {
    let parts = [
        ("listen", addresses(old).ne(addresses(new))),
        ("admin", old.admin != new.admin),
        ("state", old.state != new.state),
        ("workers", old.workers != new.workers),
        ("resolver", old.resolver != new.resolver),
        ("access_log", old.access_log != new.access_log),
        ("shutdown", old.shutdown != new.shutdown),
    ];
    parts.into_iter().filter(|(_, differs)| *differs).map(|(part, _)| part.to_owned()).collect()
}
