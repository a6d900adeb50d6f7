//! Exits set on the admin page: a home's Internet traffic leaves through another site. The browser runs on a PC at the
//! office, whose own traffic does not.

use super::{done, play, text, token, within, world};
use anyhow::{Context, Result, bail, ensure};
use gatewrt_tests::{
    lab::{Lab, Whoami, eventually, fetch},
    mesh::{CONFIG, Mesh, NETWORK, owner_config},
};
use serde_json::{Value, json};
use std::time::Duration;

const ROUTERS: [&str; 4] = ["home", "farm", "barn", "office"];
/// Port of the broker that routers connect to.
const MQTT: u16 = 8883;

/// The admin switches exits on; exits die and recover; a change that cuts the control link is rolled back: see
/// `tests/browser/exits.mjs`.
#[test]
fn admin_page_sends_a_homes_traffic_through_an_exit() -> Result<()> {
    let mesh = Mesh::start(Lab::exits()?, &ROUTERS)?;
    let web = Whoami::start(&mesh.host("web")?)?;
    let stage = Stage { mesh, _web: web };
    let admin = stage.mesh.host("office-pc")?;
    play("exits.mjs", &admin, |order, about| stage.act(order, about))
}

struct Stage {
    mesh: Mesh,
    _web: Whoami,
}

impl Stage {
    fn act(&self, order: &str, about: &Value) -> Result<Value> {
        match order {
            "world" => world(&self.mesh),
            "token" => token(&self.mesh),
            "resolver" => Ok(json!(self.mesh.host("resolver")?.ip4()?)),
            "lan" => Ok(json!(self.mesh.lans(text(about, "router")?)?[0])),
            "allow_exit" => self.allow_exit(text(about, "router")?),
            "seen_as" => self.seen_as(about),
            "silence" => self.silence(text(about, "router")?),
            "mute" => self.mute(text(about, "router")?),
            "wait_until_told" => self.wait_until_told(text(about, "router")?, within(about)?),
            "wait_until_back" => self.wait_until_back(text(about, "router")?, within(about)?),
            "end" => self.end(text(about, "host")?),
            _ => bail!("there is no order {order}"),
        }
    }

    /// Allows the exit in UCI, as the router's owner would.
    fn allow_exit(&self, router: &str) -> Result<Value> {
        let host = self.mesh.host(router)?;
        let config = owner_config(&host, NETWORK)?.unwrap_or_else(|| format!("config network '{NETWORK}'\n"));
        host.write_file(CONFIG, format!("{config}\toption allow_exit '1'\n"))?;
        done(self.mesh.gatewrt(router, &["reload"]).map(drop))
    }

    /// Waits until a web server sees a PC of the home with the address of the named router; with none named, until the
    /// PC reaches no server.
    fn seen_as(&self, about: &Value) -> Result<Value> {
        let (pc, web) = (self.mesh.host("home-pc")?, self.mesh.host("web")?);
        let wanted = match about["router"].as_str() {
            Some(router) => Some(self.mesh.host(router)?.public4()?.to_string()),
            None => None,
        };
        let url = format!("http://{}/", web.ip4()?);
        done(eventually(within(about)?, &format!("home-pc is seen as {wanted:?}"), || -> Result<()> {
            let seen = fetch(&pc, &url).ok();
            ensure!(seen == wanted, "it is seen as {seen:?}");
            Ok(())
        }))
    }

    /// Cuts the router's tunnels, and nothing else.
    fn silence(&self, router: &str) -> Result<Value> {
        let port = self.mesh.status(router)?["port"].as_u64().unwrap_or(51820);
        done(self.mesh.host(router)?.nft(&format!(
            "add table inet away\n\
             add chain inet away in {{ type filter hook input priority -300; }}\n\
             add rule inet away in udp dport {port} drop\n\
             add chain inet away out {{ type filter hook output priority -300; }}\n\
             add rule inet away out udp sport {port} drop\n"
        )))
    }

    /// Drops the router's messages to the coordinator; the coordinator's messages still reach the router.
    fn mute(&self, router: &str) -> Result<Value> {
        let router = self.mesh.host(router)?;
        let (ip4, ip6) = (router.public4()?, router.ip6()?);
        done(self.mesh.host("coordinator")?.nft(&format!(
            "add table inet away\n\
             add chain inet away in {{ type filter hook input priority -300; }}\n\
             add rule inet away in ip saddr {ip4} tcp dport {MQTT} drop\n\
             add rule inet away in ip6 saddr {ip6} tcp dport {MQTT} drop\n"
        )))
    }

    /// Waits until the router has applied the coordinator's current assignment.
    fn wait_until_told(&self, router: &str, within: Duration) -> Result<Value> {
        done(eventually(within, &format!("{router} is told"), || -> Result<()> {
            let status = self.mesh.admin_json(&["status", NETWORK])?;
            let networks = status["networks"].as_array().into_iter().flatten();
            let mut nodes = networks.flat_map(|network| network["nodes"].as_array().into_iter().flatten());
            let node = nodes.find(|node| node["name"] == router).context("the node is there")?;
            let (wanted, done) = (&node["current"]["assignment"], &node["report"]["applied"]["assignment"]);
            ensure!(wanted == done, "it has {done} of {wanted}");
            Ok(())
        }))
    }

    /// Waits for a rollback in the router's own status, because the coordinator can't hear of it yet.
    fn wait_until_back(&self, router: &str, within: Duration) -> Result<Value> {
        done(eventually(within, &format!("{router} took a change back"), || -> Result<()> {
            let status = self.mesh.status(router)?;
            ensure!(!status["rolled_back"].is_null(), "{status}");
            Ok(())
        }))
    }

    fn end(&self, host: &str) -> Result<Value> {
        done(self.mesh.host(host)?.nft("delete table inet away\n"))
    }
}
