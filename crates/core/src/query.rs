//! Questions over many records: search, counts, pages.

use crate::audit::{Action, Entry};
use crate::id::{Key, Namespace, Operation, RecordId, Scope, Tag, Version};
use crate::record::{Record, StateName, Text, Times};
use crate::time::Timestamp;

/// Which records. All that is given must hold; newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// In this namespace.
    pub namespace: Option<Namespace>,
    /// In one of these states; empty for any.
    pub states: Vec<StateName>,
    /// Of this operation.
    pub operation: Option<Operation>,
    /// With this key.
    pub key: Option<Key>,
    /// With this tag.
    pub tag: Option<Tag>,
    /// Created at or after.
    pub from: Option<Timestamp>,
    /// Created before.
    pub until: Option<Timestamp>,
}

impl Query {
    /// Whether `record` is one of them.
    pub fn matches(&self, record: &Record) -> bool {
        let request = record.request();
        let created = record.times().created;
        self.namespace.is_none_or(|namespace| request.scope().namespace == namespace)
            && (self.states.is_empty() || self.states.contains(&record.state().name()))
            && self.operation.as_ref().is_none_or(|operation| request.operation() == operation)
            && self.key.as_ref().is_none_or(|key| request.key() == key)
            && self.tag.as_ref().is_none_or(|tag| request.tags().contains(tag))
            && self.from.is_none_or(|from| created >= from)
            && self.until.is_none_or(|until| created < until)
    }
}

/// A place in a listing of records that does not move: the time of creation and the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// When the last record shown was created.
    pub created: Timestamp,
    /// Its id.
    pub id: RecordId,
}

/// What a listing shows of a record: no bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The record's id.
    pub id: RecordId,
    /// Where its key is unique.
    pub scope: Scope,
    /// The key.
    pub key: Key,
    /// The operation.
    pub operation: Operation,
    /// Where it stands.
    pub state: StateName,
    /// Which version was seen.
    pub version: Version,
    /// The number of the last attempt.
    pub attempt: u32,
    /// Whether it was taken in for asynchronous work.
    pub accepted: bool,
    /// When things happened and will.
    pub times: Times,
    /// What the last try said, or the circumstances of an unknown outcome.
    pub error: Option<Text>,
    /// Names to find it by.
    pub tags: Box<[Tag]>,
}

impl Summary {
    /// What a listing shows of this record.
    pub fn of(record: &Record) -> Self {
        let request = record.request();
        Self {
            id: record.id(),
            scope: request.scope().clone(),
            key: request.key().clone(),
            operation: request.operation().clone(),
            state: record.state().name(),
            version: record.version(),
            attempt: record.attempt(),
            accepted: record.accepted(),
            times: *record.times(),
            error: record.error().cloned(),
            tags: request.tags().into(),
        }
    }

    /// Its place in a listing.
    pub fn cursor(&self) -> Cursor {
        Cursor { created: self.times.created, id: self.id }
    }
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, C> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next one begins; `None` on the last.
    pub next: Option<C>,
    /// How many index entries or records were read to make it, for the bench and the curious.
    pub entries_read: u64,
}

/// How many records of an operation are in a state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    /// The namespace.
    pub namespace: Namespace,
    /// The operation.
    pub operation: Operation,
    /// The state.
    pub state: StateName,
    /// How many.
    pub records: u64,
}

/// Which audit entries. All that is given must hold; newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// About this record.
    pub record: Option<RecordId>,
    /// Of this kind.
    pub action: Option<Action>,
    /// Of this operation.
    pub operation: Option<Operation>,
    /// About a record with this key.
    pub key: Option<Key>,
    /// About a record with this tag.
    pub tag: Option<Tag>,
    /// By this actor.
    pub actor: Option<String>,
    /// Linked to this request.
    pub correlation_id: Option<String>,
    /// At or after.
    pub from: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

impl AuditQuery {
    /// Whether `entry` is one of them.
    pub fn matches(&self, entry: &Entry) -> bool {
        let correlation_id = entry.correlation_id.as_ref().map(Text::as_str);
        self.record.is_none_or(|id| entry.record == Some(id))
            && self.action.is_none_or(|action| entry.action == action)
            && (self.operation.is_none() || entry.operation == self.operation)
            && (self.key.is_none() || entry.key == self.key)
            && self.tag.as_ref().is_none_or(|tag| entry.tags.contains(tag))
            && self.actor.as_deref().is_none_or(|actor| entry.actor.as_str() == actor)
            && self.correlation_id.as_deref().is_none_or(|id| correlation_id == Some(id))
            && self.from.is_none_or(|from| entry.at >= from)
            && self.until.is_none_or(|until| entry.at < until)
    }
}

/// A place in the audit log that does not move: the store's own number of the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuditCursor(pub u64);
