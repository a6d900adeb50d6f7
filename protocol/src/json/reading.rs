//! What types are read from.

use super::{JsonError, Reader};
use std::{
    collections::BTreeMap,
    fmt::Display,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

/// What can be read from JSON. Types with fields get it from [`json_fields`](crate::json_fields), names from
/// [`json_words`](crate::json_words).
pub trait FromJson: Sized {
    /// Reads one.
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError>;
}

/// What can be a field.
pub trait Blank {
    /// What it holds before it is read, and where it is missing and may be.
    fn blank() -> Self;
}

/// A field that is to be read.
pub trait Place {
    /// Reads it.
    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError>;
}

impl<T: FromJson> Place for T {
    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        T::from_json(reader).map(|value| *self = value)
    }
}

/// Reads an object as a type with such fields. Those behind the semicolon may be missing, and are blank then.
/// `kind "type"` is a field whose name differs in JSON.
#[macro_export]
macro_rules! json_fields {
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
    ($type:ty: $($field:ident $($name:literal)?),* $(; $($optional:ident),*)?) => {
        impl $crate::json::Blank for $type {
            fn blank() -> Self {
                Self { $($field: $crate::json::Blank::blank(),)* $($($optional: $crate::json::Blank::blank(),)*)? }
            }
        }
        impl $crate::json::FromJson for $type {
            fn from_json(reader: &mut $crate::json::Reader<'_>) -> Result<Self, $crate::json::JsonError> {
                const NEEDED: &[&str] = &[$($crate::json_fields!(@name $field $($name)?)),*];
                const OTHERS: &[&str] = &[$($(stringify!($optional)),*)?];
                const { assert!(NEEDED.len() + OTHERS.len() <= $crate::json::MOST_FIELDS) };
                let mut value: Self = $crate::json::Blank::blank();
                reader.fields(NEEDED, OTHERS, &mut [$(&mut value.$field,)* $($(&mut value.$optional,)*)?])?;
                Ok(value)
            }
        }
    };
}

/// Reads a text as one of an enum, whose first is its blank. What is behind the semicolon stands for every text that is not known.
#[macro_export]
macro_rules! json_words {
    ($type:ident: $first:literal $blank:ident $(, $name:literal $value:ident)* $(; $other:ident)?) => {
        impl $crate::json::Blank for $type {
            fn blank() -> Self {
                Self::$blank
            }
        }
        impl $crate::json::FromJson for $type {
            fn from_json(reader: &mut $crate::json::Reader<'_>) -> Result<Self, $crate::json::JsonError> {
                const NAMES: &[&str] = &[$first, $($name),*];
                const VALUES: &[$type] = &[$type::$blank, $($type::$value,)* $($type::$other)?];
                reader.one_of(NAMES, VALUES.len() > NAMES.len()).map(|place| VALUES[place])
            }
        }
    };
}

/// How many fields a type can have.
pub const MOST_FIELDS: usize = u32::BITS as usize;

impl Reader<'_> {
    /// Reads an object into the places of its fields: of those that are needed, then of the others.
    pub fn fields(
        &mut self,
        needed: &[&str],
        others: &[&str],
        places: &mut [&mut dyn Place],
    ) -> Result<(), JsonError> {
        let mut found = 0_u32;
        self.object(&mut |reader, key| {
            let names = needed.iter().chain(others);
            let Some(place) = names.zip(&mut *places).zip(0..).find(|((name, _), _)| **name == key) else {
                return reader.skip();
            };
            let ((_, place), at) = place;
            let seen = found;
            found |= 1 << at;
            if seen == found {
                return Err(reader.refuse(&format_args!("duplicate field `{key}`")));
            }
            place.fill(reader)
        })?;
        match needed.get(found.trailing_ones() as usize) {
            Some(name) => Err(self.refuse(&format_args!("missing field `{name}`"))),
            None => Ok(()),
        }
    }

    /// An object whose keys are texts of a type, in the order of the text.
    pub fn entries<K: FromStr<Err: Display>, V: FromJson>(&mut self) -> Result<Vec<(K, V)>, JsonError> {
        let mut entries = Vec::new();
        self.object(&mut |reader, key| {
            let key = key.parse().map_err(|error: K::Err| reader.refuse(&error))?;
            entries.push((key, V::from_json(reader)?));
            Ok(())
        })?;
        Ok(entries)
    }

    /// A text as what it says.
    pub fn parse<T: FromStr<Err: Display>>(&mut self) -> Result<T, JsonError> {
        self.text()?.parse().map_err(|error: T::Err| self.refuse(&error))
    }

    /// The place of a text among `names`, or behind them if it is none and may be.
    pub fn one_of(&mut self, names: &[&str], or_none: bool) -> Result<usize, JsonError> {
        let text = self.text()?;
        match names.iter().position(|name| *name == text) {
            Some(place) => Ok(place),
            None if or_none => Ok(names.len()),
            None => {
                let names = names.join("`, `");
                Err(self.refuse(&format_args!("unknown variant `{text}`, expected one of `{names}`")))
            }
        }
    }
}

impl FromJson for bool {
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        reader.bool()
    }
}

impl FromJson for String {
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        Ok(reader.text()?.into_owned())
    }
}

macro_rules! numbers {
    ($($number:ident)*) => {
        $(impl FromJson for $number {
            fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
                reader.unsigned(Self::MAX.into(), stringify!($number)).map(|value| value as Self)
            }
        })*
    };
}
numbers!(u8 u16 u32 u64);

macro_rules! blanks {
    ($($type:ty)*) => {
        $(impl Blank for $type {
            fn blank() -> Self {
                Self::default()
            }
        })*
    };
}
blanks!(bool u8 u16 u32 u64 String);

impl<T> Blank for Option<T> {
    fn blank() -> Self {
        None
    }
}

impl<T> Blank for Vec<T> {
    fn blank() -> Self {
        Self::new()
    }
}

impl Blank for SocketAddr {
    fn blank() -> Self {
        Self::new(Ipv4Addr::UNSPECIFIED.into(), 0)
    }
}

macro_rules! parsed {
    ($($type:ty)*) => {
        $(impl FromJson for $type {
            fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
                reader.parse()
            }
        })*
    };
}
parsed!(IpAddr SocketAddr);

impl<T: FromJson> FromJson for Option<T> {
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        if reader.null()? { Ok(None) } else { T::from_json(reader).map(Some) }
    }
}

impl<T: FromJson> FromJson for Box<T> {
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        T::from_json(reader).map(Self::new)
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        let mut list = Self::new();
        reader.list(&mut |reader| T::from_json(reader).map(|one| list.push(one)))?;
        Ok(list)
    }
}

impl<K: FromStr<Err: Display> + Ord, V: FromJson> FromJson for BTreeMap<K, V> {
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        Ok(reader.entries()?.into_iter().collect())
    }
}

impl<A: FromJson, B: FromJson> FromJson for (A, B) {
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        let (mut first, mut second) = (None, None);
        reader.list(&mut |reader| {
            if first.is_none() {
                first = Some(A::from_json(reader)?);
            } else if second.is_none() {
                second = Some(B::from_json(reader)?);
            } else {
                return Err(reader.fault("more than is expected"));
            }
            Ok(())
        })?;
        first.zip(second).ok_or_else(|| reader.fault("less than is expected"))
    }
}
