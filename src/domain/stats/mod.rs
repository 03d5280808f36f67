//! Sequential statistics that stay valid however often one looks.
//!
//! One primitive, the conditional 2x2 e-value ([`evalue`]), and one way to add it up over time, the
//! spending recursion ([`spending`]). An e-value has mean at most 1 while the canary is no worse than
//! tolerated, so a product of them that reaches `1/alpha` is as unlikely as `alpha`, at whichever look
//! (Ville 1939). [`histogram`] says where latencies are counted.
//!
//! Invariant: everything here is a function of counts; equal counts give equal bits.

pub mod evalue;
mod factorial;
pub mod histogram;
pub mod spending;

pub use evalue::{Table, Units, log_e2x2, log_z};
