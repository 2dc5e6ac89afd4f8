//! What makes two messages one event, and the key and scope under which the ledger keeps it.

use semel_core::Key;
use semel_core::error::Invalid;
use semel_core::id::{Namespace, Scope, Subject, Tenant};
use serde_json::Value;

use crate::cloud_event::{CloudEvent, Malformed, shown};
use crate::dead_letter;
use crate::message::Message;

/// What makes two messages of a topic one event, for a consumer group.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Identity {
    /// Their CloudEvents have the same `source` and `id`: what is unique by the rules of CloudEvents.
    #[default]
    SourceAndId,
    /// Their CloudEvents have the same `id`, whatever its source: the WMS guide's rule. Only for producers that draw
    /// their ids at random.
    Id,
    /// They have a header of this name (in any case) with the same value. They need be no CloudEvents.
    Header(String),
    /// Their payloads are JSON with the same scalar at this JSON Pointer. They need be no CloudEvents.
    Pointer(String),
    /// They are the same message: what is delivered again is a duplicate, and what a producer sends again is not.
    Offset,
}

/// A message as it was read: its event, where it is one or has to be, and its key in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identified {
    /// The event, if the message holds one.
    pub event: Option<CloudEvent>,
    /// The key of the event in the scope of topic and group.
    pub key: Key,
}

impl Identity {
    /// Reads a message that a group consumes.
    ///
    /// # Errors
    /// It has no identity: an absent one is never read as an empty one, or every later message would be a duplicate.
    pub fn of(&self, message: &Message, group: &str) -> Result<Identified, Malformed> {
        let event = CloudEvent::read(message);
        let (kind, parts) = match self {
            Self::SourceAndId => {
                let event = event.as_ref().map_err(Clone::clone)?;
                ("ce", vec![event.source().to_owned(), event.id().to_owned()])
            }
            Self::Id => ("id", vec![event.as_ref().map_err(Clone::clone)?.id().to_owned()]),
            Self::Header(name) => ("header", vec![header(message, name)?]),
            Self::Pointer(pointer) => ("pointer", vec![pointed_at(message, pointer)?]),
            Self::Offset => ("offset", vec![message.partition.to_string(), message.offset.to_string()]),
        };
        let mut text = framed(kind, &parts);
        // A dead letter that was put back is the same event, once more: a generation of its own, for the group whose
        // dead letter it was. To every other group it is what it always was.
        if let Some(replay) = dead_letter::replay_of(message, group) {
            text.push_str(&framed(" replay", &[replay]));
        }
        Ok(Identified { event: event.ok(), key: key(kind, &text)? })
    }
}

/// The scope of a topic's events for a group: two groups both handle an event. A topic's name holds no slash, so that no
/// two pairs are one.
///
/// # Errors
/// A name is too long, or holds a control character.
pub fn scope(tenant: &str, topic: &str, group: &str) -> Result<Scope, Invalid> {
    Ok(Scope {
        namespace: Namespace::Topic,
        tenant: Tenant::try_new(tenant)?,
        subject: Some(Subject::try_new(&format!("{topic}/{group}"))?),
    })
}

/// The parts behind their lengths, so that `ab`+`c` is not `a`+`bc`.
fn framed(kind: &str, parts: &[String]) -> String {
    let framed = parts.iter().map(|part| format!(":{}:{part}", part.len()));
    std::iter::once(kind.to_owned()).chain(framed).collect()
}

/// The text as a key; by its digest where it is none. No kind begins with `#`.
fn key(kind: &str, text: &str) -> Result<Key, Malformed> {
    let hashed = |_| Key::try_new(&format!("#{kind}:{}", blake3::hash(text.as_bytes()).to_hex()));
    Key::try_new(text).or_else(hashed).map_err(|invalid| Malformed::new(invalid.to_string()))
}

fn header(message: &Message, name: &str) -> Result<String, Malformed> {
    let missing = |what| Malformed::new(format!("the header `{}`, which identifies it, {what}", shown(name)));
    let value = message.header(name).ok_or_else(|| missing("is missing"))?;
    if value.is_empty() {
        return Err(missing("is empty"));
    }
    // Bytes that are no text are told apart by their digest.
    Ok(match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("\0{}", blake3::hash(value).to_hex()),
    })
}

fn pointed_at(message: &Message, pointer: &str) -> Result<String, Malformed> {
    let wrong = |what| Malformed::new(format!("its identity at `{}` {what}", shown(pointer)));
    let payload = message.payload.as_ref().ok_or_else(|| wrong("is missing: it is a tombstone"))?;
    let payload: Value = serde_json::from_slice(payload).map_err(|_| wrong("is missing: it is no JSON"))?;
    match payload.pointer(pointer) {
        None | Some(Value::Null) => Err(wrong("is missing")),
        Some(Value::String(text)) if text.is_empty() => Err(wrong("is empty")),
        // A text is not the number that looks like it.
        Some(scalar @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => Ok(scalar.to_string()),
        Some(Value::Array(_) | Value::Object(_)) => Err(wrong("is neither text nor number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use semel_core::RecordId;

    fn event(source: &str, id: &str) -> Message {
        Message::new("orders", 0, 0)
            .with_header("ce_specversion", "1.0")
            .with_header("ce_id", id.to_owned())
            .with_header("ce_source", source.to_owned())
            .with_header("ce_type", "placed")
    }

    fn key_of(identity: &Identity, message: &Message) -> Result<String, String> {
        let identified = identity.of(message, "group").map_err(|error| error.to_string())?;
        Ok(identified.key.as_str().to_owned())
    }

    #[test]
    fn a_cloud_events_id_without_its_source_would_drop_messages_of_another() {
        let identity = Identity::SourceAndId;
        let key = |source, id| key_of(&identity, &event(source, id)).unwrap();
        assert_ne!(key("/a", "1"), key("/b", "1"));
        assert_ne!(key("/a", "b1"), key("/ab", "1"), "framed");
        assert_eq!(key("/a", "1"), key("/a", "1"));
        let id = |source, id| key_of(&Identity::Id, &event(source, id)).unwrap();
        assert_eq!(id("/a", "1"), id("/b", "1"), "the WMS guide's rule");
    }

    #[test]
    fn a_key_without_the_topic_or_the_group_would_drop_messages_of_another() {
        let key = Key::try_new("1").unwrap();
        let id = |topic, group| RecordId::of(&scope("default", topic, group).unwrap(), &key);
        assert_ne!(id("orders", "a"), id("orders", "b"));
        assert_ne!(id("orders", "a"), id("returns", "a"));
        assert_ne!(id("a", "b/c"), id("a-b", "c"));
    }

    #[test]
    fn a_missing_identity_is_malformed_and_never_empty() {
        let header = Identity::Header("X-Message-Id".to_owned());
        let message = Message::new("orders", 0, 0);
        let wrong = "the header `X-Message-Id`, which identifies it,";
        assert_eq!(key_of(&header, &message).unwrap_err(), format!("{wrong} is missing"));
        assert!(key_of(&header, &message.clone().with_null_header("x-message-id")).is_err());
        let empty = message.clone().with_header("x-message-id", "");
        assert_eq!(key_of(&header, &empty).unwrap_err(), format!("{wrong} is empty"));
        assert_eq!(key_of(&header, &message.clone().with_header("x-message-id", "7")).unwrap(), "header:1:7");

        let pointer = Identity::Pointer("/order/id".to_owned());
        for payload in
            ["", "{}", r#"{"order":{"id":null}}"#, r#"{"order":{"id":""}}"#, r#"{"order":{"id":[]}}"#]
        {
            assert!(key_of(&pointer, &message.clone().with_payload(payload)).is_err(), "{payload}");
        }
        assert!(key_of(&pointer, &message).unwrap_err().contains("tombstone"));
        let at = |payload: &'static str| key_of(&pointer, &message.clone().with_payload(payload)).unwrap();
        assert_ne!(at(r#"{"order":{"id":7}}"#), at(r#"{"order":{"id":"7"}}"#));
    }

    #[test]
    fn without_the_partition_an_offset_would_drop_messages_of_another() {
        let at = |partition, offset| {
            key_of(&Identity::Offset, &Message::new("orders", partition, offset)).unwrap()
        };
        assert_ne!(at(0, 1), at(1, 1));
        assert_ne!(at(1, 11), at(11, 1));
        assert_eq!(at(1, 1), at(1, 1));
    }

    #[test]
    fn what_no_key_can_hold_is_told_apart_by_its_digest() {
        let long = |last| format!("{}{last}", "x".repeat(300));
        let key = |id: &str| key_of(&Identity::SourceAndId, &event("/a", id)).unwrap();
        assert!(key(&long("1")).starts_with("#ce:"));
        assert_ne!(key(&long("1")), key(&long("2")));
        assert_ne!(key("a\u{1}"), key("a\u{2}"));
        assert_eq!(key(&long("1")), key(&long("1")));
        let id =
            |value| key_of(&Identity::Header("id".into()), &Message::new("t", 0, 0).with_header("id", value));
        assert_ne!(id(vec![0xff]).unwrap(), id(vec![0xfe]).unwrap());
    }
}
