//! HTTP/2 on both sides (RFC 9113): the `h2` crate frames, this module guards and translates.
//!
//! In front: [`preface`] tells HTTP/2 from HTTP/1.1, [`scanner`] counts what a client may not send without end,
//! [`guard`] is the wire beneath `h2`, [`server`] drives a connection and its [`streams`], [`downstream`] is one
//! stream as the pipeline sees it; [`flatten`] brings heads into the neutral form and back, with the help of [`names`].
//!
//! Upstream: a [`link`] is one connection to an endpoint that many requests share, a [`lane`] all links of a worker to
//! one endpoint, and [`upstream`] one request over a link.
//!
//! Invariants: what HTTP/1.1 would refuse is refused here too, so a downgrade to HTTP/1.1 upstream carries nothing new;
//! a stream that was cut never ends well.

pub mod downstream;
pub mod flatten;
pub mod guard;
pub mod lane;
pub mod link;
pub mod names;
pub mod preface;
pub mod scanner;
pub mod server;
pub mod streams;
pub mod upstream;
