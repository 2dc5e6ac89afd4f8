//! What work under a claim needs from tokio, whoever runs it: the server, the HTTP middleware, a consumer, a job.
//!
//! Core decides and reads no clock; here are the clocks, the tasks and the random bits. A [`Runtime`] ties a ledger to
//! the tasks that outlive a request: a [`Keeper`] renews the lease while the work runs, and the settling commands of
//! [`Runtime`] see to it that the end of an attempt is stored after all (L12). [`Detached`] runs work in place, and
//! goes on with it when whoever waited goes away (L11).
//!
//! Rooms: [`detached`] · [`keeper`] heartbeats · [`settle`] what must be stored after all · [`job`] one instance at a
//! time · [`phases`] work in steps · [`entropy`] random bits · [`limits`] every number.

use std::fmt;
use std::sync::Arc;

use semel_core::Ledger;
use semel_core::ledger::LedgerError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub mod detached;
pub mod entropy;
pub mod job;
pub mod keeper;
pub mod limits;
pub mod phases;
pub mod settle;

pub use detached::{Detached, Panicked};
pub use entropy::{OsEntropy, jitter};
pub use keeper::{Ended, Keeper};
pub use settle::{Late, Unstored};

/// Who is told of what goes wrong between a holder and the store. Called on the hot path: must neither block nor fail.
pub trait Watch: Send + Sync + 'static {
    /// The store had no answer.
    fn storage_failed(&self, error: &LedgerError);

    /// A heartbeat could not be sent.
    fn heartbeat_failed(&self, error: &LedgerError);

    /// A heartbeat had no answer while its lease was safe.
    fn heartbeat_unanswered(&self) {}
}

/// Nobody is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn storage_failed(&self, _: &LedgerError) {}
    fn heartbeat_failed(&self, _: &LedgerError) {}
}

/// A ledger, and what runs over it apart from any connection. A clone is another handle.
#[derive(Clone)]
pub struct Runtime {
    ledger: Ledger,
    tasks: TaskTracker,
    giving_up: CancellationToken,
    watch: Arc<dyn Watch>,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Over this ledger. What must outlive a request is spawned on `tasks`; once `giving_up` is cancelled, nothing is
    /// waited for or repeated any more.
    pub fn new(
        ledger: Ledger,
        tasks: TaskTracker,
        giving_up: CancellationToken,
        watch: Arc<dyn Watch>,
    ) -> Self {
        Self { ledger, tasks, giving_up, watch }
    }

    /// The ledger below.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What runs apart from any connection; a shutdown waits for it.
    pub const fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Cancelled when what still runs is given up.
    pub const fn giving_up(&self) -> &CancellationToken {
        &self.giving_up
    }

    /// Runs `work` in place, and apart from any connection once whoever waits goes away.
    pub fn detached<F>(&self, work: F) -> Detached<F>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Detached::new(&self.tasks, work)
    }
}
