//! WireGuard private keys of external clients: made here for those that have none of their own, shown in one answer,
//! stored nowhere. They are overwritten when they are let go, and have no `Debug`.

use data_encoding::BASE64;
use gatewrt_protocol::WgPublicKey;
use std::str::FromStr;
use zeroize::{Zeroize, Zeroizing};

/// A WireGuard private key (Curve25519).
pub struct PrivateKey(Zeroizing<[u8; 32]>);

/// A text that is no private key; it is not repeated anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPrivateKey;

impl PrivateKey {
    /// A key out of 32 random bytes, which are overwritten.
    pub fn from_entropy(entropy: &mut [u8; 32]) -> Self {
        let mut key = Zeroizing::new(*entropy);
        entropy.zeroize();
        // As `wg genkey` writes keys (RFC 7748, 5): the same key in the same form everywhere.
        key[0] &= 248;
        key[31] = (key[31] & 127) | 64;
        Self(key)
    }

    /// The public key that belongs to it.
    pub fn public(&self) -> WgPublicKey {
        WgPublicKey(x25519_dalek::x25519(*self.0, x25519_dalek::X25519_BASEPOINT_BYTES))
    }

    /// As it stands in a file.
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

    /// What `wg pubkey` of wireguard-tools says of the same key.
    #[test]
    fn the_public_key_is_that_of_wireguard_tools() {
        let mut entropy = [7; 32];
        let made = PrivateKey::from_entropy(&mut entropy);
        assert_eq!(entropy, [0; 32]);
        assert_eq!(*made.text(), "AAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHB0c=");
        assert_eq!(made.public().to_string(), "E75P6uryBMf9M1j8nAByGIHRdCeBKCJ+xnTzf3/pe20=");
        assert_eq!(made.text().parse::<PrivateKey>().ok().unwrap().public(), made.public());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "x", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(text.parse::<PrivateKey>().is_err(), "{text}");
        }
    }
}
