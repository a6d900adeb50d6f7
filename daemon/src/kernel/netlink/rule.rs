//! Policy rules over rtnetlink (`linux/fib_rules.h`).

use super::{
    attr::{Message, Received, addr, attrs_after, text, u32_at},
    socket::{NetlinkError, Socket},
};
use crate::{
    model::{Family, ForeignRule, IfName, Rule},
    ownership::PROTOCOL,
};
use gatewrt_protocol::Prefix;
use nix::libc::{self, AF_INET, AF_INET6, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};

const HEADER: usize = 12;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_GOTO: u16 = 4;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_IFGROUP: u16 = 13;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
/// Other selectors of a rule: destination, flow, tunnel, outgoing interface, l3mdev, users, protocol, ports, DSCP, flow
/// label.
const SELECTORS: [u16; 11] = [1, 11, 12, 17, 19, 20, 22, 23, 24, 25, 26];
/// `RT_TABLE_LOCAL`, `RT_TABLE_MAIN` and `RT_TABLE_DEFAULT`, at the priorities at which every kernel has them.
const KERNELS: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_GOTO: u8 = 2;
const FIB_RULE_INVERT: u32 = 2;

/// Lists the policy rules of a family, whoever made them.
pub fn rules(socket: &mut Socket, family: Family) -> Result<Vec<ForeignRule>, NetlinkError> {
    let message = Message::new(libc::RTM_GETRULE, NLM_F_DUMP, &header(family, 0, 0));
    match socket.read(&message, |received| parse(received, family)) {
        // A kernel without the family, or without policy rules.
        Err(error) if error.is(&[libc::EAFNOSUPPORT, libc::EOPNOTSUPP]) => Ok(Vec::new()),
        found => found,
    }
}

impl ForeignRule {
    /// True for a policy rule of ours: it has our protocol number, and nothing that we never write.
    pub fn is_ours(&self) -> bool {
        self.protocol == PROTOCOL && !self.more && self.suppress.is_none()
    }

    /// True for the policy rules that every kernel has from the start.
    pub fn is_kernels(&self) -> bool {
        let Rule { priority, mark, mask, invert, table, iif, from, .. } = &self.rule;
        let plain = (*mark, *mask, *invert) == (0, 0, false) && iif.is_none() && from.is_none();
        plain && !self.more && self.suppress.is_none() && KERNELS.contains(&(*priority, *table))
    }
}

/// Adds a policy rule of ours.
pub fn add(socket: &mut Socket, rule: &Rule) -> Result<(), NetlinkError> {
    socket.change(&request(libc::RTM_NEWRULE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, rule))
}

/// Deletes a policy rule of ours: the kernel compares the protocol too, so that a look-alike stays.
pub fn delete(socket: &mut Socket, rule: &Rule) -> Result<(), NetlinkError> {
    socket.change(&request(libc::RTM_DELRULE, NLM_F_ACK, rule))
}

fn request(kind: u16, flags: i32, rule: &Rule) -> Message {
    let invert = if rule.invert { FIB_RULE_INVERT } else { 0 };
    let action = if rule.skips_to().is_some() { FR_ACT_GOTO } else { FR_ACT_TO_TBL };
    let mut header = header(rule.family, action, invert);
    header[2] = rule.from.map_or(0, |from| from.len());
    let mut message = Message::new(kind, flags, &header);
    message.u32(FRA_PRIORITY, rule.priority);
    match rule.skips_to() {
        Some(priority) => message.u32(FRA_GOTO, priority),
        None => message.u32(FRA_TABLE, rule.table),
    };
    message.u32(FRA_FWMARK, rule.mark).u32(FRA_FWMASK, rule.mask).u8(FRA_PROTOCOL, PROTOCOL);
    if let Some(iif) = &rule.iif {
        message.text(FRA_IIFNAME, iif.as_str());
    }
    if let Some(from) = &rule.from {
        message.addr(FRA_SRC, from.addr());
    }
    message
}

/// Header of a policy rule message: `struct fib_rule_hdr`.
fn header(family: Family, action: u8, flags: u32) -> [u8; HEADER] {
    let family = if family == Family::V4 { AF_INET } else { AF_INET6 };
    let mut bytes = [0; HEADER];
    (bytes[0], bytes[7]) = (family as u8, action);
    bytes[8..].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

fn parse(received: Received<'_>, family: Family) -> Option<ForeignRule> {
    let body = received.body;
    let &[af, dst_len, src_len, tos, table, _, _, action, ..] = body else { return None };
    if af != header(family, 0, 0)[0] {
        return None;
    }
    let invert = u32_at(body, 8)? & FIB_RULE_INVERT != 0;
    let mut rule = Rule {
        family,
        priority: 0,
        mark: 0,
        mask: 0,
        invert,
        table: u32::from(table),
        iif: None,
        from: None,
    };
    let mut more = !matches!(action, FR_ACT_TO_TBL | FR_ACT_GOTO) || (dst_len, tos) != (0, 0);
    let (mut protocol, mut suppress) = (0, None);
    for (attr, payload) in attrs_after(body, HEADER) {
        match attr {
            FRA_PRIORITY => rule.priority = u32_at(payload, 0)?,
            FRA_FWMARK => rule.mark = u32_at(payload, 0)?,
            FRA_FWMASK => rule.mask = u32_at(payload, 0)?,
            FRA_TABLE if action != FR_ACT_GOTO => rule.table = u32_at(payload, 0)?,
            FRA_GOTO => rule.table = Rule::SKIP | u32_at(payload, 0)?,
            FRA_PROTOCOL => protocol = *payload.first()?,
            FRA_SRC => rule.from = Some(Prefix::new(addr(payload)?, src_len).ok()?),
            FRA_IIFNAME => rule.iif = text(payload).and_then(IfName::new),
            FRA_SUPPRESS_PREFIXLEN => suppress = Some(u32_at(payload, 0)?).filter(|len| *len != u32::MAX),
            FRA_SUPPRESS_IFGROUP => more |= u32_at(payload, 0)? != u32::MAX,
            kind if SELECTORS.contains(&kind) => more = true,
            _ => (),
        }
    }
    Some(ForeignRule { rule, more, suppress, protocol })
}
