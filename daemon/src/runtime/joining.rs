//! Joining networks: by request, and by a join code in the configuration, which is tried until it works.

use super::{Daemon, system};
use crate::{
    control::{Answer, Joined, Reply},
    core::{Input, place::place},
    enroll::{self, EnrollError, Facts},
    gather::Gather,
    identity::Identity,
    log,
    sorted::SortedSet,
    task::Job,
    wait::Wait,
    whole::whole,
};
use gatewrt_protocol::{Assignment, JoinAnswer, JoinCode, NetworkName, NodeName, jws};
use std::{
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

/// WireGuard's port where nothing else is said and it is free.
const USUAL_PORT: u16 = 51820;
/// Wait between two attempts with a configured code.
const RETRY: Duration = Duration::from_secs(15);

type Outcome = Result<(Identity, JoinAnswer), EnrollError>;

/// An attempt under way.
struct Attempt {
    code: JoinCode,
    reply: Option<Reply>,
    job: Job<Outcome>,
}

/// An attempt that came to an end.
pub struct Enrolled {
    code: JoinCode,
    reply: Option<Reply>,
    outcome: Outcome,
}

/// Attempts under way.
#[derive(Default)]
pub struct Joining {
    attempts: Vec<Attempt>,
    retry_at: Option<Instant>,
    /// Networks whose configured code was refused for good: not tried again before a reload.
    refused: SortedSet<NetworkName>,
}

impl Joining {
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// The configuration was read anew: what was refused may be tried again.
    pub fn allow_refused(&mut self) {
        self.refused.clear();
    }

    /// The next that came to its end, if one did.
    pub fn poll(&mut self) -> Option<Enrolled> {
        let outcome = |(at, it): (usize, &Attempt)| Some((at, it.job.outcome()?));
        let (at, outcome) = self.attempts.iter().enumerate().find_map(outcome)?;
        let Attempt { code, reply, .. } = self.attempts.swap_remove(at);
        Some(Enrolled { code, reply, outcome })
    }

    /// Adds what to wait for.
    pub fn enlist<'a>(&'a self, wait: &mut Wait<'a>) {
        self.attempts.iter().for_each(|attempt| attempt.job.enlist(wait));
    }

    fn is_under_way(&self, network: &NetworkName) -> bool {
        self.attempts.iter().any(|attempt| attempt.code.network == *network)
    }
}

impl Daemon {
    /// Joins the networks whose sections hold a join code and that are not joined yet.
    pub(super) fn join_configured(&mut self) {
        self.joining.retry_at = None;
        let wanted =
            self.config.networks.iter().filter(|(_, network)| network.enabled && self.config.enabled);
        let wanted = wanted.filter_map(|(name, network)| {
            Some((name.clone(), network.join_code.clone()?, network.name.clone()))
        });
        for (name, code, node_name) in wanted.gather() {
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

    /// Starts an attempt; its end comes through [`Joining::poll`].
    pub(super) fn join(&mut self, code: JoinCode, name: Option<NodeName>, reply: Option<Reply>) {
        match self.attempt(&code, name) {
            Ok(job) => self.joining.attempts.push(Attempt { code, reply, job }),
            Err(why) => match reply {
                Some(reply) => reply.send(&Answer::Failed(why)),
                None => log::error!("{why}"),
            },
        }
    }

    fn attempt(&self, code: &JoinCode, name: Option<NodeName>) -> Result<Job<Outcome>, String> {
        let network = &code.network;
        let already = format!("this router is in network {network} already: ");
        if self.identities.contains_key(network) {
            return Err(format!("{already}“gatewrt leave {network}” first"));
        }
        if let Some(why) = self.core.unreadable(network) {
            return Err(already + why);
        }
        if self.joining.is_under_way(network) {
            return Err(format!("joining {network} is under way already"));
        }
        let unkept = |error| format!("can't keep this router's keys, so it did not join: {}", whole(&error));
        let keys = self.store.pending_keys(code).map_err(unkept)?;
        let (facts, mark) = (self.facts(network, name), self.config.numbers.bypass);
        log::info!("joining {network} at {}", code.url);
        let code = code.clone();
        Job::start(move || enroll::join(&code, &keys, facts, mark)).map_err(|error| error.to_string())
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

    /// An attempt came to an end.
    pub(super) fn handle_enrolled(&mut self, Enrolled { code, reply, outcome }: Enrolled) {
        let answer = match outcome {
            Ok((identity, answer)) => self.take_in(&code, identity, &answer),
            Err(error) => {
                log::warn!("could not join {}: {error}", code.network);
                if error.is_final() {
                    let _ = self.store.forget_pending(&code);
                    self.joining.refused.insert(code.network.clone());
                } else if reply.is_none() {
                    self.joining.retry_at = Some(Instant::now() + RETRY);
                }
                Answer::Failed(error.to_string())
            }
        };
        if let Some(reply) = reply {
            reply.send(&answer);
        }
    }

    fn take_in(&mut self, code: &JoinCode, identity: Identity, answer: &JoinAnswer) -> Answer {
        if let Err(error) = self.store.save_identity(code, &identity) {
            return Answer::Failed(format!(
                "joined, but it can't be kept on disk: {}; join again once there is room",
                whole(&error)
            ));
        }
        let (network, name) = (identity.network.clone(), identity.name.clone());
        let first = [
            (gatewrt_protocol::Topic::Policy(identity.net), &answer.policy),
            (gatewrt_protocol::Topic::Assignment(identity.node), &answer.assignment),
        ];
        let records = first.into_iter().map(|(topic, token)| (topic.to_string(), token.clone())).collect();
        if let Err(error) = self.store.records(&network).flush(&records) {
            log::warn!("{network}: the first records are not on disk: {}", whole(&error));
        }
        let assignment: Option<Assignment> =
            jws::open(answer.assignment.as_bytes(), &identity.record_key).ok();
        log::info!("joined {network} as {name}");
        let membership = self.take_up(identity);
        system::networks_changed();
        self.feed(Input::Joined(Box::new(membership)));
        Answer::Joined(Joined {
            network,
            name,
            addresses: assignment.map(|it| it.addresses).unwrap_or_default(),
        })
    }
}

/// The usual port, or else one that the system finds free.
fn free_port(taken: &SortedSet<u16>) -> u16 {
    let free =
        |port: u16| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).and_then(|socket| socket.local_addr());
    if !taken.contains(&USUAL_PORT) && free(USUAL_PORT).is_ok() {
        return USUAL_PORT;
    }
    free(0).map_or(USUAL_PORT, |addr| addr.port())
}
