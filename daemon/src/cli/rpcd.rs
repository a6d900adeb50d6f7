//! The ubus object `gatewrt`: rpcd runs this program as `/usr/libexec/rpcd/gatewrt`, with `list` when it starts and with
//! `call METHOD` and the arguments as JSON on standard input for each call. Every call is a command of the command line,
//! and answers what it prints with `--json`.
//!
//! rpcd looks at no argument's type, and throws away what a plugin that fails printed: so each argument is checked here,
//! and an error is an answer too, `{"error": {"kind": …, "message": …}}`.

use super::{
    Asked, CliError, Command, ask, diag,
    exit::{Exit, Given, all},
    print, request, show, to_json,
};
use crate::{config::DEFAULT_FILE, control::ControlError, sorted::SortedMap};
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use std::{
    ffi::OsString,
    fmt,
    io::{self, Read},
    process::ExitCode,
    time::Duration,
};

/// The longest arguments, in bytes.
const LONGEST: u64 = 64 << 10;
/// rpcd kills a plugin after 30 s, and its answer with it.
const PATIENCE: Duration = Duration::from_secs(25);
/// Who calls; LuCI's way to ubus adds it to all arguments.
const SESSION: &str = "ubus_rpc_session";

/// What an argument must be.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
    Flag,
}
use Kind::{Flag, Text, Texts};

/// Arguments, called as on the command line but with “_” where that has “-”.
type Signature = &'static [(&'static str, Kind)];

const NETWORK: Signature = &[("network", Text)];
const ENABLE: Signature = &[
    ("exits", Texts),
    ("network", Text),
    ("scope", Texts),
    ("as", Text),
    ("no-kill-switch", Flag),
    ("forbid-lan", Flag),
    ("ipv6", Text),
    ("exclude", Texts),
    ("dns", Texts),
    ("keep-dns", Flag),
];

/// All methods with what they take.
const METHODS: [(&str, Signature); 12] = [
    ("status", &[]),
    ("peers", NETWORK),
    ("clients", NETWORK),
    ("exit_list", NETWORK),
    ("exit_status", NETWORK),
    ("diag", &[]),
    ("version", &[]),
    ("join", &[("code", Text), ("name", Text)]),
    ("leave", NETWORK),
    ("exit_enable", ENABLE),
    ("exit_disable", &[("scope", Text), ("network", Text)]),
    ("exit_forget", NETWORK),
];

/// Runs as rpcd's plugin, with the arguments after the program's name: `list`, or `call METHOD [FILE]` with another
/// configuration file than the usual one.
pub fn run(args: &[OsString]) -> ExitCode {
    let word = |at: usize| args.get(at).and_then(|word| word.to_str()).unwrap_or_default();
    let text = match word(0) {
        "list" => list(),
        "call" => {
            let file = args.get(2).cloned().unwrap_or_else(|| DEFAULT_FILE.into());
            call(word(1), file, &mut io::stdin()).unwrap_or_else(|error| told(&error))
        }
        _ => {
            eprintln!(
                "gatewrt: as rpcd's plugin it is called with “list”, or “call METHOD” and JSON to read"
            );
            return ExitCode::from(2);
        }
    };
    print(&format!("{text}\n"));
    ExitCode::SUCCESS
}

/// The methods as rpcd wants to know them: each argument with an example of its type.
fn list() -> String {
    let argument = |(name, kind): &(&str, Kind)| format!("\"{}\":{}", ubus_name(name), kind.example());
    let method = |(name, signature): &(&str, Signature)| {
        let arguments: Vec<_> = signature.iter().map(argument).collect();
        format!("\"{name}\":{{{}}}", arguments.join(","))
    };
    let methods: Vec<_> = METHODS.iter().map(method).collect();
    format!("{{{}}}", methods.join(","))
}

fn ubus_name(name: &str) -> String {
    name.replace('-', "_")
}

impl Kind {
    fn example(self) -> &'static str {
        match self {
            Text => "\"\"",
            Texts => "[]",
            Flag => "true",
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Text => "a string",
            Texts => "an array of strings",
            Flag => "true or false",
        }
    }
}

/// The answer as JSON.
fn call(method: &str, file: OsString, input: &mut dyn Read) -> Result<String, CliError> {
    let asked = asked(method, file, arguments(method, input)?)?;
    let text = match &asked.command {
        Command::Version => format!("\"{}\"", env!("CARGO_PKG_VERSION")),
        Command::Diag => to_json(&diag::checks(&asked.config))?,
        command => {
            let answer = ask(&asked, request(command).map_err(misuse)?, PATIENCE)?;
            show::json(command, &answer)?
        }
    };
    Ok(match wrapped_as(method) {
        "" => text,
        name => format!("{{\"{name}\":{text}}}"),
    })
}

/// What can't even be asked for was given wrongly.
fn misuse(error: CliError) -> CliError {
    match error {
        CliError::Other(what) => CliError::Usage(what),
        error => error,
    }
}

/// An answer of ubus is an object: what the answer is called where it is none.
fn wrapped_as(method: &str) -> &str {
    match method {
        "exit_list" => "exits",
        "exit_status" => "scopes",
        "diag" => "checks",
        "peers" | "clients" | "version" => method,
        _ => "",
    }
}

/// What was given, each value with its argument's name. Each is known to the method and of its type.
fn arguments(method: &str, input: &mut dyn Read) -> Result<Given, CliError> {
    let usage = |what: String| Err(CliError::Usage(what));
    let Some((_, signature)) = METHODS.iter().find(|(name, _)| *name == method) else {
        return usage(format!("“{method}” is no method"));
    };
    let mut text = Vec::new();
    let read = input.take(LONGEST + 1).read_to_end(&mut text);
    read.map_err(|error| CliError::Other(format!("can't read the arguments: {error}")))?;
    if text.len() as u64 > LONGEST {
        return usage(format!("the arguments are longer than {LONGEST} bytes"));
    }
    let text = if text.trim_ascii().is_empty() { b"{}" } else { text.as_slice() };
    let unusable =
        |error: serde_json::Error| CliError::Usage(format!("the arguments can't be used: {error}"));
    let read: SortedMap<String, Value> = serde_json::from_slice(text).map_err(unusable)?;
    let mut given = Given::new();
    for (name, value) in read {
        let known = signature.iter().find(|(known, _)| ubus_name(known) == name);
        match (known, value) {
            (None, _) if name == SESSION => {}
            (None, _) => return usage(format!("“{name}” is no argument of “{method}”")),
            (Some(_), Value::Nothing) => {}
            (Some((known, Text)), Value::Text(text)) => given.push((known, text)),
            (Some((known, Texts)), Value::Texts(texts)) => {
                given.extend(texts.into_iter().map(|text| (*known, text)));
            }
            (Some((known, Flag)), Value::Flag(on)) => given.extend(on.then(|| (*known, String::new()))),
            (Some((_, kind)), _) => return usage(format!("“{name}” must be {}", kind.in_words())),
        }
    }
    Ok(given)
}

/// The same, as it is asked on the command line.
fn asked(method: &str, file: OsString, mut given: Given) -> Result<Asked, CliError> {
    let text = |name: &'static str| all(&given, name).last().map(str::to_owned);
    let need = |name: &'static str| text(name).ok_or_else(|| CliError::Usage(format!("“{name}” is missing")));
    let command = match method {
        "status" => Command::Status,
        "peers" => Command::Peers(text("network")),
        "clients" => Command::Clients(text("network")),
        "diag" => Command::Diag,
        "version" => Command::Version,
        "join" => Command::Join { code: need("code")?, name: text("name") },
        "leave" => Command::Leave(need("network")?),
        _ => Command::Exit(match method {
            "exit_list" => Exit::List { given },
            "exit_status" => Exit::Status { given },
            "exit_enable" => {
                let exits = all(&given, "exits").map(str::to_owned).collect();
                given.retain(|(name, _)| *name != "exits");
                Exit::Enable { exits, given }
            }
            "exit_disable" => Exit::Disable { only: text("scope"), given },
            _ => Exit::Forget { given },
        }),
    };
    Ok(Asked { config: file.into(), json: true, command })
}

/// The answer to what can't be done. What can't be asked at all is a wrong use, whoever finds it.
fn told(error: &CliError) -> String {
    let (kind, message) = match error {
        CliError::Usage(what) => ("usage", what.clone()),
        CliError::Control(ControlError::NotRunning(_)) => ("not_running", error.to_string()),
        CliError::Control(ControlError::Failed(why)) => ("refused", why.clone()),
        error => ("failed", error.to_string()),
    };
    let fields = SortedMap::from([("kind", kind), ("message", &message)]);
    to_json(&SortedMap::from([("error", fields)])).unwrap_or_default()
}

/// What an argument can be at all: neither numbers nor anything deeper has a use.
enum Value {
    Nothing,
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an array of strings, true or false")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_bool<E>(self, on: bool) -> Result<Value, E> {
        Ok(Value::Flag(on))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element()? {
            texts.push(text);
        }
        Ok(Value::Texts(texts))
    }
}

#[cfg(test)]
mod tests;
