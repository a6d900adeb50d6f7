//! Signed records: JWS compact serialisation (RFC 7515) with EdDSA over Ed25519 (RFC 8037).
//!
//! The header names the record's kind (`typ`), so that a signature over one kind never passes for another,
//! and the key (`kid`). [`open`] checks size, then signature, then parses; nothing else is looked at before.

use crate::{
    Kind, MAX_ASSIGNMENT, MAX_RECORD, PublicKey, Record, VERSION,
    base::BASE64URL,
    json::{self, FromJson, JsonError},
    json_fields,
};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::Serialize;
use std::fmt;

/// Why a message is no record that may be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordError {
    /// Longer than a record of its kind may be: the length and the limit, in bytes.
    TooLong(usize, usize),
    /// Not three base64url parts with a header of ours.
    Malformed,
    /// Signed with a key of another name than the expected one.
    ForeignKey,
    /// The signature does not fit: forged or altered.
    BadSignature,
    /// A sound signature over another kind of record than this place takes.
    WrongKind,
    /// Needs a newer protocol version than [`VERSION`]; the one it names.
    TooNew(u16),
    /// Signed, but its content can't be read; what the parser said.
    Content(String),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(bytes, limit) => write!(f, "{bytes} bytes, at most {limit} are accepted"),
            Self::Malformed => f.write_str("not a signed record"),
            Self::ForeignKey => f.write_str("signed with a key that is not trusted here"),
            Self::BadSignature => f.write_str("the signature does not fit: forged or altered"),
            Self::WrongKind => f.write_str("a record of another kind than belongs here"),
            Self::TooNew(min) => {
                write!(
                    f,
                    "needs protocol version {min}, this is {VERSION}: upgrade to take part in what is new"
                )
            }
            Self::Content(what) => write!(f, "signed, but unreadable: {what}"),
        }
    }
}
impl std::error::Error for RecordError {}

#[derive(Serialize)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}
json_fields!(Header: alg, kid, typ);

/// The least of any payload: which protocol version is needed to understand it.
struct Least {
    min: u16,
}
json_fields!(Least: ; min);

/// Signs records with one key. The seed is wiped by no one: keep the value in one place.
pub struct Signer(SigningKey);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.public().kid())
    }
}

impl Signer {
    /// A signer from the 32 secret bytes of RFC 8032.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The key others verify with.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The signature of any message.
    pub fn signature(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// The signed form of `record`. Fails when it is longer than [`limit`] says.
    pub fn sign<T: Record>(&self, record: &T) -> Result<String, RecordError> {
        let payload = json::write(record).map_err(unreadable)?;
        let token = self.sign_bytes(record.kind(), payload.as_bytes());
        check_length(token.len(), limit(record.kind()))?;
        Ok(token)
    }

    /// Signs a payload as it is.
    pub fn sign_bytes(&self, kind: Kind, payload: &[u8]) -> String {
        let header = Header { alg: "EdDSA".into(), kid: self.public().kid(), typ: kind.typ().into() };
        let header = json::write(&header).expect("three strings are always JSON");
        let mut token = BASE64URL.encode(header.as_bytes());
        token.push('.');
        token.push_str(&BASE64URL.encode(payload));
        let signature = self.signature(token.as_bytes());
        token.push('.');
        token.push_str(&BASE64URL.encode(&signature));
        token
    }
}

/// The longest signed record of a kind, in bytes.
pub fn limit(kind: Kind) -> usize {
    if kind == Kind::Assignment { MAX_ASSIGNMENT } else { MAX_RECORD }
}

fn check_length(length: usize, limit: usize) -> Result<(), RecordError> {
    if length > limit { Err(RecordError::TooLong(length, limit)) } else { Ok(()) }
}

/// Verifies `token` with `key`: the kind it was signed as and its payload.
pub fn verify(token: &[u8], key: &PublicKey) -> Result<(Kind, Vec<u8>), RecordError> {
    check_length(token.len(), MAX_ASSIGNMENT)?;
    let last = token.iter().rposition(|&b| b == b'.').ok_or(RecordError::Malformed)?;
    let signature = decode(&token[last + 1..])?;
    if !is_sound(&token[..last], &signature, key) {
        return Err(whose(token, key));
    }
    content(token, last)
}

/// Takes no key of small order, with which more than one message fits a signature.
fn is_sound(message: &[u8], signature: &[u8], key: &PublicKey) -> bool {
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_bytes(&key.0), Signature::from_slice(signature))
    else {
        return false;
    };
    key.verify_strict(message, &signature).is_ok()
}

/// Verifies `token` with `key` and reads a record of the kind wanted.
pub fn open<T: Record>(token: &[u8], key: &PublicKey) -> Result<T, RecordError> {
    let (kind, payload) = verify(token, key)?;
    read(kind, &payload)
}

/// Reads a record that this machine verified before and kept itself: its signature is not checked again.
pub fn open_own<T: Record>(token: &[u8]) -> Result<T, RecordError> {
    let last = token.iter().rposition(|&b| b == b'.').ok_or(RecordError::Malformed)?;
    let (kind, payload) = content(token, last)?;
    read(kind, &payload)
}

fn read<T: Record>(kind: Kind, payload: &[u8]) -> Result<T, RecordError> {
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

/// Kind and payload of a token whose signature begins after the dot at `last`.
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

/// The payload of a record without any check of its signature: for showing, never for believing.
pub fn peek(token: &str) -> Option<serde_json::Value> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&BASE64URL.decode(payload.as_bytes())?).ok()
}

/// Tells a foreign key from a forgery, for the message only: the header is not trusted.
fn whose(token: &[u8], key: &PublicKey) -> RecordError {
    let header = token.split(|&b| b == b'.').next().and_then(|header| decode(header).ok());
    match header.and_then(|header| json::read::<Header>(&header).ok()) {
        None => RecordError::Malformed,
        Some(header) if header.kid != key.kid() => RecordError::ForeignKey,
        Some(_) => RecordError::BadSignature,
    }
}

fn decode(part: &[u8]) -> Result<Vec<u8>, RecordError> {
    BASE64URL.decode(part).ok_or(RecordError::Malformed)
}

fn parse<T: FromJson>(bytes: &[u8]) -> Result<T, RecordError> {
    json::read(bytes).map_err(unreadable)
}

fn unreadable(error: JsonError) -> RecordError {
    RecordError::Content(error.to_string())
}
