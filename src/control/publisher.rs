//! The publisher: the one writer of the routing table.
//!
//! Both the driver (forward moves) and the judge (rollbacks) publish through it, each call under a short lock that
//! is never held across I/O. A forward move names the epoch it leads to; a rollback that got in between has already
//! used that epoch, so the move is refused as overtaken: late weights always lose against a rollback.
//!
//! Invariants: versions and epochs only rise; every table's shares sum to 100 %; endpoints and tallies keep their
//! identity from table to table while pool, address and the way to speak to it stay the same; so do limits and their counts.

mod injections;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bridge::balancer::{Balancer, Changes};
use crate::bridge::breaker::Breaker;
use crate::bridge::counters::PerWorker;
use crate::bridge::ejection::Bench;
use crate::bridge::endpoint::{Endpoint, Target};
use crate::bridge::intake::Intake;
use crate::bridge::observations::{Book, PoolTally, latency_of};
use crate::bridge::pace::Pace;
use crate::bridge::purse::Purse;
use crate::bridge::room::Room;
use crate::bridge::table::{Plane, Pool, Service, Table};
use crate::bridge::tls::Connector;
use crate::clock;
use crate::config::settings::{self, Address, Resolve, Settings};
use crate::control::materials::Materials;
use crate::control::state::ServiceState;
use crate::domain::analysis::Marks;
use crate::domain::balance::Rank;
use crate::domain::drain::Orders;
use crate::domain::proxy_protocol::Version;
use crate::domain::route::{Claim, Router};
use crate::domain::split::{self, Share, Slot};

/// Writes tables.
pub struct Publisher {
    plane: Arc<Plane>,
    workers: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    version: u64,
    next_endpoint: u64,
    /// Where names are, as far as discovery knows.
    found: HashMap<Address, Vec<SocketAddr>>,
    pools: HashMap<(String, String), Live>,
    /// What is out of use, by service: an endpoint that is found later begins so.
    drained: HashMap<String, Orders>,
    materials: Arc<Materials>,
}

/// What a pool keeps from table to table.
struct Live {
    endpoints: HashMap<(Address, Option<Target>), Arc<Endpoint>>,
    tally: Arc<PerWorker<PoolTally>>,
    changes: Arc<Changes>,
    /// That of the last table.
    balancer: Option<Arc<Balancer>>,
    pace: Arc<Pace>,
    terms: Terms,
    breaker: Arc<Breaker>,
    breaks_by: settings::Breaker,
    room: Arc<Room>,
    limits: settings::Limits,
    bench: Arc<Bench>,
}

/// What is said to a pool's endpoints before a request is.
#[derive(Clone, Debug)]
struct Terms {
    protocol: settings::Protocol,
    connector: Option<Arc<Connector>>,
    proxy_protocol: Option<Version>,
}

/// A published table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its version.
    pub version: u64,
    /// The service's epoch in it.
    pub epoch: u64,
    /// False if the table before it said the same already.
    pub changed: bool,
}

/// Somebody published a newer split first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a newer split (epoch {current}) was published meanwhile")]
pub struct Overtaken {
    /// The epoch that is published.
    pub current: u64,
}

impl Publisher {
    /// A publisher for a plane of `workers`.
    pub fn new(plane: Arc<Plane>, workers: usize) -> Publisher {
        Publisher { plane, workers, inner: Mutex::default() }
    }

    /// The TLS that `settings` need, as far as possible what runs already.
    ///
    /// # Errors
    /// In words, when it cannot be made; nothing is changed.
    pub fn materials(&self, settings: &Settings) -> Result<Materials, String> {
        let before = Arc::clone(&self.lock().materials);
        Materials::build(settings, &before)
    }

    /// Publishes all services of `settings` with their TLS; `state` gives the run-time state of each by name. A rollback that was
    /// published and has not reached that state yet stays.
    pub fn install(&self, settings: &Settings, materials: Materials, state: impl Fn(&str) -> ServiceState) -> u64 {
        let mut inner = self.lock();
        inner.materials = Arc::new(materials);
        let before = self.plane.table.load_full();
        let claim = |service: &settings::Service| (service.name.clone(), service.hosts.clone(), service.paths.clone());
        let owned: Vec<_> = settings.services.iter().map(claim).collect();
        let claims: Vec<_> = owned.iter().map(|(service, hosts, paths)| Claim { service, hosts, paths }).collect();
        let router = Router::build(&claims).expect("settings never hold two services with one claim");
        let services = settings.services.iter().map(|service| {
            let known = before.services.iter().find(|known| known.settings.name == service.name);
            let same = known.filter(|known| *known.settings == *service).map(|known| Arc::clone(&known.settings));
            let definition = same.unwrap_or_else(|| Arc::new(service.clone()));
            let known = known.map(Arc::as_ref);
            let state = newer(state(&service.name), known);
            Arc::new(self.build(&mut inner, definition, &state, known))
        });
        let services: Vec<_> = services.collect();
        retire(&mut inner, &services);
        inner.drained.retain(|name, _| services.iter().any(|service| service.settings.name == *name));
        inner.found.retain(|address, _| services.iter().any(|service| names(&service.settings, address)));
        self.store(&mut inner, Arc::new(router), services, settings.client.clone())
    }

    /// Publishes where a name is now; no epoch changes, and what stays where it was keeps its identity. `None` if no
    /// service of the table names it: then the next table that does will know.
    pub fn found(&self, address: &Address, at: Vec<SocketAddr>) -> Option<u64> {
        let mut inner = self.lock();
        inner.found.insert(address.clone(), at);
        let before = self.plane.table.load_full();
        if !before.services.iter().any(|service| names(&service.settings, address)) {
            return None;
        }
        let services = before.services.iter().map(|known| {
            if !names(&known.settings, address) {
                return Arc::clone(known);
            }
            let again = |(settings, pool): (&settings::Pool, &Arc<Pool>)| {
                Arc::new(self.pool(&mut inner, &known.settings, settings, pool.rolled_back))
            };
            Arc::new(Service {
                settings: Arc::clone(&known.settings),
                epoch: known.epoch,
                active: known.active,
                split: known.split.clone(),
                pools: known.settings.pools.iter().zip(&known.pools).map(again).collect(),
                book: Arc::clone(&known.book),
                purse: Arc::clone(&known.purse),
                intake: Arc::clone(&known.intake),
                faults: Arc::clone(&known.faults),
            })
        });
        let services: Vec<_> = services.collect();
        retire(&mut inner, &services);
        Some(self.store(&mut inner, Arc::clone(&before.router), services, before.client.clone()))
    }

    /// Publishes a new split of one service; `state.epoch` must be newer than the published one.
    ///
    /// # Errors
    /// When a rollback or another change was published first, or the service is gone.
    pub fn shift(&self, name: &str, state: &ServiceState) -> Result<Published, Overtaken> {
        let mut inner = self.lock();
        let before = self.plane.table.load_full();
        let Some((index, known)) = find(&before, name) else { return Err(Overtaken { current: u64::MAX }) };
        if state.epoch <= known.epoch {
            return Err(Overtaken { current: known.epoch });
        }
        let service = self.build(&mut inner, Arc::clone(&known.settings), state, Some(known));
        Ok(self.replace(&mut inner, &before, index, service))
    }

    /// All traffic of a service to its active pool, now: no store, no majority, no network (Decisions 12).
    ///
    /// It takes an epoch even if no traffic moves: a forward move that waits for its journal has lost from here on.
    /// `None` if there is no such service.
    pub fn revert(&self, name: &str) -> Option<Published> {
        let mut inner = self.lock();
        let before = self.plane.table.load_full();
        let (index, known) = find(&before, name)?;
        let changed = known.share(known.active) != Share::ALL;
        let mut service = Service {
            settings: Arc::clone(&known.settings),
            epoch: known.epoch + 1,
            active: known.active,
            split: known.split.clone(),
            pools: known.pools.clone(),
            book: Arc::clone(&known.book),
            purse: Arc::clone(&known.purse),
            intake: Arc::clone(&known.intake),
            faults: Arc::clone(&known.faults),
        };
        for (at, slot) in service.split.iter_mut().enumerate() {
            if !slot.share.is_none() && at != known.active {
                service.pools[at] = Arc::new(Pool { rolled_back: true, ..share_of(&known.pools[at]) });
            }
            slot.share = if at == known.active { Share::ALL } else { Share::NONE };
        }
        service.book = self.book(&service);
        Some(Published { changed, ..self.replace(&mut inner, &before, index, service) })
    }

    /// Publishes `state` over whatever is published, under an epoch of its own, unless the table says it already.
    ///
    /// For the ends of rollbacks, which nothing may overtake. `None` if there is no such service.
    pub fn impose(&self, name: &str, state: &ServiceState) -> Option<Published> {
        let mut inner = self.lock();
        let before = self.plane.table.load_full();
        let (index, known) = find(&before, name)?;
        let says = |(pool, slot): (&Arc<Pool>, &Slot)| {
            slot.share == state.share(&pool.name) && pool.rolled_back == state.rolled_back.contains(&pool.name)
        };
        if known.pools[known.active].name == state.active && known.pools.iter().zip(&known.split).all(says) {
            return Some(Published { version: before.version, epoch: known.epoch, changed: false });
        }
        let state = ServiceState { epoch: known.epoch + 1, ..state.clone() };
        let service = self.build(&mut inner, Arc::clone(&known.settings), &state, Some(known));
        Some(self.replace(&mut inner, &before, index, service))
    }

    /// Takes endpoints of a service out of use, and puts all others into it. The table is published once more as it is: who
    /// has taken that up gives no request to what is out of use. `None` if there is no such service.
    pub fn drain(&self, name: &str, orders: &Orders) -> Option<u64> {
        let mut inner = self.lock();
        let before = self.plane.table.load_full();
        let (_, known) = find(&before, name)?;
        inner.drained.insert(name.to_owned(), orders.clone());
        for pool in &known.pools {
            let covered = |endpoint: &Endpoint| orders.cover(&pool.name, &endpoint.address.to_string());
            pool.endpoints.iter().for_each(|endpoint| endpoint.drain(covered(endpoint)));
        }
        Some(self.store(&mut inner, Arc::clone(&before.router), before.services.clone(), before.client.clone()))
    }

    /// The epoch that is published for a service.
    pub fn epoch(&self, name: &str) -> Option<u64> {
        find(&self.plane.table.load(), name).map(|(_, service)| service.epoch)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic inside leaves at worst an unpublished table behind: the next call starts from what is published.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn build(
        &self,
        inner: &mut Inner,
        settings: Arc<settings::Service>,
        state: &ServiceState,
        known: Option<&Service>,
    ) -> Service {
        inner.drained.insert(settings.name.clone(), state.drained.clone());
        let pools: Vec<_> = settings
            .pools
            .iter()
            .map(|pool| {
                let rolled_back = state.rolled_back.contains(&pool.name);
                Arc::new(self.pool(inner, &settings, pool, rolled_back))
            })
            .collect();
        let slot =
            |pool: &settings::Pool| Slot { seed: split::seed(&pool.name, state.salt), share: state.share(&pool.name) };
        let active = settings.pools.iter().position(|pool| pool.name == state.active).unwrap_or(settings.active);
        let split = settings.pools.iter().map(slot).collect();
        let names = |pools: &[Arc<Pool>]| pools.iter().map(|pool| pool.name.clone()).collect::<Vec<_>>();
        let same = known.filter(|known| known.epoch == state.epoch && names(&known.pools) == names(&pools));
        let old_book = same.map(|known| Arc::clone(&known.book));
        // Under other budgets what was spent means nothing.
        let same = known.filter(|known| known.settings.budgets() == settings.budgets());
        let purse = same.map_or_else(|| Arc::new(Purse::new(self.workers)), |known| Arc::clone(&known.purse));
        // A placeholder for the moment: the book needs the service it belongs to.
        let none = || Arc::new(Book::new(state.epoch, active, 0, 0, None));
        let (epoch, book) = (state.epoch, old_book.clone().unwrap_or_else(none));
        let intake = self.intake(&settings, known);
        let faults = known.map(|known| Arc::clone(&known.faults)).unwrap_or_default();
        let mut service = Service { epoch, active, split, pools, book, purse, intake, faults, settings };
        if old_book.is_none() {
            service.book = self.book(&service);
        }
        service
    }

    /// The intake by a definition: the one that is there if that has not changed, else what is left of it.
    fn intake(&self, settings: &Arc<settings::Service>, known: Option<&Service>) -> Arc<Intake> {
        let before = known.map(|known| (known.settings.as_ref(), known.intake.as_ref()));
        let same = known.filter(|known| Arc::ptr_eq(&known.settings, settings));
        same.map_or_else(|| Arc::new(Intake::new(settings, before, self.workers)), |known| Arc::clone(&known.intake))
    }

    /// An empty book; its latency marks come from what the active pool did so far, if that is enough.
    fn book(&self, service: &Service) -> Arc<Book> {
        let past = latency_of(&service.pools[service.active].tally);
        let marks = Marks::learn(&past, &service.settings.analysis);
        Arc::new(Book::new(service.epoch, service.active, service.pools.len(), self.workers, marks))
    }

    fn pool(&self, inner: &mut Inner, service: &settings::Service, pool: &settings::Pool, rolled_back: bool) -> Pool {
        let (workers, awaits_check) = (self.workers, service.health.awaits_first());
        let Inner { pools, next_endpoint, materials, found, drained, .. } = inner;
        let (connector, protocol) = (materials.connector(&service.name, &pool.name), pool.protocol);
        let terms = Terms { protocol, connector: connector.clone(), proxy_protocol: pool.proxy_protocol };
        let live = pools.entry((service.name.clone(), pool.name.clone())).or_insert_with(|| Live {
            endpoints: HashMap::new(),
            tally: Arc::new(PerWorker::new(workers)),
            changes: Arc::default(),
            balancer: None,
            pace: Arc::default(),
            terms: terms.clone(),
            breaker: Arc::default(),
            breaks_by: settings::Breaker::default(),
            room: Arc::default(),
            limits: settings::Limits::default(),
            bench: Arc::default(),
        });
        live.speak(terms, next_endpoint, workers);
        live.break_by(&pool.breaker, workers);
        live.limit_to(&pool.limits);
        let wanted = targets(pool, found, |key| live.endpoints.contains_key(key));
        // Who joins a pool that is in use begins slowly; a pool's first endpoints have nobody to leave it to.
        let joins = live.balancer.is_some();
        let endpoint = |((address, target), rank): ((Address, Option<Target>), Rank)| {
            let known = live.endpoints.entry((address, target)).or_insert_with_key(|(address, target)| {
                *next_endpoint += 1;
                let new =
                    Endpoint::found(*next_endpoint, address.clone(), target.clone(), workers).among(&live.changes);
                if awaits_check {
                    new.await_check();
                }
                Arc::new(if joins { new.joining() } else { new })
            });
            if live.breaks_by.endpoint.is_some() {
                known.breaker.arm(workers);
            }
            (Arc::clone(known), rank)
        };
        let endpoints: Vec<_> = wanted.into_iter().map(endpoint).collect();
        let orders = drained.entry(service.name.clone()).or_default();
        for (endpoint, _) in &endpoints {
            endpoint.drain(orders.cover(&pool.name, &endpoint.address.to_string()));
        }
        let balance = pool.balance.as_ref().unwrap_or(&service.balance);
        let kept = live.balancer.take().filter(|balancer| balancer.suits(balance, &endpoints));
        let made = || Arc::new(Balancer::new(balance.clone(), &endpoints, &live.changes, workers));
        let balancer = live.balancer.insert(kept.unwrap_or_else(made)).clone();
        let endpoints = endpoints.into_iter().map(|(endpoint, _)| endpoint).collect();
        let (name, tally, proxy_protocol) = (pool.name.clone(), Arc::clone(&live.tally), pool.proxy_protocol);
        let (breaker, room) = (Arc::clone(&live.breaker), Arc::clone(&live.room));
        let (ejection, bench) = (pool.ejection, Arc::clone(&live.bench));
        Pool {
            name,
            rolled_back,
            endpoints,
            balancer,
            protocol,
            connector,
            proxy_protocol,
            pace: Arc::clone(&live.pace),
            tally,
            breaker,
            room,
            ejection,
            bench,
        }
    }

    fn replace(&self, inner: &mut Inner, before: &Table, index: usize, service: Service) -> Published {
        let epoch = service.epoch;
        let mut services = before.services.clone();
        services[index] = Arc::new(service);
        let version = self.store(inner, Arc::clone(&before.router), services, before.client.clone());
        Published { version, epoch, changed: true }
    }

    fn store(
        &self,
        inner: &mut Inner,
        router: Arc<Router>,
        services: Vec<Arc<Service>>,
        client: settings::Client,
    ) -> u64 {
        inner.version += 1;
        let listeners = inner.materials.listeners.clone();
        self.plane.table.store(Arc::new(Table { version: inner.version, router, services, client, listeners }));
        self.plane.roster.wake_all();
        inner.version
    }
}

impl Live {
    /// Takes up another way to speak to the endpoints: idle connections were made under other terms, perhaps to
    /// somebody who is not trusted any more, so each endpoint gets a successor with what is known of its health.
    fn speak(&mut self, terms: Terms, next_endpoint: &mut u64, workers: usize) {
        if self.terms == terms {
            return;
        }
        self.terms = terms;
        for ((address, target), endpoint) in &mut self.endpoints {
            *next_endpoint += 1;
            let successor =
                Endpoint::found(*next_endpoint, address.clone(), target.clone(), workers).among(&self.changes);
            successor.succeed(endpoint);
            endpoint.retire();
            *endpoint = Arc::new(successor);
        }
    }

    /// Takes up other rules for breakers: what was counted by the old ones says nothing under them.
    fn break_by(&mut self, rules: &settings::Breaker, workers: usize) {
        if self.breaks_by.pool != rules.pool {
            self.breaker = Arc::default();
        }
        if rules.pool.is_some() {
            self.breaker.arm(workers);
        }
        if self.breaks_by.endpoint != rules.endpoint {
            let now = clock::now().0;
            self.endpoints.values().for_each(|endpoint| endpoint.reset_breaker(now));
        }
        self.breaks_by = rules.clone();
    }

    /// Takes up other limits. What is in flight by then counts by the old ones until it ends.
    fn limit_to(&mut self, limits: &settings::Limits) {
        if self.limits != *limits {
            self.room = Arc::new(Room::new(limits));
            self.limits = limits.clone();
        }
    }
}

impl PartialEq for Terms {
    fn eq(&self, other: &Terms) -> bool {
        let connector = |terms: &Terms| terms.connector.as_ref().map(Arc::as_ptr);
        connector(self) == connector(other)
            && self.protocol == other.protocol
            && self.proxy_protocol == other.proxy_protocol
    }
}

/// Where a pool's requests can go, and with which rank. A name that was never found is listed without a target, to be
/// seen and waited for.
fn targets(
    pool: &settings::Pool,
    found: &HashMap<Address, Vec<SocketAddr>>,
    in_use: impl Fn(&(Address, Option<Target>)) -> bool,
) -> Vec<((Address, Option<Target>), Rank)> {
    let mut targets = Vec::with_capacity(pool.endpoints.len());
    for settings::Endpoint { address, rank } in &pool.endpoints {
        let known = found.get(address).map_or(&[][..], Vec::as_slice);
        let at = |at: &SocketAddr| (address.clone(), Some(Target::Tcp(*at)));
        match (Target::of(address), known, pool.resolve) {
            (None, [_, ..], Resolve::All) => targets.extend(known.iter().map(|one| (at(one), *rank))),
            // The one in use, as long as the name has it.
            (None, [first, ..], Resolve::First) => {
                targets.push((known.iter().map(at).find(&in_use).unwrap_or_else(|| at(first)), *rank));
            }
            (target, ..) => targets.push(((address.clone(), target), *rank)),
        }
    }
    targets
}

fn names(service: &settings::Service, address: &Address) -> bool {
    service.pools.iter().any(|pool| pool.addresses().any(|known| known == address))
}

fn find<'a>(table: &'a Table, name: &str) -> Option<(usize, &'a Service)> {
    let named = |(_, service): &(usize, &Arc<Service>)| service.settings.name == name;
    table.services.iter().enumerate().find(named).map(|(index, service)| (index, service.as_ref()))
}

/// `state`, or what is published if that is newer: a rollback whose news is still on its way.
fn newer(state: ServiceState, known: Option<&Service>) -> ServiceState {
    let Some(known) = known.filter(|known| known.epoch > state.epoch) else { return state };
    let shares = known.pools.iter().zip(&known.split).filter(|(_, slot)| !slot.share.is_none());
    ServiceState {
        active: known.pools[known.active].name.clone(),
        shares: shares.map(|(pool, slot)| (pool.name.clone(), slot.share)).collect(),
        rolled_back: known.pools.iter().filter(|pool| pool.rolled_back).map(|pool| pool.name.clone()).collect(),
        epoch: known.epoch,
        ..state
    }
}

fn share_of(pool: &Pool) -> Pool {
    Pool {
        name: pool.name.clone(),
        rolled_back: pool.rolled_back,
        endpoints: pool.endpoints.clone(),
        balancer: Arc::clone(&pool.balancer),
        protocol: pool.protocol,
        connector: pool.connector.clone(),
        proxy_protocol: pool.proxy_protocol,
        pace: Arc::clone(&pool.pace),
        tally: Arc::clone(&pool.tally),
        breaker: Arc::clone(&pool.breaker),
        room: Arc::clone(&pool.room),
        ejection: pool.ejection,
        bench: Arc::clone(&pool.bench),
    }
}

/// Forgets pools and endpoints that no service names any more.
fn retire(inner: &mut Inner, services: &[Arc<Service>]) {
    let named = |service: &str, pool: &str| {
        let service = services.iter().find(|known| known.settings.name == service)?;
        service.pools.iter().find(|known| known.name == pool)
    };
    inner.pools.retain(|(service, name), live| {
        let pool = named(service, name);
        live.endpoints.retain(|_, endpoint| {
            let kept = pool.is_some_and(|pool| pool.endpoints.iter().any(|other| other.id == endpoint.id));
            if !kept {
                endpoint.retire();
            }
            kept
        });
        pool.is_some()
    });
}
