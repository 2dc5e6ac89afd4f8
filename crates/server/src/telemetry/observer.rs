//! Turns what happens into metrics, lines of the log, and audit entries.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use semel_core::audit::Action;
use semel_core::command::{Claimed, Held};
use semel_core::id::Namespace;
use semel_core::ledger::{Applied, LedgerError};
use semel_core::record::{Record, State, StateName, Text};
use semel_core::{RecordId, Request, StoreError};

use super::audit::{AuditLog, Caller};
use super::logs;
use super::metrics::{Door, Metrics, Reason, ServiceMetrics, TraceId};
use crate::alerts::Alerts;
use crate::config::{ALERTS, AlertKind, DeliveryTarget};
use crate::engine::{CircuitState, Event, Events, Link, Tried, What};

/// Who is told of everything. Cheap to clone.
#[derive(Clone)]
pub struct Observer {
    metrics: Metrics,
    /// Whom the promised names are counted for.
    service: Arc<ServiceMetrics>,
    audit: AuditLog,
    alerts: Alerts,
}

impl Observer {
    /// An observer that counts in `metrics` and writes to `audit`.
    pub fn new(metrics: Metrics, audit: AuditLog) -> Self {
        Self { service: metrics.own(), metrics, audit, alerts: Alerts::default() }
    }

    /// The same observer, told of requests to this service.
    pub(crate) fn of(&self, service: Arc<ServiceMetrics>) -> Self {
        Self { service, ..self.clone() }
    }

    /// A client asked for a claim, to do the work itself.
    pub fn claim(&self, claimed: &Applied<Claimed>, took: Duration, link: &Link) {
        self.service.lock_acquired(took, trace(link));
        match &claimed.answer {
            Claimed::Granted(claim) => match &claimed.change {
                Some(change) => {
                    let from = change.from.as_ref().map(|from| from.state().name());
                    self.granted(from, claim.record(), link);
                }
                // A named attempt has asked again: it has what it had, and that was counted.
                None => self.metrics.duplicate(Door::Claims, Reason::Repeated),
            },
            Claimed::Replay(record) => self.met(Door::Claims, Reason::Replayed, record, link),
            Claimed::Busy { record, .. } => self.met(Door::Claims, Reason::InProgress, record, link),
            Claimed::Mismatch(record) => self.met(Door::Claims, Reason::Mismatch, record, link),
            Claimed::Unknown(record) => self.met(Door::Claims, Reason::Unknown, record, link),
            Claimed::Dead(record) => self.met(Door::Claims, Reason::Dead, record, link),
        }
    }

    /// The holder of a claim said what became of it. Heartbeats and checkpoints change no state, and say nothing; nor
    /// does what was said before.
    pub fn held(&self, id: RecordId, held: &Applied<Held>, link: &Link) {
        match &held.answer {
            Held::Done(record) => {
                let from = held.change.as_ref().and_then(|change| change.from.as_ref());
                if let Some(from) = from.map(|from| from.state().name())
                    && from != record.state().name()
                {
                    self.changed(Some(from), record, link);
                }
            }
            Held::Illegal(_, _) => {}
            Held::Fenced(_) => self.metrics.fenced(id),
        }
    }

    /// A claim was asked for, and answered so long after.
    pub(crate) fn acquired(&self, took: Duration, link: &Link) {
        self.service.lock_acquired(took, trace(link));
    }

    /// A request was given the claim.
    pub(crate) fn granted(&self, from: Option<StateName>, record: &Record, link: &Link) {
        self.service.miss();
        let action = if from == Some(StateName::Running) { Action::TakenOver } else { Action::Claimed };
        line(from, record, link);
        if self.audit.takes_traffic() {
            self.audit.attempt(action, from, record, &caller(record, link));
        }
    }

    /// A request met a record that it leaves as it is.
    pub(crate) fn met(&self, door: Door, reason: Reason, record: &Record, link: &Link) {
        let action = match reason {
            Reason::Replayed => {
                self.service.hit();
                Some(Action::Replayed)
            }
            Reason::Mismatch => {
                self.service.mismatch(record.id());
                Some(Action::Mismatch)
            }
            Reason::InProgress => {
                self.service.collision();
                None
            }
            Reason::Unknown | Reason::Dead | Reason::Gone | Reason::Discarded | Reason::Repeated => None,
        };
        self.metrics.duplicate(door, reason);
        if let Some(action) = action
            && self.audit.takes_traffic()
        {
            self.audit.met(action, record, &caller(record, link));
        }
    }

    /// An event was taken in. (Its own line in the log says more than one of its record's state.)
    pub(crate) fn event_accepted(&self, record: &Record, link: &Link) {
        self.service.miss();
        if self.audit.takes_traffic() {
            self.audit.changed(None, record, &of_partner(record.request(), link));
        }
    }

    /// An event came again, or its identity with another body: `details` show it.
    pub(crate) fn event_met(
        &self,
        is_conflict: bool,
        request: &Arc<Request>,
        state: Option<StateName>,
        link: &Link,
        details: Vec<(Cow<'static, str>, Text)>,
    ) {
        let (action, reason) = if is_conflict {
            self.service.mismatch(request.id());
            (Action::Mismatch, Reason::Mismatch)
        } else {
            self.service.hit();
            (Action::Replayed, Reason::Replayed)
        };
        self.metrics.duplicate(Door::Webhooks, reason);
        if self.audit.takes_traffic() {
            self.audit.event_met(action, request, state, &of_partner(request, link), details);
        }
    }

    /// The same observer, that tells these alerts.
    #[must_use]
    pub(crate) fn with_alerts(self, alerts: Alerts) -> Self {
        Self { alerts, ..self }
    }

    /// A holder came too late: its claim is another's.
    pub(crate) fn contradicted(&self, record: &Record, link: &Link) {
        self.metrics.fenced(record.id());
        let reason = "an outcome came after its claim was lost".into();
        self.audit.contradicted(record, &caller(record, link), reason, link.tried.as_ref());
    }

    /// An attempt has ended, or a record was taken in.
    pub(crate) fn changed(&self, from: Option<StateName>, record: &Record, link: &Link) {
        line(from, record, link);
        self.alarmed(record);
        if let Some(tried) = &link.tried {
            self.audit.tried(from, record, &caller(record, link), tried);
        } else if self.audit.takes_traffic() {
            self.audit.changed(from, record, &caller(record, link));
        }
    }

    /// Tells somebody of this, if anybody wants to know.
    pub(crate) fn alert(&self, kind: AlertKind, source: &str, record: Option<RecordId>) {
        self.alerts.tell(kind, source, record);
    }

    /// Tells of what somebody has to look at, unless it is an alert itself: one that cannot be delivered leads to no other.
    fn alarmed(&self, record: &Record) {
        let kind = match record.state() {
            State::Unknown { .. } => AlertKind::Unknown,
            State::Dead { .. } => AlertKind::DeadLetters,
            State::Pending { .. }
            | State::Running { .. }
            | State::Released { .. }
            | State::Completed { .. } => return,
        };
        let request = record.request();
        let operation = request.operation().as_str();
        if operation != ALERTS {
            let source = match request.scope().namespace {
                Namespace::Webhook => logs::tag(request.tags(), "source").unwrap_or(operation),
                Namespace::Execute | Namespace::Http | Namespace::Topic | Namespace::Job => operation,
            };
            self.alerts.tell(kind, source, Some(record.id()));
        }
    }
}

fn trace(link: &Link) -> Option<TraceId> {
    TraceId::of(link.traceparent.as_ref()?)
}

fn line(from: Option<StateName>, record: &Record, link: &Link) {
    logs::state_change(from, record, link.request_id.as_deref(), link.correlation_id.as_deref());
}

/// On behalf of a partner, who has no tenant's token: `webhook:` with its source and the target that the record is for,
/// `topic:` with its topic and the group.
fn of_partner(request: &Request, link: &Link) -> Caller {
    let scope = request.scope();
    let kind = scope.namespace.as_str();
    let actor = scope
        .subject
        .as_ref()
        .map_or_else(|| kind.into(), |subject| [kind, ":", subject.as_str()].concat().into());
    Caller { actor, correlation_id: link.correlation_id.clone(), attempt_id: None }
}

/// On whose behalf it was: the tenant's, if a request links to it, else the server's own.
fn caller(record: &Record, link: &Link) -> Caller {
    if link.request_id.is_none() {
        return Caller { correlation_id: link.correlation_id.clone(), ..Caller::semel() };
    }
    let scope = record.request().scope();
    let actor: Arc<str> = match &scope.subject {
        None => scope.tenant.as_str().into(),
        Some(subject) => [scope.tenant.as_str(), "/", subject.as_str()].concat().into(),
    };
    let attempt_id = match record.state() {
        State::Running { attempt_id: Some(attempt_id) } => Some(attempt_id.clone()),
        State::Running { attempt_id: None }
        | State::Pending { .. }
        | State::Released { .. }
        | State::Completed { .. }
        | State::Unknown { .. }
        | State::Dead { .. } => link.attempt_id.clone(),
    };
    Caller { actor, correlation_id: link.correlation_id.clone(), attempt_id }
}

impl Events for Observer {
    fn happened(&self, event: &Event<'_>) {
        let Event { what, record, link } = *event;
        let door = Door::Execute;
        match what {
            What::Claimed { after, from } => {
                self.service.lock_acquired(after, trace(link));
                self.granted(from, record, link);
            }
            What::Accepted => {
                self.service.miss();
                self.changed(None, record, link);
            }
            What::Taken => self.changed(Some(StateName::Pending), record, link),
            What::Replayed => self.met(door, settled(record), record, link),
            What::Busy => self.met(door, Reason::InProgress, record, link),
            What::Mismatch => self.met(door, Reason::Mismatch, record, link),
            What::RefusedUnknown => self.met(door, Reason::Unknown, record, link),
            What::RefusedDead => self.met(door, Reason::Dead, record, link),
            What::Completed | What::Released | What::Retried | What::Unknown | What::Dead => {
                self.changed(Some(StateName::Running), record, link);
            }
            // The measured store counts it, and what it leads to is told by itself.
            What::Lapsed => {}
            // The ledger has written the audit entry together with the record.
            What::Probed => line(Some(StateName::Unknown), record, link),
            What::Fenced => self.contradicted(record, link),
        }
    }

    fn tried(&self, tried: &Tried, record: &Record, link: &Link) {
        self.metrics.deliveries().tried(&tried.target, tried.result, tried.latency);
        logs::delivery(tried, record, link.correlation_id.as_deref());
    }

    fn circuit(&self, target: &DeliveryTarget, state: CircuitState) {
        self.metrics.deliveries().circuit(target, state);
        let (source, target, state_name) = (&*target.source, &*target.name, state.as_str());
        tracing::warn!(
            source,
            target_name = target,
            circuit = state_name,
            "the circuit of a target has changed"
        );
        if state == CircuitState::Open && source != ALERTS {
            self.alerts.tell(AlertKind::Circuits, source, None);
        }
    }

    fn storage_failed(&self, error: &LedgerError) {
        tracing::error!(%error, source = source(error), "the store has no answer");
    }

    fn dispatch_failed(&self, error: &StoreError) {
        tracing::warn!(%error, source = source(error), "the store has no answer for a worker");
    }

    fn heartbeat_failed(&self, error: &LedgerError) {
        self.metrics.heartbeat_failed();
        tracing::warn!(%error, source = source(error), "a heartbeat could not be sent");
    }

    fn heartbeat_unanswered(&self) {
        self.metrics.heartbeat_failed();
        tracing::warn!("a heartbeat had no answer while its lease was safe");
    }
}

/// What a duplicate of settled work is told.
fn settled(record: &Record) -> Reason {
    use semel_core::outcome::{Body, Class};
    match record.outcome().map(|outcome| (outcome.class, &outcome.body)) {
        Some((Class::Discarded, _)) => Reason::Discarded,
        Some((Class::Success | Class::Rejection, Body::Gone)) => Reason::Gone,
        Some((Class::Success | Class::Rejection, Body::Kept(_))) | None => Reason::Replayed,
    }
}

fn source(error: &dyn std::error::Error) -> Option<String> {
    error.source().map(ToString::to_string)
}
