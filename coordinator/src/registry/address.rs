//! Which overlay addresses a node gets. A network counts upwards and never back: an address that was given
//! once is not given again, also not after its node is gone, so that no peer with old records sends one
//! node's packets to another.

use super::{Network, RegistryError};
use gatewrt_protocol::Prefix;
use std::net::IpAddr;

/// The first index given: index 0 is the prefix itself.
pub const FIRST: u64 = 1;

impl Network {
    /// The addresses for the next node, and the network that has given them.
    pub(super) fn allocate(&self) -> Result<(Vec<IpAddr>, Network), RegistryError> {
        let addresses = [self.prefix4, self.prefix6]
            .iter()
            .map(|prefix| self.address_in(prefix))
            .collect::<Result<_, _>>()?;
        Ok((addresses, Network { next: self.next + 1, ..self.clone() }))
    }

    fn address_in(&self, prefix: &Prefix) -> Result<IpAddr, RegistryError> {
        let index = u128::from(self.next);
        // The last address of an IPv4 prefix is its broadcast address: some hosts refuse to talk to it.
        let usable = !prefix.is_ipv4() || prefix.nth(index + 1).is_some();
        let address = prefix.nth(index).filter(|_| usable);
        address.ok_or_else(|| RegistryError::Exhausted { network: self.name.clone(), prefix: *prefix })
    }
}
