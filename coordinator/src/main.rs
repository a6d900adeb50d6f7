//! `gatewrt-coordinator`: see the library.

use clap::Parser;
use gatewrt_coordinator::cli::{Cli, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    run(Cli::parse())
}
