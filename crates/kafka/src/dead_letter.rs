//! Dead letters: messages that are put aside, as they came, with why; and how they come back.

use std::fmt;

use bytes::Bytes;
use semel_core::RecordId;

use crate::limits;
use crate::message::{Header, Message};

/// What every header of ours on a dead letter begins with.
const PREFIX: &str = "semel-dlq-";
const REASON: &str = "semel-dlq-reason";
const ERROR: &str = "semel-dlq-error";
const ATTEMPTS: &str = "semel-dlq-attempts";
const TOPIC: &str = "semel-dlq-topic";
const PARTITION: &str = "semel-dlq-partition";
const OFFSET: &str = "semel-dlq-offset";
const TIMESTAMP: &str = "semel-dlq-timestamp";
const GROUP: &str = "semel-dlq-group";
const RECORD: &str = "semel-dlq-record";

/// Why a message is put aside. A metric label, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It cannot be read, or has no identity.
    Malformed,
    /// Its tries are spent.
    Failed,
    /// The handler says that no other try can help; or it has said so, or its tries were spent, when the event came before.
    Rejected,
    /// An earlier attempt may have happened, and nobody knows.
    Unknown,
    /// The ledger holds it as dead.
    Dead,
    /// Its identity stands for another event.
    Conflict,
    /// It is larger than the ledger can hold.
    TooLarge,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Malformed,
        Self::Failed,
        Self::Rejected,
        Self::Unknown,
        Self::Dead,
        Self::Conflict,
        Self::TooLarge,
    ];

    /// The name in headers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
            Self::Dead => "dead",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is said of a message that is put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why.
    pub reason: Reason,
    /// In words.
    pub error: String,
    /// Tries that began.
    pub attempts: u32,
    /// The event's record, where it has one.
    pub record: Option<RecordId>,
}

impl DeadLetter {
    /// One that was never tried.
    pub fn new(reason: Reason, error: impl Into<String>) -> Self {
        Self { reason, error: error.into(), attempts: 0, record: None }
    }

    /// The headers with which it is sent: the message's own, byte for byte and in their order, and ours behind them. What
    /// an earlier life as a dead letter has left there gives way.
    pub fn headers(&self, message: &Message, group: &str) -> Vec<Header> {
        let mut headers: Vec<Header> =
            message.headers.iter().filter(|(name, _)| !is_ours(name)).cloned().collect();
        let mut add = |name: &str, value: String| headers.push((name.into(), Some(Bytes::from(value))));
        add(REASON, self.reason.as_str().to_owned());
        add(ERROR, cut(&self.error));
        add(ATTEMPTS, self.attempts.to_string());
        add(TOPIC, message.topic.to_string());
        add(PARTITION, message.partition.to_string());
        add(OFFSET, message.offset.to_string());
        if let Some(timestamp) = message.timestamp {
            add(TIMESTAMP, timestamp.to_string());
        }
        add(GROUP, group.to_owned());
        if let Some(record) = self.record {
            add(RECORD, record.to_string());
        }
        headers
    }
}

/// The dead letter topic of a topic, if nothing else is said.
pub fn topic_of(topic: &str) -> String {
    format!("{topic}{}", limits::DEAD_LETTER_SUFFIX)
}

/// Which dead letter of `group` a message is that was put back into its topic; `None` for all others, as is a dead letter
/// that is read where it lies.
pub(crate) fn replay_of(message: &Message, group: &str) -> Option<String> {
    let text = |name| message.header(name).and_then(|value| std::str::from_utf8(value).ok());
    let is_replay = text(GROUP)? == group && text(TOPIC)? == &*message.topic;
    let (partition, offset): (i32, i64) = (text(PARTITION)?.parse().ok()?, text(OFFSET)?.parse().ok()?);
    is_replay.then(|| format!("{partition}/{offset}"))
}

fn is_ours(name: &str) -> bool {
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(semel_core::limits::TEXT_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn letter(reason: Reason) -> DeadLetter {
        DeadLetter { attempts: 5, ..DeadLetter::new(reason, "it broke") }
    }

    fn event(offset: i64) -> Message {
        Message::new("orders", 3, offset)
            .with_header("ce_specversion", "1.0")
            .with_header("ce_id", "e-1")
            .with_header("ce_source", "/shop")
            .with_header("ce_type", "placed")
    }

    /// As it lies in the dead letter topic of `group`.
    fn dead(message: &Message, group: &str) -> Message {
        let headers = letter(Reason::Failed).headers(message, group);
        Message { headers, topic: "orders.dlq".into(), partition: 0, offset: 0, ..message.clone() }
    }

    #[test]
    fn original_headers_are_kept_with_their_nulls_and_their_order() {
        let message = event(7).with_null_header("b").with_header("a", vec![0xff]).with_header("a", "2");
        let headers = letter(Reason::Failed).headers(&message, "group");
        assert_eq!(headers[..message.headers.len()], message.headers[..]);
        let value = |name: &str| {
            let found = headers.iter().find(|(known, _)| &**known == name);
            found.and_then(|(_, value)| value.clone()).map(|value| String::from_utf8(value.into()).unwrap())
        };
        assert_eq!(value(REASON).unwrap(), "failed");
        assert_eq!(value(ERROR).unwrap(), "it broke");
        assert_eq!(value(ATTEMPTS).unwrap(), "5");
        assert_eq!([value(TOPIC), value(PARTITION), value(OFFSET)].map(Option::unwrap), ["orders", "3", "7"]);
        assert_eq!(value(TIMESTAMP), None);
    }

    #[test]
    fn a_replay_swallowed_by_the_dedupe_is_none_it_is_a_generation_of_its_own_for_its_group() {
        let key = |message: &Message, group| Identity::SourceAndId.of(message, group).unwrap().key;
        let first = event(7);
        let put_back = Message { topic: "orders".into(), partition: 1, offset: 90, ..dead(&first, "a") };
        assert_ne!(key(&put_back, "a"), key(&first, "a"));
        assert_eq!(key(&put_back, "b"), key(&first, "b"), "another group has handled it, or will");
        let twice = Message { offset: 91, ..put_back.clone() };
        assert_eq!(key(&twice, "a"), key(&put_back, "a"), "put back twice, it is handled once");
        let again = Message { topic: "orders".into(), ..dead(&put_back, "a") };
        assert_ne!(
            key(&again, "a"),
            key(&put_back, "a"),
            "and when that has failed, it is put back once more"
        );
        assert_eq!(again.headers.len(), put_back.headers.len(), "headers of ours do not pile up");
        assert_eq!(replay_of(&dead(&first, "a"), "a"), None, "where it lies, it is no replay");
    }

    #[test]
    fn an_error_is_cut_at_a_character() {
        let long = DeadLetter::new(Reason::Failed, "é".repeat(semel_core::limits::TEXT_BYTES_MAX));
        let headers = long.headers(&event(1), "group");
        let (_, error) = headers.iter().find(|(name, _)| &**name == ERROR).unwrap();
        assert_eq!(error.as_ref().unwrap().len(), semel_core::limits::TEXT_BYTES_MAX);
    }
}
