//! Delivers events to targets: signed, under one key and a rising fence, and told try by try.
//!
//! A target of a source is an operation of the engine, so an event is taken, kept, retried and buried as all accepted
//! work is. What is its own stands here.
//!
//! Rooms: [`send`] one try over HTTP · [`tried`] what a try came to · [`circuit`] which targets are left alone for a
//! while · [`order`] one event at a time for each value · [`mod@line`] who waits for whom.

use std::sync::{Arc, OnceLock};

use semel_core::command::{Accept, Accepted, Claim};
use tokio::time::Instant;

use super::ask::{EngineError, Execution};
use super::work::Work;
use super::{Engine, Link};
use crate::config::DeliveryTarget;

pub(super) mod circuit;
mod line;
pub(super) mod order;
mod send;
pub(super) mod tried;

pub use circuit::CircuitState;
pub(super) use circuit::Circuits;
pub(super) use line::Lines;
pub(super) use tried::Heard;
pub use tried::{Tried, TryResult};

impl Engine {
    /// One try of an event, to its end: sent, judged, told, stored.
    pub(super) async fn run_delivery(
        &self,
        claim: Claim,
        sent: Instant,
        work: &Work,
        target: &Arc<DeliveryTarget>,
    ) -> Result<Execution, EngineError> {
        let (began, heard) = (Instant::now(), OnceLock::new());
        let reply = self.attempt(&claim, sent, work, &heard).await;
        let tried = Tried::of(target, claim.attempt(), began.elapsed(), &reply, heard.into_inner());
        self.0.events.tried(&tried, claim.record(), &work.link);
        if let Some(change) = self.0.circuits.heard(work.operation.lane(), target, tried.result_of_target()) {
            self.0.events.circuit(target, change);
        }
        let link = Link { tried: Some(Arc::new(tried)), ..work.link.clone() };
        self.settle(claim, reply, &link).await
    }

    /// Takes an event or an alert in, durably, also while the server goes down; a worker delivers it.
    ///
    /// # Errors
    /// The store has no answer: it may be in, and taking it in again tells.
    pub(crate) async fn file(&self, accept: &Accept) -> Result<Accepted, EngineError> {
        let accepted = self.0.ledger.accept(accept).await.map_err(|error| self.failed(error))?;
        if let Accepted::Accepted(record) = &accepted
            && record.due().is_some()
        {
            self.0.accepted.notify_one();
        }
        Ok(accepted)
    }
}
