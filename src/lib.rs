//! Teal: a Layer-7 traffic-switching proxy.

pub mod config;
pub mod control;
pub mod domain;
