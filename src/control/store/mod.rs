//! The store: one crash-safe file with the run-time state of every service.
//!
//! Per service it holds a pair: `settled`, the state every worker last acknowledged, and perhaps an
//! `intent`, the state a forward move is going to. The protocol that makes a crash harmless:
//!
//! ```text
//! forward:   write intent ─fsync─▶ publish ─▶ all workers acknowledge ─▶ settled = intent ─fsync─▶ tell the caller
//! rollback:  publish ─▶ all workers acknowledge ─▶ settled = rolled back, intent dropped ─fsync─▶ tell the caller
//! load:      state = settled; an unsettled intent is dropped
//! ```
//!
//! A forward move is told only after it is durable, and before that nobody relies on it, so a crash at
//! any point resumes the last acknowledged state or a safer one.
//!
//! Invariant: after a restart there is never more canary than was acknowledged.

mod batch;
mod error;
mod file;
mod journal;
mod record;

#[cfg(test)]
pub(crate) mod crash;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

pub use batch::{Batch, Write};
pub use error::StoreError;
pub use journal::Journal;

use redb::{AccessGuard, Database, ReadableDatabase, ReadableTable, StorageError, WriteTransaction};

use self::file::{EVIDENCE, Fault, HISTORY, INTENTS, ROLLOUTS, SETTLED};
use crate::control::state::{Finished, ServiceState};

/// Ended rollouts kept per service: years of deploys, a few megabytes.
const HISTORY_LIMIT: u64 = 1_000;

/// Evidence kept per service, in bytes: histograms of a few strata take some hundred kilobytes, and each
/// write of it must fit the engine's cache.
const EVIDENCE_LIMIT: usize = 1 << 20;

/// Everything a restart resumes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Each service's settled state.
    pub services: BTreeMap<String, ServiceState>,
    /// Each service's evidence, as it was last written.
    pub evidence: BTreeMap<String, Vec<u8>>,
    /// Where unsettled forward moves were going: the process ended inside them, and they are dropped.
    pub dropped: BTreeMap<String, ServiceState>,
}

/// The open store. Blocking: give it to a [`Journal`].
pub struct Store {
    place: String,
    /// `None` after an I/O error, until the next use opens it again.
    database: Option<Database>,
    reopen: Option<Reopen>,
    /// It was let go of.
    is_released: bool,
}

/// How the same file is opened once more.
type Reopen = Box<dyn Fn() -> Result<Database, StoreError> + Send>;

impl Store {
    /// Opens or creates `teal.redb` in `folder`, which is created for this user alone.
    ///
    /// # Errors
    /// See [`StoreError`]; a file that is not Teal's, or damaged, is left as it is.
    pub fn open(folder: &Path) -> Result<Store, StoreError> {
        let place = folder.join(file::FILE).display().to_string();
        let folder = folder.to_owned();
        Store::with_reopen(place, Box::new(move || file::open_file(&folder)))
    }

    /// A store that ends with the process: the same engine over memory.
    ///
    /// # Errors
    /// None known; memory does not fail.
    pub fn ephemeral() -> Result<Store, StoreError> {
        Store::with_backend(redb::backends::InMemoryBackend::new())
    }

    /// A store over any bytes; it cannot be opened again after an I/O error.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn with_backend(backend: impl redb::StorageBackend) -> Result<Store, StoreError> {
        let place = "the state in memory".to_owned();
        let database = file::open_backend(backend, &place)?;
        Ok(Store { place, database: Some(database), reopen: None, is_released: false })
    }

    /// A store on a test's disk, which is opened again after an I/O error like a file.
    ///
    /// # Errors
    /// As [`Store::open`].
    #[cfg(test)]
    pub(crate) fn on_disk(disk: &crash::Disk) -> Result<Store, StoreError> {
        let disk = disk.clone();
        Store::with_reopen("disk".to_owned(), Box::new(move || file::open_backend(disk.backend(), "disk")))
    }

    fn with_reopen(place: String, reopen: Reopen) -> Result<Store, StoreError> {
        let database = reopen()?;
        Ok(Store { place, database: Some(database), reopen: Some(reopen), is_released: false })
    }

    /// What a restart resumes from.
    ///
    /// # Errors
    /// A damaged record or disk.
    pub fn load(&mut self) -> Result<Loaded, StoreError> {
        self.with(|database| {
            let read = database.begin_read()?;
            Ok(Loaded {
                services: states(&read.open_table(SETTLED)?)?,
                dropped: states(&read.open_table(INTENTS)?)?,
                evidence: rows(&read.open_table(EVIDENCE)?, |_, bytes| Ok(bytes.to_vec()))?,
            })
        })
    }

    /// The newest ended rollouts of a service, newest first.
    ///
    /// # Errors
    /// A damaged record or disk.
    pub fn history(&mut self, service: &str, limit: usize) -> Result<Vec<Finished>, StoreError> {
        self.with(|database| {
            let read = database.begin_read()?;
            let (history, rollouts) = (read.open_table(HISTORY)?, read.open_table(ROLLOUTS)?);
            let mut newest = Vec::new();
            for row in history.range((service, 0)..=(service, u64::MAX))?.rev().take(limit) {
                newest.extend(finished(&rollouts, row?.1.value())?);
            }
            Ok(newest)
        })
    }

    /// An ended rollout by its id.
    ///
    /// # Errors
    /// A damaged record or disk.
    pub fn rollout(&mut self, id: &str) -> Result<Option<Finished>, StoreError> {
        self.with(|database| finished(&database.begin_read()?.open_table(ROLLOUTS)?, id))
    }

    /// Writes `batch` in one transaction; durable when it returns.
    ///
    /// # Errors
    /// On [`StoreError::Disk`] it is unknown whether the batch is durable, and safe to repeat it.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.with(|database| {
            let transaction = database.begin_write()?;
            for write in &batch.writes {
                put(&transaction, write)?;
            }
            Ok(transaction.commit()?)
        })
    }

    /// Lets go of the file, so that another process can open it. Until [`Store::reclaim`] every use is refused.
    pub fn release(&mut self) {
        self.database = None;
        self.is_released = true;
    }

    /// Opens the file again that was let go of.
    ///
    /// # Errors
    /// As [`Store::open`]; the next use tries once more.
    pub fn reclaim(&mut self) -> Result<(), StoreError> {
        self.is_released = false;
        self.with(|_| Ok(()))
    }

    /// Does `work`, opening the file again if an earlier I/O error closed it.
    fn with<T>(&mut self, work: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, StoreError> {
        if self.is_released {
            return Err(StoreError::Released);
        }
        let database = match (self.database.take(), &self.reopen) {
            (Some(database), _) => database,
            (None, Some(reopen)) => reopen()?,
            (None, None) => {
                let detail = "an earlier error closed it".to_owned();
                return Err(StoreError::Disk { place: self.place.clone(), detail });
            }
        };
        let done = work(&database).map_err(|fault| fault.at(&self.place));
        // The engine refuses everything after an I/O error until it is opened again.
        if !matches!(done, Err(StoreError::Disk { .. })) {
            self.database = Some(database);
        }
        done
    }
}

fn put(transaction: &WriteTransaction, write: &Write) -> Result<(), Fault> {
    match write {
        Write::Intent(service, state) => {
            if transaction.open_table(SETTLED)?.get(service.as_str())?.is_none() {
                return Err(Fault::Refused(StoreError::Unsettled { service: service.clone() }));
            }
            transaction.open_table(INTENTS)?.insert(service.as_str(), record::encode_state(state).as_slice())?;
        }
        Write::Settle(service, state) => {
            transaction.open_table(SETTLED)?.insert(service.as_str(), record::encode_state(state).as_slice())?;
            transaction.open_table(INTENTS)?.remove(service.as_str())?;
        }
        Write::Finish(finished) => put_finished(transaction, finished)?,
        Write::Evidence(service, bytes) if bytes.len() > EVIDENCE_LIMIT => {
            let (service, bytes, limit) = (service.clone(), bytes.len(), EVIDENCE_LIMIT);
            return Err(Fault::Refused(StoreError::TooLarge { service, bytes, limit }));
        }
        Write::Evidence(service, bytes) => {
            transaction.open_table(EVIDENCE)?.insert(service.as_str(), bytes.as_slice())?;
        }
    }
    Ok(())
}

fn put_finished(transaction: &WriteTransaction, finished: &Finished) -> Result<(), Fault> {
    let order = &finished.rollout.order;
    let mut rollouts = transaction.open_table(ROLLOUTS)?;
    let known = rollouts.insert(order.id.as_str(), record::encode_finished(finished).as_slice())?.is_some();
    if known {
        return Ok(());
    }
    let mut history = transaction.open_table(HISTORY)?;
    let service = order.service.as_str();
    let sequence = |end: Option<Row<'_>>| Ok::<_, Fault>(end.transpose()?.map(|(key, _)| key.value().1));
    let newest = sequence(history.range((service, 0)..=(service, u64::MAX))?.next_back())?;
    let oldest = sequence(history.range((service, 0)..=(service, u64::MAX))?.next())?;
    let next = newest.map_or(0, |newest| newest.saturating_add(1));
    history.insert((service, next), order.id.as_str())?;
    if let Some(oldest) = oldest.filter(|oldest| next - oldest >= HISTORY_LIMIT) {
        let expired = history.remove((service, oldest))?.map(|id| id.value().to_owned());
        if let Some(expired) = expired {
            rollouts.remove(expired.as_str())?;
        }
    }
    Ok(())
}

type Row<'a> = Result<(AccessGuard<'a, (&'static str, u64)>, AccessGuard<'a, &'static str>), StorageError>;

fn finished(rollouts: &impl ReadableTable<&'static str, &'static [u8]>, id: &str) -> Result<Option<Finished>, Fault> {
    let Some(bytes) = rollouts.get(id)? else { return Ok(None) };
    record::decode_finished(bytes.value()).map(Some).map_err(|wrong| Fault::Damaged(format!("rollout {id}: {wrong}")))
}

fn states(table: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<BTreeMap<String, ServiceState>, Fault> {
    rows(table, |service, bytes| {
        record::decode_state(bytes).map_err(|wrong| Fault::Damaged(format!("service {service}: {wrong}")))
    })
}

fn rows<T>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    decode: impl Fn(&str, &[u8]) -> Result<T, Fault>,
) -> Result<BTreeMap<String, T>, Fault> {
    let mut all = BTreeMap::new();
    for row in table.iter()? {
        let (service, bytes) = row?;
        all.insert(service.value().to_owned(), decode(service.value(), bytes.value())?);
    }
    Ok(all)
}
