//! What the layer tells to metrics, logs and audit.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use semel_core::Record;
use semel_core::ledger::LedgerError;

/// What happened to a request, or to its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It came under a rule: what becomes of it comes as another event, unless it passes through for want of a key.
    Asked {
        /// Whether it has a key, well-formed or not.
        keyed: bool,
    },
    /// It was given the claim.
    Claimed {
        /// How long that took, store included.
        after: Duration,
        /// Whether an earlier attempt may have had an effect.
        taken_over: bool,
    },
    /// Its key had been asked for before, which took so long to find out; what it was told comes as another event.
    Found {
        /// How long that took, store included.
        after: Duration,
    },
    /// It was given the stored outcome.
    Replayed,
    /// It was done, and the result is not kept.
    Gone,
    /// An operator has put the operation aside.
    Discarded,
    /// Its key is being worked on.
    Busy,
    /// Its key stands for something else.
    Mismatch,
    /// Nobody knows what the earlier attempt did.
    RefusedUnknown,
    /// The key's retries are spent.
    RefusedDead,
    /// The outcome is stored.
    Completed,
    /// The attempt's reply is not kept, and the key is free again.
    Released,
    /// Nobody knows what the attempt did.
    Unknown,
    /// The attempt came too late: its claim is another's.
    Fenced,
    /// There is no key, and one is needed.
    KeyMissing,
    /// The key is malformed.
    KeyInvalid,
    /// Another refusal before anything was asked of the store.
    Refused,
}

/// Something that happened.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// What.
    pub what: What,
    /// Which rule it was under: the text of a matcher, or `*`. Bounded by the configuration, so it may be a label.
    pub route: &'a str,
    /// Whether the rule is enforced. If not, this is what would have happened.
    pub enforced: bool,
    /// The record, where there is one.
    pub record: Option<&'a Arc<Record>>,
    /// What the request carried as [`Context`].
    pub context: Option<&'a Context>,
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.record.map(|record| record.id());
        f.debug_struct("Event")
            .field("what", &self.what)
            .field("route", &self.route)
            .field("enforced", &self.enforced)
            .field("record", &id)
            .finish_non_exhaustive()
    }
}

/// A request extension of an outer layer's: what its [`Observer`] wants to know with each event.
#[derive(Clone)]
pub struct Context(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Context")
    }
}

/// Who is told. Called on the hot path: must neither block nor fail.
pub trait Observer: Send + Sync + 'static {
    /// Who is told in its place of what happens at the layer of this service, if it tells services apart. Asked once,
    /// when the layer is made.
    fn of_service(&self, _service: &str) -> Option<Arc<dyn Observer>> {
        None
    }

    /// Something happened.
    fn happened(&self, event: &Event<'_>);

    /// The store had no answer.
    fn storage_failed(&self, error: &LedgerError);

    /// A heartbeat could not be sent.
    fn heartbeat_failed(&self, error: &LedgerError);
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn of_service(&self, service: &str) -> Option<Arc<dyn Observer>> {
        (**self).of_service(service)
    }

    fn happened(&self, event: &Event<'_>) {
        (**self).happened(event);
    }

    fn storage_failed(&self, error: &LedgerError) {
        (**self).storage_failed(error);
    }

    fn heartbeat_failed(&self, error: &LedgerError) {
        (**self).heartbeat_failed(error);
    }
}

/// Nobody is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn happened(&self, _: &Event<'_>) {}
    fn storage_failed(&self, _: &LedgerError) {}
    fn heartbeat_failed(&self, _: &LedgerError) {}
}

/// Tells an observer what the runtime meets.
pub(crate) struct Watching(pub(crate) Arc<dyn Observer>);

impl semel_runtime::Watch for Watching {
    fn storage_failed(&self, error: &LedgerError) {
        self.0.storage_failed(error);
    }

    fn heartbeat_failed(&self, error: &LedgerError) {
        self.0.heartbeat_failed(error);
    }
}
