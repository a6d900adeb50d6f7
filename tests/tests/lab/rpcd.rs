//! The rpcd plugin that LuCI calls over ubus, with a running daemon and without one.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Host, Lab, eventually},
    mesh::{CONFIG, Mesh, NETWORK},
};
use serde_json::{Value, json};
use std::time::Duration;

const PLUGIN: &str = "/tmp/libexec/rpcd/gatewrt";
const SOON: Duration = Duration::from_secs(10);
/// Parameter that LuCI's HTTP access to ubus adds to each call.
const SESSION: (&str, &str) = ("ubus_rpc_session", "0123456789abcdef0123456789abcdef");

struct Router(Host);

impl Router {
    fn new(host: Host) -> Result<Self> {
        host.shell(&format!("mkdir -p $(dirname {PLUGIN}); ln -s $(readlink -f /mnt/bin/gatewrt) {PLUGIN}"))?;
        Ok(Self(host))
    }

    fn call(&self, method: &str, mut arguments: Value) -> Result<Value> {
        arguments[SESSION.0] = SESSION.1.into();
        let call = self.0.command(&[PLUGIN, "call", method]).stdin(arguments.to_string());
        let answer = call.run()?.json()?;
        ensure!(answer.is_object(), "{method}: rpcd throws away what is no object: {answer}");
        Ok(answer)
    }

    fn refuses(&self, method: &str, arguments: Value, kind: &str, words: &str) -> Result<()> {
        let answer = self.call(method, arguments)?;
        let message = answer["error"]["message"].as_str().with_context(|| format!("{method}: {answer}"))?;
        ensure!(answer["error"]["kind"] == kind && message.contains(words), "{method}: {answer}");
        Ok(())
    }
}

#[test]
fn luci_requests_are_all_answered() -> Result<()> {
    let mut mesh = Mesh::start(Lab::two_sites()?, &["home"])?;
    let office = Router::new(mesh.host("office")?)?;
    let list: Value = office.0.run(&[PLUGIN, "list"])?.json()?;
    ensure!(list["exit_disable"] == json!({"scope": "", "network": ""}), "{list}");
    for method in ["status", "peers", "clients", "exit_list", "exit_status", "exit_disable", "exit_forget"] {
        office.refuses(method, json!({}), "not_running", "start it")?;
    }
    mesh.start_daemon("office")?;
    ensure!(office.call("version", json!({}))?["version"].is_string());
    ensure!(office.call("peers", json!({}))? == json!({"peers": []}));

    office.refuses("join", json!({}), "usage", "needs a join code")?;
    office.refuses("join", json!({"code": "please"}), "usage", "join code")?;
    office.refuses("join", json!({"code": 5}), "usage", "expected a string")?;
    let joined = office.call("join", json!({"code": mesh.code(1)?, "name": "office"}))?;
    ensure!(joined["network"] == NETWORK && joined["name"] == "office", "{joined}");
    ensure!(joined["addresses"].as_array().is_some_and(|all| all.len() == 2), "{joined}");
    office.refuses("join", json!({"code": mesh.code(1)?}), "refused", "already")?;

    eventually(SOON, "the other node is there", || -> Result<()> {
        let peers = office.call("peers", json!({"network": NETWORK}))?;
        ensure!(peers["peers"][0]["name"] == "home" && peers["peers"][0]["path"] == "direct", "{peers}");
        Ok(())
    })?;
    let status = office.call("status", json!({}))?;
    ensure!(status["networks"][0]["node_name"] == "office", "{status}");
    ensure!(office.call("clients", json!({}))? == json!({"clients": []}));
    let checks = office.call("diag", json!({}))?;
    ensure!(
        checks["checks"].as_array().is_some_and(|all| all.iter().all(|it| it["ok"].is_boolean())),
        "{checks}"
    );
    office.refuses("peers", json!({"network": "elsewhere"}), "refused", "has not joined")?;
    office.refuses("leave", json!({"network": "elsewhere"}), "refused", "has not joined")?;
    check_exits(&mesh, &office)?;

    let left = office.call("leave", json!({"network": NETWORK}))?;
    ensure!(left["hint"].as_str().is_some_and(|hint| hint.contains("Left home")), "{left}");
    ensure!(office.call("status", json!({}))?["networks"] == json!([]));
    Ok(())
}

fn check_exits(mesh: &Mesh, office: &Router) -> Result<()> {
    let allow = format!("config network '{NETWORK}'\n\toption allow_exit '1'\n");
    mesh.host("home")?.write_file(CONFIG, allow)?;
    mesh.gatewrt("home", &["reload"])?;
    mesh.admin(&["exit", "set", NETWORK, "home"])?;
    eventually(SOON, "the exit is listed", || -> Result<()> {
        let list = office.call("exit_list", json!({}))?;
        ensure!(list["exits"][NETWORK][0]["name"] == "home", "{list}");
        Ok(())
    })?;
    office.refuses("exit_enable", json!({"exits": ["nowhere"]}), "refused", "no node of this name")?;
    office.refuses("exit_enable", json!({"exits": "home"}), "usage", "“exits”: invalid type")?;
    let enable = json!({"exits": ["home", "auto"], "scope": ["lan"], "as": "lans", "no_kill_switch": true});
    let done = office.call("exit_enable", enable)?;
    ensure!(done.get("error").is_none(), "{done}");
    let scope = &office.call("exit_status", json!({"network": NETWORK}))?["scopes"][NETWORK][0];
    ensure!(scope["name"] == "lans" && scope["auto"] == true && scope["kill_switch"] == false, "{scope}");
    let disabled = office.call("exit_disable", json!({"scope": "lans"}))?;
    ensure!(disabled.get("error").is_none(), "{disabled}");
    ensure!(office.call("exit_status", json!({}))?["scopes"][NETWORK] == json!([]));
    ensure!(office.call("exit_forget", json!({}))?.get("error").is_none());
    Ok(())
}
