//! Signed records: JWS compact serialisation (RFC 7515) with EdDSA over Ed25519 (RFC 8037).
//!
//! The header names the record's kind (`typ`), so that a signature over one kind never passes for another, and the key
//! (`kid`). [`open`] checks the size, then the signature, and parses only then.

use crate::{Kind, MAX_ASSIGNMENT, MAX_RECORD, PublicKey, Record, VERSION};
use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt;
use thiserror::Error;

/// Reason why a signed record is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Message longer than its kind allows: its length and the limit, in bytes.
    #[error("{0} bytes, at most {1} are accepted")]
    TooLong(usize, usize),
    /// Message that is not three base64url parts with a header of ours.
    #[error("not a signed record")]
    Malformed,
    /// Signature by another key than the expected one, going by the name in the header.
    #[error("signed with a key that is not trusted here")]
    ForeignKey,
    /// Wrong signature: the message is forged or altered.
    #[error("the signature does not fit: forged or altered")]
    BadSignature,
    /// Sound signature over another kind of record than the expected one.
    #[error("a record of another kind than belongs here")]
    WrongKind,
    /// Protocol version that the record needs, newer than [`VERSION`].
    #[error("needs protocol version {0}, this is {VERSION}: upgrade to take part in what is new")]
    TooNew(u16),
    /// Error of the parser on signed content.
    #[error("signed, but unreadable: {0}")]
    Content(String),
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

/// Part that the payload of every record has: the protocol version that is needed to understand it.
#[derive(Deserialize)]
struct Least {
    #[serde(default)]
    min: u16,
}

/// Signer of records with one key. The seed is not wiped from memory, so keep the value in one place.
pub struct Signer(SigningKey);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.public().kid())
    }
}

impl Signer {
    /// Signer with the Ed25519 private key of these 32 secret bytes (RFC 8032).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Public key that verifies this signer's signatures.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Ed25519 signature of any message, 64 bytes.
    pub fn signature(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// Signed form of a record, a compact JWS; an error when it is longer than its [`limit`].
    pub fn sign<T: Record>(&self, record: &T) -> Result<String, RecordError> {
        let payload = serde_json::to_vec(record).map_err(unreadable)?;
        let token = self.sign_bytes(record.kind(), &payload);
        check_length(token.len(), limit(record.kind()))?;
        Ok(token)
    }

    /// Signed form of a record's payload, which is taken as it is, of any length.
    pub fn sign_bytes(&self, kind: Kind, payload: &[u8]) -> String {
        let header = Header { alg: "EdDSA".into(), kid: self.public().kid(), typ: kind.typ().into() };
        let header = serde_json::to_vec(&header).expect("three strings are always JSON");
        let mut token = BASE64URL_NOPAD.encode(&header);
        token.push('.');
        token.push_str(&BASE64URL_NOPAD.encode(payload));
        let signature = self.signature(token.as_bytes());
        token.push('.');
        token.push_str(&BASE64URL_NOPAD.encode(&signature));
        token
    }
}

/// Length limit of signed records of a kind, in bytes.
pub fn limit(kind: Kind) -> usize {
    if kind == Kind::Assignment { MAX_ASSIGNMENT } else { MAX_RECORD }
}

fn check_length(length: usize, limit: usize) -> Result<(), RecordError> {
    if length > limit { Err(RecordError::TooLong(length, limit)) } else { Ok(()) }
}

/// Verifies the signed record `token` with `key`; returns the kind it was signed as and its payload.
pub fn verify(token: &[u8], key: &PublicKey) -> Result<(Kind, Vec<u8>), RecordError> {
    check_length(token.len(), MAX_ASSIGNMENT)?;
    let last = token.iter().rposition(|&b| b == b'.').ok_or(RecordError::Malformed)?;
    let signature = decode(&token[last + 1..])?;
    if !is_sound(&token[..last], &signature, key) {
        return Err(whose(token, key));
    }
    content(token, last)
}

/// Checks an Ed25519 signature strictly: a key of small order, with which one signature fits many messages, is refused.
fn is_sound(message: &[u8], signature: &[u8], key: &PublicKey) -> bool {
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_bytes(&key.0), Signature::from_slice(signature))
    else {
        return false;
    };
    key.verify_strict(message, &signature).is_ok()
}

/// Verifies the signed record `token` with `key`, and parses it as a record of the expected kind.
pub fn open<T: Record>(token: &[u8], key: &PublicKey) -> Result<T, RecordError> {
    let (kind, payload) = verify(token, key)?;
    read(kind, &payload)
}

/// Parses a record that this machine verified before it stored it; the signature is not checked again.
pub fn open_own<T: Record>(token: &[u8]) -> Result<T, RecordError> {
    let last = token.iter().rposition(|&b| b == b'.').ok_or(RecordError::Malformed)?;
    let (kind, payload) = content(token, last)?;
    read(kind, &payload)
}

/// Parses the payload of a message that was verified, and signed as `kind`.
pub fn read<T: Record>(kind: Kind, payload: &[u8]) -> Result<T, RecordError> {
    if !T::accepts(kind) {
        return Err(RecordError::WrongKind);
    }
    check_version(payload)?;
    T::parse(kind, payload).map_err(unreadable)
}

fn check_version(payload: &[u8]) -> Result<(), RecordError> {
    let least: Least = parse(payload)?;
    if least.min > VERSION { Err(RecordError::TooNew(least.min)) } else { Ok(()) }
}

/// Kind and payload of the signed record `token`, whose signature begins after the dot at `last`.
fn content(token: &[u8], last: usize) -> Result<(Kind, Vec<u8>), RecordError> {
    let first =
        token.iter().position(|&b| b == b'.').filter(|&first| first < last).ok_or(RecordError::Malformed)?;
    let header: Header = parse(&decode(&token[..first])?)?;
    if header.alg != "EdDSA" {
        return Err(RecordError::Malformed);
    }
    let kind = Kind::from_typ(&header.typ).ok_or(RecordError::WrongKind)?;
    check_length(token.len(), limit(kind))?;
    Ok((kind, decode(&token[first + 1..last])?))
}

/// Payload of a signed record as JSON, with its signature unchecked: for display, never to act on.
pub fn peek(token: &str) -> Option<serde_json::Value> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&BASE64URL_NOPAD.decode(payload.as_bytes()).ok()?).ok()
}

/// Error for a record with a wrong signature, told from its header for the text alone: the header is not trusted.
fn whose(token: &[u8], key: &PublicKey) -> RecordError {
    let header = token.split(|&b| b == b'.').next().and_then(|header| decode(header).ok());
    match header.and_then(|header| serde_json::from_slice::<Header>(&header).ok()) {
        None => RecordError::Malformed,
        Some(header) if header.kid != key.kid() => RecordError::ForeignKey,
        Some(_) => RecordError::BadSignature,
    }
}

fn decode(part: &[u8]) -> Result<Vec<u8>, RecordError> {
    BASE64URL_NOPAD.decode(part).map_err(|_| RecordError::Malformed)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    serde_json::from_slice(bytes).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> RecordError {
    RecordError::Content(error.to_string())
}
