//! BRIDGE: the only ground the two planes share.
//!
//! Downwards flows the routing [`table`], one immutable value at a time; upwards flow [`observations`], written
//! by one worker each and only read by the control plane. Live [`endpoint`] state survives table swaps.
//!
//! Invariant: nothing here locks on a request's path, and no two workers write the same memory.

pub mod counters;
pub mod endpoint;
pub mod observations;
pub mod roster;
pub mod table;
pub mod tls;
