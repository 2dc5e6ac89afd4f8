//! CloudEvents of Kafka messages, in binary and structured mode (CloudEvents 1.0, Kafka protocol binding 1.0).
//!
//! A reader of our own: whatever a message holds, it is an event or a [`Malformed`] that says why not, and never a panic.
//! Null headers are absent ones, and a message without a payload is an event without data.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use semel_core::error::Invalid;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::message::Message;

/// The prefix of a binary event's attributes among a message's headers.
const PREFIX: &str = "ce_";
/// What a message says of its payload.
const CONTENT_TYPE: &str = "content-type";
/// The media type of structured events, before the name of their format.
const STRUCTURED: &str = "application/cloudevents";

/// How an event stands in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Attributes are headers, the data is the payload.
    Binary,
    /// The payload is the whole event, as JSON.
    Structured,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEvent {
    mode: Mode,
    spec_version: Box<str>,
    id: Box<str>,
    source: Box<str>,
    kind: Box<str>,
    attributes: Vec<(Box<str>, Box<str>)>,
    data: Option<Bytes>,
}

impl CloudEvent {
    /// An event of version 1.0, without data. Draw the id at random (a UUID), or take one that is unique in its source.
    ///
    /// # Errors
    /// One of the three is empty.
    pub fn new(id: &str, source: &str, event_type: &str) -> Result<Self, Malformed> {
        let mut attributes = Attributes::default();
        for (name, value) in [("specversion", "1.0"), ("id", id), ("source", source), ("type", event_type)] {
            attributes.add(name, value)?;
        }
        attributes.into_event(Mode::Binary, None)
    }

    /// With this data, of this media type.
    #[must_use]
    pub fn with_data(mut self, content_type: &str, data: impl Into<Bytes>) -> Self {
        self.data = Some(data.into());
        self.with_attribute("datacontenttype", content_type)
    }

    /// With this attribute in the place of any of its name: one that is not required, or an extension.
    #[must_use]
    pub fn with_attribute(mut self, name: &str, value: &str) -> Self {
        let name = name.to_ascii_lowercase();
        self.attributes.retain(|(known, _)| **known != *name);
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// As a message of a topic, in binary mode; it reads as this event again.
    pub fn to_message(&self, topic: &str) -> Message {
        let mut message = Message::new(topic, 0, 0);
        let own = [
            ("specversion", &*self.spec_version),
            ("id", &*self.id),
            ("source", &*self.source),
            ("type", &*self.kind),
        ];
        for (name, value) in own.into_iter().chain(self.attributes()) {
            let header =
                if name == "datacontenttype" { CONTENT_TYPE.to_owned() } else { format!("{PREFIX}{name}") };
            message = message.with_header(&header, value.to_owned());
        }
        Message { payload: self.data.clone(), ..message }
    }

    /// As JSON, in structured mode: whatever it came in, it reads as this event again. Data that is said to be JSON, and is,
    /// stands there as it is; all else in base64.
    pub fn to_structured(&self) -> Bytes {
        let own = [
            ("specversion", &*self.spec_version),
            ("id", &*self.id),
            ("source", &*self.source),
            ("type", &*self.kind),
        ];
        // Names and texts as JSON has them.
        let member = |(name, value): (&str, &str)| format!("{}:{}", Value::from(name), Value::from(value));
        let mut members: Vec<String> = own.into_iter().chain(self.attributes()).map(member).collect();
        if let Some(data) = &self.data {
            let is_json = self.data_content_type().is_none_or(says_json);
            let text = std::str::from_utf8(data).ok().filter(|text| {
                is_json && *text != "null" && serde_json::from_str::<IgnoredAny>(text).is_ok()
            });
            members.push(match text {
                Some(text) => format!("\"data\":{text}"),
                None => format!("\"data_base64\":\"{}\"", STANDARD.encode(data)),
            });
        }
        format!("{{{}}}", members.join(",")).into()
    }

    /// Its id, unique within its source.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it happened.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What kind of thing happened: the attribute `type`.
    pub fn event_type(&self) -> &str {
        &self.kind
    }

    /// The version of CloudEvents, such as `1.0`.
    pub fn spec_version(&self) -> &str {
        &self.spec_version
    }

    /// What it is about, within its source.
    pub fn subject(&self) -> Option<&str> {
        self.attribute("subject")
    }

    /// When it happened, as its producer wrote it (RFC 3339).
    pub fn time(&self) -> Option<&str> {
        self.attribute("time")
    }

    /// The media type of its data.
    pub fn data_content_type(&self) -> Option<&str> {
        self.attribute("datacontenttype")
    }

    /// An attribute that is not required, or an extension, by its name in lower case.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| &**known == name).map(|(_, value)| &**value)
    }

    /// Attributes beside the four that every event has, in the order in which they came.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.attributes.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Its data, byte for byte; `None` if it has none.
    pub const fn data(&self) -> Option<&Bytes> {
        self.data.as_ref()
    }

    /// How it stood in its message.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Reads the event of a message.
    ///
    /// ```
    /// use semel_kafka::{CloudEvent, Message};
    ///
    /// let message = Message::new("orders.received", 0, 7)
    ///     .with_header("ce_specversion", "1.0")
    ///     .with_header("CE_ID", "8e03978e")
    ///     .with_header("ce_source", "/order-service")
    ///     .with_header("ce_type", "com.wms.OrderReceived")
    ///     .with_null_header("traceparent")
    ///     .with_payload(r#"{"orderId":"ORD-1"}"#);
    /// let event = CloudEvent::read(&message)?;
    /// assert_eq!((event.source(), event.id()), ("/order-service", "8e03978e"));
    /// # Ok::<(), semel_kafka::Malformed>(())
    /// ```
    ///
    /// # Errors
    /// It holds no event that can be read, and why.
    pub fn read(message: &Message) -> Result<Self, Malformed> {
        match format(message)? {
            Format::None => binary(message),
            Format::Json => structured(message),
            Format::Batch => Err(Malformed::new("a batch of events is not a mode of Kafka")),
            Format::Other(name) => {
                Err(Malformed::new(format!("events in the format `{}` cannot be read", shown(&name))))
            }
        }
    }
}

/// Why a message holds no event that can be read. Fit for a log and a header: it repeats little of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(Cow<'static, str>);

impl Malformed {
    pub(crate) fn new(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

impl From<Invalid> for Malformed {
    fn from(invalid: Invalid) -> Self {
        Self(invalid.to_string().into())
    }
}

/// What a message's content type says of its mode.
enum Format {
    /// Nothing: the payload is data.
    None,
    Json,
    Batch,
    Other(String),
}

fn format(message: &Message) -> Result<Format, Malformed> {
    let Some(value) = message.header(CONTENT_TYPE) else { return Ok(Format::None) };
    let Ok(text) = std::str::from_utf8(value) else {
        // Data may be of a type that nobody can read; an event whose type cannot be read may be structured or not.
        let looks_structured = value.get(..STRUCTURED.len());
        return match looks_structured {
            Some(start) if start.eq_ignore_ascii_case(STRUCTURED.as_bytes()) => {
                Err(Malformed::new("the header `content-type` is no text"))
            }
            _ => Ok(Format::None),
        };
    };
    let media_type = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some(rest) = media_type.strip_prefix(STRUCTURED) else { return Ok(Format::None) };
    Ok(match rest {
        "" | "+json" => Format::Json,
        _ if rest.starts_with("-batch") => Format::Batch,
        _ if rest.starts_with('+') => Format::Other(rest[1..].to_owned()),
        // Another media type, whose name only begins alike.
        _ => Format::None,
    })
}

/// Attributes on their way into an event.
#[derive(Default)]
struct Attributes(Vec<(Box<str>, Box<str>)>);

impl Attributes {
    fn add(&mut self, name: &str, value: &str) -> Result<(), Malformed> {
        match self.0.iter().find(|(known, _)| &**known == name) {
            None => self.0.push((name.into(), value.into())),
            Some((_, known)) if &**known == value => {}
            Some(_) => {
                return Err(Malformed::new(format!(
                    "the attribute `{}` is given twice, with two values",
                    shown(name)
                )));
            }
        }
        Ok(())
    }

    fn take(&mut self, name: &'static str) -> Result<Box<str>, Malformed> {
        let place = self.0.iter().position(|(known, _)| &**known == name);
        let (_, value) = place
            .map(|place| self.0.remove(place))
            .ok_or_else(|| Malformed::new(format!("the attribute `{name}` is missing")))?;
        if value.is_empty() {
            return Err(Malformed::new(format!("the attribute `{name}` is empty")));
        }
        Ok(value)
    }

    fn into_event(mut self, mode: Mode, data: Option<Bytes>) -> Result<CloudEvent, Malformed> {
        let spec_version = self.take("specversion")?;
        if !spec_version.starts_with("1.") {
            return Err(Malformed::new(format!(
                "version `{}` of CloudEvents cannot be read",
                shown(&spec_version)
            )));
        }
        Ok(CloudEvent {
            mode,
            spec_version,
            id: self.take("id")?,
            source: self.take("source")?,
            kind: self.take("type")?,
            attributes: self.0,
            data,
        })
    }
}

fn binary(message: &Message) -> Result<CloudEvent, Malformed> {
    let mut attributes = Attributes::default();
    for (name, value) in &message.headers {
        let Some(attribute) = attribute_of(name) else { continue };
        let Some(value) = value else { continue };
        let value = std::str::from_utf8(value)
            .map_err(|_| Malformed::new(format!("the header `{}` is no text", shown(name))))?;
        attributes.add(&attribute, value)?;
    }
    if attributes.0.is_empty() {
        return Err(Malformed::new(
            "it is no CloudEvent: no header begins with `ce_`, and no `content-type` says that it is structured",
        ));
    }
    if let Some(content_type) = message.header(CONTENT_TYPE).and_then(|value| std::str::from_utf8(value).ok())
    {
        attributes.add("datacontenttype", content_type)?;
    }
    attributes.into_event(Mode::Binary, message.payload.clone())
}

/// The attribute that a header stands for, in lower case.
fn attribute_of(header: &str) -> Option<String> {
    let prefix = header.get(..PREFIX.len())?;
    let name = header.get(PREFIX.len()..)?;
    (prefix.eq_ignore_ascii_case(PREFIX) && !name.is_empty()).then(|| name.to_ascii_lowercase())
}

fn structured(message: &Message) -> Result<CloudEvent, Malformed> {
    let payload =
        message.payload.as_ref().ok_or_else(|| Malformed::new("a structured event without a payload"))?;
    let members: Members =
        serde_json::from_slice(payload).map_err(|error| Malformed::new(not_json(&error)))?;
    let (mut attributes, mut data, mut encoded) = (Attributes::default(), None, None);
    for (name, value) in &members.0 {
        match name.as_str() {
            "data" => once(&mut data, value, "data")?,
            "data_base64" => once(&mut encoded, value, "data_base64")?,
            name => match scalar(value) {
                Scalar::Null => {}
                Scalar::Text(text) => attributes.add(name, &text)?,
                Scalar::Nested => {
                    return Err(Malformed::new(format!("the attribute `{}` is no text", shown(name))));
                }
            },
        }
    }
    let data = match (data, encoded) {
        (None, None) => None,
        (Some(value), None) => json_data(value, &attributes),
        (None, Some(value)) => base64_data(value)?,
        (Some(_), Some(_)) => return Err(Malformed::new("it has both `data` and `data_base64`")),
    };
    attributes.into_event(Mode::Structured, data)
}

fn not_json(error: &serde_json::Error) -> String {
    // What serde_json says of a place holds nothing of the document.
    format!("the payload is no JSON object (line {}, column {})", error.line(), error.column())
}

fn once<'a>(
    place: &mut Option<&'a RawValue>,
    value: &'a RawValue,
    name: &'static str,
) -> Result<(), Malformed> {
    if place.replace(value).is_some() {
        return Err(Malformed::new(format!("`{name}` is given twice")));
    }
    Ok(())
}

enum Scalar {
    Null,
    Text(String),
    Nested,
}

/// Attributes are texts, numbers or truth values; in a message's headers all of them are texts.
fn scalar(value: &RawValue) -> Scalar {
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).map_or(Scalar::Nested, Scalar::Text),
        Some(b'{' | b'[') => Scalar::Nested,
        Some(b'n') => Scalar::Null,
        _ => Scalar::Text(raw.to_owned()),
    }
}

/// JSON as it stands; a text that is said to be no JSON, as what it says.
fn json_data(value: &RawValue, attributes: &Attributes) -> Option<Bytes> {
    let raw = value.get();
    if raw == "null" {
        return None;
    }
    let known = attributes.0.iter().find(|(name, _)| &**name == "datacontenttype");
    let is_json = known.is_none_or(|(_, media_type)| says_json(media_type));
    match scalar(value) {
        Scalar::Text(text) if !is_json && raw.starts_with('"') => Some(text.into()),
        Scalar::Text(_) | Scalar::Nested | Scalar::Null => Some(Bytes::copy_from_slice(raw.as_bytes())),
    }
}

fn says_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

fn base64_data(value: &RawValue) -> Result<Option<Bytes>, Malformed> {
    match scalar(value) {
        Scalar::Null => Ok(None),
        Scalar::Text(text) if value.get().starts_with('"') => match STANDARD.decode(text) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(_) => Err(Malformed::new("`data_base64` is no base64")),
        },
        Scalar::Text(_) | Scalar::Nested => Err(Malformed::new("`data_base64` is no text")),
    }
}

/// The members of an object in their order, each value as it stands.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// As much of a name as an error is to repeat.
pub(crate) fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 64;
    let mut shown: String =
        text.chars().take(CHARS_MAX).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Message {
        Message::new("orders", 0, 0)
            .with_header("ce_specversion", "1.0")
            .with_header("ce_id", "e-1")
            .with_header("ce_source", "/shop")
            .with_header("ce_type", "placed")
    }

    fn whole(json: &str, content_type: &str) -> Message {
        Message::new("orders", 0, 0)
            .with_header("Content-Type", content_type.to_owned())
            .with_payload(json.to_owned())
    }

    fn refused(message: &Message) -> String {
        CloudEvent::read(message).unwrap_err().to_string()
    }

    const JSON: &str = "application/cloudevents+json";

    #[test]
    fn binary_attributes_are_read_whatever_the_case_of_their_headers() {
        let message = Message::new("orders", 0, 0)
            .with_header("CE_SPECVERSION", "1.0")
            .with_header("Ce_Id", "e-1")
            .with_header("ce_SOURCE", "/shop")
            .with_header("ce_type", "placed")
            .with_header("ce_Tenant", "acme")
            .with_header("CONTENT-TYPE", "application/json")
            .with_payload("{}");
        let event = CloudEvent::read(&message).unwrap();
        assert_eq!((event.id(), event.source(), event.event_type()), ("e-1", "/shop", "placed"));
        assert_eq!(
            (event.attribute("tenant"), event.data_content_type()),
            (Some("acme"), Some("application/json"))
        );
        assert_eq!((event.mode(), event.data()), (Mode::Binary, Some(&Bytes::from("{}"))));
    }

    #[test]
    fn null_headers_tombstones_and_a_missing_specversion_are_no_panic() {
        let message = event().with_null_header("ce_subject").with_null_header("traceparent");
        let read = CloudEvent::read(&message).unwrap();
        assert_eq!((read.data(), read.subject()), (None, None), "a tombstone is an event without data");
        let message = Message::new("orders", 0, 0).with_null_header("ce_id").with_null_header("content-type");
        assert!(refused(&message).starts_with("it is no CloudEvent"));
        assert!(refused(&Message::new("orders", 0, 0)).starts_with("it is no CloudEvent"));
        let message =
            Message::new("orders", 0, 0).with_header("ce_id", "e-1").with_header("ce_source", "/shop");
        assert_eq!(refused(&message), "the attribute `specversion` is missing");
        assert_eq!(
            refused(&event().with_null_header("ce_id").with_header("ce_type", "other")),
            "the attribute `type` is given twice, with two values"
        );
    }

    #[test]
    fn a_content_type_is_compared_in_any_case_and_with_parameters() {
        let json = r#"{"specversion":"1.0","id":"e-1","source":"/shop","type":"placed","data":{"n":12345678901234567890}}"#;
        for content_type in [JSON, "Application/CloudEvents+JSON; charset=utf-8", "APPLICATION/CLOUDEVENTS"] {
            let event = CloudEvent::read(&whole(json, content_type)).unwrap();
            assert_eq!(event.mode(), Mode::Structured, "{content_type}");
            assert_eq!(event.data(), Some(&Bytes::from(r#"{"n":12345678901234567890}"#)), "byte for byte");
        }
        assert!(refused(&whole("[]", "application/cloudevents-batch+json")).contains("batch"));
        assert!(refused(&whole("[]", "application/CloudEvents-Batch")).contains("batch"));
        assert!(refused(&whole("", "application/cloudevents+avro")).contains("`avro`"));
        assert!(refused(&whole(json, "application/cloudeventsish")).starts_with("it is no CloudEvent"));
    }

    #[test]
    fn structured_data_is_json_text_or_base64() {
        let data = |rest: &str| {
            let json = format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t"{rest}}}"#);
            CloudEvent::read(&whole(&json, JSON)).map(|event| event.data().cloned())
        };
        assert_eq!(data("").unwrap(), None);
        assert_eq!(data(r#","data":null"#).unwrap(), None);
        assert_eq!(data(r#","data":"a""#).unwrap(), Some(Bytes::from("\"a\"")));
        assert_eq!(data(r#","datacontenttype":"text/plain","data":"a""#).unwrap(), Some(Bytes::from("a")));
        assert_eq!(data(r#","data_base64":"AAE=""#).unwrap(), Some(Bytes::from_static(&[0, 1])));
        for wrong in [
            r#","data_base64":"?""#,
            r#","data_base64":1"#,
            r#","data":1,"data_base64":"AAE=""#,
            r#","data":1,"data":2"#,
            r#","id":"2""#,
            r#","subject":{}"#,
        ] {
            assert!(data(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_event_says_why_and_repeats_little() {
        assert_eq!(refused(&whole("{", JSON)), "the payload is no JSON object (line 1, column 1)");
        assert_eq!(
            refused(&Message::new("t", 0, 0).with_header("content-type", JSON)),
            "a structured event without a payload"
        );
        assert_eq!(refused(&event().with_header("ce_x", vec![0xff])), "the header `ce_x` is no text");
        let old = Message::new("t", 0, 0).with_header("ce_specversion", "0.3");
        assert_eq!(refused(&old), "version `0.3` of CloudEvents cannot be read");
        let empty = r#"{"specversion":"1.0","id":"","source":"s","type":"t"}"#;
        assert_eq!(refused(&whole(empty, JSON)), "the attribute `id` is empty");
    }
}
