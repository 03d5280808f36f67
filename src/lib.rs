//! Teal: a Layer-7 traffic-switching proxy.

pub mod cli;
pub mod config;
pub mod domain;
