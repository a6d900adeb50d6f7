//! Join codes: the number of routers that may join a network with one, until when, and with which roles. Only
//! a hash of a code's secret is stored.
//!
//! A code is in one of these states, and only `take` and `revoke_code` change it:
//!
//! ```text
//! usable ── last use ──▶ used up
//!   ├────── time ──────▶ expired
//!   └────── admin ─────▶ revoked (also from the other states)
//! ```

use super::{ALL_ROLES, Moment, Outcome, Registry, RegistryError, Row, range::check_range};
use gatewrt_protocol::{JoinCode, NetworkId, NodeId, Role, join::SECRET_BYTES};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// Id of a join code, by which admins refer to it. It reveals nothing about the secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CodeId(String);

impl fmt::Display for CodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl CodeId {
    /// Stands for the join code of a node that was adopted: which one it was is not known any more.
    pub(super) fn adopted() -> Self {
        Self("adopted".to_owned())
    }

    fn from_entropy(bytes: [u8; 10]) -> Self {
        // The alphabet of all other ids, but shorter, as admins type it.
        Self(NodeId::from_entropy(bytes).to_string().chars().take(8).collect())
    }
}

/// Join code as the registry stores it, with the hash of its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// Id of the code.
    pub id: CodeId,
    /// Network that routers join with it.
    pub net: NetworkId,
    /// Hash of the secret: [`JoinCode::secret_hash`].
    pub hash: String,
    /// Number of routers that may join with it.
    pub uses: u32,
    /// Number of routers that have joined with it.
    pub used: u32,
    /// Expiry time, in seconds since 1970.
    pub expires: u64,
    /// Time when it expired, in seconds since 1970: it stays so if the clock goes back.
    #[serde(default)]
    pub expired: Option<u64>,
    /// Roles of the nodes that join with it.
    pub roles: BTreeSet<Role>,
    /// Time when an admin revoked it, in seconds since 1970.
    #[serde(default)]
    pub revoked: Option<u64>,
    /// Creation time, in seconds since 1970.
    pub created: u64,
}

/// Spec of a new join code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CodeSpec {
    /// Number of routers that may join with it.
    #[serde(default = "one")]
    pub uses: u32,
    /// Time until it expires, in seconds.
    #[serde(default = "a_day")]
    pub expires_in: u64,
    /// Roles of the nodes that join with it; empty means all.
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
    /// Creates a join code. Its secret is only in the answer.
    pub fn create_code(
        &self,
        net: &str,
        spec: &CodeSpec,
        moment: &Moment,
    ) -> Outcome<(Code, [u8; SECRET_BYTES])> {
        let network = self.find_network(net)?;
        check_range("uses", spec.uses.into(), 1..=100_000, "1 to 100000")?;
        check_range(
            "the time to expiry, in seconds,",
            spec.expires_in,
            1..=LONGEST,
            "1 second to 3650 days",
        )?;
        let secret = moment.bytes(0);
        let every = || ALL_ROLES.into_iter().collect();
        let code = Code {
            id: CodeId::from_entropy(moment.bytes(SECRET_BYTES)),
            net: network.id,
            hash: JoinCode::secret_hash(&secret),
            uses: spec.uses,
            used: 0,
            expires: moment.now + spec.expires_in,
            expired: None,
            roles: if spec.roles.is_empty() { every() } else { spec.roles.clone() },
            revoked: None,
            created: moment.now,
        };
        Ok((vec![Row::Code(code.id.clone(), Some(code.clone()))], (code, secret)))
    }

    /// Revokes a join code. Routers that have joined with it stay.
    pub fn revoke_code(&self, net: &str, id: &str, moment: &Moment) -> Outcome<Code> {
        let code = self.find_code(net, id)?;
        let revoked = Code { revoked: code.revoked.or(Some(moment.now)), ..code.clone() };
        Ok((vec![Row::Code(code.id.clone(), Some(revoked.clone()))], revoked))
    }

    /// Finds a join code of a network by its id.
    pub fn find_code(&self, net: &str, id: &str) -> Result<&Code, RegistryError> {
        let network = self.find_network(net)?;
        let missing = || RegistryError::NoSuchCode { text: id.to_owned(), network: network.name.clone() };
        self.codes(network.id).find(|code| code.id.0 == id).ok_or_else(missing)
    }

    /// Finds the join code with this secret, in any state.
    pub(super) fn code_of(&self, secret: &[u8]) -> Result<&Code, RegistryError> {
        let hash = JoinCode::secret_hash(secret);
        self.codes.values().find(|code| code.hash == hash).ok_or(RegistryError::CodeUnknown)
    }
}

/// State of a join code at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CodeState {
    /// Routers can join with the code.
    Usable,
    /// As many routers have joined as the code allows.
    Used,
    /// The code's expiry time has passed.
    Expired,
    /// An admin has revoked the code.
    Revoked,
}

impl Code {
    /// State of the join code at `now`, in seconds since 1970. Revoked goes before used up, and that before expired.
    pub fn state(&self, now: u64) -> CodeState {
        if self.revoked.is_some() {
            CodeState::Revoked
        } else if self.used >= self.uses {
            CodeState::Used
        } else if self.expired.is_some() || now >= self.expires {
            CodeState::Expired
        } else {
            CodeState::Usable
        }
    }

    /// Join code after one more use, or the reason why it can't be used.
    pub(super) fn take(&self, now: u64) -> Result<Code, RegistryError> {
        match self.state(now) {
            CodeState::Usable => Ok(Code { used: self.used + 1, ..self.clone() }),
            CodeState::Used => Err(RegistryError::CodeUsed { uses: self.uses }),
            CodeState::Expired => Err(RegistryError::CodeExpired),
            CodeState::Revoked => Err(RegistryError::CodeRevoked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> Code {
        Code {
            id: CodeId("aaaaaaaa".into()),
            net: NetworkId::from_entropy([1; 10]),
            hash: String::new(),
            uses: 2,
            used: 0,
            expires: 100,
            expired: None,
            roles: BTreeSet::new(),
            revoked: None,
            created: 0,
        }
    }

    #[test]
    fn code_after_its_last_use_is_used_up() {
        let once = code().take(1).unwrap();
        assert_eq!((once.used, once.state(1)), (1, CodeState::Usable));
        let twice = once.take(1).unwrap();
        assert_eq!(twice.state(1), CodeState::Used);
        assert_eq!(twice.take(1), Err(RegistryError::CodeUsed { uses: 2 }));
    }

    #[test]
    fn code_at_its_expiry_time_is_expired() {
        assert_eq!((code().state(99), code().state(100)), (CodeState::Usable, CodeState::Expired));
        assert_eq!(code().take(100), Err(RegistryError::CodeExpired));
    }

    #[test]
    fn revoked_code_stays_revoked_in_every_other_state() {
        let revoked = Code { revoked: Some(1), ..code() };
        assert_eq!((revoked.state(1), revoked.state(100)), (CodeState::Revoked, CodeState::Revoked));
        assert_eq!(Code { used: 2, ..revoked }.take(1), Err(RegistryError::CodeRevoked));
    }
}
