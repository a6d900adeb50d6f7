//! Public keys as they stand in records. Private keys have no type here: they never leave the machine that
//! made them.

use crate::{
    base::{BASE32, BASE64, BASE64URL},
    text_serde,
};
use ring::digest;
use std::{fmt, str::FromStr};

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyError(&'static str);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a key: 32 bytes in {} are expected", self.0)
    }
}
impl std::error::Error for KeyError {}

/// A WireGuard public key (Curve25519), 32 bytes, written in base64 as `wg` does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(align(4))]
pub struct WgPublicKey(pub [u8; 32]);

/// An Ed25519 public key, 32 bytes, written in base64url without padding as in RFC 8037.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(align(4))]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The short name of this key in a JWS header (`kid`): the first 50 bits of its SHA-256.
    pub fn kid(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.0);
        BASE32.encode(digest.as_ref()).chars().take(10).collect()
    }
}

macro_rules! key_text {
    ($type:ident, $encoding:ident, $called:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&$encoding.encode(&self.0))
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $type {
            type Err = KeyError;
            fn from_str(text: &str) -> Result<Self, KeyError> {
                let bytes = $encoding.decode(text.as_bytes()).ok_or(KeyError($called))?;
                bytes.try_into().map(Self).map_err(|_| KeyError($called))
            }
        }
        text_serde!($type, Self([0; 32]));
    };
}
key_text!(WgPublicKey, BASE64, "base64");
key_text!(PublicKey, BASE64URL, "base64url");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_back(bytes: [u8; 32]) {
            prop_assert_eq!(WgPublicKey(bytes).to_string().parse(), Ok(WgPublicKey(bytes)));
            prop_assert_eq!(PublicKey(bytes).to_string().parse(), Ok(PublicKey(bytes)));
        }

        #[test]
        fn any_text_is_a_key_or_an_error(text in ".*") {
            let _ = text.parse::<WgPublicKey>();
            let _ = text.parse::<PublicKey>();
        }
    }

    #[test]
    fn a_key_of_wg_is_read() {
        let key: WgPublicKey = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".parse().expect("valid");
        assert_eq!(key.to_string(), "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=");
        assert!("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8D=".parse::<WgPublicKey>().is_err());
    }
}
