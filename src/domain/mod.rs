//! PURE decisions: no clock, randomness, I/O, lock or log. Time and random numbers are arguments.
//!
//! Invariant: nothing here can fail for a reason outside its arguments, so every rule can be tested by
//! tables and properties.

pub mod analysis;
pub mod balance;
pub mod breaker;
pub mod budget;
pub mod concurrency;
pub mod drain;
pub mod farewell;
pub mod forwarded;
pub mod grpc_health;
pub mod health;
pub mod hedge;
pub mod injection;
pub mod network;
pub mod outcome;
pub mod outlier;
pub mod placement;
pub mod proxy_protocol;
pub mod rate;
pub mod rescue;
pub mod retry;
pub mod rollout;
pub mod route;
pub mod split;
pub mod stats;
pub mod upload;
