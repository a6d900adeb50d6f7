//! Tokens of the HTTPS API: the right to read or to change, in all networks or one. Only a token's hash is
//! stored.
//!
//! The hash is one round of SHA-256. A slow hash protects passwords that people choose; a token is 256 random
//! bits, which nobody can guess at any speed.

use super::{ADMIN_TOKEN_NAME, Moment, Outcome, Registry, RegistryError, Row, range::check_range};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use gatewrt_protocol::NetworkId;
use ring::digest;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Prefix of an API token's text, so that scanners recognize a leaked one.
pub const TOKEN_PREFIX: &str = "gwt_";
/// Largest number of API tokens.
const LIMIT: usize = 1000;
const LONGEST: u64 = 3650 * 86_400;
/// Largest number of characters of an API token's name.
const NAME: usize = 64;

/// Names that no API token may have, as the audit log uses them for other callers.
const RESERVED: [&str; 4] = [ADMIN_TOKEN_NAME, "command line", "join code", "local "];

/// Id of an API token, by which admins refer to it. It reveals nothing about the token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(String);

impl TokenId {
    /// Eight hexadecimal digits of the hash distinguish a thousand tokens; the other digits stay secret.
    pub(super) fn of(hash: &str) -> Self {
        Self(hash.chars().take(8).collect())
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Rights of a token.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Rights {
    /// Right to read.
    Read,
    /// Right to read and to change.
    Admin,
}

/// API token as the registry stores it, with the hash of its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Id of the token.
    pub id: TokenId,
    /// Name that the admin chose.
    pub name: String,
    /// SHA-256 of the token's text, in lower-case hexadecimal: [`token_hash`].
    pub hash: String,
    /// Rights that it grants.
    pub rights: Rights,
    /// Only network that it is valid for; none means all networks.
    #[serde(default)]
    pub net: Option<NetworkId>,
    /// Creation time, in seconds since 1970.
    pub created: u64,
    /// Expiry time, in seconds since 1970; none means that it never expires.
    #[serde(default)]
    pub expires: Option<u64>,
    /// Time when it expired, in seconds since 1970: it stays so if the clock goes back.
    #[serde(default)]
    pub expired: Option<u64>,
    /// Time when it was revoked, in seconds since 1970. Only a revoked admin token is kept, as its file may be there still.
    #[serde(default)]
    pub revoked: Option<u64>,
}

impl Token {
    /// True until the API token expires or is revoked.
    pub fn holds(&self, now: u64) -> bool {
        self.revoked.is_none() && self.expired.is_none() && self.expires.is_none_or(|expires| now < expires)
    }
}

/// Spec of a new API token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenSpec {
    /// Name, 1 to 64 characters.
    pub name: String,
    /// Rights that it grants.
    pub rights: Rights,
    /// Name or id of the only network that it is valid for; none means all networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Time until it expires, in seconds; none means that it never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

impl Registry {
    /// Creates an API token. Its text is only in the answer.
    pub fn create_token(&self, spec: &TokenSpec, moment: &Moment) -> Outcome<(Token, String)> {
        let name = spec.name.trim();
        if !(1..=NAME).contains(&name.chars().count()) || name.chars().any(char::is_control) {
            return Err(RegistryError::BadTokenName);
        }
        if RESERVED.iter().any(|taken| name.starts_with(taken)) {
            return Err(RegistryError::NameTaken { what: "a token", name: name.to_owned() });
        }
        if self.tokens().any(|token| token.name == name) {
            return Err(RegistryError::NameTaken { what: "a token", name: name.to_owned() });
        }
        if self.tokens().count() >= LIMIT {
            return Err(RegistryError::TooManyTokens { limit: LIMIT });
        }
        if let Some(seconds) = spec.expires_in {
            check_range("the time to expiry, in seconds,", seconds, 1..=LONGEST, "1 second to 3650 days")?;
        }
        let net = spec.network.as_deref().map(|net| self.find_network(net)).transpose()?;
        let text = format!("{TOKEN_PREFIX}{}", BASE64URL_NOPAD.encode(&moment.entropy));
        let hash = token_hash(&text);
        let token = Token {
            id: TokenId::of(&hash),
            name: name.to_owned(),
            hash,
            rights: spec.rights,
            net: net.map(|network| network.id),
            created: moment.now,
            expires: spec.expires_in.map(|seconds| moment.now + seconds),
            expired: None,
            revoked: None,
        };
        Ok((vec![Row::Token(token.id.clone(), Some(token.clone()))], (token, text)))
    }

    /// Revokes an API token.
    pub fn revoke_token(&self, id: &str, moment: &Moment) -> Outcome<Token> {
        let token = self.find_token(id)?;
        let kept = token.is_admin_token().then(|| token.revoked_at(moment.now));
        Ok((vec![Row::Token(token.id.clone(), kept)], token.clone()))
    }

    /// Finds an API token by its id or its name.
    pub fn find_token(&self, text: &str) -> Result<&Token, RegistryError> {
        let by_id = self.tokens().find(|token| token.id.0 == text);
        let found = by_id.or_else(|| self.tokens().find(|token| token.name == text));
        found.ok_or_else(|| RegistryError::NoSuchToken { text: text.to_owned() })
    }

    /// Looks up an API token by its id, unless it has expired or was revoked.
    pub fn token(&self, id: &TokenId, now: u64) -> Option<&Token> {
        self.tokens.get(id).filter(|token| token.holds(now))
    }

    /// Finds the API token with this text, unless it has expired or was revoked. Hashes are compared, so that the time it takes
    /// reveals nothing about the text.
    pub fn token_of(&self, text: &str, now: u64) -> Option<&Token> {
        let hash = token_hash(text);
        self.tokens.values().find(|token| token.hash == hash).filter(|token| token.holds(now))
    }

    /// All API tokens of the registry, without revoked ones.
    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.tokens.values().filter(|token| token.revoked.is_none())
    }
}

/// SHA-256 of an API token's text, in lower-case hexadecimal, as the registry stores it.
pub fn token_hash(text: &str) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}
