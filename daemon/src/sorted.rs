//! A map and a set as sorted vectors: the order and the calls of `BTreeMap` and `BTreeSet` with a fifth of their code
//! a type, which is what counts on a router's flash, and less memory. An insertion in the middle moves what is
//! behind it: for collections that are built at once, or that stay in the hundreds.

mod order;

use crate::gather::append;
use gatewrt_protocol::json::{Blank, FromJson, JsonError, Reader};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use std::{
    borrow::Borrow, cmp::Ordering, fmt, marker::PhantomData, mem, ops::Index, slice, str::FromStr, vec,
};

/// A map whose entries are in order of their keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortedMap<K, V>(Vec<(K, V)>);

/// A set whose values are in order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortedSet<T>(Vec<T>);

impl<K, V> SortedMap<K, V> {
    /// An empty one.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries in order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter(self.0.iter())
    }

    /// The entries in order, with values to change.
    pub fn iter_mut(&mut self) -> IterMut<'_, K, V> {
        IterMut(self.0.iter_mut())
    }

    /// The keys in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> + Clone {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values in order of their keys.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> + Clone {
        self.0.iter().map(|(_, value)| value)
    }

    /// The values in order of their keys, to change.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// The keys in order.
    pub fn into_keys(self) -> impl Iterator<Item = K> {
        self.0.into_iter().map(|(key, _)| key)
    }

    /// The values in order of their keys.
    pub fn into_values(self) -> impl Iterator<Item = V> {
        self.0.into_iter().map(|(_, value)| value)
    }

    /// Keeps the entries for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain_mut(|(key, value)| keep(key, value));
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl<K: Ord, V> SortedMap<K, V> {
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        order::find(self.0.len(), &|at| self.0[at].0.borrow().cmp(key))
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let at = self.find(key).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// The value of a key, to change.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let at = self.find(key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    /// Whether a key has a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// Gives a key a value; what it had before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(at) => Some(mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    /// Removes a key; the value it had.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.find(key).ok()?;
        Some(self.0.remove(at).1)
    }

    /// The place of a key.
    pub fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        Entry { found: self.find(&key), key, entries: &mut self.0 }
    }
}

/// The place of a key in a map.
pub struct Entry<'a, K, V> {
    entries: &'a mut Vec<(K, V)>,
    found: Result<usize, usize>,
    key: K,
}

impl<'a, K, V> Entry<'a, K, V> {
    /// The value there; `value` when there was none.
    pub fn or_insert(self, value: V) -> &'a mut V {
        self.or_insert_with(|| value)
    }

    /// The value there; what `value` makes when there was none.
    pub fn or_insert_with(self, value: impl FnOnce() -> V) -> &'a mut V {
        let at = self.found.unwrap_or_else(|at| {
            self.entries.insert(at, (self.key, value()));
            at
        });
        &mut self.entries[at].1
    }

    /// The value there; a default one when there was none.
    pub fn or_default(self) -> &'a mut V
    where
        V: Default,
    {
        self.or_insert_with(V::default)
    }

    /// Changes the value there, if there is one.
    pub fn and_modify(self, change: impl FnOnce(&mut V)) -> Self {
        if let Ok(at) = self.found {
            change(&mut self.entries[at].1);
        }
        self
    }
}

impl<T> SortedSet<T> {
    /// An empty one.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values in order.
    pub fn iter(&self) -> slice::Iter<'_, T> {
        self.0.iter()
    }

    /// The least value.
    pub fn first(&self) -> Option<&T> {
        self.0.first()
    }

    /// Keeps the values for which `keep` is true.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.0.retain(keep);
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl<T: Ord> SortedSet<T> {
    fn find<Q: Ord + ?Sized>(&self, value: &Q) -> Result<usize, usize>
    where
        T: Borrow<Q>,
    {
        order::find(self.0.len(), &|at| self.0[at].borrow().cmp(value))
    }

    /// The value that is equal to this one.
    pub fn get<Q: Ord + ?Sized>(&self, value: &Q) -> Option<&T>
    where
        T: Borrow<Q>,
    {
        let at = self.find(value).ok()?;
        self.0.get(at)
    }

    /// Whether a value is in it.
    pub fn contains<Q: Ord + ?Sized>(&self, value: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        self.find(value).is_ok()
    }

    /// Adds a value; whether it is new.
    pub fn insert(&mut self, value: T) -> bool {
        let place = self.find(&value);
        if let Err(at) = place {
            self.0.insert(at, value);
        }
        place.is_err()
    }

    /// Removes a value; whether it was there.
    pub fn remove<Q: Ord + ?Sized>(&mut self, value: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        let place = self.find(value);
        if let Ok(at) = place {
            self.0.remove(at);
        }
        place.is_ok()
    }

    /// What is in this one and not in `other`, in order.
    pub fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a T> {
        self.0.iter().filter(|value| !other.contains(value))
    }

    /// Takes out the values from this one on.
    pub fn split_off(&mut self, from: &T) -> Self {
        let at = self.find(from).unwrap_or_else(|at| at);
        Self(self.0.split_off(at))
    }
}

impl<K: Ord, V> Extend<(K, V)> for SortedMap<K, V> {
    /// What has the same key as something before takes its place.
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        append(&mut self.0, entries);
        settle(&mut self.0, |(a, _), (b, _)| a.cmp(b));
    }
}

impl<T: Ord> Extend<T> for SortedSet<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        append(&mut self.0, values);
        settle(&mut self.0, T::cmp);
    }
}

/// Puts values in order; of equal ones the last stays.
#[inline(never)]
fn settle<T>(values: &mut Vec<T>, compare: fn(&T, &T) -> Ordering) {
    let mut places = Vec::new();
    let distinct = order::distinct(values.len(), &|a, b| compare(&values[a], &values[b]), &mut places);
    order::rearrange(values, places);
    values.truncate(distinct);
}

/// Puts values in order of what `compare` sees; equal ones stay in the order they are in. Like `slice::sort_by`, but
/// one code for all types.
pub fn sort_by<T>(values: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let places = order::stable(values.len(), &|a, b| compare(&values[a], &values[b]));
    order::rearrange(values, places);
}

/// Puts values in order of their keys; equal ones stay in the order they are in.
pub fn sort_by_key<T, K: Ord>(values: &mut [T], key: impl Fn(&T) -> K) {
    sort_by(values, |a, b| key(a).cmp(&key(b)));
}

impl<K: Ord, V> FromIterator<(K, V)> for SortedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

impl<T: Ord> FromIterator<T> for SortedSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut set = Self::new();
        set.extend(values);
        set
    }
}

impl<K: Ord, V> From<Vec<(K, V)>> for SortedMap<K, V> {
    /// Of entries with the same key the last stays.
    fn from(mut entries: Vec<(K, V)>) -> Self {
        settle(&mut entries, |(a, _), (b, _)| a.cmp(b));
        Self(entries)
    }
}

impl<T: Ord> From<Vec<T>> for SortedSet<T> {
    fn from(mut values: Vec<T>) -> Self {
        settle(&mut values, T::cmp);
        Self(values)
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for SortedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        Vec::from(entries).into()
    }
}

impl<T: Ord, const N: usize> From<[T; N]> for SortedSet<T> {
    fn from(values: [T; N]) -> Self {
        Vec::from(values).into()
    }
}

/// The entries of a map in order.
pub struct Iter<'a, K, V>(slice::Iter<'a, (K, V)>);

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, value)| (key, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<K, V> ExactSizeIterator for Iter<'_, K, V> {}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The entries of a map in order, with values to change.
pub struct IterMut<'a, K, V>(slice::IterMut<'a, (K, V)>);

impl<'a, K, V> Iterator for IterMut<'a, K, V> {
    type Item = (&'a K, &'a mut V);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, value)| (&*key, value))
    }
}

impl<'a, K, V> IntoIterator for &'a mut SortedMap<K, V> {
    type Item = (&'a K, &'a mut V);
    type IntoIter = IterMut<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<'a, K, V> IntoIterator for &'a SortedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K, V> IntoIterator for SortedMap<K, V> {
    type Item = (K, V);
    type IntoIter = vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a SortedSet<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> IntoIterator for SortedSet<T> {
    type Item = T;
    type IntoIter = vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K: Borrow<Q> + Ord, Q: Ord + ?Sized, V> Index<&Q> for SortedMap<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("the key is in the map")
    }
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Default for SortedSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SortedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for SortedSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self).finish()
    }
}

impl<K: Serialize, V: Serialize> Serialize for SortedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for SortedMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

impl<K, V> Blank for SortedMap<K, V> {
    fn blank() -> Self {
        Self::new()
    }
}

impl<K: FromStr<Err: fmt::Display> + Ord, V: FromJson> FromJson for SortedMap<K, V> {
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        Ok(reader.entries::<K, V>()?.into())
    }
}

struct Entries<K, V>(PhantomData<(K, V)>);

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
    type Value = SortedMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = SortedMap::new();
        while let Some((key, value)) = entries.next_entry()? {
            map.insert(key, value);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[derive(Debug, Clone)]
    enum Act {
        Insert(u8, u8),
        Remove(u8),
        Add(u8, u8),
        Extend(Vec<(u8, u8)>),
        Retain(u8),
        Split(u8),
    }

    fn act() -> impl Strategy<Value = Act> {
        let key = || 0u8..20;
        prop_oneof![
            (key(), any::<u8>()).prop_map(|(key, value)| Act::Insert(key, value)),
            key().prop_map(Act::Remove),
            (key(), any::<u8>()).prop_map(|(key, value)| Act::Add(key, value)),
            prop::collection::vec((key(), any::<u8>()), 0..8).prop_map(Act::Extend),
            (1u8..4).prop_map(Act::Retain),
            key().prop_map(Act::Split),
        ]
    }

    fn on_map(act: &Act, ours: &mut SortedMap<u8, u8>, reference: &mut BTreeMap<u8, u8>) {
        match act {
            Act::Insert(key, value) => assert_eq!(ours.insert(*key, *value), reference.insert(*key, *value)),
            Act::Remove(key) | Act::Split(key) => assert_eq!(ours.remove(key), reference.remove(key)),
            Act::Add(key, value) => {
                let add = |sum: &mut u8| *sum = sum.wrapping_add(*value);
                assert_eq!(
                    ours.entry(*key).and_modify(add).or_insert(7),
                    reference.entry(*key).and_modify(add).or_insert(7)
                );
            }
            Act::Extend(entries) => {
                ours.extend(entries.clone());
                reference.extend(entries.clone());
            }
            Act::Retain(n) => {
                ours.retain(|key, _| key % n == 0);
                reference.retain(|key, _| key % n == 0);
            }
        }
    }

    fn on_set(act: &Act, ours: &mut SortedSet<u8>, reference: &mut BTreeSet<u8>) {
        match act {
            Act::Insert(value, _) => assert_eq!(ours.insert(*value), reference.insert(*value)),
            Act::Remove(value) => assert_eq!(ours.remove(value), reference.remove(value)),
            Act::Add(value, other) => {
                let others = [*value, *other];
                assert!(ours.difference(&others.into()).eq(reference.difference(&others.into())));
            }
            Act::Extend(entries) => {
                ours.extend(entries.iter().map(|(value, _)| *value));
                reference.extend(entries.iter().map(|(value, _)| *value));
            }
            Act::Retain(n) => {
                ours.retain(|value| value % n == 0);
                reference.retain(|value| value % n == 0);
            }
            Act::Split(from) => assert!(ours.split_off(from).iter().eq(&reference.split_off(from))),
        }
    }

    proptest! {
        #[test]
        fn what_is_sorted_is_all_there_and_equal_ones_stay_in_order(values in prop::collection::vec((0u8..9, "[a-z]{0,3}"), 0..40)) {
            let (mut ours, mut reference) = (values.clone(), values);
            sort_by_key(&mut ours, |(key, _)| *key);
            reference.sort_by_key(|(key, _)| *key);
            prop_assert_eq!(ours, reference);
        }

        #[test]
        fn they_do_as_the_standard_ones(acts in prop::collection::vec(act(), 0..40)) {
            let (mut map, mut reference_map) = (SortedMap::new(), BTreeMap::new());
            let (mut set, mut reference_set) = (SortedSet::new(), BTreeSet::new());
            for act in &acts {
                on_map(act, &mut map, &mut reference_map);
                on_set(act, &mut set, &mut reference_set);
                prop_assert!(map.iter().eq(&reference_map) && set.iter().eq(&reference_set));
                for key in 0..20 {
                    prop_assert_eq!(map.get(&key), reference_map.get(&key));
                    prop_assert_eq!(set.get(&key), reference_set.get(&key));
                }
            }
            let json = serde_json::to_string(&map).expect("JSON");
            prop_assert_eq!(&json, &serde_json::to_string(&reference_map).expect("JSON"));
            prop_assert_eq!(serde_json::from_str::<SortedMap<u8, u8>>(&json).expect("sound"), map);
        }
    }
}
