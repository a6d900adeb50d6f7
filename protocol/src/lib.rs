//! What coordinator and router say to each other: topics, records, signatures, join codes and the value
//! types in them. It ends at bytes: no socket, file, clock or randomness is in here, so that daemon,
//! coordinator, command line and page share one definition of each record.
//!
//! Trust: a record is believed for its signature alone (RFC 7515 compact JWS, Ed25519 by RFC 8037), never
//! for the broker it came through. [`jws::open`] verifies before it parses anything else.
#![forbid(unsafe_code)]

pub mod access;
pub mod base;
pub mod client;
pub mod exit;
pub mod id;
pub mod join;
pub mod json;
pub mod jws;
pub mod key;
pub mod name;
pub mod prefix;
pub mod record;
pub mod topic;

pub use access::{Access, AccessRule, Proto, Service, Verdict};
pub use client::{ClientReport, Ingress, IngressClient, PresharedKey};
pub use exit::{ExitOffer, ExitScope, ScopeReport, ScopeState, TakenBack, Traffic, TrafficError};
pub use id::{ClientId, NetworkId, NodeId, RuleId};
pub use join::{JoinAnswer, JoinCode, JoinRequest, Problem};
pub use jws::{RecordError, Signer};
pub use key::{PublicKey, WgPublicKey};
pub use name::{ClientName, GroupName, NetworkName, NodeName, Tag};
pub use prefix::Prefix;
pub use record::{
    Applied, Assignment, Egress, Endpoint, EndpointKind, Failure, InterfaceKind, InterfaceReport, Kind,
    Member, MemberUpdate, Pairs, Path, PeerReport, Policy, Presence, Record, Report, Role, Roster,
    ServedPrefix, Tombstone,
};
pub use topic::Topic;

/// The protocol's version: a record whose `min` is higher is skipped, what was known before stays.
pub const VERSION: u16 = 1;

/// The longest signed record either side accepts, in bytes, but for assignments.
pub const MAX_RECORD: usize = 16 * 1024;

/// The longest signed assignment, in bytes: one that lists 254 external clients and 1,000 access rules is shorter.
/// Nothing longer is even decoded.
pub const MAX_ASSIGNMENT: usize = 128 * 1024;

/// Makes a string newtype travel as its text in JSON. One that is a field by itself says what it holds before it is read.
macro_rules! text_serde {
    ($type:ty, $blank:expr) => {
        $crate::text_serde!($type);
        impl $crate::json::Blank for $type {
            fn blank() -> Self {
                $blank
            }
        }
    };
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
        impl $crate::json::FromJson for $type {
            fn from_json(reader: &mut $crate::json::Reader<'_>) -> Result<Self, $crate::json::JsonError> {
                reader.parse()
            }
        }
    };
}
pub(crate) use text_serde;
