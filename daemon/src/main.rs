//! GateWRT's program on a router. Called as `gatewrtd` it is the daemon, out of a folder `rpcd` it is the plugin of
//! rpcd, else the command line.

use gatewrt::{cli, crash, error_chain::error_chain, runtime};
use std::{ffi::OsString, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    crash::log_address();
    let mut args = std::env::args_os();
    let called = args.next().map(PathBuf::from).unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    if called.parent().is_some_and(|folder| folder.ends_with("rpcd")) {
        return cli::rpcd::run(&args);
    }
    let is_daemon = called.file_name().is_some_and(|name| name == "gatewrtd");
    let wants_text = |arg: &OsString| ["--help", "-h", "--version", "-V"].iter().any(|word| arg == word);
    if is_daemon && !args.iter().any(wants_text) {
        let asked = [OsString::from("daemon")].into_iter().chain(args).collect();
        return cli::run(asked, daemon);
    }
    cli::run(args, daemon)
}

/// Runs the daemon, with this configuration file, until it is told to stop.
fn daemon(file: PathBuf) -> ExitCode {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match tokio {
        Ok(tokio) => {
            let result = tokio.block_on(runtime::run(file));
            // Threads that wait for a resolver, or for randomness, have nothing to finish.
            tokio.shutdown_background();
            result
        }
        Err(error) => Err(runtime::RunError::Start(error.to_string())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gatewrtd: {}", error_chain(&error));
            ExitCode::FAILURE
        }
    }
}
