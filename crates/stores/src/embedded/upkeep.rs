//! What happens beside the commits: files made ready, sidecars written, expired records swept, old segments merged and
//! dropped. Nothing that commits waits for any of it.
//!
//! Segments leave at the old end only. So nothing older than a segment that is dropped can still hold a version of what
//! it holds, and no removal, release or completion is forgotten before the claim that it ended: the dead do
//! not come back, and removals need no keeping.
//!
//! A merge copies what is still current in the oldest segment to the end of the log, through the queue like every write, and
//! the index follows when the copy is durable. Crashed in the middle, both copies are there, equal, and the newer one counts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use semel_core::{StoreError, Timestamp};

use crate::codec;
use crate::embedded::audit_list::AuditLine;
use crate::embedded::batch::{Batch, Fate};
use crate::embedded::disk::Folder;
use crate::embedded::engine::{Engine, Health};
use crate::embedded::frame::Kind;
use crate::embedded::index::{Place, tag_of};
use crate::embedded::listing::Entry;
use crate::embedded::queue::Effect;
use crate::embedded::segment::{Listing, Segment, name_of};
use crate::embedded::sidecar::{self, Sidecar};
use crate::embedded::writer::make_spare;
use crate::limits::{
    LIVE_SHARE_PERCENT, MERGE_BATCH_BYTES, OLD_LIVE_SHARE_PERCENT, QUIET_LIVE_SHARE_PERCENT,
    SEGMENTS_BEFORE_MERGE, SHARDS, SPARES_MAX,
};

/// What a round of upkeep did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// Something; there may be more to do.
    Busy,
    /// Nothing.
    Idle,
}

impl Engine {
    /// Segments that are not written to any more, oldest first.
    fn sealed(&self) -> Vec<Arc<Segment>> {
        let mut segments: Vec<_> = self.segments.read().values().cloned().collect();
        segments.pop();
        segments
    }

    /// The segment that is being written.
    pub(crate) fn newest_segment(&self) -> u32 {
        self.segments.read().keys().next_back().copied().unwrap_or(0)
    }

    /// One step of each thing that upkeep does. `quiet` is the newest segment of the time when it became quiet, if
    /// nobody has written for a while: then there is time to copy the log once. `wait` waits for a batch to be settled.
    pub(crate) fn upkeep(&self, quiet: Option<u32>, wait: &dyn Fn(&Arc<Batch>) -> Fate) -> io::Result<Round> {
        if let Health::Failed(_) = self.health() {
            return Ok(Round::Idle);
        }
        // A full disk must not keep it from what makes room.
        let made_ready = self.make_ready();
        let written = self.write_sidecars();
        let merged = self.merge_oldest(quiet, wait)?;
        let (made_ready, written) = (made_ready?, written?);
        Ok(if made_ready || written || merged { Round::Busy } else { Round::Idle })
    }

    /// Sees to it that a file is ready to become the next segment.
    fn make_ready(&self) -> io::Result<bool> {
        if self.spares.len() > 0 {
            self.has_room();
            return Ok(false);
        }
        let newest = self.newest_segment();
        // A name that the log thread does not use if it is in need of a file at the same moment.
        let name = make_spare(&*self.folder, newest | 1 << 31, self.segment_bytes)?;
        self.spares.put(name);
        self.has_room();
        Ok(true)
    }

    fn write_sidecars(&self) -> io::Result<bool> {
        for segment in self.sealed() {
            if segment.sidecar().is_none() {
                self.write_sidecar(&segment)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads a finished segment once, and writes its lists beside it.
    fn write_sidecar(&self, segment: &Segment) -> io::Result<()> {
        let mut built = crate::embedded::listing::Built::default();
        built.read_on(segment).map_err(crate::embedded::listing::ReadError::into_io)?;
        if !built.end.ended {
            let message = format!("{} has no end", name_of(segment.number));
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        built.finish();
        sidecar::write(&*self.folder, segment.number, segment.store, &built)?;
        let sidecar = Sidecar::open(&*self.folder, segment.number, segment.store, &*segment.file);
        let sidecar = sidecar.ok_or_else(|| io::Error::other("the sidecar cannot be read back"))?;
        *segment.listing.lock() = Listing::File(Arc::new(sidecar));
        self.audits.lock().retain(|_, (number, _)| *number != segment.number);
        Ok(())
    }

    /// Whether the oldest segment is worth merging: most of it is not current any more, or all of the log holds too
    /// much that is not. When it is quiet, copying disturbs nobody, and little is too much.
    fn is_worth_merging(&self, sealed: &[Arc<Segment>], quiet: Option<u32>) -> bool {
        let Some(oldest) = sealed.first() else { return false };
        let share = |live: u64, segments: u64| live * 100 / (segments * self.segment_bytes).max(1);
        // Audit entries that are kept would only be carried round and round.
        let floor = self.audit_floor.load(Ordering::Acquire);
        let live = |segment: &Segment| segment.live_bytes() + segment.audit_bytes(floor);
        if share(live(oldest), 1) <= OLD_LIVE_SHARE_PERCENT {
            return true;
        }
        let live = sealed.iter().map(|segment| live(segment)).sum();
        let segments = sealed.len() as u64;
        let is_quiet = quiet.is_some_and(|newest| oldest.number <= newest);
        let enough = if is_quiet { QUIET_LIVE_SHARE_PERCENT } else { LIVE_SHARE_PERCENT };
        segments >= SEGMENTS_BEFORE_MERGE && share(live, segments) <= enough
    }

    fn merge_oldest(&self, quiet: Option<u32>, wait: &dyn Fn(&Arc<Batch>) -> Fate) -> io::Result<bool> {
        let sealed = self.sealed();
        if !self.is_worth_merging(&sealed, quiet) {
            return Ok(false);
        }
        let Some(oldest) = sealed.first() else { return Ok(false) };
        if !self.carry_audits(oldest, wait)? {
            return Ok(false);
        }
        for shard in 0..SHARDS {
            if !self.carry_shard(oldest, shard, wait)? {
                return Ok(false);
            }
        }
        // A version that was on its way to replace one here may have failed to; the next round sees to it.
        if oldest.live_records() > 0 {
            return Ok(true);
        }
        self.drop_segment(oldest, wait)
    }

    /// Carries what is current of a shard's part of a segment to the end of the log; `false` if the log fails.
    fn carry_shard(
        &self,
        segment: &Segment,
        shard: usize,
        wait: &dyn Fn(&Arc<Batch>) -> Fate,
    ) -> io::Result<bool> {
        let now = self.now();
        let mut bytes = 0;
        let mut last = None;
        for entry in segment.entries_of(shard)? {
            if entry.expires.is_some_and(|expires| now >= expires) {
                self.sweep_entry(segment, &entry, None, now);
                continue;
            }
            let place = entry.place(segment.number);
            if !self.is_current(&entry, place) {
                continue;
            }
            let Some(payload) = segment.read(place)? else {
                return Err(unreadable(place));
            };
            // Without the audit entry that may stand behind it: those are carried by themselves.
            let (_, rest) = codec::decode_record(payload.clone())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let record = &payload[..payload.len() - rest.len()];
            match self.carry(&entry, place, record) {
                Ok(Some(batch)) => last = Some(batch),
                Ok(None) => {}
                Err(_) => return Ok(false),
            }
            bytes += record.len();
            if bytes >= MERGE_BATCH_BYTES
                && let Some(batch) = last.take()
            {
                bytes = 0;
                if wait(&batch) != Fate::Durable {
                    return Ok(false);
                }
            }
        }
        Ok(last.is_none_or(|batch| wait(&batch) == Fate::Durable))
    }

    fn is_current(&self, entry: &Entry, place: Place) -> bool {
        let shard = self.shard(entry.id).lock();
        match shard.active.get(&entry.id) {
            Some(active) => active.place == place,
            None => shard.table.holds(tag_of(entry.id), place),
        }
    }

    /// Puts a copy on its way if the record is still the one at `place` and no other version is on its way: what comes later in
    /// the log counts.
    fn carry(&self, entry: &Entry, place: Place, record: &[u8]) -> Result<Option<Arc<Batch>>, StoreError> {
        let shard = self.shard(entry.id).lock();
        let is_current = match shard.active.get(&entry.id) {
            Some(active) => active.place == place,
            None => shard.table.holds(tag_of(entry.id), place),
        };
        if !is_current || shard.pending.contains_key(&entry.id) {
            return Ok(None);
        }
        self.queue.carry(Kind::Record, record, Effect::Move { id: entry.id, from: place }).map(Some)
    }

    /// Carries the audit entries of a segment that are not forgotten to the end of the log, once; `false` if the
    /// log fails. A crash may have them carried twice, which shows to nobody: they keep their numbers.
    fn carry_audits(&self, segment: &Segment, wait: &dyn Fn(&Arc<Batch>) -> Fate) -> io::Result<bool> {
        if segment.audits_are_carried.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let floor = self.audit_floor.load(Ordering::Acquire);
        let (mut bytes, mut last) = (0, None);
        for line in Self::audits_of(segment)? {
            if line.sequence < floor {
                continue;
            }
            let place = line.place(segment.number);
            // What cannot be read is not dropped with its segment, but stays where it is, to be found there.
            let Some(entry) = segment.read(place)?.and_then(audit_bytes) else {
                return Err(unreadable(place));
            };
            let Ok(batch) = self.queue.carry(Kind::Audit, &entry, Effect::MoveAudit) else {
                return Ok(false);
            };
            bytes += entry.len();
            if bytes < MERGE_BATCH_BYTES {
                last = Some(batch);
                continue;
            }
            (bytes, last) = (0, None);
            if wait(&batch) != Fate::Durable {
                return Ok(false);
            }
        }
        let carried = last.is_none_or(|batch| wait(&batch) == Fate::Durable);
        segment.audits_are_carried.store(carried, Ordering::Relaxed);
        Ok(carried)
    }

    /// The audit entries of a segment.
    fn audits_of(segment: &Segment) -> io::Result<Vec<AuditLine>> {
        if let Some(sidecar) = segment.sidecar()
            && let Ok(audits) = sidecar.audits()
        {
            return Ok(audits);
        }
        segment.in_memory(|built| built.audits.lines.clone())
    }

    /// Drops the oldest segment, in which nothing is current any more.
    fn drop_segment(&self, segment: &Arc<Segment>, wait: &dyn Fn(&Arc<Batch>) -> Fate) -> io::Result<bool> {
        let number = segment.number;
        // The floor under the fences of what was swept from it must be durable before the fences themselves go.
        let Ok(batch) = self.queue.barrier() else { return Ok(false) };
        if wait(&batch) != Fate::Durable {
            return Ok(false);
        }
        // Without it the file would be missed.
        self.manifest.begins_with(number + 1)?;
        self.segments.write().remove(&number);
        self.audits.lock().retain(|_, (held, _)| *held != number);
        let folder: &dyn Folder = &*self.folder;
        if segment.sidecar().is_some() {
            folder.remove(&sidecar::name_of(number))?;
        }
        // Whoever is reading it holds it by its handle, and must not see it written anew: then the name only goes.
        let is_read = Arc::strong_count(segment) > SEALED_HANDLES;
        if is_read || self.spares.len() >= SPARES_MAX {
            folder.remove(&name_of(number))?;
            folder.sync()?;
        } else {
            let spare = format!("{number:08x}.spare");
            folder.rename(&name_of(number), &spare)?;
            folder.sync()?;
            self.spares.put(spare);
        }
        Ok(true)
    }

    /// Takes a record out of the map if it is the one of this entry, has expired, and no version is on its way;
    /// `true` if it was. No removal is written: a restart may bring it back, as expired as it was, until the segment goes.
    fn sweep_entry(&self, segment: &Segment, entry: &Entry, group: Option<usize>, now: Timestamp) -> bool {
        let (Some(expires), Some((local, state))) = (entry.expires, entry.group_and_state()) else {
            return false;
        };
        if now < expires {
            return false;
        }
        let id = entry.id;
        let place = entry.place(segment.number);
        let mut shard = self.shard(id).lock();
        if shard.pending.contains_key(&id) || !shard.table.holds(tag_of(id), place) {
            return false;
        }
        let Some(group) = group.or_else(|| self.group_of(segment, local)) else { return false };
        // Before anybody can find the id free.
        self.raise_floor_of(segment);
        shard.table.remove(tag_of(id), place);
        self.cache.remove(&id);
        // To who waits for it, gone is a change.
        if let Some(watcher) = shard.watchers.get(&id) {
            watcher.notify_waiters();
        }
        drop(shard);
        segment.loses(place);
        self.tally.lock().subtract_from(group, state);
        true
    }

    /// The group of an entry, as the tally numbers it.
    fn group_of(&self, segment: &Segment, local: usize) -> Option<usize> {
        let group = match segment.sidecar() {
            Some(sidecar) => sidecar.groups.get(local).cloned(),
            None => segment.in_memory(|built| built.groups.get(local).cloned()).ok().flatten(),
        };
        let (namespace, operation) = group?;
        Some(self.tally.lock().group(namespace, &operation))
    }

    /// Raises the floor to the highest fence in a segment: a floor that is too high costs nothing, and the fence of each record
    /// would cost a read of the log.
    fn raise_floor_of(&self, segment: &Segment) {
        let fence = match segment.sidecar() {
            Some(sidecar) => Some(sidecar.summary.fence),
            None => segment.in_memory(|built| built.summary.fence).ok(),
        };
        if let Some(fence) = fence {
            self.raise_floor(fence);
        }
    }

    /// Removes up to about `limit` expired records: whole shards of whole segments, so that it knows where to go on.
    pub(crate) fn sweep(&self, limit: usize) -> io::Result<usize> {
        let now = self.now();
        let segments: Vec<_> = self.segments.read().values().cloned().collect();
        let mut swept = 0;
        for segment in segments {
            if segment.sweep_at() > now {
                continue;
            }
            while swept < limit {
                let shard = segment.sweep_from.load(Ordering::Relaxed);
                if shard >= SHARDS {
                    segment.sweep_from.store(0, Ordering::Relaxed);
                    self.plan_sweep(&segment)?;
                    break;
                }
                for entry in segment.entries_of(shard)? {
                    swept += usize::from(self.sweep_entry(&segment, &entry, None, now));
                }
                segment.sweep_from.store(shard + 1, Ordering::Relaxed);
            }
            if swept >= limit {
                break;
            }
        }
        Ok(swept)
    }

    /// Plans the next sweep of a segment for when an eighth of what is left has expired: so the cost of looking is
    /// spread over what is found.
    fn plan_sweep(&self, segment: &Segment) -> io::Result<()> {
        segment.sweep_next(Timestamp::MAX);
        let mut left = Vec::new();
        for shard in 0..SHARDS {
            for entry in segment.entries_of(shard)? {
                if let Some(expires) = entry.expires
                    && self.is_current(&entry, entry.place(segment.number))
                {
                    left.push(expires);
                }
            }
        }
        if !left.is_empty() {
            let at = left.len() / 8;
            segment.expires(*left.select_nth_unstable(at).1);
        }
        Ok(())
    }
}

/// There is no record or entry, where the lists say that there is one.
pub(crate) fn unreadable(place: Place) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} cannot be read", place.in_words()))
}

/// Those who hold a segment that nobody reads, once the map has let go of it: the list of the round, and its caller.
const SEALED_HANDLES: usize = 1;

/// The bytes of an audit entry, from the frame it lies in.
fn audit_bytes(payload: bytes::Bytes) -> Option<bytes::Bytes> {
    if codec::decode_audit(payload.clone()).is_ok() {
        return Some(payload);
    }
    let (_, rest) = codec::decode_record(payload).ok()?;
    codec::decode_audit(rest.clone()).is_ok().then_some(rest)
}
