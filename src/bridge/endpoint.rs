//! The live state of one endpoint: where it is, whether it is healthy, how busy it is.
//!
//! It outlives the table it was first named in: the publisher hands the same `Endpoint` to every table as
//! long as pool and address stay the same, so a reload loses neither health nor in-flight counts.
//!
//! Invariant: `retired` is set once, when no table names the endpoint any more, and never cleared.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

use arc_swap::ArcSwapOption;

use crate::bridge::counters::{PerWorker, Tally};
use crate::config::settings::Address;

/// One upstream address of one pool.
#[derive(Debug)]
pub struct Endpoint {
    /// As configured.
    pub address: Address,
    /// Unique among all endpoints of the process: the key of the workers' reuse lists.
    pub id: u64,
    resolved: ArcSwapOption<SocketAddr>,
    health: AtomicU8,
    retired: AtomicBool,
    in_flight: PerWorker<Tally>,
}

/// What health checks know of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// Not checked yet: taken as healthy, so that a start or a reload is not an outage.
    Unknown = 0,
    /// It answers.
    Healthy = 1,
    /// It failed its checks; it gets no requests.
    Unhealthy = 2,
}

impl Endpoint {
    /// A new endpoint; an IP literal is resolved at once.
    pub fn new(id: u64, address: Address, workers: usize) -> Endpoint {
        let literal = address.host.parse().ok().map(|ip| SocketAddr::new(ip, address.port).into());
        Endpoint {
            id,
            resolved: ArcSwapOption::from(literal),
            address,
            health: AtomicU8::new(Health::Unknown as u8),
            retired: AtomicBool::new(false),
            in_flight: PerWorker::new(workers),
        }
    }

    /// Where to connect; `None` while the name has never resolved.
    pub fn resolved(&self) -> Option<SocketAddr> {
        self.resolved.load().as_deref().copied()
    }

    /// Sets where to connect.
    pub fn resolve(&self, address: SocketAddr) {
        if self.resolved() != Some(address) {
            self.resolved.store(Some(address.into()));
        }
    }

    /// What the health checks say.
    pub fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            1 => Health::Healthy,
            2 => Health::Unhealthy,
            _ => Health::Unknown,
        }
    }

    /// Set by the health checker only.
    pub fn set_health(&self, health: Health) {
        self.health.store(health as u8, Relaxed);
    }

    /// May it be given a request?
    pub fn is_eligible(&self) -> bool {
        self.health() != Health::Unhealthy
    }

    /// The count of requests that `worker` has in flight here.
    pub fn in_flight_of(&self, worker: usize) -> &Tally {
        self.in_flight.of(worker)
    }

    /// Requests in flight here, over all workers.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.total()
    }

    /// No table names this endpoint any more: its idle connections can go.
    pub fn retire(&self) {
        self.retired.store(true, Relaxed);
    }

    /// See [`Endpoint::retire`].
    pub fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }
}
