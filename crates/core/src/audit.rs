//! Who did what to which record.

use std::borrow::Cow;

use crate::id::{Key, Operation, RecordId, Tag};
use crate::record::{StateName, Text};
use crate::request::Request;
use crate::time::Timestamp;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names of the audit log say it")]
pub enum Action {
    Accepted,
    Claimed,
    Replayed,
    Mismatch,
    TakenOver,
    Completed,
    Released,
    Unknown,
    Dead,
    Contradicted,
    Resolved,
    Revived,
    Discarded,
    ForcedRelease,
    ConfigurationLoaded,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Accepted,
        Self::Claimed,
        Self::Replayed,
        Self::Mismatch,
        Self::TakenOver,
        Self::Completed,
        Self::Released,
        Self::Unknown,
        Self::Dead,
        Self::Contradicted,
        Self::Resolved,
        Self::Revived,
        Self::Discarded,
        Self::ForcedRelease,
        Self::ConfigurationLoaded,
    ];

    /// The name in stored bytes and APIs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Claimed => "claimed",
            Self::Replayed => "replayed",
            Self::Mismatch => "mismatch",
            Self::TakenOver => "taken_over",
            Self::Completed => "completed",
            Self::Released => "released",
            Self::Unknown => "unknown",
            Self::Dead => "dead",
            Self::Contradicted => "contradicted",
            Self::Resolved => "resolved",
            Self::Revived => "revived",
            Self::Discarded => "discarded",
            Self::ForcedRelease => "forced_release",
            Self::ConfigurationLoaded => "configuration_loaded",
        }
    }

    /// The action of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it happened, in the store's time. Left at zero, it happens as it is written.
    pub at: Timestamp,
    /// What was done.
    pub action: Action,
    /// To which record.
    pub record: Option<RecordId>,
    /// Where it stood.
    pub from: Option<StateName>,
    /// Where it stands since.
    pub to: Option<StateName>,
    /// By whom.
    pub actor: Text,
    /// Why, where somebody has to say.
    pub reason: Option<Text>,
    /// What links it to a request.
    pub correlation_id: Option<Text>,
    /// More, such as `isRetry` and `originalAttemptId`.
    pub metadata: Vec<(Cow<'static, str>, Text)>,
    /// The record's operation. With key and tags it is kept in the entry, which outlives the record.
    pub operation: Option<Operation>,
    /// The record's key.
    pub key: Option<Key>,
    /// The record's tags.
    pub tags: Box<[Tag]>,
}

impl Entry {
    /// An entry of what happens as it is written.
    pub fn new(action: Action, actor: Text) -> Self {
        Self {
            at: Timestamp::ZERO,
            action,
            record: None,
            from: None,
            to: None,
            actor,
            reason: None,
            correlation_id: None,
            metadata: Vec::new(),
            operation: None,
            key: None,
            tags: Box::default(),
        }
    }

    /// About the record of this request: it is found by all that the record is found by.
    #[must_use]
    pub fn about(mut self, request: &Request) -> Self {
        self.record = Some(request.id());
        self.operation = Some(request.operation().clone());
        self.key = Some(request.key().clone());
        self.tags = request.tags().into();
        self
    }

    /// Of what happened at that time.
    #[must_use]
    pub fn at(mut self, at: Timestamp) -> Self {
        self.at = at;
        self
    }

    /// As a store stamps it that writes it `now`, behind an entry of `newest`: with the time at which it happened, as far
    /// as the order of the log allows. It is never of a later time than its writing.
    #[must_use]
    pub fn stamped(self, newest: Timestamp, now: Timestamp) -> Self {
        let happened = if self.at == Timestamp::ZERO { now } else { self.at.min(now) };
        self.at(happened.max(newest))
    }
}
