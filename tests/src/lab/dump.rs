//! State of a host's network as JSON, without values that change by themselves.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::host::Host;

/// Parts of a dump, each with the command that prints it.
const PARTS: [(&str, &str); 6] = [
    ("addresses", "ip -j -d addr show"),
    ("routes4", "ip -j -4 route show table all"),
    ("routes6", "ip -j -6 route show table all"),
    ("rules4", "ip -j -4 rule show"),
    ("rules6", "ip -j -6 rule show"),
    ("nft", "nft -j list ruleset"),
];

/// Keys whose values change by themselves.
const VOLATILE: [&str; 17] = [
    "valid_life_time",
    "preferred_life_time",
    "expires",
    "handle",
    "counter",
    "packets",
    "bytes",
    "metainfo",
    "link_netnsid",
    "tentative",
    "dadfailed",
    "age",
    "used",
    "qlen",
    "gc_timer",
    "operstate",
    "promiscuity",
];

/// Settings that the daemon or a tunnel could touch, under `net.ipv4.conf.*` and `net.ipv6.conf.*`.
const SETTINGS4: [&str; 6] =
    ["forwarding", "rp_filter", "src_valid_mark", "accept_redirects", "send_redirects", "proxy_arp"];
const SETTINGS6: [&str; 4] = ["forwarding", "accept_ra", "disable_ipv6", "proxy_ndp"];

impl Host {
    /// Dumps addresses, routes of all tables, rules, the nft rule set, WireGuard devices and the sysctls that matter,
    /// for [`super::assert_same`] and [`super::differences`].
    pub fn dump(&self) -> Result<Value> {
        let script: String =
            PARTS.iter().map(|(_, command)| format!("{command}; echo; echo =====\n")).collect();
        let output = self.shell(&script)?.stdout;
        let mut dump = Map::new();
        for ((name, command), text) in PARTS.iter().zip(output.split("\n=====\n")) {
            // Some versions of ip print nothing instead of an empty list.
            let text = if text.trim().is_empty() { "[]" } else { text };
            let value = serde_json::from_str(text);
            let value = value.with_context(|| format!("on {}: {command}: not JSON: {text}", self.name()))?;
            let mut value = normalise(value);
            if let (true, Value::Array(routes)) = (name.starts_with("routes"), &mut value) {
                // The order of routes is that of the kernel's tree and means nothing.
                routes.sort_by_key(Value::to_string);
            }
            dump.insert((*name).to_owned(), value);
        }
        dump.insert("wireguard".into(), self.dump_wireguard()?);
        dump.insert("sysctls".into(), self.dump_sysctls()?);
        Ok(Value::Object(dump))
    }

    fn dump_wireguard(&self) -> Result<Value> {
        let output = self.output(&["wg", "show", "all", "dump"])?;
        let mut devices = BTreeMap::<String, Vec<Value>>::new();
        for line in output.stdout.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let (device, entry) = match *fields {
                [device, _, public, port, mark] => {
                    (device, json!({"public": public, "port": port, "fwmark": mark}))
                }
                [device, peer, _, endpoint, allowed, _, _, _, keepalive] => {
                    let mut allowed: Vec<&str> = allowed.split(',').collect();
                    allowed.sort_unstable();
                    (
                        device,
                        json!({"peer": peer, "endpoint": endpoint, "allowed": allowed, "keepalive": keepalive}),
                    )
                }
                _ => continue,
            };
            devices.entry(device.to_owned()).or_default().push(entry);
        }
        devices.values_mut().for_each(|entries| entries.sort_by_key(Value::to_string));
        Ok(json!(devices))
    }

    fn dump_sysctls(&self) -> Result<Value> {
        let ipv4 = SETTINGS4.map(|name| format!("ipv4/conf/*/{name}"));
        let ipv6 = SETTINGS6.map(|name| format!("ipv6/conf/*/{name}"));
        let files = [ipv4.join(" "), ipv6.join(" ")].join(" ");
        let script = format!("cd /proc/sys/net; grep -H '' ipv4/ip_forward {files}");
        let output = self.shell(&script)?.stdout;
        let setting = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), json!(value)));
        Ok(Value::Object(output.lines().filter_map(setting).collect()))
    }
}

/// Drops volatile keys at any depth, and list entries that are empty without them.
fn normalise(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(key, _)| !VOLATILE.contains(&key.as_str()));
            Value::Object(kept.map(|(key, value)| (key, normalise(value))).collect())
        }
        Value::Array(items) => {
            Value::Array(items.into_iter().map(normalise).filter(|v| !is_empty(v)).collect())
        }
        other => other,
    }
}

/// True for an object without keys, such as one that held volatile keys only.
fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_by_itself_is_dropped_at_any_depth() {
        let before = json!([{"metainfo": {"version": "1"}}, {"rule": {"handle": 3, "expr": [
            {"counter": {"packets": 1, "bytes": 2}}, {"accept": null}]}}]);
        assert_eq!(normalise(before), json!([{"rule": {"expr": [{"accept": null}]}}]));
    }
}
