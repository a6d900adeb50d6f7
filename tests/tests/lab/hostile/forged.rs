//! Messages that must be refused, one by one, each with its reason.

use super::{ROUTERS, Records, broker::Hostile, records, wait_until_current};
use anyhow::{Context, Result, ensure};
use gatewrt_protocol::{
    Assignment, Kind, Member, MemberUpdate, NetworkId, Policy, Record, Roster, Signer, Tombstone, Topic, jws,
};
use gatewrt_tests::{
    lab::{UdpStream, assert_same, eventually},
    mesh::{Mesh, NETWORK},
};
use std::{collections::BTreeMap, time::Duration};

const SOON: Duration = Duration::from_secs(10);

/// A forged message, and the reason for which it is refused.
struct Forgery {
    what: &'static str,
    topic: String,
    payload: Vec<u8>,
    reason: &'static str,
}

/// Each forged message is refused, counted, shown and reported, and the routers stay as they are.
#[test]
fn unsigned_old_or_misaddressed_record_changes_nothing() -> Result<()> {
    let mut mesh = Mesh::two_sites()?;
    let old = records(&mut mesh, "office")?;
    change_everything(&mesh)?;
    let (now, of_home) = (records(&mut mesh, "office")?, records(&mut mesh, "home")?);
    let mut hostile = Hostile::take_over(&mesh)?;
    for (topic, record) in now.iter().chain(&of_home) {
        hostile.attacker.publish_raw(topic, record.as_str())?;
    }
    let (from, to) = (mesh.host("office-pc")?, mesh.host("home-pc")?);
    let stream = UdpStream::start_echo(&from, &to, to.ip4()?.into(), 100)?;
    ROUTERS.iter().try_for_each(|router| mesh.wait_until_settled(router))?;
    let before = ROUTERS.map(|router| mesh.host(router).and_then(|host| host.dump()));

    let mut expected: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    for forgery in forgeries(&hostile, &old, &now, &of_home)? {
        hostile.attacker.publish_raw(&forgery.topic, forgery.payload)?;
        for router in ROUTERS {
            let refused = expected.entry(router).or_default();
            if forgery.topic.contains("/net/")
                || forgery.topic.contains(&hostile.node(router).node.to_string())
            {
                *refused.entry(forgery.reason.to_owned()).or_default() += 1;
            }
            eventually(SOON, &format!("{router} refuses: {}", forgery.what), || {
                has_refused(&mesh, router, refused)
            })?;
        }
    }
    for router in ROUTERS {
        assert_shown(&mesh, router, &expected[router])?;
        hostile.wait_for_report(router, "all of it", |report| {
            report.refused == expected[router]
                && report.failures.iter().any(|failure| failure.what.starts_with("take in "))
        })?;
    }

    alter_each_byte(&mesh, &mut hostile, &now)?;
    for (router, before) in ROUTERS.iter().zip(before) {
        assert_same(&before?, &mesh.host(router)?.dump()?);
        ensure!(mesh.plan(router)?.is_empty());
    }
    stream.finish()?.assert_lossless();
    Ok(())
}

/// Changes the network so that every topic but the policy's has an older, validly signed record.
fn change_everything(mesh: &Mesh) -> Result<()> {
    for router in ROUTERS {
        let prefixes = mesh.lans(router)?;
        let unset = prefixes.iter();
        unset
            .map(|prefix| mesh.admin(&["egress", "unset", NETWORK, router, prefix]))
            .collect::<Result<Vec<_>>>()?;
    }
    mesh.serve_lans(&ROUTERS, false)?;
    ROUTERS.iter().try_for_each(|router| wait_until_current(mesh, router))?;
    mesh.wait_for_lans(&["office-pc", "home-pc"])
}

fn has_refused(mesh: &Mesh, router: &str, expected: &BTreeMap<String, u64>) -> Result<()> {
    let status = mesh.status(router)?;
    let refused: BTreeMap<String, u64> = serde_json::from_value(status["refused"].clone())?;
    ensure!(refused == *expected, "refused {refused:?}, expected {expected:?}");
    Ok(())
}

/// Asserts that `gatewrt status` shows these counts in its text, too.
fn assert_shown(mesh: &Mesh, router: &str, expected: &BTreeMap<String, u64>) -> Result<()> {
    let text = mesh.gatewrt(router, &["status"])?.stdout;
    let line =
        text.lines().find(|line| line.trim_start().starts_with("refused")).context("a line on refusals")?;
    println!("{router}: {}", line.trim());
    for (reason, count) in expected {
        ensure!(line.contains(&format!("{count} {reason}")), "{line}: {count} {reason}");
    }
    ensure!(text.contains("could not take in "), "{text}");
    Ok(())
}

/// Sends a validly signed, newer record with one byte changed, for each byte in turn: all are refused.
fn alter_each_byte(mesh: &Mesh, hostile: &mut Hostile, now: &Records) -> Result<()> {
    let (topic, member) = member_of(hostile, "home", now)?;
    let newer = hostile.coordinator.sign(&Member { rev: member.rev + 1, ..member }).map_err(say)?;
    let refused = |router| -> Result<u64> {
        let status = mesh.status(router)?;
        Ok(status["refused"]
            .as_object()
            .context("counts")?
            .values()
            .filter_map(serde_json::Value::as_u64)
            .sum())
    };
    let wanted = refused("office")? + newer.len() as u64;
    for at in 0..newer.len() {
        let mut altered = newer.clone().into_bytes();
        altered[at] ^= 1;
        hostile.attacker.publish_raw(&topic.to_string(), altered)?;
    }
    eventually(SOON, &format!("each of {} alterations is refused", newer.len()), || {
        let refused = refused("office")?;
        ensure!(refused == wanted, "{refused} of {wanted}");
        Ok::<_, anyhow::Error>(())
    })
}

fn member_of(hostile: &Hostile, router: &str, now: &Records) -> Result<(Topic, Member)> {
    let node = hostile.node(router);
    let topic = Topic::Member(node.net, node.node);
    Ok((topic, read(hostile, now, topic)?))
}

fn read<T: Record>(hostile: &Hostile, records: &Records, topic: Topic) -> Result<T> {
    let token = records.get(&topic.to_string()).with_context(|| format!("a record on {topic}"))?;
    jws::open(token.as_bytes(), &hostile.coordinator.public()).map_err(say)
}

fn say(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

/// All messages that one router or both must refuse; only the assignment is for the office alone.
fn forgeries(hostile: &Hostile, old: &Records, now: &Records, of_home: &Records) -> Result<Vec<Forgery>> {
    let (member_topic, member) = member_of(hostile, "home", now)?;
    let (other_topic, _) = member_of(hostile, "office", now)?;
    let (office, home) = (hostile.node("office"), hostile.node("home"));
    let [policy_topic, roster_topic] = [Topic::Policy(office.net), Topic::Roster(office.net)];
    let own = Topic::Assignment(office.node);
    let policy: Policy = read(hostile, now, policy_topic)?;
    let roster: Roster = read(hostile, now, roster_topic)?;
    let assignment: Assignment = read(hostile, now, own)?;
    let sound = |topic: Topic| now[&topic.to_string()].clone();
    let elsewhere = NetworkId::from_entropy([7; 10]);
    let newer = Member { rev: member.rev + 1, endpoints: Vec::new(), ..member.clone() };
    let truly = |record: &dyn Signed| record.signed(&hostile.coordinator);
    let thief = Signer::from_seed(&[6; 32]);

    let mut all = Vec::new();
    let mut add = |what, topic: Topic, payload: String, reason| {
        all.push(Forgery { what, topic: topic.to_string(), payload: payload.into_bytes(), reason });
    };
    add("signed with another key", member_topic, newer.signed(&thief), "bad-signature");
    add("signed by another node", member_topic, newer.signed(&home.signer), "bad-signature");
    add("another key's assignment", own, next(&assignment).signed(&thief), "bad-signature");
    let transplanted = transplant(&truly(&newer), &sound(member_topic));
    add("with the signature of another record", member_topic, transplanted, "bad-signature");
    for topic in [member_topic, other_topic, roster_topic, own] {
        add("replayed", topic, old[&topic.to_string()].clone(), "old-revision");
    }
    let rolled_back = Member { rev: member.rev - 1, endpoints: Vec::new(), ..member.clone() };
    add("rolled back", member_topic, truly(&rolled_back), "old-revision");
    add(
        "rolled back",
        own,
        truly(&Assignment { rev: 1, egress: Vec::new(), ..assignment.clone() }),
        "old-revision",
    );
    add("rolled back to nothing", policy_topic, truly(&Policy { rev: 0, ..policy.clone() }), "old-revision");
    let gone = MemberUpdate::Tombstone(Tombstone { net: home.net, node: home.node, rev: member.rev - 1 });
    add("an old removal", member_topic, truly(&gone), "old-revision");
    let changed = Member { endpoints: Vec::new(), ..member.clone() };
    add("the same revision with other content", member_topic, truly(&changed), "conflict");
    add(
        "the same revision with other content",
        own,
        truly(&Assignment { egress: Vec::new(), ..assignment.clone() }),
        "conflict",
    );
    add("without its end", member_topic, cut(truly(&newer), 1), "malformed");
    add("without most of it", member_topic, truly(&newer).chars().take(40).collect(), "malformed");
    add("no record at all", roster_topic, "{\"rev\": 99}".to_owned(), "malformed");
    add(
        "signed, but nothing to read",
        member_topic,
        hostile.coordinator.sign_bytes(Kind::Member, b"{}"),
        "malformed",
    );
    let padded = |kind, length: usize| {
        let payload = format!("{{\"padding\": \"{}\"}}", "x".repeat(length));
        hostile.coordinator.sign_bytes(kind, payload.as_bytes())
    };
    add("20 KB long and signed", member_topic, padded(Kind::Member, 20_000), "too-long");
    add("200 KB long and signed", own, padded(Kind::Assignment, 200_000), "too-long");
    add("300 KB long", own, "x".repeat(300_000), "too-long");
    add("300 KB long and signed", roster_topic, padded(Kind::Roster, 300_000), "too-long");
    add(
        "of another network",
        member_topic,
        truly(&Member { net: elsewhere, ..newer.clone() }),
        "for-another",
    );
    add(
        "of another network",
        policy_topic,
        truly(&Policy { net: elsewhere, mtu: 1280, ..next_policy(&policy) }),
        "for-another",
    );
    add(
        "of another network",
        roster_topic,
        truly(&Roster { net: elsewhere, rev: roster.rev + 1, ..roster.clone() }),
        "for-another",
    );
    add("of another node", member_topic, sound(other_topic), "for-another");
    add("of another node", own, of_home[&Topic::Assignment(home.node).to_string()].clone(), "for-another");
    add("of another kind", member_topic, sound(roster_topic), "wrong-kind");
    add("of another kind", policy_topic, sound(own), "wrong-kind");
    add("of another kind", own, sound(policy_topic), "wrong-kind");
    let later = hostile.coordinator.sign_bytes(Kind::Policy, b"{\"min\": 60000}");
    add("of a later version", policy_topic, later, "too-new");
    let unheard_of = format!("gatewrt/v1/net/{}/unheard-of", office.net);
    all.push(Forgery {
        what: "on no topic of ours",
        topic: unheard_of,
        payload: b"x".to_vec(),
        reason: "unknown-topic",
    });
    Ok(all)
}

/// Records of any kind, so that they fit in one list.
trait Signed {
    fn signed(&self, signer: &Signer) -> String;
}

impl<T: Record> Signed for T {
    fn signed(&self, signer: &Signer) -> String {
        signer.sign(self).expect("it is short")
    }
}

fn next(assignment: &Assignment) -> Assignment {
    Assignment { rev: assignment.rev + 1, egress: Vec::new(), ..assignment.clone() }
}

fn next_policy(policy: &Policy) -> Policy {
    Policy { rev: policy.rev + 1, ..policy.clone() }
}

fn cut(token: String, end: usize) -> String {
    token[..token.len() - end].to_owned()
}

/// A token with the content of one and the signature of another.
fn transplant(says: &str, signed: &str) -> String {
    let (head, _) = says.rsplit_once('.').expect("three parts");
    let (_, signature) = signed.rsplit_once('.').expect("three parts");
    format!("{head}.{signature}")
}
