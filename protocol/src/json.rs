//! JSON, read into what serde derives. It takes what `serde_json` takes, with a good deal less code for each type, which
//! is what counts on a router's flash: an object is never read from a list, no number has a fraction, and what needs no
//! type is one code for all. Writing is left to `serde_json`.

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, Expected, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor, value::CowStrDeserializer,
};
use std::{borrow::Cow, fmt, io, marker::PhantomData};

/// So many lists and objects within each other are too many.
const TOO_DEEP: u8 = 128;

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

/// Why a text can't be read. (In a box of its own, so that what may fail hands on a single word.)
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

struct Reader<'de> {
    text: &'de [u8],
    at: usize,
    depth: u8,
}

enum Number {
    Unsigned(u64),
    Signed(i64),
    /// Or too large.
    Fraction,
}

/// How far a list or an object was read.
struct Inside {
    close: u8,
    any: bool,
    closed: bool,
}

impl<'de> Reader<'de> {
    #[cold]
    fn fault(&self, what: &str) -> JsonError {
        JsonError::new(what.to_owned())
    }

    #[cold]
    fn locate(&self, mut error: JsonError) -> JsonError {
        error.0.at = Some(self.at);
        error
    }

    fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.locate(self.fault("more behind the end"))),
        }
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Goes over a byte, behind spaces, if it is this one.
    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn next(&mut self) -> Result<u8, JsonError> {
        let byte = self.text.get(self.at).copied().ok_or_else(|| self.fault("it ends too early"))?;
        self.at += 1;
        Ok(byte)
    }

    fn word(&mut self, word: &str) -> Result<(), JsonError> {
        if !self.text[self.at..].starts_with(word.as_bytes()) {
            return Err(self.fault("a value is expected"));
        }
        self.at += word.len();
        Ok(())
    }

    fn bool(&mut self) -> Result<bool, JsonError> {
        let value = self.text.get(self.at) == Some(&b't');
        self.word(if value { "true" } else { "false" })?;
        Ok(value)
    }

    /// What is behind the quote.
    fn string(&mut self) -> Result<Cow<'de, str>, JsonError> {
        let (mut text, mut from): (Vec<u8>, _) = (Vec::new(), self.at);
        loop {
            match self.next()? {
                b'"' => break,
                b'\\' => {
                    text.extend_from_slice(&self.text[from..self.at - 1]);
                    let char = self.escaped()?;
                    text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                    from = self.at;
                }
                0..=0x1f => return Err(self.fault("a control character in a string")),
                _ => {}
            }
        }
        let rest = &self.text[from..self.at - 1];
        let text = if text.is_empty() {
            str::from_utf8(rest).ok().map(Cow::Borrowed)
        } else {
            text.extend_from_slice(rest);
            String::from_utf8(text).ok().map(Cow::Owned)
        };
        text.ok_or_else(|| self.fault("a string that is not UTF-8"))
    }

    /// What is behind a backslash.
    fn escaped(&mut self) -> Result<char, JsonError> {
        Ok(match self.next()? {
            byte @ (b'"' | b'\\' | b'/') => byte.into(),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let mut code = self.unit()?;
                // RFC 8259, section 7: two units of UTF-16.
                if (0xd800..0xdc00).contains(&code) {
                    self.word("\\u")?;
                    let low = self.unit()?.wrapping_sub(0xdc00);
                    code = if low < 0x400 { 0x10000 + ((code - 0xd800) << 10) + low } else { code };
                }
                char::from_u32(code).ok_or_else(|| self.fault("half a character"))?
            }
            _ => return Err(self.fault("an unknown escape")),
        })
    }

    fn unit(&mut self) -> Result<u32, JsonError> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = char::from(self.next()?).to_digit(16);
            unit = unit << 4 | digit.ok_or_else(|| self.fault("four hexadecimal digits are expected"))?;
        }
        Ok(unit)
    }

    fn digits(&mut self) -> Result<&'de [u8], JsonError> {
        let digits = &self.text[self.at..];
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(self.fault("a digit is expected")) } else { Ok(&digits[..count]) }
    }

    fn has(&mut self, bytes: &[u8]) -> bool {
        let there = self.text.get(self.at).is_some_and(|byte| bytes.contains(byte));
        self.at += usize::from(there);
        there
    }

    fn number(&mut self) -> Result<Number, JsonError> {
        let minus = self.has(b"-");
        let whole = self.digits()?;
        if whole.len() > 1 && whole[0] == b'0' {
            return Err(self.fault("a number begins with 0"));
        }
        let mut fraction = false;
        if self.has(b".") {
            fraction = true;
            self.digits()?;
        }
        if self.has(b"eE") {
            fraction = true;
            self.has(b"+-");
            self.digits()?;
        }
        let add = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
        let value = whole.iter().try_fold(0, add).filter(|_| !fraction);
        Ok(match value {
            Some(value) if !minus => Number::Unsigned(value),
            Some(value @ 1..=0x8000_0000_0000_0000) => Number::Signed((value as i64).wrapping_neg()),
            _ => Number::Fraction,
        })
    }

    /// Goes into a list or an object.
    fn enter(&mut self, close: u8) -> Result<Inside, JsonError> {
        self.at += 1;
        self.depth += 1;
        if self.depth == TOO_DEEP {
            return Err(self.fault("too deep"));
        }
        Ok(Inside { close, any: false, closed: false })
    }

    /// Whether there is one more in it.
    fn more(&mut self, inside: &mut Inside) -> Result<bool, JsonError> {
        if self.take(inside.close) {
            self.depth -= 1;
            inside.closed = true;
            return Ok(false);
        }
        if inside.any && (!self.take(b',') || self.peek() == Some(inside.close)) {
            return Err(self.fault("after a comma one more, or an end is expected"));
        }
        inside.any = true;
        Ok(true)
    }

    /// Whoever took what is in it may have stopped before its end.
    fn leave(&mut self, mut inside: Inside) -> Result<(), JsonError> {
        if !inside.closed && self.more(&mut inside)? {
            return Err(self.fault("more than is expected"));
        }
        Ok(())
    }

    /// Goes to a key, behind its quote.
    fn key(&mut self) -> Result<(), JsonError> {
        if self.take(b'"') { Ok(()) } else { Err(self.fault("a key is expected")) }
    }

    fn colon(&mut self) -> Result<(), JsonError> {
        if self.take(b':') { Ok(()) } else { Err(self.fault("“:” is expected")) }
    }

    /// Goes over a value.
    fn skip(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'n') => self.word("null"),
            Some(b't' | b'f') => self.bool().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            Some(b'"') => {
                self.at += 1;
                self.string().map(drop)
            }
            Some(b'[') => {
                let mut inside = self.enter(b']')?;
                while self.more(&mut inside)? {
                    self.skip()?;
                }
                Ok(())
            }
            Some(b'{') => {
                let mut inside = self.enter(b'}')?;
                while self.more(&mut inside)? {
                    self.key()?;
                    self.string()?;
                    self.colon()?;
                    self.skip()?;
                }
                Ok(())
            }
            _ => Err(self.fault("a value is expected")),
        }
    }

    /// What comes is not what is expected.
    #[cold]
    fn other(&mut self, expected: &dyn Expected) -> JsonError {
        match self.found() {
            Ok(found) => JsonError::new(format!("invalid type: {found}, expected {expected}")),
            Err(error) => error,
        }
    }

    fn found(&mut self) -> Result<String, JsonError> {
        Ok(match self.peek() {
            Some(b'n') => self.word("null").map(|()| in_words(Unexpected::Unit))?,
            Some(b't' | b'f') => in_words(Unexpected::Bool(self.bool()?)),
            Some(b'-' | b'0'..=b'9') => match self.number()? {
                Number::Unsigned(value) => in_words(Unexpected::Unsigned(value)),
                Number::Signed(value) => in_words(Unexpected::Signed(value)),
                Number::Fraction => in_words(Unexpected::Float(0.0)),
            },
            Some(b'"') => {
                self.at += 1;
                in_words(Unexpected::Str(&self.string()?))
            }
            Some(b'[') => in_words(Unexpected::Seq),
            Some(b'{') => in_words(Unexpected::Map),
            Some(_) => return Err(self.fault("a value is expected")),
            None => return Err(self.fault("it ends too early")),
        })
    }

    fn list<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, JsonError> {
        if self.peek() != Some(b'[') {
            return Err(self.other(&visitor));
        }
        let mut inside = self.enter(b']')?;
        let value = visitor.visit_seq(Items { reader: self, inside: &mut inside })?;
        self.leave(inside).map(|()| value)
    }

    fn object<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, JsonError> {
        if self.peek() != Some(b'{') {
            return Err(self.other(&visitor));
        }
        let mut inside = self.enter(b'}')?;
        let value = visitor.visit_map(Items { reader: self, inside: &mut inside })?;
        self.leave(inside).map(|()| value)
    }

    fn text<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, JsonError> {
        if !self.take(b'"') {
            return Err(self.other(&visitor));
        }
        visitor.visit_str(&self.string()?)
    }

    fn integer<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, JsonError> {
        let start = self.peek();
        let at = self.at;
        if matches!(start, Some(b'-' | b'0'..=b'9')) {
            match self.number()? {
                Number::Unsigned(value) => return visitor.visit_u64(value),
                Number::Signed(value) => return visitor.visit_i64(value),
                Number::Fraction => self.at = at,
            }
        }
        Err(self.other(&visitor))
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.peek() {
            Some(b'n') => self.word("null").and_then(|()| visitor.visit_unit()),
            Some(b't' | b'f') => self.bool().and_then(|value| visitor.visit_bool(value)),
            Some(b'"') => self.text(visitor),
            Some(b'[') => self.list(visitor),
            Some(b'{') => self.object(visitor),
            _ => self.integer(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.peek() {
            Some(b't' | b'f') => self.bool().and_then(|value| visitor.visit_bool(value)),
            _ => Err(self.other(&visitor)),
        }
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.integer(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.integer(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.integer(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.integer(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.text(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.text(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.peek() {
            Some(b'n') => self.word("null").and_then(|()| visitor.visit_none()),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, JsonError> {
        self.list(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.object(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.object(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        if self.take(b'"') {
            return visitor.visit_enum(Variant { reader: self, bare: true });
        }
        if self.peek() != Some(b'{') {
            return Err(self.other(&visitor));
        }
        let mut inside = self.enter(b'}')?;
        if !self.more(&mut inside)? {
            return Err(self.fault("an object with one key is expected"));
        }
        self.key()?;
        let value = visitor.visit_enum(Variant { reader: self, bare: false })?;
        self.leave(inside).map(|()| value)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.skip()?;
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple_struct
    }
}

/// What is in a list or an object.
struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    inside: &'a mut Inside,
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = JsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, JsonError> {
        if !self.reader.more(self.inside)? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = JsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, JsonError> {
        if !self.reader.more(self.inside)? {
            return Ok(None);
        }
        self.reader.key()?;
        seed.deserialize(Key(&mut *self.reader)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, JsonError> {
        self.reader.colon()?;
        seed.deserialize(&mut *self.reader)
    }
}

/// A key, behind its quote.
struct Key<'a, 'de>(&'a mut Reader<'de>);

impl<'de> Deserializer<'de> for Key<'_, 'de> {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_str(&self.0.string()?)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        CowStrDeserializer::new(self.0.string()?).deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// One of an enum, behind the quote of its name: its name alone, or the key of an object.
struct Variant<'a, 'de> {
    reader: &'a mut Reader<'de>,
    bare: bool,
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = JsonError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), JsonError> {
        let variant = seed.deserialize(Key(&mut *self.reader))?;
        if !self.bare {
            self.reader.colon()?;
        }
        Ok((variant, self))
    }
}

impl<'de> Variant<'_, 'de> {
    fn content(&mut self) -> Result<&mut Reader<'de>, JsonError> {
        if self.bare { Err(self.reader.fault("the name alone is too little")) } else { Ok(&mut *self.reader) }
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = JsonError;

    fn unit_variant(self) -> Result<(), JsonError> {
        if self.bare { Ok(()) } else { <()>::deserialize(self.reader) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(mut self, seed: T) -> Result<T::Value, JsonError> {
        seed.deserialize(self.content()?)
    }

    fn tuple_variant<V: Visitor<'de>>(mut self, _: usize, visitor: V) -> Result<V::Value, JsonError> {
        self.content()?.list(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        mut self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.content()?.object(visitor)
    }
}

#[cfg(test)]
mod tests;
