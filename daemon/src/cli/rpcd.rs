//! Plugin of rpcd for the ubus object `gatewrt`. rpcd runs this program as `/usr/libexec/rpcd/gatewrt`: with `list` when
//! it starts, and for each call with `call METHOD` and the arguments as JSON on standard input. A call runs the command of
//! the same name, and its answer is the command's `--json` output.
//!
//! rpcd checks no argument's type, and drops the output of a plugin that fails. So arguments are checked here, and an
//! error is an answer too: `{"error": {"kind": …, "message": …}}`.

use super::{CliError, Command, Invocation, ask, diag, parse, print, request, to_json};
use crate::{config::DEFAULT_FILE, control::ControlError, error_chain::error_chain};
use serde::{
    Deserializer, Serialize,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    io::{self, Read},
    process::ExitCode,
    time::Duration,
};

/// Longest arguments, in bytes.
const MAX_ARGUMENTS: u64 = 64 << 10;
/// Time for an answer: rpcd kills a plugin after 30 s.
const TIMEOUT: Duration = Duration::from_secs(25);
/// Session of the caller, which LuCI's bridge to ubus adds to all arguments.
const SESSION: &str = "ubus_rpc_session";

/// Type of a ubus method's argument, and its form on the command line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A string: a word.
    Word,
    /// An array of strings: words.
    Words,
    /// A string: an option with its value.
    Text,
    /// An array of strings: the option once for each.
    Texts,
    /// True or false: an option that is there or not.
    Flag,
}
use Kind::{Flag, Text, Texts, Word, Words};

/// Value by which rpcd knows the type of a ubus method's argument.
#[derive(Serialize)]
#[serde(untagged)]
enum Example {
    Text(&'static str),
    List([(); 0]),
    Flag(bool),
}

impl Kind {
    fn example(self) -> Example {
        match self {
            Word | Text => Example::Text(""),
            Words | Texts => Example::List([]),
            Flag => Example::Flag(true),
        }
    }
}

/// Method of the ubus object `gatewrt`. Its name is the command's, with “_” between words.
struct Method {
    name: &'static str,
    /// Field that wraps the command's output, as answers of ubus are objects; empty where the output is one already.
    answer: &'static str,
    /// Arguments. Their names are those of the command line, with “_” for “-”.
    takes: &'static [(&'static str, Kind)],
}

const METHODS: [Method; 12] = [
    method("status", "", &[]),
    method("peers", "peers", &[("network", Word)]),
    method("clients", "clients", &[("network", Word)]),
    method("exit_list", "exits", &[("network", Text)]),
    method("exit_status", "scopes", &[("network", Text)]),
    method("diag", "checks", &[]),
    method("version", "version", &[]),
    method("join", "", &[("code", Word), ("name", Text)]),
    method("leave", "", &[("network", Word)]),
    method(
        "exit_enable",
        "",
        &[
            ("exits", Words),
            ("network", Text),
            ("scope", Texts),
            ("as", Text),
            ("no-kill-switch", Flag),
            ("forbid-lan", Flag),
            ("ipv6", Text),
            ("exclude", Texts),
            ("dns", Texts),
            ("keep-dns", Flag),
        ],
    ),
    method("exit_disable", "", &[("scope", Word), ("network", Text)]),
    method("exit_forget", "", &[("network", Text)]),
];

const fn method(name: &'static str, answer: &'static str, takes: &'static [(&'static str, Kind)]) -> Method {
    Method { name, answer, takes }
}

/// Runs the rpcd plugin with the arguments after the program's name: `list`, or `call METHOD [FILE]`, where FILE is
/// another configuration file than the default.
pub fn run(args: &[OsString]) -> ExitCode {
    let word = |at: usize| args.get(at).and_then(|word| word.to_str()).unwrap_or_default();
    let answer = match word(0) {
        "list" => list(),
        "call" => {
            let file = if args.len() > 2 { word(2) } else { DEFAULT_FILE };
            call(word(1), file, &mut io::stdin())
        }
        _ => {
            eprintln!(
                "gatewrt: as rpcd's plugin it is called with “list”, or “call METHOD” and JSON to read"
            );
            return ExitCode::from(2);
        }
    };
    print(&answer.unwrap_or_else(|error| failure(&error)));
    ExitCode::SUCCESS
}

/// Signatures of the ubus methods in the form that rpcd expects: each argument with an example of its type.
fn list() -> Result<String, CliError> {
    let arguments = |method: &Method| -> BTreeMap<_, _> {
        method.takes.iter().map(|(name, kind)| (ubus_name(name), kind.example())).collect()
    };
    to_json(&METHODS.iter().map(|method| (method.name, arguments(method))).collect::<BTreeMap<_, _>>())
}

fn ubus_name(name: &str) -> String {
    name.replace('-', "_")
}

/// Answer to a call of a ubus method, as JSON.
fn call(method: &str, file: &str, input: &mut dyn Read) -> Result<String, CliError> {
    let Some(method) = METHODS.iter().find(|known| known.name == method) else {
        return Err(CliError::Usage(["“", method, "” is no method"].concat()));
    };
    let asked = asked(method, file, input)?;
    let text = match &asked.command {
        Command::Version => to_json(&env!("CARGO_PKG_VERSION"))?,
        Command::Diag => to_json(&diag::checks(&asked.config))?,
        command => ask(&asked, request(command).map_err(misuse)?, TIMEOUT)?,
    };
    Ok(match method.answer {
        "" => text,
        // The text is JSON already.
        name => format!("{{\"{name}\":{text}}}"),
    })
}

/// Turns the error of a ubus argument that makes no request into one of wrong usage.
fn misuse(error: CliError) -> CliError {
    match error {
        CliError::Other(what) => CliError::Usage(what),
        error => error,
    }
}

/// Command line that a call of a ubus method stands for, parsed. Every argument must be known to the method and of its
/// type.
fn asked(method: &Method, file: &str, input: &mut dyn Read) -> Result<Invocation, CliError> {
    let mut text = Vec::new();
    let read = input.take(MAX_ARGUMENTS + 1).read_to_end(&mut text);
    read.map_err(|error| CliError::Other(format!("can't read the arguments: {error}")))?;
    if text.len() as u64 > MAX_ARGUMENTS {
        return Err(CliError::Usage(format!("the arguments are longer than {MAX_ARGUMENTS} bytes")));
    }
    let text = if text.trim_ascii().is_empty() { b"{}" } else { text.as_slice() };
    let Arguments { options, words, .. } = arguments(method, text)
        .map_err(|error| CliError::Usage(format!("the arguments can't be used: {error}")))?;
    let mut line: Vec<_> = method.name.split('_').map(OsString::from).collect();
    line.extend(["--json".into(), ["--config=", file].concat().into()]);
    line.extend(options);
    // No word may pass for an option.
    line.push("--".into());
    line.extend(words);
    parse(line)
}

/// Answer to a call of a ubus method that failed.
#[derive(Serialize)]
struct Failed {
    error: Reason,
}

/// Reason of a failed call: its kind, for programs, and a text.
#[derive(Serialize)]
struct Reason {
    kind: &'static str,
    message: String,
}

/// Answer to a call of a ubus method that failed, as JSON.
fn failure(error: &CliError) -> String {
    let (kind, message) = match error {
        CliError::Usage(what) => ("usage", what.clone()),
        CliError::Control(ControlError::NotRunning(_)) => ("not_running", error.to_string()),
        CliError::Control(ControlError::Failed(why)) => ("refused", why.clone()),
        error => ("failed", error_chain(error)),
    };
    to_json(&Failed { error: Reason { kind, message } }).unwrap_or_default()
}

/// Arguments of a ubus method as options and words of its command line. A null argument is absent.
struct Arguments<'a> {
    method: &'a Method,
    options: Vec<OsString>,
    words: Vec<OsString>,
}

fn arguments<'a>(method: &'a Method, text: &[u8]) -> serde_json::Result<Arguments<'a>> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let arguments = Arguments { method, options: Vec::new(), words: Vec::new() };
    let arguments = deserializer.deserialize_map(arguments)?;
    deserializer.end().map(|()| arguments)
}

impl<'de> Visitor<'de> for Arguments<'_> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            match self.method.takes.iter().find(|(known, _)| ubus_name(known) == name) {
                Some((option, kind)) => {
                    let values = values(*kind, &mut map);
                    self.push(
                        option,
                        *kind,
                        values.map_err(|error| A::Error::custom(format!("“{name}”: {error}")))?,
                    );
                }
                None if name == SESSION => drop(map.next_value::<IgnoredAny>()?),
                None => return Err(A::Error::custom(format!("“{name}” is no argument of this method"))),
            }
        }
        Ok(self)
    }
}

impl Arguments<'_> {
    fn push(&mut self, option: &str, kind: Kind, values: Vec<String>) {
        match kind {
            Word | Words => self.words.extend(values.into_iter().map(OsString::from)),
            Flag => self.options.extend(values.iter().map(|_| format!("--{option}").into())),
            Text | Texts => {
                self.options.extend(values.iter().map(|value| format!("--{option}={value}").into()))
            }
        }
    }
}

/// Values of a ubus method's argument as texts; a flag that is set has an empty one.
fn values<'de, A: MapAccess<'de>>(kind: Kind, map: &mut A) -> Result<Vec<String>, A::Error> {
    Ok(match kind {
        Word | Text => map.next_value::<Option<String>>()?.into_iter().collect(),
        Words | Texts => map.next_value::<Option<Vec<String>>>()?.unwrap_or_default(),
        Flag => {
            map.next_value::<Option<bool>>()?.filter(|set| *set).map(|_| String::new()).into_iter().collect()
        }
    })
}

#[cfg(test)]
mod tests;
