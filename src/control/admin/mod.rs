//! The admin API: HTTP in front of the [`Controller`](crate::control::controller::Controller).
//!
//! It translates and protects; it decides nothing.

pub mod wire;
