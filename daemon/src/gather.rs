//! Vectors from iterators. What the standard library does for that is fast in many ways, and each of them is code of
//! its own for every iterator there is; here it is one loop, which is what counts on a router's flash.

/// What comes from an iterator, as a vector.
pub trait Gather: Iterator + Sized {
    /// As `collect`.
    fn gather(self) -> Vec<Self::Item> {
        let mut all = Vec::new();
        append(&mut all, self);
        all
    }
}

impl<I: Iterator> Gather for I {}

/// As `Vec::extend`.
pub fn append<T>(values: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    for value in more {
        push(values, value);
    }
}

#[inline(never)]
fn push<T>(values: &mut Vec<T>, value: T) {
    values.push(value);
}
