//! What is counted of webhooks, by source: what events turned out to be, why deliveries were rejected, which secrets are
//! still in use.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use semel_webhook::Reason;

/// What a delivery, or an event of it, turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceVerdict {
    /// It is new.
    Accepted,
    /// It came before.
    Duplicate,
    /// Its identity stands for another body.
    Conflict,
    /// It proves nothing, or says not which event it is.
    Rejected,
}

impl SourceVerdict {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Accepted, Self::Duplicate, Self::Conflict, Self::Rejected];

    /// The value of the label, and the word in the log and the audit.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::Rejected => "rejected",
        }
    }
}

/// The metrics of all sources. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct WebhookMetrics {
    verdicts: Family<VerdictLabels, Counter>,
    rejections: Family<RejectionLabels, Counter>,
    verified: Family<SecretLabels, Counter>,
    remembered: Family<SourceLabels, Counter>,
}

/// The metrics of one source: the handle to find once and keep.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    source: Arc<str>,
    verdicts: [Counter; SourceVerdict::ALL.len()],
    rejections: [Counter; Reason::ALL.len()],
    remembered: Counter,
    verified: Family<SecretLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    source: Arc<str>,
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    source: Arc<str>,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SecretLabels {
    source: Arc<str>,
    secret: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: Arc<str>,
}

impl WebhookMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "semel_webhooks",
            "Events by source and what they turned out to be; of what is rejected, deliveries",
            self.verdicts.clone(),
        );
        registry.register(
            "semel_webhook_rejections",
            "Deliveries that were rejected, by source and reason",
            self.rejections.clone(),
        );
        registry.register(
            "semel_webhook_verified",
            "Deliveries that were verified, by source and the secret that verified them",
            self.verified.clone(),
        );
        registry.register(
            "semel_webhook_cache_hits",
            "Duplicates that were answered from memory, without the store",
            self.remembered.clone(),
        );
    }

    /// All that alerts watch of a source stands at 0 from its beginning.
    pub(super) fn source(&self, name: &str) -> SourceMetrics {
        let source: Arc<str> = name.into();
        let verdict = |verdict: SourceVerdict| {
            let labels = VerdictLabels { source: Arc::clone(&source), verdict: verdict.as_str() };
            self.verdicts.get_or_create_owned(&labels)
        };
        let rejection = |reason: Reason| {
            let labels = RejectionLabels { source: Arc::clone(&source), reason: reason.as_str() };
            self.rejections.get_or_create_owned(&labels)
        };
        SourceMetrics {
            verdicts: SourceVerdict::ALL.map(verdict),
            rejections: Reason::ALL.map(rejection),
            remembered: self.remembered.get_or_create_owned(&SourceLabels { source: Arc::clone(&source) }),
            verified: self.verified.clone(),
            source,
        }
    }
}

impl SourceMetrics {
    /// An event turned out to be this.
    pub fn event(&self, verdict: SourceVerdict) {
        self.verdicts[verdict as usize].inc();
    }

    /// A delivery was rejected.
    pub fn rejected(&self, reason: Reason) {
        self.event(SourceVerdict::Rejected);
        let place = Reason::ALL.iter().position(|known| *known == reason);
        if let Some(counter) = place.and_then(|place| self.rejections.get(place)) {
            counter.inc();
        }
    }

    /// A delivery was verified with this secret of the configuration.
    pub fn verified(&self, secret: &str) {
        let labels = SecretLabels { source: Arc::clone(&self.source), secret: secret.into() };
        self.verified.get_or_create(&labels).inc();
    }

    /// A duplicate was answered from memory.
    pub fn remembered(&self) {
        self.remembered.inc();
    }
}
