//! A message as a broker has it, apart from any driver: what is handled is read from this.

use std::sync::Arc;

use bytes::Bytes;

/// A header: its name as it came, and its value, which may be null.
pub type Header = (Box<str>, Option<Bytes>);

/// One message of a partition. A payload that is absent is a tombstone; a header may have no value, either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// Its place in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch, as producer or broker stamped it.
    pub timestamp: Option<i64>,
    /// The key: messages of one key are handled one after the other.
    pub key: Option<Bytes>,
    /// The payload; `None` for a tombstone.
    pub payload: Option<Bytes>,
    /// Headers in their order; a name may occur more than once.
    pub headers: Vec<Header>,
}

impl Message {
    /// A message without key, payload and headers.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32, offset: i64) -> Self {
        Self {
            topic: topic.into(),
            partition,
            offset,
            timestamp: None,
            key: None,
            payload: None,
            headers: Vec::new(),
        }
    }

    /// With this payload.
    #[must_use]
    pub fn with_payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    /// With this key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With this header as well.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// With this header as well, whose value is null.
    #[must_use]
    pub fn with_null_header(mut self, name: &str) -> Self {
        self.headers.push((name.into(), None));
        self
    }

    /// The last value of a header of that name, in any case. A null value is none.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        let mut found = self.headers.iter().rev().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        found.find_map(|(_, value)| value.as_ref())
    }
}
