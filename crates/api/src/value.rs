//! Values that several bodies share: points in time, JSON as it came, content that may not be JSON.

use std::collections::BTreeMap;
use std::fmt;

use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A point in time: RFC 3339, UTC, with milliseconds, such as `2026-11-21T04:30:00.000Z`. Read with any offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The point this many milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Reads RFC 3339 with any offset. `None` if it is not that, or lies before the epoch.
    pub fn parse(text: &str) -> Option<Self> {
        let time: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(time.as_millisecond()).ok().map(Self)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Past the year 9999 there is no RFC 3339; the last moment before it stands for "never".
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{time:.3}")
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("expected a time such as 2026-11-21T04:30:00.000Z"))
    }
}

/// Any JSON, as the text that came: neither its numbers nor the order of its names change on the way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// This text, if it is one JSON value.
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().map(Self)
    }

    /// These bytes, if they are one JSON value.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().map(Self)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// Content that is not JSON, where JSON would stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Its media type.
    pub content_type: String,
    /// Its bytes, in base64 (RFC 4648, section 4).
    #[serde(with = "base64_bytes")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, content_encoding = "base64"))]
    pub body_base64: Vec<u8>,
}

pub(crate) mod base64_bytes {
    //! Bytes as base64 text.

    use base64::Engine as _;
    use serde::de::Error as _;

    use super::{Deserialize, Deserializer, STANDARD, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map_err(|_| D::Error::custom("expected base64"))
    }
}

impl Content {
    /// A body as the wire shows it where JSON would stand: as it is if it is JSON, else with its type.
    pub fn json_or_base64(content_type: Option<&str>, body: &[u8]) -> Option<Json> {
        match Self::as_json(content_type, body) {
            Some(json) => Json::from_text(json),
            None => Self::wrapped(content_type, body),
        }
    }

    /// The body's own text, if it is JSON and is not said to be something else.
    pub fn as_json<'a>(content_type: Option<&str>, body: &'a [u8]) -> Option<&'a str> {
        if !content_type.is_none_or(is_json) {
            return None;
        }
        serde_json::from_slice::<&RawValue>(body).ok().map(RawValue::get)
    }

    /// A body with its type, as the wire shows what is not JSON.
    pub fn wrapped(content_type: Option<&str>, body: &[u8]) -> Option<Json> {
        let content = Self {
            content_type: content_type.unwrap_or("application/octet-stream").to_owned(),
            body_base64: body.to_vec(),
        };
        serde_json::value::to_raw_value(&content).ok().map(Json)
    }
}

/// Whether a media type is JSON's (RFC 8259, and the `+json` suffix of RFC 6839). Compared without case.
pub(crate) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence.len() > 5 && essence.as_bytes()[essence.len() - 5..].eq_ignore_ascii_case(b"+json")
}

/// Reads names as a list, or as one text with commas between them, as a query string has them.
pub(crate) fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Names;

    impl<'de> serde::de::Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of at least one name, or one text of such with commas")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            named(separated(text), &self)
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
            named(Vec::deserialize(serde::de::value::SeqAccessDeserializer::new(list))?, &self)
        }
    }

    /// None at all would be read as no condition, and a filter be wider than whoever wrote it believes.
    fn named<E: serde::de::Error>(names: Vec<String>, expected: &Names) -> Result<Vec<String>, E> {
        if names.is_empty() { Err(E::invalid_length(0, expected)) } else { Ok(names) }
    }

    deserializer.deserialize_any(Names)
}

/// Reads names with their values, each name once: of two values of one name, nobody could say which was meant.
pub(crate) fn unique_names<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    struct Unique;

    impl<'de> serde::de::Visitor<'de> for Unique {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut read = BTreeMap::new();
            while let Some((name, value)) = map.next_entry()? {
                if read.insert(name, value).is_some() {
                    // (The name is the sender's, and is not repeated.)
                    return Err(serde::de::Error::custom("has a name twice"));
                }
            }
            Ok(read)
        }
    }

    deserializer.deserialize_map(Unique)
}

/// The names of a text with commas between them.
pub fn separated(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_with_milliseconds_and_read_with_any_offset() {
        let time = Time::from_millis(1_795_235_400_007);
        assert_eq!(time.to_string(), "2026-11-21T04:30:00.007Z");
        assert_eq!(Time::parse("2026-11-21T05:30:00.007+01:00"), Some(time));
        assert_eq!(Time::parse("2026-11-21"), None);
        assert_eq!(Time::parse("1969-12-31T23:59:59Z"), None);
        assert_eq!(Time::from_millis(u64::MAX).to_string(), "9999-12-30T22:00:00.999Z");
    }

    #[test]
    fn numbers_over_2_to_the_53_and_the_order_of_names_survive() {
        let text = r#"{"b":9007199254740993,"a":1.10}"#;
        let json: Json = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&json).unwrap(), text);
    }

    #[test]
    fn what_is_not_json_is_wrapped_and_what_only_looks_like_it_too() {
        let wrapped = Content::json_or_base64(Some("text/plain"), b"1").unwrap();
        assert_eq!(wrapped.as_str(), r#"{"content_type":"text/plain","body_base64":"MQ=="}"#);
        let broken = Content::json_or_base64(Some("application/json"), b"{").unwrap();
        assert_eq!(broken.as_str(), r#"{"content_type":"application/json","body_base64":"ew=="}"#);
        let suffixed =
            Content::json_or_base64(Some("Application/Problem+JSON; charset=utf-8"), b"{}").unwrap();
        assert_eq!(suffixed.as_str(), "{}");
        let untyped = Content::json_or_base64(None, b"[1]").unwrap();
        assert_eq!(untyped.as_str(), "[1]");
    }
}
