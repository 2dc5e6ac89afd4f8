//! What waits for the log: the batch that is being gathered while the one before it is synced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use semel_core::audit::Entry;
use semel_core::{Fence, Record, RecordId, StoreError, Timestamp};

use crate::codec;
use crate::embedded::batch::Batch;
use crate::embedded::frame::{self, Kind};
use crate::embedded::index::Place;
use crate::limits::QUEUE_BYTES_MAX;

/// Bytes of the payload of a [`Kind::Mark`]: time, floor, and the lowest number of an audit entry that is not forgotten.
pub(crate) const MARK_BYTES: usize = 24;

/// What a frame does to the index once it is durable.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A version of a record, in the place of `before`.
    Put { record: Arc<Record>, before: Option<Arc<Record>>, audit: Option<(u64, Timestamp)> },
    /// The end of a record.
    Remove { before: Arc<Record> },
    /// The same version of a record, in a newer segment.
    Move { id: RecordId, from: Place },
    /// An audit entry.
    Audit { sequence: u64, at: Timestamp },
    /// An audit entry that was there, in a newer segment.
    MoveAudit,
    /// Nothing: somebody wants to know that all before it is durable.
    Nothing,
}

impl Effect {
    /// The record that is written, where somebody waits for that.
    pub(crate) fn written(&self) -> Option<RecordId> {
        match self {
            Self::Put { record, .. } => Some(record.id()),
            Self::Remove { before } => Some(before.id()),
            Self::Move { .. } | Self::Audit { .. } | Self::MoveAudit | Self::Nothing => None,
        }
    }
}

/// A frame on its way to the disk.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) len: usize,
    pub(crate) place: Place,
    pub(crate) effect: Effect,
}

/// Frames that will be synced together, one after the other in `bytes` behind room for the mark.
pub(crate) struct Gathered {
    pub(crate) bytes: Vec<u8>,
    pub(crate) steps: Vec<Step>,
    /// How many of the steps have somebody who waits for them and may come back with another.
    pub(crate) writers: usize,
    pub(crate) batch: Arc<Batch>,
}

impl Gathered {
    pub(crate) fn new() -> Self {
        let mut gathered = Self { bytes: Vec::new(), steps: Vec::new(), writers: 0, batch: Arc::default() };
        gathered.clear();
        gathered
    }

    /// Makes it ready to gather anew, with the memory it has.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(QUEUE_BYTES_MAX / 8);
        self.steps.clear();
        self.writers = 0;
        self.batch = Arc::default();
        frame::append(&mut self.bytes, Kind::Mark, |bytes| bytes.extend_from_slice(&[0; MARK_BYTES]));
    }
}

struct State {
    gathering: Gathered,
    /// Memory of the batch before, for the batch after.
    spare: Option<Gathered>,
    sleeping: bool,
    /// The log thread lets writers gather until there are so many.
    wanted: usize,
    /// How many writers there have been.
    written: u64,
    closed: bool,
    next_audit: Numbering,
}

/// What the next audit entry is given: numbers and times rise together, in the order of the log.
struct Numbering {
    next: u64,
    at: Timestamp,
}

impl Numbering {
    fn number(&mut self, entry: Entry) -> (u64, Entry) {
        self.at = self.at.max(entry.at);
        self.next += 1;
        (self.next - 1, entry.at(self.at))
    }
}

/// What there is to do for the log thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A batch waits.
    Some,
    /// Nothing yet.
    None,
    /// Nothing any more.
    Over,
}

/// The queue before the log.
pub(crate) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    /// Whether anything is gathered, for who looks without the lock.
    has_work: AtomicBool,
    frame_max: usize,
}

impl Queue {
    /// A queue that takes frames of up to `frame_max` bytes.
    pub(crate) fn new(frame_max: usize, next_audit: u64) -> Self {
        let state = State {
            gathering: Gathered::new(),
            spare: None,
            sleeping: false,
            wanted: usize::MAX,
            written: 0,
            closed: false,
            next_audit: Numbering { next: next_audit, at: Timestamp::ZERO },
        };
        Self { state: Mutex::new(state), work: Condvar::new(), has_work: AtomicBool::new(false), frame_max }
    }

    /// The batch to wait for when too much is waiting already.
    pub(crate) fn crowded(&self) -> Option<Arc<Batch>> {
        let state = self.state.lock();
        (state.gathering.bytes.len() > QUEUE_BYTES_MAX).then(|| Arc::clone(&state.gathering.batch))
    }

    fn push(
        &self,
        during: &'static str,
        kind: Kind,
        append: impl FnOnce(&mut Vec<u8>, &mut Numbering) -> Effect,
    ) -> Result<Arc<Batch>, StoreError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(StoreError::not_applied(during, false, "the store is closed"));
        }
        let State { gathering, next_audit, .. } = &mut *state;
        let before = gathering.bytes.len();
        let mut effect = Effect::Nothing;
        let len = frame::append(&mut gathering.bytes, kind, |bytes| effect = append(bytes, next_audit));
        if len > self.frame_max {
            gathering.bytes.truncate(before);
            let message = format!("a record of {len} bytes; a segment holds {}", self.frame_max);
            return Err(StoreError::too_large(during, message));
        }
        let is_write = effect.written().is_some();
        gathering.writers += usize::from(is_write);
        gathering.steps.push(Step { len, place: Place::NONE, effect });
        let batch = Arc::clone(&gathering.batch);
        let enough = gathering.writers >= state.wanted;
        state.written += u64::from(is_write);
        let wake = std::mem::take(&mut state.sleeping) || enough;
        self.has_work.store(true, Ordering::Release);
        drop(state);
        if wake {
            self.work.notify_one();
        }
        Ok(batch)
    }

    /// Appends a version of a record, and the audit entry that goes with it.
    pub(crate) fn put(
        &self,
        during: &'static str,
        record: Arc<Record>,
        before: Option<Arc<Record>>,
        entry: Option<Entry>,
    ) -> Result<Arc<Batch>, StoreError> {
        self.push(during, Kind::Record, |bytes, next_audit| {
            codec::encode_record(&record, bytes);
            let audit = entry.map(|entry| {
                let (sequence, entry) = next_audit.number(entry);
                codec::encode_audit(sequence, &entry, bytes);
                (sequence, entry.at)
            });
            Effect::Put { record, before, audit }
        })
    }

    /// Appends the removal of a record.
    pub(crate) fn remove(&self, during: &'static str, before: Arc<Record>) -> Result<Arc<Batch>, StoreError> {
        self.push(during, Kind::Removal, |bytes, _| {
            bytes.extend_from_slice(before.id().as_bytes());
            bytes.extend_from_slice(&before.fence().0.to_le_bytes());
            Effect::Remove { before }
        })
    }

    /// Appends audit entries of their own.
    pub(crate) fn audit(&self, during: &'static str, entry: Entry) -> Result<Arc<Batch>, StoreError> {
        self.push(during, Kind::Audit, |bytes, next_audit| {
            let (sequence, entry) = next_audit.number(entry);
            codec::encode_audit(sequence, &entry, bytes);
            Effect::Audit { sequence, at: entry.at }
        })
    }

    /// Appends a record's or audit entry's bytes again, for a merge.
    pub(crate) fn carry(&self, kind: Kind, payload: &[u8], effect: Effect) -> Result<Arc<Batch>, StoreError> {
        self.push("merge", kind, |bytes, _| {
            bytes.extend_from_slice(payload);
            effect
        })
    }

    /// A batch that is durable when all before it is.
    pub(crate) fn barrier(&self) -> Result<Arc<Batch>, StoreError> {
        self.push("sync", Kind::Mark, |bytes, _| {
            bytes.extend_from_slice(&[0; MARK_BYTES]);
            Effect::Nothing
        })
    }

    /// Takes what was gathered, if anything was.
    pub(crate) fn take(&self) -> Option<Gathered> {
        let mut state = self.state.lock();
        if state.gathering.steps.is_empty() {
            return None;
        }
        self.has_work.store(false, Ordering::Release);
        let fresh = state.spare.take().unwrap_or_else(Gathered::new);
        Some(std::mem::replace(&mut state.gathering, fresh))
    }

    /// Waits until there is something to take, the queue is closed, or `patience` ends, if there is one.
    pub(crate) fn wait(&self, patience: Option<Duration>) -> Work {
        let mut state = self.state.lock();
        while state.gathering.steps.is_empty() {
            if state.closed {
                return Work::Over;
            }
            state.sleeping = true;
            match patience {
                None => self.work.wait(&mut state),
                Some(patience) => {
                    if self.work.wait_for(&mut state, patience).timed_out() {
                        state.sleeping = false;
                        return Work::None;
                    }
                }
            }
        }
        Work::Some
    }

    /// Stays awake until there is something to take, or it is too late: for a writer who is alone, putting the log's
    /// thread to sleep and waking it costs about as much as half a sync.
    pub(crate) fn expect(&self, until: Instant) {
        while !self.has_work.load(Ordering::Acquire) && Instant::now() < until {
            std::hint::spin_loop();
        }
    }

    /// How many writers there have been since the start.
    pub(crate) fn written(&self) -> u64 {
        self.state.lock().written
    }

    /// How many writers wait for the next batch.
    pub(crate) fn writers(&self) -> usize {
        self.state.lock().gathering.writers
    }

    /// Lets writers gather until there are so many, or it is too late.
    pub(crate) fn gather(&self, writers: usize, until: Instant) {
        let mut state = self.state.lock();
        state.wanted = writers;
        while state.gathering.writers < writers && !state.closed {
            if self.work.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.wanted = usize::MAX;
    }

    /// Gives memory back for the next batch.
    pub(crate) fn reuse(&self, mut gathered: Gathered) {
        gathered.clear();
        self.state.lock().spare = Some(gathered);
    }

    /// Whether anything more is taken.
    pub(crate) fn check_open(&self, during: &'static str) -> Result<(), StoreError> {
        if self.state.lock().closed {
            return Err(StoreError::not_applied(during, false, "the store is closed"));
        }
        Ok(())
    }

    /// Takes nothing more.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_all();
    }
}

/// The payload of a mark.
pub(crate) fn mark_payload(time: Timestamp, floor: Fence, audit_floor: u64) -> [u8; MARK_BYTES] {
    let mut payload = [0; MARK_BYTES];
    payload[..8].copy_from_slice(&time.as_millis().to_le_bytes());
    payload[8..16].copy_from_slice(&floor.0.to_le_bytes());
    payload[16..].copy_from_slice(&audit_floor.to_le_bytes());
    payload
}
