//! Writes a value as it says what it is. What can't be written is noted in the text and told at its end, so that no field
//! has to look at whether the one before was written.

use super::JsonError;
use serde::ser::{
    self, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::fmt::{self, Display, Write};

type Done = Result<(), Never>;

/// There is none: see [`Text::fault`].
#[derive(Debug)]
pub(super) enum Never {}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl std::error::Error for Never {}

impl ser::Error for Never {
    fn custom<T: Display>(what: T) -> Self {
        unreachable!("only paths and times of std refuse to be written, which no record has: {what}")
    }
}

/// What is being written.
#[derive(Default)]
pub(super) struct Text {
    text: String,
    fault: Option<&'static str>,
}

impl Text {
    pub(super) fn finish(self) -> Result<String, JsonError> {
        self.fault.map_or(Ok(self.text), |what| Err(JsonError::new(what.to_owned(), None)))
    }

    fn fault(&mut self, what: &'static str) -> Done {
        self.fault = Some(what);
        Ok(())
    }
}

/// Writes to the end of a text.
pub(super) struct Writer<'a>(pub(super) &'a mut Text);

/// A list or an object that is being written.
pub(super) struct Open<'a> {
    text: &'a mut Text,
    is_first: bool,
    /// What closes it.
    end: &'static str,
}

fn string(Text { text, .. }: &mut Text, value: &str) {
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

const FRACTION: &str = "no number has a fraction here";

impl<'a> Open<'a> {
    fn new(text: &'a mut Text, start: &str, end: &'static str) -> Self {
        text.text.push_str(start);
        Self { text, is_first: true, end }
    }

    /// A list or an object that is the content of one of an enum.
    fn within(text: &'a mut Text, variant: &str, start: &str, end: &'static str) -> Self {
        text.text.push('{');
        string(text, variant);
        text.text.push(':');
        Self::new(text, start, end)
    }

    fn next(&mut self) {
        if !std::mem::take(&mut self.is_first) {
            self.text.text.push(',');
        }
    }

    fn name(&mut self, name: &str) {
        self.next();
        string(self.text, name);
        self.text.text.push(':');
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
        self.text.text.push_str(self.end);
        Ok(())
    }
}

macro_rules! numbers {
    ($wide:ident: $($method:ident $number:ident),*) => {
        $(fn $method(self, value: $number) -> Done {
            display(&mut self.0.text, &$wide::from(value));
            Ok(())
        })*
    };
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Never;
    type SerializeSeq = Open<'a>;
    type SerializeTuple = Open<'a>;
    type SerializeTupleStruct = Open<'a>;
    type SerializeTupleVariant = Open<'a>;
    type SerializeMap = Open<'a>;
    type SerializeStruct = Open<'a>;
    type SerializeStructVariant = Open<'a>;

    fn serialize_bool(self, value: bool) -> Done {
        self.0.text.push_str(if value { "true" } else { "false" });
        Ok(())
    }

    numbers!(i64: serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64);
    numbers!(u64: serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64);

    fn serialize_f32(self, _: f32) -> Done {
        self.0.fault(FRACTION)
    }

    fn serialize_f64(self, _: f64) -> Done {
        self.0.fault(FRACTION)
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
        self.0.text.push_str("null");
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

    fn serialize_seq(self, _: Option<usize>) -> Result<Open<'a>, Never> {
        Ok(Open::new(self.0, "[", "]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Open<'a>, Never> {
        Ok(Open::new(self.0, "[", "]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Open<'a>, Never> {
        Ok(Open::new(self.0, "[", "]"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Open<'a>, Never> {
        Ok(Open::within(self.0, variant, "[", "]}"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Open<'a>, Never> {
        Ok(Open::new(self.0, "{", "}"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Open<'a>, Never> {
        Ok(Open::new(self.0, "{", "}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Open<'a>, Never> {
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
            type Error = Never;

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
            type Error = Never;

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
    type Error = Never;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Done {
        self.next();
        let start = self.text.text.len();
        key.serialize(Writer(self.text))?;
        // Numbers and the like are text when they are keys.
        match self.text.text.as_bytes().get(start) {
            Some(b'"') => {}
            Some(b'[' | b'{' | b'n') | None => self.text.fault("a key must be text")?,
            Some(_) => {
                self.text.text.insert(start, '"');
                self.text.text.push('"');
            }
        }
        self.text.text.push(':');
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        value.serialize(Writer(self.text))
    }

    fn end(self) -> Done {
        self.close()
    }
}
