//! Memberships of this router, as they are on disk.

use super::persister::RecordPersister;
use crate::{
    config::{Config, OwnScope},
    core::Membership,
    error_chain::error_chain,
    identity::Identity,
    store::{Store, StoreError},
};
use gatewrt_protocol::{ExitScope, NetworkName};
use litemap::LiteMap;

/// Memberships of this router on disk, and the networks that can't be read, with the reason. Records that can't be read
/// are logged and left out.
pub fn memberships(config: &Config) -> Result<(Vec<Membership>, LiteMap<NetworkName, String>), StoreError> {
    let (identities, unreadable) = identities(&Store::new(&config.state_dir))?;
    let membership = |identity: &Identity| {
        let (_, stored) = RecordPersister::load(config, &identity.network);
        membership(identity, stored, config)
    };
    Ok((identities.iter().map(membership).collect(), unreadable))
}

pub(super) fn identities(store: &Store) -> Result<(Vec<Identity>, LiteMap<NetworkName, String>), StoreError> {
    let (mut identities, mut unreadable) = (Vec::new(), LiteMap::new());
    for network in store.networks()? {
        match store.identity(&network) {
            Ok(identity) => identities.extend(identity),
            Err(error) => drop(unreadable.insert(network, error_chain(&error))),
        }
    }
    Ok((identities, unreadable))
}

pub(super) fn membership(
    identity: &Identity,
    stored: LiteMap<String, String>,
    config: &Config,
) -> Membership {
    let configured = config.networks.get(&identity.network).and_then(|network| network.listen_port);
    Membership {
        network: identity.network.clone(),
        net: identity.net,
        node: identity.node,
        name: identity.name.clone(),
        record_key: identity.record_key,
        secret: identity.keys.wireguard(),
        public: identity.keys.wireguard_public(),
        port: configured.map_or(identity.port, u16::from),
        brokers: identity.brokers.clone(),
        stored,
        chosen: chosen(config, &identity.network),
    }
}

/// Scopes of a network that were set on the router. If they can't be read, the Internet traffic of all LANs is blocked
/// rather than sent the wrong way.
fn chosen(config: &Config, network: &NetworkName) -> Option<Vec<OwnScope>> {
    Store::new(&config.state_dir).choice(network).unwrap_or_else(|error| {
        log::error!(
            "{network}: {}; “gatewrt exit enable” or “gatewrt exit forget” says anew",
            error_chain(&error)
        );
        let name = "unknown".parse().expect("a sound name");
        let scope = ExitScope { auto: false, ..ExitScope::auto(name, Vec::new()) };
        Some(vec![OwnScope { exits: Vec::new(), lan: true, scope }])
    })
}
