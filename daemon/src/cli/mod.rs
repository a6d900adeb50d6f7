//! Command line `gatewrt`: parses its arguments, sends a request over the control socket and prints the answer. The
//! daemon decides.

mod diag;
mod exit;
mod guard;
mod offline;
pub mod rpcd;

use crate::{
    config::{Config, DEFAULT_FILE},
    control::{self, ControlError, Request},
    crash,
    error_chain::error_chain,
    runtime,
    show::{self, Answer, Done, Part, View},
};
use exit::Exit;
use gatewrt_protocol::{JoinCode, NetworkName, NodeName};
use lexopt::prelude::*;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

const HELP: &str = "\
Joins this router to WireGuard networks, and shows how it is doing.

Usage: gatewrt [--config FILE] COMMAND [OPTIONS]

Commands:
  join CODE [--name NAME]  join a network with a code from the coordinator (“-” reads it from standard input)
  leave NETWORK            leave a network: its interface, rules and keys go
  status                   networks, addresses, peers and what does not work
  peers [NETWORK]          each peer: address, prefixes, endpoint, handshake, bytes
  clients [NETWORK]        the same of each external client that this router lets in
  exit …                   Internet traffic through another node: list, status, enable, disable, forget
                           (“gatewrt exit --help”)
  plan                     what the daemon would change in the kernel now; changes nothing
  guard                    keep closed scopes in without the daemon; what init does before the network comes up
  diag                     check what the daemon needs, and say what to do about what is missing
  reload                   read the configuration again
  stop [--teardown]        end the daemon; tunnels go on unless --teardown takes everything of it down
  daemon                   run the daemon in the foreground (the same as gatewrtd)
  crash                    crash on purpose, to see that the log tells the address of a crash
  version                  print the version

Options:
  --config FILE            configuration in UCI form [default: /etc/config/gatewrt]
  --json                   print JSON, also for errors
  -h, --help               print this help

Exit status: 0 done, 1 could not be done, 2 wrong usage, 3 the daemon is not running.

Examples:
  gatewrt join gw1.dGhlIGNvZGU…
  gatewrt status --json | jsonfilter -e '@.networks[*].name'
  gatewrt leave home
";

/// Reason why a command of `gatewrt` failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("{0}; see “gatewrt --help”")]
    Usage(String),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("{0}")]
    Other(String),
}

impl CliError {
    fn exit(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Control(ControlError::NotRunning(_)) => 3,
            Self::Control(_) | Self::Other(_) => 1,
        }
    }
}

impl From<lexopt::Error> for CliError {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Parsed command line of `gatewrt`, with the options that go with any command.
#[derive(Debug, PartialEq, Eq)]
struct Invocation {
    config: PathBuf,
    json: bool,
    command: Command,
}

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Help,
    Version,
    Daemon,
    Join { code: String, name: Option<String> },
    Leave(String),
    Status,
    Peers(Option<String>),
    Clients(Option<String>),
    Exit(Exit),
    Plan,
    Guard,
    Diag,
    Crash,
    Reload,
    Stop { teardown: bool },
}

/// Runs the command line of `gatewrt` with the arguments after the program's name. `daemon` runs the daemon with a
/// configuration file.
pub fn run(args: Vec<OsString>, daemon: impl FnOnce(PathBuf) -> ExitCode) -> ExitCode {
    let json = args.iter().any(|arg| arg == "--json");
    let result = parse(args).and_then(|asked| match asked.command {
        Command::Daemon => Ok(daemon(asked.config)),
        _ => execute(&asked),
    });
    result.unwrap_or_else(|error| {
        if json {
            let error = BTreeMap::from([("error", error.to_string())]);
            eprintln!("{}", serde_json::to_string(&error).unwrap_or_default());
        } else {
            eprintln!("gatewrt: {}", error_chain(&error));
        }
        ExitCode::from(error.exit())
    })
}

fn parse(args: Vec<OsString>) -> Result<Invocation, CliError> {
    let mut parser = lexopt::Parser::from_args(args);
    let (mut config, mut json, mut teardown, mut name) = (PathBuf::from(DEFAULT_FILE), false, false, None);
    let (mut help, mut values, mut given) = (false, Vec::new(), exit::Given::new());
    while let Some(arg) = parser.next()? {
        match arg {
            Long("config") => config = parser.value()?.into(),
            Long("json") => json = true,
            Long("teardown") => teardown = true,
            Long("name") => name = Some(parser.value()?.string()?),
            Long("help") | Short('h') => help = true,
            Long("version") | Short('V') => values.insert(0, "version".to_owned()),
            Value(value) => values.push(value.string()?),
            Long(option) => match exit::option(option) {
                Some((name, true)) => given.push((name, parser.value()?.string()?)),
                Some((name, false)) => given.push((name, String::new())),
                None => return Err(arg.unexpected().into()),
            },
            Short(_) => return Err(arg.unexpected().into()),
        }
    }
    if help {
        values.truncate(usize::from(values.first().is_some_and(|command| command == "exit")));
        given.clear();
    }
    let mut values = values.into_iter();
    let command = values.next();
    let command = match command {
        Some(command) if command == "exit" && name.is_none() && !teardown => {
            Command::Exit(exit::command(&mut values, given)?)
        }
        Some(command) => match given.first() {
            Some((option, _)) => return Err(misplaced(option)),
            None => command_of(&command, &mut values, name, teardown)?,
        },
        None => Command::Help,
    };
    match values.next() {
        Some(extra) => Err(CliError::Usage(format!("“{extra}” is one word too many"))),
        None => Ok(Invocation { config, json, command }),
    }
}

fn command_of(
    command: &str,
    values: &mut impl Iterator<Item = String>,
    name: Option<String>,
    teardown: bool,
) -> Result<Command, CliError> {
    let mut need = |what: &str| {
        values.next().ok_or_else(|| CliError::Usage(format!("“gatewrt {command}” needs a {what}")))
    };
    let command = match command {
        "help" => Command::Help,
        "version" => Command::Version,
        "daemon" => Command::Daemon,
        "join" => Command::Join { code: need("join code")?, name: name.clone() },
        "leave" => Command::Leave(need("network")?),
        "status" => Command::Status,
        "peers" => Command::Peers(values.next()),
        "clients" => Command::Clients(values.next()),
        "plan" => Command::Plan,
        "exit" => Command::Exit(Exit::Help),
        "guard" => Command::Guard,
        "diag" => Command::Diag,
        "crash" => Command::Crash,
        "reload" => Command::Reload,
        "stop" => Command::Stop { teardown },
        other => return Err(CliError::Usage(format!("“{other}” is no command"))),
    };
    match command {
        Command::Join { .. } if teardown => Err(misplaced("teardown")),
        Command::Join { .. } => Ok(command),
        _ if name.is_some() => Err(misplaced("name")),
        Command::Stop { .. } => Ok(command),
        _ if teardown => Err(misplaced("teardown")),
        _ => Ok(command),
    }
}

fn misplaced(option: &str) -> CliError {
    CliError::Usage(format!("--{option} does not go with this command"))
}

fn execute(asked: &Invocation) -> Result<ExitCode, CliError> {
    match &asked.command {
        Command::Help => print(HELP),
        Command::Exit(Exit::Help) => print(exit::HELP),
        Command::Version => print(&format!("gatewrt {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Diag => return diag::run(&asked.config, asked.json),
        Command::Guard => return guard::run(&asked.config),
        Command::Crash => crash::panic_on_purpose(),
        command => {
            let answer = match command {
                Command::Stop { teardown } => stop(asked, *teardown)?,
                _ => ask(asked, request(command)?, Duration::MAX)?,
            };
            if asked.json { print_json(&answer)? } else { print(&answer) }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the daemon, and the service that would start it again. A teardown is then checked, or done by this process where
/// no daemon did it.
fn stop(asked: &Invocation, teardown: bool) -> Result<String, CliError> {
    let asked_daemon = ask(asked, Request::Stop { teardown }, Duration::MAX);
    runtime::stop_service();
    if !teardown {
        return asked_daemon;
    }
    let other = |error: &dyn std::error::Error| CliError::Other(error_chain(error));
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let tokio = tokio.map_err(|error| other(&error))?;
    tokio.block_on(runtime::take_down(asked.config.clone())).map_err(|error| other(&error))?;
    asked_daemon.or_else(|_| {
        let done = Answer::Done(Done { hint: runtime::TORN_DOWN.to_owned() });
        show::render(&view(asked), &done).map_err(CliError::Other)
    })
}

/// Sends a request to the daemon and waits for its answer, at most as long as the request may take or `limit` allows.
fn ask(asked: &Invocation, request: Request, limit: Duration) -> Result<String, CliError> {
    let config = Config::load(&asked.config);
    let view = view(asked);
    match request {
        Request::Plan => offline::plan(&config, &view),
        request => Ok(control::ask(&config.run_dir, &request, &view, timeout_of(&request).min(limit))?),
    }
}

/// View in which the daemon renders its answer to a command line.
fn view(asked: &Invocation) -> View {
    let (part, network) = match &asked.command {
        Command::Exit(exit) => return exit::view(exit, asked.json),
        Command::Peers(only) => (Part::Peers, only.clone()),
        Command::Clients(only) => (Part::Clients, only.clone()),
        _ => (Part::All, None),
    };
    View { part, network, json: asked.json }
}

fn request(command: &Command) -> Result<Request, CliError> {
    Ok(match command {
        Command::Join { code, name } => Request::Join {
            code: join_code(code)?,
            name: name.as_deref().map(value::<NodeName>).transpose()?,
        },
        Command::Leave(network) => Request::Leave { network: value::<NetworkName>(network)? },
        Command::Plan => Request::Plan,
        Command::Exit(exit) => exit::request(exit)?,
        Command::Reload => Request::Reload,
        _ => Request::Status,
    })
}

/// Longest time to wait for the daemon's answer to a request: joining waits for the coordinator, leaving for the
/// kernel.
fn timeout_of(request: &Request) -> Duration {
    Duration::from_secs(if matches!(request, Request::Join { .. }) { 60 } else { 20 })
}

fn value<T: std::str::FromStr<Err: fmt::Display>>(text: &str) -> Result<T, CliError> {
    text.parse().map_err(|error: T::Err| CliError::Other(error.to_string()))
}

fn join_code(text: &str) -> Result<JoinCode, CliError> {
    if text != "-" {
        return value(text);
    }
    let mut read = String::new();
    let limit = gatewrt_protocol::join::LONGEST_CODE as u64 * 2;
    io::stdin().take(limit).read_to_string(&mut read).map_err(|error| CliError::Other(error.to_string()))?;
    value(read.trim())
}

/// Prints text to standard output; a closed pipe is no error.
fn print(text: &str) {
    print_bytes(text.as_bytes());
}

fn print_bytes(text: &[u8]) {
    let _ = io::stdout().write_all(text);
}

/// Prints compact JSON to standard output with one member a line. The text is transcoded, as typed values would need
/// the code to parse every type.
fn print_json(compact: &str) -> Result<(), CliError> {
    let mut text = Vec::new();
    serde_transcode::transcode(
        &mut serde_json::Deserializer::from_slice(compact.as_bytes()),
        &mut serde_json::Serializer::pretty(&mut text),
    )
    .map_err(|error| CliError::Other(error.to_string()))?;
    text.push(b'\n');
    print_bytes(&text);
    Ok(())
}

fn to_json(value: &impl serde::Serialize) -> Result<String, CliError> {
    serde_json::to_string(value).map_err(|error| CliError::Other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, CliError> {
        parse(line.split_whitespace().map(Into::into).collect())
    }

    #[test]
    fn command_with_options_in_any_order_is_parsed() {
        let asked = parsed("--json status --config /tmp/x").expect("sound");
        assert_eq!(asked, Invocation { config: "/tmp/x".into(), json: true, command: Command::Status });
        let asked = parsed("join gw1.x --name barn").expect("sound");
        assert_eq!(asked.command, Command::Join { code: "gw1.x".into(), name: Some("barn".into()) });
        assert_eq!(parsed("").expect("sound").command, Command::Help);
        assert_eq!(parsed("leave --help").expect("sound").command, Command::Help);
        assert_eq!(parsed("stop --teardown").expect("sound").command, Command::Stop { teardown: true });
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in
            ["join", "leave", "fly", "status now", "--frobnicate", "status --teardown", "leave x --name y"]
        {
            let error = parsed(line).expect_err(line);
            assert_eq!(error.exit(), 2, "{line}");
        }
    }
}
