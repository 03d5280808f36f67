//! Teal: a Layer-7 traffic-switching proxy.

pub mod app;
pub mod bridge;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod domain;
pub mod proxy;
pub mod telemetry;
