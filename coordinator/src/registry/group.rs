//! Groups: named lists of selectors, for several rules.

use super::{AccessError, Outcome, Registry, RegistryError, Row, Rule, Selector, rule::check};
use gatewrt_protocol::{GroupName, NetworkId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Groups a network may have.
const GROUPS: usize = 1024;

/// A group as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its network.
    pub net: NetworkId,
    /// Unique among the network's groups; never changes.
    pub name: GroupName,
    /// What is in it, also other groups.
    pub members: Vec<Selector>,
}

/// What an admin asks of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GroupWish {
    /// Selectors: all that is in it.
    pub members: Vec<String>,
}

impl Registry {
    /// A group by its name.
    pub fn group(&self, net: NetworkId, name: &GroupName) -> Option<&Group> {
        self.groups.get(&(net, name.clone()))
    }

    /// The groups of a network, by name.
    pub fn groups(&self, net: NetworkId) -> impl Iterator<Item = &Group> {
        self.groups.values().filter(move |group| group.net == net)
    }

    /// A group of a network by its name.
    pub fn find_group(&self, net: &str, text: &str) -> Result<&Group, RegistryError> {
        let network = self.find_network(net)?;
        let found = self.groups(network.id).find(|group| group.name.as_str() == text);
        let missing = || AccessError::NoSuchGroup {
            text: text.to_owned(),
            network: network.name.clone(),
            known: self.groups(network.id).map(|group| group.name.clone()).collect(),
        };
        Ok(found.ok_or_else(missing)?)
    }

    /// Makes a group or says anew what is in it.
    pub fn set_group(&self, net: &str, name: &GroupName, wish: &GroupWish) -> Outcome<Group> {
        let network = self.find_network(net)?;
        let before = self.group(network.id, name);
        let count = self.groups(network.id).count() + usize::from(before.is_none());
        check("the number of groups", count, GROUPS, "0 to 1024")?;
        let group =
            Group { net: network.id, name: name.clone(), members: self.named(network, &wish.members)? };
        if let Some(through) = self.way_back(&group) {
            return Err(AccessError::GroupInItself { group: name.clone(), through }.into());
        }
        let row = || Row::Group(network.id, name.clone(), Some(group.clone()));
        Ok((if before == Some(&group) { Vec::new() } else { vec![row()] }, group))
    }

    /// Deletes a group that nothing names.
    pub fn delete_group(&self, net: &str, name: &str) -> Outcome<Group> {
        let group = self.find_group(net, name)?;
        let rules: Vec<_> = self.rules_with(group).map(|rule| rule.id).collect();
        let names_it = |other: &&Group| names(&other.members, &group.name);
        let groups: Vec<_> =
            self.groups(group.net).filter(names_it).map(|other| other.name.clone()).collect();
        if !rules.is_empty() || !groups.is_empty() {
            return Err(AccessError::GroupInUse { group: group.name.clone(), rules, groups }.into());
        }
        Ok((vec![Row::Group(group.net, group.name.clone(), None)], group.clone()))
    }

    /// The rules that name a group themselves, oldest first.
    pub fn rules_with(&self, group: &Group) -> impl Iterator<Item = &Rule> {
        let rules = self.rules(group.net).into_iter();
        rules.filter(|rule| names(&rule.from, &group.name) || names(&rule.to, &group.name))
    }

    /// The member through which a group would be in itself.
    fn way_back(&self, group: &Group) -> Option<GroupName> {
        let mut members = group.members.iter().filter_map(as_group);
        members
            .find(|member| {
                let mut seen = BTreeSet::new();
                let mut open = vec![(*member).clone()];
                while let Some(name) = open.pop() {
                    if name == group.name {
                        return true;
                    }
                    if seen.insert(name.clone()) {
                        let next = self.group(group.net, &name).into_iter().flat_map(|group| &group.members);
                        open.extend(next.filter_map(as_group).cloned());
                    }
                }
                false
            })
            .cloned()
    }
}

fn as_group(selector: &Selector) -> Option<&GroupName> {
    if let Selector::Group(name) = selector { Some(name) } else { None }
}

fn names(selectors: &[Selector], group: &GroupName) -> bool {
    selectors.iter().filter_map(as_group).any(|name| name == group)
}
