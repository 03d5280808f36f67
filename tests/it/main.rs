//! End-to-end tests: a whole Teal on free ports between real sockets, in one binary.
//!
//! Each test has its own upstreams and its own Teal; nothing is shared, nothing sleeps for luck.

#![allow(unreachable_pub, reason = "one binary: `pub` here means between its files")]

mod admin;
mod balancing;
mod breakers;
mod connections;
mod drain;
mod early;
mod edge;
mod ejection;
mod faults;
#[path = "../../src/config/tls/forge.rs"]
mod forge;
mod forwarding;
mod health;
mod hedging;
mod http2;
mod http2_both;
mod http2_upstream;
mod intake;
mod lifecycle;
mod limits;
mod listener;
mod malformed;
mod reload;
mod rescue;
mod retries;
mod rollout;
mod room;
mod routes;
mod streams;
mod support;
mod switching;
mod tls;
mod tls_traffic;
mod turns;
mod upgrade;
