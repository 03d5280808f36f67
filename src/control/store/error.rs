//! What can go wrong with the store, in words a person can act on.
//!
//! Every write puts a whole record, so repeating a batch is always harmless; [`StoreError::retry_is_safe`]
//! says whether it can also help.

use std::io;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the file.
    #[error(
        "another teal is running on this state: {place} is locked; stop it, or give this one its own `state:` folder"
    )]
    InUse {
        /// The file.
        place: String,
    },
    /// The folder or the file cannot be made or opened.
    #[error("cannot open the state in {place}: {source}")]
    Unreachable {
        /// The file or folder.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not Teal's or is damaged. It is never overwritten.
    #[error("{place} is not a usable state file: {detail}; move it away to start with an empty state")]
    Corrupt {
        /// The file.
        place: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The file was written by a later Teal.
    #[error("{place} was written by a newer teal (format {found}, this one knows {known}); run that one")]
    Newer {
        /// The file.
        place: String,
        /// The format of the file.
        found: u64,
        /// The newest format this build reads.
        known: u64,
    },
    /// The disk refused a read or a write; whether the last batch is durable is unknown.
    #[error("{place} could not be read or written: {detail}; repeating the write is safe")]
    Disk {
        /// The file.
        place: String,
        /// What the system said.
        detail: String,
    },
    /// A forward move of a service that was never settled: a fault of the caller; nothing was written.
    #[error("service {service} has no settled state, so nothing can be moved from it")]
    Unsettled {
        /// The service.
        service: String,
    },
    /// Evidence beyond the limit; nothing was written.
    #[error("evidence on service {service} has {bytes} bytes, more than the {limit} that are kept")]
    TooLarge {
        /// The service.
        service: String,
        /// Its size.
        bytes: usize,
        /// The most that is kept.
        limit: usize,
    },
    /// The state was let go of, for a process that succeeds this one.
    #[error("the state is with another process, which succeeds this one")]
    Released,
    /// The journal was closed.
    #[error("the state is closed: this process is shutting down")]
    Closed,
}

impl StoreError {
    /// True if the same call may succeed later.
    pub const fn retry_is_safe(&self) -> bool {
        matches!(self, StoreError::Disk { .. } | StoreError::InUse { .. } | StoreError::Unreachable { .. })
    }
}
