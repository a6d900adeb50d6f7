//! Reads a text as what a type expects.

use super::{
    JsonError,
    reader::{Inside, Number, Reader},
};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
    value::CowStrDeserializer,
};

impl<'de> Reader<'de> {
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

macro_rules! read_as {
    ($form:ident: $($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            self.$form(visitor)
        })*
    };
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

    read_as!(integer: deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64);
    read_as!(text: deserialize_str deserialize_string deserialize_identifier);
    read_as!(list: deserialize_seq);
    read_as!(object: deserialize_map);

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

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, JsonError> {
        self.list(visitor)
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
