//! Works what was accepted, and what a dead worker has left: takes what is due, lane by lane, and runs it.
//!
//! Any number of nodes may do so over one store: taking is a compare-and-swap, so each record has one worker. Before
//! anything is taken it is asked whether its target's circuit lets it through, and where events of a value are delivered one
//! at a time, whether it is its turn: neither spends a try.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::poll;
use parking_lot::Mutex;
use semel_core::command::{Claim, Judged, Postpone, Taken};
use semel_core::id::Lane;
use semel_core::record::StateName;
use semel_core::{Record, StoreError};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Engine;
use super::delivery::CircuitState;
use super::delivery::order::{Order, Turn};
use super::events::What;
use super::work::Work;
use crate::limits;

/// How many tries are under way, on each lane.
#[derive(Clone, Default)]
struct Room(Arc<RoomShared>);

#[derive(Default)]
struct RoomShared {
    under_way: Mutex<HashMap<Option<Lane>, usize>>,
    /// A try has ended.
    freed: Notify,
}

/// A place for one try.
struct Place {
    room: Room,
    lane: Option<Lane>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.room.0.under_way.lock();
        if let Some(count) = under_way.get_mut(&self.lane) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.lane);
            }
        }
    }
}

impl Place {
    /// The try that had it has ended: there may be another. (A place that was not used wakes nobody, or a store that
    /// fails would be asked again at once.)
    fn free(self) {
        let room = self.room.clone();
        drop(self);
        room.0.freed.notify_one();
    }
}

impl Room {
    fn on(&self, lane: Option<&Lane>) -> usize {
        self.0.under_way.lock().get(&lane.cloned()).copied().unwrap_or_default()
    }

    fn in_all(&self) -> usize {
        self.0.under_way.lock().values().sum()
    }

    /// So many places on this lane.
    fn places(&self, lane: Option<&Lane>, number: usize) -> Vec<Place> {
        if number > 0 {
            *self.0.under_way.lock().entry(lane.cloned()).or_default() += number;
        }
        let place = || Place { room: self.clone(), lane: lane.cloned() };
        std::iter::repeat_with(place).take(number).collect()
    }
}

impl Engine {
    /// Until the engine stops.
    pub(super) async fn dispatch(self, concurrency: usize) {
        let room = Room::default();
        while !self.0.stopping.is_cancelled() {
            // Watched from before it is looked, so that nothing falls between the two.
            let mut changed = self.0.ledger.store().due_changed(limits::DISPATCH_LOOK_EVERY);
            let told = poll!(&mut changed);
            let pause = match (self.dispatch_due(&room, concurrency).await, told) {
                (Ok(0), Poll::Pending) => self.until_due().await,
                (Ok(_), Poll::Ready(Ok(())) | Poll::Pending) => continue,
                (Err(error), _) | (_, Poll::Ready(Err(error))) => {
                    tokio::select! {
                        () = self.0.stopping.cancelled() => {}
                        () = tokio::time::sleep(self.dispatch_failed(&error)) => {}
                    }
                    continue;
                }
            };
            tokio::select! {
                () = self.0.stopping.cancelled() => {}
                () = room.0.freed.notified() => {}
                () = self.0.accepted.notified() => {}
                _ = changed => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn dispatch_failed(&self, error: &StoreError) -> Duration {
        self.0.events.dispatch_failed(error);
        limits::DISPATCH_AFTER_FAILURE
    }

    /// Takes what is due on every lane, as far as there is room; how many have moved. The lane with the fewest tries
    /// under way comes first, and none is given more than its part of what is left: a target that hangs fills its own
    /// lane, and no other's.
    async fn dispatch_due(&self, room: &Room, concurrency: usize) -> Result<usize, StoreError> {
        let mut lanes = self.0.ledger.store().lanes().await?;
        lanes.sort_by_key(|lane| room.on(lane.as_ref()));
        let (mut moved, mut lanes_left) = (0, lanes.len());
        for lane in lanes {
            let left = concurrency.saturating_sub(room.in_all());
            let part = left.div_ceil(lanes_left);
            lanes_left -= 1;
            let on_lane = self.concurrency_of(lane.as_ref()).saturating_sub(room.on(lane.as_ref()));
            // What is in no lane is run by nobody here: only its lapse is seen, or its payload dropped.
            let number = if lane.is_none() { limits::DISPATCH_BATCH } else { part.min(on_lane) };
            let number = number.min(limits::DISPATCH_BATCH).min(self.let_through(room, lane.as_ref()));
            if number == 0 {
                continue;
            }
            let due = self.0.ledger.store().take_due(lane.clone(), number).await?.value;
            let places = room.places(lane.as_ref(), due.len());
            let takes = due.iter().zip(places).map(|(record, place)| self.take(record, place));
            moved += join_all(takes).await.into_iter().filter(|has_moved| *has_moved).count();
        }
        Ok(moved)
    }

    /// How many more tries the circuit of this lane's target lets through.
    fn let_through(&self, room: &Room, lane: Option<&Lane>) -> usize {
        let Some(lane) = lane else { return usize::MAX };
        let (number, half_open) = self.0.circuits.room(lane, room.on(Some(lane)));
        if let Some(target) = half_open {
            self.0.events.circuit(&target, CircuitState::HalfOpen);
        }
        number
    }

    /// Takes one record and runs it apart from the dispatcher; whether anything about it has moved.
    async fn take(&self, record: &Arc<Record>, place: Place) -> bool {
        if record.state().name() == StateName::Completed {
            return self.drop_payload(record).await;
        }
        let name = record.request().operation().as_str();
        let operation = self.operation(name);
        if record.state().name() == StateName::Pending && operation.is_none() {
            return self.postpone(record).await;
        }
        let order = operation.as_ref().and_then(|operation| Order::of(operation, record));
        if let Some(order) = &order {
            match self.turn(record, order).await {
                Ok(Turn::Now) => {}
                Ok(Turn::After(first, looked)) => {
                    return self.wait_in_line(record, order, &first, looked).await;
                }
                Err(error) => {
                    self.0.events.dispatch_failed(&error);
                    return false;
                }
            }
        }
        let sent = Instant::now();
        match self.0.ledger.take(record).await {
            Ok(Taken::Granted(claim)) => {
                let engine = self.clone();
                self.0.tasks.spawn(async move {
                    let ended = engine.run_taken(claim, sent, order.as_ref()).await;
                    place.free();
                    if let Some(order) = order.filter(|_| ended) {
                        engine.ended_in_order(&order).await;
                    }
                });
                true
            }
            Ok(Taken::Ended(record)) => {
                self.tell_end(&record);
                if let Some(order) = order {
                    self.ended_in_order(&order).await;
                }
                true
            }
            // Only its client can go on with it, or nobody: the reaper's part.
            Ok(Taken::NotDue(Some(record))) => self.lapse(&record).await,
            Ok(Taken::NotDue(None)) => false,
            Err(error) => {
                self.claim_failed(error, record.request().policy().lease());
                false
            }
        }
    }

    /// Nobody here knows how to do it. Another node may, or this one after its next reload: it waits, and spends no
    /// try.
    async fn postpone(&self, record: &Record) -> bool {
        let pause = limits::DISPATCH_WITHOUT_OPERATION;
        match self.0.ledger.apply(&Postpone { id: record.id(), version: record.version(), pause }).await {
            Ok(Judged::Done(record)) => {
                let operation = record.request().operation().as_str();
                tracing::warn!(record_id = %record.id(), operation, "accepted work has no operation here, and waits");
                true
            }
            Ok(Judged::VersionConflict(_) | Judged::Illegal(..) | Judged::NotFound) => false,
            Err(error) => {
                self.failed(error);
                false
            }
        }
    }

    /// Runs what was taken; whether that was its end.
    pub(super) async fn run_taken(&self, claim: Claim, sent: Instant, order: Option<&Order>) -> bool {
        let name = claim.record().request().operation().as_str();
        let work = self.operation(name).and_then(|operation| Work::held(operation, claim.record()));
        let link = work.as_ref().map(|work| work.link.clone()).unwrap_or_default();
        self.tell(What::Taken, claim.record(), &link);
        // What comes of it is in the record, and is told to metrics and log.
        let ended = if let Some(detail) = self.stepping_back(&claim, order).await {
            self.give_back(claim, detail, Some(limits::ORDER_LOOK_MIN), false, &link).await
        } else if let Some(work) = work {
            self.run_claim(claim, sent, &work).await
        } else {
            let detail = "no operation of that name is configured on the node that took it over";
            let pause = limits::DISPATCH_WITHOUT_OPERATION;
            self.give_back(claim, detail, Some(pause), false, &link).await
        };
        match ended {
            Ok(execution) => match execution.record().state().name() {
                StateName::Pending | StateName::Running => false,
                StateName::Released | StateName::Completed | StateName::Unknown | StateName::Dead => true,
            },
            Err(error) => {
                tracing::warn!(%error, "accepted work could not be settled");
                false
            }
        }
    }

    /// Why a claim that is there must be given back unused: another of its order is running, or nobody can say.
    async fn stepping_back(&self, claim: &Claim, order: Option<&Order>) -> Option<&'static str> {
        match self.is_alone(claim, order?).await {
            Ok(true) => None,
            Ok(false) => Some("another event of the same value is being delivered"),
            Err(error) => {
                self.0.events.dispatch_failed(&error);
                Some("the store does not say whether another event of the same value is being delivered")
            }
        }
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
            Err(error) => self.dispatch_failed(&error),
        }
    }

    fn concurrency_of(&self, lane: Option<&Lane>) -> usize {
        let operations = self.0.operations.load();
        let of_lane = operations.iter().filter(|operation| Some(operation.lane()) == lane);
        of_lane.map(|operation| operation.config().concurrency).max().unwrap_or(limits::LANE_DEFAULT)
    }
}
