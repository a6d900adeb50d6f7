//! Inputs and outputs of the core.

use super::{gateways::Probe, serving::ProbeTarget};
use crate::{
    config::{Config, OwnScope},
    core::health::Answer,
    model::{ObserveQuery, Observed, WgSecret},
    plan::{BootLockdown, Plan, StepFailure},
};
use gatewrt_protocol::{NetworkId, NetworkName, NodeId, NodeName, Presence, PublicKey, Report, WgPublicKey};
use litemap::LiteMap;
use sorted_vec::SortedSet;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Facts about this run of the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Random text, new with each start.
    pub boot: String,
    /// Version of the program.
    pub version: String,
    /// Model of the router.
    pub board: String,
    /// Random number that spreads the retries of many routers.
    pub seed: u32,
}

/// Membership of this router in a network, as it is on disk.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Name of the network.
    pub network: NetworkName,
    /// Id of the network.
    pub net: NetworkId,
    /// Id of this router in it.
    pub node: NodeId,
    /// Name of this router at joining.
    pub name: NodeName,
    /// Key that verifies the coordinator's records.
    pub record_key: PublicKey,
    /// WireGuard private key.
    pub secret: WgSecret,
    /// WireGuard public key.
    pub public: WgPublicKey,
    /// UDP port.
    pub port: u16,
    /// Brokers as `host:port`.
    pub brokers: Vec<String>,
    /// Stored records: topic and text.
    pub stored: LiteMap<String, String>,
    /// Scopes that were set on the router; `None` when none were.
    pub chosen: Option<Vec<OwnScope>>,
}

/// Event that the core decides on.
#[derive(Debug)]
pub enum Input {
    /// A process that only takes everything down has the configuration, and the memberships on disk.
    TakeDown(Box<Config>, Vec<Membership>),
    /// The daemon starts, with the owner's settings and the networks that are on disk: all at once, so that no running
    /// interface is taken for a leftover.
    Started(Box<Config>, Vec<Membership>),
    /// The owner's settings were read again.
    Configured(Box<Config>),
    /// A network was joined.
    Joined(Box<Membership>),
    /// An attempt to join with a configured code failed, and is to be repeated.
    JoinFailed,
    /// The owner leaves a network.
    Leave(NetworkName),
    /// The scopes of a network were set on the router; `None` forgets them.
    Chosen(NetworkName, Option<Vec<OwnScope>>),
    /// Event of a control link.
    Link(NetworkName, LinkEvent),
    /// Kernel objects changed.
    Changed,
    /// The kernel was observed.
    Observed {
        /// Observation.
        observed: Box<Observed>,
        /// Router's clock, since the Unix epoch.
        wall: Duration,
        /// Resident memory of the daemon in KiB.
        memory_kib: u64,
    },
    /// The kernel could not be observed, for this reason.
    ObserveFailed(String),
    /// A plan was executed; these steps failed.
    Applied(Vec<StepFailure>),
    /// The boot lockdown was written, or not, for this reason.
    LockdownSaved(Result<(), String>),
    /// The answer to a probe came.
    Probed(NetworkName, Probe, Answer),
    /// A peer told the policy of a network, signed by the coordinator or not.
    Told(NetworkName, Vec<u8>),
    /// Only time passed.
    Tick,
    /// The daemon is to end.
    Stop {
        /// True if the daemon is to delete all its objects in the kernel first.
        teardown: bool,
    },
}

/// Event of a network's control link.
#[derive(Debug)]
pub enum LinkEvent {
    /// The link is connected and subscribed.
    Connected,
    /// A message came: topic and content.
    Message(String, Vec<u8>),
    /// A message came that is too long to be held: topic and length in bytes.
    TooLong(String, usize),
    /// The broker acknowledged the next message.
    Acked,
    /// The last message was not sent: the queue is full.
    Unsent,
    /// The link is lost, for this reason.
    Lost(String),
}

/// Message of this node to the coordinator, over the control link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uplink {
    /// Report, to its topic.
    Report(Box<Report>),
    /// Presence, to its topic.
    Presence(Presence),
    /// Record of the coordinator that it does not seem to know any more, as it signed it.
    Known(String),
}

/// Request of the core to a driver.
#[derive(Debug)]
pub enum Output {
    /// Open the control link.
    Connect {
        /// Network.
        network: NetworkName,
        /// Broker as `host:port`.
        broker: String,
        /// Known addresses of the broker, for when its name does not resolve.
        known: Vec<SocketAddr>,
        /// Will: published by the broker when the link is lost.
        will: Presence,
    },
    /// Drop the control link.
    Disconnect(NetworkName),
    /// Sign and publish, retained; but for what the coordinator signed.
    Publish(NetworkName, Uplink),
    /// Observe the kernel.
    Observe(ObserveQuery),
    /// Execute a plan.
    Apply(Plan),
    /// Store the new records that [`super::Network::stored`] returns; the driver limits how often they go to flash.
    Save(NetworkName),
    /// Write the records to flash at once.
    Flush(NetworkName),
    /// Delete the state of a network on disk: it is out of the kernel.
    Forget(NetworkName),
    /// Write the boot lockdown, which keeps closed scopes in before the daemon runs; `None` deletes it.
    BootLockdown(Option<BootLockdown>),
    /// Try again to join with the configured codes.
    JoinConfigured,
    /// Send a packet to each of these overlay addresses, so that peers learn our new endpoint.
    SendKeepalive(Vec<IpAddr>),
    /// Probe a node through the tunnel.
    Probe(NetworkName, Probe, ProbeTarget),
    /// Ask a node through the tunnel for the policy of the network.
    AskPolicy(NetworkName, ProbeTarget),
    /// Answer probes at these addresses of ours, and at no others.
    Listen(SortedSet<IpAddr>),
    /// End: everything that the stop asked for is done.
    Stopped,
}
