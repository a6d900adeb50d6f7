//! Command `watch`: one line for each change.

use super::{ApiClient, CommandError, CommandResult, enc, line, list};
use crate::{api::Me, controller::WatchEvent};
use serde_json::Value;

pub(super) fn run(client: &ApiClient, network: Option<&str>, as_json: bool) -> CommandResult {
    let query = network.map(|network| format!("?network={}", enc(network))).unwrap_or_default();
    eprintln!("watching; Ctrl-C ends it");
    let ended = client.events(&format!("watch{query}"), |event, data| {
        if event == "gap" {
            eprintln!("some changes were missed: this watcher was too slow ({data})");
            return Ok(());
        }
        match serde_json::from_str::<WatchEvent>(data) {
            Ok(change) if !as_json => line(&text(&change))?,
            _ => line(data)?,
        }
        Ok(())
    });
    match ended {
        // The answer ends with its token too. What is wrong with that, the next answer says.
        Err(CommandError::Unreachable { .. }) => client.get::<Me>("me").and(ended),
        ended => ended,
    }
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
