//! A hostile broker: Mosquitto in the coordinator's place.

use crate::common::{Client, Stolen, record_key};
use anyhow::{Context, Result, ensure};
use gatewrt_protocol::{Presence, Record, Report, Signer, Topic, jws};
use gatewrt_tests::{
    lab::{Process, eventually},
    mesh::Mesh,
};
use rumqttc::MqttOptions;
use std::{collections::BTreeMap, time::Duration};

/// Longest time until the routers are connected to the hostile broker.
const RECONNECT: Duration = Duration::from_secs(20);
/// Longest wait for a report: reports are at least two seconds apart, and WireGuard is read between them.
const REPORTED: Duration = Duration::from_secs(10);
const CONFIG: &str = "/etc/hostile.conf";

/// A broker that accepts messages from everyone, and an attacker who sends them.
pub struct Hostile {
    /// The broker.
    pub process: Process,
    /// Client that publishes to the routers.
    pub attacker: Client,
    /// The coordinator's record key, for records that are validly signed, but old or meant for others.
    pub coordinator: Signer,
    nodes: BTreeMap<String, Stolen>,
    heard: BTreeMap<String, Vec<u8>>,
}

impl Hostile {
    /// Stops the coordinator and takes its place; the routers are connected when this returns.
    pub fn take_over(mesh: &Mesh) -> Result<Self> {
        mesh.coordinator.stop()?;
        let host = mesh.host("coordinator")?;
        host.write_file(CONFIG, config(&host.ip4()?.to_string()))?;
        let process = host.spawn(&["mosquitto", "-c", CONFIG])?;
        Self::attend(mesh, process)
    }

    /// Connects again after the broker was restarted and has lost all its messages.
    pub fn reconnect(self, mesh: &Mesh) -> Result<Self> {
        Self::attend(mesh, self.process)
    }

    fn attend(mesh: &Mesh, process: Process) -> Result<Self> {
        let host = mesh.host("coordinator")?;
        let connect = || Client::connect(&host, MqttOptions::new("attacker", "127.0.0.1", 1883));
        let mut attacker = eventually(Duration::from_secs(10), "the hostile broker answers", connect)?;
        for topic in ["report", "presence"] {
            ensure!(attacker.subscribe(&format!("gatewrt/v1/node/+/{topic}"))?);
        }
        let routers = mesh.daemons.keys();
        let nodes = routers.map(|router| Ok((router.clone(), Stolen::from(&mesh.host(router)?)?)));
        let nodes = nodes.collect::<Result<_>>()?;
        let coordinator = record_key(&host)?;
        let mut hostile = Self { process, attacker, coordinator, nodes, heard: BTreeMap::new() };
        hostile.wait_for_routers()?;
        Ok(hostile)
    }

    /// Waits until every router has announced its presence.
    pub fn wait_for_routers(&mut self) -> Result<()> {
        for router in self.nodes.keys().cloned().collect::<Vec<_>>() {
            eventually(RECONNECT, &format!("{router} connects to the hostile broker"), || {
                let presence = self.presence(&router)?;
                ensure!(presence.online, "{presence:?}");
                Ok::<_, anyhow::Error>(())
            })?;
        }
        Ok(())
    }

    /// A router's identity.
    pub fn node(&self, router: &str) -> &Stolen {
        &self.nodes[router]
    }

    /// The last presence message of a router.
    pub fn presence(&mut self, router: &str) -> Result<Presence> {
        self.said(router, Topic::Presence(self.node(router).node))
    }

    /// Waits for a report of a router that satisfies `says`; its signature is verified with the router's own key.
    pub fn wait_for_report(
        &mut self,
        router: &str,
        what: &str,
        says: impl Fn(&Report) -> bool,
    ) -> Result<()> {
        eventually(REPORTED, &format!("{router} reports {what}"), || {
            let report: Report = self.said(router, Topic::Report(self.node(router).node))?;
            ensure!(says(&report), "{report:#?}");
            Ok::<_, anyhow::Error>(())
        })
    }

    fn said<T: Record>(&mut self, router: &str, topic: Topic) -> Result<T> {
        let new = self.attacker.take().into_iter();
        self.heard.extend(new.map(|publish| (publish.topic, publish.payload.to_vec())));
        let payload = self.heard.get(&topic.to_string()).context("nothing yet")?;
        jws::open(payload, &self.node(router).signer.public()).map_err(|error| anyhow::anyhow!("{error}"))
    }
}

fn config(address: &str) -> String {
    format!(
        "user root
persistence false
allow_anonymous true
max_queued_messages 0
listener 1883 127.0.0.1
listener 8883 {address}
certfile /var/lib/gatewrt/server.crt
keyfile /var/lib/gatewrt/server.key
"
    )
}
