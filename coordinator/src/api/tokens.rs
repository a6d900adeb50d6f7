//! Tokens, logins and the audit log, as the API speaks of them.

use crate::{
    audit::Entry,
    registry::{Registry, Rights, Token},
};
use gatewrt_protocol::NetworkName;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// A token of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Names it.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What it allows.
    pub rights: Rights,
    /// The only network it is for; all when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub network: Option<NetworkName>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Until when it holds, in seconds since 1970; for ever when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Whether it holds now.
    pub valid: bool,
    /// The token itself; only in the answer that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl TokenView {
    /// The view of a token.
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

/// What logs in. Has no `Debug`: it is a secret.
#[derive(Clone, Deserialize, ToSchema)]
pub struct LoginWish {
    /// The token's text.
    pub token: String,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// The token's name.
    pub name: String,
    /// What it allows.
    pub rights: Rights,
    /// The only network it is for; all when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub network: Option<NetworkName>,
    /// What changes have to show as `X-CSRF-Token`; in a session only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csrf: Option<String>,
    /// Seconds until the session ends; in a session only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// Who changed what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Grows with each.
    pub id: i64,
    /// When, in seconds since 1970.
    pub at: u64,
    /// A token's name, `join code …`, `command line`.
    pub who: String,
    /// Where the request came from.
    #[schema(value_type = String)]
    pub from: IpAddr,
    /// In which network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub network: Option<NetworkName>,
    /// `node.change`, `client.create`, …
    pub action: String,
    /// What was changed.
    pub target: String,
    /// What was asked for, without secrets.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl AuditView {
    /// The view of an entry.
    pub fn of(id: i64, entry: Entry) -> Self {
        let Entry { at, who, from, net: _, network, action, target, detail } = entry;
        Self { id, at, who, from, network, action, target, detail }
    }
}
