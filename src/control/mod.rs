//! The control plane: everything that decides slowly and may touch a disk or a socket of its own.
//!
//! Invariant: nothing here runs on a worker's thread, and no worker waits for anything here.

pub mod state;
pub mod store;
