//! Tokens of the HTTPS API: who may read, who may change, and in which network. Only a token's hash is kept.
//!
//! The hash is one round of SHA-256, not a slow one: slow hashes make guesses of what people choose dear, and
//! a token is 256 random bits, which no one guesses at any speed.

use super::{Moment, Outcome, Registry, RegistryError, Row};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use gatewrt_protocol::NetworkId;
use ring::digest;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the text of a token begins with, so that one is known where it turns up.
pub const TOKEN_PREFIX: &str = "gwt_";
/// Tokens there may be.
const LIMIT: usize = 1000;
const LONGEST: u64 = 3650 * 86_400;
/// Characters of a token's name.
const NAME: usize = 64;

/// How the audit log calls those who have no such token.
const RESERVED: [&str; 3] = ["admin.token", "command line", "join code"];

/// Names a token to the admin; the token can't be derived from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(String);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a token allows.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Rights {
    /// To look.
    Read,
    /// To look and to change.
    Admin,
}

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// See [`TokenId`].
    pub id: TokenId,
    /// What the admin calls it.
    pub name: String,
    /// SHA-256 of its text, in hexadecimal.
    pub hash: String,
    /// What it allows.
    pub rights: Rights,
    /// Where; everywhere when none is named.
    #[serde(default)]
    pub net: Option<NetworkId>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Until when it holds, in seconds since 1970; for ever when none is named.
    #[serde(default)]
    pub expires: Option<u64>,
}

impl Token {
    /// Whether its time is not over.
    pub fn holds(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// What an admin asks of a new token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenWish {
    /// To tell it from others: 1 to 64 characters.
    pub name: String,
    /// What it allows.
    pub rights: Rights,
    /// Name or id of the one network it is for; all when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// For how many seconds; for ever when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

impl Registry {
    /// Makes a token. Its text in the answer is nowhere else.
    pub fn create_token(&self, wish: &TokenWish, moment: &Moment) -> Outcome<(Token, String)> {
        let name = wish.name.trim();
        if !(1..=NAME).contains(&name.chars().count()) || name.chars().any(char::is_control) {
            return Err(RegistryError::BadTokenName);
        }
        if RESERVED.iter().any(|taken| name.starts_with(taken)) {
            return Err(RegistryError::NameTaken { what: "a token", name: name.to_owned() });
        }
        if self.tokens.values().any(|token| token.name == name) {
            return Err(RegistryError::NameTaken { what: "a token", name: name.to_owned() });
        }
        if self.tokens.len() >= LIMIT {
            return Err(RegistryError::TooManyTokens { limit: LIMIT });
        }
        if let Some(seconds) = wish.expires_in.filter(|seconds| !(1..=LONGEST).contains(seconds)) {
            let (what, range) = ("the time to expiry, in seconds,", "1 second to 3650 days");
            return Err(RegistryError::OutOfRange { what, value: seconds, range });
        }
        let net = wish.network.as_deref().map(|net| self.find_network(net)).transpose()?;
        let text = format!("{TOKEN_PREFIX}{}", BASE64URL_NOPAD.encode(&moment.entropy));
        let hash = token_hash(&text);
        let token = Token {
            // Eight digits of the hash: enough to tell a thousand apart, and the rest stays here.
            id: TokenId(hash.chars().take(8).collect()),
            name: name.to_owned(),
            hash,
            rights: wish.rights,
            net: net.map(|network| network.id),
            created: moment.now,
            expires: wish.expires_in.map(|seconds| moment.now + seconds),
        };
        Ok((vec![Row::Token(token.id.clone(), Some(token.clone()))], (token, text)))
    }

    /// Takes a token back.
    pub fn revoke_token(&self, id: &str) -> Outcome<Token> {
        let token = self.find_token(id)?;
        Ok((vec![Row::Token(token.id.clone(), None)], token.clone()))
    }

    /// A token by its id or its name.
    pub fn find_token(&self, text: &str) -> Result<&Token, RegistryError> {
        let by_id = self.tokens.get(&TokenId(text.to_owned()));
        let found = by_id.or_else(|| self.tokens.values().find(|token| token.name == text));
        found.ok_or_else(|| RegistryError::NoSuchToken { text: text.to_owned() })
    }

    /// A token by its id, if its time is not over.
    pub fn token(&self, id: &TokenId, now: u64) -> Option<&Token> {
        self.tokens.get(id).filter(|token| token.holds(now))
    }

    /// The token of this text, if there is one and its time is not over. What is compared is a hash, so the
    /// time it takes says nothing about the text.
    pub fn token_of(&self, text: &str, now: u64) -> Option<&Token> {
        let hash = token_hash(text);
        self.tokens.values().find(|token| token.hash == hash).filter(|token| token.holds(now))
    }

    /// All tokens.
    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.tokens.values()
    }
}

/// SHA-256 in hexadecimal.
pub fn token_hash(text: &str) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}
