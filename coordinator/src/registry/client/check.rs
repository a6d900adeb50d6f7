//! Checks of the fields of a client: names, keys, addresses, prefixes.

use super::{Client, ClientError, Seats};
use crate::registry::{
    Node, Overlap, Registry, RegistryError, address,
    egress::{LIMIT, check_routed},
    network::is_special,
    overlap::Changing,
};
use gatewrt_protocol::{ClientId, ClientName, NetworkId, Prefix, Tag, WgPublicKey};
use std::{collections::BTreeSet, net::IpAddr};

const LABEL: usize = 64;
const TAGS: usize = 32;
const DNS: usize = 8;
const ROUTES: usize = 256;

impl Registry {
    /// Refuses a client's name that is in use: clients and nodes share one namespace.
    pub(in crate::registry) fn check_client_name(
        &self,
        net: NetworkId,
        itself: Option<ClientId>,
        name: &ClientName,
    ) -> Result<(), RegistryError> {
        let taken = |what| Err(RegistryError::NameTaken { what, name: name.to_string() });
        if self.live_clients(net).any(|client| Some(client.id) != itself && client.name == *name) {
            taken("a client")
        } else if self.live_nodes(net).any(|node| node.name.as_str() == name.as_str()) {
            taken("a node")
        } else {
            Ok(())
        }
    }

    /// Refuses a client's key that any node, client or stray has or had.
    pub(super) fn check_client_key(&self, key: WgPublicKey) -> Result<(), RegistryError> {
        if key.0 == [0; 32] {
            return Err(ClientError::BadKey.into());
        }
        self.check_no_clients_key(key)?;
        self.check_no_strays_key(key, None)?;
        let node = self.nodes().find(|node| node.key == key);
        node.map_or(Ok(()), |node| Err(ClientError::KeyOfNode { node: node.name.clone() }.into()))
    }

    /// Refuses a key that any client has or had.
    pub(in crate::registry) fn check_no_clients_key(&self, key: WgPublicKey) -> Result<(), RegistryError> {
        let Some(client) = self.clients().find(|client| client.had_key(key)) else { return Ok(()) };
        let dead = client.key != key || !client.is_live();
        Err(ClientError::KeyOfClient { client: client.name.clone(), dead }.into())
    }

    /// Allocates the addresses of a client on each gateway: the requested ones, else free ones.
    pub(super) fn seats(
        &self,
        client: &ClientName,
        gateways: &[&Node],
        given: &[IpAddr],
    ) -> Result<Seats, RegistryError> {
        let mut left: BTreeSet<IpAddr> = given.iter().copied().collect();
        let mut seats = Seats::new();
        for gateway in gateways {
            let blocks = gateway.ingress.iter().flat_map(|ingress| &ingress.blocks);
            let seat = blocks.map(|block| self.seat(client, gateway, block, &mut left));
            let seat = seat.collect::<Result<_, _>>()?;
            seats.insert(gateway.id, seat);
        }
        match left.first() {
            None => Ok(seats),
            Some(&address) => {
                let why = not_in_blocks(gateways);
                Err(ClientError::BadAddress { address, client: client.clone(), why }.into())
            }
        }
    }

    fn seat(
        &self,
        client: &ClientName,
        gateway: &Node,
        block: &Prefix,
        left: &mut BTreeSet<IpAddr>,
    ) -> Result<IpAddr, RegistryError> {
        let Some(address) = left.iter().copied().find(|addr| block.contains(*addr)) else {
            let given = self.given(gateway.net);
            let full = || ClientError::BlockFull { node: gateway.name.clone(), block: *block };
            return Ok(address::first_free(block, &given).ok_or_else(full)?);
        };
        left.remove(&address);
        let bad = |why| Err(ClientError::BadAddress { address, client: client.clone(), why }.into());
        if let Some(holder) = self.holder(gateway.net, address) {
            let deleted = if holder.is_live() { "" } else { ", which was deleted" };
            return bad(format!("it was given to client {}{deleted}", holder.name));
        }
        if address::is_host(block, address) {
            Ok(address)
        } else {
            bad(format!("the first and the last address of {block} are no host's"))
        }
    }

    /// All addresses that clients of the network have or had, also those that are strays.
    fn given(&self, net: NetworkId) -> BTreeSet<IpAddr> {
        let clients = self.clients().filter(|client| client.net == net);
        let strays = self.strays().filter(|stray| stray.net() == net).flat_map(|stray| stray.addresses());
        clients.flat_map(|client| client.seats.values().flatten()).chain(strays).copied().collect()
    }

    fn holder(&self, net: NetworkId, address: IpAddr) -> Option<&Client> {
        let has = |client: &&Client| client.seats.values().any(|seat| seat.contains(&address));
        self.clients().filter(|client| client.net == net).find(has)
    }

    /// Refuses prefixes that can't be behind a client.
    pub(super) fn check_behind(
        &self,
        client: &Client,
        prefixes: &BTreeSet<Prefix>,
    ) -> Result<(), RegistryError> {
        for &prefix in prefixes {
            check_routed(prefix)?;
            let owner = self.behind(client);
            let other = prefixes.iter().find(|other| **other != prefix && other.overlaps(&prefix));
            let itself = other.map(|with| (*with, owner.clone()));
            let conflict = || self.conflict(prefix, Some(client.net), Some(Changing::Client(client.id)));
            if let Some((with, with_owner)) = itself.or_else(conflict) {
                return Err(RegistryError::Overlap(Box::new(Overlap { prefix, owner, with, with_owner })));
            }
        }
        let Some(gateway) = self.live_node(client.gateway) else { return Ok(()) };
        let others = self.clients_at(gateway).filter(|other| other.id != client.id);
        let others = gateway.egress.len() + others.map(|other| other.prefixes.len()).sum::<usize>();
        if !prefixes.is_empty() && others + prefixes.len() > LIMIT {
            return Err(RegistryError::TooManyPrefixes { node: gateway.name.clone(), limit: LIMIT });
        }
        Ok(())
    }
}

fn not_in_blocks(gateways: &[&Node]) -> String {
    let blocks = |node: &&Node| {
        let blocks = node.ingress.iter().flat_map(|ingress| &ingress.blocks).map(Prefix::to_string);
        format!("{} of {}", blocks.collect::<Vec<_>>().join(" and "), node.name)
    };
    let blocks = gateways.iter().map(blocks).collect::<Vec<_>>().join(", ");
    format!("one address a family and gateway is taken from the blocks {blocks}")
}

/// Checks the label of a client or a node.
pub(in crate::registry) fn label(label: &str) -> Result<(), RegistryError> {
    let sound = label.chars().count() <= LABEL && !label.chars().any(char::is_control);
    if sound { Ok(()) } else { Err(ClientError::BadLabel.into()) }
}

pub(super) fn tags(tags: &BTreeSet<Tag>) -> Result<(), RegistryError> {
    few("tags", tags.len(), TAGS)
}

pub(super) fn dns(dns: &[IpAddr]) -> Result<(), RegistryError> {
    few("DNS servers", dns.len(), DNS)?;
    let Some(addr) = dns.iter().copied().find(|addr| is_special(*addr)) else { return Ok(()) };
    let why = "no client can reach a DNS server there";
    Err(RegistryError::BadPrefix { prefix: Prefix::host(addr), why })
}

pub(super) fn routes(routes: &BTreeSet<Prefix>) -> Result<(), RegistryError> {
    few("prefixes", routes.len(), ROUTES)?;
    routes.iter().try_for_each(|prefix| check_routed(*prefix))
}

pub(super) fn expires(expires: Option<u64>, now: u64) -> Result<(), RegistryError> {
    let over = expires.filter(|at| *at <= now);
    over.map_or(Ok(()), |at| Err(ClientError::ExpiryOver { at }.into()))
}

fn few(what: &'static str, count: usize, limit: usize) -> Result<(), RegistryError> {
    if count <= limit { Ok(()) } else { Err(ClientError::TooMany { what, count, limit }.into()) }
}
