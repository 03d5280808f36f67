//! The `teal` binary.

fn main() {}
