//! Opening: from what is on the disk to what the store knows.
//!
//! A frame that cannot be read is one of two things. At the end of the last segment, with no later batch behind it, it
//! is what a crash left of a batch that nobody was told of: it is cut off, and said so. Anywhere else it had been
//! acknowledged: the store is damaged, and is not opened.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use semel_core::{Fence, Record, RecordId, Timestamp};

use crate::codec;
use crate::embedded::disk::{File, Folder};
use crate::embedded::engine::{Found, is_settled};
use crate::embedded::error::{OpenError, OpenErrorKind};
use crate::embedded::frame::{self, Frame, Kind, Seat};
use crate::embedded::index::{Place, shard_of, tag_of};
use crate::embedded::orders::Orders;
use crate::embedded::segment::{self, Header, Segment, long, name_of, number_of};
use crate::embedded::shard::{Active, IdMap, Shard};
use crate::embedded::tally::{Cell, Tally};
use crate::embedded::writer::{self, Spares, Writer, is_spare, is_unfinished};
use crate::limits::{BATCH_BYTES_MAX, SEGMENT_HEADER_BYTES, SHARDS};

/// What opening found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments of the log.
    pub segments: usize,
    /// Records.
    pub records: u64,
    /// Bytes at the end of the log that a crash had left half written and that were cut off: nobody had been told of
    /// what was in them.
    pub torn_bytes: u64,
}

/// The newest version of a record that replay has met.
struct Newest {
    place: Place,
    cell: Cell,
    /// Unless it is settled.
    record: Option<Arc<Record>>,
}

/// Where the frames of a segment end.
struct SegmentEnd {
    /// The offset behind the last frame, or of the end frame.
    end: usize,
    /// Whether there is an end frame.
    ended: bool,
    /// Where the last batch begins.
    last_batch: usize,
}

/// What replay gathers.
#[derive(Default)]
pub(crate) struct Replay {
    newest: IdMap<Newest>,
    tally: Tally,
    audits: Vec<(u64, Place)>,
    next_audit: u64,
    floor: Fence,
    time: Timestamp,
}

/// Opens a folder, or begins a store in an empty one.
pub(crate) fn open(
    folder: &Arc<dyn Folder>,
    segment_bytes: u64,
    wall: Timestamp,
) -> Result<(Found, Timestamp, Recovery), OpenError> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |error| OpenError::io(format!("cannot {what}"), error)
    };
    let names = folder.list().map_err(io("list the store's folder"))?;
    for name in names.iter().filter(|name| is_unfinished(name)) {
        folder.remove(name).map_err(io("remove an unfinished file"))?;
    }
    let spares = Spares::new(names.iter().filter(|name| is_spare(name)).cloned().collect());
    let spares = Arc::new(spares);
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    if numbers.is_empty() {
        begin_store(&**folder, &spares, segment_bytes, wall).map_err(io("begin a store"))?;
        numbers.push(1);
    }
    let mut replay = Replay::default();
    let mut segments = HashMap::new();
    let mut end = (SEGMENT_HEADER_BYTES as usize, false);
    let mut recovery = Recovery { segments: numbers.len(), ..Recovery::default() };
    let mut store = None;
    let mut current = None;
    for (index, number) in numbers.iter().copied().enumerate() {
        if index > 0 && numbers[index - 1] + 1 != number {
            let message = format!("segment {} of the log is missing", name_of(number - 1));
            return Err(OpenError::corrupt(message));
        }
        let is_last = index + 1 == numbers.len();
        let file = folder.open(&name_of(number)).map_err(io("open a segment"))?;
        let bytes = read_all(&*file).map_err(io("read a segment"))?;
        if bytes.len() as u64 != segment_bytes && is_last {
            let message = format!("segments of this store have {} bytes, not {segment_bytes}", bytes.len());
            return Err(OpenError::new(OpenErrorKind::Options, message));
        }
        let header = header_of(&bytes, number, store)?;
        store = Some(header.store);
        replay.floor = replay.floor.max(header.floor);
        replay.time = replay.time.max(header.time);
        let read = replay.segment(&bytes, number, header.store)?;
        if !read.ended && !is_last {
            return Err(broken(number, read.end));
        }
        if is_last {
            if !read.ended {
                recovery.torn_bytes = cut_tail(&*file, &bytes, read.end, number, header.store)?;
            }
            make_durable(&**folder, &*file, &bytes, &read).map_err(io("sync the log"))?;
        }
        end = (read.end, read.ended);
        let segment = Arc::new(Segment::new(number, header.store, file));
        segments.insert(number, Arc::clone(&segment));
        current = Some(segment);
    }
    let Some(current) = current else { return Err(OpenError::corrupt("the log has no segment")) };
    recovery.records = replay.newest.len() as u64;
    let time = replay.time;
    let writer = Writer::new(Arc::clone(folder), Arc::clone(&spares), segment_bytes, current, end.0, end.1);
    Ok((replay.found(segments, writer, spares), time, recovery))
}

fn begin_store(
    folder: &dyn Folder,
    spares: &Spares,
    segment_bytes: u64,
    wall: Timestamp,
) -> std::io::Result<()> {
    let spare = match spares.take() {
        Some(spare) => spare,
        None => writer::make_spare(folder, 1, segment_bytes)?,
    };
    // Only told apart from other stores' numbers, so that segments of two folders are not mixed.
    let store = wall.as_millis().rotate_left(24) ^ u64::from(std::process::id());
    let header = Header { store, segment: 1, time: wall, floor: Fence(0) };
    writer::begin(folder, &spare, &header)?;
    Ok(())
}

fn read_all(file: &dyn File) -> std::io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Makes the end of the log durable before anybody is shown it: the process before may have been killed between a write and its
/// sync, or its sync may have failed and left pages that the kernel takes for clean. So the last batch is written
/// again, as it is.
fn make_durable(
    folder: &dyn Folder,
    file: &dyn File,
    bytes: &[u8],
    read: &SegmentEnd,
) -> std::io::Result<()> {
    let end = read.end + if read.ended { writer::END_BYTES } else { 0 };
    if let Some(batch) = bytes.get(read.last_batch..end) {
        file.write_at(read.last_batch as u64, batch)?;
    }
    file.sync()?;
    folder.sync()
}

fn header_of(bytes: &[u8], number: u32, store: Option<u64>) -> Result<Header, OpenError> {
    let name = name_of(number);
    let header = Header::decode(bytes)?;
    let header = header.ok_or_else(|| OpenError::corrupt(format!("{name} has no readable header")))?;
    if header.segment != number || store.is_some_and(|store| store != header.store) {
        return Err(OpenError::corrupt(format!("{name} is a segment of another store, or of another name")));
    }
    Ok(header)
}

fn broken(number: u32, offset: usize) -> OpenError {
    OpenError::corrupt(format!(
        "{} is damaged at byte {offset}: what stood there had been acknowledged",
        name_of(number)
    ))
}

/// Tells a torn tail from damage, and clears what is left of it, so that a frame of a batch that was lost is not
/// read behind one that will be written. Gives the bytes that were cut off.
fn cut_tail(file: &dyn File, bytes: &[u8], offset: usize, number: u32, store: u64) -> Result<u64, OpenError> {
    if frame::later_batch(bytes, offset as u32, store, number).is_some() {
        return Err(broken(number, offset));
    }
    let end = bytes.len().min(offset + BATCH_BYTES_MAX);
    let tail = &bytes[offset..end];
    let Some(last) = tail.iter().rposition(|byte| *byte != 0) else { return Ok(0) };
    let failed = |error| OpenError::io("cannot clear the torn end of the log", error);
    file.write_at(offset as u64, &vec![0; last + 1]).map_err(failed)?;
    file.sync().map_err(failed)?;
    // What an earlier life of the file left there is no torn tail of this one.
    let torn = frame::any_frame(tail, offset as u32, store, number) || frame::header(tail).is_some();
    Ok(if torn { last as u64 + 1 } else { 0 })
}

impl Replay {
    /// Replays a segment.
    fn segment(&mut self, bytes: &[u8], number: u32, store: u64) -> Result<SegmentEnd, OpenError> {
        let mut offset = SEGMENT_HEADER_BYTES as usize;
        let mut last_batch = offset;
        while let Some(rest) = bytes.get(offset..) {
            let seat = Seat { store, segment: number, offset: offset as u32 };
            let Some(frame) = frame::parse(rest, seat) else { break };
            last_batch = frame.batch as usize;
            if frame.kind == Kind::End {
                return Ok(SegmentEnd { end: offset, ended: true, last_batch });
            }
            let place = Place::new(number, offset as u32, frame.len());
            self.frame(&frame, place).map_err(|error| {
                let at = format!("{} holds a record at byte {offset} that cannot be read", name_of(number));
                OpenError::corrupt(format!("{at}: {error}"))
            })?;
            offset += frame.len();
        }
        Ok(SegmentEnd { end: offset, ended: false, last_batch })
    }

    fn frame(&mut self, frame: &Frame<'_>, place: Place) -> Result<(), codec::Corrupt> {
        match frame.kind {
            Kind::Mark => {
                if frame.payload.len() >= 16 {
                    self.time = self.time.max(Timestamp::from_millis(long(frame.payload, 0)));
                    self.floor = self.floor.max(Fence(long(frame.payload, 8)));
                }
            }
            Kind::Record => {
                let (record, rest) = codec::decode_record(Bytes::copy_from_slice(frame.payload))?;
                self.time = self.time.max(record.times().written);
                if !rest.is_empty() {
                    self.audit(rest, place)?;
                }
                self.put(record, place);
            }
            Kind::Removal => {
                let (id, fence) = removal(frame.payload).ok_or(codec::Corrupt("a removal too short"))?;
                self.floor = self.floor.max(fence);
                if let Some(old) = self.newest.remove(&id) {
                    self.tally.subtract(old.cell);
                }
            }
            Kind::Audit => self.audit(Bytes::copy_from_slice(frame.payload), place)?,
            Kind::End => {}
        }
        Ok(())
    }

    fn audit(&mut self, payload: Bytes, place: Place) -> Result<(), codec::Corrupt> {
        let (sequence, entry) = codec::decode_audit(payload)?;
        self.time = self.time.max(entry.at);
        self.next_audit = self.next_audit.max(sequence + 1);
        self.audits.push((sequence, place));
        Ok(())
    }

    fn put(&mut self, record: Record, place: Place) {
        let cell = self.tally.cell(&record);
        self.tally.add(cell);
        let id = record.id();
        let record = (!is_settled(&record)).then(|| Arc::new(record));
        if let Some(old) = self.newest.insert(id, Newest { place, cell, record }) {
            self.tally.subtract(old.cell);
        }
    }

    fn found(self, segments: HashMap<u32, Arc<Segment>>, writer: Writer, spares: Arc<Spares>) -> Found {
        let mut shards: Vec<Shard> = std::iter::repeat_with(Shard::default).take(SHARDS).collect();
        let mut orders = Orders::default();
        for (id, Newest { place, record, .. }) in self.newest {
            if let Some(segment) = segments.get(&place.segment()) {
                segment.gains(place);
            }
            let shard = &mut shards[shard_of(id)];
            match record {
                None => shard.table.insert(tag_of(id), place),
                Some(record) => {
                    orders.note(id);
                    shard.active.insert(id, Active { record, place });
                }
            }
        }
        let mut audits = self.audits;
        audits.sort_unstable_by_key(|(sequence, _)| *sequence);
        audits.dedup_by_key(|(sequence, _)| *sequence);
        Found {
            shards: shards.into_iter().map(Mutex::new).collect(),
            segments,
            orders,
            tally: self.tally,
            audits,
            next_audit: self.next_audit,
            floor: self.floor,
            writer,
            spares,
        }
    }
}

/// The id and fence of a removal's payload.
pub(crate) fn removal(payload: &[u8]) -> Option<(RecordId, Fence)> {
    let id = payload.first_chunk::<16>()?;
    let fence = payload.get(16..24)?;
    Some((RecordId::from_bytes(*id), Fence(segment::long(fence, 0))))
}
