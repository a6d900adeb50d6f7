//! Identity of this router in one network: keys that are generated here and never leave it, and the coordinator's
//! answer at joining. It ends at values: [`crate::store`] writes them.

use crate::model::WgSecret;
use data_encoding::BASE64;
use gatewrt_protocol::{
    JoinAnswer, JoinCode, NetworkId, NetworkName, NodeId, NodeName, PublicKey, Signer, WgPublicKey, key,
};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{fmt, fs::File, io::Read};

/// Failure of the system to give random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes, so no key can be made: is /dev/urandom there?")]
pub struct NoRandomness;

/// `N` unpredictable bytes, for keys; blocks until the kernel has gathered enough entropy.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// `N` bytes that are unlikely to repeat but may be predictable, without blocking. A router that has just booted may
/// have to gather entropy for [`random`] for a while, and the tunnels must not wait for that.
pub fn nonce<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    read.map_err(|_| NoRandomness).map(|()| bytes)
}

/// Private keys of a node in one network. `Debug` shows nothing of them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    wireguard: Secret,
    identity: Secret,
}

impl Keys {
    /// Generates new private keys of a node: one for WireGuard, one for its identity.
    pub fn generate() -> Result<Self, NoRandomness> {
        Ok(Self { wireguard: Secret(clamped(random()?)), identity: Secret(random()?) })
    }

    /// Private key of the node for WireGuard.
    pub fn wireguard(&self) -> WgSecret {
        WgSecret(self.wireguard.0)
    }

    /// Public key of the node for WireGuard.
    pub fn wireguard_public(&self) -> WgPublicKey {
        WgPublicKey(x25519_dalek::x25519(self.wireguard.0, x25519_dalek::X25519_BASEPOINT_BYTES))
    }

    /// Signer with the node's identity key, for its requests and reports.
    pub fn signer(&self) -> Signer {
        Signer::from_seed(&self.identity.0)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.wireguard_public())
    }
}

/// Clamps a WireGuard private key as Curve25519 does (RFC 7748, section 5), since `wg genkey` stores keys clamped.
fn clamped(mut bytes: [u8; 32]) -> [u8; 32] {
    bytes[0] &= 248;
    bytes[31] = bytes[31] & 127 | 64;
    bytes
}

/// Identity of a router in a network it has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Name of the network and, after a prefix, of its interface.
    pub network: NetworkName,
    /// The network.
    pub net: NetworkId,
    /// The node.
    pub node: NodeId,
    /// The node's name at joining.
    pub name: NodeName,
    /// Private keys of the node.
    pub keys: Keys,
    /// `host:port` of each MQTT broker, in order of preference.
    pub brokers: Vec<String>,
    /// The coordinator's CA, PEM.
    pub ca: String,
    /// The node's client certificate, PEM.
    pub certificate: String,
    /// `https://host:port` of the coordinator.
    pub coordinator: String,
    /// Key that verifies the coordinator's records.
    pub record_key: PublicKey,
    /// WireGuard's UDP port as told at joining.
    pub port: u16,
}

impl Identity {
    /// Identity from the coordinator's answer to a join request made with `keys` and `port`.
    pub fn new(code: &JoinCode, keys: Keys, port: u16, answer: &JoinAnswer) -> Self {
        Self {
            network: answer.network.clone(),
            net: answer.net,
            node: answer.node,
            name: answer.name.clone(),
            keys,
            brokers: answer.brokers.clone(),
            ca: answer.ca.clone(),
            certificate: answer.certificate.clone(),
            coordinator: code.url.clone(),
            record_key: code.record_key,
            port,
        }
    }
}

/// Private key of 32 bytes, written in base64 on disk.
#[derive(Clone, PartialEq, Eq)]
struct Secret([u8; 32]);

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        key::from_base64(&text)
            .map(Self)
            .ok_or_else(|| D::Error::custom("a key of 32 bytes in base64 is expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(wireguard: [u8; 32], identity: [u8; 32]) -> Keys {
        Keys { wireguard: Secret(wireguard), identity: Secret(identity) }
    }

    #[test]
    fn public_key_matches_rfc_7748() {
        let secret = *b"\x77\x07\x6d\x0a\x73\x18\xa5\x7d\x3c\x16\xc1\x72\x51\xb2\x66\x45\xdf\x4c\x2f\x87\xeb\xc0\x99\x2a\xb1\x77\xfb\xa5\x1d\xb9\x2c\x2a";
        let public = *b"\x85\x20\xf0\x09\x89\x30\xa7\x54\x74\x8b\x7d\xdc\xb4\x3e\xf7\x5a\x0d\xbf\x3a\x0d\x26\x38\x1a\xf4\xeb\xa4\xa9\x8e\xaa\x9b\x4e\x6a";
        assert_eq!(keys(secret, [0; 32]).wireguard_public(), WgPublicKey(public));
    }

    #[test]
    fn new_keys_are_clamped_and_differ() {
        let (one, other) = (Keys::generate().expect("random"), Keys::generate().expect("random"));
        assert_ne!(one, other);
        assert_ne!(one.wireguard.0, one.identity.0);
        assert_eq!(one.wireguard.0, clamped(one.wireguard.0));
    }

    #[test]
    fn debug_shows_no_secret() {
        let keys = keys([1; 32], [2; 32]);
        let text = format!("{keys:?}");
        assert_eq!(text, format!("Keys({})", keys.wireguard_public()));
    }

    #[test]
    fn keys_survive_json_and_damaged_ones_are_refused() {
        let keys = Keys::generate().expect("random");
        let text = serde_json::to_string(&keys).expect("JSON");
        assert_eq!(serde_json::from_str::<Keys>(&text).expect("sound"), keys);
        assert!(serde_json::from_str::<Keys>(&text.replace("\":\"", "\":\"AA")).is_err());
    }
}
