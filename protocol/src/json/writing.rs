//! Writes a value as it says what it is.

use super::JsonError;
use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::fmt::{Display, Write};

type Done = Result<(), JsonError>;

/// Writes to the end of a text.
pub(super) struct Writer<'a>(pub(super) &'a mut String);

/// A list or an object that is being written.
pub(super) struct Open<'a> {
    text: &'a mut String,
    is_first: bool,
    /// What closes it.
    end: &'static str,
}

fn string(text: &mut String, value: &str) {
    text.push('"');
    for char in value.chars() {
        match char {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            char if char < ' ' => display(text, &format_args!("\\u{:04x}", u32::from(char))),
            char => text.push(char),
        }
    }
    text.push('"');
}

fn display(text: &mut String, value: &dyn Display) {
    write!(text, "{value}").expect("text takes all that is written");
}

fn no_fraction() -> JsonError {
    JsonError::new("no number has a fraction here".to_owned(), None)
}

fn no_key() -> JsonError {
    JsonError::new("a key must be text".to_owned(), None)
}

impl<'a> Open<'a> {
    fn new(text: &'a mut String, start: &str, end: &'static str) -> Self {
        text.push_str(start);
        Self { text, is_first: true, end }
    }

    /// A list or an object that is the content of one of an enum.
    fn within(text: &'a mut String, variant: &str, start: &str, end: &'static str) -> Self {
        text.push('{');
        string(text, variant);
        text.push(':');
        Self::new(text, start, end)
    }

    fn next(&mut self) {
        if !std::mem::take(&mut self.is_first) {
            self.text.push(',');
        }
    }

    fn name(&mut self, name: &str) {
        self.next();
        string(self.text, name);
        self.text.push(':');
    }

    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.next();
        value.serialize(Writer(self.text))
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Done {
        self.name(name);
        value.serialize(Writer(self.text))
    }

    fn close(self) -> Done {
        self.text.push_str(self.end);
        Ok(())
    }
}

macro_rules! numbers {
    ($wide:ident: $($method:ident $number:ident),*) => {
        $(fn $method(self, value: $number) -> Done {
            display(self.0, &$wide::from(value));
            Ok(())
        })*
    };
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = JsonError;
    type SerializeSeq = Open<'a>;
    type SerializeTuple = Open<'a>;
    type SerializeTupleStruct = Open<'a>;
    type SerializeTupleVariant = Open<'a>;
    type SerializeMap = Open<'a>;
    type SerializeStruct = Open<'a>;
    type SerializeStructVariant = Open<'a>;

    fn serialize_bool(self, value: bool) -> Done {
        self.0.push_str(if value { "true" } else { "false" });
        Ok(())
    }

    numbers!(i64: serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64);
    numbers!(u64: serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64);

    fn serialize_f32(self, _: f32) -> Done {
        Err(no_fraction())
    }

    fn serialize_f64(self, _: f64) -> Done {
        Err(no_fraction())
    }

    fn serialize_char(self, value: char) -> Done {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Done {
        string(self.0, value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Done {
        self.collect_seq(value)
    }

    fn serialize_none(self) -> Done {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Done {
        self.0.push_str("null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Done {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Done {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Done {
        let mut object = Open::new(self.0, "{", "}");
        object.field(variant, value)?;
        object.close()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Open<'a>, JsonError> {
        Ok(Open::new(self.0, "[", "]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Open<'a>, JsonError> {
        Ok(Open::new(self.0, "[", "]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Open<'a>, JsonError> {
        Ok(Open::new(self.0, "[", "]"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Open<'a>, JsonError> {
        Ok(Open::within(self.0, variant, "[", "]}"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Open<'a>, JsonError> {
        Ok(Open::new(self.0, "{", "}"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Open<'a>, JsonError> {
        Ok(Open::new(self.0, "{", "}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Open<'a>, JsonError> {
        Ok(Open::within(self.0, variant, "{", "}}"))
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Done {
        self.serialize_str(&value.to_string())
    }
}

macro_rules! items {
    ($($trait:ident $method:ident),*) => {
        $(impl $trait for Open<'_> {
            type Ok = ();
            type Error = JsonError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
                self.item(value)
            }

            fn end(self) -> Done {
                self.close()
            }
        })*
    };
}
items!(SerializeSeq serialize_element, SerializeTuple serialize_element);
items!(SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field);

macro_rules! fields {
    ($($trait:ident),*) => {
        $(impl $trait for Open<'_> {
            type Ok = ();
            type Error = JsonError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Done {
                self.field(name, value)
            }

            fn end(self) -> Done {
                self.close()
            }
        })*
    };
}
fields!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for Open<'_> {
    type Ok = ();
    type Error = JsonError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Done {
        self.next();
        let start = self.text.len();
        key.serialize(Writer(self.text))?;
        // Numbers and the like are text when they are keys.
        match self.text.as_bytes().get(start) {
            Some(b'"') => {}
            Some(b'[' | b'{' | b'n') | None => return Err(no_key()),
            Some(_) => {
                self.text.insert(start, '"');
                self.text.push('"');
            }
        }
        self.text.push(':');
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        value.serialize(Writer(self.text))
    }

    fn end(self) -> Done {
        self.close()
    }
}
