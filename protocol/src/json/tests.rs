use super::*;
use crate::{json_fields, json_words};
use proptest::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// All that there can be.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    text: String,
    small: u8,
    large: u64,
    flag: bool,
    maybe: Option<u16>,
    #[serde(default)]
    list: Vec<Word>,
    pair: (String, u32),
    #[serde(rename = "type")]
    kind: Inner,
    map: BTreeMap<String, Vec<u64>>,
}
json_fields!(Everything: text, small, large, flag, pair, kind "type", map; maybe, list);

impl Blank for (String, u32) {
    fn blank() -> Self {
        Self::default()
    }
}

impl Blank for BTreeMap<String, Vec<u64>> {
    fn blank() -> Self {
        Self::new()
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Inner {
    strict: Strict,
    #[serde(default)]
    bools: Vec<bool>,
}
json_fields!(Inner: strict; bools);

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Plain,
    TwoWords,
    #[serde(other)]
    Other,
}
json_words!(Word: "plain" Plain, "two-words" TwoWords; Other);

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Strict {
    Yes,
    No,
}
json_words!(Strict: "Yes" Yes, "No" No);

/// Each kind by the way serde derives it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Plain,
    Other,
    Number(u8),
    Named { name: String },
    Pair(u8, String),
}

#[derive(Serialize)]
struct Wrapped(Vec<bool>);

struct Skipped;

impl FromJson for Skipped {
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        reader.skip().map(|()| Self)
    }
}

#[derive(Debug)]
struct Anything(Value);

impl FromJson for Anything {
    fn from_json(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        Ok(Self(match reader.peek() {
            Some(b'"') => reader.text()?.into(),
            Some(b't' | b'f') => reader.bool()?.into(),
            Some(b'[') => Vec::from_json(reader)?.into_iter().map(|Self(one)| one).collect(),
            Some(b'{') => {
                let fields = BTreeMap::<String, Self>::from_json(reader)?.into_iter();
                Value::Object(fields.map(|(key, Self(value))| (key, value)).collect())
            }
            _ => {
                let from = reader.at;
                reader.skip()?;
                serde_json::from_slice(&reader.text[from..reader.at]).expect("a number or null")
            }
        }))
    }
}

fn example() -> Value {
    json!({
        "text": "a \"quoted\" \u{1f980}\n", "small": 200, "large": u64::MAX, "flag": true, "maybe": null,
        "list": ["plain", "two-words", "of a later version"],
        "pair": ["p", 4_000_000_000_u32], "map": {"other": [1, 2], "plain": []},
        "type": {"strict": "No", "bools": [true, false], "unknown": [{"deep": [1.5e3, -2, null]}]},
        "unknown": {"a": [true, "é"]},
    })
}

fn both<T: FromJson + DeserializeOwned + PartialEq + fmt::Debug>(text: &[u8]) -> Result<T, String> {
    let (ours, reference) = (read::<T>(text), serde_json::from_slice::<T>(text));
    match (ours, reference) {
        (Ok(ours), Ok(reference)) => {
            assert_eq!(ours, reference);
            Ok(ours)
        }
        (Err(ours), Err(_)) => Err(ours.to_string()),
        (ours, reference) => panic!("{ours:?} but {reference:?}: {}", String::from_utf8_lossy(text)),
    }
}

#[test]
fn everything_is_read() {
    for text in [example().to_string(), serde_json::to_string_pretty(&example()).unwrap()] {
        let read = both::<Everything>(text.as_bytes()).expect(&text);
        assert_eq!((read.list.len(), read.text.as_str()), (3, "a \"quoted\" \u{1f980}\n"));
    }
    let escaped = br#" "\ud83e\udd80\u00e9\/\b\f\n\r\t\\\"" "#;
    assert_eq!(both::<String>(escaped).unwrap(), "\u{1f980}é/\u{8}\u{c}\n\r\t\\\"");
}

#[test]
fn everything_is_written_as_by_the_reference() {
    let everything: Everything = serde_json::from_value(example()).unwrap();
    assert_eq!(write(&everything).unwrap(), serde_json::to_string(&everything).unwrap());
    let kinds = vec![
        Kind::Plain,
        Kind::Number(7),
        Kind::Named { name: "x".to_owned() },
        Kind::Pair(1, "é\u{1}\u{7f}".to_owned()),
    ];
    let odd = (kinds, Wrapped(vec![true]), -5_i8, 'x', (), Some(()), BTreeMap::from([(7_u8, true)]));
    assert_eq!(write(&odd).unwrap(), serde_json::to_string(&odd).unwrap());
    let keys = BTreeMap::from([(Kind::Plain, 1), (Kind::Other, 2)]);
    assert_eq!(write(&keys).unwrap(), serde_json::to_string(&keys).unwrap());
    assert!(write(&1.5_f64).is_err() && write(&BTreeMap::from([(Some("a"), 1)])).is_ok());
    assert!(write(&BTreeMap::from([(vec![1], 1)])).is_err());
}

#[test]
fn what_is_wrong_is_said_and_where() {
    for (text, said) in [
        ("", "it ends too early, at byte 0"),
        ("{\"text\": 5}", "invalid type: integer `5`, expected a string, at byte 10"),
        ("{\"text\": \"a\", \"small\": 256}", "invalid value: integer `256`, expected u8"),
        ("{\"text\": \"a\", \"small\": \"x\"}", "invalid type: string “x”, expected u8"),
        ("{\"text\": \"a\", \"small\": 1.5}", "invalid type: a fraction, expected u8"),
        ("{\"text\": \"a\"}", "missing field `small`"),
        ("{\"text\": \"a\", \"text\": \"a\"}", "duplicate field `text`"),
        ("[]", "invalid type: sequence, expected an object"),
        ("{\"text\": \"a\" \"small\"", "after a comma"),
        ("{\"text\": \"\\ud800\"}", "a value is expected"),
        ("{\"text\": \"\\u12\"}", "four hexadecimal digits"),
        ("{\"text\": \"\n\"}", "control character"),
    ] {
        let error = read::<Everything>(text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
    assert!(
        both::<Strict>(b"\"no\"").unwrap_err().contains("unknown variant `no`, expected one of `Yes`, `No`")
    );
    assert!(both::<Inner>(b"{\"bools\": []}").unwrap_err().contains("missing field `strict`, at byte 13"));
    assert!(both::<u8>(b"1 2").unwrap_err().contains("more behind the end"));
    assert!(both::<(u8, u8)>(b"[1,2,3]").unwrap_err().contains("more than is expected"));
    assert!(both::<(u8, u8)>(b"[1]").unwrap_err().contains("less than is expected"));
    assert!(both::<Vec<u8>>(b"[1,]").is_err());
    assert!(both::<String>(b"\"\xff\"").is_err());
}

#[test]
fn nothing_is_too_deep_for_the_stack() {
    for depth in [1, 100, 127, 128, 100_000] {
        let text = "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(read::<Skipped>(text.as_bytes()).is_ok(), depth < 128, "{depth}");
    }
}

#[test]
fn numbers_are_those_of_the_standard() {
    for text in [
        "0",
        "-0",
        "00",
        "01",
        "-1",
        "-",
        "1.",
        "1.5",
        ".5",
        "1e5",
        "1e",
        "1e+5",
        "1e+",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "+1",
        "0x1",
        "1_000",
        "- 1",
    ] {
        let _ = both::<u64>(text.as_bytes());
        let _ = both::<u8>(text.as_bytes());
        let _ = both::<Option<u64>>(text.as_bytes());
        let ours = read::<Skipped>(text.as_bytes()).is_ok();
        assert_eq!(ours, serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(), "{text}");
    }
}

/// JSON as no one in their right mind sends it.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".*".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(".*", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_read_as_by_the_reference(value in any_json()) {
        let text = value.to_string();
        prop_assert_eq!(&read::<Anything>(text.as_bytes()).expect("JSON").0, &value);
        prop_assert!(read::<Skipped>(text.as_bytes()).is_ok());
        prop_assert_eq!(write(&value).expect("JSON"), text);
    }

    #[test]
    fn what_is_damaged_is_refused_where_the_reference_does(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), insert in any::<bool>()
    ) {
        let mut text = example().to_string().into_bytes();
        let at = at.index(text.len());
        if insert { text.insert(at, byte) } else { text[at] = byte }
        let (ours, reference) = (read::<Everything>(&text), serde_json::from_slice::<Everything>(&text));
        // What is skipped is looked at more closely here.
        prop_assert!(ours.is_err() || reference.is_ok(), "{}", String::from_utf8_lossy(&text));
        if let (Ok(ours), Ok(reference)) = (&ours, &reference) {
            prop_assert_eq!(ours, reference);
        }
        if std::str::from_utf8(&text).is_ok() && !text.contains(&b'\\') {
            prop_assert_eq!(ours.is_ok(), reference.is_ok(), "{}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(text in any::<Vec<u8>>(), head in "[{\\[\":,0-9tfn \\\\u]{0,40}") {
        let text = [head.as_bytes(), &text].concat();
        let _ = read::<Everything>(&text);
        let _ = read::<Anything>(&text);
        let ours = read::<Skipped>(head.as_bytes());
        prop_assert!(ours.is_err() || serde_json::from_str::<serde::de::IgnoredAny>(&head).is_ok());
    }
}
