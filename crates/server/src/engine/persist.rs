//! Writes that must not be given up at the first failure: the end of an attempt whose work has run (L12), and the
//! return of a claim that was given to nobody.

use std::time::Duration;

use semel_core::command::{Command, Held};
use semel_core::id::Holder;
use semel_core::ledger::{Abandoned, LedgerError, LedgerErrorKind};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::Engine;
use super::ask::{EngineError, EngineErrorKind};
use super::run::became;
use super::work::Link;
use crate::limits;

impl Engine {
    /// Has a command that ends an attempt, and came to `first`, stored after all. It may be repeated: its answer is
    /// the same. Whoever waits is answered soon; the rest goes on in the background for as long as the lease, since
    /// nobody else can claim meanwhile. After that the record stays running and lapses; it is never released.
    pub(super) async fn persist<C>(
        &self,
        command: C,
        lease: Duration,
        link: &Link,
        first: Result<Held, LedgerError>,
    ) -> Result<Held, EngineError>
    where
        C: Command<Answer = Held> + 'static,
    {
        let error = match first {
            Ok(held) => return Ok(held),
            Err(error) => error,
        };
        let until = Instant::now() + lease;
        let (answer, answered) = oneshot::channel();
        let (engine, link) = (self.clone(), link.clone());
        self.0.tasks.spawn(async move {
            let ended = engine.repeat(&command, until, error).await;
            // Nobody waits any more: then it is told here.
            if let Err(Ok(Held::Done(record))) = answer.send(ended) {
                engine.tell(became(&record), &record, &link);
            }
        });
        match tokio::time::timeout(limits::PERSIST_ANSWER_WITHIN, answered).await {
            Ok(Ok(ended)) => {
                ended.map_err(|error| EngineError::new(EngineErrorKind::Storage).with_source(error))
            }
            Ok(Err(_)) | Err(_) => Err(EngineError::new(EngineErrorKind::Storage)),
        }
    }

    async fn repeat<C>(&self, command: &C, until: Instant, first: LedgerError) -> Result<Held, LedgerError>
    where
        C: Command<Answer = Held>,
    {
        let (mut last, mut pause) = (first, limits::PERSIST_PAUSE_FIRST);
        loop {
            self.0.events.storage_failed(&last);
            if last.kind() == LedgerErrorKind::Corrupt || self.is_in_vain(until, pause) {
                tracing::error!(
                    record_id = %command.id(), error = %last,
                    "the end of an attempt could not be stored: its record stays running, and lapses"
                );
                return Err(last);
            }
            sleep(pause).await;
            pause = (pause * 2).min(limits::PERSIST_PAUSE_MAX);
            match self.0.ledger.apply(command).await {
                Ok(held) => return Ok(held),
                Err(error) => last = error,
            }
        }
    }

    /// Gives a claim back that was found after its caller had been refused, until that holds or its lease is over.
    pub(super) async fn abandon(&self, orphan: Holder, lease: Duration) {
        // A write in doubt may still happen until its deadline, and the lease would begin then.
        let until = Instant::now() + lease + semel_core::limits::WRITE_WITHIN;
        let mut pause = limits::PERSIST_PAUSE_FIRST;
        loop {
            match self.0.ledger.abandon(orphan).await {
                Ok(Abandoned::GivenBack) => return,
                // It may still be on its way.
                Ok(Abandoned::NotFound) if self.is_in_vain(until - lease, pause) => return,
                Ok(Abandoned::NotFound) => {}
                Err(error) => {
                    self.0.events.storage_failed(&error);
                    if self.is_in_vain(until, pause) {
                        tracing::warn!(record_id = %orphan.id, %error, "a claim that nobody holds is left to its lapse");
                        return;
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(limits::PERSIST_PAUSE_MAX);
        }
    }

    fn is_in_vain(&self, until: Instant, pause: Duration) -> bool {
        Instant::now() + pause >= until || self.0.giving_up.is_cancelled()
    }
}
