//! Command `watch`: one line for each change.

use super::{ApiClient, CommandError, CommandResult, enc, line, list};
use crate::controller::WatchEvent;
use gatewrt_protocol::Problem;
use serde_json::Value;

pub(super) fn run(client: &ApiClient, network: Option<&str>, as_json: bool) -> CommandResult {
    let query = network.map(|network| format!("?network={}", enc(network))).unwrap_or_default();
    eprintln!("watching; Ctrl-C ends it");
    client.events(&format!("watch{query}"), |event, data| {
        if event == "gap" {
            eprintln!("some changes were missed: this watcher was too slow ({data})");
            return Ok(());
        }
        if event == "end" {
            return Err(ended(data));
        }
        match serde_json::from_str::<WatchEvent>(data) {
            Ok(change) if !as_json => line(&text(&change))?,
            _ => line(data)?,
        }
        Ok(())
    })
}

/// The coordinator has ended the answer, for this reason.
fn ended(why: &str) -> CommandError {
    let detail = "watch again with a valid token".to_owned();
    CommandError::Refused(Problem { status: 401, kind: "unauthorized".into(), title: why.to_owned(), detail })
}

fn text(change: &WatchEvent) -> String {
    let time = change.at % 86_400;
    let time = format!("{:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60);
    let network = list(&change.network);
    let node = change.node.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{time} {network:<12} {:<12} {node:<16} {}", change.what, fields(&change.record))
        .trim_end()
        .to_owned()
}

/// Text of a record's fields for `watch`, without the ids that are already in the line.
fn fields(record: &Value) -> String {
    let Value::Object(fields) = record else { return String::new() };
    let named = |name: &str| ["net", "node"].contains(&name);
    let fields = fields.iter().filter(|(name, _)| !named(name));
    fields.map(|(name, value)| format!("{name}={}", compact(value))).collect::<Vec<_>>().join(" ")
}

fn compact(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}
