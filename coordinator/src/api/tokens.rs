//! API values of tokens, logins and the audit log.

use crate::{
    audit::Entry,
    registry::{Registry, Rights, Token},
};
use gatewrt_protocol::NetworkName;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// API token as the API shows it: its rights, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Id that an admin refers to it by.
    pub id: String,
    /// Name that the admin chose.
    pub name: String,
    /// Rights that it grants.
    pub rights: Rights,
    /// Only network that it is valid for; none means all networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub network: Option<NetworkName>,
    /// Creation time, in seconds since 1970.
    pub created: u64,
    /// Expiry time, in seconds since 1970; none means that it never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Set until it expires.
    pub valid: bool,
    /// Text of the token, only in the answer that created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl TokenView {
    /// Creates the view of an API token at `now`, in seconds since 1970.
    pub fn of(registry: &Registry, token: &Token, now: u64) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name.clone(),
            rights: token.rights,
            network: token.net.and_then(|net| registry.network(net)).map(|network| network.name.clone()),
            created: token.created,
            expires: token.expires,
            valid: token.holds(now),
            token: None,
        }
    }
}

/// Request of a login to the page: a token's text. Has no `Debug`: the token is a secret.
#[derive(Clone, Deserialize, ToSchema)]
pub struct LoginRequest {
    /// Text of the token.
    pub token: String,
}

/// Name and rights of the token that a request was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// Name of the token.
    pub name: String,
    /// Rights that it grants.
    pub rights: Rights,
    /// Only network that it is valid for; none means all networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub network: Option<NetworkName>,
    /// Value that changes have to send as `X-CSRF-Token`; in a session only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csrf: Option<String>,
    /// Seconds until the session ends; in a session only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// Entry of the audit log as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Number of the entry; it only grows.
    pub id: i64,
    /// Time of the change, in seconds since 1970.
    pub at: u64,
    /// Author: a token's name, `join code …`, `command line` with the admin token, or `local root` without one.
    pub who: String,
    /// Source address of the request.
    #[schema(value_type = String)]
    pub from: IpAddr,
    /// Name that the changed network had at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub network: Option<NetworkName>,
    /// Action: `node.change`, `client.create`, …
    pub action: String,
    /// Object that was changed.
    pub target: String,
    /// Request, without secrets.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl AuditView {
    /// Creates the view of the audit log entry with the number `id`.
    pub fn of(id: i64, entry: Entry) -> Self {
        let Entry { at, who, from, net: _, network, action, target, detail } = entry;
        Self { id, at, who, from, network, action, target, detail }
    }
}
