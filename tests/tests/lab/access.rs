//! Access on the broker with a stolen router's certificate and key: they read and write the router's own topics, and
//! nothing else.

use crate::common::{Client, Stolen};
use anyhow::{Context, Result, ensure};
use gatewrt_protocol::{NetworkId, Topic};
use gatewrt_tests::{
    lab::{assert_same, eventually},
    mesh::{Mesh, NETWORK},
};
use rumqttc::{LastWill, QoS};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);
const PLANTED: &str = "planted";

/// The routers `office` and `home`, of which `home` is in a thief's hands, and a second network.
struct Scene {
    mesh: Mesh,
    stolen: Stolen,
    office: Stolen,
    other: NetworkId,
}

impl Scene {
    fn new() -> Result<Self> {
        let mesh = Mesh::two_sites()?;
        let other =
            mesh.admin_json(&["network", "create", "other"])?["id"].as_str().context("an id")?.parse()?;
        let (office, stolen) = (Stolen::from(&mesh.host("office")?)?, Stolen::from(&mesh.host("home")?)?);
        mesh.daemon("home")?.stop()?;
        Ok(Self { mesh, stolen, office, other })
    }

    fn connect(&self) -> Result<Client> {
        self.stolen.connect(&self.mesh.host("web")?)
    }

    /// Topic filters that the thief must not subscribe to.
    fn foreign_filters(&self) -> Vec<String> {
        let (own, office) = (self.stolen.node, self.office.node);
        let mut filters: Vec<String> =
            ["#", "+/#", "gatewrt/#", "gatewrt/v1/#", "gatewrt/v1/net/#", "gatewrt/v1/node/#"]
                .map(str::to_owned)
                .into();
        filters.extend(["gatewrt/v1/net/+/roster", "gatewrt/v1/node/+/assignment"].map(str::to_owned));
        filters.extend(["$SYS/#", "$SYS/broker/uptime", "$share/thieves/#"].map(str::to_owned));
        for net in [self.other, self.stolen.net] {
            filters.push(format!("$share/thieves/gatewrt/v1/net/{net}/#"));
            filters.push(format!("$exclusive/gatewrt/v1/net/{net}/#"));
        }
        filters.push(format!("gatewrt/v1/net/{}/#", self.other));
        filters.push(format!("gatewrt/v1/node/{own}/#"));
        let topics = [
            Topic::Policy(self.other),
            Topic::Roster(self.other),
            Topic::Member(self.other, office),
            Topic::Assignment(office),
            Topic::Command(office),
            Topic::Report(office),
            Topic::Presence(office),
            Topic::Reply(office),
        ];
        filters.extend(topics.map(|topic| topic.to_string()));
        filters
    }

    /// Topics that the thief must not publish to.
    fn foreign_topics(&self) -> Vec<String> {
        let (net, own, office) = (self.stolen.net, self.stolen.node, self.office.node);
        let topics = [
            Topic::Policy(net),
            Topic::Roster(net),
            Topic::Member(net, office),
            Topic::Member(net, own),
            Topic::Roster(self.other),
            Topic::Assignment(office),
            Topic::Assignment(own),
            Topic::Command(office),
            Topic::Command(own),
            Topic::Report(office),
            Topic::Presence(office),
            Topic::Reply(office),
        ];
        let mut topics: Vec<String> = topics.map(|topic| topic.to_string()).into();
        topics
            .extend([format!("gatewrt/v1/net/{net}/anything"), format!("gatewrt/v1/node/{own}/report/more")]);
        topics.extend(["anything", "$SYS/broker/uptime"].map(str::to_owned));
        topics
    }

    /// Renames the stolen node, which the broker announces to its network, and waits until the office knows.
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.mesh.admin(&["node", "rename", NETWORK, from, to])?;
        eventually(SOON, &format!("the office knows {to}"), || {
            let status = self.mesh.status("office")?;
            ensure!(status["peers"][0]["name"] == to, "{}", status["peers"]);
            Ok::<_, anyhow::Error>(())
        })
    }
}

/// The broker refuses the topics of other networks and nodes, wildcards, shared subscriptions and its own topics.
#[test]
fn node_reads_only_its_network_and_its_own_topics() -> Result<()> {
    let scene = Scene::new()?;
    let mut thief = scene.connect()?;
    for filter in scene.foreign_filters() {
        ensure!(!thief.subscribe(&filter)?, "{filter} was granted");
    }
    ensure!(thief.take().is_empty(), "it read something");
    let (net, node) = (scene.stolen.net, scene.stolen.node);
    for filter in Topic::filters_of(net, node) {
        ensure!(thief.subscribe(&filter)?, "{filter} was refused");
    }
    scene.mesh.admin(&["network", "delete", "other"])?;
    scene.rename("home", "stolen")?;
    let mut read = Vec::new();
    let marker = Topic::Assignment(node).to_string();
    eventually(SOON, "the thief reads what the node may read", || {
        read.extend(thief.take().into_iter().map(|publish| publish.topic));
        read.iter().filter(|topic| **topic == marker).count() == 2
    })?;
    let allowed = |topic: &String| topic.starts_with(&format!("gatewrt/v1/net/{net}/")) || *topic == marker;
    ensure!(read.iter().all(allowed), "{read:?}");
    Ok(())
}

/// A message to another's topic is not delivered, not retained and changes nothing; a message to the node's own topic
/// is read.
#[test]
fn node_writes_only_its_own_topics() -> Result<()> {
    let scene = Scene::new()?;
    scene.mesh.wait_until_settled("office")?;
    let office = scene.mesh.host("office")?;
    let before = office.dump()?;
    let mut thief = scene.connect()?;
    for topic in scene.foreign_topics() {
        thief.publish_raw(&topic, PLANTED)?;
        thief.throw(&topic, PLANTED)?;
    }
    let own = Topic::Report(scene.stolen.node);
    thief.publish(&own, PLANTED)?;
    scene.rename("home", "stolen")?;
    assert_same(&before, &office.dump()?);
    let status = scene.mesh.status("office")?;
    ensure!(status["refused"] == serde_json::json!({}), "something came through: {}", status["refused"]);
    ensure!(status["control"] == "connected", "{status}");
    eventually(SOON, "the coordinator has read what the node may write, and it alone", || {
        let nodes = scene.mesh.admin_json(&["status", NETWORK])?["networks"][0]["nodes"].clone();
        let of = |name| {
            nodes.as_array()?.iter().find(|node| node["name"] == name).map(|node| node["refused"].clone())
        };
        let (stolen, office) = (of("stolen").context("stolen")?, of("office").context("office")?);
        ensure!(stolen == serde_json::json!({"not a signed record": 1}), "{stolen}");
        ensure!(office.is_null(), "{office}");
        Ok::<_, anyhow::Error>(())
    })?;
    drop(thief);
    let mut reader = scene.connect()?;
    for filter in Topic::filters_of(scene.stolen.net, scene.stolen.node) {
        ensure!(reader.subscribe(&filter)?);
    }
    scene.rename("stolen", "marked")?;
    let marker = Topic::Assignment(scene.stolen.node).to_string();
    let mut read = Vec::new();
    eventually(SOON, "the retained records are read", || {
        read.extend(reader.take());
        read.iter().filter(|publish| publish.topic == marker).count() == 2
    })?;
    ensure!(read.iter().all(|publish| publish.payload != PLANTED), "planted: {read:?}");
    Ok(())
}

/// The broker refuses a will on another's topic, another node's id, a client without a certificate, and a removed node.
#[test]
fn node_connects_only_as_itself() -> Result<()> {
    let scene = Scene::new()?;
    let web = scene.mesh.host("web")?;
    let own = scene.stolen.node.to_string();
    for topic in scene.foreign_topics() {
        let mut options = scene.stolen.options(&own)?;
        options.set_last_will(LastWill::new(&topic, PLANTED, QoS::AtLeastOnce, true));
        assert_refused(Client::connect(&web, options), &format!("a will on {topic}"))?;
    }
    for id in [&scene.office.node.to_string(), "coordinator", "*", "aaaaaaaaaaaaaaaa"] {
        assert_refused(Client::connect(&web, scene.stolen.options(id)?), id)?;
    }
    assert_refused(Client::connect(&web, scene.stolen.options_without_certificate()?), "no certificate")?;

    let mut options = scene.stolen.options(&own)?;
    options.set_last_will(LastWill::new(
        format!("gatewrt/v1/node/{own}/presence"),
        PLANTED,
        QoS::AtLeastOnce,
        true,
    ));
    let thief = Client::connect(&web, options).context("with a will of its own")?;
    scene.mesh.admin(&["node", "remove", NETWORK, "home"])?;
    thief.wait_for_end(SOON).context("once it is removed")?;
    let mut removed = scene.connect().context("it may read that it is removed")?;
    ensure!(removed.subscribe(&format!("gatewrt/v1/net/{}/#", scene.stolen.net))?, "to its end alone");
    let own_end = Topic::Member(scene.stolen.net, scene.stolen.node).to_string();
    let mut read = Vec::new();
    eventually(SOON, "it reads its end", || -> Result<()> {
        read.extend(removed.take().into_iter().map(|publish| publish.topic));
        ensure!(read == [own_end.as_str()], "it read {read:?}");
        Ok(())
    })?;
    removed.wait_for_end(SOON).context("once it has read its end")?;
    let status = scene.mesh.status("office")?;
    ensure!(status["refused"] == serde_json::json!({}) && status["control"] == "connected", "{status}");
    Ok(())
}

/// Asserts that the broker refused the connection, rather than gave no answer.
fn assert_refused(attempt: Result<Client>, case: &str) -> Result<()> {
    let error = attempt.err().with_context(|| format!("{case}: was let in"))?;
    let text = format!("{error:#}");
    ensure!(!text.contains("no answer"), "{case}: {text}");
    println!("{case}: {text}");
    Ok(())
}
