//! The store: one crash-safe file with the run-time state of every service.
//!
//! Per service it holds a pair: `settled`, the state every worker last acknowledged, and perhaps an
//! `intent`, the state a forward move is going to. The protocol that makes a crash harmless:
//!
//! ```text
//! forward:   write intent ─fsync─▶ publish ─▶ all workers acknowledge ─▶ settled = intent ─fsync─▶ tell the caller
//! rollback:  publish ─▶ settled = rolled back, intent dropped ─fsync─▶ all workers acknowledge ─▶ tell the caller
//! load:      state = settled; an unsettled intent is dropped
//! ```
//!
//! A forward move is told only after it is durable, and before that nobody relies on it, so a crash at
//! any point resumes the last acknowledged state or a safer one.
//!
//! Invariant: after a restart there is never more canary than was acknowledged.

mod batch;
mod error;
mod journal;

use std::collections::BTreeMap;
use std::path::Path;

pub use batch::{Batch, Write};
pub use error::StoreError;
pub use journal::Journal;

use crate::control::state::{Finished, ServiceState};

/// Everything a restart resumes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Each service's settled state.
    pub services: BTreeMap<String, ServiceState>,
    /// Each service's evidence, as it was last written.
    pub evidence: BTreeMap<String, Vec<u8>>,
    /// Services whose unsettled forward move was dropped: the process ended inside it.
    pub dropped: Vec<String>,
}

/// The open store. Blocking: give it to a [`Journal`].
pub struct Store {}

impl Store {
    /// Opens or creates `teal.redb` in `folder`, which is created for this user alone.
    ///
    /// # Errors
    /// See [`StoreError`]; a file that is not Teal's, or damaged, is left untouched.
    pub fn open(folder: &Path) -> Result<Store, StoreError> {
        let _ = folder;
        Err(StoreError::Closed)
    }

    /// A store that ends with the process: the same engine over memory.
    ///
    /// # Errors
    /// None known; memory does not fail.
    pub fn ephemeral() -> Result<Store, StoreError> {
        Err(StoreError::Closed)
    }

    /// A store over any bytes; it cannot be reopened after an I/O error.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn with_backend(backend: impl redb::StorageBackend) -> Result<Store, StoreError> {
        let _ = backend;
        Err(StoreError::Closed)
    }

    /// What a restart resumes from.
    ///
    /// # Errors
    /// A damaged record or disk.
    pub fn load(&mut self) -> Result<Loaded, StoreError> {
        Err(StoreError::Closed)
    }

    /// The newest ended rollouts of a service, newest first.
    ///
    /// # Errors
    /// A damaged record or disk.
    pub fn history(&mut self, service: &str, limit: usize) -> Result<Vec<Finished>, StoreError> {
        let _ = (service, limit);
        Err(StoreError::Closed)
    }

    /// An ended rollout by its id.
    ///
    /// # Errors
    /// A damaged record or disk.
    pub fn rollout(&mut self, id: &str) -> Result<Option<Finished>, StoreError> {
        let _ = id;
        Err(StoreError::Closed)
    }

    /// Writes `batch` in one transaction; durable when it returns.
    ///
    /// # Errors
    /// On [`StoreError::Disk`] it is unknown whether the batch is durable, and safe to repeat it.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let _ = batch;
        Err(StoreError::Closed)
    }
}
