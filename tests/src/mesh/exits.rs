//! Exits of a [`Mesh`]: requests of an admin to the coordinator's API, the addresses under which hosts are seen on the
//! Internet, and a capture of packets that leave a site outside its tunnels.

use super::{INTERFACE, Mesh, NETWORK};
use crate::lab::{Answers, Capture, Host, Lab, Partners, Topology, TrafficGenerator, eventually};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{net::IpAddr, time::Duration};

/// Site whose traffic leaves through exits.
pub const HOME: &str = "home";
/// Time limit from an admin's command to its effect, a handshake included.
pub const EFFECT: Duration = Duration::from_secs(10);
/// The coordinator's HTTPS port.
const API: u16 = 8443;

/// [`Lab::exits`] with a network in it, and servers on its Internet that answer with the source address they see.
pub struct Exits {
    /// The network.
    pub mesh: Mesh,
    _answers: [Answers; 2],
}

/// Addresses under which a host is seen on the Internet: IPv4, IPv6; `None` for a family without an answer.
pub type Seen = [Option<IpAddr>; 2];

/// Value for a host that gets no answer over either family.
pub const NOBODY: Seen = [None, None];

impl Exits {
    /// Starts `home` and these exits, which their owners allow and the admin has switched on. `home` filters strictly
    /// by reverse path (`rp_filter` 1).
    pub fn start(exits: &[&str]) -> Result<Self> {
        let mut all = Self::without_home(exits)?;
        all.mesh.join(HOME)?;
        all.mesh.wait_for_peers(&[&[HOME], exits].concat())?;
        Ok(all)
    }

    /// Starts the exits as [`Exits::start`] does, with no daemon at `home` yet.
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

    /// Makes a node an exit, with the lab's resolver, and waits until it offers IPv4.
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

    /// Creates or changes an exit scope of `home`, whose traffic then goes through exits.
    pub fn set_scope(&self, name: &str, wish: &Value) -> Result<()> {
        self.mesh.api("PUT", &format!("nodes/{HOME}/scopes/{name}"), Some(wish)).map(drop)
    }

    /// Deletes an exit scope of `home`, whose traffic then goes where it went before.
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

    /// Waits until `home` has no scope.
    pub fn wait_for_no_scope(&self) -> Result<()> {
        eventually(EFFECT, "there is no scope", || -> Result<()> {
            let scopes = self.mesh.scopes(HOME)?;
            ensure!(scopes.as_array().is_none_or(Vec::is_empty), "{scopes}");
            Ok(())
        })
    }

    /// Starts traffic generators on hosts of `home`, which send to the web server and the resolver.
    pub fn generators(&self, hosts: &[&str]) -> Result<Vec<TrafficGenerator>> {
        hosts.iter().map(|host| self.generator(host)).collect()
    }

    /// Starts a traffic generator on one host.
    pub fn generator(&self, host: &str) -> Result<TrafficGenerator> {
        TrafficGenerator::start(&self.host(host)?, self.partners()?)
    }

    /// Servers that the generators send to.
    pub fn partners(&self) -> Result<Partners> {
        Ok(Partners { web: self.addresses("web")?, resolver: self.addresses("resolver")? })
    }

    /// Addresses under which the Internet sees traffic that leaves through a router. For `home` itself only the IPv4
    /// address holds, since its hosts have public IPv6 addresses of their own.
    pub fn through(&self, router: &str) -> Result<Seen> {
        let host = self.host(router)?;
        Ok([Some(host.public4()?.into()), host.ip6().ok().map(IpAddr::from)])
    }

    /// Addresses under which the Internet sees a LAN host of `home` that is in no scope.
    pub fn direct(&self, host: &str) -> Result<Seen> {
        let own = self.host(host)?.ip6()?;
        Ok([Some(self.host(HOME)?.ip4()?.into()), Some(own.into())])
    }

    /// Starts to capture packets that leave `home` outside its tunnels, see [`leaks`].
    pub fn leaks(&self) -> Result<Capture> {
        leaks(&self.mesh.lab, HOME)
    }

    fn addresses(&self, name: &str) -> Result<[IpAddr; 2]> {
        let host = self.host(name)?;
        Ok([host.ip4()?.into(), host.ip6()?.into()])
    }
}

impl Drop for Exits {
    /// Prints what each router does with its traffic; of a test that passes, nothing is shown.
    fn drop(&mut self) {
        self.mesh.look();
    }
}

impl Mesh {
    /// Answer of the coordinator's API on a path below the network's; null if it is empty.
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

    /// Scopes of a router, as `gatewrt status --json` shows them.
    pub fn scopes(&self, router: &str) -> Result<Value> {
        Ok(self.status(router)?["scopes"].clone())
    }

    /// Peers of a router, on our interfaces, that have a default route among their allowed IPs; one line each, as
    /// `wg show all allowed-ips` writes them.
    pub fn defaults(&self, router: &str) -> Result<Vec<String>> {
        let all = self.host(router)?.run(&["wg", "show", "all", "allowed-ips"])?.stdout;
        let of_all = |line: &&str| line.contains("0.0.0.0/0") || line.contains("::/0");
        let ours = |line: &&str| line.starts_with(INTERFACE) || line.starts_with("gw-~");
        Ok(all.lines().filter(of_all).filter(ours).map(str::to_owned).collect())
    }
}

/// Starts to capture, at the Internet's core, packets from a site that belong neither to a tunnel, nor to the control
/// plane, nor to neighbour discovery. The source address tells nothing (leaked packets may be masqueraded or not), so
/// every packet counts that comes from no other host of the lab. Refusals by a router itself (ICMP unreachable, TCP
/// resets) don't count: they answer late packets of a connection that was cut, which reach nobody behind the router any
/// more.
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
