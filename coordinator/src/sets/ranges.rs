//! Sets of numbers as ranges.

/// Set of numbers as sorted ranges with gaps between them, so that equal sets are equal values.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ranges(Vec<(u128, u128)>);

impl FromIterator<(u128, u128)> for Ranges {
    /// Collects ranges, each with first and last number, in any order.
    fn from_iter<T: IntoIterator<Item = (u128, u128)>>(ranges: T) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }
}

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, u128)> {
        self.0.iter().copied()
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => other.clone(),
            (_, true) => self.clone(),
            _ => self.iter().chain(other.iter()).collect(),
        }
    }

    /// Intersection of two sets of numbers. Ranges of the smaller set are looked up in the larger: a node has few
    /// addresses, a rule may have many.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let (few, many) = if self.0.len() <= other.0.len() { (self, other) } else { (other, self) };
        let shared = few.iter().flat_map(|(first, last)| {
            let met = many.0.get(many.0.partition_point(|range| range.1 < first)..).unwrap_or_default();
            let met = met.iter().take_while(move |range| range.0 <= last);
            met.map(move |range| (range.0.max(first), range.1.min(last)))
        });
        // The results are sorted and have gaps, as the ranges do.
        Self(shared.collect())
    }

    /// True if two sets share a number.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let (few, many) = if self.0.len() <= other.0.len() { (self, other) } else { (other, self) };
        few.iter().any(|(first, last)| {
            let next = many.0.partition_point(|range| range.1 < first);
            many.0.get(next).is_some_and(|range| range.0 <= last)
        })
    }

    pub(super) fn difference(&self, other: &Self) -> Self {
        let shared = self.intersection(other);
        let mut left = Vec::new();
        for (first, last) in self.iter() {
            let mut next = Some(first);
            let from = shared.0.partition_point(|range| range.1 < first);
            let within = shared.0.get(from..).unwrap_or_default().iter().take_while(|range| range.0 <= last);
            for gone in within {
                left.extend(next.filter(|next| *next < gone.0).map(|next| (next, gone.0 - 1)));
                next = gone.1.checked_add(1);
            }
            left.extend(next.filter(|next| *next <= last).map(|next| (next, last)));
        }
        Self(left)
    }

    /// Fewest aligned blocks of powers of two that make up the set, as first number and prefix length, for numbers of
    /// `width` bits.
    pub(super) fn blocks(&self, width: u8) -> Vec<(u128, u8)> {
        self.iter().flat_map(|(first, last)| blocks_of(first, last, width)).collect()
    }
}

fn blocks_of(first: u128, last: u128, width: u8) -> Vec<(u128, u8)> {
    let mut blocks = Vec::new();
    let mut next = Some(first);
    while let Some(start) = next.filter(|start| *start <= last) {
        let aligned = start.trailing_zeros().min(width.into());
        let bits = (0..=aligned).rev().find(|bits| start | low_bits(*bits) <= last).unwrap_or(0);
        blocks.push((start, width - bits as u8));
        next = (start | low_bits(bits)).checked_add(1);
    }
    blocks
}

fn low_bits(count: u32) -> u128 {
    1u128.checked_shl(count).map_or(u128::MAX, |bit| bit - 1)
}
