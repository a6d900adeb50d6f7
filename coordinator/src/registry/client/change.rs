//! Operations on clients: create, change, reissue, delete.

use super::{Client, ClientError, ClientPatch, ClientSpec, NewKeys, ReissueRequest, check};
use crate::registry::{ClientFile, Moment, Node, Outcome, Registry, RegistryError, Row};
use gatewrt_protocol::{ClientId, ClientName, NetworkId, NodeName};
use std::collections::BTreeSet;

impl Registry {
    /// Creates a client with these keys, on all of the requested gateways.
    pub fn create_client(
        &self,
        net: &str,
        spec: &ClientSpec,
        keys: &NewKeys,
        moment: &Moment,
    ) -> Outcome<Client> {
        let network = self.find_network(net)?;
        let gateways = self.gateways(net, &spec.name, &spec.gateways)?;
        self.check_client_name(network.id, None, &spec.name)?;
        self.check_client_key(keys.key)?;
        check::label(&spec.label)?;
        check::tags(&spec.tags)?;
        check::dns(&spec.dns)?;
        check::routes(&spec.routes)?;
        check::expires(spec.expires, moment.now)?;
        let client = Client {
            id: ClientId::from_entropy(moment.bytes(0)),
            net: network.id,
            name: spec.name.clone(),
            label: spec.label.clone(),
            tags: spec.tags.clone(),
            key: keys.key,
            past_keys: BTreeSet::new(),
            psk: spec.psk.then_some(keys.psk),
            gateway: gateways[0].id,
            seats: self.seats(&spec.name, &gateways, &spec.addresses)?,
            dns: spec.dns.clone(),
            tunnel: spec.tunnel,
            routes: spec.routes.clone(),
            prefixes: BTreeSet::new(),
            enabled: true,
            reachable: spec.reachable,
            expires: spec.expires,
            expired: None,
            created: moment.now,
            issued: moment.now,
            file: ClientFile::placeholder(),
            deleted: None,
        };
        self.check_behind(&client, &spec.prefixes)?;
        let client = self.with_file(Client { prefixes: spec.prefixes.clone(), ..client }, moment)?;
        Ok((vec![client.clone().row()], client))
    }

    /// Changes the fields of a client that the patch names.
    pub fn change_client(
        &self,
        net: &str,
        client: &str,
        patch: &ClientPatch,
        moment: &Moment,
    ) -> Outcome<Client> {
        let client = self.find_client(net, client)?;
        let mut changed = client.clone();
        if let Some(name) = &patch.name {
            self.check_client_name(client.net, Some(client.id), name)?;
            changed.name = name.clone();
        }
        if let Some(label) = &patch.label {
            check::label(label)?;
            changed.label.clone_from(label);
        }
        if let Some(tags) = &patch.tags {
            check::tags(tags)?;
            changed.tags.clone_from(tags);
        }
        // The same again lets a client in that has expired before its time, by a clock that was ahead.
        let lets_in = |expires: &Option<u64>| {
            client.expired.is_some() && expires.is_none_or(|expires| expires > moment.now)
        };
        if let Some(expires) = patch.expires.filter(|expires| *expires != client.expires || lets_in(expires))
        {
            check::expires(expires, moment.now)?;
            (changed.expires, changed.expired) = (expires, None);
        }
        if let Some(dns) = &patch.dns {
            check::dns(dns)?;
            changed.dns.clone_from(dns);
        }
        if let Some(routes) = &patch.routes {
            check::routes(routes)?;
            changed.routes.clone_from(routes);
        }
        if let Some(prefixes) = &patch.prefixes {
            self.check_behind(client, prefixes)?;
            changed.prefixes.clone_from(prefixes);
        }
        changed.enabled = patch.enabled.unwrap_or(client.enabled);
        changed.reachable = patch.reachable.unwrap_or(client.reachable);
        changed.tunnel = patch.tunnel.unwrap_or(client.tunnel);
        Ok((changed.row_if_changed(client), changed))
    }

    /// Gives a client new keys, and another gateway if one is named. The old key is never accepted again.
    pub fn reissue_client(
        &self,
        net: &str,
        client: &str,
        spec: &ReissueRequest,
        keys: &NewKeys,
        moment: &Moment,
    ) -> Outcome<Client> {
        let client = self.find_client(net, client)?;
        self.check_client_key(keys.key)?;
        let stays = || self.name_of(client.gateway).cloned().into_iter().collect();
        let names: Vec<NodeName> = spec.gateway.clone().map_or_else(stays, |name| vec![name]);
        let gateways = self.gateways(net, &client.name, &names)?;
        let gateway = gateways[0];
        let mut seats = client.seats.clone();
        if !seats.contains_key(&gateway.id) {
            seats.extend(self.seats(&client.name, &gateways, &[])?);
        }
        let mut past_keys = client.past_keys.clone();
        past_keys.insert(client.key);
        let psk = spec.psk.unwrap_or(client.psk.is_some()).then_some(keys.psk);
        let changed = Client { key: keys.key, past_keys, psk, gateway: gateway.id, seats, ..client.clone() };
        self.check_behind(&changed, &client.prefixes)?;
        let changed = self.with_file(changed, moment)?;
        Ok((vec![changed.clone().row()], changed))
    }

    /// Records that a client has the file that it would be issued now, so that it is not stale any more.
    pub fn mark_issued(&self, net: &str, client: &str, moment: &Moment) -> Outcome<Client> {
        let client = self.find_client(net, client)?;
        let changed = self.with_file(client.clone(), moment)?;
        Ok((changed.row_if_changed(client), changed))
    }

    /// Deletes a client permanently: its keys and addresses are never reused.
    pub fn delete_client(&self, net: &str, client: &str, moment: &Moment) -> Outcome<Client> {
        let client = self.find_client(net, client)?;
        Ok((vec![client.deleted_row(moment.now)], client.clone()))
    }

    /// Nodes of these names, all of which must be reachable ingress nodes.
    fn gateways(
        &self,
        net: &str,
        client: &ClientName,
        names: &[NodeName],
    ) -> Result<Vec<&Node>, RegistryError> {
        if names.is_empty() {
            return Err(self.no_gateway(self.find_network(net)?.id, client));
        }
        let gateway = |name: &NodeName| {
            let node = self.find_node(net, name.as_str())?;
            if node.ingress.is_none() {
                return Err(ClientError::NoIngress { node: node.name.clone() }.into());
            }
            self.client_endpoint(node).map(|_| node).ok_or_else(|| self.unreachable(node))
        };
        names.iter().map(gateway).collect()
    }

    fn no_gateway(&self, net: NetworkId, client: &ClientName) -> RegistryError {
        let known = self.live_nodes(net).filter(|node| node.ingress.is_some());
        let known = known.map(|node| node.name.clone()).collect();
        ClientError::NoGateway { client: client.clone(), known }.into()
    }

    /// Client with the file that it would be issued now.
    fn with_file(&self, client: Client, moment: &Moment) -> Result<Client, RegistryError> {
        let gateway = self.live_node(client.gateway).filter(|node| node.ingress.is_some());
        let file = gateway.and_then(|_| self.client_file(&client));
        let missing = || self.no_gateway(client.net, &client.name);
        let file = file.ok_or_else(missing)?;
        if let (true, Some(gateway)) = (file.endpoint.is_empty(), gateway) {
            return Err(self.unreachable(gateway));
        }
        Ok(Client { file, issued: moment.now, ..client })
    }
}

impl Client {
    pub(in crate::registry) fn row(self) -> Row {
        Row::Client(self.id, Some(Box::new(self)))
    }

    fn row_if_changed(&self, before: &Client) -> Vec<Row> {
        if self == before { Vec::new() } else { vec![self.clone().row()] }
    }

    /// Row of a deleted client: it keeps the name for messages, and the keys and addresses.
    pub(in crate::registry) fn deleted_row(&self, now: u64) -> Row {
        let (label, tags, prefixes) = (String::new(), BTreeSet::new(), BTreeSet::new());
        let deleted = Some(now);
        Client { psk: None, label, tags, prefixes, enabled: false, deleted, ..self.clone() }.row()
    }
}
