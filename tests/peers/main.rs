//! Drills: the real binary against real peers (nginx, HAProxy, curl, OpenSSL, wrk, h2load, Python, Node), on loopback.
//!
//! Each drill has a short form, which is the test, and a full form for the record, which prints its figures:
//! `TEAL_DRILL=full cargo test --release --features peers --test peers -- --nocapture --test-threads=1`.
//!
//! Invariant: a drill ends only processes that it started, is bounded in time and count, and shares nothing with
//! another; a missing peer fails it.

#![allow(unreachable_pub, reason = "one binary: `pub` here means between its files")]

mod cli;
mod clients;
mod differential;
mod edge;
#[path = "../../src/config/tls/forge.rs"]
mod forge;
mod grpc;
mod grpc_health;
mod http2;
mod kill9;
mod reload;
mod resilience;
mod sigterm;
mod support;
mod swaps;
mod tls;
mod upgrade;
