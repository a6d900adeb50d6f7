//! The command line `gatewrt`: parses, asks the daemon over its control socket, shows. It ends at text: the
//! daemon decides.

mod diag;
mod exit;
mod guard;
mod json;
mod offline;
pub mod rpcd;

use crate::{
    config::{Config, ConfigError, DEFAULT_FILE},
    control::{self, ControlError, Request},
    show::{Part, View},
    sorted::SortedMap,
    whole::whole,
};
use exit::Exit;
use gatewrt_protocol::{JoinCode, NetworkName, NodeName, json as wire};
use lexopt::prelude::*;
use std::{
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

/// Why a command was not done.
#[derive(Debug)]
enum CliError {
    Usage(String),
    Config(ConfigError),
    Control(ControlError),
    Other(String),
}

impl CliError {
    fn exit(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Control(ControlError::NotRunning(_)) => 3,
            Self::Config(_) | Self::Control(_) | Self::Other(_) => 1,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) => write!(f, "{what}; see “gatewrt --help”"),
            Self::Config(error) => f.write_str(&whole(error)),
            Self::Control(error) => error.fmt(f),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl From<lexopt::Error> for CliError {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<ControlError> for CliError {
    fn from(error: ControlError) -> Self {
        Self::Control(error)
    }
}

/// What was asked for on the command line.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
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
    Reload,
    Stop { teardown: bool },
}

/// Runs the command line with the arguments after the program's name. `daemon` runs the daemon with a
/// configuration file.
pub fn run(args: Vec<OsString>, daemon: impl FnOnce(PathBuf) -> ExitCode) -> ExitCode {
    let json = args.iter().any(|arg| arg == "--json");
    let result = parse(args).and_then(|asked| match asked.command {
        Command::Daemon => Ok(daemon(asked.config)),
        _ => execute(&asked),
    });
    result.unwrap_or_else(|error| {
        if json {
            let error = SortedMap::from([("error", error.to_string())]);
            eprintln!("{}", wire::write(&error).unwrap_or_default());
        } else {
            eprintln!("gatewrt: {error}");
        }
        ExitCode::from(error.exit())
    })
}

fn parse(args: Vec<OsString>) -> Result<Asked, CliError> {
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
        None => Ok(Asked { config, json, command }),
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

fn execute(asked: &Asked) -> Result<ExitCode, CliError> {
    match &asked.command {
        Command::Help => print(HELP),
        Command::Exit(Exit::Help) => print(exit::HELP),
        Command::Version => print(&format!("gatewrt {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Diag => return diag::run(&asked.config, asked.json),
        Command::Guard => return guard::run(&asked.config),
        command => {
            let answer = ask(asked, request(command)?, Duration::MAX)?;
            if asked.json { print_json(&answer) } else { print(&answer) }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for the answer as long as it takes, but no longer than `limit`.
fn ask(asked: &Asked, request: Request, limit: Duration) -> Result<String, CliError> {
    let config = config(asked, &request)?;
    let view = view(asked);
    match request {
        Request::Plan => offline::plan(&config, &view),
        request => Ok(control::ask(&config.run_dir, &request, &view, patience(&request).min(limit))?),
    }
}

/// What of the answer is shown, and how.
fn view(asked: &Asked) -> View {
    let (part, network) = match &asked.command {
        Command::Exit(exit) => return exit::view(exit, asked.json),
        Command::Peers(only) => (Part::Peers, only.clone()),
        Command::Clients(only) => (Part::Clients, only.clone()),
        _ => (Part::All, None),
    };
    View { part, network, json: asked.json }
}

/// To ask a daemon that runs, only the place of its socket is needed: the usual one when the file has an error.
fn config(asked: &Asked, request: &Request) -> Result<Config, CliError> {
    match Config::load(&asked.config) {
        Err(error) if !matches!(request, Request::Reload | Request::Plan) => {
            eprintln!("gatewrt: {}; asking the daemon at its usual place", whole(&error));
            Ok(Config::default())
        }
        loaded => loaded.map_err(CliError::Config),
    }
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
        Command::Stop { teardown } => Request::Stop { teardown: *teardown },
        _ => Request::Status,
    })
}

/// Joining waits for the coordinator, leaving for the kernel.
fn patience(request: &Request) -> Duration {
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

/// Prints; a reader that went away is no error.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn print_json(compact: &str) {
    print(&format!("{}\n", json::pretty(compact)));
}

fn to_json(value: &impl serde::Serialize) -> Result<String, CliError> {
    wire::write(value).map_err(|error| CliError::Other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Asked, CliError> {
        parse(line.split_whitespace().map(Into::into).collect())
    }

    #[test]
    fn commands_and_options_in_any_order() {
        let asked = parsed("--json status --config /tmp/x").expect("sound");
        assert_eq!(asked, Asked { config: "/tmp/x".into(), json: true, command: Command::Status });
        let asked = parsed("join gw1.x --name barn").expect("sound");
        assert_eq!(asked.command, Command::Join { code: "gw1.x".into(), name: Some("barn".into()) });
        assert_eq!(parsed("").expect("sound").command, Command::Help);
        assert_eq!(parsed("leave --help").expect("sound").command, Command::Help);
        assert_eq!(parsed("stop --teardown").expect("sound").command, Command::Stop { teardown: true });
    }

    #[test]
    fn wrong_usage_is_said() {
        for line in
            ["join", "leave", "fly", "status now", "--frobnicate", "status --teardown", "leave x --name y"]
        {
            let error = parsed(line).expect_err(line);
            assert_eq!(error.exit(), 2, "{line}");
        }
    }
}
