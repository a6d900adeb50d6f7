//! LuCI's pages for the owner of a router. The browser and a stand-in for LuCI run on the router; its own rpcd plugin
//! answers, and its own configuration file is changed.

use super::{done, play, text, world};
use anyhow::{Context, Result, bail};
use gatewrt_tests::{
    lab::{Host, Lab},
    mesh::{CONFIG, Mesh, NETWORK},
};
use serde_json::{Map, Value, json};

const ROUTER: &str = "home";
/// Path of the rpcd plugin, as on a router: the program runs as the plugin because the folder is called `rpcd`.
const PLUGIN: &str = "/tmp/rpcd/gatewrt";

/// The pages in all states of a router, then for a day with a real one: see `tests/browser/luci.mjs`.
#[test]
fn luci_pages_let_an_owner_run_a_router() -> Result<()> {
    let mut mesh = Mesh::start(Lab::exits()?, &["farm"])?;
    mesh.host("farm")?
        .write_file(CONFIG, format!("config network '{NETWORK}'\n\toption allow_exit '1'\n"))?;
    mesh.gatewrt("farm", &["reload"])?;
    mesh.admin(&["exit", "set", NETWORK, "farm"])?;
    mesh.configure(ROUTER)?;
    mesh.start_daemon(ROUTER)?;
    let router = mesh.host(ROUTER)?;
    router.shell(&format!("mkdir -p /tmp/rpcd && ln -sf \"$(command -v gatewrt)\" {PLUGIN}"))?;
    play("luci.mjs", &router, |order, about| act(&mesh, &router, order, about))
}

fn act(mesh: &Mesh, router: &Host, order: &str, about: &Value) -> Result<Value> {
    match order {
        "world" => Ok(json!({ "url": "http://127.0.0.1:8080", "ca": world(mesh)?["ca"] })),
        "code" => Ok(json!(mesh.code(1)?)),
        "coordinator" => Ok(json!(mesh.host("coordinator")?.ip4()?)),
        "status" => mesh.status(ROUTER),
        "ubus" => ubus(mesh, router, about),
        _ => bail!("there is no order {order}"),
    }
}

/// Answers of rpcd, as far as the pages ask for them.
fn ubus(mesh: &Mesh, router: &Host, about: &Value) -> Result<Value> {
    let (object, method) = (text(about, "object")?, text(about, "method")?);
    match (object, method) {
        ("gatewrt", _) => {
            let plugin = router.command(&[PLUGIN, "call", method]).stdin(about["params"].to_string());
            plugin.run()?.json()
        }
        ("luci-rpc", "getNetworkDevices") => {
            Ok(json!({ "br-lan": { "up": true }, "br-guest": { "up": true } }))
        }
        ("uci", "get") => {
            Ok(json!({ "values": uci_sections(&router.read_file(CONFIG).unwrap_or_default())? }))
        }
        ("uci", "set") => {
            router.write_file(CONFIG, uci_text(&about["params"]["values"])?)?;
            done(mesh.gatewrt(ROUTER, &["reload"]).map(drop))
        }
        _ => bail!("there is no {object} {method}"),
    }
}

/// The sections of a UCI file, as rpcd returns them.
fn uci_sections(file: &str) -> Result<Map<String, Value>> {
    let mut sections: Map<String, Value> = Map::new();
    let mut last = String::new();
    for line in file.lines() {
        let words: Vec<_> = line.trim().splitn(3, ' ').map(|word| word.trim_matches('\'')).collect();
        match words[..] {
            ["config", kind, name] => {
                last = name.to_owned();
                sections.insert(last.clone(), json!({ ".name": name, ".type": kind }));
            }
            ["option", key, value] => sections[&last][key] = json!(value),
            ["list", key, value] => {
                let list = &mut sections[&last][key];
                let mut values = list.as_array().cloned().unwrap_or_default();
                values.push(json!(value));
                *list = Value::Array(values);
            }
            _ => {}
        }
    }
    Ok(sections)
}

/// The text of a UCI file with these sections: the inverse of [`uci_sections`].
fn uci_text(sections: &Value) -> Result<String> {
    let mut file = String::new();
    for (name, section) in sections.as_object().context("sections")? {
        file += &format!("config {} '{name}'\n", text(section, ".type")?);
        for (key, value) in section.as_object().into_iter().flatten().filter(|(key, _)| !key.starts_with('.'))
        {
            match value {
                Value::Array(values) => values
                    .iter()
                    .filter_map(Value::as_str)
                    .for_each(|value| file += &format!("\tlist {key} '{value}'\n")),
                value => file += &format!("\toption {key} '{}'\n", value.as_str().context("a text")?),
            }
        }
    }
    Ok(file)
}
