//! Looks into payloads: what a JSON Pointer (RFC 6901) points at, as the text of a tag.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The string, number or truth value that `pointer` points at, numbers digit by digit as they were sent; `None` for
/// anything else, and where there is nothing.
pub(crate) fn pointed_at(json: &[u8], pointer: &str) -> Option<String> {
    let mut here = std::str::from_utf8(json).ok()?;
    if !pointer.is_empty() {
        for token in pointer.strip_prefix('/')?.split('/') {
            here = Step::into(here, &token.replace("~1", "/").replace("~0", "~"))?;
        }
    }
    match here.trim_ascii().as_bytes().first()? {
        b'"' => serde_json::from_str(here).ok(),
        b'{' | b'[' | b'n' => None,
        _ => serde_json::from_str::<&RawValue>(here).ok().map(|value| value.get().to_owned()),
    }
}

/// One token of a pointer.
struct Step<'t>(&'t str);

impl Step<'_> {
    fn into<'j>(json: &'j str, token: &str) -> Option<&'j str> {
        let mut reader = serde_json::Deserializer::from_str(json);
        reader.deserialize_any(Step(token)).ok().flatten().map(RawValue::get)
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        // The last of equal names counts, as most parsers have it.
        while let Some(Name(name)) = map.next_key()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let plain = self.0 == "0" || !self.0.starts_with('0');
        let wanted = self.0.parse::<usize>().ok().filter(|_| plain);
        let (mut found, mut place) = (None, 0);
        while let Some(value) = seq.next_element::<&RawValue>()? {
            if Some(place) == wanted {
                found = Some(value);
            }
            place += 1;
        }
        Ok(found)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_finds_texts_numbers_and_truth_values_and_nothing_else() {
        let json = br#" {"order": {"id": "A-1", "n": 12345678901234567890.50, "paid": true, "none": null},
                         "a/b": "slash", "m~n": "tilde", "list": [ "zero", {"x": 1} ], "twice": 1, "twice": 2} "#;
        let cases = [
            ("/order/id", Some("A-1")),
            ("/order/n", Some("12345678901234567890.50")),
            ("/order/paid", Some("true")),
            ("/order/none", None),
            ("/order", None),
            ("/order/missing", None),
            ("/order/id/deeper", None),
            ("/a~1b", Some("slash")),
            ("/m~0n", Some("tilde")),
            ("/list/0", Some("zero")),
            ("/list/1/x", Some("1")),
            ("/list/01", None),
            ("/list/2", None),
            ("/twice", Some("2")),
            ("", None),
            ("order", None),
        ];
        for (pointer, expected) in cases {
            assert_eq!(pointed_at(json, pointer).as_deref(), expected, "{pointer}");
        }
        assert_eq!(pointed_at(b"7", "").as_deref(), Some("7"));
        assert_eq!(pointed_at(b"\"a\\u0062\"", "").as_deref(), Some("ab"));
        assert_eq!(pointed_at(b"\xff", "/a"), None);
    }
}
