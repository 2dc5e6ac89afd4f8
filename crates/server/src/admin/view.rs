//! Records and audit entries as operators see them: core's words onto the wire, by hand, and never a token.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use semel_api::Time;
use semel_api::audit::{AuditEntry, MetadataValue};
use semel_api::records::{
    CheckpointSummary, Excerpt, HeaderView, InputView, OutcomeView, PolicyView, RecordDetail, RecordSummary,
};
use semel_core::audit::Entry;
use semel_core::outcome::{Body, Header, Headers, Outcome};
use semel_core::policy::{OnLapse, Policy};
use semel_core::query::Summary;
use semel_core::record::{State, StateName, Text};
use semel_core::request::{Fingerprint, Input};
use semel_core::{Record, Timestamp};

use super::dead;
use crate::config::Role;

pub(super) fn summary(summary: &Summary) -> RecordSummary {
    RecordSummary {
        id: summary.id.to_string(),
        namespace: summary.scope.namespace.as_str().to_owned(),
        tenant: summary.scope.tenant.to_string(),
        subject: summary.scope.subject.as_ref().map(ToString::to_string),
        key: summary.key.to_string(),
        operation: summary.operation.to_string(),
        state: summary.state.as_str().to_owned(),
        version: summary.version.to_string(),
        attempt: summary.attempt,
        accepted: summary.accepted,
        tags: summary.tags.iter().map(|tag| (tag.name.to_string(), tag.value.to_string())).collect(),
        created_at: time(summary.times.created),
        written_at: time(summary.times.written),
        wake_at: summary.times.wake.map(time),
        settled_at: summary.times.settled.map(time),
        expires_at: summary.times.expires.map(time),
    }
}

/// Everything about a record but its token. What it works on and what it gave may be anybody's secret, so `Read` sees
/// how large they are, and `Operate` how they begin.
pub(super) fn detail(record: &Record, role: Role) -> RecordDetail {
    let request = record.request();
    let excerpt = |bytes: &Bytes| (role == Role::Operate).then(|| Excerpt::of(bytes));
    let (attempt_id, unknown_because) = match record.state() {
        State::Running { attempt_id } => (attempt_id.as_ref().map(ToString::to_string), None),
        State::Unknown { why, .. } => (None, Some(why.as_str().to_owned())),
        State::Pending { .. } | State::Released { .. } | State::Dead { .. } | State::Completed { .. } => {
            (None, None)
        }
    };
    RecordDetail {
        summary: summary(&Summary::of(record)),
        fence: record.fence().0,
        tries: record.tries(),
        generation: record.generation(),
        tainted: record.tainted(),
        attempt_id,
        last_error: record.error().map(|text| text.as_str().to_owned()),
        unknown_because,
        fingerprint: fingerprint(request.fingerprint()),
        downstream_key: record.id().downstream_key(None),
        policy: policy(request.policy()),
        lane: request.lane().map(ToString::to_string),
        origin: request.origin().map(|id| id.to_string()),
        checkpoints: record
            .checkpoints()
            .iter()
            .map(|step| CheckpointSummary { phase: step.phase().to_string(), data: excerpt(step.data()) })
            .collect(),
        input: request.input().map(|input| input_view(input, excerpt(input.body()))),
        payload_dropped: record.payload_is_gone(),
        outcome: record.outcome().map(|outcome| outcome_view(outcome, excerpt)),
    }
}

fn input_view(input: &Input, body: Option<Excerpt>) -> InputView {
    InputView {
        method: input.method().to_owned(),
        path: input.path().to_owned(),
        headers: headers(input.headers()),
        body_bytes: input.body().len() as u64,
        body,
    }
}

fn outcome_view(outcome: &Outcome, excerpt: impl FnOnce(&Bytes) -> Option<Excerpt>) -> OutcomeView {
    let (body_bytes, body) = match &outcome.body {
        Body::Kept(body) => (Some(body.len() as u64), excerpt(body)),
        Body::Gone => (None, None),
    };
    OutcomeView {
        class: outcome.class.as_str().to_owned(),
        status: outcome.status,
        headers: headers(&outcome.headers),
        body_bytes,
        body,
    }
}

fn headers(headers: &Headers) -> Vec<HeaderView> {
    let view = |header: &Header| HeaderView {
        name: header.name.to_string(),
        value: String::from_utf8_lossy(&header.value).into_owned(),
    };
    headers.iter().map(view).collect()
}

pub(super) fn state(state: StateName) -> String {
    state.as_str().to_owned()
}

fn fingerprint(fingerprint: &Fingerprint) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{}:", fingerprint.version);
    for byte in fingerprint.digest {
        // Writing into a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn policy(policy: &Policy) -> PolicyView {
    let retry = policy.retry();
    PolicyView {
        semantics: match policy.on_lapse() {
            OnLapse::AtMostOnce => "at-most-once",
            OnLapse::Resume => "resume",
        }
        .to_owned(),
        lease_ms: millis(policy.lease()),
        retention_ms: millis(policy.retention()),
        payload_retention_ms: policy.payload_retention().map(millis),
        max_attempts: retry.max_attempts(),
        first_pause_ms: millis(retry.first()),
        longest_pause_ms: millis(retry.cap()),
        max_age_ms: retry.max_age().map(millis),
    }
}

/// An entry of the audit log. What a target answered may be anybody's secret, as bodies are: `Read` does not see it.
pub(super) fn audit_entry(entry: &Entry, role: Role) -> AuditEntry {
    let text = |text: &Text| text.as_str().to_owned();
    let value = |(name, value): &(Cow<'static, str>, Text)| {
        let value = match (&**name, value.as_str()) {
            ("isRetry", "true") => MetadataValue::Flag(true),
            ("isRetry", "false") => MetadataValue::Flag(false),
            (_, value) => MetadataValue::Text(value.to_owned()),
        };
        (name.to_string(), value)
    };
    AuditEntry {
        action: entry.action.as_str().to_owned(),
        from_state: entry.from.map(state),
        to_state: entry.to.map(state),
        correlation_id: entry.correlation_id.as_ref().map(text),
        actor: text(&entry.actor),
        reason: entry.reason.as_ref().map(text),
        record_id: entry.record.map(|id| id.to_string()),
        operation: entry.operation.as_ref().map(ToString::to_string),
        key: entry.key.as_ref().map(ToString::to_string),
        tags: entry.tags.iter().map(|tag| (tag.name.to_string(), tag.value.to_string())).collect(),
        at: time(entry.at),
        metadata: entry
            .metadata
            .iter()
            .filter(|(name, _)| role == Role::Operate || name != dead::RESPONSE)
            .map(value)
            .collect(),
    }
}

pub(super) fn time(time: Timestamp) -> Time {
    Time::from_millis(time.as_millis())
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
