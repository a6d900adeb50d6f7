//! Policy rules over rtnetlink (`linux/fib_rules.h`).

use super::{
    attr::{Message, Received, attrs_after, u32_at},
    socket::{NetlinkError, Socket},
};
use crate::{
    model::{Family, Rule},
    ownership::PROTOCOL,
};
use nix::libc::{self, AF_INET, AF_INET6, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};

const HEADER: usize = 12;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_IFGROUP: u16 = 13;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
/// What else a rule can select by: destination, source, interfaces, goto, flow, tunnel, l3mdev, users,
/// protocol, ports, DSCP, flow label.
const SELECTORS: [u16; 14] = [1, 2, 3, 4, 11, 12, 17, 19, 20, 22, 23, 24, 25, 26];
const FR_ACT_TO_TBL: u8 = 1;
const FIB_RULE_INVERT: u32 = 2;

/// A rule that leads to a table by mark alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRule {
    /// What it says.
    pub rule: Rule,
    /// Who made it.
    pub protocol: u8,
    /// It has a selector that ours never have.
    pub more: bool,
}

/// Every rule of a family.
pub fn rules(socket: &mut Socket, family: Family) -> Result<Vec<FoundRule>, NetlinkError> {
    let message = Message::new(libc::RTM_GETRULE, NLM_F_DUMP, &header(family, 0, 0));
    match socket.read(&message, |received| parse(received, family)) {
        // A kernel without the family, or without policy rules.
        Err(error) if error.is(&[libc::EAFNOSUPPORT, libc::EOPNOTSUPP]) => Ok(Vec::new()),
        found => found,
    }
}

/// Adds a rule of ours.
pub fn add(socket: &mut Socket, rule: &Rule) -> Result<(), NetlinkError> {
    socket.change(&request(libc::RTM_NEWRULE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, rule))
}

/// Deletes a rule of ours: the kernel compares the protocol too, so that a look-alike stays.
pub fn delete(socket: &mut Socket, rule: &Rule) -> Result<(), NetlinkError> {
    socket.change(&request(libc::RTM_DELRULE, NLM_F_ACK, rule))
}

fn request(kind: u16, flags: i32, rule: &Rule) -> Message {
    let invert = if rule.invert { FIB_RULE_INVERT } else { 0 };
    let mut message = Message::new(kind, flags, &header(rule.family, FR_ACT_TO_TBL, invert));
    message.u32(FRA_PRIORITY, rule.priority).u32(FRA_TABLE, rule.table);
    message.u32(FRA_FWMARK, rule.mark).u32(FRA_FWMASK, rule.mask).u8(FRA_PROTOCOL, PROTOCOL);
    message
}

/// `struct fib_rule_hdr`
fn header(family: Family, action: u8, flags: u32) -> [u8; HEADER] {
    let family = if family == Family::V4 { AF_INET } else { AF_INET6 };
    let mut bytes = [0; HEADER];
    (bytes[0], bytes[7]) = (family as u8, action);
    bytes[8..].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

fn parse(received: Received<'_>, family: Family) -> Option<FoundRule> {
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
    let mut more = action != FR_ACT_TO_TBL || (dst_len, src_len, tos) != (0, 0, 0);
    let mut protocol = 0;
    for (attr, payload) in attrs_after(body, HEADER) {
        match attr {
            FRA_PRIORITY => rule.priority = u32_at(payload, 0)?,
            FRA_FWMARK => rule.mark = u32_at(payload, 0)?,
            FRA_FWMASK => rule.mask = u32_at(payload, 0)?,
            FRA_TABLE => rule.table = u32_at(payload, 0)?,
            FRA_PROTOCOL => protocol = *payload.first()?,
            FRA_SUPPRESS_IFGROUP | FRA_SUPPRESS_PREFIXLEN => more |= u32_at(payload, 0)? != u32::MAX,
            kind if SELECTORS.contains(&kind) => more = true,
            _ => (),
        }
    }
    Some(FoundRule { rule, protocol, more })
}
