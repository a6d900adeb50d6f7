//! Bytes as text (RFC 4648), strictly: for each sequence of bytes there is just one text, so that a text can be
//! compared in place of its bytes. One routine for all alphabets, a table each, for flash is scarce on routers.

/// Base64 with padding, as `wg` writes keys.
pub const BASE64: Base =
    Base::new(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/").padded();
/// Base64 for URLs without padding, as JWS has it (RFC 7515).
pub const BASE64URL: Base = Base::new(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
/// Base32 in lower case without padding.
pub const BASE32: Base = Base::new(b"abcdefghijklmnopqrstuvwxyz234567");
/// Hexadecimal in lower case.
pub const HEX: Base = Base::new(b"0123456789abcdef");

/// Stands in a table for what is no symbol.
const NONE: u8 = 0xff;

/// A way to write bytes as text.
#[derive(Debug)]
pub struct Base {
    symbols: &'static [u8],
    /// The value of each character.
    values: [u8; 256],
    /// A symbol stands for so many.
    bits: u32,
    padded: bool,
}

impl Base {
    const fn new(symbols: &'static [u8]) -> Self {
        let mut values = [NONE; 256];
        let mut value = 0;
        while value < symbols.len() {
            values[symbols[value] as usize] = value as u8;
            value += 1;
        }
        Self { symbols, values, bits: symbols.len().ilog2(), padded: false }
    }

    const fn padded(self) -> Self {
        Self { padded: true, ..self }
    }

    /// The text of `bytes`.
    pub fn encode(&self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len() * 2);
        let (mut held, mut bits) = (0, 0);
        for byte in bytes {
            (held, bits) = (held << 8 | u32::from(*byte), bits + 8);
            while bits >= self.bits {
                bits -= self.bits;
                text.push(self.symbol(held >> bits));
            }
        }
        if bits > 0 {
            text.push(self.symbol(held << (self.bits - bits)));
        }
        while self.padded && !text.len().is_multiple_of(4) {
            text.push('=');
        }
        text
    }

    fn symbol(&self, value: u32) -> char {
        char::from(self.symbols[value as usize % self.symbols.len()])
    }

    /// The bytes whose text this is; `None` where there are none.
    pub fn decode(&self, text: &[u8]) -> Option<Vec<u8>> {
        let text = if self.padded { without_padding(text)? } else { text };
        let mut bytes = Vec::with_capacity(text.len());
        let (mut held, mut bits) = (0, 0);
        for symbol in text {
            let value = self.values[usize::from(*symbol)];
            if value == NONE {
                return None;
            }
            (held, bits) = (held << self.bits | u32::from(value), bits + self.bits);
            if bits >= 8 {
                bits -= 8;
                bytes.push((held >> bits) as u8);
            }
        }
        // What the last byte left over is less than a symbol, and zero: else another text has the same bytes.
        let left = held & ((1 << bits) - 1);
        (bits < self.bits && left == 0).then_some(bytes)
    }
}

fn without_padding(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().rposition(|&b| b != b'=').map_or(0, |last| last + 1);
    (text.len().is_multiple_of(4) && text.len() - end < 3).then(|| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, Encoding, HEXLOWER, Specification};
    use proptest::prelude::*;

    fn references() -> [(Base, Encoding); 4] {
        let mut base32 = Specification::new();
        base32.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
        let base32 = base32.encoding().expect("sound");
        [(BASE64, data_encoding::BASE64), (BASE64URL, BASE64URL_NOPAD), (BASE32, base32), (HEX, HEXLOWER)]
    }

    /// The other library also reads several padded texts in a row as one.
    fn agree(text: &[u8]) {
        let is_one = !text.windows(2).any(|pair| pair[0] == b'=' && pair[1] != b'=');
        for (base, reference) in references() {
            let expected = reference.decode(text).ok().filter(|_| is_one);
            assert_eq!(base.decode(text), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn padding_ends_a_text() {
        agree(b"++pAXNM=i4g/");
        assert_eq!(BASE64.decode(b"++pAXNM=i4g/"), None);
    }

    proptest! {
        #[test]
        fn bytes_are_written_as_another_library_writes_them(bytes: Vec<u8>) {
            for (base, reference) in references() {
                prop_assert_eq!(base.encode(&bytes), reference.encode(&bytes));
                prop_assert_eq!(base.decode(base.encode(&bytes).as_bytes()), Some(bytes.clone()));
            }
        }

        #[test]
        fn any_text_is_read_or_refused_as_by_another_library(text in "([A-Za-z0-9+/_=-]{0,12}|[a-h2-7]{0,17}|[0-9a-f]*|.*)") {
            agree(text.as_bytes());
        }

        #[test]
        fn any_padding_is_read_or_refused_as_by_another_library(bytes in prop::collection::vec(any::<u8>(), 0..5), pad in 0usize..6) {
            agree(&[BASE64_NOPAD.encode(&bytes).as_bytes(), &b"======"[..pad]].concat());
        }
    }

    #[test]
    fn each_end_is_read_or_refused_as_by_another_library() {
        let symbols = b"AQgwBabz024/_=";
        for (a, b, c) in symbols
            .iter()
            .flat_map(|a| symbols.iter().flat_map(move |b| symbols.iter().map(move |c| (*a, *b, *c))))
        {
            for text in [&[a][..], &[a, b], &[a, b, c], &[b'A', a, b, c], &[a, b, c, b'=', b'=']] {
                agree(text);
            }
        }
    }
}
