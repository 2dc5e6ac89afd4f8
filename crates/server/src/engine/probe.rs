//! Finds out what nobody knows: asks the target of an unknown record whether its key took effect.
//!
//! Only operations with a configured probe are asked about, each record with growing pauses, on every node that has the
//! operation; the answers agree, and the resolution names the version that was judged. Each operation has its own
//! queue and its own few questions at once, so that a target which hangs keeps no other waiting.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use semel_core::command::{Judged, Resolution, Resolve};
use semel_core::outcome::{Class, Outcome};
use semel_core::query::Query;
use semel_core::record::StateName;
use semel_core::{Record, RecordId, StoreError};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Engine;
use super::events::What;
use super::operation::Operation;
use super::work::Link;
use crate::limits;

/// Records of which somebody in this process has seen that they are unknown.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    seen: Mutex<Seen>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    records: Vec<(RecordId, Arc<Operation>)>,
    /// There were more than it holds: they have to be looked for.
    overflowed: bool,
}

impl Mailbox {
    /// A record of this operation is unknown.
    pub(super) fn put(&self, id: RecordId, operation: Arc<Operation>) {
        {
            let mut seen = self.seen.lock();
            if seen.records.len() < limits::PROBE_PAGE {
                seen.records.push((id, operation));
            } else {
                seen.overflowed = true;
            }
        }
        self.filled.notify_one();
    }

    /// Other operations are configured: what is unknown of them has to be looked for.
    pub(super) fn look(&self) {
        self.seen.lock().overflowed = true;
        self.filled.notify_one();
    }

    fn empty(&self) -> Seen {
        std::mem::take(&mut self.seen.lock())
    }
}

/// The records of one operation that are to be asked about.
#[derive(Default)]
struct Queue {
    known: HashSet<RecordId>,
    /// By the time of the next question, with the number of those before it.
    waiting: BTreeMap<(Instant, RecordId), u32>,
    under_way: usize,
}

impl Queue {
    fn add(&mut self, id: RecordId) {
        if self.known.len() < limits::PROBES_KNOWN_MAX && self.known.insert(id) {
            self.waiting.insert((Instant::now() + limits::PROBE_FIRST, id), 0);
        }
    }

    /// The next one to ask about, if its time has come and there is room for a question.
    fn next(&mut self) -> Option<(RecordId, u32)> {
        if self.next_at()? > Instant::now() {
            return None;
        }
        let ((_, id), tries) = self.waiting.pop_first()?;
        self.under_way += 1;
        Some((id, tries))
    }

    /// When that will be, as far as time decides it.
    fn next_at(&self) -> Option<Instant> {
        let room = self.under_way < limits::PROBES_AT_ONCE;
        self.waiting.first_key_value().filter(|_| room).map(|((at, _), _)| *at)
    }

    fn answered(&mut self, answer: &Answered) {
        self.under_way = self.under_way.saturating_sub(1);
        if answer.is_settled {
            self.known.remove(&answer.id);
        } else {
            let at = Instant::now() + pause(answer.tries);
            self.waiting.insert((at, answer.id), answer.tries.saturating_add(1));
        }
    }
}

/// What came of a question.
struct Answered {
    operation: semel_core::Operation,
    id: RecordId,
    tries: u32,
    is_settled: bool,
}

impl Engine {
    /// Until the engine stops.
    pub(super) async fn probe(self) {
        let stopping = self.0.stopping.clone();
        // Questions change nothing, so a shutdown waits for none.
        tokio::select! {
            () = stopping.cancelled() => {}
            () = self.probe_forever() => {}
        }
    }

    async fn probe_forever(self) {
        let mut queues: HashMap<semel_core::Operation, Queue> = HashMap::new();
        let mut questions = JoinSet::new();
        let mut look = Instant::now();
        loop {
            let seen = self.0.unknown.empty();
            for (id, operation) in seen.records {
                queues.entry(operation.name().clone()).or_default().add(id);
            }
            if seen.overflowed || Instant::now() >= look {
                if let Err(error) = self.find_unknown(&mut queues).await {
                    self.0.events.dispatch_failed(&error);
                }
                look = Instant::now() + limits::PROBE_LOOK_EVERY;
            }
            for (operation, queue) in &mut queues {
                while let Some((id, tries)) = queue.next() {
                    let (engine, operation) = (self.clone(), operation.clone());
                    questions.spawn(async move {
                        let is_settled = engine.probe_one(&operation, id).await;
                        Answered { operation, id, tries, is_settled }
                    });
                }
            }
            let next = queues.values().filter_map(Queue::next_at).min().map_or(look, |at| at.min(look));
            tokio::select! {
                () = self.0.unknown.filled.notified() => {}
                () = tokio::time::sleep_until(next) => {}
                Some(answer) = questions.join_next() => {
                    let answer = answer.ok();
                    let queue = answer.as_ref().and_then(|answer| queues.get_mut(&answer.operation));
                    if let (Some(queue), Some(answer)) = (queue, &answer) {
                        queue.answered(answer);
                    }
                }
            }
        }
    }

    /// Finds what an earlier process, or another node, has left unknown.
    async fn find_unknown(
        &self,
        queues: &mut HashMap<semel_core::Operation, Queue>,
    ) -> Result<(), StoreError> {
        let operations: Vec<_> = self.0.operations.load().iter().cloned().collect();
        for operation in operations.iter().filter(|operation| operation.config().probe.is_some()) {
            let queue = queues.entry(operation.name().clone()).or_default();
            let states = vec![StateName::Unknown];
            let query = Query { states, operation: Some(operation.name().clone()), ..Query::default() };
            let mut cursor = None;
            loop {
                let page = self.0.ledger.store().search(query.clone(), cursor, limits::PROBE_PAGE).await?;
                page.items.iter().for_each(|summary| queue.add(summary.id));
                cursor = page.next;
                if cursor.is_none() || queue.known.len() >= limits::PROBES_KNOWN_MAX {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Asks about one record; whether there is nothing more to ask.
    async fn probe_one(&self, operation: &semel_core::Operation, id: RecordId) -> bool {
        let Some(operation) = self.operation(operation.as_str()) else { return true };
        let record = match self.0.ledger.load(id).await {
            Ok(Some(record)) if record.state().name() == StateName::Unknown => record,
            Ok(_) => return true,
            Err(error) => {
                self.failed(error);
                return false;
            }
        };
        match self.ask_target(&operation, &record).await {
            Some(resolution) => self.resolve_probed(&record, resolution).await,
            None => operation.config().probe.is_none(),
        }
    }

    async fn ask_target(&self, operation: &Operation, record: &Record) -> Option<Resolution> {
        let probe = operation.config().probe.as_ref()?;
        let url = probe.url.replace("{key}", &in_path(&operation.target_key(record)));
        let (status, headers, body) = self
            .0
            .targets
            .ask(&url, operation, record)
            .await
            .inspect_err(|why| tracing::debug!(record_id = %record.id(), why, "a probe had no answer"))
            .ok()?;
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
            // Its holder came back, or it was settled: whether there is more to ask, its next load tells.
            Ok(Judged::VersionConflict(_) | Judged::Illegal(..)) => false,
            Ok(Judged::NotFound) => true,
            Err(error) => {
                self.failed(error);
                false
            }
        }
    }
}

/// A key as one segment of a path: whatever it holds, it leads nowhere else.
fn in_path(key: &str) -> String {
    let mut path = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            // Writing into a text cannot fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

fn pause(tries: u32) -> Duration {
    limits::PROBE_FIRST.saturating_mul(2 << tries.min(16)).min(limits::PROBE_CAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_a_path_leads_nowhere_else() {
        assert_eq!(in_path("order-1_a~"), "order-1_a~");
        assert_eq!(in_path("../x?a=b#c d%é"), "%2E%2E%2Fx%3Fa%3Db%23c%20d%25%C3%A9");
    }

    #[test]
    fn pauses_double_up_to_their_cap() {
        assert_eq!(pause(0), limits::PROBE_FIRST * 2);
        assert_eq!(pause(1), limits::PROBE_FIRST * 4);
        assert_eq!(pause(u32::MAX), limits::PROBE_CAP);
    }
}
