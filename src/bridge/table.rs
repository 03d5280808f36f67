//! The routing table: an immutable value from the control plane to the workers, swapped as one.
//!
//! One writer (the publisher) builds a table and stores it; workers cache what they loaded and never hold a
//! guard across an await. Two counters tell tables apart (Decisions 2): the *version* counts every table,
//! the *epoch* of a service counts only changes of its split.
//!
//! Invariant: within one table every index (service, pool, endpoint) is in range and shares sum to 100 %.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::bridge::admission::{Abuse, Admission, Arrival, Closed, Pause, Refusal};
use crate::bridge::counters::{PerWorker, Tally};
use crate::bridge::endpoint::Endpoint;
use crate::bridge::handover::Handover;
use crate::bridge::observations::{Book, PoolTally};
use crate::bridge::roster::Roster;
use crate::bridge::tls::{Connector, Handshakes, Server};
use crate::config::settings;
use crate::domain::route::{RequestView, Router};
use crate::domain::split::{self, Share, Slot};

/// What both planes hold: the current table and the workers' roster.
#[derive(Debug)]
pub struct Plane {
    /// The current table. Only the publisher stores.
    pub table: ArcSwap<Table>,
    /// Who works by which version.
    pub roster: Roster,
    /// What the workers count beside any service.
    pub workers: PerWorker<WorkerTally>,
    /// How many client connections there are, over all workers.
    pub admission: Arc<Admission>,
    /// How they are shared between the workers.
    pub handover: Handover<Arrival>,
}

/// Counters of one worker.
#[derive(Debug, Default)]
pub struct WorkerTally {
    /// Client connections it began to serve.
    pub accepted: Tally,
    /// Client connections it accepted and handed to another worker.
    pub handed_over: Tally,
    /// Client connections closed before they were served, by [`Refusal`].
    pub turned_away: [Tally; Refusal::NAMES.len()],
    /// Client connections it closed by itself, by [`Closed`].
    pub closed: [Tally; Closed::NAMES.len()],
    /// Client connections that began to speak HTTP/2.
    pub http2: Tally,
    /// Those that were ended for how the client used it, by [`Abuse`].
    pub abuses: [Tally; Abuse::NAMES.len()],
    /// How often it stopped accepting, by [`Pause`].
    pub pauses: [Tally; Pause::NAMES.len()],
    /// The worst recent delay of its loop in microseconds.
    pub lag: Tally,
    /// Requests that reached it, whatever became of them.
    pub requests: Tally,
    /// Requests that no service claimed, or that were refused before routing.
    pub refused: Tally,
    /// Handshakes of TLS.
    pub handshakes: Handshakes,
    /// Access log lines dropped because the log could not keep up.
    pub log_dropped: Tally,
}

/// An immutable routing table.
#[derive(Debug)]
pub struct Table {
    /// Counts tables; higher is newer.
    pub version: u64,
    /// From host and path to an index into `services`.
    pub router: Arc<Router>,
    /// All services.
    pub services: Vec<Arc<Service>>,
    /// Limits of client connections.
    pub client: settings::Client,
    /// One per bound address, in the order they were bound.
    pub listeners: Vec<Arc<Listener>>,
}

/// One listener as the workers see it. A reload replaces it for connections to come.
#[derive(Debug)]
pub struct Listener {
    /// The definition, from the file.
    pub settings: settings::Listen,
    /// The server side of TLS; `None` for plain HTTP.
    pub tls: Option<Arc<Server>>,
    /// The value of `Strict-Transport-Security` that every answer carries.
    pub strict_transport: Option<String>,
}

/// One service as the workers see it.
#[derive(Debug)]
pub struct Service {
    /// The definition, from the file.
    pub settings: Arc<settings::Service>,
    /// Counts changes of the split; higher is newer.
    pub epoch: u64,
    /// The pool that rollbacks return to.
    pub active: usize,
    /// One slot per pool: its hash seed and its share. Shares sum to 100 %.
    pub split: Vec<Slot>,
    /// One pool per pool of the settings.
    pub pools: Vec<Arc<Pool>>,
    /// Where this epoch's observations go.
    pub book: Arc<Book>,
}

/// One pool as the workers see it; survives tables while its endpoints stay the same.
#[derive(Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Rolled back and not deployed since: overrides that do not insist stay away.
    pub rolled_back: bool,
    /// Its endpoints.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// What they speak.
    pub protocol: settings::Protocol,
    /// The client side of TLS; `None` without.
    pub connector: Option<Arc<Connector>>,
    /// What it has answered since the process began; survives tables.
    pub tally: Arc<PerWorker<PoolTally>>,
}

/// Why a request goes where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An override matched (index into the service's overrides).
    Override(usize),
    /// By the split.
    Split,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Index of the pool.
    pub pool: usize,
    /// Why.
    pub reason: Reason,
}

impl Service {
    /// The pool for a request: the first override that matches, else the split by `key`.
    ///
    /// `None` only if no pool has a share, which a published table never shows.
    pub fn assign(&self, request: &impl RequestView, key: u64) -> Option<Assignment> {
        let overrides = self.settings.overrides.iter().enumerate();
        let insists =
            |rule: &crate::domain::route::Override| rule.even_when_rolled_back || !self.pools[rule.pool].rolled_back;
        let chosen = overrides.filter(|(_, rule)| insists(rule)).find(|(_, rule)| rule.matches(request));
        if let Some((index, rule)) = chosen {
            return Some(Assignment { pool: rule.pool, reason: Reason::Override(index) });
        }
        split::choose(&self.split, key).map(|pool| Assignment { pool, reason: Reason::Split })
    }

    /// May a request assigned so still be sent? Asked again at the moment of dispatch (Decisions 1).
    pub fn still_allows(&self, assignment: Assignment) -> bool {
        match assignment.reason {
            Reason::Split => !self.split[assignment.pool].share.is_none(),
            Reason::Override(index) => {
                self.settings.overrides[index].even_when_rolled_back || !self.pools[assignment.pool].rolled_back
            }
        }
    }

    /// The share of a pool.
    pub fn share(&self, pool: usize) -> Share {
        self.split[pool].share
    }

    /// The index of a pool by name.
    pub fn pool_named(&self, name: &str) -> Option<usize> {
        self.pools.iter().position(|pool| pool.name == name)
    }
}

impl Table {
    /// The service that a request belongs to.
    pub fn route(&self, request: &impl RequestView) -> Option<usize> {
        self.router.find(request.host(), request.path())
    }

    /// The table of a process that has no services yet.
    pub fn empty() -> Table {
        Table {
            version: 0,
            router: Arc::default(),
            services: Vec::new(),
            client: settings::Client::default(),
            listeners: Vec::new(),
        }
    }
}

impl Plane {
    /// A plane of `workers` with an empty table.
    pub fn new(workers: usize) -> Plane {
        Plane {
            table: ArcSwap::from_pointee(Table::empty()),
            roster: Roster::new(workers),
            workers: PerWorker::new(workers),
            admission: Arc::default(),
            handover: Handover::new(workers),
        }
    }
}
