//! What the end-to-end tests stand on: upstreams that can misbehave, a running Teal, and a raw client.

pub mod client;
pub mod frames;
pub mod http2;
pub mod load;
pub mod names;
pub mod process;
pub mod proxied;
pub mod raw;
pub mod secure;
pub mod teal;
pub mod upstream;

/// Waits as a part of what is played: the gap between two requests, a slow answer. Never for something to happen.
pub fn pace(time: std::time::Duration) {
    std::thread::sleep(time);
}
