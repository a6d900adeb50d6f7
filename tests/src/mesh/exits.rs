//! Exits of a [`Mesh`]: what an admin asks for through the coordinator's API, who is seen on the Internet as whom, and what
//! leaves a site past its tunnels.

use super::{INTERFACE, Mesh, NETWORK};
use crate::lab::{Answers, Capture, Host, Lab, Partners, Talker, Topology, eventually};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{net::IpAddr, time::Duration};

/// The site whose traffic leaves elsewhere.
pub const HOME: &str = "home";
/// From an admin's command to its effect, a handshake included.
pub const EFFECT: Duration = Duration::from_secs(10);
/// The coordinator's HTTPS port.
const API: u16 = 8443;

/// [`Lab::exits`] with a network in it, and servers on its Internet that say who asks.
pub struct Exits {
    /// The network.
    pub mesh: Mesh,
    _answers: [Answers; 2],
}

/// As which addresses someone is seen on the Internet: IPv4, IPv6; `None` of a family without an answer.
pub type Seen = [Option<IpAddr>; 2];

/// Nobody gets an answer.
pub const NOBODY: Seen = [None, None];

impl Exits {
    /// `home` and these exits, which are switched on: by their owners and by the admin. `home` filters strictly by where
    /// packets come from (`rp_filter` 1).
    pub fn start(exits: &[&str]) -> Result<Self> {
        let mut all = Self::without_home(exits)?;
        all.mesh.join(HOME)?;
        all.mesh.wait_for_peers(&[&[HOME], exits].concat())?;
        Ok(all)
    }

    /// The same with no daemon at `home` yet.
    pub fn without_home(exits: &[&str]) -> Result<Self> {
        let mut topology = Topology::exits()?;
        topology.router.get_mut(HOME).context("a router home")?.rp_filter = 1;
        let lab = Lab::new(&topology)?;
        for exit in exits {
            let config = super::owner_config(&lab.host(exit)?, NETWORK)?;
            let config = config.unwrap_or_else(|| format!("config network '{NETWORK}'\n"));
            lab.host(exit)?.write_file(super::CONFIG, format!("{config}\toption allow_exit '1'\n"))?;
        }
        let answers = [Answers::start(&lab.host("web")?)?, Answers::start(&lab.host("resolver")?)?];
        let all = Self { mesh: Mesh::start(lab, exits)?, _answers: answers };
        exits.iter().try_for_each(|exit| all.set_exit(exit))?;
        Ok(all)
    }

    /// A host of the lab.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.mesh.host(name)
    }

    /// Has a node be an exit, with the lab's resolver.
    pub fn set_exit(&self, node: &str) -> Result<()> {
        let dns = self.addresses("resolver")?;
        self.mesh.api("PUT", &format!("nodes/{node}/exit"), Some(&json!({ "dns": dns })))?;
        eventually(EFFECT, &format!("{node} is an exit"), || -> Result<()> {
            let exits = self.mesh.api("GET", "exits", None)?;
            let is_it = |exit: &&Value| exit["node"].as_str().is_some_and(|name| name == node);
            let mut all = exits.as_array().into_iter().flatten();
            let exit = all.find(is_it).with_context(|| format!("{node} is not in {exits}"))?;
            ensure!(exit["v4"] == true, "it offers nothing: {exit}");
            Ok(())
        })
    }

    /// Has traffic of `home` go through exits.
    pub fn set_scope(&self, name: &str, wish: &Value) -> Result<()> {
        self.mesh.api("PUT", &format!("nodes/{HOME}/scopes/{name}"), Some(wish)).map(drop)
    }

    /// Has it go where it went before.
    pub fn unset_scope(&self, name: &str) -> Result<()> {
        self.mesh.api("DELETE", &format!("nodes/{HOME}/scopes/{name}"), None).map(drop)
    }

    /// Waits until a scope of `home` is in this state.
    pub fn wait_for_scope(&self, name: &str, state: &str) -> Result<()> {
        eventually(EFFECT, &format!("scope {name} is “{state}”"), || -> Result<()> {
            let scopes = self.mesh.scopes(HOME)?;
            let mut all = scopes.as_array().into_iter().flatten();
            let scope = all.find(|scope| scope["name"] == name).with_context(|| scopes.to_string())?;
            ensure!(scope["state"] == state, "{scope}");
            Ok(())
        })
    }

    /// Waits until `home` has none.
    pub fn wait_for_no_scope(&self) -> Result<()> {
        eventually(EFFECT, "there is no scope", || -> Result<()> {
            let scopes = self.mesh.scopes(HOME)?;
            ensure!(scopes.as_array().is_none_or(Vec::is_empty), "{scopes}");
            Ok(())
        })
    }

    /// Has hosts of `home` talk: to the web server, and to the resolver.
    pub fn talkers(&self, hosts: &[&str]) -> Result<Vec<Talker>> {
        hosts.iter().map(|host| self.talker(host)).collect()
    }

    /// Has one talk.
    pub fn talker(&self, host: &str) -> Result<Talker> {
        Talker::start(&self.host(host)?, self.partners()?)
    }

    /// Who is talked to.
    pub fn partners(&self) -> Result<Partners> {
        Ok(Partners { web: self.addresses("web")?, resolver: self.addresses("resolver")? })
    }

    /// As whom the Internet sees what leaves through a router; of `home` itself IPv4 alone, since its hosts have public
    /// IPv6 addresses of their own.
    pub fn through(&self, router: &str) -> Result<Seen> {
        let host = self.host(router)?;
        Ok([Some(host.public4()?.into()), host.ip6().ok().map(IpAddr::from)])
    }

    /// As whom the Internet sees a LAN host of `home` that is in no scope.
    pub fn direct(&self, host: &str) -> Result<Seen> {
        let own = self.host(host)?.ip6()?;
        Ok([Some(self.host(HOME)?.ip4()?.into()), Some(own.into())])
    }

    /// Starts to look at what leaves `home`, by whatever way.
    pub fn leaks(&self) -> Result<Capture> {
        leaks(&self.mesh.lab, HOME)
    }

    fn addresses(&self, name: &str) -> Result<[IpAddr; 2]> {
        let host = self.host(name)?;
        Ok([host.ip4()?.into(), host.ip6()?.into()])
    }
}

impl Drop for Exits {
    /// A test that passes shows no output.
    fn drop(&mut self) {
        self.mesh.look();
    }
}

impl Mesh {
    /// What the coordinator's API answers on a path below the network's.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("https://localhost:{API}/v1/networks/{NETWORK}/{path}");
        let script = format!(
            "curl --silent --show-error --fail-with-body --noproxy '*' --cacert /var/lib/gatewrt/ca.crt \
             -H \"Authorization: Bearer $(cat /var/lib/gatewrt/admin.token)\" \
             -H 'Content-Type: application/json' -X {method} {} '{url}'",
            if body.is_some() { "--data-binary @-" } else { "" }
        );
        let host = self.host("coordinator")?;
        let command =
            host.command(&["sh", "-c", &script]).stdin(body.map(Value::to_string).unwrap_or_default());
        let answer = command.run()?;
        if answer.stdout.trim().is_empty() { Ok(Value::Null) } else { answer.json() }
    }

    /// The scopes of a router, as `gatewrt status --json` shows them.
    pub fn scopes(&self, router: &str) -> Result<Value> {
        Ok(self.status(router)?["scopes"].clone())
    }

    /// All peers of a router that have an Internet prefix among their allowed IPs, by interface.
    pub fn defaults(&self, router: &str) -> Result<Vec<String>> {
        let all = self.host(router)?.run(&["wg", "show", "all", "allowed-ips"])?.stdout;
        let of_all = |line: &&str| line.contains("0.0.0.0/0") || line.contains("::/0");
        let ours = |line: &&str| line.starts_with(INTERFACE) || line.starts_with("gw-~");
        Ok(all.lines().filter(of_all).filter(ours).map(str::to_owned).collect())
    }
}

/// Starts to look, at the Internet's core, at all that comes from a site and is neither a tunnel's nor the control plane's,
/// nor one neighbour's word to another. The source tells nothing (what leaks may be masqueraded or not), so whatever comes
/// from no other host of the lab counts. What a router itself refuses does not: a late answer to a connection that was cut
/// is for nobody behind it any more.
pub fn leaks(lab: &Lab, site: &str) -> Result<Capture> {
    let hosts = lab.hosts();
    let others = hosts.iter().filter(|host| host.name() != site);
    let on_core = |host: &&Host| host.public4().is_ok_and(|public| host.ip4().is_ok_and(|own| own == public));
    let others: Vec<&Host> = others.filter(on_core).filter(|host| host.name() != "core").collect();
    let mut filter = String::from(
        "not arp and not udp dst port 51820 and not ip6 proto 0 and not (icmp6 and ip6[40] >= 130 and ip6[40] <= 143) \
         and not (icmp and icmp[0] = 3) and not (icmp6 and ip6[40] = 1) and not (ip and tcp[13] & 4 != 0)",
    );
    for host in others {
        let direction = if host.name() == "coordinator" { "host" } else { "src host" };
        let v6 = host.ip6().map(|address| format!(" and not {direction} {address}")).unwrap_or_default();
        filter += &format!(" and not {direction} {}{v6}", host.ip4()?);
    }
    Capture::incoming(&lab.host("core")?, &filter)
}
