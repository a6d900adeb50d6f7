//! A network of sites in the [`lab`](crate::lab): the coordinator serves on the host `coordinator`, the daemon runs on
//! routers, and tests control both through their command lines.

pub mod clients;
pub mod exits;
mod foreign;
mod machines;

use crate::{
    lab::{Host, Lab, Output, Process, eventually, ping},
    vm::Router,
};
use anyhow::{Context, Result, bail, ensure};
use foreign::Bystanders;
pub use foreign::foreign_kit;
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// Name of the network; the interface on the routers is `gw-home`.
pub const NETWORK: &str = "home";
/// Interface of the network on a router.
pub const INTERFACE: &str = "gw-home";
/// UDP port of every router, and the one that NAT boxes forward.
const PORT: u16 = 51820;
/// Command that starts the daemon as procd does on a router, with two of root's capabilities
/// (openwrt-package/gatewrt/files/gatewrt.capabilities.json).
const DAEMON: [&str; 6] = [
    "setpriv",
    "--bounding-set=-all,+net_admin,+net_raw",
    "--inh-caps=-all,+net_admin,+net_raw",
    "--ambient-caps=-all,+net_admin,+net_raw",
    "--no-new-privs",
    "gatewrtd",
];
/// Script that prints what a router does with its traffic: WireGuard, rules, routes (tables of networks and scopes
/// only), firewall, tracked connections and status.
const LOOK: &str = "exec 2>&1; wg show
for family in -4 -6; do
    ip $family rule
    for table in 26487 $(seq 26500 26515); do
        ip $family route show table $table 2>/dev/null | sed \"s/^/$table: /\"
    done
done
nft list table inet gatewrt; cat /proc/net/nf_conntrack; gatewrt status";
/// UCI file of a router.
pub const CONFIG: &str = "/etc/config/gatewrt";
/// Text that the coordinator logs last before it answers.
pub const SERVES: &str = "code create";

/// A lab with a coordinator and routers that joined its network.
///
/// Every router has foreign objects on it, look-alikes of ours among them: most are placed before its daemon starts,
/// those on our interface when it has joined. A mesh that goes out of scope fails its test unless they are all
/// unchanged.
pub struct Mesh {
    /// Emulated Internet.
    pub lab: Lab,
    /// Running coordinator.
    pub coordinator: Process,
    /// Running daemons, by router; those in virtual machines are not among them.
    pub daemons: BTreeMap<String, Process>,
    /// Routers that are virtual machines, by name.
    pub machines: BTreeMap<String, Router>,
    bystanders: Bystanders,
}

impl Mesh {
    /// Starts a coordinator in `lab`, creates the network, and has `routers` join it one after the other.
    pub fn start(lab: Lab, routers: &[&str]) -> Result<Self> {
        let coordinator = serve(&lab)?;
        let (daemons, machines, bystanders) = Default::default();
        let mut mesh = Self { lab, coordinator, daemons, machines, bystanders };
        mesh.admin(&["network", "create", NETWORK])?;
        routers.iter().try_for_each(|router| mesh.join(router))?;
        mesh.wait_for_peers(routers)?;
        Ok(mesh)
    }

    /// Builds three sites that know each other, each serving its LAN with NAT off, both families.
    pub fn three_sites() -> Result<Self> {
        let mesh = Self::start(Lab::three_sites()?, &["office", "home", "barn"])?;
        mesh.serve_lans(&["office", "home", "barn"], false)?;
        mesh.wait_for_lans(&["office-pc", "home-pc", "barn-pc"])?;
        Ok(mesh)
    }

    /// Builds two sites that know each other, each serving its LAN with NAT off, both families.
    pub fn two_sites() -> Result<Self> {
        let mesh = Self::start(Lab::two_sites()?, &["office", "home"])?;
        mesh.serve_lans(&["office", "home"], false)?;
        mesh.wait_for_lans(&["office-pc", "home-pc"])?;
        Ok(mesh)
    }

    /// A host of the lab.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.lab.host(name)
    }

    /// Runs `gatewrt-coordinator` with these arguments where the coordinator runs.
    pub fn admin(&self, arguments: &[&str]) -> Result<Output> {
        self.admin_command(arguments)?.run()
    }

    /// Runs `gatewrt-coordinator` as [`Mesh::admin`] does, whatever its exit code.
    pub fn admin_output(&self, arguments: &[&str]) -> Result<Output> {
        self.admin_command(arguments)?.output()
    }

    /// Answer of `gatewrt-coordinator --json` to these arguments.
    pub fn admin_json(&self, arguments: &[&str]) -> Result<Value> {
        self.admin(&[&["--json"], arguments].concat())?.json()
    }

    fn admin_command(&self, arguments: &[&str]) -> Result<crate::lab::Cmd> {
        // A test sees for itself whether routers obey, and when.
        let waits = if arguments.contains(&"--wait") { &[][..] } else { &["--no-wait"] };
        Ok(self.host("coordinator")?.command(&[&["gatewrt-coordinator"], waits, arguments].concat()))
    }

    /// Creates a join code for `uses` routers.
    pub fn code(&self, uses: u32) -> Result<String> {
        let output = self.admin(&["code", "create", NETWORK, "--uses", &uses.to_string()])?;
        Ok(output.stdout.trim().to_owned())
    }

    /// Starts the daemon on a router and has it join under the router's name.
    pub fn join(&mut self, router: &str) -> Result<()> {
        let code = self.code(1)?;
        self.configure(router)?;
        self.start_daemon(router)?;
        self.gatewrt(router, &["join", &code, "--name", router])?;
        self.place_foreign_on_interface(router)
    }

    /// Places the foreign objects that need nothing of ours on a router, once per boot. [`Mesh::start_daemon`] calls
    /// it; a test that looks at a router as it was before the first start calls it earlier.
    pub fn place_foreign(&mut self, router: &str) -> Result<()> {
        self.bystanders.place(&self.lab.host(router)?)
    }

    /// Waits up to 10 s until our interface is up, and places the foreign objects on it, once per boot. [`Mesh::join`]
    /// calls it.
    pub fn place_foreign_on_interface(&mut self, router: &str) -> Result<()> {
        let host = self.host(router)?;
        eventually(Duration::from_secs(10), &format!("{INTERFACE} is up on {router}"), || -> Result<()> {
            let link = host.run(&["ip", "link", "show", "dev", INTERFACE])?.stdout;
            ensure!(link.contains(",UP"), "{link}");
            Ok(())
        })?;
        self.bystanders.place_on_interface(router)
    }

    /// Stops expecting the foreign objects on our interface of a router. Call it before the interface is removed on
    /// purpose: by leaving, by the node's removal, by the end of its userspace WireGuard.
    pub fn forget_interface(&mut self, router: &str) {
        self.bystanders.forget_interface(router);
    }

    /// Removes the foreign objects of a router, except those on our interface, before something else would.
    pub fn remove_foreign(&mut self, router: &str) -> Result<()> {
        self.bystanders.remove(&self.lab.host(router)?)
    }

    /// Fails the test unless all foreign objects on all routers are unchanged. Dropping the mesh checks it too.
    #[track_caller]
    pub fn assert_foreign_untouched(&self) {
        match self.bystanders.changes() {
            Ok(changes) => assert!(
                changes.is_empty(),
                "foreign objects were touched (if {INTERFACE} goes in this test: Mesh::forget_interface)\n{}",
                changes.join("\n")
            ),
            Err(error) => panic!("foreign objects can't be looked at: {error:#}"),
        }
    }

    /// Writes the UCI file of a router behind a NAT box, unless there is one: it states the public address and port
    /// that the box forwards, as the router's owner would.
    pub fn configure(&self, router: &str) -> Result<()> {
        let host = self.host(router)?;
        match owner_config(&host, NETWORK)? {
            Some(text) if !host.exists(CONFIG)? => host.write_file(CONFIG, text),
            _ => Ok(()),
        }
    }

    /// Starts the daemon on a router; it is ready when this returns.
    pub fn start_daemon(&mut self, router: &str) -> Result<()> {
        self.place_foreign(router)?;
        let daemon = self.host(router)?.spawn(&DAEMON)?;
        daemon.wait_for_log(Duration::from_secs(10), "is running")?;
        self.daemons.insert(router.to_owned(), daemon);
        Ok(())
    }

    /// The daemon of a router.
    pub fn daemon(&self, router: &str) -> Result<&Process> {
        self.daemons.get(router).with_context(|| format!("no daemon was started on {router}"))
    }

    /// Runs `gatewrt` with these arguments on a router.
    pub fn gatewrt(&self, router: &str, arguments: &[&str]) -> Result<Output> {
        self.on(router, &[&["gatewrt"], arguments].concat())
    }

    /// Runs a command on a router, be it a host of the lab or a virtual machine.
    pub fn on(&self, router: &str, argv: &[&str]) -> Result<Output> {
        match self.machines.get(router) {
            Some(machine) => machine.run(argv),
            None => self.host(router)?.run(argv),
        }
    }

    /// Answer of `gatewrt --json` on a router to these arguments.
    pub fn gatewrt_json(&self, router: &str, arguments: &[&str]) -> Result<Value> {
        self.gatewrt(router, &[arguments, &["--json"]].concat())?.json()
    }

    /// Network's part of `gatewrt status --json`.
    pub fn status(&self, router: &str) -> Result<Value> {
        let status = self.gatewrt_json(router, &["status"])?;
        Ok(status["networks"][0].clone())
    }

    /// Steps that the daemon would apply to the kernel now.
    pub fn plan(&self, router: &str) -> Result<Vec<Value>> {
        let plan = self.gatewrt_json(router, &["plan"])?;
        plan["steps"].as_array().cloned().context("the plan has steps")
    }

    /// Overlay addresses of a router: IPv4, then IPv6.
    pub fn overlay(&self, router: &str) -> Result<[IpAddr; 2]> {
        let status = self.status(router)?;
        let address =
            |at: usize| status["addresses"][at].as_str().context("an address")?.parse().context("an address");
        Ok([address(0)?, address(1)?])
    }

    /// Has each router serve its LAN, both families.
    pub fn serve_lans(&self, routers: &[&str], nat: bool) -> Result<()> {
        for router in routers {
            for prefix in self.lans(router)? {
                self.serve(router, &prefix, nat)?;
            }
        }
        Ok(())
    }

    /// Has a router serve a prefix.
    pub fn serve(&self, router: &str, prefix: &str, nat: bool) -> Result<()> {
        self.admin(&["egress", "set", NETWORK, router, prefix, "--nat", if nat { "on" } else { "off" }])?;
        Ok(())
    }

    /// Prefixes of a router's LAN: IPv4 and IPv6.
    pub fn lans(&self, router: &str) -> Result<[String; 2]> {
        self.host(router)?.lan_prefixes()
    }

    /// Waits until each router has a handshake with every other.
    pub fn wait_for_peers(&self, routers: &[&str]) -> Result<()> {
        for router in routers {
            eventually(Duration::from_secs(20), &format!("{router} has handshakes with all"), || {
                self.has_handshakes(router, routers.len() - 1)
            })?;
        }
        Ok(())
    }

    fn has_handshakes(&self, router: &str, wanted: usize) -> Result<()> {
        check_handshakes(&self.status(router)?, wanted)
    }

    /// Waits until each of these hosts reaches the next one (the last reaches the first), both families, and all
    /// routers have confirmed their configuration.
    pub fn wait_for_lans(&self, hosts: &[&str]) -> Result<()> {
        for (from, to) in hosts.iter().zip(hosts.iter().cycle().skip(1)) {
            self.wait_for_path(from, to)?;
        }
        for router in self.daemons.keys().chain(self.machines.keys()) {
            self.wait_until_confirmed(router)?;
        }
        Ok(())
    }

    /// Waits until a router's control link has confirmed the configuration in effect. Before that, the router rolls it
    /// back if its daemon restarts or the coordinator stays away.
    pub fn wait_until_confirmed(&self, router: &str) -> Result<()> {
        eventually(Duration::from_secs(20), &format!("{router} has confirmed what is in effect"), || {
            let trial = &self.status(router)?["trial_s"];
            ensure!(trial.is_null(), "{trial} s are left to confirm it");
            Ok(())
        })
    }

    /// Waits until one host reaches another, both families.
    pub fn wait_for_path(&self, from: &str, to: &str) -> Result<()> {
        let (host, target) = (self.host(from)?, self.host(to)?);
        let addresses: [IpAddr; 2] = [target.ip4()?.into(), target.ip6()?.into()];
        for address in addresses {
            let what = format!("{from} reaches {to} at {address}");
            eventually(Duration::from_secs(20), &what, || ping(&host, address))?;
        }
        Ok(())
    }

    /// Prints what each router does with its traffic, to explain why a test failed.
    pub fn look(&self) {
        for name in self.daemons.keys() {
            let look = self.host(name).and_then(|host| host.output(&["sh", "-c", LOOK]));
            eprintln!(
                "--- on {name}:\n{}---",
                look.map_or_else(|error| format!("{error:#}"), |look| look.stdout)
            );
        }
    }

    /// Waits until the daemon of a router has nothing left to do.
    pub fn wait_until_settled(&self, router: &str) -> Result<()> {
        eventually(Duration::from_secs(10), &format!("{router} is settled"), || {
            let plan = self.plan(router)?;
            if plan.is_empty() { Ok(()) } else { bail!("{plan:?}") }
        })
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_foreign_untouched();
        }
    }
}

/// Starts the coordinator; it answers when this returns.
pub fn serve(lab: &Lab) -> Result<Process> {
    let host = lab.host("coordinator")?;
    let command = serve_command(&host)?;
    let coordinator = host.spawn(&command.split(' ').collect::<Vec<_>>())?;
    coordinator.wait_for_log(Duration::from_secs(20), SERVES)?;
    Ok(coordinator)
}

/// Command that starts the coordinator on a host that others reach at its addresses.
pub fn serve_command(host: &Host) -> Result<String> {
    Ok(format!("gatewrt-coordinator serve --advertise {} --advertise {}", host.ip4()?, host.ip6()?))
}

/// UCI section that the owner of a router behind a NAT box writes: the public address and port that the box forwards.
/// None for a router that is directly on the Internet.
pub fn owner_config(host: &Host, network: &str) -> Result<Option<String>> {
    let public = host.public4()?;
    let text = || format!("config network '{network}'\n\tlist endpoint '{public}:{PORT}'\n");
    Ok((host.ip4()? != public).then(text))
}

/// Checks that a network's part of `gatewrt status --json` shows a handshake with `wanted` peers, and no other peer.
pub fn check_handshakes(status: &Value, wanted: usize) -> Result<()> {
    let peers = status["peers"].as_array().context("peers")?;
    let fresh = peers.iter().filter(|peer| peer["path"] == "direct").count();
    ensure!(peers.len() == wanted && fresh == wanted, "{fresh} of {} peers, {wanted} wanted", peers.len());
    Ok(())
}
