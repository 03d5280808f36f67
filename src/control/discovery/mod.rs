//! Discovery: where the names of endpoints are, asked again whenever an answer expires.
//!
//! One small task per name waits for its time, asks, and hands what changed to the publisher, the one writer of the
//! table. A name with several addresses makes several endpoints; the ones that stay keep their identity, health and
//! connections included. [`schedule`] decides when to ask again and what is news, [`lookup`] asks.
//!
//! Invariant: an address that was known is given up only for another answer, never for a failure or an empty one.

mod lookup;
mod schedule;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::bridge::table::{Plane, Table};
use crate::clock;
use crate::config::settings::{self, Address, Resolver, Settings};
use crate::control::events::Events;
use crate::control::publisher::Publisher;
use lookup::Lookup;
use schedule::{Answer, Entry, News};

/// How often the set of names is compared with the table.
const LOOK: Duration = Duration::from_millis(100);
/// How long names that are new may hold up the table that first names them.
const MEET: Duration = Duration::from_secs(2);
/// Names asked for at one time: a thousand at once would lose answers to full socket buffers.
const AT_ONCE: usize = 32;
/// Addresses that a sentence lists.
const LISTED: usize = 8;

/// Follows the names of endpoints.
pub struct Discovery {
    resolver: Resolver,
    lookup: Lookup,
    publisher: Arc<Publisher>,
    events: Arc<Events>,
    entries: Mutex<BTreeMap<Address, Entry>>,
    asking: Semaphore,
}

/// How one name is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The name, as configured.
    pub address: Address,
    /// How many addresses it has.
    pub addresses: usize,
    /// Lookups that failed or brought no address.
    pub failures: u64,
}

impl Discovery {
    /// Follows nothing yet.
    pub fn new(resolver: &Resolver, publisher: Arc<Publisher>, events: Arc<Events>) -> Discovery {
        Discovery {
            lookup: Lookup::new(resolver.clone()),
            resolver: resolver.clone(),
            publisher,
            events,
            entries: Mutex::default(),
            asking: Semaphore::new(AT_ONCE),
        }
    }

    /// Looks up the names of `settings` that are not known yet, so that the first table with them already has their
    /// addresses. What takes too long is found later.
    pub async fn meet(self: &Arc<Self>, settings: &Settings) {
        let pools = settings.services.iter().flat_map(|service| &service.pools);
        let named: BTreeSet<_> =
            pools.flat_map(settings::Pool::addresses).filter(|address| address.is_name()).collect();
        let mut lookups = JoinSet::new();
        for address in named {
            if !self.lock().contains_key(address) {
                lookups.spawn(Arc::clone(self).ask(address.clone()));
            }
        }
        let _ = tokio::time::timeout(MEET, lookups.join_all()).await;
    }

    /// Follows the names of the current table until dropped.
    pub async fn run(self: Arc<Self>, plane: Arc<Plane>) {
        let mut version = 0;
        let mut tasks: HashMap<Address, Task> = HashMap::new();
        loop {
            let table = plane.table.load_full();
            if std::mem::replace(&mut version, table.version) != table.version {
                let wanted = names(&table);
                tasks.retain(|address, _| wanted.contains(address));
                self.lock().retain(|address, _| wanted.contains(address));
                for address in wanted {
                    let follow = |address: &Address| Task(tokio::spawn(Arc::clone(&self).follow(address.clone())));
                    tasks.entry(address).or_insert_with_key(follow);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Every name that is followed.
    pub fn names(&self) -> Vec<Known> {
        let known = |(address, entry): (&Address, &Entry)| Known {
            address: address.clone(),
            addresses: entry.known().len(),
            failures: entry.failures(),
        };
        self.lock().iter().map(known).collect()
    }

    async fn follow(self: Arc<Self>, address: Address) {
        loop {
            let due = self.lock().get(&address).map_or(clock::now(), Entry::due);
            tokio::time::sleep(Duration::from_micros(due.since(clock::now()))).await;
            Arc::clone(&self).ask(address.clone()).await;
        }
    }

    async fn ask(self: Arc<Self>, address: Address) {
        // The semaphore is never closed.
        let turn = self.asking.acquire().await;
        let found = self.lookup.find(&address).await;
        drop(turn);
        self.learn(&address, found);
    }

    fn learn(&self, address: &Address, found: Result<Answer, String>) {
        let mut entries = self.lock();
        let entry = entries.entry(address.clone()).or_default();
        let news = entry.learn(found, clock::now(), &self.resolver);
        let known = entry.known().to_vec();
        if let News::Moved { .. } = news {
            // Before anybody else learns about this name: the last answer must be the one that is published last.
            self.publisher.found(address, known.clone());
        }
        drop(entries);
        match news {
            News::None => {}
            News::Moved { told } => {
                let sentence = format!("{address} is now at {}", listed(&known));
                if told {
                    self.events.tell("discovery", None, None, sentence);
                } else {
                    tracing::debug!("{sentence}");
                }
            }
            News::Failing(why) => {
                let kept = match known.len() {
                    0 => "it has no address yet".to_owned(),
                    _ => format!("it stays at {}", listed(&known)),
                };
                self.events.tell("discovery", None, None, format!("{address} cannot be looked up, {kept}: {why}"));
            }
            News::Recovered => {
                self.events.tell("discovery", None, None, format!("{address} can be looked up again"));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Address, Entry>> {
        // Entries are changed in one call that does not panic; one that did would leave the last answer.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The following of one name; ends when dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn names(table: &Table) -> BTreeSet<Address> {
    let pools = table.services.iter().flat_map(|service| &service.settings.pools);
    pools.flat_map(settings::Pool::addresses).filter(|address| address.is_name()).cloned().collect()
}

fn listed(addresses: &[SocketAddr]) -> String {
    let shown: Vec<_> = addresses.iter().take(LISTED).map(SocketAddr::to_string).collect();
    let more = match addresses.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", shown.join(", "))
}
