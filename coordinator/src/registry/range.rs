//! Checks of values and counts against their allowed range.

use super::RegistryError;
use std::ops::RangeInclusive;

/// Refuses a number in a request that is outside of `allowed`. `range` is the allowed range in words.
pub(super) fn check_range(
    what: &'static str,
    value: u64,
    allowed: RangeInclusive<u64>,
    range: &'static str,
) -> Result<(), RegistryError> {
    if allowed.contains(&value) { Ok(()) } else { Err(RegistryError::OutOfRange { what, value, range }) }
}

/// Refuses a list in a request with more than `most` items. `range` is the allowed range in words.
pub(super) fn check_count(
    what: &'static str,
    count: usize,
    most: usize,
    range: &'static str,
) -> Result<(), RegistryError> {
    check_range(what, count as u64, 0..=most as u64, range)
}
