//! Protocol between coordinator and router: topics, records, signatures, join codes and the value types in them. It
//! ends at bytes: without socket, file, clock or randomness, daemon, coordinator, command line and page share one
//! definition of each record.
//!
//! Trust: only a record's signature counts (RFC 7515 compact JWS, Ed25519 by RFC 8037), never the broker that delivered
//! it. [`jws::open`] verifies before it parses.
//!
//! # Set back and brought up to date
//!
//! A node keeps, of each topic, the highest revision that it ever had, across reboots. Whatever is older, or has the same
//! revision and other content, it refuses, from whomever it comes; and the id of a removed node never comes back. This
//! alone is what a broker, or anyone else, would have to get past to roll a node back, and nothing opens it: there is no
//! epoch, no reset, no message that makes a node forget.
//!
//! A coordinator that was restored from a backup is behind. A node answers what it refuses as too old with the newer record
//! as it has it, on [`Topic::Reply`]. That record bears the coordinator's own signature, so it proves to the coordinator,
//! whatever the node, the broker or anyone between wants, that this revision existed, and what was in it. The coordinator,
//! who alone holds the record key, signs anew with a higher revision. A node can bring nothing else: what is not signed by
//! the coordinator, or not newer than what it publishes, is dropped, so nobody can drive revisions up. The tombstone of a
//! node alone counts whatever its revision: a removed node never comes back.
//!
//! # Moved
//!
//! The brokers of a coordinator are in the [`Policy`] of each network. A node tries those, best first, then those of its join
//! answer. One that has reached none for 30 seconds, since it slept while the coordinator moved, asks other nodes through the
//! tunnel for their policy, eight at each attempt to connect: one UDP packet of 16 bytes, answered with one of at most
//! 4096 bytes, to members alone. The answer counts if the coordinator signed it and it is newer, and only for its brokers. A
//! peer can withhold the move, while others tell it, but can neither invent one nor bring an old one back; and whoever sits
//! at an address that the coordinator left has no certificate of its CA.

#![cfg_attr(
    not(test),
    deny(clippy::disallowed_methods, reason = "pure: time, files and random bytes come in as values")
)]
#![forbid(unsafe_code)]

pub mod access;
pub mod client;
pub mod exit;
pub mod id;
pub mod join;
pub mod jws;
pub mod key;
pub mod name;
pub mod prefix;
pub mod record;
pub mod topic;

pub use access::{Access, AccessRule, Proto, Service, Verdict};
pub use client::{ClientReport, Ingress, IngressClient, PresharedKey};
pub use exit::{ExitOffer, ExitScope, RolledBack, ScopeReport, ScopeState, Traffic, TrafficError};
pub use id::{ClientId, NetworkId, NodeId, RuleId};
pub use join::{JoinAnswer, JoinCode, JoinRequest, Problem};
pub use jws::{RecordError, Signer};
pub use key::{PublicKey, WgPublicKey};
pub use name::{ClientName, GroupName, NetworkName, NodeName, Tag};
pub use prefix::{Prefix, is_public};
pub use record::{
    Applied, Assignment, Egress, Endpoint, EndpointKind, Failure, InterfaceKind, InterfaceReport, Kind,
    Member, MemberUpdate, Path, PeerReport, Policy, Presence, Record, Report, Role, Roster, ServedPrefix,
    Tombstone,
};
pub use topic::Topic;

/// Version of the protocol. A record with a higher `min` is skipped, and the one before it stays in effect.
pub const VERSION: u16 = 1;

/// Longest signed record that either side accepts, in bytes; assignments have a limit of their own.
pub const MAX_RECORD: usize = 16 * 1024;

/// Longest signed assignment, in bytes: enough for 254 external clients and 1,000 access rules. A longer message is
/// refused before it is decoded.
pub const MAX_ASSIGNMENT: usize = 128 * 1024;

/// Serialization of a type as its text, by `Display` and `FromStr`.
macro_rules! text_serde {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use text_serde;
