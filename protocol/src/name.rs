//! Names that people choose, checked when they are parsed.

use crate::text_serde;
use std::{fmt, str::FromStr};
use thiserror::Error;

/// Error for a text that can't be the name of a network, node, client, group or tag.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "“{text}” can't be a name here: 1 to {longest} characters of a-z, 0-9 and “-”, with a letter or digit first and last"
)]
pub struct NameError {
    text: String,
    longest: usize,
}

fn check(text: &str, longest: usize) -> Result<String, NameError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let sound = (1..=longest).contains(&bytes.len())
        && bytes.iter().all(|&b| inner(b) || b == b'-')
        && bytes.first().is_some_and(|&b| inner(b))
        && bytes.last().is_some_and(|&b| inner(b));
    let refused = || NameError { text: text.chars().take(40).collect(), longest };
    sound.then(|| text.to_owned()).ok_or_else(refused)
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $longest:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// Length of the longest such name, in characters.
            pub const LONGEST: usize = $longest;

            /// Name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text, $longest).map(Self)
            }
        }
        text_serde!($type);
    };
}

name!(
    /// Name of a network. The interface on a router is `gw-<name>`, and an interface's name has at most 15
    /// characters (`IFNAMSIZ` in `linux/if.h`), which leaves 12.
    NetworkName,
    12
);
name!(
    /// Name of a node: one label of a DNS name (RFC 1123), unique in its network.
    NodeName,
    63
);

name!(
    /// Name of an external client, unique in its network.
    ClientName,
    63
);
name!(
    /// Name of a group of prefixes, nodes and clients, unique in its network.
    GroupName,
    63
);
name!(
    /// Tag of nodes and clients, by which rules refer to several at once.
    Tag,
    32
);

impl NetworkName {
    /// Name of the network's WireGuard interface on a router: `gw-<network>`.
    pub fn interface(&self) -> String {
        format!("gw-{}", self.0)
    }
}

impl From<&NetworkName> for Tag {
    fn from(network: &NetworkName) -> Self {
        Self(network.0.clone())
    }
}

impl NodeName {
    /// Nearest valid node name to a router's hostname: lower case, anything else than a-z, 0-9 becomes “-”; `router`
    /// when nothing is left.
    pub fn from_hostname(hostname: &str) -> Self {
        let label = hostname.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let label: String = label
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(Self::LONGEST)
            .collect();
        let label = label.trim_matches('-');
        Self(if label.is_empty() { "router".to_owned() } else { label.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn name_with_other_characters_or_length_is_refused() {
        for sound in ["a", "home", "site-2", "0", "twelve-chars"] {
            assert_eq!(sound.parse::<NetworkName>().expect("sound").as_str(), sound);
        }
        for unsound in ["", "-a", "a-", "Home", "a_b", "a.b", "a b", "ä", "thirteen-char", "../etc", "a\n"] {
            assert!(unsound.parse::<NetworkName>().is_err(), "{unsound:?}");
        }
    }

    #[test]
    fn hostname_becomes_its_nearest_name() {
        for (hostname, name) in
            [("OpenWrt", "openwrt"), ("gl.lan", "gl"), ("_x_", "x"), ("", "router"), ("ü", "router")]
        {
            assert_eq!(NodeName::from_hostname(hostname).as_str(), name);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_hostname_becomes_a_sound_name(hostname in ".*") {
            let name = NodeName::from_hostname(&hostname);
            prop_assert_eq!(name.as_str().parse::<NodeName>(), Ok(name.clone()));
        }
    }
}
