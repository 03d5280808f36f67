//! Upgrades as the control plane sees them: somebody asks, whoever owns the process does it.
//!
//! The control plane's own part is the state: it is let go of for the successor, and taken back if there is none.

use tokio::sync::oneshot;

use crate::control::command::Refusal;

/// Somebody wants this process succeeded by a new one.
#[derive(Debug)]
pub struct Upgrade {
    /// Who.
    pub by: String,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Upgraded, Refusal>>,
}

/// A new process serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgraded {
    /// Its number.
    pub process: u32,
    /// The number of the one before it, which finishes what it has and ends.
    pub predecessor: u32,
    /// The new one's version.
    pub version: String,
    /// From the order until the new one served, in microseconds.
    pub took_us: u64,
}
