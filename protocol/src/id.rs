//! Ids: 80 random bits in lower-case base32 (RFC 4648), which topics, certificates' common names and file names take
//! unescaped. Names may change, ids never do.

use crate::text_serde;
use data_encoding::Encoding;
use data_encoding_macro::new_encoding;
use std::{fmt, str::FromStr};
use thiserror::Error;

/// Base32 in lower case without padding; each sequence of bytes has exactly one text.
pub(crate) const BASE32: Encoding = new_encoding! { symbols: "abcdefghijklmnopqrstuvwxyz234567", };

/// Bytes of entropy in an id.
pub const ID_BYTES: usize = 10;
/// Characters in an id's text.
pub const ID_CHARS: usize = 16;

/// Error for a text that is no id of a network, node, client or rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("“{0}” is no id: {ID_CHARS} characters of a-z and 2-7 are expected")]
pub struct IdError(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        // Aligned, so that it is copied a word at a time, with less code on MIPS.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(align(4))]
        pub struct $name([u8; ID_BYTES]);

        impl $name {
            /// Id made of [`ID_BYTES`] random bytes.
            pub const fn from_entropy(bytes: [u8; ID_BYTES]) -> Self {
                Self(bytes)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&BASE32.encode(&self.0))
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes = BASE32.decode(text.as_bytes()).ok();
                let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
                bytes.map(Self).ok_or_else(|| IdError(text.chars().take(40).collect()))
            }
        }
        text_serde!($name);
    };
}

id!(
    /// Permanent id of a network.
    NetworkId
);
id!(
    /// Permanent id of a node: also its MQTT client id and the common name of its certificate.
    NodeId
);

id!(
    /// Permanent id of an external client.
    ClientId
);
id!(
    /// Permanent id of an access rule.
    RuleId
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn id_survives_its_text(bytes: [u8; ID_BYTES]) {
            let id = NodeId::from_entropy(bytes);
            prop_assert_eq!(id.to_string().len(), ID_CHARS);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn arbitrary_text_is_an_id_or_an_error(text in ".*") {
            if let Ok(id) = text.parse::<NetworkId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn id_with_upper_case_wildcard_or_wrong_length_is_refused() {
        for text in
            ["", "+", "#", "aaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaa", "AAAAAAAAAAAAAAAA", "aaaaaaaa/aaaaaaa"]
        {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
    }
}
