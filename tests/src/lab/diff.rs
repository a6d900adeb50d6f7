//! Difference between two JSON values, in lines a person can read.

use std::collections::BTreeMap;

use serde_json::Value;

/// Fails the test with every difference unless two dumps are the same.
#[track_caller]
pub fn assert_same(before: &Value, after: &Value) {
    let found = differences(before, after);
    assert!(found.is_empty(), "the state changed:\n{}", found.join("\n"));
}

/// Differences, one a line: `-` was there before, `+` is there now, `~` has changed. Empty when the two are the same.
pub fn differences(before: &Value, after: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", before, after, &mut found);
    found
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let path = format!("{path}/{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => compare(&path, a, b, found),
                    (Some(a), None) => found.push(format!("- {path}: {a}")),
                    (_, b) => found.extend(b.map(|b| format!("+ {path}: {b}"))),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) => compare_lists(path, a, b, found),
        _ => found.push(format!("~ {path}: {before} -> {after}")),
    }
}

/// Compares two lists. Equal entries cancel out; of the rest, those with the same name are compared inside.
fn compare_lists(path: &str, before: &[Value], after: &[Value], found: &mut Vec<String>) {
    let (mut gone, mut new) = (Vec::new(), after.to_vec());
    for entry in before {
        match new.iter().position(|other| other == entry) {
            Some(index) => drop(new.remove(index)),
            None => gone.push(entry),
        }
    }
    if gone.is_empty() && new.is_empty() {
        found.push(format!("~ {path}: the order changed"));
    }
    let mut unmatched: BTreeMap<usize, Value> = new.into_iter().enumerate().collect();
    for entry in gone {
        let twin = unmatched.iter().find(|(_, other)| name(entry).is_some() && name(entry) == name(other));
        match twin.map(|(index, _)| *index).and_then(|index| unmatched.remove(&index)) {
            Some(other) => {
                compare(&format!("{path}/{}", name(entry).unwrap_or_default()), entry, &other, found)
            }
            None => found.push(format!("- {path}: {entry}")),
        }
    }
    found.extend(unmatched.values().map(|entry| format!("+ {path}: {entry}")));
}

/// Name of an entry of `ip -j` or `nft -j`, by which the entries before and after are matched.
fn name(entry: &Value) -> Option<String> {
    let entry = entry.as_object()?;
    let key = ["ifname", "dst", "priority", "peer", "table", "chain", "set", "local"];
    let (key, value) = key.iter().find_map(|key| entry.get(*key).map(|value| (key, value)))?;
    match value {
        Value::Object(inner) => {
            let part = |key| inner.get(key).and_then(Value::as_str).unwrap_or_default();
            Some(format!("{key} {} {} {}", part("family"), part("table"), part("name")))
        }
        value => {
            let text = |key: &str| entry.get(key).map(|v| format!(" {key} {}", plain(v))).unwrap_or_default();
            Some(format!("{key} {}{}{}", plain(value), text("dev"), text("metric")))
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_is_no_difference() {
        let state = json!({"a": [1, {"b": 2}], "c": null});
        assert!(differences(&state, &state).is_empty());
    }

    #[test]
    fn entries_come_go_and_change() {
        let before =
            json!({"routes": [{"dst": "10.0.0.0/8", "dev": "wan"}, {"dst": "a", "dev": "x", "mtu": 1}]});
        let after = json!({"routes": [{"dst": "a", "dev": "x", "mtu": 2}, {"dst": "b"}]});
        let found = differences(&before, &after);
        let expected = [
            r#"- /routes: {"dev":"wan","dst":"10.0.0.0/8"}"#,
            "~ /routes/dst a dev x/mtu: 1 -> 2",
            r#"+ /routes: {"dst":"b"}"#,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn doubles_and_order_are_seen() {
        assert_eq!(differences(&json!([1, 1]), &json!([1])), ["- : 1"]);
        assert_eq!(differences(&json!([1, 2]), &json!([2, 1])), ["~ : the order changed"]);
    }
}
