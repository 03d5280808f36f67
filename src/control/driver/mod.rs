//! The driver: one task that owns every service's run-time state and performs what is decided about it.
//!
//! Commands are taken one after another, so concurrent changes are serialised and none is lost. Forward moves go
//! journal, publish, acknowledge, journal again, tell; rollbacks are published before they even reach this task (by
//! the handle or by the judge), and are journalled here. See [`moves`] for the order, `control::store` for why.
//!
//! Invariant: `states` holds for every service what was last acknowledged, or something safer.

mod breakers;
mod drains;
mod hold;
mod moves;
mod reload;
mod rollouts;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::bridge::table::Plane;
use crate::clock::{self, Micros};
use crate::config::Report;
use crate::config::settings::{Guard, Settings};
use crate::control::command::{Act, Deploy, Done, Drain, Drained, Found, Refusal, Reloaded};
use crate::control::discovery::Discovery;
use crate::control::events::Events;
use crate::control::judge::{Sentence, Views};
use crate::control::materials::Materials;
use crate::control::publisher::{Published, Publisher};
use crate::control::state::{Finished, ServiceState};
use crate::control::store::{Journal, Loaded};
use crate::control::upgrade::Upgrade;
use crate::domain::rollout::machine::{Event, Millis};
use crate::domain::split::Share;

/// How long workers may take to take up a table before the change counts as failed. They need microseconds; one
/// that needs this long is stuck.
pub const ACKNOWLEDGE: Duration = Duration::from_secs(1);
/// The driver's own tick: dwell times, pauses, journal entries to repeat.
const TICK: Duration = Duration::from_millis(100);

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the driver is asked.
pub enum Command {
    /// Set the split.
    Weights {
        /// The service.
        service: String,
        /// Every share.
        shares: BTreeMap<String, Share>,
        /// The epoch the caller decided on.
        expected: Option<u64>,
        /// Who asks.
        by: String,
        /// Where the answer goes.
        reply: Reply<Done>,
    },
    /// A rollback was published; journal it.
    Rollback {
        /// The service.
        service: String,
        /// Who asked.
        by: String,
        /// Why; may be empty.
        reason: String,
        /// When it was asked for.
        asked: Micros,
        /// What was published.
        published: Published,
        /// Where the answer goes.
        reply: Reply<Done>,
    },
    /// Read the file again.
    Reload {
        /// Who asks.
        by: String,
        /// Where the answer goes.
        reply: Reply<Reloaded>,
    },
    /// Start a rollout.
    Deploy(Box<Deploy>, Reply<Found>),
    /// Act on a rollout.
    Act {
        /// Its id.
        rollout: String,
        /// What to do.
        act: Act,
        /// Who asks.
        by: String,
        /// The service that an abort has been published for already.
        swapped: Option<String>,
        /// Where the answer goes.
        reply: Reply<Found>,
    },
    /// Take something out of use, or put it into use again.
    Drain(Box<Drain>, Reply<Drained>),
    /// The judge found a canary worse.
    Worse(Sentence),
    /// Write what is owed and let go of the state, for a process that is to succeed this one.
    ReleaseState(Reply<()>),
    /// There is no such process after all.
    ReclaimState(oneshot::Sender<()>),
    /// Write what is owed and end.
    Close(oneshot::Sender<()>),
}

/// What the handle may read while the driver works.
#[derive(Default)]
pub struct Shared {
    /// Every service's state.
    pub states: Mutex<BTreeMap<String, ServiceState>>,
    /// Rollbacks by the judge, by people, and by a breaker's rule.
    pub rollbacks: Mutex<(u64, u64, u64)>,
    /// False after a refused reload.
    pub reload_refused: AtomicBool,
    /// Somebody rolled back while the state was let go of: what is to succeed this process begins with the wrong split.
    pub overtaken: AtomicBool,
    /// Who upgrades this process, if somebody does.
    pub upgrades: Mutex<Option<mpsc::UnboundedSender<Upgrade>>>,
    /// Files beside the configuration whose change is a reload: certificates and keys.
    pub files: Mutex<BTreeSet<PathBuf>>,
}

/// Where the settings come from, to be read again.
pub type Source = Box<dyn Fn() -> Result<Settings, Report> + Send + Sync>;

/// The driver.
pub struct Driver {
    publisher: Arc<Publisher>,
    plane: Arc<Plane>,
    journal: Journal,
    events: Arc<Events>,
    discovery: Arc<Discovery>,
    views: Views,
    shared: Arc<Shared>,
    settings: Settings,
    source: Option<Source>,
    states: BTreeMap<String, ServiceState>,
    /// States of services that the file does not name now.
    dormant: BTreeMap<String, ServiceState>,
    /// Deploys by service and idempotency key.
    keys: HashMap<(String, String), String>,
    /// Services whose state is not durable yet; repeated by the clock.
    owed: BTreeSet<String>,
    /// Ended rollouts that are not durable yet.
    ended: Vec<Finished>,
    /// What is on its way out of use.
    draining: Vec<drains::UnderWay>,
    /// Commands that wait while the state is let go of; `None` while it is ours.
    held: Option<Vec<Command>>,
    /// The canaries' breakers, by service.
    breakers: HashMap<String, breakers::Watched>,
}

/// What a driver is made from.
pub struct Parts {
    /// The writer of the table.
    pub publisher: Arc<Publisher>,
    /// What both planes share.
    pub plane: Arc<Plane>,
    /// The store's thread.
    pub journal: Journal,
    /// What happened.
    pub events: Arc<Events>,
    /// Where names are.
    pub discovery: Arc<Discovery>,
    /// The judge's views.
    pub views: Views,
    /// What the handle reads.
    pub shared: Arc<Shared>,
    /// The settings now.
    pub settings: Settings,
    /// Their TLS.
    pub materials: Materials,
    /// Where they come from; `None` if they cannot be read again.
    pub source: Option<Source>,
}

impl Driver {
    /// Takes over what the store holds, seeds what it does not, and publishes the first table.
    ///
    /// # Errors
    /// When the stored state does not fit the settings, or the seeds cannot be written.
    pub async fn start(parts: Parts, loaded: Loaded) -> Result<Driver, String> {
        let Parts { publisher, plane, journal, events, discovery, views, shared, settings, materials, source } = parts;
        let mut driver = Driver {
            publisher,
            plane,
            journal,
            events,
            discovery,
            views,
            shared,
            settings,
            source,
            states: BTreeMap::new(),
            dormant: loaded.services,
            keys: HashMap::new(),
            owed: BTreeSet::new(),
            ended: Vec::new(),
            draining: Vec::new(),
            held: None,
            breakers: HashMap::new(),
        };
        for (service, state) in &loaded.dropped {
            let sentence = format!("a move to {} was under way when the process ended: dropped", state.canary_share());
            driver.events.tell("recovered", Some(service), None, sentence);
        }
        driver.adopt(driver.settings.clone()).await?;
        // Settled again, so that the next start does not recover from the same move once more.
        driver.owed.extend(loaded.dropped.into_keys().filter(|service| driver.states.contains_key(service)));
        driver.publish_all(materials);
        driver.show();
        Ok(driver)
    }

    /// Takes commands until told to close.
    pub async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        self.resume_rollouts().await;
        self.show();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let command = tokio::select! {
                command = commands.recv() => command,
                _ = tick.tick() => {
                    self.tick().await;
                    self.show();
                    continue;
                }
            };
            match command {
                None => return,
                Some(Command::Close(done)) => {
                    self.pay_debts().await;
                    let _ = done.send(());
                    return;
                }
                Some(Command::ReleaseState(reply)) => drop(reply.send(self.release().await)),
                Some(Command::ReclaimState(done)) => {
                    self.reclaim().await;
                    let _ = done.send(());
                }
                Some(command) => {
                    if let Some(command) = self.hold(command) {
                        self.take(command).await;
                    }
                }
            }
        }
    }

    async fn take(&mut self, command: Command) {
        // A caller that went away does not need its answer. What readers see is brought up to date first.
        match command {
            Command::Weights { service, shares, expected, by, reply } => {
                let answer = self.set_weights(&service, shares, expected, &by).await;
                self.show();
                drop(reply.send(answer));
            }
            Command::Rollback { service, by, reason, asked, published, reply } => {
                let answer = self.rolled_back(&service, &by, &reason, asked, published).await;
                self.show();
                drop(reply.send(answer));
            }
            Command::Reload { by, reply } => {
                let answer = self.reload(&by).await;
                self.show();
                drop(reply.send(answer));
            }
            Command::Deploy(deploy, reply) => {
                let started = self.deploy(*deploy).await;
                self.show();
                match started {
                    Ok((found, first)) => {
                        drop(reply.send(Ok(found)));
                        // The first step is a move of its own: the caller watches it, it does not wait for it.
                        if let Some((service, actions)) = first {
                            self.perform(&service, actions).await;
                            self.show();
                        }
                    }
                    Err(refusal) => drop(reply.send(Err(refusal))),
                }
            }
            Command::Act { rollout, act, by, swapped, reply } => {
                let answer = self.act(&rollout, act, &by, swapped).await;
                self.show();
                drop(reply.send(answer));
            }
            Command::Drain(order, reply) => {
                let answer = self.drain(*order).await;
                self.show();
                drop(reply.send(answer));
            }
            Command::Worse(sentence) => {
                self.worse(sentence).await;
                self.show();
            }
            // Not taken here.
            Command::ReleaseState(_) | Command::ReclaimState(_) | Command::Close(_) => {}
        }
    }

    async fn tick(&mut self) {
        if self.held.is_some() {
            return;
        }
        self.pay_debts().await;
        self.look_after_drains();
        let running: Vec<String> =
            self.states.iter().filter(|(_, s)| s.rollout.is_some()).map(|(n, _)| n.clone()).collect();
        for service in running {
            self.hear_the_breaker(&service).await;
            self.hear_the_judge(&service).await;
            self.event(&service, Event::Tick).await;
        }
    }

    /// What the judge found worse: the rollout's end, or a manual split's.
    async fn worse(&mut self, found: Sentence) {
        let Sentence { service, canary, text, decided, published, guard } = found;
        if !self.states.contains_key(&service) {
            return;
        }
        let rollout = self.rollout_of(&service).map(|rollout| rollout.order.id.clone());
        let sentence = format!("{canary} is worse: {text}");
        match (guard, published) {
            (Guard::Rollback, Some(published)) => {
                let swap = self.acknowledged(published.version).await;
                let took = clock::now().since(decided);
                let outcome = swap.map_or_else(|late| format!(" ({late})"), |()| String::new());
                self.shared.rollbacks.lock().unwrap_or_else(PoisonError::into_inner).0 += 1;
                let told = format!("rolled back: {sentence}; swapped in {}{outcome}", millis(took));
                self.events.tell_timed("rollback", Some(&service), rollout.as_deref(), told, took);
                if rollout.is_some() {
                    self.event(&service, Event::Worse { sentence }).await;
                } else {
                    self.reverted(&service, "the judge");
                    self.settle(&service).await;
                }
            }
            (Guard::Hold, _) => {
                self.events.tell("judge", Some(&service), rollout.as_deref(), format!("hold: {sentence}"));
                self.event(&service, Event::HoldAdvised { sentence }).await;
            }
            _ => self.events.tell("judge", Some(&service), rollout.as_deref(), sentence),
        }
    }

    /// Brings what the handle reads up to date.
    fn show(&self) {
        let mut shown = self.shared.states.lock().unwrap_or_else(PoisonError::into_inner);
        if *shown != self.states {
            shown.clone_from(&self.states);
        }
    }

    fn state(&mut self, service: &str) -> Result<&mut ServiceState, Refusal> {
        let names = self.settings.services.iter().map(|service| service.name.as_str());
        let suggestion = nearest(service, names);
        let unknown = Refusal::Unknown { kind: "service", name: service.to_owned(), suggestion };
        self.states.get_mut(service).ok_or(unknown)
    }

    async fn acknowledged(&self, version: u64) -> Result<(), String> {
        let waited = self.plane.roster.acknowledged(version, ACKNOWLEDGE).await;
        waited.map_err(|stragglers| stragglers.to_string())
    }
}

/// Monotonic time as the machine counts it.
fn millis_now() -> Millis {
    Millis(clock::now().0 / 1_000)
}

/// `0.31 ms`.
fn millis(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1_000.0)
}

/// The name most like `wanted`, if any is like it at all.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let near = |name: &&str| strsim::damerau_levenshtein(wanted, name);
    names.min_by_key(near).filter(|name| near(name) <= wanted.len().max(3) / 3 + 1).map(str::to_owned)
}

#[cfg(test)]
mod tests;
