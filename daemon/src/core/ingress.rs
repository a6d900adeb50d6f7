//! External clients: which of those that the coordinator names are let in here, and with what. It ends at the list;
//! what the kernel shall have of them is [`desired`](super::desired)'s matter.

use super::Network;
use crate::{
    gather::{Gather, append},
    model::Observed,
    plan::{NO_PSK, Short},
    sorted::SortedSet,
};
use gatewrt_protocol::{Egress, Failure, IngressClient, Policy, Prefix, WgPublicKey};
use std::{fmt, net::IpAddr};

/// What a client must not lay hands on.
pub(super) struct Surroundings<'a> {
    pub(super) network: &'a Network,
    pub(super) policy: &'a Policy,
    /// What this node serves itself.
    pub(super) egress: &'a [&'a Egress],
    pub(super) observed: &'a Observed,
}

/// The clients that are let in, as far as the router's owner allows it, without what they must not have.
pub(super) fn admitted(
    around: &Surroundings<'_>,
    allowed: bool,
    failures: &mut Vec<Failure>,
) -> Vec<IngressClient> {
    let Some(ingress) = around.network.directory.assignment().and_then(|asked| asked.ingress.as_ref()) else {
        return Vec::new();
    };
    if !allowed {
        failures.push(Failure {
            what: "let external clients in".to_owned(),
            why: "the router's owner forbids it: option allow_ingress is 0 in /etc/config/gatewrt".to_owned(),
        });
        return Vec::new();
    }
    let mut taken = Taken::around(around);
    ingress.clients.iter().filter_map(|client| taken.admit(client, around, failures)).gather()
}

/// Keys, addresses and prefixes that someone has.
struct Taken {
    keys: SortedSet<WgPublicKey>,
    prefixes: SortedSet<Prefix>,
    /// What this router reaches by itself: that stays where it is.
    known: Vec<Prefix>,
}

impl Taken {
    fn around(around: &Surroundings<'_>) -> Self {
        let directory = &around.network.directory;
        let mut known = around.policy.prefixes.clone();
        append(&mut known, around.egress.iter().map(|egress| egress.prefix));
        let connected = around.observed.main_routes.iter().filter(|route| route.on_link);
        append(&mut known, connected.map(|route| route.prefix));
        known.retain(|prefix| !prefix.is_default());
        let keys = [around.network.membership.public].into();
        let mut taken = Self { keys, prefixes: SortedSet::new(), known };
        let mut take = |addresses: &[IpAddr]| {
            taken.prefixes.extend(addresses.iter().map(|addr| Prefix::host(*addr)));
        };
        for member in directory.peers() {
            taken.keys.insert(member.key);
            take(&member.addresses);
        }
        directory.assignment().iter().for_each(|own| take(&own.addresses));
        taken
    }

    /// A client without what it can't have; none where no address is left.
    fn admit(
        &mut self,
        client: &IngressClient,
        around: &Surroundings<'_>,
        failures: &mut Vec<Failure>,
    ) -> Option<IngressClient> {
        let name = Short(&client.key);
        let mut refuse = |what: &dyn fmt::Display, why: String| {
            failures.push(Failure { what: format!("let client {name} in{what}"), why });
        };
        if !self.keys.insert(client.key) {
            refuse(&"", "a node or another client has this key".to_owned());
            return None;
        }
        let mut admitted = client.clone();
        admitted.psk = client.psk.filter(|psk| *psk != NO_PSK);
        admitted.addresses.retain(|addr| match self.claim_address(*addr, around) {
            Ok(()) => true,
            Err(why) => {
                refuse(&format_args!(" with {addr}"), why.to_owned());
                false
            }
        });
        admitted.prefixes.retain(|prefix| match self.claim_prefix(prefix) {
            Ok(()) => true,
            Err(why) => {
                refuse(&format_args!(" with {prefix} behind it"), why);
                false
            }
        });
        Some(admitted).filter(|client| !client.addresses.is_empty())
    }

    fn claim_address(&mut self, addr: IpAddr, around: &Surroundings<'_>) -> Result<(), &'static str> {
        if !around.policy.prefixes.iter().any(|net| net.contains(addr)) {
            return Err("the address is not of this network");
        }
        let is_free = self.prefixes.insert(Prefix::host(addr));
        is_free.then_some(()).ok_or("a node or another client has this address")
    }

    fn claim_prefix(&mut self, prefix: &Prefix) -> Result<(), String> {
        if prefix.is_default() {
            return Err("the whole Internet is no prefix behind a client".to_owned());
        }
        match self.known.iter().find(|known| known.overlaps(prefix)) {
            Some(known) => Err(format!("{known} is here already: it is the network's, or this router's own")),
            None if self.prefixes.insert(*prefix) => Ok(()),
            None => Err("another client has it".to_owned()),
        }
    }
}
