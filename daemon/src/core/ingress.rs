//! External clients that are let in here, with the addresses and prefixes they may have. It ends at the list; their
//! WireGuard peers are [`desired`](super::desired)'s matter.

use super::Network;
use crate::model::{NO_PSK, Observed, Short};
use gatewrt_protocol::{Egress, Failure, IngressClient, Policy, Prefix, WgPublicKey};
use sorted_vec::{FindOrInsert, SortedSet};
use std::{fmt, net::IpAddr};

/// Context that decides what an external client may have.
pub(super) struct IngressContext<'a> {
    pub(super) network: &'a Network,
    pub(super) policy: &'a Policy,
    /// Prefixes that this node serves itself.
    pub(super) egress: &'a [&'a Egress],
    pub(super) observed: &'a Observed,
}

/// External clients that are let in, as far as the router's owner allows it, without addresses and prefixes they must
/// not have.
pub(super) fn admitted(
    context: &IngressContext<'_>,
    allowed: bool,
    failures: &mut Vec<Failure>,
) -> Vec<IngressClient> {
    let Some(ingress) = context.network.directory.assignment().and_then(|asked| asked.ingress.as_ref())
    else {
        return Vec::new();
    };
    if !allowed {
        failures.push(Failure {
            what: "let external clients in".to_owned(),
            why: "the router's owner forbids it: option allow_ingress is 0 in /etc/config/gatewrt".to_owned(),
        });
        return Vec::new();
    }
    let mut taken = Taken::context(context);
    ingress.clients.iter().filter_map(|client| taken.admit(client, context, failures)).collect()
}

/// Keys, addresses and prefixes that are taken, so that no further external client gets them.
struct Taken {
    keys: SortedSet<WgPublicKey>,
    prefixes: SortedSet<Prefix>,
    /// Prefixes that this router reaches by itself: they stay where they are.
    known: Vec<Prefix>,
}

impl Taken {
    fn context(context: &IngressContext<'_>) -> Self {
        let directory = &context.network.directory;
        let mut known = context.policy.prefixes.clone();
        known.extend(context.egress.iter().map(|egress| egress.prefix));
        let connected = context.observed.main_routes.iter().filter(|route| route.on_link);
        known.extend(connected.map(|route| route.prefix));
        known.retain(|prefix| !prefix.is_default());
        let keys = SortedSet::from_iter([context.network.membership.public]);
        let mut taken = Self { keys, prefixes: SortedSet::new(), known };
        let mut take = |addresses: &[IpAddr]| {
            taken.prefixes.extend(addresses.iter().map(|addr| Prefix::host(*addr)));
        };
        for member in directory.peers() {
            taken.keys.push(member.key);
            take(&member.addresses);
        }
        directory.assignment().iter().for_each(|own| take(&own.addresses));
        taken
    }

    /// External client without the addresses and prefixes that it can't have; `None` where no address is left.
    fn admit(
        &mut self,
        client: &IngressClient,
        context: &IngressContext<'_>,
        failures: &mut Vec<Failure>,
    ) -> Option<IngressClient> {
        let name = Short(&client.key);
        let mut refuse = |what: &dyn fmt::Display, why: String| {
            failures.push(Failure { what: format!("let client {name} in{what}"), why });
        };
        if self.keys.find_or_insert(client.key).is_found() {
            refuse(&"", "a node or another client has this key".to_owned());
            return None;
        }
        let mut admitted = client.clone();
        admitted.psk = client.psk.filter(|psk| *psk != NO_PSK);
        admitted.addresses.retain(|addr| match self.claim_address(*addr, context) {
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

    fn claim_address(&mut self, addr: IpAddr, context: &IngressContext<'_>) -> Result<(), &'static str> {
        if !context.policy.prefixes.iter().any(|net| net.contains(addr)) {
            return Err("the address is not of this network");
        }
        match self.prefixes.find_or_insert(Prefix::host(addr)) {
            FindOrInsert::Inserted(_) => Ok(()),
            FindOrInsert::Found(_) => Err("a node or another client has this address"),
        }
    }

    fn claim_prefix(&mut self, prefix: &Prefix) -> Result<(), String> {
        if prefix.is_default() {
            return Err("the whole Internet is no prefix behind a client".to_owned());
        }
        match self.known.iter().find(|known| known.overlaps(prefix)) {
            Some(known) => Err(format!("{known} is here already: it is the network's, or this router's own")),
            None if self.prefixes.find_or_insert(*prefix).is_inserted() => Ok(()),
            None => Err("another client has it".to_owned()),
        }
    }
}
