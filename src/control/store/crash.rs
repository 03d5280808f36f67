//! A disk for tests that dies at a chosen operation and then shows what a real one might have kept.
//!
//! It holds the image of the last completed sync and the operations since. After the death, the survivor
//! is the image with none, all, or a seeded part of those operations, the part torn at 512-byte sectors:
//! a disk promises whole sectors and order across a sync, and nothing else.
//!
//! ```ignore
//! let disk = Disk::new();
//! let store = Store::with_backend(disk.backend())?;
//! disk.die_after(17);              // the 18th write, resize or sync from here fails, and all that follow
//! // ... work until it fails ...
//! let store = Store::with_backend(disk.survivor(Kept::Some(seed)).backend())?;
//! ```

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The unit a disk writes whole.
const SECTOR: usize = 512;

/// The disk; clones and backends share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
}

/// What of the unsynced operations is on the disk after the death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Nothing.
    None,
    /// Everything, the operation it died in included.
    All,
    /// The first so many of them in a thousand, in order.
    Prefix(u16),
    /// An arbitrary part, chosen by this seed.
    Some(u64),
}

#[derive(Debug, Default)]
struct State {
    /// As of the last completed sync.
    synced: Vec<u8>,
    /// As the running process sees it.
    seen: Vec<u8>,
    /// What happened since the last completed sync.
    unsynced: Vec<Operation>,
    life: Life,
    syncs: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Endless,
    /// So many operations (write, resize, sync) still succeed.
    Left(u64),
    Dead,
}

#[derive(Clone, Debug)]
enum Operation {
    Write(usize, Vec<u8>),
    Resize(usize),
}

impl Disk {
    /// An empty disk that lives for ever.
    pub(crate) fn new() -> Disk {
        Disk::default()
    }

    /// A disk that holds these bytes.
    pub(crate) fn holding(bytes: Vec<u8>) -> Disk {
        let state = State { synced: bytes.clone(), seen: bytes, ..State::default() };
        Disk { state: Arc::new(Mutex::new(state)) }
    }

    /// The engine's view of it.
    pub(crate) fn backend(&self) -> CrashBackend {
        CrashBackend { disk: self.clone() }
    }

    /// Lets `operations` more writes, resizes and syncs succeed and none after them.
    pub(crate) fn die_after(&self, operations: u64) {
        self.lock().life = Life::Left(operations);
    }

    /// Lets everything succeed again: the fault was transient.
    pub(crate) fn recover(&self) {
        self.lock().life = Life::Endless;
    }

    /// True once an operation was refused.
    pub(crate) fn is_dead(&self) -> bool {
        self.lock().life == Life::Dead
    }

    /// Syncs that succeeded.
    pub(crate) fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// What the running process sees.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.lock().seen.clone()
    }

    /// A new, healthy disk with what this one kept.
    pub(crate) fn survivor(&self, kept: Kept) -> Disk {
        let state = self.lock();
        let mut bytes = state.synced.clone();
        let mut random = fastrand::Rng::with_seed(if let Kept::Some(seed) = kept { seed } else { 0 });
        let count = match kept {
            Kept::None => 0,
            Kept::Prefix(thousandths) => state.unsynced.len() * usize::from(thousandths) / 1000,
            Kept::All | Kept::Some(_) => state.unsynced.len(),
        };
        for operation in &state.unsynced[..count] {
            match kept {
                Kept::Some(_) => operation.apply_partly(&mut bytes, &mut random),
                _ => operation.apply(&mut bytes),
            }
        }
        Disk::holding(bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Operation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Operation::Write(offset, data) => put(bytes, *offset, data),
            Operation::Resize(length) => bytes.resize(*length, 0),
        }
    }

    fn apply_partly(&self, bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
        if random.bool() {
            return;
        }
        match self {
            Operation::Resize(_) => self.apply(bytes),
            Operation::Write(offset, data) => {
                let whole = random.bool();
                for (index, sector) in data.chunks(SECTOR).enumerate() {
                    if whole || random.bool() {
                        put(bytes, offset + index * SECTOR, sector);
                    }
                }
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

/// The engine's end of a [`Disk`].
#[derive(Debug)]
pub(crate) struct CrashBackend {
    disk: Disk,
}

impl CrashBackend {
    /// Notes `operation` (a sync if `None`), which takes effect if the disk still lives. The one it dies
    /// in may be on the disk or not, so it counts as unsynced.
    fn perform(&self, operation: Option<Operation>) -> io::Result<()> {
        let mut state = self.disk.lock();
        let refused = || Err(io::Error::other("the disk died"));
        match state.life {
            Life::Dead => return refused(),
            Life::Left(0) => {
                state.life = Life::Dead;
                state.unsynced.extend(operation);
                return refused();
            }
            Life::Left(left) => state.life = Life::Left(left - 1),
            Life::Endless => {}
        }
        match operation {
            Some(operation) => {
                operation.apply(&mut state.seen);
                state.unsynced.push(operation);
            }
            None => {
                state.synced = state.seen.clone();
                state.unsynced.clear();
                state.syncs += 1;
            }
        }
        Ok(())
    }
}

impl redb::StorageBackend for CrashBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(out.len()).ok_or_else(|| io::Error::other("overflow"))?;
        let bytes = state.seen.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.perform(Some(Operation::Resize(usize::try_from(len).map_err(io::Error::other)?)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.perform(None)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.perform(Some(Operation::Write(offset, data.to_vec())))
    }
}
