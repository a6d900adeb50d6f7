//! JSON, read into what serde derives, and written. It takes what `serde_json` takes and writes the same bytes, with a
//! good deal less code for each type, which is what counts on a router's flash: an object is never read from a list, no
//! number has a fraction, and what needs no type is one code for all.

mod reader;
mod reading;
mod writing;

use reader::Reader;
use serde::{
    Deserialize, Serialize,
    de::{self, DeserializeSeed, Expected, Unexpected},
    ser,
};
use std::{fmt, io, marker::PhantomData};

/// Reads all of a text.
pub fn read<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, JsonError> {
    read_as(text, PhantomData)
}

/// Reads all of a text into what `seed` makes of it.
pub fn read_as<'de, S: DeserializeSeed<'de>>(text: &'de [u8], seed: S) -> Result<S::Value, JsonError> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    match seed.deserialize(&mut reader) {
        Ok(value) => reader.end().map(|()| value),
        Err(error) => Err(reader.locate(error)),
    }
}

/// Writes a value, on one line.
pub fn write<T: Serialize + ?Sized>(value: &T) -> Result<String, JsonError> {
    let mut text = String::new();
    value.serialize(writing::Writer(&mut text)).map(|()| text)
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

impl de::Error for JsonError {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self::new(what.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("invalid type: {}, expected {expected}", in_words(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("invalid value: {}, expected {expected}", in_words(found)))
    }
}

impl ser::Error for JsonError {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self::new(what.to_string())
    }
}

/// As serde says it, without the code to format fractions.
fn in_words(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("boolean `{value}`"),
        Unexpected::Unsigned(value) => format!("integer `{value}`"),
        Unexpected::Signed(value) => format!("integer `{value}`"),
        Unexpected::Float(_) => "a fraction".to_owned(),
        Unexpected::Str(value) => format!("string “{value}”"),
        Unexpected::Unit => "null".to_owned(),
        Unexpected::Seq => "sequence".to_owned(),
        Unexpected::Map => "map".to_owned(),
        Unexpected::UnitVariant => "unit variant".to_owned(),
        Unexpected::Other(value) => value.to_owned(),
        _ => "something else".to_owned(),
    }
}

impl JsonError {
    #[cold]
    fn new(what: String) -> Self {
        Self(Box::new(Fault { what, at: None }))
    }
}

#[cfg(test)]
mod tests;
