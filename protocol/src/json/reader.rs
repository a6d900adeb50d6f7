//! Goes through a text: what needs no type.

use super::JsonError;
use std::{borrow::Cow, fmt::Display};

/// So many lists and objects within each other are too many.
const TOO_DEEP: u8 = 128;

/// What is done with each of a list.
pub(super) type Each<'a, 'e> = &'e mut dyn FnMut(&mut Reader<'a>) -> Result<(), JsonError>;
/// What is done with each of an object: its key comes with it.
pub(super) type EachField<'a, 'e> = &'e mut dyn FnMut(&mut Reader<'a>, &str) -> Result<(), JsonError>;

/// A text, and how far it was read.
#[derive(Clone)]
pub struct Reader<'a> {
    pub(super) text: &'a [u8],
    pub(super) at: usize,
    depth: u8,
}

enum Number {
    Unsigned(u64),
    Signed(i64),
    /// Or too large.
    Fraction,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// What is wrong here.
    #[cold]
    pub fn fault(&self, what: &str) -> JsonError {
        JsonError::new(what.to_owned(), Some(self.at))
    }

    /// What is wrong here, in another's words.
    #[cold]
    pub fn refuse(&self, what: &dyn Display) -> JsonError {
        JsonError::new(what.to_string(), Some(self.at))
    }

    pub(super) fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault("more behind the end")),
        }
    }

    /// Goes through a list.
    pub fn list(&mut self, each: Each<'a, '_>) -> Result<(), JsonError> {
        self.enter(b'[', "a sequence")?;
        let mut any = false;
        while self.more(b']', &mut any)? {
            each(self)?;
        }
        Ok(())
    }

    /// Goes through an object; `each` must read what is at its key.
    pub fn object(&mut self, each: EachField<'a, '_>) -> Result<(), JsonError> {
        self.enter(b'{', "an object")?;
        let mut any = false;
        while self.more(b'}', &mut any)? {
            if !self.take(b'"') {
                return Err(self.fault("a key is expected"));
            }
            let key = self.string()?;
            if !self.take(b':') {
                return Err(self.fault("“:” is expected"));
            }
            each(self, &key)?;
        }
        Ok(())
    }

    /// A text.
    pub fn text(&mut self) -> Result<Cow<'a, str>, JsonError> {
        if self.take(b'"') { self.string() } else { Err(self.other("a string")) }
    }

    /// A yes or no.
    pub fn bool(&mut self) -> Result<bool, JsonError> {
        match self.peek() {
            Some(b't' | b'f') => self.truth(),
            _ => Err(self.other("a boolean")),
        }
    }

    /// A whole number up to `most`, which is called `expected`.
    pub(super) fn unsigned(&mut self, most: u64, expected: &str) -> Result<u64, JsonError> {
        let start = self.at;
        if matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
            let found = self.number()?;
            match found {
                Number::Unsigned(value) if value <= most => return Ok(value),
                Number::Fraction => self.at = start,
                found => {
                    let found = found.in_words();
                    return Err(self.refuse(&format_args!("invalid value: {found}, expected {expected}")));
                }
            }
        }
        Err(self.other(expected))
    }

    /// Whether there is nothing, and goes over it.
    pub fn null(&mut self) -> Result<bool, JsonError> {
        if self.peek() == Some(b'n') { self.word("null").map(|()| true) } else { Ok(false) }
    }

    /// The next byte that is no space.
    pub(super) fn peek(&mut self) -> Option<u8> {
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

    fn truth(&mut self) -> Result<bool, JsonError> {
        let value = self.text.get(self.at) == Some(&b't');
        self.word(if value { "true" } else { "false" })?;
        Ok(value)
    }

    /// What is behind the quote.
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
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

    fn digits(&mut self) -> Result<&'a [u8], JsonError> {
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
    fn enter(&mut self, open: u8, expected: &str) -> Result<(), JsonError> {
        if !self.take(open) {
            return Err(self.other(expected));
        }
        self.depth += 1;
        if self.depth == TOO_DEEP { Err(self.fault("too deep")) } else { Ok(()) }
    }

    /// Whether there is one more in it; else goes out of it.
    fn more(&mut self, close: u8, any: &mut bool) -> Result<bool, JsonError> {
        if self.take(close) {
            self.depth -= 1;
            return Ok(false);
        }
        if std::mem::replace(any, true) && (!self.take(b',') || self.peek() == Some(close)) {
            return Err(self.fault("after a comma one more, or an end is expected"));
        }
        Ok(true)
    }

    /// Goes over a value.
    pub fn skip(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'n') => self.word("null"),
            Some(b't' | b'f') => self.truth().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            Some(b'"') => self.text().map(drop),
            Some(b'[') => self.list(&mut Self::skip),
            Some(b'{') => self.object(&mut |reader, _| reader.skip()),
            _ => Err(self.fault("a value is expected")),
        }
    }

    /// What comes is not what is expected.
    #[cold]
    pub(super) fn other(&mut self, expected: &str) -> JsonError {
        match self.found() {
            Ok(found) => self.refuse(&format_args!("invalid type: {found}, expected {expected}")),
            Err(error) => error,
        }
    }

    fn found(&mut self) -> Result<String, JsonError> {
        Ok(match self.peek() {
            Some(b'n') => self.word("null").map(|()| "null".to_owned())?,
            Some(b't' | b'f') => self.truth().map(|value| format!("boolean `{value}`"))?,
            Some(b'-' | b'0'..=b'9') => self.number()?.in_words(),
            Some(b'"') => self.text().map(|text| format!("string “{text}”"))?,
            Some(b'[') => "sequence".to_owned(),
            Some(b'{') => "map".to_owned(),
            Some(_) => return Err(self.fault("a value is expected")),
            None => return Err(self.fault("it ends too early")),
        })
    }
}

impl Number {
    fn in_words(&self) -> String {
        match self {
            Self::Unsigned(value) => format!("integer `{value}`"),
            Self::Signed(value) => format!("integer `{value}`"),
            Self::Fraction => "a fraction".to_owned(),
        }
    }
}
