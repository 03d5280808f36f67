//! DATA PLANE: from an accepted connection to a recorded answer.
//!
//! Files in the order a request meets them: [`listener`], [`connection`], [`pipeline`] (the page to read first),
//! [`head`], [`forwarder`], [`upstream`], [`body`], [`tunnel`], [`recorder`], [`access`], [`error`]. Each [`worker`] is an OS
//! thread with its own runtime, listener, upstream connections and counters; workers share nothing they write.
//! [`proxy_protocol`] and [`unix_socket`] are for listeners and upstreams that want them.
//!
//! Invariant: nothing on a request's path locks, blocks, or waits for the control plane.

pub mod access;
pub mod body;
pub mod connection;
pub mod error;
pub mod forwarder;
pub mod head;
pub mod listener;
pub mod pipeline;
pub mod proxy_protocol;
pub mod recorder;
pub mod tls;
pub mod tunnel;
pub mod unix_socket;
pub mod upstream;
pub mod worker;
