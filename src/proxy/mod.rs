//! DATA PLANE: from an accepted connection to a recorded answer.
//!
//! Files in the order a request meets them: [`listener`], [`connection`], [`pipeline`] (the page to read first),
//! [`forwarder`], [`exchange`], [`upstream`], [`tunnel`], [`recorder`], [`access`], [`error`], [`reply`], [`close`]. What
//! is on a wire is in [`http1`] and [`http2`]; both sides meet in the neutral [`head`] and its rules in [`hop`]. [`tls`],
//! [`proxy_protocol`] and [`unix_socket`] are for listeners and upstreams that want them. Each [`worker`] is an OS thread
//! with its own runtime, listener, upstream connections, [`buffer`]s and counters; workers share nothing they write.
//!
//! Invariant: nothing on a request's path locks, blocks, or waits for the control plane.

pub mod access;
pub mod admission;
pub mod breaker;
pub mod buffer;
pub mod close;
pub mod connection;
pub mod course;
pub mod descriptors;
pub mod error;
pub mod exchange;
pub mod forwarder;
pub mod head;
pub mod hedge;
pub mod hop;
pub mod http1;
pub mod http2;
pub mod injection;
pub mod lag;
pub mod listener;
pub mod pipeline;
pub mod proxy_protocol;
pub mod queue;
pub mod recorder;
pub mod replay;
pub mod reply;
pub mod stream;
pub mod tls;
pub mod tunnel;
pub mod unix_socket;
pub mod upstream;
pub mod worker;
