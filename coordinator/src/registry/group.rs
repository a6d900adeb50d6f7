//! Groups: named lists of selectors that several rules can use.

use super::{AccessError, Outcome, Registry, RegistryError, Row, Rule, Selector, range::check_count};
use gatewrt_protocol::{GroupName, NetworkId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Largest number of groups of a network.
const GROUPS: usize = 1024;

/// Group as the registry stores it: selectors under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Network it belongs to.
    pub net: NetworkId,
    /// Name, unique among the groups of the network; never changes.
    pub name: GroupName,
    /// Members; other groups among them.
    pub members: Vec<Selector>,
}

/// Spec of a group, as an admin requests it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GroupSpec {
    /// Selectors of all its members.
    pub members: Vec<String>,
}

impl Registry {
    /// Looks up a group of a network by its name.
    pub fn group(&self, net: NetworkId, name: &GroupName) -> Option<&Group> {
        self.groups.get(&(net, name.clone()))
    }

    /// Groups of a network, by name.
    pub fn groups(&self, net: NetworkId) -> impl Iterator<Item = &Group> {
        self.groups.values().filter(move |group| group.net == net)
    }

    /// Finds a group of a network by the text of its name.
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

    /// Creates a group or replaces its members.
    pub fn set_group(&self, net: &str, name: &GroupName, spec: &GroupSpec) -> Outcome<Group> {
        let network = self.find_network(net)?;
        let before = self.group(network.id, name);
        let count = self.groups(network.id).count() + usize::from(before.is_none());
        check_count("the number of groups", count, GROUPS, "0 to 1024")?;
        let group =
            Group { net: network.id, name: name.clone(), members: self.named(network, &spec.members)? };
        if let Some(through) = self.cycle_through(&group) {
            return Err(AccessError::GroupInItself { group: name.clone(), through }.into());
        }
        let row = || Row::Group(network.id, name.clone(), Some(group.clone()));
        Ok((if before == Some(&group) { Vec::new() } else { vec![row()] }, group))
    }

    /// Deletes a group. Refused while a rule or another group uses it.
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

    /// Access rules that use a group directly, oldest first.
    pub fn rules_with(&self, group: &Group) -> impl Iterator<Item = &Rule> {
        let rules = self.rules(group.net).into_iter();
        rules.filter(|rule| names(&rule.from, &group.name) || names(&rule.to, &group.name))
    }

    /// Member through which a group would contain itself.
    fn cycle_through(&self, group: &Group) -> Option<GroupName> {
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
