//! The demo.
pub mod fault;
pub mod load;
pub mod upstream;
