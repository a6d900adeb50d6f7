//! Who this router is in one network: keys that are made here and never leave it, and what the coordinator
//! answered at joining. It ends at values: keeping them is for [`crate::store`].

use crate::model::WgSecret;
use gatewrt_protocol::{
    JoinAnswer, JoinCode, NetworkId, NetworkName, NodeId, NodeName, PublicKey, Signer, WgPublicKey,
    base::BASE64,
    json::{Blank, FromJson, JsonError, Reader},
    json_fields,
};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Serialize, Serializer};
use std::{fmt, fs::File, io::Read};

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRandomness;

impl fmt::Display for NoRandomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system gives no random bytes, so no key can be made: is /dev/urandom there?")
    }
}
impl std::error::Error for NoRandomness {}

/// `N` bytes nobody can guess; waits until the kernel has gathered enough for that.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// `N` bytes that hardly ever come again, but that may be guessed. They are there at once: a router that has just booted
/// may have to gather [`random`] ones for a while, which the tunnels shall not wait for.
pub fn nonce<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    read.map_err(|_| NoRandomness).map(|()| bytes)
}

/// A node's private keys in one network. `Debug` shows nothing of them.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Keys {
    wireguard: Secret,
    identity: Secret,
}
json_fields!(Keys: wireguard, identity);

impl Keys {
    /// New keys.
    pub fn generate() -> Result<Self, NoRandomness> {
        Ok(Self { wireguard: Secret(clamped(random()?)), identity: Secret(random()?) })
    }

    /// WireGuard's private key.
    pub fn wireguard(&self) -> WgSecret {
        WgSecret(self.wireguard.0)
    }

    /// WireGuard's public key.
    pub fn wireguard_public(&self) -> WgPublicKey {
        WgPublicKey(x25519_dalek::x25519(self.wireguard.0, x25519_dalek::X25519_BASEPOINT_BYTES))
    }

    /// Signs as the node.
    pub fn signer(&self) -> Signer {
        Signer::from_seed(&self.identity.0)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.wireguard_public())
    }
}

/// Curve25519 takes only such numbers (RFC 7748, section 5); `wg genkey` stores them so too.
fn clamped(mut bytes: [u8; 32]) -> [u8; 32] {
    bytes[0] &= 248;
    bytes[31] = bytes[31] & 127 | 64;
    bytes
}

/// What a router is in a network it has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The network's name, and with it the interface's.
    pub network: NetworkName,
    /// The network.
    pub net: NetworkId,
    /// The node.
    pub node: NodeId,
    /// The node's name at joining.
    pub name: NodeName,
    /// Its private keys.
    pub keys: Keys,
    /// `host:port` of each MQTT broker, in order of preference.
    pub brokers: Vec<String>,
    /// The coordinator's CA, PEM.
    pub ca: String,
    /// The node's client certificate, PEM.
    pub certificate: String,
    /// `https://host:port` of the coordinator.
    pub coordinator: String,
    /// Verifies the coordinator's records.
    pub record_key: PublicKey,
    /// WireGuard's UDP port as told at joining.
    pub port: u16,
}
json_fields!(Identity: network, net, node, name, keys, brokers, ca, certificate, coordinator, record_key, port);

impl Identity {
    /// The identity that follows from an answer to a request made with `keys` and `port`.
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

/// 32 secret bytes, base64 on disk.
#[derive(Clone, PartialEq, Eq)]
struct Secret([u8; 32]);

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl Blank for Secret {
    fn blank() -> Self {
        Self([0; 32])
    }
}

impl FromJson for Secret {
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        let text = reader.text()?;
        let bytes = BASE64.decode(text.as_bytes()).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| reader.fault("a key of 32 bytes in base64 is expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatewrt_protocol::json;

    fn keys(wireguard: [u8; 32], identity: [u8; 32]) -> Keys {
        Keys { wireguard: Secret(wireguard), identity: Secret(identity) }
    }

    #[test]
    fn the_public_key_is_that_of_rfc_7748() {
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
        assert_eq!(json::read::<Keys>(text.as_bytes()).expect("sound"), keys);
        assert!(json::read::<Keys>(text.replace("\":\"", "\":\"AA").as_bytes()).is_err());
    }
}
