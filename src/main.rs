//! The `teal` program: arguments in, process status out. Everything else is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    teal::cli::main()
}
