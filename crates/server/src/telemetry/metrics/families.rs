//! What has labels: the families of all metrics that are created as they are met, and one operation's part of them.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use semel_core::record::Why;

use super::Exemplified;
use super::histogram::Durations;
use super::labels::{
    Door, DuplicateLabels, ErrorLabels, RequestLabels, StateLabels, StatusClass, StoreCall, StoreLabels,
    WhyLabels,
};
use super::traced::{TraceId, TracedDurations, TracedFamily};

/// How a call of a store can fail, as labels have it.
const STORE_ERRORS: [&str; 4] = ["not_applied", "in_doubt", "corrupt", "too_large"];

/// What is created as it is met.
#[derive(Clone, Debug)]
pub(super) struct Families {
    pub(super) requests: Family<RequestLabels, Counter>,
    pub(super) durations: Arc<TracedFamily>,
    pub(super) duplicates: Family<DuplicateLabels, Counter>,
    pub(super) unknown: Family<WhyLabels, Exemplified>,
    pub(super) states: Family<StateLabels, Counter>,
    pub(super) store_calls: Family<StoreLabels, Durations>,
    pub(super) store_errors: Family<ErrorLabels, Counter>,
}

/// The metrics of one operation: the handle to find once and keep.
pub struct OperationMetrics {
    pub(super) name: Arc<str>,
    families: Families,
    doors: [OnceLock<DoorCell>; Door::ALL.len()],
}

struct DoorCell {
    classes: [Counter; StatusClass::ALL.len()],
    durations: TracedDurations,
}

impl OperationMetrics {
    pub(super) fn new(name: &str, families: &Families) -> Self {
        Self {
            name: name.into(),
            families: families.clone(),
            doors: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    /// A request for this operation was answered at `door` with `status`, `took` after it had come, as a part of this
    /// trace.
    pub fn request(&self, door: Door, status: u16, took: Duration, trace: Option<TraceId>) {
        let cell = self.doors[door as usize].get_or_init(|| self.cell(door));
        cell.classes[StatusClass::of(status) as usize].inc();
        cell.durations.observe(took, trace);
    }

    /// Its name in labels.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn cell(&self, door: Door) -> DoorCell {
        let labels = [("door", door.as_str()), ("operation", &self.name)];
        DoorCell {
            durations: self.families.durations.get_or_create(&labels),
            classes: StatusClass::ALL.map(|class| {
                self.families.requests.get_or_create_owned(&RequestLabels {
                    door: door.as_str(),
                    operation: Arc::clone(&self.name),
                    status: class.as_str(),
                })
            }),
        }
    }
}

impl fmt::Debug for OperationMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OperationMetrics").field(&self.name).finish()
    }
}

impl Families {
    pub(super) fn new() -> Self {
        Self {
            requests: Family::default(),
            durations: Arc::new(TracedFamily::new(
                "semel_request_duration_seconds",
                "From a request's last header to its answer",
            )),
            duplicates: Family::default(),
            unknown: Family::default(),
            states: Family::default(),
            store_calls: Family::default(),
            store_errors: Family::default(),
        }
    }

    /// What alerts watch stands at 0 from the start: where a series begins with its first event, that event is no
    /// increase, and nobody is told of it.
    pub(super) fn begin_at_zero(&self) {
        for why in Why::ALL {
            self.unknown.get_or_create_owned(&WhyLabels { why: why.as_str() });
        }
        for call in StoreCall::ALL {
            for kind in STORE_ERRORS {
                self.store_errors.get_or_create_owned(&ErrorLabels { call: call.as_str(), kind });
            }
        }
    }
}
