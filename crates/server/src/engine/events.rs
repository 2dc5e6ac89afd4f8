//! What the engine tells to metrics, logs and audit.

use std::sync::Arc;
use std::time::Duration;

use semel_core::ledger::LedgerError;
use semel_core::record::StateName;
use semel_core::{Record, StoreError};
use semel_runtime::Watch;

use super::delivery::{CircuitState, Tried};
use super::work::Link;
use crate::config::DeliveryTarget;

/// What happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A request was given the claim.
    Claimed {
        /// How long it took, store included.
        after: Duration,
        /// Where the record stood, if there was one.
        from: Option<StateName>,
    },
    /// Work was taken in.
    Accepted,
    /// A worker was given the claim.
    Taken,
    /// A duplicate was given the outcome.
    Replayed,
    /// A duplicate came while the work runs or waits.
    Busy,
    /// A key came with another request.
    Mismatch,
    /// A duplicate was refused, since nobody knows the outcome.
    RefusedUnknown,
    /// A duplicate was refused, since its retries are spent.
    RefusedDead,
    /// The outcome is stored.
    Completed,
    /// An attempt ended without effect.
    Released,
    /// An attempt failed, and another follows.
    Retried,
    /// Nobody knows the outcome.
    Unknown,
    /// Retries are spent.
    Dead,
    /// A lease lapsed.
    Lapsed,
    /// A probe found out.
    Probed,
    /// A holder came too late: its claim is another's. A lost completion contradicts what is stored.
    Fenced,
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// What.
    pub what: What,
    /// To which record, as it is since.
    pub record: &'a Record,
    /// In which connection.
    pub link: &'a Link,
}

/// Who is told. Called on the hot path: must neither block nor fail.
pub trait Events: Send + Sync + 'static {
    /// Something happened.
    fn happened(&self, event: &Event<'_>);

    /// A try of a delivery of this record has ended. What comes of it is not stored yet.
    fn tried(&self, tried: &Tried, record: &Record, link: &Link);

    /// The circuit of a target stands there now.
    fn circuit(&self, target: &DeliveryTarget, state: CircuitState);

    /// The store had no answer.
    fn storage_failed(&self, error: &LedgerError);

    /// The store had no answer to the dispatcher, the sweep or the probe.
    fn dispatch_failed(&self, error: &StoreError);

    /// A heartbeat could not be sent.
    fn heartbeat_failed(&self, error: &LedgerError);

    /// A heartbeat had no answer while its lease was safe.
    fn heartbeat_unanswered(&self);
}

/// Tells the engine's events what the runtime below it meets.
pub(super) struct Watching(pub(super) Arc<dyn Events>);

impl Watch for Watching {
    fn storage_failed(&self, error: &LedgerError) {
        self.0.storage_failed(error);
    }

    fn heartbeat_failed(&self, error: &LedgerError) {
        self.0.heartbeat_failed(error);
    }

    fn heartbeat_unanswered(&self) {
        self.0.heartbeat_unanswered();
    }
}

/// Nobody is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Events for Silent {
    fn happened(&self, _: &Event<'_>) {}
    fn tried(&self, _: &Tried, _: &Record, _: &Link) {}
    fn circuit(&self, _: &DeliveryTarget, _: CircuitState) {}
    fn storage_failed(&self, _: &LedgerError) {}
    fn dispatch_failed(&self, _: &StoreError) {}
    fn heartbeat_failed(&self, _: &LedgerError) {}
    fn heartbeat_unanswered(&self) {}
}
