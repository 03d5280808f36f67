//! Telemetry: metrics, logs and the access log. Everything here reads; nothing decides.

pub mod access_log;
pub mod log;
pub mod names;
