//! JSON, read into types that say how they are read ([`FromJson`]), and written from what serde derives. It takes what
//! `serde_json` takes and writes the same bytes, with a good deal less code for each type, which is what counts on a
//! router's flash: a type is little more than a list of its fields' names, no number has a fraction, and what needs no
//! type is one code for all.

mod reader;
mod reading;
mod writing;

pub use reader::Reader;
pub use reading::{Blank, FromJson, MOST_FIELDS, Place};

use serde::Serialize;
use std::{fmt, io};

/// Reads all of a text.
pub fn read<T: FromJson>(text: &[u8]) -> Result<T, JsonError> {
    read_as(text, T::from_json)
}

/// Reads all of a text as `read` does.
pub fn read_as<T>(
    text: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, JsonError>,
) -> Result<T, JsonError> {
    let mut reader = Reader::new(text);
    let value = read(&mut reader)?;
    reader.end().map(|()| value)
}

/// Writes a value, on one line.
pub fn write<T: Serialize + ?Sized>(value: &T) -> Result<String, JsonError> {
    let mut text = writing::Text::default();
    match value.serialize(writing::Writer(&mut text)) {
        Ok(()) => text.finish(),
        Err(never) => match never {},
    }
}

/// Why a text can't be read, or a value written. (In a box of its own, so that what may fail hands on a single word.)
pub struct JsonError(Box<Fault>);

struct Fault {
    what: String,
    /// In bytes.
    at: Option<usize>,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        self.0.at.map_or(Ok(()), |at| write!(f, ", at byte {at}"))
    }
}

impl fmt::Debug for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for JsonError {}

impl From<JsonError> for io::Error {
    fn from(error: JsonError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error.to_string())
    }
}

impl JsonError {
    #[cold]
    fn new(what: String, at: Option<usize>) -> Self {
        Self(Box::new(Fault { what, at }))
    }

    /// The same, and that it is with `name`.
    #[must_use]
    pub fn of(mut self, name: &str) -> Self {
        self.0.what = format!("“{name}”: {}", self.0.what);
        self
    }
}

#[cfg(test)]
mod tests;
