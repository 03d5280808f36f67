//! CONTROL PLANE: what decides about traffic, on threads of its own.
//!
//! It publishes tables to the data plane and reads observations from it; it never stands on a request's path.
//!
//! Invariant: nothing here runs on a worker's thread, and no worker waits for anything here.

pub mod admin;
pub mod breakers;
pub mod case;
pub mod command;
pub mod concurrency;
pub mod controller;
pub mod discovery;
pub mod driver;
pub mod ejection;
pub mod events;
pub mod faults;
pub mod health;
pub mod judge;
pub mod ledger;
pub mod materials;
pub mod pacer;
pub mod probe;
pub mod publisher;
pub mod standing;
pub mod state;
pub mod store;
pub mod upgrade;
pub mod watch;
