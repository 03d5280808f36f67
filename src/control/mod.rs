//! CONTROL PLANE: what decides about traffic, on threads of its own.
//!
//! It publishes tables to the data plane and reads observations from it; it never stands on a request's path.

pub mod admin;
pub mod command;
pub mod controller;
pub mod events;
pub mod health;
pub mod publisher;
pub mod state;
pub mod store;
