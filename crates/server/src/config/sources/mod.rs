//! What webhooks are told: which partners send, how that is proved, where their events go; and where alerts go.
//!
//! A source that exists here can verify, and each of its targets is an operation of the engine by itself, with a queue,
//! a schedule and a policy of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, Uri};
use semel_core::id::TagName;
use semel_webhook::{Signer, Source, Statuses};

use super::{OperationConfig, RateLimit};

pub(super) mod consumers;
mod generic;
pub(super) mod read;
mod secrets;
mod targets;
#[cfg(test)]
mod tests;

pub use consumers::ConsumerConfig;
pub use read::{ORDER_TAG, SAMPLE, SAMPLE_HEADER, SAMPLE_TOKEN};

/// Whether Semel gives an operation this name itself: a configured one of that name could be run by a client.
pub(in crate::config) fn is_reserved(name: &str) -> bool {
    name == ALERTS || name.starts_with("webhook:") || name.starts_with(consumers::CONSUMER)
}

/// A partner's inbound address, and what is done with what comes there.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Who may send there, how that is proved, and which event it is. Its name is unique.
    pub source: Arc<Source>,
    /// Where each event goes: at least one, unique by name.
    pub targets: Vec<SourceTarget>,
    /// How long identities are kept, from the end of the event's delivery.
    pub retention: Duration,
    /// What is done with a duplicate, besides answering it.
    pub duplicates: Duplicates,
    /// What is answered when an identity comes with another body: 200 or 409.
    pub conflict_status: StatusCode,
    /// What is answered to what was taken in, and to a duplicate of it.
    pub response: SourceResponse,
    /// JSON Pointer to the value of which events are delivered one at a time, in the order they came.
    pub order_by: Option<String>,
    /// Tags of its records besides Semel's own: a name, and the JSON Pointer into the body.
    pub tags: Vec<(TagName, String)>,
    /// Settled identities that this process remembers, so that their duplicates do not touch the store; 0: none.
    pub cache_entries: usize,
    /// Bytes of a delivery's body.
    pub body_bytes_max: usize,
    /// How often it may come.
    pub rate_limit: Option<RateLimit>,
}

/// What is done with a duplicate, besides answering it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicates {
    /// It is filed among the dead letters, as a record of its own.
    pub dead_letter: bool,
    /// Somebody is told.
    pub alert: bool,
}

/// What a partner is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceResponse {
    /// The status: a success, or the partner would send again.
    pub status: StatusCode,
    /// The type of the body, where there is one.
    pub content_type: Option<HeaderValue>,
    /// The body.
    pub body: Bytes,
}

/// Where events of a source go.
#[derive(Clone, Debug)]
pub struct SourceTarget {
    /// Its name within the source; `default` where the source has one target without a name.
    pub name: Arc<str>,
    /// What the engine runs for it, by the name `webhook:<source>/<target>`, which is its lane as well.
    pub operation: OperationConfig,
}

/// A place that something signed is delivered to.
#[derive(Clone, Debug)]
pub struct DeliveryTarget {
    /// The source whose events these are.
    pub source: Arc<str>,
    /// Its name within the source.
    pub name: Arc<str>,
    /// The address.
    pub url: Uri,
    /// Signs every try, where it has a secret.
    pub signer: Option<Arc<Signer>>,
    /// Which of its answers are final.
    pub statuses: Statuses,
    /// Whether records with the same tag [`ORDER_TAG`] are delivered one at a time.
    pub ordered: bool,
}

impl PartialEq for DeliveryTarget {
    /// The same place under the same name. Secrets are not compared: to tell which target it is, they are not needed.
    fn eq(&self, other: &Self) -> bool {
        (&self.source, &self.name, &self.url) == (&other.source, &other.name, &other.url)
    }
}

impl Eq for DeliveryTarget {}

/// Where the server itself says what somebody should look at.
#[derive(Clone, Debug)]
pub struct AlertsConfig {
    /// What is sent.
    pub format: AlertFormat,
    /// Which kinds are told of.
    pub on: Vec<AlertKind>,
    /// One alert at most of a kind and a source in this time: a storm is one alert.
    pub every: Duration,
    /// What the engine runs to deliver them, by the name [`ALERTS`].
    pub operation: OperationConfig,
}

/// The operation and the lane of alerts. No source's can have this name: theirs begin with `webhook:`.
pub const ALERTS: &str = "alerts";

/// What an alert looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertFormat {
    /// JSON, signed by Standard Webhooks.
    StandardWebhooks,
    /// `{"text":…}`, as Slack and those compatible with it take it.
    Slack,
}

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertKind {
    /// Events came again.
    Duplicates,
    /// Identities came with other bodies.
    Conflicts,
    /// Deliveries were given up.
    DeadLetters,
    /// A target fails so often that it is left alone for a while.
    Circuits,
    /// Nobody knows what became of something.
    Unknown,
}

impl AlertKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Duplicates, Self::Conflicts, Self::DeadLetters, Self::Circuits, Self::Unknown];

    /// The name in the configuration, in alerts and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Duplicates => "duplicates",
            Self::Conflicts => "conflicts",
            Self::DeadLetters => "dead_letters",
            Self::Circuits => "circuits",
            Self::Unknown => "unknown",
        }
    }
}
