//! WireGuard private keys of external clients. They are generated here for clients that have none, shown in
//! one answer, and never stored. They are overwritten when dropped, and have no `Debug`.

use data_encoding::BASE64;
use gatewrt_protocol::WgPublicKey;
use std::str::FromStr;
use zeroize::{Zeroize, Zeroizing};

/// WireGuard private key (Curve25519) of an external client, overwritten when dropped.
pub struct PrivateKey(Zeroizing<[u8; 32]>);

/// Error for a text that is no WireGuard private key. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPrivateKey;

impl PrivateKey {
    /// Creates a private key from 32 random bytes, which are overwritten.
    pub fn from_entropy(entropy: &mut [u8; 32]) -> Self {
        let mut key = Zeroizing::new(*entropy);
        entropy.zeroize();
        // Clamped as `wg genkey` does (RFC 7748, 5), so that the same key has the same text everywhere.
        key[0] &= 248;
        key[31] = (key[31] & 127) | 64;
        Self(key)
    }

    /// Public key that belongs to the private key.
    pub fn public(&self) -> WgPublicKey {
        WgPublicKey(x25519_dalek::x25519(*self.0, x25519_dalek::X25519_BASEPOINT_BYTES))
    }

    /// Text of the private key as in WireGuard's configuration files (Base64).
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(&*self.0))
    }
}

impl FromStr for PrivateKey {
    type Err = NoPrivateKey;
    fn from_str(text: &str) -> Result<Self, NoPrivateKey> {
        let bytes = Zeroizing::new(BASE64.decode(text.as_bytes()).map_err(|_| NoPrivateKey)?);
        let bytes = bytes.as_slice().try_into().map_err(|_| NoPrivateKey)?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compared with the output of `wg pubkey`.
    #[test]
    fn public_key_equals_that_of_wireguard_tools() {
        let mut entropy = [7; 32];
        let made = PrivateKey::from_entropy(&mut entropy);
        assert_eq!(entropy, [0; 32]);
        assert_eq!(*made.text(), "AAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHB0c=");
        assert_eq!(made.public().to_string(), "E75P6uryBMf9M1j8nAByGIHRdCeBKCJ+xnTzf3/pe20=");
        assert_eq!(made.text().parse::<PrivateKey>().ok().unwrap().public(), made.public());
    }

    #[test]
    fn invalid_private_key_is_refused() {
        for text in ["", "x", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(text.parse::<PrivateKey>().is_err(), "{text}");
        }
    }
}
