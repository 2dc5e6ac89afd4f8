//! Finds out what nobody knows: asks the target of an unknown record whether its key took effect.
//!
//! Only operations with a configured probe are asked about, each record with growing pauses, on every node that has the
//! operation; the answers agree, and the resolution names the version that was judged.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use semel_core::command::{Judged, Resolution, Resolve};
use semel_core::outcome::{Class, Outcome};
use semel_core::query::Query;
use semel_core::record::StateName;
use semel_core::{Record, RecordId, StoreError};
use tokio::time::Instant;

use super::Engine;
use super::events::What;
use super::operation::Operation;
use super::work::Link;
use crate::limits;

/// When a record is asked about next, and how often it has been.
type Asked = HashMap<RecordId, (Instant, u32)>;

impl Engine {
    /// Until the engine stops.
    pub(super) async fn probe(self) {
        let mut asked = Asked::new();
        loop {
            if let Err(error) = self.probe_all(&mut asked).await {
                self.0.events.dispatch_failed(&error);
            }
            let next = asked.values().map(|(next, _)| *next).min();
            let look = Instant::now() + limits::PROBE_LOOK_EVERY;
            tokio::select! {
                () = self.0.stopping.cancelled() => return,
                () = self.0.unknown.notified() => {}
                () = tokio::time::sleep_until(next.map_or(look, |next| next.min(look))) => {}
            }
        }
    }

    async fn probe_all(&self, asked: &mut Asked) -> Result<(), StoreError> {
        let mut still = Asked::new();
        let operations: Vec<_> = self.0.operations.load().iter().cloned().collect();
        for operation in operations.iter().filter(|operation| operation.config().probe.is_some()) {
            let states = vec![StateName::Unknown];
            let name = Some(operation.name().clone());
            let query = Query { states, operation: name, ..Query::default() };
            let mut cursor = None;
            loop {
                let search = self.0.ledger.store().search(query.clone(), cursor, limits::PROBE_PAGE);
                let page = search.await?;
                for summary in page.items {
                    let (next, tries) = asked.remove(&summary.id).unwrap_or_else(|| (Instant::now(), 0));
                    if Instant::now() < next {
                        still.insert(summary.id, (next, tries));
                    } else if !self.probe_one(operation, summary.id).await {
                        still.insert(summary.id, (Instant::now() + pause(tries), tries + 1));
                    }
                }
                cursor = page.next;
                if cursor.is_none() || self.0.stopping.is_cancelled() {
                    break;
                }
            }
        }
        // What is no longer unknown is forgotten with the old map.
        *asked = still;
        Ok(())
    }

    /// Asks about one record; whether it is settled.
    async fn probe_one(&self, operation: &Arc<Operation>, id: RecordId) -> bool {
        let record = match self.0.ledger.load(id).await {
            Ok(Some(record)) if record.state().name() == StateName::Unknown => record,
            Ok(_) => return true,
            Err(error) => {
                self.failed(error);
                return false;
            }
        };
        match self.ask_target(operation, &record).await {
            Some(resolution) => self.resolve_probed(&record, resolution).await,
            None => false,
        }
    }

    async fn ask_target(&self, operation: &Operation, record: &Record) -> Option<Resolution> {
        let config = operation.config();
        let probe = config.probe.as_ref()?;
        let key = if config.forward_key {
            record.request().key().as_str().to_owned()
        } else {
            record.id().downstream_key(None)
        };
        let url = probe.url.replace("{key}", &key);
        let (status, headers, body) =
            self.0.targets.ask(&url, config, record.id(), record.fence()).await.ok()?;
        match status {
            StatusCode::OK => {
                let outcome = match body {
                    Some(body) => Outcome::try_new(Class::Success, 200, headers, body),
                    None => Outcome::try_without_body(Class::Success, 200, headers),
                };
                outcome.ok().map(Resolution::Completed)
            }
            // Only where the target says that it never will: else the paused first attempt may still arrive.
            StatusCode::NOT_FOUND if probe.is_final => Some(Resolution::NotExecuted),
            _ => None,
        }
    }

    async fn resolve_probed(&self, record: &Arc<Record>, resolution: Resolution) -> bool {
        let resolve = Resolve {
            id: record.id(),
            version: record.version(),
            resolution,
            actor: "probe".into(),
            reason: "the target was asked about the key".into(),
            correlation_id: None,
        };
        match self.0.ledger.apply(&resolve).await {
            Ok(Judged::Done(record)) => {
                self.tell(What::Probed, &record, &Link::default());
                true
            }
            // Somebody else settled it, or its holder came back.
            Ok(Judged::VersionConflict(_) | Judged::Illegal(..) | Judged::NotFound) => true,
            Err(error) => {
                self.failed(error);
                false
            }
        }
    }
}

fn pause(tries: u32) -> Duration {
    limits::PROBE_FIRST.saturating_mul(1 << tries.min(16)).min(limits::PROBE_CAP)
}
