//! What the end-to-end tests stand on: upstreams that can misbehave, a running Teal, and a raw client.

pub mod client;
pub mod load;
pub mod teal;
pub mod upstream;
