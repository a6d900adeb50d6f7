//! Records that the broker withholds: the roster reveals them.

use super::{ROUTERS, Records, broker::Hostile, records, wait_until_current};
use anyhow::{Context, Result, ensure};
use gatewrt_protocol::{Member, NodeId, Report, Roster, Topic, WgPublicKey, jws};
use gatewrt_tests::{
    lab::{UdpStream, eventually},
    mesh::Mesh,
};
use std::{collections::BTreeMap, time::Duration};

/// Longest time until withheld records are noticed: the roster may disagree with the records for five seconds, because
/// these may be on their way.
const NOTICED: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(5);
const FAILURE: &str = "know all nodes";

/// A changed record and a new node's record are withheld: the router reports them as missing until they come.
#[test]
fn withheld_record_is_detected_and_reported_until_it_comes() -> Result<()> {
    let mut mesh = Mesh::two_sites()?;
    ROUTERS.iter().try_for_each(|router| wait_until_current(&mesh, router))?;
    let records = records(&mut mesh, "office")?;
    let mut hostile = Hostile::take_over(&mesh)?;
    let mut network = Truth::read(&records, &hostile)?;
    let (from, to) = (mesh.host("office-pc")?, mesh.host("home-pc")?);
    let stream = UdpStream::start_echo(&from, &to, to.ip4()?.into(), 100)?;

    let home = hostile.node("home").node;
    let changed = Member { rev: network.members[&home].rev + 1, ..network.members[&home].clone() };
    withhold(&mesh, &mut hostile, &mut network, changed)?;

    let new = Member {
        node: NodeId::from_entropy([9; 10]),
        rev: 1,
        name: "barn".parse().map_err(anyhow::Error::msg)?,
        key: WgPublicKey([9; 32]),
        addresses: Vec::new(),
        endpoints: Vec::new(),
        prefixes: Vec::new(),
        clients: Vec::new(),
        ..network.members[&home].clone()
    };
    withhold(&mesh, &mut hostile, &mut network, new.clone())?;
    for router in ROUTERS {
        eventually(SOON, &format!("{router} has a new peer"), || {
            let peers = mesh.host(router)?.run(&["wg", "show", "gw-home", "peers"])?.stdout;
            ensure!(peers.contains(&new.key.to_string()), "{peers}");
            Ok::<_, anyhow::Error>(())
        })?;
    }
    stream.finish()?.assert_lossless();
    Ok(())
}

/// Publishes the roster without the record that it names, then the record.
fn withhold(mesh: &Mesh, hostile: &mut Hostile, network: &mut Truth, member: Member) -> Result<()> {
    let topic = Topic::Member(member.net, member.node);
    let record = hostile.coordinator.sign(&member).map_err(anyhow::Error::msg)?;
    network.members.insert(member.node, member);
    let roster = network.next_roster();
    let signed = hostile.coordinator.sign(&roster).map_err(anyhow::Error::msg)?;
    hostile.attacker.publish(&Topic::Roster(roster.net), signed)?;
    for router in ROUTERS {
        eventually(NOTICED, &format!("{router} notices"), || misses(mesh, router, true))?;
    }
    for router in ROUTERS {
        hostile.wait_for_report(router, "that a record is withheld", fails)?;
    }
    hostile.attacker.publish(&topic, record)?;
    for router in ROUTERS {
        eventually(SOON, &format!("{router} misses nothing"), || misses(mesh, router, false))?;
    }
    for router in ROUTERS {
        hostile.wait_for_report(router, "that all is there", |report| !fails(report))?;
        ensure!(
            mesh.status(router)?["applied"]["roster"] == roster.rev,
            "{router} has applied another roster"
        );
    }
    Ok(())
}

fn fails(report: &Report) -> bool {
    report.failures.iter().any(|failure| failure.what == FAILURE)
}

fn misses(mesh: &Mesh, router: &str, wanted: bool) -> Result<()> {
    let status = mesh.status(router)?;
    let failures = status["failures"].as_array().context("failures")?;
    ensure!(failures.iter().any(|failure| failure["what"] == FAILURE) == wanted, "{failures:?}");
    Ok(())
}

/// Content of the coordinator's records.
struct Truth {
    roster: Roster,
    members: BTreeMap<NodeId, Member>,
}

impl Truth {
    fn read(records: &Records, hostile: &Hostile) -> Result<Self> {
        let key = hostile.coordinator.public();
        let roster = Topic::Roster(hostile.node("office").net).to_string();
        let roster: Roster = jws::open(records[&roster].as_bytes(), &key).map_err(anyhow::Error::msg)?;
        let members = records.iter().filter(|(topic, _)| topic.contains("/member/"));
        let members = members.map(|(_, token)| jws::open(token.as_bytes(), &key).map_err(anyhow::Error::msg));
        let members = members.collect::<Result<Vec<Member>>>()?;
        let members: BTreeMap<_, _> = members.into_iter().map(|member| (member.node, member)).collect();
        let revisions: BTreeMap<_, _> = members.iter().map(|(node, member)| (*node, member.rev)).collect();
        ensure!(roster.describes(&revisions), "{roster:?} {revisions:?}");
        Ok(Self { roster, members })
    }

    fn next_roster(&mut self) -> Roster {
        let revisions: BTreeMap<_, _> =
            self.members.iter().map(|(node, member)| (*node, member.rev)).collect();
        self.roster = Roster::new(self.roster.net, self.roster.rev + 1, &revisions);
        self.roster.clone()
    }
}
