//! What the contract's layer tells, as the server's own doors tell it: metrics, lines of the log, audit.

use std::sync::{Arc, OnceLock};

use semel_core::Record;
use semel_core::ledger::LedgerError;
use semel_core::record::StateName;
use semel_tower::{Event, What};

use crate::engine::Link;
use crate::telemetry::metrics::{Door, Metrics, Reason, ReportResult, ServiceMetrics};
use crate::telemetry::observer::Observer;

/// Told by the layer.
pub(super) struct Teller {
    observer: Observer,
    metrics: Metrics,
}

/// What a request brings along to be told with.
pub(super) struct Asked {
    pub(super) link: Link,
    /// Where it goes, if anywhere.
    service: Option<Arc<ServiceMetrics>>,
    /// Its record, and whether its key had been asked for before.
    seen: OnceLock<(Arc<Record>, bool)>,
}

impl Asked {
    pub(super) fn new(link: Link, service: Option<Arc<ServiceMetrics>>) -> Arc<Self> {
        Arc::new(Self { link, service, seen: OnceLock::new() })
    }

    /// What was found of its key, for the line of the log.
    pub(super) fn seen(&self) -> Option<&(Arc<Record>, bool)> {
        self.seen.get()
    }
}

impl Teller {
    pub(super) const fn new(observer: Observer, metrics: Metrics) -> Self {
        Self { observer, metrics }
    }

    /// Report mode: what would have happened.
    fn report(&self, what: What, route: &str) {
        let result = match what {
            What::Claimed { .. } => ReportResult::Run,
            What::Replayed | What::Gone | What::Discarded => ReportResult::Replayed,
            What::Busy => ReportResult::InProgress,
            What::Mismatch => ReportResult::Mismatch,
            What::RefusedUnknown | What::RefusedDead => ReportResult::Unknown,
            What::KeyMissing => ReportResult::KeyMissing,
            What::KeyInvalid => ReportResult::KeyInvalid,
            What::Refused => ReportResult::Refused,
            // How the shadow of an attempt ends is told nobody.
            What::Found { .. } | What::Completed | What::Released | What::Unknown | What::Fenced => return,
            // The front counts the keys of routes itself.
            What::Asked { .. } => return,
        };
        self.metrics.gateway().report(route, result);
    }
}

/// In which state a record was that has just been claimed.
const fn before(record: &Record, taken_over: bool) -> Option<StateName> {
    match (record.attempt(), taken_over) {
        (..=1, _) => None,
        (_, false) => Some(StateName::Released),
        (_, true) => Some(StateName::Running),
    }
}

impl semel_tower::Observer for Teller {
    fn happened(&self, event: &Event<'_>) {
        if !event.enforced {
            return self.report(event.what, event.route);
        }
        let asked = event.context.and_then(|context| context.0.downcast_ref::<Asked>());
        let (Some(record), Some(asked)) = (event.record, asked) else { return };
        let of_service = asked.service.clone().map(|service| self.observer.of(service));
        let (observer, link) = (of_service.as_ref().unwrap_or(&self.observer), &asked.link);
        let met = |reason| observer.met(Door::Gateway, reason, record, link);
        match event.what {
            What::Claimed { after, taken_over } => {
                asked.seen.get_or_init(|| (Arc::clone(record), record.attempt() > 1));
                observer.acquired(after, link);
                observer.granted(before(record, taken_over), record, link);
            }
            What::Found { after } => {
                asked.seen.get_or_init(|| (Arc::clone(record), true));
                observer.acquired(after, link);
            }
            What::Replayed => met(Reason::Replayed),
            What::Gone => met(Reason::Gone),
            What::Discarded => met(Reason::Discarded),
            What::Busy => met(Reason::InProgress),
            What::Mismatch => met(Reason::Mismatch),
            What::RefusedUnknown => met(Reason::Unknown),
            What::RefusedDead => met(Reason::Dead),
            What::Completed | What::Released | What::Unknown => {
                observer.changed(Some(StateName::Running), record, link);
            }
            What::Fenced => observer.contradicted(record, link),
            // Nothing came of them that has a record.
            What::Asked { .. } | What::KeyMissing | What::KeyInvalid | What::Refused => {}
        }
    }

    fn storage_failed(&self, error: &LedgerError) {
        crate::engine::Events::storage_failed(&self.observer, error);
    }

    fn heartbeat_failed(&self, error: &LedgerError) {
        crate::engine::Events::heartbeat_failed(&self.observer, error);
    }
}
