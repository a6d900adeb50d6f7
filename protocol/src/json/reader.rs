//! Goes through a text: what needs no type.

use super::{JsonError, in_words};
use serde::de::{Expected, Unexpected};
use std::borrow::Cow;

/// So many lists and objects within each other are too many.
const TOO_DEEP: u8 = 128;

/// A text, and how far it was read.
pub(super) struct Reader<'de> {
    pub(super) text: &'de [u8],
    pub(super) at: usize,
    pub(super) depth: u8,
}

pub(super) enum Number {
    Unsigned(u64),
    Signed(i64),
    /// Or too large.
    Fraction,
}

/// How far a list or an object was read.
pub(super) struct Inside {
    close: u8,
    any: bool,
    closed: bool,
}

impl<'de> Reader<'de> {
    #[cold]
    pub(super) fn fault(&self, what: &str) -> JsonError {
        JsonError::new(what.to_owned())
    }

    #[cold]
    pub(super) fn locate(&self, mut error: JsonError) -> JsonError {
        error.0.at = Some(self.at);
        error
    }

    pub(super) fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.locate(self.fault("more behind the end"))),
        }
    }

    /// The next byte that is no space.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Goes over a byte, behind spaces, if it is this one.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn next(&mut self) -> Result<u8, JsonError> {
        let byte = self.text.get(self.at).copied().ok_or_else(|| self.fault("it ends too early"))?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn word(&mut self, word: &str) -> Result<(), JsonError> {
        if !self.text[self.at..].starts_with(word.as_bytes()) {
            return Err(self.fault("a value is expected"));
        }
        self.at += word.len();
        Ok(())
    }

    pub(super) fn bool(&mut self) -> Result<bool, JsonError> {
        let value = self.text.get(self.at) == Some(&b't');
        self.word(if value { "true" } else { "false" })?;
        Ok(value)
    }

    /// What is behind the quote.
    pub(super) fn string(&mut self) -> Result<Cow<'de, str>, JsonError> {
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

    pub(super) fn number(&mut self) -> Result<Number, JsonError> {
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
    pub(super) fn enter(&mut self, close: u8) -> Result<Inside, JsonError> {
        self.at += 1;
        self.depth += 1;
        if self.depth == TOO_DEEP {
            return Err(self.fault("too deep"));
        }
        Ok(Inside { close, any: false, closed: false })
    }

    /// Whether there is one more in it.
    pub(super) fn more(&mut self, inside: &mut Inside) -> Result<bool, JsonError> {
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
    pub(super) fn leave(&mut self, mut inside: Inside) -> Result<(), JsonError> {
        if !inside.closed && self.more(&mut inside)? {
            return Err(self.fault("more than is expected"));
        }
        Ok(())
    }

    /// Goes to a key, behind its quote.
    pub(super) fn key(&mut self) -> Result<(), JsonError> {
        if self.take(b'"') { Ok(()) } else { Err(self.fault("a key is expected")) }
    }

    pub(super) fn colon(&mut self) -> Result<(), JsonError> {
        if self.take(b':') { Ok(()) } else { Err(self.fault("“:” is expected")) }
    }

    /// Goes over a value.
    pub(super) fn skip(&mut self) -> Result<(), JsonError> {
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
    pub(super) fn other(&mut self, expected: &dyn Expected) -> JsonError {
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
}
