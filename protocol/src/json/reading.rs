//! What types are read from.

use super::{JsonError, Reader};
use std::{
    collections::BTreeMap,
    fmt::Display,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// What can be read from JSON. Types with fields get it from [`json_fields`](crate::json_fields), names from
/// [`json_words`](crate::json_words).
pub trait FromJson: Sized {
    /// Reads one.
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError>;

    /// What stands for a field that is not there; `None` where it has to be.
    fn absent() -> Option<Self> {
        None
    }
}

/// Reads an object as a type with such fields. Those behind the semicolon may be missing, and are at their default then.
/// `kind "type"` is a field whose name differs in JSON.
#[macro_export]
macro_rules! json_fields {
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
    ($type:ty: $($field:ident $($name:literal)?),* $(; $($optional:ident),*)?) => {
        impl $crate::json::FromJson for $type {
            fn from_json(reader: &mut $crate::json::Reader<'_>) -> Result<Self, $crate::json::JsonError> {
                const NAMES: &[&str] = &[
                    $($crate::json_fields!(@name $field $($name)?),)* $($(stringify!($optional),)*)?
                ];
                let mut places = [0; NAMES.len()];
                let mut fields = $crate::json::Fields::find(reader, NAMES, &mut places)?;
                // In the order of the names.
                Ok(Self { $($field: fields.next()?,)* $($($optional: fields.next_or_default()?,)*)? })
            }
        }
    };
}

/// Reads a text as one of an enum. What is behind the semicolon stands for every text that is not known.
#[macro_export]
macro_rules! json_words {
    ($type:ident: $($name:literal $value:ident),+ $(; $other:ident)?) => {
        impl $crate::json::FromJson for $type {
            fn from_json(reader: &mut $crate::json::Reader<'_>) -> Result<Self, $crate::json::JsonError> {
                const NAMES: &[&str] = &[$($name),+];
                const VALUES: &[$type] = &[$($type::$value,)+ $($type::$other)?];
                reader.one_of(NAMES, VALUES.len() > NAMES.len()).map(|place| VALUES[place])
            }
        }
    };
}

/// The fields of an object, one after the other.
pub struct Fields<'a, 'n> {
    reader: Reader<'a>,
    end: usize,
    names: &'n [&'n str],
    /// Where the value of each begins; 0 where there is none.
    places: &'n [usize],
}

impl<'a, 'n> Fields<'a, 'n> {
    /// Goes over an object, and finds the values of fields with these names in it.
    pub fn find(
        reader: &mut Reader<'a>,
        names: &'n [&'n str],
        places: &'n mut [usize],
    ) -> Result<Self, JsonError> {
        reader.object(&mut |reader, key| {
            if let Some(place) = names.iter().position(|name| *name == key) {
                if places[place] != 0 {
                    return Err(reader.refuse(&format_args!("duplicate field `{key}`")));
                }
                places[place] = reader.at;
            }
            reader.skip()
        })?;
        Ok(Self { reader: reader.clone(), end: reader.at, names, places })
    }

    /// The value of the next name.
    #[expect(clippy::should_implement_trait, reason = "each is of a type of its own")]
    pub fn next<T: FromJson>(&mut self) -> Result<T, JsonError> {
        if self.go() { T::from_json(&mut self.reader) } else { T::absent().ok_or_else(|| self.missing()) }
    }

    /// The value of the next name, which may be missing.
    pub fn next_or_default<T: FromJson + Default>(&mut self) -> Result<T, JsonError> {
        if self.go() { T::from_json(&mut self.reader) } else { Ok(T::default()) }
    }

    /// Goes to the value of the next name, if there is one.
    fn go(&mut self) -> bool {
        let Some((place, places)) = self.places.split_first() else { return false };
        self.places = places;
        self.reader.at = *place;
        *place != 0
    }

    #[cold]
    fn missing(&mut self) -> JsonError {
        self.reader.at = self.end;
        let name = self.names[self.names.len() - self.places.len() - 1];
        self.reader.refuse(&format_args!("missing field `{name}`"))
    }
}

impl Reader<'_> {
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

    fn absent() -> Option<Self> {
        Some(None)
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
        let mut map = Self::new();
        reader.object(&mut |reader, key| {
            let key = key.parse().map_err(|error: K::Err| reader.refuse(&error))?;
            map.insert(key, V::from_json(reader)?);
            Ok(())
        })?;
        Ok(map)
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
