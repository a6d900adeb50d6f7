//! Difference between our firewall table as observed and as desired. Elements of sets are added and removed one by one,
//! chains that differ are emptied and filled again, all in one transaction: a set keeps the elements that stay, so no
//! packet misses one. It ends at typed changes.

use crate::model::{Chain, ChainName, FirewallSet, FirewallTable, Ruleset, SetElement, SetName};
use std::sync::Arc;

/// Update of our firewall table to the desired one, in place where that can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableUpdate {
    /// Desired table.
    pub table: Arc<FirewallTable>,
    /// Change in place from the observed table; `None` where the table must be written whole: there is none, another
    /// program changed it, or a set is of another kind now.
    pub change: Option<InPlace>,
}

/// Change of our firewall table in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InPlace {
    /// Table that the change applies to.
    pub from: Arc<FirewallTable>,
    /// Difference to the desired one.
    pub change: TableChange,
}

/// Difference between two versions of our firewall table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableChange {
    /// Elements of sets that both tables have.
    pub elements: Vec<ElementChange>,
    /// Chains to empty.
    pub flush: Vec<ChainName>,
    /// New sets, and chains that are new or are filled again.
    pub write: FirewallTable,
    /// Chains to delete, emptied already.
    pub delete_chains: Vec<ChainName>,
    /// Sets to delete.
    pub delete_sets: Vec<SetName>,
}

/// Difference between the elements of a firewall set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementChange {
    /// Name of the set.
    pub set: SetName,
    /// Elements to remove, before others are added: new ones may overlap them.
    pub remove: Vec<SetElement>,
    /// Elements to add.
    pub add: Vec<SetElement>,
}

impl TableUpdate {
    /// Update of our firewall table from what is observed to `table`.
    pub fn new(observed: Option<&Ruleset>, table: Arc<FirewallTable>) -> Self {
        let change = match observed {
            Some(Ruleset::Known(from)) => TableChange::between(from, &table)
                .filter(|change| !change.is_empty())
                .map(|change| InPlace { from: from.clone(), change }),
            Some(Ruleset::Unknown) | None => None,
        };
        Self { table, change }
    }
}

impl TableChange {
    /// Difference between two firewall tables; `None` where a set is of another kind, which nft can't change in place.
    pub fn between(old: &FirewallTable, new: &FirewallTable) -> Option<Self> {
        let mut change = Self::default();
        for set in &new.sets {
            change.set(old.set(&set.name), set)?;
        }
        for chain in &new.chains {
            change.chain(old.chain(&chain.name), chain);
        }
        let gone = old.chains.iter().filter(|chain| new.chain(&chain.name).is_none());
        change.delete_chains = gone.map(|chain| chain.name.clone()).collect();
        change.flush.extend(change.delete_chains.iter().cloned());
        let gone = old.sets.iter().filter(|set| new.set(&set.name).is_none());
        change.delete_sets = gone.map(|set| set.name.clone()).collect();
        Some(change)
    }

    /// True if the two firewall tables do not differ.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn set(&mut self, old: Option<&FirewallSet>, new: &FirewallSet) -> Option<()> {
        match old {
            None => self.write.sets.push(new.clone()),
            Some(old) if old.kind != new.kind => return None,
            Some(old) => self.elements.extend(ElementChange::between(old, new)),
        }
        Some(())
    }

    fn chain(&mut self, old: Option<&Chain>, new: &Chain) {
        if old == Some(new) {
            return;
        }
        self.flush.extend(old.map(|old| old.name.clone()));
        self.write.chains.push(new.clone());
    }
}

impl ElementChange {
    fn between(old: &FirewallSet, new: &FirewallSet) -> Option<Self> {
        let (remove, add) = (missing(&old.elements, &new.elements), missing(&new.elements, &old.elements));
        let differs = !(remove.is_empty() && add.is_empty());
        differs.then(|| Self { set: new.name.clone(), remove, add })
    }
}

/// Elements of the first firewall set that the second has not.
fn missing(these: &[SetElement], those: &[SetElement]) -> Vec<SetElement> {
    let mut those: Vec<&SetElement> = those.iter().collect();
    those.sort();
    let is_missing = |element: &&SetElement| those.binary_search(element).is_err();
    these.iter().filter(is_missing).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Family, FirewallRule, IfName, SetKind, Statement};

    fn set(name: &str, links: &[&str]) -> FirewallSet {
        let elements = links.iter().map(|link| element(link)).collect();
        FirewallSet { name: SetName(name.to_owned()), kind: SetKind::Interfaces, elements }
    }

    fn element(link: &str) -> SetElement {
        SetElement::Interface(IfName::new(link).unwrap())
    }

    fn chain(name: &str, statement: Statement) -> Chain {
        Chain { name: name.into(), base: None, rules: vec![FirewallRule::new(vec![], statement)] }
    }

    fn table(sets: &[FirewallSet], chains: &[Chain]) -> FirewallTable {
        FirewallTable { sets: sets.into(), chains: chains.into() }
    }

    #[test]
    fn set_with_other_elements_changes_these_alone() {
        let (old, new) = (table(&[set("s", &["a", "b"])], &[]), table(&[set("s", &["c", "b"])], &[]));
        let elements = ElementChange {
            set: SetName("s".to_owned()),
            remove: vec![element("a")],
            add: vec![element("c")],
        };
        let expected = TableChange { elements: vec![elements], ..TableChange::default() };
        assert_eq!(TableChange::between(&old, &new), Some(expected));
    }

    #[test]
    fn chain_that_differs_is_emptied_and_filled_and_one_that_goes_is_deleted() {
        let (goes, stays) = (chain("goes", Statement::Drop), chain("stays", Statement::Accept));
        let (before, after) = (chain("c", Statement::Drop), chain("c", Statement::Accept));
        let old = table(&[set("s", &["a"])], &[before, goes, stays.clone()]);
        let new = table(&[set("t", &["a"])], &[after.clone(), stays]);
        let expected = TableChange {
            elements: Vec::new(),
            flush: vec!["c".into(), "goes".into()],
            write: table(&[set("t", &["a"])], &[after]),
            delete_chains: vec!["goes".into()],
            delete_sets: vec![SetName("s".to_owned())],
        };
        assert_eq!(TableChange::between(&old, &new), Some(expected));
    }

    #[test]
    fn set_of_another_kind_means_writing_the_table_whole() {
        let other = FirewallSet { kind: SetKind::Addresses(Family::V4), ..set("s", &[]) };
        let (old, new) = (table(&[set("s", &[])], &[]), Arc::new(table(&[other], &[])));
        assert_eq!(TableChange::between(&old, &new), None);
        assert_eq!(TableUpdate::new(Some(&old.into()), new).change, None);
    }

    #[test]
    fn unknown_or_missing_table_is_written_whole() {
        let table = Arc::new(table(&[set("s", &["a"])], &[]));
        for observed in [None, Some(&Ruleset::Unknown), Some(&Ruleset::Known(table.clone()))] {
            assert_eq!(TableUpdate::new(observed, table.clone()).change, None);
        }
        let update = TableUpdate::new(Some(&FirewallTable::default().into()), table);
        assert!(update.change.is_some_and(|change| *change.from == FirewallTable::default()));
    }
}
