//! Searching and sorting by places alone, which is one code for values of all types.

use crate::gather::Gather;
use std::{cmp::Ordering, mem, mem::MaybeUninit, slice};

/// The place of what `compare` says to be equal, of `count` in order; else the place where it would be.
pub fn find(count: usize, compare: &dyn Fn(usize) -> Ordering) -> Result<usize, usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        match compare(middle) {
            Ordering::Less => low = middle + 1,
            Ordering::Equal => return Ok(middle),
            Ordering::Greater => high = middle,
        }
    }
    Err(low)
}

/// Where what shall be at each place is now, so that `count` values are in order and equal ones stay as they are.
pub fn stable(count: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).gather();
    places.sort_by(|&a, &b| compare(a, b));
    places
}

/// The same in `places`, with all of equal ones but the last behind the others; how many those others are. No places
/// where every value is in its place already, each once.
pub fn distinct(count: usize, compare: &dyn Fn(usize, usize) -> Ordering, places: &mut Vec<usize>) -> usize {
    if (1..count).all(|at| compare(at - 1, at).is_lt()) {
        return count;
    }
    let mut dropped = Vec::new();
    let all = stable(count, compare);
    for (at, &place) in all.iter().enumerate() {
        match all.get(at + 1) {
            Some(&next) if compare(place, next).is_eq() => dropped.push(place),
            _ => places.push(place),
        }
    }
    let distinct = places.len();
    places.append(&mut dropped);
    distinct
}

/// Brings every value to its place.
pub fn rearrange<T>(values: &mut [T], places: Vec<usize>) {
    let bytes = size_of_val(values);
    // SAFETY: the same memory, for as long as the values are borrowed; as bytes that need no value. They are only
    // swapped, whole values at a time: afterwards every value is there once.
    let memory = unsafe { slice::from_raw_parts_mut(values.as_mut_ptr().cast::<MaybeUninit<u8>>(), bytes) };
    rearrange_memory(memory, size_of::<T>(), places);
}

/// Follows each circle of values that take each other's places.
fn rearrange_memory(values: &mut [MaybeUninit<u8>], size: usize, mut places: Vec<usize>) {
    for start in 0..places.len() {
        let mut at = start;
        loop {
            let from = mem::replace(&mut places[at], at);
            if from == start {
                break;
            }
            let (low, high) = (at.min(from), at.max(from));
            let (before, behind) = values.split_at_mut(high * size);
            before[low * size..][..size].swap_with_slice(&mut behind[..size]);
            at = from;
        }
    }
}
