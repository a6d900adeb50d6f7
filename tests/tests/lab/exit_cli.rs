//! The owner's settings on the router: `gatewrt exit`, and UCI. The traffic shows which setting takes precedence.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Answers, Partners, TrafficGenerator, Way, eventually},
    mesh::{
        NETWORK,
        exits::{EFFECT, Exits, HOME, Seen},
    },
};
use serde_json::{Value, json};

/// All hosts at `home`; true for those on a LAN.
const HOSTS: [(&str, bool); 3] = [("home-pc", true), ("guest-pc", true), (HOME, false)];
const CONFIG: &str = "/etc/config/gatewrt";

struct Bed {
    exits: Exits,
    generators: Vec<TrafficGenerator>,
}

impl Bed {
    fn start() -> Result<Self> {
        let exits = Exits::start(&["farm", "office"])?;
        let generators = exits.generators(&HOSTS.map(|(name, _)| name))?;
        Ok(Self { exits, generators })
    }

    /// Waits until the LANs' traffic leaves through this exit; the router's own stays on its WAN.
    fn wait_until_lans_leave(&self, through: Option<&str>) -> Result<()> {
        let seen = |(name, lan): (&str, bool)| -> Result<Seen> {
            match through.filter(|_| lan) {
                Some(exit) => self.exits.through(exit),
                None => self.exits.direct(name),
            }
        };
        let wanted = self.generators.iter().zip(HOSTS).map(|(generator, host)| Ok((generator, seen(host)?)));
        TrafficGenerator::wait_for_all(EFFECT, &wanted.collect::<Result<Vec<_>>>()?)
            .with_context(|| format!("the LANs through {through:?}"))
    }

    fn exit(&self, arguments: &[&str]) -> Result<()> {
        self.exits.mesh.gatewrt(HOME, &[&["exit"], arguments].concat()).map(drop)
    }

    /// Asserts that `gatewrt exit` fails with these words and exit status 1.
    fn refused(&self, arguments: &[&str], words: &str) -> Result<()> {
        let output = self.exits.host(HOME)?.output(&[&["gatewrt", "exit"], arguments].concat())?;
        ensure!(output.code() == 1 && output.stderr.contains(words), "{arguments:?}: {output:?}");
        Ok(())
    }

    fn scopes_by(&self) -> Result<Value> {
        Ok(self.exits.mesh.status(HOME)?["scopes_by"].clone())
    }
}

/// UCI takes precedence over `gatewrt exit`, which takes precedence over the coordinator. An invalid command changes
/// nothing; a valid one outlives the daemon.
#[test]
fn owners_and_admins_settings_take_effect_by_precedence() -> Result<()> {
    let mut bed = Bed::start()?;
    bed.wait_until_lans_leave(None)?;
    eventually(EFFECT, "both exits are listed, with what they lead to", || -> Result<()> {
        let list = bed.exits.mesh.gatewrt_json(HOME, &["exit", "list"])?;
        let all = list[NETWORK].as_array().context("a list")?;
        let sound = |exit: &Value| exit["offer"]["v4"] == true && exit["offer"]["v6"] == true;
        ensure!(all.len() == 2 && all.iter().all(sound), "{list}");
        Ok(())
    })?;

    bed.refused(&["enable", "nowhere"], "there is no node of this name in the network")?;
    bed.refused(&["enable", "farm", HOME], "it is this router itself")?;
    bed.refused(&["enable", "auto", "--network", "elsewhere"], "has not joined")?;
    ensure!(bed.scopes_by()? == "coordinator", "what was refused changed nothing");

    bed.exit(&["enable", "farm"])?;
    bed.wait_until_lans_leave(Some("farm"))?;
    let status = bed.exits.mesh.gatewrt_json(HOME, &["exit", "status"])?;
    let scope = &status[NETWORK][0];
    ensure!(scope["exit"] == "farm" && scope["state"] == "exit" && scope["kill_switch"] == true, "{status}");
    bed.exits.mesh.wait_until_settled(HOME)?;

    bed.exits.mesh.daemon(HOME)?.stop()?;
    bed.exits.mesh.start_daemon(HOME)?;
    bed.exits.set_scope("told", &json!({ "of": ["all"], "exits": ["office"] }))?;
    bed.wait_until_lans_leave(Some("farm"))?;
    ensure!(bed.scopes_by()? == "router");

    bed.exit(&["disable"])?;
    bed.wait_until_lans_leave(None)?;
    bed.exits.set_scope("told", &json!({ "of": ["dev:lan", "dev:guest"], "exits": ["office"] }))?;
    bed.exit(&["forget"])?;
    bed.wait_until_lans_leave(Some("office"))?;

    // A setting made with `gatewrt exit` is kept while UCI overrides it.
    bed.exit(&["enable", "office", "farm"])?;
    let uci = |client: &str| format!("config network '{NETWORK}'\n\toption exit_client '{client}'\n");
    let home = bed.exits.host(HOME)?;
    home.write_file(CONFIG, uci("farm"))?;
    bed.exits.mesh.gatewrt(HOME, &["reload"])?;
    bed.wait_until_lans_leave(Some("farm"))?;
    bed.refused(&["enable", "office"], "/etc/config/gatewrt decides")?;
    home.write_file(CONFIG, uci("0"))?;
    bed.exits.mesh.gatewrt(HOME, &["reload"])?;
    bed.wait_until_lans_leave(None)?;
    ensure!(bed.scopes_by()? == "owner");
    Ok(())
}

/// With all traffic in a scope, the router's own resolver, which knows local names, still answers the LAN. All other
/// names are resolved through the exit, for hosts and for the router itself.
#[test]
fn router_whose_own_traffic_uses_the_exit_answers_its_lans() -> Result<()> {
    let bed = Bed::start()?;
    let (home, pc) = (bed.exits.host(HOME)?, bed.exits.host("home-pc")?);
    let _resolver = Answers::start(&home)?;
    let resolver = [home.lan4()?.into(), home.lan6()?.into()];
    let partners = bed.exits.partners()?;
    let local = TrafficGenerator::start_in(&pc, Partners { resolver, ..partners }, &[Way::Dns])?;
    let own: Seen = [Some(pc.ip4()?.into()), Some(pc.ip6()?.into())];
    local.wait_until_seen_as(EFFECT, own)?;
    bed.exit(&["enable", "farm", "--scope", "all"])?;
    let farm = bed.exits.through("farm")?;
    let all: Vec<_> =
        bed.generators.iter().map(|generator| (generator, farm)).chain([(&local, own)]).collect();
    TrafficGenerator::wait_for_all(EFFECT, &all)?;
    bed.exit(&["enable", "farm", "--scope", "lan"])?;
    TrafficGenerator::wait_for_all(EFFECT, &[(&local, farm)])
}
