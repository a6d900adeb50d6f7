//! Why an operation on rules or groups is refused.

use gatewrt_protocol::{GroupName, NetworkName, RuleId, name::NameError};

/// See the module. `Display` says what is wrong and where; [`AccessError::advice`] what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// A text that is no selector.
    #[error("“{text}” names nothing that rules know: {why}")]
    BadSelector {
        /// As given, cut.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A side of a rule with nothing on it.
    #[error("“{side}” names nothing")]
    NothingNamed {
        /// `from`, `to`.
        side: &'static str,
    },
    /// No node, client or group of this name.
    #[error("network {network} has no node, client or group “{text}”")]
    NoSuchName {
        /// As given.
        text: String,
        /// Where it was looked for.
        network: NetworkName,
        /// The nodes there are.
        known: Vec<String>,
    },
    /// Several things have this name.
    #[error("“{text}” can be {}", list(forms, " or "))]
    Ambiguous {
        /// As given.
        text: String,
        /// The selectors that name just one.
        forms: Vec<String>,
    },
    /// No rule of this id, or several.
    #[error("network {network} has {} “{text}”", if *.several { "several rules that begin with" } else { "no rule" })]
    NoSuchRule {
        /// As given.
        text: String,
        /// Where it was looked for.
        network: NetworkName,
        /// Whether there are several.
        several: bool,
    },
    /// A name that no group can have.
    #[error("{0}")]
    BadGroupName(NameError),
    /// No group of this name.
    #[error("there is no group “{text}” in network {network}")]
    NoSuchGroup {
        /// As given.
        text: String,
        /// Where it was looked for.
        network: NetworkName,
        /// The groups there are.
        known: Vec<GroupName>,
    },
    /// Something names the group.
    #[error("group {group} is in use by {}", users(rules, groups))]
    GroupInUse {
        /// The group.
        group: GroupName,
        /// Rules that name it.
        rules: Vec<RuleId>,
        /// Groups that it is in.
        groups: Vec<GroupName>,
    },
    /// A group that would be in itself.
    #[error("group {group} would be in itself, through group:{through}")]
    GroupInItself {
        /// The group.
        group: GroupName,
        /// Its member that leads back to it.
        through: GroupName,
    },
    /// A question with too many different answers.
    #[error("that is too much to ask at once")]
    TooMuch,
}

impl AccessError {
    pub(super) fn selector(text: &str, why: String) -> Self {
        Self::BadSelector { text: text.chars().take(80).collect(), why }
    }

    /// The stable short name, as in [`gatewrt_protocol::Problem::kind`].
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BadSelector { .. } | Self::NothingNamed { .. } => "bad-selector",
            Self::NoSuchName { .. } | Self::NoSuchRule { .. } | Self::NoSuchGroup { .. } => "not-found",
            Self::Ambiguous { .. } => "ambiguous",
            Self::BadGroupName(_) => "bad-name",
            Self::GroupInUse { .. } => "in-use",
            Self::GroupInItself { .. } => "group-cycle",
            Self::TooMuch => "too-many",
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> String {
        match self {
            Self::BadSelector { .. } => FORMS.into(),
            Self::NothingNamed { .. } => format!("“all” is everything of the network; {FORMS}"),
            Self::NoSuchName { known, .. } if known.is_empty() => {
                "no router has joined this network yet".into()
            }
            Self::NoSuchName { known, .. } => format!("nodes of this network: {}; {FORMS}", known.join(", ")),
            Self::Ambiguous { .. } => "say which".into(),
            Self::BadGroupName(_) => "for example cameras or home-nas".into(),
            Self::NoSuchRule { several: true, .. } => "write more of its id".into(),
            Self::NoSuchRule { network, .. } => format!("see “gatewrt-coordinator rule list {network}”"),
            Self::NoSuchGroup { known, .. } if known.is_empty() => {
                "this network has no groups: make one with “gatewrt-coordinator group set”".into()
            }
            Self::NoSuchGroup { known, .. } => format!("groups of this network: {}", list(known, ", ")),
            Self::GroupInUse { .. } => "take it out there first".into(),
            Self::GroupInItself { .. } => "leave that member out".into(),
            Self::TooMuch => "ask about one node, client or site".into(),
        }
    }
}

const FORMS: &str =
    "write all, tag:T, node:N, site:N (what node N serves), client:C, group:G, an address or a prefix";

fn users(rules: &[RuleId], groups: &[GroupName]) -> String {
    let rules = rules.iter().map(|id| format!("rule {id}"));
    list(&rules.chain(groups.iter().map(|name| format!("group {name}"))).collect::<Vec<_>>(), ", ")
}

fn list<T: ToString>(items: &[T], between: &str) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(between)
}
