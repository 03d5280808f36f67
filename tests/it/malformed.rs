//! What is malformed, odd or slow on an HTTP/1.1 wire, and what Teal makes of it: tables of bytes and answers.
//!
//! Behind every malformed request stands a whole second one, which must never be served: if the two sides disagreed
//! about where the first one ends, it would be.

mod odd;
mod requests;
mod responses;
mod reuse;
mod slow;
mod wire;
