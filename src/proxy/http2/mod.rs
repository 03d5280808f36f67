//! HTTP/2 over the `h2` crate (RFC 9113).
//!
//! Upstream: a [`link`] is one connection to an endpoint that many requests share, a [`lane`] all links of a worker to
//! one endpoint, and [`upstream`] one request over a link.
//!
//! Invariant: what means something for one connection never crosses it, and a stream that was cut never ends well.

pub mod lane;
pub mod link;
pub mod upstream;
