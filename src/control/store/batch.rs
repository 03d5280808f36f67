//! What is written in one durable transaction.

use crate::control::state::{Finished, ServiceState};

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A forward move is about to be published; dropped on load until it is settled.
    Intent(String, Box<ServiceState>),
    /// The service is in this state and every worker acknowledged it; drops the intent.
    Settle(String, Box<ServiceState>),
    /// A rollout ended. Writing the same id again replaces it.
    Finish(Box<Finished>),
    /// The judge's evidence on a service; opaque to the store.
    Evidence(String, Vec<u8>),
}

/// Writes that become durable together or not at all, in the order they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub(super) writes: Vec<Write>,
}

impl Batch {
    /// Nothing yet.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds [`Write::Intent`].
    #[must_use]
    pub fn intent(self, service: &str, state: ServiceState) -> Batch {
        self.with(Write::Intent(service.to_owned(), Box::new(state)))
    }

    /// Adds [`Write::Settle`].
    #[must_use]
    pub fn settle(self, service: &str, state: ServiceState) -> Batch {
        self.with(Write::Settle(service.to_owned(), Box::new(state)))
    }

    /// Adds [`Write::Finish`].
    #[must_use]
    pub fn finish(self, finished: Finished) -> Batch {
        self.with(Write::Finish(Box::new(finished)))
    }

    /// Adds [`Write::Evidence`].
    #[must_use]
    pub fn evidence(self, service: &str, bytes: Vec<u8>) -> Batch {
        self.with(Write::Evidence(service.to_owned(), bytes))
    }

    /// Adds any write.
    #[must_use]
    pub fn with(mut self, write: Write) -> Batch {
        self.writes.push(write);
        self
    }

    /// True if there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}
