//! Joining of networks: on request, and by a join code in the configuration, which is tried until it works.

use super::{Daemon, system};
use crate::{
    config::last,
    core::{Input, uplinks::place},
    enroll::{self, EnrollError, Facts},
    error_chain::error_chain,
    identity::Identity,
    show::{Answer, Joined},
    task,
};
use gatewrt_protocol::{Assignment, JoinAnswer, JoinCode, NetworkName, NodeName, jws};
use sorted_vec::SortedSet;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    path::Path,
};
use tokio::sync::{mpsc, oneshot};

/// WireGuard's port, unless another is configured or it is taken.
const DEFAULT_PORT: u16 = 51820;

/// Attempt to join a network that has ended.
pub struct Enrolled {
    code: JoinCode,
    reply: Option<oneshot::Sender<Answer>>,
    outcome: Result<(Identity, JoinAnswer), EnrollError>,
}

/// Attempts to join networks that are pending.
pub struct Joining {
    sender: mpsc::Sender<Enrolled>,
    receiver: mpsc::Receiver<Enrolled>,
    pending: SortedSet<NetworkName>,
    /// Networks whose configured code was refused for good: it is not tried again before a reload.
    refused: SortedSet<NetworkName>,
}

impl Joining {
    pub fn new() -> Self {
        let (sender, receiver) = mpsc::channel(4);
        Self { sender, receiver, pending: SortedSet::new(), refused: SortedSet::new() }
    }

    /// Lets refused join codes be tried again, after a reload of the configuration.
    pub fn allow_refused(&mut self) {
        self.refused.clear();
    }

    pub async fn next(&mut self) -> Option<Enrolled> {
        self.receiver.recv().await
    }
}

impl Daemon {
    /// Joins the networks that have a join code in the configuration and are not joined yet.
    pub(super) fn join_configured(&mut self) {
        let wanted =
            self.config.networks.iter().filter(|(_, network)| network.enabled && self.config.enabled);
        let wanted = wanted.filter_map(|(name, network)| {
            Some((name.clone(), network.join_code.clone()?, network.name.clone()))
        });
        for (name, code, node_name) in wanted.collect::<Vec<_>>() {
            let done = self.identities.contains_key(&name) || self.joining.refused.contains(&name);
            if code.network != name && !done {
                log::error!(
                    "the join code of network {name} is for network {}: rename the section",
                    code.network
                );
            } else if !done {
                self.join(code, node_name, None);
            }
        }
    }

    /// Drops configured codes of networks that this router has left: it joins them again on request only.
    pub(super) fn drop_used_codes(&mut self) {
        for (name, network) in self.config.networks.iter_mut() {
            let is_used = |code: &mut JoinCode| self.store.is_retired(code);
            if !self.identities.contains_key(name) && network.join_code.take_if(is_used).is_some() {
                log::info!("{name} was left: its join_code is not used again");
            }
        }
    }

    /// Starts an attempt to join a network; its outcome comes through [`Joining::next`].
    pub(super) fn join(
        &mut self,
        code: JoinCode,
        name: Option<NodeName>,
        reply: Option<oneshot::Sender<Answer>>,
    ) {
        let network = code.network.clone();
        let refuse = |reply: Option<oneshot::Sender<Answer>>, why: String| match reply {
            Some(reply) => drop(reply.send(Answer::Failed(why))),
            None => log::error!("{why}"),
        };
        if self.identities.contains_key(&network) {
            let why = format!("this router is in network {network} already: “gatewrt leave {network}” first");
            return refuse(reply, why);
        }
        if let Some(why) = self.core.unreadable(&network) {
            let why = format!("this router is in network {network} already: {why}");
            return refuse(reply, why);
        }
        if self.joining.pending.find_or_insert(network.clone()).is_found() {
            return refuse(reply, format!("joining {network} is under way already"));
        }
        let keys = match self.store.pending_keys(&code) {
            Ok(keys) => keys,
            Err(error) => {
                self.joining.pending.remove_item(&network);
                return refuse(
                    reply,
                    format!("can't keep this router's keys, so it did not join: {}", error_chain(&error)),
                );
            }
        };
        let facts = self.facts(&network, name);
        let (sender, mark) = (self.joining.sender.clone(), self.config.numbers.bypass);
        log::info!("joining {network} at {}", code.url);
        task::start_blocking(Box::new(move || {
            let outcome = enroll::join(&code, &keys, facts, mark);
            let _ = sender.blocking_send(Enrolled { code, reply, outcome });
        }));
    }

    /// Gives another port to each network whose own another program has taken before its interface was there, unless the
    /// owner configured it.
    pub(super) fn move_ports(&self, identities: &mut [Identity]) {
        let mut taken: SortedSet<u16> = identities.iter().map(|identity| identity.port).collect();
        for identity in identities {
            let configured = self.config.networks.get(&identity.network);
            let is_configured = configured.is_some_and(|it| it.listen_port.is_some() || !it.enabled);
            let link = Path::new("/sys/class/net").join(identity.network.interface());
            if is_configured || link.exists() || !is_taken(identity.port) {
                continue;
            }
            let before = std::mem::replace(&mut identity.port, free_port(&taken));
            taken.push(identity.port);
            log::warn!(
                "{}: another program has UDP port {before}: {} instead",
                identity.network,
                identity.port
            );
            match self.store.save_port(identity) {
                Ok(()) => system::networks_changed(),
                Err(error) => log::warn!("{}: {}", identity.network, error_chain(&error)),
            }
        }
    }

    fn facts(&self, network: &NetworkName, name: Option<NodeName>) -> Facts {
        let configured = self.config.networks.get(network).cloned().unwrap_or_default();
        let taken = self.identities.values().map(|identity| identity.port).collect();
        let port = configured.listen_port.map_or_else(|| free_port(&taken), u16::from);
        let place = place(self.core.observed(), &configured.endpoints, port);
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let named = name.or(configured.name).unwrap_or_else(|| NodeName::from_hostname(hostname.trim()));
        Facts {
            name: named,
            board: self.about.board.clone(),
            port,
            endpoints: place.endpoints,
            interfaces: place.interfaces,
        }
    }

    /// Handles the outcome of an attempt to join a network.
    pub(super) fn handle_enrolled(&mut self, Enrolled { code, reply, outcome }: Enrolled) {
        self.joining.pending.remove_item(&code.network);
        let answer = match outcome {
            Ok((identity, answer)) => self.take_in(&code, identity, &answer),
            Err(error) => {
                let why = error_chain(&error);
                log::warn!("could not join {}: {why}", code.network);
                if error.is_final() {
                    let _ = self.store.forget_pending(&code);
                    self.joining.refused.push(code.network.clone());
                } else if reply.is_none() {
                    self.feed(Input::JoinFailed);
                }
                Answer::Failed(why)
            }
        };
        if let Some(reply) = reply {
            let _ = reply.send(answer);
        }
    }

    fn take_in(&mut self, code: &JoinCode, identity: Identity, answer: &JoinAnswer) -> Answer {
        if let Err(error) = self.store.save_identity(code, &identity) {
            return Answer::Failed(format!(
                "joined, but it can't be kept on disk: {}; join again once there is room",
                error_chain(&error)
            ));
        }
        let (network, name) = (identity.network.clone(), identity.name.clone());
        let first = [
            (gatewrt_protocol::Topic::Policy(identity.net), &answer.policy),
            (gatewrt_protocol::Topic::Assignment(identity.node), &answer.assignment),
        ];
        let records = first.into_iter().map(|(topic, token)| (topic.to_string(), token.clone())).collect();
        if let Err(error) = self.store.records(&network).flush(&records) {
            log::warn!("{network}: the first records are not on disk: {}", error_chain(&error));
        }
        let assignment: Option<Assignment> =
            jws::open(answer.assignment.as_bytes(), &identity.record_key).ok();
        log::info!("joined {network} as {name}");
        let membership = self.take_up(identity);
        self.keep(&last::load(&self.file));
        system::networks_changed();
        self.feed(Input::Joined(Box::new(membership)));
        Answer::Joined(Joined {
            network,
            name,
            addresses: assignment.map(|it| it.addresses).unwrap_or_default(),
        })
    }
}

/// True if another program has this UDP port, for either family.
fn is_taken(port: u16) -> bool {
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let bound = any.map(|addr| UdpSocket::bind((addr, port)).map(drop));
    bound.iter().any(|bound| matches!(bound, Err(error) if error.kind() == io::ErrorKind::AddrInUse))
}

/// Default UDP port of WireGuard, or else one that the system finds free.
fn free_port(taken: &SortedSet<u16>) -> u16 {
    let free =
        |port: u16| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).and_then(|socket| socket.local_addr());
    if !taken.contains(&DEFAULT_PORT) && free(DEFAULT_PORT).is_ok() {
        return DEFAULT_PORT;
    }
    free(0).map_or(DEFAULT_PORT, |addr| addr.port())
}
