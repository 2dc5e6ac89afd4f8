//! Works what was accepted, and what a dead worker has left: takes what is due, lane by lane, and runs it.
//!
//! Any number of nodes may do so over one store: taking is a compare-and-swap, so each record has one worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use semel_core::command::{Claim, Taken};
use semel_core::id::Lane;
use semel_core::{Record, StoreError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::events::What;
use super::work::{Link, Work};
use super::{Engine, NOT_BEGUN};
use crate::limits;

/// How many tries may be under way, over all lanes and on each.
struct Room {
    overall: Arc<Semaphore>,
    lanes: HashMap<Option<Lane>, Arc<Semaphore>>,
    /// A try has ended.
    freed: Arc<Notify>,
}

/// A place for one try; free again when dropped.
struct Place {
    _overall: OwnedSemaphorePermit,
    _lane: OwnedSemaphorePermit,
    freed: Arc<Notify>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.freed.notify_one();
    }
}

impl Engine {
    /// Until the engine stops.
    pub(super) async fn dispatch(self, concurrency: usize) {
        let freed = Arc::new(Notify::new());
        let mut room = Room { overall: Arc::new(Semaphore::new(concurrency)), lanes: HashMap::new(), freed };
        while !self.0.stopping.is_cancelled() {
            let pause = match self.dispatch_due(&mut room).await {
                Ok(0) => self.until_due().await,
                Ok(_) => Duration::ZERO,
                Err(error) => {
                    self.0.events.dispatch_failed(&error);
                    limits::DISPATCH_AFTER_FAILURE
                }
            };
            if pause.is_zero() {
                continue;
            }
            tokio::select! {
                () = self.0.stopping.cancelled() => {}
                () = room.freed.notified() => {}
                _ = self.0.ledger.store().due_changed(pause) => {}
            }
        }
    }

    /// Takes what is due on every lane, as far as there is room; how many have moved.
    async fn dispatch_due(&self, room: &mut Room) -> Result<usize, StoreError> {
        let mut moved = 0;
        for lane in self.0.ledger.store().lanes().await? {
            let places = room.places(lane.as_ref(), self.concurrency_of(lane.as_ref()));
            if places.is_empty() {
                continue;
            }
            let due = self.0.ledger.store().take_due(lane, places.len()).await?;
            let takes = due.value.iter().zip(places).map(|(record, place)| self.take(record, place));
            moved += join_all(takes).await.into_iter().filter(|has_moved| *has_moved).count();
        }
        Ok(moved)
    }

    /// Takes one record and runs it apart from the dispatcher; whether anything about it has moved.
    async fn take(&self, record: &Arc<Record>, place: Place) -> bool {
        let sent = Instant::now();
        match self.0.ledger.take(record).await {
            Ok(Taken::Granted(claim)) => {
                let engine = self.clone();
                self.0.tasks.spawn(async move {
                    engine.run_taken(claim, sent).await;
                    drop(place);
                });
                true
            }
            Ok(Taken::Ended(record)) => {
                self.tell_end(&record);
                true
            }
            // Only its client can go on with it, or nobody: the reaper's part.
            Ok(Taken::NotDue(Some(record))) => self.lapse(&record).await,
            Ok(Taken::NotDue(None)) => false,
            Err(error) => {
                self.failed(error);
                false
            }
        }
    }

    async fn run_taken(&self, claim: Claim, sent: Instant) {
        let name = claim.record().request().operation().as_str();
        let work = self.operation(name).and_then(|operation| Work::held(operation, claim.record()));
        let Some(work) = work else {
            self.tell(What::Taken, claim.record(), &Link::default());
            // Nobody here knows how to do it. Another node may, or this one after its next reload.
            let detail = "no operation of that name is configured on the node that took it";
            let pause = limits::DISPATCH_WITHOUT_OPERATION;
            self.give_back(claim, detail, pause, &Link::default()).await.ok();
            return;
        };
        self.tell(What::Taken, claim.record(), &work.link);
        if self.0.stopping.is_cancelled() {
            self.give_back(claim, NOT_BEGUN, Duration::ZERO, &work.link).await.ok();
            return;
        }
        // What came of it is in the record, and was told to metrics and log.
        self.run_claim(claim, sent, &work).await.ok();
    }

    /// How long until something is due, as far as is known.
    async fn until_due(&self) -> Duration {
        match self.0.ledger.store().next_due().await {
            Ok(next) => match next.value {
                // Due, and not taken: there is no room for it, or somebody else has it.
                Some(due) if due <= next.as_of => limits::DISPATCH_AFTER_FAILURE,
                Some(due) => due.since(next.as_of).min(limits::DISPATCH_LOOK_EVERY),
                None => limits::DISPATCH_LOOK_EVERY,
            },
            Err(error) => {
                self.0.events.dispatch_failed(&error);
                limits::DISPATCH_AFTER_FAILURE
            }
        }
    }

    fn concurrency_of(&self, lane: Option<&Lane>) -> usize {
        let operations = self.0.operations.load();
        let of_lane = operations.iter().filter(|operation| Some(operation.lane()) == lane);
        of_lane.map(|operation| operation.config().concurrency).max().unwrap_or(limits::LANE_DEFAULT)
    }
}

impl Room {
    /// As many places on a lane as are free, up to one batch.
    fn places(&mut self, lane: Option<&Lane>, concurrency: usize) -> Vec<Place> {
        let on_lane =
            self.lanes.entry(lane.cloned()).or_insert_with(|| Arc::new(Semaphore::new(concurrency)));
        let place = || {
            let lane = Arc::clone(on_lane).try_acquire_owned().ok()?;
            let overall = Arc::clone(&self.overall).try_acquire_owned().ok()?;
            Some(Place { _overall: overall, _lane: lane, freed: Arc::clone(&self.freed) })
        };
        std::iter::from_fn(place).take(limits::DISPATCH_BATCH).collect()
    }
}
