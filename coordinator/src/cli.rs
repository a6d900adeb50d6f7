//! Command line. `serve` runs the coordinator; `backup` and `restore` work on its directory. All other commands are
//! clients of its API, over its unix socket on the same machine or over HTTPS, and check nothing themselves.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the coordinator can't be reached, 4 the answer of
//! `check` is no, 5 with `--wait`: stored, but not all nodes have confirmed it.

mod args;
mod client;
mod commands;
mod local;
mod output;

pub use args::Cli;

use crate::clock;
use args::{Command, TokenCommand};
use clap::CommandFactory;
use client::{ApiClient, CommandError};
use std::process::ExitCode;

/// Runs a command of the coordinator's command line.
pub fn run(cli: Cli) -> ExitCode {
    if !clock::is_usable() {
        eprintln!(
            "gatewrt-coordinator: this machine's clock shows a time before 1970: set it, then try again"
        );
        return ExitCode::FAILURE;
    }
    match cli.command {
        Command::Serve(serve) => serve_here(serve.config(cli.connection.data)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "gatewrt-coordinator", &mut script);
            // Fails if the reader has closed the pipe.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), &script);
            ExitCode::SUCCESS
        }
        Command::Token(TokenCommand::ResetAdmin) => reset_admin(&cli.connection.data),
        Command::Backup(backup) => ended(commands::backup(&cli.connection.data, &backup, cli.json)),
        Command::Restore(restore) => ended(commands::restore(&cli.connection.data, &restore, cli.json)),
        command => ended(ApiClient::new(&cli.connection, cli.wait.seconds()).and_then(|client| {
            commands::run(&client, command, cli.json)?;
            commands::print_obeyed(&client, cli.wait.is_firm(), cli.json)
        })),
    }
}

fn ended(outcome: Result<(), CommandError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has closed the pipe, as in `status | head`.
        Err(CommandError::Print(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        // The answer was printed to stdout.
        Err(error @ (CommandError::NotAllowed | CommandError::Pending)) => ExitCode::from(error.exit_code()),
        Err(error) => print_error(&error),
    }
}

fn print_error(error: &CommandError) -> ExitCode {
    eprintln!("gatewrt-coordinator: {error}");
    let advice = error.advice();
    if !advice.is_empty() {
        eprintln!("  {advice}");
    }
    ExitCode::from(error.exit_code())
}

fn reset_admin(data: &std::path::Path) -> ExitCode {
    match crate::serve::reset_admin_token(data) {
        Ok(path) => {
            println!("new admin token in {}: it is valid from the next start on", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("gatewrt-coordinator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_here(config: crate::serve::ServeConfig) -> ExitCode {
    crate::log::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("the kernel gives threads to a new process");
    match runtime.block_on(crate::serve::serve(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gatewrt-coordinator: {error}");
            ExitCode::FAILURE
        }
    }
}
