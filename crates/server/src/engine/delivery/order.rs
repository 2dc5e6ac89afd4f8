//! One event at a time for each value, in the order in which they were taken in (`order_by`).
//!
//! Nobody holds a lock: whose turn it is follows from what is stored (`docs/adr/0019-ordered-delivery.md`). An event waits
//! while an earlier one of its value is unfinished, or another one is running. Both are looked at before it is taken; the
//! second once more after that, when its own claim is there for all to see, so that of two who take at the same moment
//! at least one sees the other and steps back.

use std::sync::Arc;
use std::time::Duration;

use semel_core::command::{Claim, Judged, Postpone};
use semel_core::id::{Namespace, Tag};
use semel_core::query::{Cursor, Query, Summary};
use semel_core::record::StateName;
use semel_core::{Record, StoreError, Timestamp};

use super::line::Looked;
pub(in crate::engine) use super::line::Order;
use crate::config::{ORDER_TAG, Target};
use crate::engine::Engine;
use crate::engine::operation::Operation;
use crate::limits;

/// Whether it is a record's turn.
pub(in crate::engine) enum Turn {
    /// It is.
    Now,
    /// Another one is first.
    After(Box<Summary>, Looked),
}

impl Order {
    /// What the record must keep to; `None` where its target takes events in any order, or it names no value.
    pub(in crate::engine) fn of(operation: &Operation, record: &Record) -> Option<Self> {
        let Target::Delivery(target) = operation.target() else { return None };
        if !target.ordered {
            return None;
        }
        let request = record.request();
        let tag = request.tags().iter().find(|tag| tag.name.as_str() == ORDER_TAG)?;
        Some(Self { operation: request.operation().clone(), value: tag.value.clone() })
    }

    fn query(&self, states: &[StateName]) -> Query {
        let name = semel_core::id::TagName::try_new(ORDER_TAG).ok();
        Query {
            namespace: Some(Namespace::Webhook),
            states: states.to_vec(),
            operation: Some(self.operation.clone()),
            tag: name.map(|name| Tag { name, value: self.value.clone() }),
            ..Query::default()
        }
    }
}

fn place(record: &Record) -> Cursor {
    Cursor { created: record.times().created, id: record.id() }
}

impl Engine {
    /// Waits until whatever is accepted from now on was created later than `created`, and so comes after it in order: a
    /// millisecond at most. Whoever takes an ordered event in does so before it says that it is in.
    pub(crate) async fn after(&self, created: Timestamp) {
        while self.0.ledger.store().time() <= created {
            tokio::time::sleep(limits::ORDER_TICK).await;
        }
    }

    /// Whether it is the turn of this due record.
    pub(in crate::engine) async fn turn(&self, record: &Record, order: &Order) -> Result<Turn, StoreError> {
        let looked = self.0.lines.look(order);
        let is_lapsed = record.state().name() == StateName::Running;
        // What is taken over had its turn: what has come before it since then waits for its end.
        if !is_lapsed {
            // In this order: a store that reads one state after the other misses nobody who goes back from running to
            // pending meanwhile, and who went the other way is found by the second look.
            let unfinished = order.query(&[StateName::Running, StateName::Pending]);
            let before = self.0.ledger.store().search(unfinished, Some(place(record)), 1).await?;
            if let Some(first) = before.items.into_iter().next() {
                return Ok(Turn::After(Box::new(first), looked));
            }
        }
        let other = self.other_running(record, order).await?;
        // Of two whose workers died at once, the earlier one goes on.
        let other = other.filter(|other| !is_lapsed || other.cursor() < place(record));
        if let Some(other) = other {
            return Ok(Turn::After(Box::new(other), looked));
        }
        // Whoever ends from now on must not call it up: it may wait for its next try then, and that has its time.
        self.0.lines.leave(order, place(record));
        Ok(Turn::Now)
    }

    async fn other_running(&self, record: &Record, order: &Order) -> Result<Option<Summary>, StoreError> {
        let running = order.query(&[StateName::Running]);
        let running = self.0.ledger.store().search(running, None, 2).await?;
        Ok(running.items.into_iter().find(|other| other.id != record.id()))
    }

    /// Whether the holder of this claim is the only one who delivers anything of its order.
    pub(in crate::engine) async fn is_alone(&self, claim: &Claim, order: &Order) -> Result<bool, StoreError> {
        Ok(self.other_running(claim.record(), order).await?.is_none())
    }

    /// Puts a record off whose turn it is not, without spending a try; whether anything has moved.
    pub(in crate::engine) async fn wait_in_line(
        &self,
        record: &Arc<Record>,
        order: &Order,
        first: &Summary,
        looked: Looked,
    ) -> bool {
        if record.state().name() != StateName::Pending {
            // A lapsed claim cannot be put off: it is looked at again.
            return false;
        }
        let waiting = self.0.lines.wait(order, place(record), looked).unwrap_or(0);
        let now = self.0.ledger.store().time();
        let pause = pause(first, now, waiting);
        let postponed = self.put_off(record, pause).await;
        if waiting == 0 {
            self.next_in_line(order).await;
        }
        postponed
    }

    /// Something of this order has come to its end: whoever waits here for its turn is due now.
    pub(in crate::engine) async fn ended_in_order(&self, order: &Order) {
        if let Some(next) = self.0.lines.ended(order) {
            self.call_up(order, next).await;
        }
    }

    async fn next_in_line(&self, order: &Order) {
        if let Some(next) = self.0.lines.first(order) {
            self.call_up(order, next).await;
        }
    }

    async fn call_up(&self, order: &Order, next: Cursor) {
        let mut next = Some(next);
        while let Some(place) = next {
            let Ok(found) = self.0.ledger.load(place.id).await else { return };
            if let Some(record) = found.filter(|record| record.state().name() == StateName::Pending) {
                self.put_off(&record, Duration::ZERO).await;
                self.0.accepted.notify_one();
                return;
            }
            // Somebody else was quicker, or it has ended: it is the next one's turn.
            next = self.0.lines.first(order);
        }
    }

    async fn put_off(&self, record: &Arc<Record>, pause: Duration) -> bool {
        let postpone = Postpone { id: record.id(), version: record.version(), pause };
        match self.0.ledger.apply(&postpone).await {
            Ok(Judged::Done(_)) => true,
            Ok(Judged::VersionConflict(_) | Judged::Illegal(..) | Judged::NotFound) => false,
            Err(error) => {
                self.failed(error);
                false
            }
        }
    }
}

/// How long until a record is looked at again that waits for `first`, with so many others. Whoever ends before it here calls
/// it up; this is for what ends elsewhere. While `first` itself waits for its next try, so long; else twice as long each
/// time; and many in one line are not all looked at at once.
fn pause(first: &Summary, now: Timestamp, waiting: usize) -> Duration {
    let until_due =
        first.times.wake.filter(|_| first.state == StateName::Pending).map(|wake| wake.since(now));
    let age = now.since(first.times.written);
    let pause = until_due.filter(|left| !left.is_zero()).unwrap_or(age);
    let pause = pause.clamp(limits::ORDER_LOOK_MIN, limits::ORDER_LOOK_MAX);
    let others = u32::try_from(waiting).unwrap_or(u32::MAX);
    (pause + limits::ORDER_LOOK_APART.saturating_mul(others)).min(limits::ORDER_LOOK_MAX)
}
