//! Public keys in records. Private keys have no type here, as they never leave the machine that made them.

use crate::{id::BASE32, text_serde};
use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD};
use ring::digest;
use std::{fmt, str::FromStr};
use thiserror::Error;

/// Error for a text that is no key, with the encoding that was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a key: 32 bytes in {0} are expected")]
pub struct KeyError(&'static str);

/// WireGuard public key (Curve25519), 32 bytes, written in base64 as `wg` does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(align(4))]
pub struct WgPublicKey(pub [u8; 32]);

/// Ed25519 public key, 32 bytes, written in base64url without padding as in RFC 8037.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(align(4))]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Short name of the key in a JWS header (`kid`): the first 50 bits of its SHA-256.
    pub fn kid(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.0);
        BASE32.encode(digest.as_ref()).chars().take(10).collect()
    }
}

macro_rules! key_text {
    ($type:ident, $encoding:ident, $decode:ident, $called:literal) => {
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
                $decode(text).map(Self).ok_or(KeyError($called))
            }
        }
        text_serde!($type);
    };
}
key_text!(WgPublicKey, BASE64, from_base64, "base64");
key_text!(PublicKey, BASE64URL_NOPAD, from_base64url, "base64url");

/// Decodes a key of 32 bytes from base64 with padding; `None` for any other text. Each key has exactly one text: the
/// library would also accept padding in the middle.
pub fn from_base64(text: &str) -> Option<[u8; 32]> {
    BASE64_NOPAD.decode(text.strip_suffix('=')?.as_bytes()).ok()?.try_into().ok()
}

fn from_base64url(text: &str) -> Option<[u8; 32]> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn key_survives_its_text(bytes: [u8; 32]) {
            prop_assert_eq!(WgPublicKey(bytes).to_string().parse(), Ok(WgPublicKey(bytes)));
            prop_assert_eq!(PublicKey(bytes).to_string().parse(), Ok(PublicKey(bytes)));
        }

        #[test]
        fn arbitrary_text_is_a_key_or_an_error(text in ".*") {
            let _ = text.parse::<WgPublicKey>();
            let _ = text.parse::<PublicKey>();
        }
    }

    #[test]
    fn key_written_by_wg_is_parsed() {
        let key: WgPublicKey = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".parse().expect("valid");
        assert_eq!(key.to_string(), "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=");
        assert!("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8D=".parse::<WgPublicKey>().is_err());
    }

    #[test]
    fn key_with_padding_in_the_middle_is_refused() {
        let text = BASE64.encode(&[7; 29]) + &BASE64.encode(&[7; 3]);
        assert_eq!(BASE64.decode(text.as_bytes()), Ok(vec![7; 32]), "the library reads it");
        assert_eq!(text.parse::<WgPublicKey>(), Err(KeyError("base64")));
        assert_eq!(BASE64.encode(&[7; 32]).parse(), Ok(WgPublicKey([7; 32])));
    }

    #[test]
    fn key_with_bits_beyond_its_bytes_is_refused() {
        let sound = WgPublicKey([0; 32]).to_string();
        assert!(sound.ends_with("AA="));
        for end in ["AB=", "AC=", "A==", "AA", "AA==", "AAA="] {
            let text = sound.replace("AA=", "") + end;
            assert!(text.parse::<WgPublicKey>().is_err(), "{text}");
        }
    }
}
