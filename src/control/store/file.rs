//! Opening the engine: the folder, the file, its first creation, and its errors in our words.
//!
//! The engine refuses a file whose creation was cut short, so a new file is made under another name and
//! renamed when it is whole.
//!
//! Invariant: a file that exists under its final name is either complete or somebody else's.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::path::Path;

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, StorageBackend, StorageError, TableDefinition, TableHandle,
};

use super::StoreError;

/// The file's name in its folder.
pub(super) const FILE: &str = "teal.redb";
/// What it is called until it is complete.
const UNFINISHED: &str = "teal.redb.new";
/// The format of the tables; a record has its own version.
const FORMAT: u64 = 1;
/// The state of a hundred services is far below this; the engine's own default is 1 GiB.
const CACHE_BYTES: usize = 4 << 20;

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("teal_meta");
pub(super) const SETTLED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("settled");
pub(super) const INTENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("intents");
pub(super) const EVIDENCE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("evidence");
pub(super) const ROLLOUTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("rollouts");
pub(super) const HISTORY: TableDefinition<'_, (&str, u64), &str> = TableDefinition::new("history");

/// Opens or creates the file in `folder`.
pub(super) fn open_file(folder: &Path) -> Result<Database, StoreError> {
    let path = folder.join(FILE);
    let place = path.display().to_string();
    let unreachable = |source| StoreError::Unreachable { place: place.clone(), source };
    create_folder(folder).map_err(unreachable)?;
    if !path.try_exists().map_err(unreachable)? {
        create_file(folder, &path, &place)?;
    }
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(unreachable)?;
    let backend = redb::backends::FileBackend::new(file).map_err(|error| opening(&place, error))?;
    open_backend(backend, &place)
}

/// Opens or creates the store over `backend`.
pub(super) fn open_backend(backend: impl StorageBackend, place: &str) -> Result<Database, StoreError> {
    let mut builder = Builder::new();
    // A file that was altered is found out here, where it is an error, and not in the middle of a rollout.
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    let database = builder.create_with_backend(backend).map_err(|error| opening(place, error))?;
    check_format(&database).map_err(|fault| fault.at(place))?;
    Ok(database)
}

/// What a piece of work on the engine can end in.
pub(super) enum Fault {
    /// The engine's error.
    Engine(redb::Error),
    /// A record or a table is not what it should be.
    Damaged(String),
    /// Written by a newer Teal, in this format.
    Newer(u64),
    /// The caller's fault: the batch cannot be written.
    Refused(StoreError),
}

impl Fault {
    /// The error to show, for the file at `place`.
    pub(super) fn at(self, place: &str) -> StoreError {
        let place = place.to_owned();
        match self {
            Fault::Damaged(detail) => StoreError::Corrupt { place, detail },
            Fault::Newer(found) => StoreError::Newer { place, found, known: FORMAT },
            Fault::Refused(error) => error,
            Fault::Engine(
                error @ (redb::Error::Corrupted(_)
                | redb::Error::TableTypeMismatch { .. }
                | redb::Error::TableIsMultimap(_)
                | redb::Error::TableIsNotMultimap(_)
                | redb::Error::TypeDefinitionChanged { .. }
                | redb::Error::TableDoesNotExist(_)),
            ) => StoreError::Corrupt { place, detail: error.to_string() },
            Fault::Engine(error) => StoreError::Disk { place, detail: error.to_string() },
        }
    }
}

macro_rules! faults {
    ($($error:ident)*) => {$(
        impl From<redb::$error> for Fault {
            fn from(error: redb::$error) -> Fault {
                Fault::Engine(error.into())
            }
        }
    )*};
}
faults!(TransactionError TableError StorageError CommitError);

fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    folder.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_folder)
}

fn create_file(folder: &Path, path: &Path, place: &str) -> Result<(), StoreError> {
    let unfinished = folder.join(UNFINISHED);
    let unreachable = |source| StoreError::Unreachable { place: place.to_owned(), source };
    // What an earlier process left: it never had the final name, so nothing was ever acknowledged from it.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unreachable(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&unfinished).map_err(unreachable)?;
    let backend = redb::backends::FileBackend::new(file).map_err(|error| opening(place, error))?;
    let database = open_backend(backend, place)?;
    database.close().map_err(|error| opening(place, error))?;
    fs::rename(&unfinished, path).and_then(|()| sync_folder(folder)).map_err(unreachable)
}

/// Makes a new name in `folder` as durable as the file behind it.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes the tables of an empty store; refuses one that is not ours.
fn check_format(database: &Database) -> Result<(), Fault> {
    let read = database.begin_read()?;
    let mut names = read.list_tables()?.map(|table| table.name().to_owned()).peekable();
    if names.peek().is_none() {
        return create_tables(database);
    }
    if !names.any(|name| name == META.name()) {
        return Err(Fault::Damaged("it is a database of some other program".to_owned()));
    }
    match read.open_table(META)?.get("format")?.map(|format| format.value()) {
        Some(FORMAT) => Ok(()),
        Some(found) if found > FORMAT => Err(Fault::Newer(found)),
        other => Err(Fault::Damaged(format!("its format is {other:?}"))),
    }
}

fn create_tables(database: &Database) -> Result<(), Fault> {
    let write = database.begin_write()?;
    write.open_table(META)?.insert("format", FORMAT)?;
    for table in [SETTLED, INTENTS, EVIDENCE, ROLLOUTS] {
        write.open_table(table)?;
    }
    write.open_table(HISTORY)?;
    Ok(write.commit()?)
}

fn opening(place: &str, error: DatabaseError) -> StoreError {
    let place = place.to_owned();
    let corrupt = |detail: String| StoreError::Corrupt { place: place.clone(), detail };
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => StoreError::InUse { place },
        DatabaseError::Storage(StorageError::Io(source)) => match source.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => corrupt(source.to_string()),
            _ => StoreError::Unreachable { place, source },
        },
        DatabaseError::Storage(StorageError::Corrupted(detail)) => corrupt(detail),
        DatabaseError::UpgradeRequired(_) => corrupt("it has an outdated file format".to_owned()),
        other => corrupt(other.to_string()),
    }
}
