//! Starts the command line. No logic.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringfence::cli::start(std::env::args_os())
}
