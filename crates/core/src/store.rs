//! The contract of stores: a compare-and-swap map of records with a few orders beside it.
//!
//! A store knows no rule of the ledger. It swaps what it is told if the version is the one that was judged, stamps
//! the write ([`Write::seal`]) inside it, and answers when the new version is durable. Whatever it says, it says by
//! its own clock. The conformance suite is this page as code.
//!
//! # Atomicity
//! Each single-record write happens whole or not at all, its audit entry with it. Writes of a batch are independent
//! of each other.
//!
//! # Durability
//! A write is answered when it is durable, and not visible to anybody before: no load, no order, no waiter, and no
//! conflict answer, rests on a version that a crash could take back (L4).
//!
//! # Cancellation
//! Dropping the future of a read changes nothing. Dropping the future of a write leaves the write in doubt: it may
//! happen or not, and the store stays usable.
//!
//! # Errors
//! See [`StoreErrorKind`](crate::error::StoreErrorKind). A store that cannot tell whether a write happened says
//! `InDoubt`, and never `NotApplied`. No failure is ever reported as an absent record (L12, L13).
//!
//! Wrong, since it trusts a read that another writer has overtaken, and invents an absence:
//! ```compile_fail
//! # async fn wrong(store: &dyn semel_core::Store, write: semel_core::write::Write) {
//! let free = store.load(write.id()).await.unwrap_or_default().is_none();
//! if free { store.put(write).await }
//! # }
//! ```
//! Right: say what was judged, and look at the answer.
//! ```
//! # use semel_core::store::{Store, Inserted};
//! # async fn right(store: &dyn Store, write: semel_core::write::Write) -> Result<(), semel_core::StoreError> {
//! match store.insert(write).await?.value {
//!     Inserted::Inserted(record) => println!("fence {}", record.fence()),
//!     Inserted::Occupied(record) => println!("somebody was quicker: {:?}", record.state()),
//! }
//! # Ok(())
//! # }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::audit;
use crate::error::StoreError;
use crate::id::{Lane, RecordId, Version};
use crate::query::{AuditCursor, AuditQuery, Count, Cursor, Page, Query, Summary};
use crate::record::Record;
use crate::time::Timestamp;
use crate::write::Write;

/// What a store's methods return.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// An answer, and the store's time when it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsOf<T> {
    /// The store's time.
    pub as_of: Timestamp,
    /// The answer.
    pub value: T,
}

/// What became of an insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is there, and durable.
    Inserted(Arc<Record>),
    /// Something is there, durable, expired or not: core decides what that means.
    Occupied(Arc<Record>),
}

/// What became of a replacement or removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// It is there, and durable.
    Replaced(Arc<Record>),
    /// The version is another one, or nothing is there: this is what is, durable.
    Conflict(Option<Arc<Record>>),
}

/// A compare-and-swap map of records with a few orders beside it. See the [module](self) for what holds for all.
pub trait Store: Send + Sync + 'static {
    /// What it is called in logs and metrics, such as `embedded`.
    fn name(&self) -> &'static str;

    /// The store's time as far as it can be told without asking it: exact for a store in this process, else at most
    /// the latest `as_of` plus the time since then. Used for `not_after` of writes that judged nothing.
    fn time(&self) -> Timestamp;

    /// Puts a record where none is.
    ///
    /// # Atomicity
    /// Of many concurrent inserts of an id exactly one is `Inserted`. A record that is there comes back as
    /// `Occupied`, also when it has expired. The fence is above every fence this id ever had.
    ///
    /// # Errors
    /// `NotApplied` when the write's deadline had passed by the store's clock.
    fn insert(&self, write: Write) -> Answer<'_, AsOf<Inserted>>;

    /// Puts a record in the place of the version `expected`.
    ///
    /// # Atomicity
    /// Compares and swaps in one step: of many concurrent replacements of a version exactly one is `Replaced`.
    ///
    /// # Errors
    /// As [`insert`](Store::insert).
    fn replace(&self, write: Write, expected: Version) -> Answer<'_, AsOf<Replaced>>;

    /// Removes the version `expected`, for the sweep; `true` if it was there. The floor under all later fences rises
    /// to its fence, in the same step (L2).
    fn remove(&self, id: RecordId, expected: Version) -> Answer<'_, bool>;

    /// The newest durable version. Linearizable: a write that was answered before the call is seen.
    fn load(&self, id: RecordId) -> Answer<'_, AsOf<Option<Arc<Record>>>>;

    /// Records of a [lane](Record::due_lane) (`None`: of no lane) whose [`due`](Record::due) is not after the store's time, the
    /// longest due first, at most `limit` (and [`limits::TAKE_MAX`](crate::limits::TAKE_MAX)). Taking is not claiming: two
    /// callers may be shown the same record, and compare-and-swap decides between them.
    fn take_due(&self, lane: Option<Lane>, limit: usize) -> Answer<'_, AsOf<Vec<Arc<Record>>>>;

    /// Lanes that have something due, the longest due first.
    fn lanes(&self) -> Answer<'_, Vec<Option<Lane>>>;

    /// When something becomes due next, over all lanes; in the past if something is due already.
    fn next_due(&self) -> Answer<'_, AsOf<Option<Timestamp>>>;

    /// Waits until the record is at a version above `seen` or gone, or for `patience`, whichever is first; gives
    /// what is there then.
    fn changed(
        &self,
        id: RecordId,
        seen: Version,
        patience: Duration,
    ) -> Answer<'_, AsOf<Option<Arc<Record>>>>;

    /// Waits until something may have become due earlier than `next_due` said, or is due at once, or for `patience`.
    /// (At once, even if other things are due already: a lane that nobody can empty must not hide what comes into
    /// another.) It watches from the call on, not from the first poll: whoever calls it before asking for `next_due`
    /// misses nothing.
    fn due_changed(&self, patience: Duration) -> Answer<'_, ()>;

    /// Removes settled records that have expired, in small steps; how many. Nothing that is alive is touched, and no
    /// other call waits for it.
    fn sweep(&self, limit: usize) -> Answer<'_, usize>;

    /// How many records there are by namespace, operation and state. Maintained, never a scan; expired records
    /// count until they are swept.
    fn counts(&self) -> Answer<'_, Vec<Count>>;

    /// The earliest creation of a pending record. Maintained, never a scan.
    fn oldest_pending(&self) -> Answer<'_, AsOf<Option<Timestamp>>>;

    /// Records that match, newest first by (created, id), from after `cursor`; expired ones are left out. What matches all
    /// the time is in one of the pages, whatever is merged or written meanwhile. A record that cannot be read is never left
    /// out: the page fails as corrupt, or shows what is known of it (L13).
    fn search(&self, query: Query, cursor: Option<Cursor>, limit: usize)
    -> Answer<'_, Page<Summary, Cursor>>;

    /// Adds entries to the audit log, in order, each with the time at which it
    /// [happened](audit::Entry::stamped): a later one only where an entry that is shown already has it, since the log is in
    /// the order of its times.
    fn append_audit(&self, entries: Vec<audit::Entry>) -> Answer<'_, ()>;

    /// Audit entries that match, newest first. What is read grows with the page and not with the log: at most about
    /// twenty entries for each that is shown, whatever is asked for.
    fn audit(
        &self,
        query: AuditQuery,
        cursor: Option<AuditCursor>,
        limit: usize,
    ) -> Answer<'_, Page<audit::Entry, AuditCursor>>;

    /// Drops audit entries that were stamped before `before`, the oldest first, at most `limit` of them in one step, so that
    /// no other call waits for it; how many it was at most, and 0 when none is left. Nothing stamped at `before` or later is
    /// touched. What was dropped is shown never again, also after a crash; its space is free when the store gets to it.
    ///
    /// # Errors
    /// `InDoubt`: some may be gone. Saying it again is safe.
    fn forget_audit(&self, before: Timestamp, limit: usize) -> Answer<'_, usize>;

    /// Whether what was acknowledged outlives the loss of the node that acknowledged it, or there is only one node.
    /// *At most once* on a store that says no needs the operator's consent.
    fn survives_failover(&self) -> bool;

    /// Whether it can serve: `Ok` when a read and a write would be answered now.
    fn ready(&self) -> Answer<'_, ()>;

    /// Syncs and lets go of what it holds. Writes after it are refused.
    fn close(&self) -> Answer<'_, ()>;
}
