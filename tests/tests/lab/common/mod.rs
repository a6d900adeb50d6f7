//! Helpers that several of these tests share: a plain MQTT client, the secrets that a stolen router's disk gives away, and a
//! name server.

mod names;

pub use names::Names;

use anyhow::{Context, Result, anyhow, bail, ensure};
use gatewrt_protocol::{NetworkId, NodeId, PublicKey, Signer, Topic, WgPublicKey};
use gatewrt_tests::{lab::Host, mesh::NETWORK};
use rumqttc::{Event, MqttOptions, Packet, Publish, QoS, SubscribeReasonCode, TlsConfiguration, Transport};
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore,
    client::WantsClientCert,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

/// Longest wait for an answer of the broker.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asserts that a node, as the coordinator shows it, is online and has applied all that it should.
pub fn check_obeys(node: &serde_json::Value) -> Result<()> {
    let (current, applied) = (&node["current"], &node["report"]["applied"]);
    ensure!(
        node["online"] == true && current.is_object() && applied == current,
        "{applied} is applied: {node:#}"
    );
    Ok(())
}

/// A router's identity in the network, read from its disk.
pub struct Stolen {
    /// The network.
    pub net: NetworkId,
    /// The node.
    pub node: NodeId,
    /// The node's signing key.
    pub signer: Signer,
    /// WireGuard's private key, base64.
    pub wireguard: String,
    /// The keys, as the file has them.
    pub keys: serde_json::Value,
    broker: String,
    ca: String,
    certificate: String,
    identity: [u8; 32],
}

impl Stolen {
    /// Reads the identity from a router's disk.
    pub fn from(router: &Host) -> Result<Self> {
        let file: serde_json::Value = serde_json::from_str(&router.read_file(&file_of("identity.json"))?)?;
        let text = |key: &str| file[key].as_str().map(str::to_owned).with_context(|| format!("a {key}"));
        let key = |key: &str| file["keys"][key].as_str().map(str::to_owned).context("a private key");
        let identity = key("identity")?.parse::<WgPublicKey>()?.0; // 32 bytes in base64, as any key
        Ok(Self {
            net: text("net")?.parse()?,
            node: text("node")?.parse()?,
            signer: Signer::from_seed(&identity),
            wireguard: key("wireguard")?,
            keys: file["keys"].clone(),
            broker: file["brokers"][0].as_str().context("a broker")?.to_owned(),
            ca: text("ca")?,
            certificate: text("certificate")?,
            identity,
        })
    }

    /// Options for a connection to the network's broker with this node's certificate, under `id`.
    pub fn options(&self, id: &str) -> Result<MqttOptions> {
        let broker: SocketAddr = self.broker.parse()?;
        let mut options = MqttOptions::new(id, broker.ip().to_string(), broker.port());
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(self.tls()?))));
        Ok(options)
    }

    /// Connects under the node's own id.
    pub fn connect(&self, from: &Host) -> Result<Client> {
        Client::connect(from, self.options(&self.node.to_string())?)
    }

    /// Options as [`Stolen::options`] has them, but without the client certificate.
    pub fn options_without_certificate(&self) -> Result<MqttOptions> {
        let mut options = self.options(&self.node.to_string())?;
        let tls = self.trust()?.with_no_client_auth();
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
        Ok(options)
    }

    fn tls(&self) -> Result<ClientConfig> {
        const PKCS8: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes())?];
        let key = PrivateKeyDer::Pkcs8([PKCS8.as_slice(), &self.identity].concat().into());
        Ok(self.trust()?.with_client_auth_cert(chain, key)?)
    }

    fn trust(&self) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes())?)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        Ok(builder.with_protocol_versions(&[&TLS13])?.with_root_certificates(roots))
    }
}

/// Path of a file that a router keeps for the network.
pub fn file_of(name: &str) -> String {
    format!("/etc/gatewrt/{NETWORK}/{name}")
}

/// The records on a router's disk: signed text by topic.
pub fn records_of(router: &Host) -> Result<BTreeMap<String, String>> {
    let text = router.read_file(&file_of("records"))?;
    let line = |line: &str| line.split_once(' ').map(|(topic, record)| (topic.to_owned(), record.to_owned()));
    Ok(text.lines().filter_map(line).collect())
}

/// The coordinator's record key, read from its disk.
pub fn record_key(coordinator: &Host) -> Result<Signer> {
    let text = coordinator.read_file("/var/lib/gatewrt/record.key")?;
    Ok(Signer::from_seed(&text.trim().parse::<PublicKey>()?.0)) // 32 bytes in base64url, as the public one
}

/// An MQTT client on a host of the lab; it waits for the broker's answer to each request.
pub struct Client {
    mqtt: rumqttc::Client,
    packets: mpsc::Receiver<Packet>,
    inbox: VecDeque<Publish>,
}

impl Client {
    /// Connects, and returns once the broker has accepted; the error says why it did not.
    pub fn connect(from: &Host, mut options: MqttOptions) -> Result<Self> {
        options.set_max_packet_size(1 << 20, 1 << 20).set_keep_alive(Duration::from_secs(60));
        let (mqtt, mut connection) = rumqttc::Client::new(options, 64);
        let (sender, packets) = mpsc::channel();
        let (first, answered) = mpsc::channel();
        from.in_netns(|| {
            std::thread::spawn(move || {
                for event in connection.iter() {
                    match event {
                        Ok(Event::Incoming(packet @ Packet::ConnAck(_))) => {
                            drop((first.send(Ok(())), packet))
                        }
                        Ok(Event::Incoming(packet)) => drop(sender.send(packet)),
                        Ok(Event::Outgoing(_)) => {}
                        Err(error) => return drop(first.send(Err(error))),
                    }
                }
            })
        })?;
        let answer = answered.recv_timeout(PATIENCE).context("no answer to CONNECT")?;
        answer.map_err(|error| anyhow!("{error}"))?;
        Ok(Self { mqtt, packets, inbox: VecDeque::new() })
    }

    /// Subscribes to a filter, and returns true if the broker granted it.
    pub fn subscribe(&mut self, filter: &str) -> Result<bool> {
        self.mqtt.subscribe(filter, QoS::AtLeastOnce)?;
        let codes = self.wait("SUBACK", |packet| match packet {
            Packet::SubAck(ack) => Some(ack.return_codes.clone()),
            _ => None,
        })?;
        Ok(matches!(codes[..], [SubscribeReasonCode::Success(_)]))
    }

    /// Publishes a retained message, and returns once it is acknowledged: the broker acknowledges also those that it
    /// discards.
    pub fn publish(&mut self, topic: &Topic, payload: impl Into<Vec<u8>>) -> Result<()> {
        self.publish_raw(&topic.to_string(), payload)
    }

    /// Publishes as [`Client::publish`] does, to any topic.
    pub fn publish_raw(&mut self, topic: &str, payload: impl Into<Vec<u8>>) -> Result<()> {
        self.mqtt.publish(topic, QoS::AtLeastOnce, true, payload)?;
        self.wait("PUBACK", |packet| matches!(packet, Packet::PubAck(_)).then_some(()))
    }

    /// Publishes a message without waiting for its acknowledgement.
    pub fn throw(&self, topic: &str, payload: impl Into<Vec<u8>>) -> Result<()> {
        Ok(self.mqtt.publish(topic, QoS::AtLeastOnce, false, payload)?)
    }

    /// Takes the messages that arrived since the last call.
    pub fn take(&mut self) -> Vec<Publish> {
        let new = self.packets.try_iter().filter_map(|packet| match packet {
            Packet::Publish(publish) => Some(publish),
            _ => None,
        });
        self.inbox.extend(new);
        self.inbox.drain(..).collect()
    }

    /// Waits until the broker has ended the connection.
    pub fn wait_for_end(&self, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        loop {
            match self.packets.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("the connection is there after {deadline:?}"),
            }
        }
    }

    fn wait<T>(&mut self, what: &str, wanted: impl Fn(&Packet) -> Option<T>) -> Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            let packet = self.packets.recv_timeout(end.saturating_duration_since(Instant::now()));
            let packet = packet.with_context(|| format!("no {what}"))?;
            match (wanted(&packet), packet) {
                (Some(found), _) => return Ok(found),
                (None, Packet::Publish(publish)) => self.inbox.push_back(publish),
                (None, _) => {}
            }
        }
    }
}
