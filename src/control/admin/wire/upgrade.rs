//! The answer to `POST /v1/upgrade`.
//!
//! A serde border file like its parent.

use serde::{Deserialize, Serialize};

use crate::control::upgrade;

/// A new process serves; the old one finishes what it has, and ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The new process.
    pub process: u32,
    /// The old one.
    pub predecessor: u32,
    /// The new one's version.
    pub version: String,
    /// From the order until the new one served, in microseconds.
    pub took_us: u64,
}

impl From<upgrade::Upgraded> for Upgraded {
    fn from(upgraded: upgrade::Upgraded) -> Upgraded {
        let upgrade::Upgraded { process, predecessor, version, took_us } = upgraded;
        Upgraded { process, predecessor, version, took_us }
    }
}
