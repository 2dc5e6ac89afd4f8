//! Lapses that nobody asks about, payloads that go before their records, and records that have expired.

use std::sync::Arc;

use semel_core::Record;
use semel_core::command::{Dropped, Lapsed};
use semel_core::record::StateName;

use super::Engine;
use super::events::What;
use super::work::Link;
use crate::limits;

impl Engine {
    /// Sweeps what has expired in small steps, until the engine stops.
    pub(super) async fn reap(self) {
        loop {
            let pause = match self.0.ledger.store().sweep(limits::SWEEP_BATCH).await {
                // More than one step's worth: go on, but let live traffic in between.
                Ok(swept) if swept >= limits::SWEEP_BATCH => limits::SWEEP_AGAIN,
                Ok(_) => limits::SWEEP_EVERY,
                Err(error) => {
                    self.0.events.dispatch_failed(&error);
                    limits::SWEEP_EVERY
                }
            };
            tokio::select! {
                () = self.0.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Applies the lapse of a claim that no worker can take over; whether anything has moved.
    pub(super) async fn lapse(&self, record: &Arc<Record>) -> bool {
        match self.0.ledger.lapse(record.id()).await {
            Ok(Lapsed::Unknown(record) | Lapsed::Parked(record)) => {
                self.tell_end(&record);
                true
            }
            Ok(Lapsed::Nothing) => false,
            Err(error) => {
                self.failed(error);
                false
            }
        }
    }

    /// Drops the payload of what is done, since its time has come; whether it is gone. Nobody is told: nothing that was
    /// answered changes.
    pub(super) async fn drop_payload(&self, record: &Arc<Record>) -> bool {
        match self.0.ledger.drop_payload(record).await {
            Ok(Dropped::Gone(_)) => true,
            // Another node was quicker, or the record has expired and waits for the sweep.
            Ok(Dropped::Nothing) => false,
            Err(error) => {
                self.failed(error);
                false
            }
        }
    }

    /// Tells what a lapse, or the last of too many tries, has made of a record.
    pub(super) fn tell_end(&self, record: &Arc<Record>) {
        let link = Link::default();
        match record.state().name() {
            StateName::Unknown => {
                self.tell(What::Lapsed, record, &link);
                self.tell(What::Unknown, record, &link);
            }
            StateName::Dead => self.tell(What::Dead, record, &link),
            StateName::Running | StateName::Pending | StateName::Released | StateName::Completed => {
                self.tell(What::Lapsed, record, &link);
            }
        }
    }
}
