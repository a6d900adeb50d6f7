//! Errors of operations on rules and groups.

use gatewrt_protocol::{GroupName, NetworkName, RuleId, name::NameError};

/// Refusal of an operation on rules or groups. `Display` says what is wrong and where,
/// [`AccessError::advice`] how to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The text is no selector.
    #[error("“{text}” is not a selector: {why}")]
    BadSelector {
        /// Text as it was entered, shortened.
        text: String,
        /// Reason why the text is no selector.
        why: String,
    },
    /// One side of a rule is empty.
    #[error("“{side}” is empty")]
    NothingNamed {
        /// Name of the side: `from` or `to`.
        side: &'static str,
    },
    /// No node, client or group has this name.
    #[error("network {network} has no node, client or group “{text}”")]
    NoSuchName {
        /// Value as it was entered.
        text: String,
        /// Network that was searched.
        network: NetworkName,
        /// Nodes of the network.
        known: Vec<String>,
    },
    /// Several objects have this name.
    #[error("“{text}” can be {}", list(forms, " or "))]
    Ambiguous {
        /// Value as it was entered.
        text: String,
        /// Selectors that name just one of them.
        forms: Vec<String>,
    },
    /// No rule, or several, match this id.
    #[error("network {network} has {} “{text}”", if *.several { "several rules that begin with" } else { "no rule" })]
    NoSuchRule {
        /// Value as it was entered.
        text: String,
        /// Network that was searched.
        network: NetworkName,
        /// Set if several rules match.
        several: bool,
    },
    /// The text is not valid as a group name.
    #[error("{0}")]
    BadGroupName(NameError),
    /// No group has this name.
    #[error("there is no group “{text}” in network {network}")]
    NoSuchGroup {
        /// Value as it was entered.
        text: String,
        /// Network that was searched.
        network: NetworkName,
        /// Groups of the network.
        known: Vec<GroupName>,
    },
    /// The group is used by rules or other groups.
    #[error("group {group} is in use by {}", users(rules, groups))]
    GroupInUse {
        /// Name of the group.
        group: GroupName,
        /// Rules that use it.
        rules: Vec<RuleId>,
        /// Groups that it is a member of.
        groups: Vec<GroupName>,
    },
    /// The group would contain itself.
    #[error("group {group} would be in itself, through group:{through}")]
    GroupInItself {
        /// Name of the group.
        group: GroupName,
        /// Member through which it would contain itself.
        through: GroupName,
    },
    /// The check would take too many steps.
    #[error("this check would take too long")]
    TooMuch,
}

impl AccessError {
    pub(super) fn selector(text: &str, why: String) -> Self {
        Self::BadSelector { text: text.chars().take(80).collect(), why }
    }

    /// Stable short name of the error, as in [`gatewrt_protocol::Problem::kind`].
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

    /// Advice how to fix the error.
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
                "this network has no groups: create one with “gatewrt-coordinator group set”".into()
            }
            Self::NoSuchGroup { known, .. } => format!("groups of this network: {}", list(known, ", ")),
            Self::GroupInUse { .. } => "remove it there first".into(),
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
