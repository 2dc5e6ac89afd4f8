//! Places in a JSON document, found in the bytes that were signed: nothing is parsed into values and written again,
//! so that numbers keep their digits, and a name that is there twice is seen.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{ConfigError, Problem};

/// A JSON Pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    text: Box<str>,
    tokens: Vec<Box<str>>,
}

impl Pointer {
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = || ConfigError::new(format!("{text:?}"), Problem::NotAPointer);
        let tokens = text.strip_prefix('/').ok_or_else(wrong)?;
        let tokens =
            tokens.split('/').map(|token| unescape(token).ok_or_else(wrong)).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), tokens })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

fn unescape(token: &str) -> Option<Box<str>> {
    let mut parts = token.split('~');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escaped, rest) = if let Some(rest) = part.strip_prefix('0') {
            ('~', rest)
        } else {
            ('/', part.strip_prefix('1')?)
        };
        text.push(escaped);
        text.push_str(rest);
    }
    Some(text.into())
}

/// Why there is nothing to be had at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonProblem {
    /// The document is no JSON.
    Malformed,
    /// A name on the way is there twice: two readers may see two values.
    Repeated,
    /// There is an object or an array where a value belongs.
    NotScalar,
}

/// The document, checked to be one.
#[derive(Clone, Copy)]
pub(crate) struct Document<'a>(&'a RawValue);

impl<'a> Document<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, JsonProblem> {
        serde_json::from_slice(body).map(Self).map_err(|_| JsonProblem::Malformed)
    }

    /// Its text.
    pub(crate) fn text(self) -> &'a str {
        self.0.get()
    }

    /// What lies at a place; `None` where there is nothing, or null.
    pub(crate) fn at(self, pointer: &Pointer) -> Result<Option<Document<'a>>, JsonProblem> {
        let mut here = self;
        for token in &pointer.tokens {
            match here.child(token)? {
                Some(child) => here = child,
                None => return Ok(None),
            }
        }
        Ok((here.text() != "null").then_some(here))
    }

    /// The member of an object, or the element of an array.
    pub(crate) fn child(self, name: &str) -> Result<Option<Document<'a>>, JsonProblem> {
        let mut deserializer = serde_json::Deserializer::from_str(self.text());
        match Child(name).deserialize(&mut deserializer) {
            Ok(Found::One(child)) => Ok(Some(Document(child))),
            Ok(Found::None) => Ok(None),
            Ok(Found::Twice) => Err(JsonProblem::Repeated),
            Err(_) => Err(JsonProblem::Malformed),
        }
    }

    /// The elements of an array.
    pub(crate) fn elements(self) -> Result<Vec<Document<'a>>, JsonProblem> {
        let elements: Vec<&'a RawValue> =
            serde_json::from_str(self.text()).map_err(|_| JsonProblem::NotScalar)?;
        Ok(elements.into_iter().map(Document).collect())
    }

    /// The text of a string, the digits of a number as they stand there, or `true` or `false`.
    pub(crate) fn scalar(self) -> Result<Cow<'a, str>, JsonProblem> {
        match self.text().as_bytes().first() {
            Some(b'"') => {
                let text: String = serde_json::from_str(self.text()).map_err(|_| JsonProblem::Malformed)?;
                Ok(Cow::Owned(text))
            }
            Some(b'{' | b'[') | None => Err(JsonProblem::NotScalar),
            Some(_) => Ok(Cow::Borrowed(self.text())),
        }
    }
}

enum Found<'a> {
    None,
    One(&'a RawValue),
    Twice,
}

struct Child<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Child<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Child<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
        let mut found = Found::None;
        while let Some(is_it) = map.next_key_seed(Name(self.0))? {
            if !is_it {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value()?;
            found = match found {
                Found::None => Found::One(value),
                Found::One(_) | Found::Twice => Found::Twice,
            };
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Found<'de>, A::Error> {
        // RFC 6901: digits without a leading zero.
        let digits = !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_digit());
        let wanted: Option<usize> =
            (digits && (self.0 == "0" || !self.0.starts_with('0'))).then(|| self.0.parse().ok()).flatten();
        let mut found = Found::None;
        let mut at = 0;
        while let Some(value) = seq.next_element()? {
            if wanted == Some(at) {
                found = Found::One(value);
            }
            at += 1;
        }
        Ok(found)
    }

    fn visit_str<E>(self, _: &str) -> Result<Found<'de>, E> {
        Ok(Found::None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found<'de>, E> {
        Ok(Found::None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found<'de>, E> {
        Ok(Found::None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found<'de>, E> {
        Ok(Found::None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found<'de>, E> {
        Ok(Found::None)
    }

    fn visit_unit<E>(self) -> Result<Found<'de>, E> {
        Ok(Found::None)
    }
}

/// Whether a member's name is this one; compared after its escapes were read.
struct Name<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, pointer: &str, expected: Result<Option<&str>, JsonProblem>) {
        let pointer = Pointer::parse(pointer).unwrap();
        let found = Document::parse(body.as_bytes())
            .and_then(|document| document.at(&pointer))
            .and_then(|found| found.map(Document::scalar).transpose());
        assert_eq!(
            found.as_ref().map(|found| found.as_deref()).map_err(|problem| *problem),
            expected,
            "{body}"
        );
    }

    #[test]
    fn a_place_is_found_with_the_digits_that_stand_there() {
        check(r#"{"a":{"b":"x"}}"#, "/a/b", Ok(Some("x")));
        check(r#"{"a":[0,{"b":true}]}"#, "/a/1/b", Ok(Some("true")));
        check(r#"{"id":9007199254740993}"#, "/id", Ok(Some("9007199254740993")));
        check(r#"{"id":1e2}"#, "/id", Ok(Some("1e2")));
        check(r#"{"id":"a\u0062\n"}"#, "/id", Ok(Some("ab\n")));
        check(r#"{"a/b":{"~":1}}"#, "/a~1b/~0", Ok(Some("1")));
        check(r#"{"\u0069d":7}"#, "/id", Ok(Some("7")));
        check(r#"{"":1}"#, "/", Ok(Some("1")));
    }

    #[test]
    fn nothing_is_there_where_nothing_is() {
        check(r#"{"a":null}"#, "/a", Ok(None));
        check(r#"{"a":1}"#, "/b", Ok(None));
        check(r#"{"a":"x"}"#, "/a/b", Ok(None));
        check(r#"{"a":[1]}"#, "/a/1", Ok(None));
        check(r#"{"a":[1]}"#, "/a/00", Ok(None));
        check(r#"{"a":[1]}"#, "/a/-", Ok(None));
        for scalar in ["1", "-1", "1.5", "true", "null", r#""x""#] {
            check(scalar, "/a", Ok(None));
        }
    }

    #[test]
    fn what_two_readers_may_read_differently_is_not_read() {
        check(r#"{"id":1,"id":2}"#, "/id", Err(JsonProblem::Repeated));
        check(r#"{"id":1,"\u0069d":1}"#, "/id", Err(JsonProblem::Repeated));
        check(r#"{"a":{"id":1},"a":{}}"#, "/a/id", Err(JsonProblem::Repeated));
        check(r#"{"a":1,"a":2,"id":3}"#, "/id", Ok(Some("3")));
        check(r#"{"id":{}}"#, "/id", Err(JsonProblem::NotScalar));
        check(r#"{"id":[]}"#, "/id", Err(JsonProblem::NotScalar));
        for body in ["", "{", "{}x", r#"{"id":1}{"id":2}"#, "\u{feff}{}"] {
            check(body, "/id", Err(JsonProblem::Malformed));
        }
        assert_eq!(Document::parse(b"{\"id\":\"\xff\"}").err(), Some(JsonProblem::Malformed));
    }

    #[test]
    fn deep_documents_are_no_harm() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let body = format!(r#"{{"deep":{deep},"id":"x"}}"#);
        check(&body, "/id", Ok(Some("x")));
    }

    #[test]
    fn a_pointer_is_one_of_rfc_6901() {
        for wrong in ["", "a", "a/b", "/~", "/~2", "/a~"] {
            assert!(Pointer::parse(wrong).is_err(), "{wrong}");
        }
    }
}
