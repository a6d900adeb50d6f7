//! Allocation of overlay addresses to nodes and clients. The node index of a network only grows, and a block
//! of clients is never allocated twice: an address is never reused, even after its holder is gone. Otherwise
//! a peer with old records would send packets of one holder to another.

use super::{ClientError, Network, RegistryError};
use gatewrt_protocol::Prefix;
use std::{collections::BTreeSet, net::IpAddr};

/// First index of an address in a prefix that is allocated: index 0 is the prefix itself.
pub const FIRST: u64 = 1;
/// Longest prefix lengths of client blocks (IPv4, IPv6). An IPv4 block of this length has two usable
/// addresses.
const LONGEST: (u8, u8) = (30, 124);
/// Default prefix lengths of client blocks (IPv4, IPv6) in a network that is large enough.
const USUAL: (u8, u8) = (24, 112);

impl Network {
    /// Allocates the overlay addresses of the next node of the network. Returns them with the changed network. Blocks
    /// of clients are skipped.
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

    /// First index of an address behind a block. `u64::MAX`, which no node can get, if the block is too large to count.
    fn end_of(&self, block: &Prefix) -> u64 {
        let end = index_of(self.of_family(block), block.addr()).saturating_add(size(block));
        u64::try_from(end).unwrap_or(u64::MAX)
    }

    /// Prefix of the network that has the same address family as `like`.
    pub(super) fn of_family(&self, like: &Prefix) -> &Prefix {
        if like.is_ipv4() { &self.prefix4 } else { &self.prefix6 }
    }

    /// Finds a free block of overlay addresses for clients, which was never allocated. IPv4 blocks come from the end of
    /// the prefix downwards, as far as possible from the nodes; IPv6 blocks from its start, which keeps addresses
    /// short. In a small network a block is a quarter of the prefix, as long as that leaves addresses.
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

    /// True if a block contains no address that a node or another block ever had.
    pub(super) fn is_free(&self, block: &Prefix) -> bool {
        let start = index_of(self.of_family(block), block.addr());
        start >= u128::from(self.next) && !self.blocks.iter().any(|given| given.overlaps(block))
    }

    /// Refuses a block of clients' addresses that is not valid or not free.
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

/// First address of a block that is not in `given`.
pub(super) fn first_free(block: &Prefix, given: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let indices = u128::from(FIRST)..size(block);
    let usable = indices.take_while(|index| is_usable(block, *index));
    usable.filter_map(|index| block.nth(index)).find(|addr| !given.contains(addr))
}

/// True if an address of a block can belong to a host.
pub(super) fn is_host(block: &Prefix, addr: IpAddr) -> bool {
    let index = index_of(block, addr);
    block.contains(addr) && index >= u128::from(FIRST) && is_usable(block, index)
}

/// True for an address that a host can have: not for the last address of an IPv4 prefix, which is the broadcast
/// address, and some hosts refuse to talk to it.
fn is_usable(prefix: &Prefix, index: u128) -> bool {
    !prefix.is_ipv4() || prefix.nth(index + 1).is_some()
}

fn bits(prefix: &Prefix) -> u8 {
    if prefix.is_ipv4() { 32 } else { 128 }
}

/// Number of addresses in a prefix. It always fits: no prefix here is shorter than that of a network.
fn size(prefix: &Prefix) -> u128 {
    1u128.checked_shl(u32::from(bits(prefix) - prefix.len())).unwrap_or(u128::MAX)
}

/// Offset of `addr`, which lies in `prefix`, from its first address.
pub(super) fn index_of(prefix: &Prefix, addr: IpAddr) -> u128 {
    to_bits(addr).wrapping_sub(to_bits(prefix.addr()))
}

fn to_bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}
