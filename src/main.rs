//! The `teal` program: arguments in, process status out. Everything else is the library's.

use std::process::ExitCode;

/// Cheaper than the system's where much is allocated per request, as under hyper (measured: about a microsecond).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    teal::cli::main()
}
