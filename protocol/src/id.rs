//! Ids of networks and nodes: 80 random bits in lower-case base32 (RFC 4648), so that they can stand in a
//! topic, a certificate's common name and a file name as they are. Names may change, ids never do.

use crate::{base::BASE32, text_serde};
use std::{fmt, str::FromStr};

/// Bytes of entropy in an id.
pub const ID_BYTES: usize = 10;
/// Characters in an id's text.
pub const ID_CHARS: usize = 16;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdError(String);

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "“{}” is no id: {ID_CHARS} characters of a-z and 2-7 are expected", self.0)
    }
}
impl std::error::Error for IdError {}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        // Aligned, it is copied a word at a time: less code on MIPS.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(align(4))]
        pub struct $name([u8; ID_BYTES]);

        impl $name {
            /// An id out of [`ID_BYTES`] random bytes.
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
                let bytes = BASE32.decode(text.as_bytes());
                let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
                bytes.map(Self).ok_or_else(|| IdError(text.chars().take(40).collect()))
            }
        }
        text_serde!($name, Self([0; ID_BYTES]));
    };
}

id!(
    /// Names a network for ever.
    NetworkId
);
id!(
    /// Names a node for ever: also its MQTT client id and the common name of its certificate.
    NodeId
);

id!(
    /// Names an external client for ever.
    ClientId
);
id!(
    /// Names an access rule for ever.
    RuleId
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_back(bytes: [u8; ID_BYTES]) {
            let id = NodeId::from_entropy(bytes);
            prop_assert_eq!(id.to_string().len(), ID_CHARS);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn any_text_is_an_id_or_an_error(text in ".*") {
            if let Ok(id) = text.parse::<NetworkId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn upper_case_wildcards_and_other_lengths_are_refused() {
        for text in
            ["", "+", "#", "aaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaa", "AAAAAAAAAAAAAAAA", "aaaaaaaa/aaaaaaa"]
        {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
    }
}
