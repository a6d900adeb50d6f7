//! Which overlay addresses nodes and clients get. A network counts upwards and never back, and blocks for clients
//! are never given twice: an address that was given once is not given again, also not after its holder is gone, so
//! that no peer with old records sends one's packets to another.

use super::{ClientError, Network, RegistryError};
use gatewrt_protocol::Prefix;
use std::{collections::BTreeSet, net::IpAddr};

/// The first index given: index 0 is the prefix itself.
pub const FIRST: u64 = 1;
/// Longest blocks of clients; an IPv4 one has two addresses that can be given.
const LONGEST: (u8, u8) = (30, 124);
/// What a block has when nothing else is said and the network is large enough.
const USUAL: (u8, u8) = (24, 112);

impl Network {
    /// The addresses for the next node, and the network that has given them. Blocks of clients are passed over.
    pub(super) fn allocate(&self) -> Result<(Vec<IpAddr>, Network), RegistryError> {
        let mut next = self.next;
        loop {
            let addresses =
                vec![self.address_in(&self.prefix4, next)?, self.address_in(&self.prefix6, next)?];
            let block = self.blocks.iter().find(|block| addresses.iter().any(|addr| block.contains(*addr)));
            match block {
                None => return Ok((addresses, Network { next: next + 1, ..self.clone() })),
                Some(block) => next = self.end_of(block),
            }
        }
    }

    fn address_in(&self, prefix: &Prefix, index: u64) -> Result<IpAddr, RegistryError> {
        let index = u128::from(index);
        let address = prefix.nth(index).filter(|_| is_usable(prefix, index));
        address.ok_or_else(|| RegistryError::Exhausted { network: self.name.clone(), prefix: *prefix })
    }

    /// The first index behind a block; none that a node could get where that is too large to count.
    fn end_of(&self, block: &Prefix) -> u64 {
        let end = index_of(self.of_family(block), block.addr()).saturating_add(size(block));
        u64::try_from(end).unwrap_or(u64::MAX)
    }

    /// The network's prefix of the same family.
    pub(super) fn of_family(&self, like: &Prefix) -> &Prefix {
        if like.is_ipv4() { &self.prefix4 } else { &self.prefix6 }
    }

    /// A block that was never given: of IPv4 from the end of the prefix downwards, as far as can be from the nodes;
    /// of IPv6 from its start, which keeps addresses short. In a small network a quarter of it, as far as that leaves addresses.
    pub(super) fn free_block(&self, ipv4: bool) -> Result<Prefix, RegistryError> {
        let prefix = if ipv4 { &self.prefix4 } else { &self.prefix6 };
        let (usual, longest) = if ipv4 { (USUAL.0, LONGEST.0) } else { (USUAL.1, LONGEST.1) };
        let free = (usual.max((prefix.len() + 2).min(longest))..=longest)
            .find_map(|len| self.free_block_of(prefix, len));
        let none = || ClientError::NoBlock { network: self.name.clone(), prefix: *prefix };
        Ok(free.ok_or_else(none)?)
    }

    fn free_block_of(&self, prefix: &Prefix, len: u8) -> Option<Prefix> {
        let (count, step) = (1u128 << (len - prefix.len()).min(20), bits(prefix) - len);
        let last = (1u128 << (len - prefix.len())) - 1;
        let place = |number: u128| if prefix.is_ipv4() { last - number } else { number };
        let block = |number| Prefix::containing(prefix.nth(place(number) << step)?, len).ok();
        (0..count).filter_map(block).find(|block| self.is_free(block))
    }

    /// Whether a block holds no address that was given to a node, nor any that was in another block.
    pub(super) fn is_free(&self, block: &Prefix) -> bool {
        let start = index_of(self.of_family(block), block.addr());
        start >= u128::from(self.next) && !self.blocks.iter().any(|given| given.overlaps(block))
    }

    /// Refuses a block that can't be one.
    pub(super) fn check_block(&self, block: Prefix, ipv4: bool) -> Result<(), RegistryError> {
        let bad = |why| Err(ClientError::BadBlock { network: self.name.clone(), block, why }.into());
        if block.is_ipv4() != ipv4 {
            return bad("it is of the other family");
        }
        let longest = if ipv4 { LONGEST.0 } else { LONGEST.1 };
        let prefix = self.of_family(&block);
        if !prefix.covers(&block) || block.len() <= prefix.len() {
            bad("it is no part of the network's prefix")
        } else if block.len() > longest {
            bad("it is too small for clients")
        } else if !self.is_free(&block) {
            bad("addresses in it were given before, to nodes or as another block")
        } else {
            Ok(())
        }
    }
}

/// The first address of a block that is not in `given`.
pub(super) fn first_free(block: &Prefix, given: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let indices = u128::from(FIRST)..size(block);
    let usable = indices.take_while(|index| is_usable(block, *index));
    usable.filter_map(|index| block.nth(index)).find(|addr| !given.contains(addr))
}

/// Whether an address of a block can be a host's.
pub(super) fn is_host(block: &Prefix, addr: IpAddr) -> bool {
    let index = index_of(block, addr);
    block.contains(addr) && index >= u128::from(FIRST) && is_usable(block, index)
}

/// The last address of an IPv4 prefix is its broadcast address: some hosts refuse to talk to it.
fn is_usable(prefix: &Prefix, index: u128) -> bool {
    !prefix.is_ipv4() || prefix.nth(index + 1).is_some()
}

fn bits(prefix: &Prefix) -> u8 {
    if prefix.is_ipv4() { 32 } else { 128 }
}

/// How many addresses it has; no prefix here is longer than a network's, so that this always fits.
fn size(prefix: &Prefix) -> u128 {
    1u128.checked_shl(u32::from(bits(prefix) - prefix.len())).unwrap_or(u128::MAX)
}

/// How many places `addr`, which lies in `prefix`, comes after its first address.
fn index_of(prefix: &Prefix, addr: IpAddr) -> u128 {
    to_bits(addr).wrapping_sub(to_bits(prefix.addr()))
}

fn to_bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}
