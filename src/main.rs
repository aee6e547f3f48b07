//! The `tierlock` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    tierlock::cli::main()
}
