//! What goes into the core and what comes out of it.

use super::{
    gateways::{Answer, Probe},
    serving::Aim,
};
use crate::{
    config::{Config, OwnScope},
    kernel::Interest,
    model::{Observed, WgSecret},
    plan::{Guardfile, Plan},
    sorted::{SortedMap, SortedSet},
};
use gatewrt_protocol::{
    Failure, NetworkId, NetworkName, NodeId, NodeName, Presence, PublicKey, Report, WgPublicKey,
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Facts about this run of the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Random, new with each start.
    pub boot: String,
    /// Of the program.
    pub version: String,
    /// What the router is.
    pub board: String,
    /// Spreads retries of many routers.
    pub seed: u32,
}

/// A network this router has joined.
#[derive(Debug, Clone)]
pub struct Membership {
    /// The network's name.
    pub network: NetworkName,
    /// Its id.
    pub net: NetworkId,
    /// The id this router has in it.
    pub node: NodeId,
    /// The name this router had when it joined.
    pub name: NodeName,
    /// Verifies the coordinator's records.
    pub record_key: PublicKey,
    /// WireGuard private key.
    pub secret: WgSecret,
    /// Its public key.
    pub public: WgPublicKey,
    /// UDP port.
    pub port: u16,
    /// `host:port` of each broker.
    pub brokers: Vec<String>,
    /// Records as they were stored: topic and text.
    pub stored: SortedMap<String, String>,
    /// What was said on the router of its Internet traffic; `None`: nothing.
    pub chosen: Option<Vec<OwnScope>>,
}

/// What happens to the daemon.
#[derive(Debug)]
pub enum Input {
    /// The daemon starts, with the owner's settings and the networks that are on disk: all at once, so that
    /// nothing that runs is taken for no longer wanted.
    Started(Box<Config>, Vec<Membership>),
    /// The owner's settings were read anew.
    Configured(Box<Config>),
    /// A network was joined.
    Joined(Box<Membership>),
    /// The owner leaves a network.
    Leave(NetworkName),
    /// On the router something else was said of its Internet traffic.
    Chosen(NetworkName, Option<Vec<OwnScope>>),
    /// News of a control link.
    Link(NetworkName, LinkEvent),
    /// Kernel objects changed.
    Changed,
    /// The kernel was read.
    Observed {
        /// As it is.
        observed: Box<Observed>,
        /// The router's clock, since the Unix epoch.
        wall: Duration,
        /// Resident memory of the daemon, in KiB.
        memory_kib: u64,
    },
    /// The kernel could not be read.
    ObserveFailed(String),
    /// A plan was carried out; what failed of it.
    Applied(Vec<Failure>),
    /// What came back of a probe.
    Probed(NetworkName, Probe, Answer),
    /// Only the time went on.
    Tick,
    /// The daemon is to end; with `teardown` it takes all that is ours out of the kernel first.
    Stop {
        /// See above.
        teardown: bool,
    },
}

/// News of a control link.
#[derive(Debug)]
pub enum LinkEvent {
    /// Connected and subscribed.
    Connected,
    /// A message came: topic and content.
    Message(String, Vec<u8>),
    /// A message came that is too long to be held: topic and length in bytes.
    TooLong(String, usize),
    /// Something sent was acknowledged.
    Acked,
    /// What was to be published last was not taken: too much waits.
    Unsent,
    /// The link is gone.
    Lost(String),
}

/// What a node sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uplink {
    /// To its report topic.
    Report(Box<Report>),
    /// To its presence topic.
    Presence(Presence),
}

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Open the control link; the presence is its will.
    Connect {
        /// Of this network.
        network: NetworkName,
        /// `host:port`
        broker: String,
        /// Where it was when it was looked up last: for when its name leads nowhere.
        known: Vec<SocketAddr>,
        /// The will.
        will: Presence,
    },
    /// Drop the control link.
    Disconnect(NetworkName),
    /// Sign and publish, retained.
    Publish(NetworkName, Uplink),
    /// Read the kernel.
    Observe(Interest),
    /// Carry out a plan.
    Apply(Plan),
    /// Keep what [`super::Network::stored`] gives, which is new; the driver limits how often.
    Save(NetworkName),
    /// What is to be kept goes to disk at once.
    Flush(NetworkName),
    /// A network is out of the kernel: its state on disk goes too.
    Forget(NetworkName),
    /// What keeps closed scopes in before the daemon runs, for the next boot; `None` when nothing must be kept in.
    Guard(Option<Guardfile>),
    /// Send a packet to each of these overlay addresses, so that peers learn our new endpoint.
    Poke(Vec<IpAddr>),
    /// Probe a node through the tunnel.
    Probe(NetworkName, Probe, Aim),
    /// Answer probes at these addresses of ours, and at no others.
    Listen(SortedSet<IpAddr>),
    /// Everything asked for at the stop is done.
    Stopped,
}
