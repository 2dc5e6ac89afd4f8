//! What metrics, log and audit are told of events and deliveries.

use std::borrow::Cow;
use std::net::IpAddr;

use semel_api::Time;
use semel_core::Timestamp;
use semel_core::record::Text;
use semel_webhook::Rejection;

use super::Inbound;
use super::intake::{Arrival, Evidence, Judged, Verdict};
use crate::config::AlertKind;
use crate::telemetry::logs::{self, WebhookLine};
use crate::telemetry::metrics::SourceVerdict;
use crate::telemetry::observer::Observer;

impl Verdict {
    /// As metrics, log and audit have it.
    pub(crate) const fn told(self) -> SourceVerdict {
        match self {
            Self::Accepted => SourceVerdict::Accepted,
            Self::Duplicate => SourceVerdict::Duplicate,
            Self::Conflict => SourceVerdict::Conflict,
        }
    }

    /// What somebody may want to be told of it.
    const fn alert(self) -> Option<AlertKind> {
        match self {
            Self::Accepted => None,
            Self::Duplicate => Some(AlertKind::Duplicates),
            Self::Conflict => Some(AlertKind::Conflicts),
        }
    }
}

impl Inbound {
    /// Tells of a delivery that was verified, with this secret if with any.
    pub(crate) fn tell_verified(&self, secret: Option<&str>) {
        if let Some(secret) = secret {
            self.metrics.verified(secret);
        }
    }

    /// Tells of an event. Of duplicates and conflicts, with what shows that they are.
    pub(crate) fn tell(&self, observer: &Observer, judged: &Judged, arrival: &Arrival) {
        let Judged { verdict, request, record, evidence } = judged;
        self.metrics.event(verdict.told());
        if evidence.is_some_and(|evidence| evidence.remembered) {
            self.metrics.remembered();
        }
        logs::webhook(&WebhookLine {
            verdict: verdict.told().as_str(),
            source: self.config.source.name(),
            request,
            state: record.as_ref().map(|record| record.state().name()),
            first_seen: evidence.map(|evidence| time(evidence.first_seen)),
            gap_ms: evidence.as_ref().map(millis),
            body_differs: evidence.and_then(|evidence| evidence.body_differs),
            remembered: evidence.map(|evidence| evidence.remembered),
            address: arrival.address,
            request_id: arrival.link.request_id.as_deref(),
            correlation_id: arrival.link.correlation_id.as_deref(),
        });
        if let Some(kind) = self.alert_of(*verdict) {
            observer.alert(kind, self.config.source.name(), Some(request.id()));
        }
        match (verdict, evidence, record) {
            (Verdict::Duplicate | Verdict::Conflict, Some(evidence), record) => {
                let from = record.as_ref().map(|record| record.state().name());
                let details = details(*verdict, evidence, arrival.address, &request.id().to_string());
                let is_conflict = *verdict == Verdict::Conflict;
                observer.event_met(is_conflict, request, from, &arrival.link, details);
            }
            (_, _, Some(record)) => observer.event_accepted(record, &arrival.link),
            (_, _, None) => {}
        }
    }

    /// What somebody is to be told of it.
    pub(crate) fn alert_of(&self, verdict: Verdict) -> Option<AlertKind> {
        let is_quiet = verdict == Verdict::Duplicate && !self.config.duplicates.alert;
        verdict.alert().filter(|_| !is_quiet)
    }

    /// Tells of a delivery that is not taken in: counted and logged, and no more. A forger fills no audit.
    pub(crate) fn tell_rejected(&self, rejection: &Rejection, arrival: &Arrival) {
        self.metrics.rejected(rejection.reason());
        tracing::info!(
            target: "semel::webhook",
            verdict = SourceVerdict::Rejected.as_str(),
            partner = self.config.source.name(),
            reason = rejection.reason().as_str(),
            place = rejection.place(),
            source_address = %arrival.address,
            request_id = arrival.link.request_id.as_deref(),
            correlation_id = arrival.link.correlation_id.as_deref(),
            "webhook",
        );
    }
}

fn time(at: Timestamp) -> Time {
    Time::from_millis(at.as_millis())
}

fn millis(evidence: &Evidence) -> u64 {
    u64::try_from(evidence.gap.as_millis()).unwrap_or(u64::MAX)
}

/// The evidence, as it stands in the audit.
fn details(
    verdict: Verdict,
    evidence: &Evidence,
    address: IpAddr,
    record: &str,
) -> Vec<(Cow<'static, str>, Text)> {
    let mut details: Vec<(Cow<'static, str>, Text)> = vec![
        ("isRetry".into(), "true".into()),
        ("originalAttemptId".into(), Text::new(&format!("{record}:{}", evidence.fence))),
        ("verdict".into(), verdict.told().as_str().into()),
        ("firstSeen".into(), Text::new(&time(evidence.first_seen).to_string())),
        ("gapMs".into(), Text::new(&millis(evidence).to_string())),
        ("sourceAddress".into(), Text::new(&address.to_string())),
    ];
    if let Some(differs) = evidence.body_differs {
        details.push(("bodyDiffers".into(), if differs { "true" } else { "false" }.into()));
    }
    details
}
