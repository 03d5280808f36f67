//! BRIDGE: the only ground the two planes share.
//!
//! Downwards flows the routing [`table`], one immutable value at a time; upwards flow [`observations`], written
//! by one worker each and only read by the control plane. Live [`endpoint`] state survives table swaps. Sideways, from
//! worker to worker, go fresh connections ([`handover`]), each with its place ([`admission`]).
//!
//! Invariant: nothing here locks on a request's path, and what two workers write is written only when a connection
//! opens or closes.

pub mod admission;
pub mod balancer;
pub mod breaker;
pub mod counters;
pub mod ejection;
pub mod endpoint;
pub mod handover;
pub mod injection;
pub mod intake;
pub mod observations;
pub mod pace;
pub mod purse;
pub mod rate;
pub mod room;
pub mod roster;
pub mod streams;
pub mod table;
pub mod tls;
