//! Join codes: how many routers may join a network until when, and what they may do there. Only the hash of
//! a code's secret is kept.

use super::{ALL_ROLES, Moment, Outcome, Registry, RegistryError, Row};
use gatewrt_protocol::{JoinCode, NetworkId, NodeId, Role, join::SECRET_BYTES};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// Names a join code to the admin; nothing can be derived from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CodeId(String);

impl fmt::Display for CodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl CodeId {
    fn from_entropy(bytes: [u8; 10]) -> Self {
        // The alphabet of all other ids, shorter: an admin types it.
        Self(NodeId::from_entropy(bytes).to_string().chars().take(8).collect())
    }
}

/// A join code as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// See [`CodeId`].
    pub id: CodeId,
    /// The network it lets join.
    pub net: NetworkId,
    /// [`JoinCode::secret_hash`] of the secret.
    pub hash: String,
    /// How many routers may join with it.
    pub uses: u32,
    /// How many did.
    pub used: u32,
    /// Until when, in seconds since 1970.
    pub expires: u64,
    /// What those that join with it may do.
    pub roles: BTreeSet<Role>,
    /// When the admin took it back.
    #[serde(default)]
    pub revoked: Option<u64>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

/// What an admin asks of a new code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CodeWish {
    /// How many routers may join with it.
    #[serde(default = "one")]
    pub uses: u32,
    /// For how long, in seconds.
    #[serde(default = "a_day")]
    pub expires_in: u64,
    /// What they may do; nothing named is all.
    #[serde(default)]
    #[schema(value_type = BTreeSet<String>)]
    pub roles: BTreeSet<Role>,
}

fn one() -> u32 {
    1
}

fn a_day() -> u64 {
    86_400
}

const LONGEST: u64 = 3650 * 86_400;

impl Registry {
    /// Makes a join code. The secret in the answer is nowhere else.
    pub fn create_code(
        &self,
        net: &str,
        wish: &CodeWish,
        moment: &Moment,
    ) -> Outcome<(Code, [u8; SECRET_BYTES])> {
        let network = self.find_network(net)?;
        check("uses", wish.uses.into(), 100_000, "1 to 100000")?;
        check("the time to expiry, in seconds,", wish.expires_in, LONGEST, "1 second to 3650 days")?;
        let secret = moment.bytes(0);
        let every = || ALL_ROLES.into_iter().collect();
        let code = Code {
            id: CodeId::from_entropy(moment.bytes(SECRET_BYTES)),
            net: network.id,
            hash: JoinCode::secret_hash(&secret),
            uses: wish.uses,
            used: 0,
            expires: moment.now + wish.expires_in,
            roles: if wish.roles.is_empty() { every() } else { wish.roles.clone() },
            revoked: None,
            created: moment.now,
        };
        Ok((vec![Row::Code(code.id.clone(), Some(code.clone()))], (code, secret)))
    }

    /// Takes a code back. Routers that joined with it stay.
    pub fn revoke_code(&self, net: &str, id: &str, moment: &Moment) -> Outcome<Code> {
        let code = self.find_code(net, id)?;
        let revoked = Code { revoked: code.revoked.or(Some(moment.now)), ..code.clone() };
        Ok((vec![Row::Code(code.id.clone(), Some(revoked.clone()))], revoked))
    }

    /// A code of a network by the text of its id.
    pub fn find_code(&self, net: &str, id: &str) -> Result<&Code, RegistryError> {
        let network = self.find_network(net)?;
        let missing = || RegistryError::NoSuchCode { text: id.to_owned(), network: network.name.clone() };
        self.codes(network.id).find(|code| code.id.0 == id).ok_or_else(missing)
    }

    /// The code with this secret, whatever its state.
    pub(super) fn code_of(&self, secret: &[u8]) -> Result<&Code, RegistryError> {
        let hash = JoinCode::secret_hash(secret);
        self.codes.values().find(|code| code.hash == hash).ok_or(RegistryError::CodeUnknown)
    }
}

impl Code {
    /// The code after one more use, or why it can't be used.
    pub(super) fn take(&self, now: u64) -> Result<Code, RegistryError> {
        if self.revoked.is_some() {
            Err(RegistryError::CodeRevoked)
        } else if self.used >= self.uses {
            Err(RegistryError::CodeUsed { uses: self.uses })
        } else if now >= self.expires {
            Err(RegistryError::CodeExpired)
        } else {
            Ok(Code { used: self.used + 1, ..self.clone() })
        }
    }
}

fn check(what: &'static str, value: u64, most: u64, range: &'static str) -> Result<(), RegistryError> {
    let fits = (1..=most).contains(&value);
    if fits { Ok(()) } else { Err(RegistryError::OutOfRange { what, value, range }) }
}
