//! TLS ready for use: made by the control plane from settings, used by workers and health checks.
//!
//! Both sides live here because both planes connect to endpoints, and neither may import the other. A table carries
//! them behind an `Arc`, so a reload swaps certificates for new connections and leaves open ones alone.
//!
//! Invariant: what is here was built from valid settings; nobody reads a file or decides about trust after that.

mod client;
mod failure;
mod identity;
mod names;
mod server;

pub use client::{Connector, SystemRoots, is_http2};
pub use failure::{Failure, Handshakes};
pub use identity::{CLIENT_FIELDS, ClientIdentity};
pub use names::Names;
pub use server::Server;
