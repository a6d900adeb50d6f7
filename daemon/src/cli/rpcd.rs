//! The ubus object `gatewrt`: rpcd runs this program as `/usr/libexec/rpcd/gatewrt`, with `list` when it starts and with
//! `call METHOD` and the arguments as JSON on standard input for each call. Every call is a command of the command line,
//! and answers what it prints with `--json`.
//!
//! rpcd looks at no argument's type, and throws away what a plugin that fails printed: so each argument is checked here,
//! and an error is an answer too, `{"error": {"kind": …, "message": …}}`.

use super::{Asked, CliError, Command, ask, diag, parse, print, request, to_json};
use crate::{config::DEFAULT_FILE, control::ControlError};
use gatewrt_protocol::json::{self, FromJson, JsonError, Reader};
use std::{
    ffi::OsString,
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

/// What an argument is, and what it becomes on the command line.
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

/// A method: called as its command, but with “_” between words.
struct Method {
    name: &'static str,
    /// An answer of ubus is an object: what the command's answer is called where that is none.
    answer: &'static str,
    /// Arguments, called as on the command line but with “_” where that has “-”.
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

/// Runs as rpcd's plugin, with the arguments after the program's name: `list`, or `call METHOD [FILE]` with another
/// configuration file than the usual one.
pub fn run(args: &[OsString]) -> ExitCode {
    let word = |at: usize| args.get(at).and_then(|word| word.to_str()).unwrap_or_default();
    let text = match word(0) {
        "list" => list(),
        "call" => {
            let file = if args.len() > 2 { word(2) } else { DEFAULT_FILE };
            call(word(1), file, &mut io::stdin()).unwrap_or_else(|error| told(&error))
        }
        _ => {
            eprintln!(
                "gatewrt: as rpcd's plugin it is called with “list”, or “call METHOD” and JSON to read"
            );
            return ExitCode::from(2);
        }
    };
    print(&text);
    ExitCode::SUCCESS
}

/// The methods as rpcd wants to know them: each argument with an example of its type.
fn list() -> String {
    let mut text = String::from("{");
    for method in &METHODS {
        push_name(method.name, &mut text);
        text.push('{');
        for (name, kind) in method.takes {
            push_name(&ubus_name(name), &mut text);
            text.push_str(match kind {
                Word | Text => "\"\"",
                Words | Texts => "[]",
                Flag => "true",
            });
        }
        text.push('}');
    }
    text.push('}');
    text
}

fn push_name(name: &str, text: &mut String) {
    let comma = if text.ends_with('{') { "" } else { "," };
    [comma, "\"", name, "\":"].into_iter().for_each(|part| text.push_str(part));
}

fn ubus_name(name: &str) -> String {
    name.replace('-', "_")
}

/// The answer as JSON.
fn call(method: &str, file: &str, input: &mut dyn Read) -> Result<String, CliError> {
    let Some(method) = METHODS.iter().find(|known| known.name == method) else {
        return Err(CliError::Usage(["“", method, "” is no method"].concat()));
    };
    let asked = asked(method, file, input)?;
    let text = match &asked.command {
        Command::Version => to_json(&env!("CARGO_PKG_VERSION"))?,
        Command::Diag => to_json(&diag::checks(&asked.config))?,
        command => ask(&asked, request(command).map_err(misuse)?, PATIENCE)?,
    };
    Ok(match method.answer {
        "" => text,
        name => ["{\"", name, "\":", &text, "}"].concat(),
    })
}

/// What can't even be asked for was given wrongly.
fn misuse(error: CliError) -> CliError {
    match error {
        CliError::Other(what) => CliError::Usage(what),
        error => error,
    }
}

/// What is asked, by way of the command line: each argument known to the method and of its type.
fn asked(method: &Method, file: &str, input: &mut dyn Read) -> Result<Asked, CliError> {
    let mut text = Vec::new();
    let read = input.take(LONGEST + 1).read_to_end(&mut text);
    read.map_err(|error| CliError::Other(format!("can't read the arguments: {error}")))?;
    if text.len() as u64 > LONGEST {
        return Err(CliError::Usage(format!("the arguments are longer than {LONGEST} bytes")));
    }
    let text = if text.trim_ascii().is_empty() { b"{}" } else { text.as_slice() };
    let unusable = |error: JsonError| CliError::Usage(format!("the arguments can't be used: {error}"));
    let (options, words) = json::read_as(text, |reader| arguments(method, reader)).map_err(unusable)?;
    let mut line: Vec<_> = method.name.split('_').map(OsString::from).collect();
    line.extend(["--json".into(), ["--config=", file].concat().into()]);
    line.extend(options);
    // Whatever comes now is no option.
    line.push("--".into());
    line.extend(words);
    parse(line)
}

/// The answer to what can't be done.
fn told(error: &CliError) -> String {
    let (kind, message) = match error {
        CliError::Usage(what) => ("usage", what.clone()),
        CliError::Control(ControlError::NotRunning(_)) => ("not_running", error.to_string()),
        CliError::Control(ControlError::Failed(why)) => ("refused", why.clone()),
        error => ("failed", error.to_string()),
    };
    let message = to_json(&message.as_str()).unwrap_or_default();
    ["{\"error\":{\"kind\":\"", kind, "\",\"message\":", &message, "}}"].concat()
}

/// Reads arguments as options and words of a command line. One that is null is not there.
fn arguments(method: &Method, reader: &mut Reader<'_>) -> Result<(Vec<OsString>, Vec<OsString>), JsonError> {
    let (mut options, mut words) = (Vec::new(), Vec::new());
    reader.object(&mut |reader, name| {
        let known = method.takes.iter().find(|(known, _)| ubus_name(known) == name);
        let Some((option, kind)) = known else {
            reader.skip()?;
            let refused = || reader.refuse(&format_args!("“{name}” is no argument of this method"));
            return if name == SESSION { Ok(()) } else { Err(refused()) };
        };
        for value in values(*kind, reader).map_err(|error| error.of(name))? {
            let equals = if *kind == Flag { "" } else { "=" };
            match kind {
                Word | Words => words.push(value.into()),
                _ => options.push(["--", *option, equals, &*value].concat().into()),
            }
        }
        Ok(())
    })?;
    Ok((options, words))
}

fn values(kind: Kind, reader: &mut Reader<'_>) -> Result<Vec<String>, JsonError> {
    Ok(match kind {
        Word | Text => Option::from_json(reader)?.into_iter().collect(),
        Words | Texts => Option::from_json(reader)?.unwrap_or_default(),
        Flag => match Option::from_json(reader)? {
            Some(true) => vec![String::new()],
            _ => Vec::new(),
        },
    })
}

#[cfg(test)]
mod tests;
