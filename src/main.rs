//! Arguments, runtime, exit code; no logic.

use std::process::ExitCode;

use clap::Parser;
use ringfence::cli::{Cli, start};

fn main() -> ExitCode {
    start(Cli::parse())
}
