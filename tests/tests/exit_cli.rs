//! What the router's owner says on the router: `gatewrt exit`, and UCI. Whose word counts is seen in the traffic.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::{Answers, Partners, Talker, Way, eventually},
    mesh::{
        NETWORK,
        exits::{EFFECT, Exits, HOME, Seen},
    },
};
use serde_json::{Value, json};

/// Everyone at `home`, and whether the LANs' traffic alone concerns it.
const HOSTS: [(&str, bool); 3] = [("home-pc", true), ("guest-pc", true), (HOME, false)];
const CONFIG: &str = "/etc/config/gatewrt";

struct Bed {
    exits: Exits,
    talkers: Vec<Talker>,
}

impl Bed {
    fn start() -> Result<Self> {
        let exits = Exits::start(&["farm", "office"])?;
        let talkers = exits.talkers(&HOSTS.map(|(name, _)| name))?;
        Ok(Self { exits, talkers })
    }

    /// The LANs are seen as leaving there; the router itself stays on its WAN.
    fn wait_until_lans_leave(&self, through: Option<&str>) -> Result<()> {
        let seen = |(name, lan): (&str, bool)| -> Result<Seen> {
            match through.filter(|_| lan) {
                Some(exit) => self.exits.through(exit),
                None => self.exits.direct(name),
            }
        };
        let wanted = self.talkers.iter().zip(HOSTS).map(|(talker, host)| Ok((talker, seen(host)?)));
        Talker::wait_for_all(EFFECT, &wanted.collect::<Result<Vec<_>>>()?)
            .with_context(|| format!("the LANs through {through:?}"))
    }

    fn exit(&self, arguments: &[&str]) -> Result<()> {
        self.exits.mesh.gatewrt(HOME, &[&["exit"], arguments].concat()).map(drop)
    }

    /// It is refused with these words, and with exit status 1.
    fn refused(&self, arguments: &[&str], words: &str) -> Result<()> {
        let output = self.exits.host(HOME)?.output(&[&["gatewrt", "exit"], arguments].concat())?;
        ensure!(output.code() == 1 && output.stderr.contains(words), "{arguments:?}: {output:?}");
        Ok(())
    }

    fn scopes_by(&self) -> Result<Value> {
        Ok(self.exits.mesh.status(HOME)?["scopes_by"].clone())
    }
}

/// UCI goes before what is said on the router, and that before the coordinator; what can't work changes nothing; what was
/// said outlives the daemon.
#[test]
fn whose_word_counts_is_seen_in_the_traffic() -> Result<()> {
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

    // What is said here stays said under UCI's word.
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

/// With everything in a scope the router's own resolver still answers the LAN, which knows names that no one else does; any
/// other is asked through the exit, by hosts and by the router itself.
#[test]
fn the_router_answers_its_lans_when_it_asks_through_the_exit_itself() -> Result<()> {
    let bed = Bed::start()?;
    let (home, pc) = (bed.exits.host(HOME)?, bed.exits.host("home-pc")?);
    let _resolver = Answers::start(&home)?;
    let resolver = [home.lan4()?.into(), home.lan6()?.into()];
    let partners = bed.exits.partners()?;
    let local = Talker::start_in(&pc, Partners { resolver, ..partners }, &[Way::Dns])?;
    let own: Seen = [Some(pc.ip4()?.into()), Some(pc.ip6()?.into())];
    local.wait_until_seen_as(EFFECT, own)?;
    bed.exit(&["enable", "farm", "--scope", "all"])?;
    let farm = bed.exits.through("farm")?;
    let all: Vec<_> = bed.talkers.iter().map(|talker| (talker, farm)).chain([(&local, own)]).collect();
    Talker::wait_for_all(EFFECT, &all)?;
    bed.exit(&["enable", "farm", "--scope", "lan"])?;
    Talker::wait_for_all(EFFECT, &[(&local, farm)])
}
