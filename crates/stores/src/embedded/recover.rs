//! Opening: from what is on the disk to what the store knows.
//!
//! A frame that cannot be read is one of two things. At the end of the last segment, with no later batch behind it, it
//! is what a crash left of a batch that nobody was told of: it is cut off, and said so. Anywhere else it had been
//! acknowledged: the store is damaged, and is not opened. So it is when a segment is missing that the manifest knows, or a
//! segment has records that it does not know.
//!
//! Finished segments are known by their sidecars; only the last one, and those without a sidecar, are read.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use semel_core::record::StateName;
use semel_core::{Fence, RecordId, Timestamp};

use crate::embedded::disk::{File, Folder};
use crate::embedded::engine::{Found, fact, is_held};
use crate::embedded::error::{OpenError, OpenErrorKind};
use crate::embedded::frame;
use crate::embedded::index::{Place, Table, shard_of, tag_of};
use crate::embedded::layout::Layout;
use crate::embedded::listing::{Built, Entry, ReadError, SegmentEnd, Summary, cell_of, read_all};
use crate::embedded::manifest::{Manifest, Span};
use crate::embedded::orders::{Orders, Seat};
use crate::embedded::segment::{Header, Listing, Segment, name_of};
use crate::embedded::shard::{Active, Fact, IdMap, Shard};
use crate::embedded::sidecar::Sidecar;
use crate::embedded::tally::Tally;
use crate::embedded::writer::{self, Spares, Writer};
use crate::limits::{BATCH_BYTES_MAX, SEGMENT_HEADER_BYTES, SHARDS};

/// Segments from which on shards are filled by more than one thread.
const PARALLEL_SEGMENTS: usize = 16;

/// What opening found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments of the log.
    pub segments: usize,
    /// Those of them that had to be read, for want of a sidecar.
    pub segments_read: usize,
    /// Records.
    pub records: u64,
    /// Bytes at the end of the log that a crash had left half written and that were cut off: nobody had been told of
    /// what was in them.
    pub torn_bytes: u64,
}

fn io(what: &str) -> impl Fn(io::Error) -> OpenError {
    let what = what.to_owned();
    move |error| OpenError::io(format!("cannot {what}"), error)
}

/// Opens a folder, or begins a store in an empty one.
pub(crate) fn open(
    folder: &Arc<dyn Folder>,
    segment_bytes: u64,
    wall: Timestamp,
) -> Result<(Found, Timestamp, Recovery), OpenError> {
    let names = folder.list().map_err(io("list the store's folder"))?;
    let manifest = Manifest::find(&**folder, &names)?;
    let known = manifest.as_ref().map(Manifest::span);
    let Layout { mut segments, remains, spares, .. } = layout_of(&names, known)?;
    for name in remains {
        folder.remove(&name).map_err(io("remove what is left over"))?;
    }
    let spares = Arc::new(Spares::new(spares));
    if segments.is_empty() {
        begin_store(&**folder, segment_bytes, wall).map_err(io("begin a store"))?;
        segments.push(1);
    }
    let mut recovery = Recovery { segments: segments.len(), ..Recovery::default() };
    let mut opened = Opened { store: known.map(|span| span.store), known, ..Opened::default() };
    for (index, number) in segments.iter().copied().enumerate() {
        let is_last = index + 1 == segments.len();
        opened.segment(&**folder, number, segment_bytes, is_last, &mut recovery)?;
    }
    let (shards, orders) = opened.load(&mut recovery)?;
    let Some(current) = opened.segments.last().cloned() else {
        return Err(OpenError::corrupt("the log has no segment"));
    };
    let span = Span { store: current.store, oldest: segments[0], newest: current.number };
    let manifest = match manifest {
        Some(manifest) => {
            manifest.reaches(span)?;
            manifest
        }
        None => Manifest::make(&**folder, span)?,
    };
    let manifest = Arc::new(manifest);
    let end = opened.end;
    let (folder, ready) = (Arc::clone(folder), Arc::clone(&spares));
    let writer =
        Writer::new(folder, ready, Arc::clone(&manifest), segment_bytes, current, end.offset, end.ended);
    let summary = opened.summary;
    let found = Found {
        shards: shards.into_iter().map(Mutex::new).collect(),
        segments: opened.segments.into_iter().map(|segment| (segment.number, segment)).collect(),
        orders,
        tally: opened.tally,
        audits: opened.audits,
        // What is forgotten has left no number behind, and no number comes twice.
        next_audit: summary.next_audit.max(summary.audit_floor),
        audit_floor: summary.audit_floor,
        floor: summary.floor,
        writer,
        spares,
        manifest,
    };
    Ok((found, summary.time, recovery))
}

/// What there is, if nothing is missing.
fn layout_of(names: &[String], known: Option<Span>) -> Result<Layout, OpenError> {
    let layout = Layout::of(names, known);
    layout.check()?;
    Ok(layout)
}

/// The first segment comes to its name without having been a spare: spares without a log are a log that was lost.
fn begin_store(folder: &dyn Folder, segment_bytes: u64, wall: Timestamp) -> std::io::Result<()> {
    let first = writer::make_unfinished(folder, 1, segment_bytes)?;
    // Only told apart from other stores' numbers, so that segments of two folders are not mixed.
    let store = wall.as_millis().rotate_left(24) ^ u64::from(std::process::id());
    let header = Header { store, segment: 1, time: wall, floor: Fence(0) };
    writer::begin(folder, &first, &header)?;
    Ok(())
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
    if let Some(batch) = bytes.get(read.last_batch..read.behind()) {
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
    let torn =
        frame::whole_frame(tail, offset as u32, store, number).is_some() || frame::header(tail).is_some();
    Ok(if torn { last as u64 + 1 } else { 0 })
}

/// The segments of a store, one after the other.
#[derive(Default)]
struct Opened {
    store: Option<u64>,
    /// What the manifest says.
    known: Option<Span>,
    segments: Vec<Arc<Segment>>,
    /// For each segment, its groups as the tally numbers them.
    groups: Vec<Vec<usize>>,
    /// For each segment that was read, the newest entries of each shard.
    read: HashMap<usize, Vec<Vec<Entry>>>,
    /// For each segment with a sidecar, which of its settled entries are due once more.
    waits: HashMap<usize, Vec<(u32, Timestamp)>>,
    tally: Tally,
    audits: BTreeMap<u64, (u32, Timestamp)>,
    summary: Summary,
    end: SegmentEnd,
}

impl Opened {
    fn segment(
        &mut self,
        folder: &dyn Folder,
        number: u32,
        segment_bytes: u64,
        is_last: bool,
        recovery: &mut Recovery,
    ) -> Result<(), OpenError> {
        let name = name_of(number);
        let file = if is_last { folder.open_to_append(&name) } else { folder.open(&name) };
        let file = file.map_err(io("open a segment"))?;
        let mut head = vec![0; SEGMENT_HEADER_BYTES as usize];
        let read = file.read_at(0, &mut head).map_err(io("read a segment"))?;
        head.truncate(read);
        let header = header_of(&head, number, self.store)?;
        let bytes = file.len().map_err(io("read a segment"))?;
        if bytes != segment_bytes {
            let message = format!("segments of this store have {bytes} bytes, not {segment_bytes}");
            return Err(OpenError::new(OpenErrorKind::Options, message));
        }
        self.store = Some(header.store);
        self.saw(Summary { time: header.time, floor: header.floor, ..Summary::default() });
        let segment = Arc::new(Segment::new(number, header.store, file, bytes));
        // What the manifest does not know is read, sidecar or not.
        let is_new = self.known.is_some_and(|known| number > known.newest);
        let sidecar = if is_last || is_new {
            None
        } else {
            Sidecar::open(folder, number, header.store, &*segment.file)
        };
        // One whose waits cannot be read is as good as none.
        let sidecar = sidecar.and_then(|sidecar| sidecar.waits().ok().map(|waits| (sidecar, waits)));
        let groups = match sidecar {
            Some((sidecar, waits)) => {
                self.waits.insert(self.segments.len(), waits);
                self.by_sidecar(&segment, sidecar)
            }
            None => self.by_reading(folder, &segment, is_last, recovery)?,
        };
        self.groups.push(groups);
        self.segments.push(segment);
        Ok(())
    }

    /// Gives the segment's groups as the tally numbers them; so does the next.
    fn by_sidecar(&mut self, segment: &Segment, sidecar: Sidecar) -> Vec<usize> {
        self.saw(sidecar.summary);
        self.end = sidecar.end;
        segment.wrote_to(sidecar.end.behind());
        let groups = sidecar.groups.iter().map(|group| self.tally.group(group.0, &group.1)).collect();
        *segment.listing.lock() = Listing::File(Arc::new(sidecar));
        groups
    }

    fn by_reading(
        &mut self,
        folder: &dyn Folder,
        segment: &Segment,
        is_last: bool,
        recovery: &mut Recovery,
    ) -> Result<Vec<usize>, OpenError> {
        recovery.segments_read += 1;
        let (number, store) = (segment.number, segment.store);
        let bytes = read_all(&*segment.file).map_err(io("read a segment"))?;
        let mut built = Built::default();
        let frames = bytes.get(SEGMENT_HEADER_BYTES as usize..).unwrap_or_default();
        built.read_bytes(frames, number, store).map_err(|error| unreadable(number, error))?;
        let end = built.end;
        if self.known.is_some_and(|known| number > known.newest)
            && frame::whole_frame(frames, SEGMENT_HEADER_BYTES as u32, store, number).is_some()
        {
            let message = format!("{} is not in the manifest, and holds records", name_of(number));
            return Err(OpenError::corrupt(message));
        }
        if !end.ended && !is_last {
            return Err(broken(number, end.offset));
        }
        if is_last {
            if !end.ended {
                recovery.torn_bytes = cut_tail(&*segment.file, &bytes, end.offset, number, store)?;
            }
            make_durable(folder, &*segment.file, &bytes, &end).map_err(io("sync the log"))?;
        }
        self.end = end;
        segment.wrote_to(end.behind());
        self.saw(built.summary);
        let groups = built.groups.iter().map(|group| self.tally.group(group.0, &group.1)).collect();
        let mut shards = vec![Vec::new(); SHARDS];
        for entry in &built.entries {
            shards[shard_of(entry.id)].push(*entry);
        }
        self.read.insert(self.segments.len(), shards);
        for line in &built.audits.lines {
            self.audits.insert(line.sequence, (number, line.at));
        }
        *segment.listing.lock() = Listing::Memory(Box::new(built));
        Ok(groups)
    }

    fn saw(&mut self, summary: Summary) {
        let all = &mut self.summary;
        all.time = all.time.max(summary.time);
        all.floor = all.floor.max(summary.floor);
        all.next_audit = all.next_audit.max(summary.next_audit);
        all.audit_floor = all.audit_floor.max(summary.audit_floor);
    }

    /// Fills the shards, on all processors.
    fn load(&mut self, recovery: &mut Recovery) -> Result<(Vec<Shard>, Orders), OpenError> {
        let next = AtomicUsize::new(0);
        let loaded = Mutex::new(Vec::with_capacity(SHARDS));
        let this = &*self;
        std::thread::scope(|scope| {
            let work = || {
                loop {
                    let shard = next.fetch_add(1, Ordering::Relaxed);
                    if shard >= SHARDS {
                        break;
                    }
                    let result = this.load_shard(shard);
                    loaded.lock().push((shard, result));
                }
            };
            // Few segments are not worth a thread.
            if this.segments.len() >= PARALLEL_SEGMENTS {
                let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                (1..threads.min(SHARDS)).for_each(|_| drop(scope.spawn(work)));
            }
            work();
        });
        let mut loaded = loaded.into_inner();
        loaded.sort_unstable_by_key(|(shard, _)| *shard);
        let mut orders = Orders::default();
        let mut shards = Vec::with_capacity(SHARDS);
        for (_, result) in loaded {
            let Loaded { shard, counts, waits, seats } = result?;
            for (due, id) in waits {
                orders.waits(due, id);
            }
            for (id, seat) in seats {
                orders.wait(id, &seat);
            }
            recovery.records += (shard.table.len() + shard.active.len()) as u64;
            shard.active.keys().for_each(|id| orders.note(*id));
            for ((group, state), count) in counts {
                self.tally.add_many(group, state, count);
            }
            shards.push(shard);
        }
        self.read.clear();
        self.waits.clear();
        Ok((shards, orders))
    }

    fn load_shard(&self, shard: usize) -> Result<Loaded, OpenError> {
        let mut newest: IdMap<(usize, Entry)> = IdMap::default();
        for (at, segment) in self.segments.iter().enumerate() {
            let from_file;
            let entries = if let Some(shards) = self.read.get(&at) {
                &shards[shard]
            } else {
                from_file = self.entries_of(at, segment, shard).map_err(io("read a sidecar"))?;
                &from_file
            };
            for entry in entries {
                match entry.group_and_state() {
                    Some(_) => newest.insert(entry.id, (at, *entry)),
                    None => newest.remove(&entry.id),
                };
            }
        }
        let shard = Shard { table: Table::with_capacity(newest.len()), ..Shard::default() };
        let mut loaded = Loaded { shard, counts: HashMap::new(), waits: Vec::new(), seats: Vec::new() };
        for (id, (at, entry)) in newest {
            let segment = &self.segments[at];
            let place = entry.place(segment.number);
            segment.gains(place);
            // A removal is not among what is newest.
            let Some((group, state)) = entry.group_and_state() else { continue };
            let group = self.groups[at].get(group).copied();
            let group = group.ok_or_else(|| OpenError::corrupt("a sidecar names no group"))?;
            *loaded.counts.entry((group, state)).or_insert(0) += 1;
            if let Some(expires) = entry.expires {
                segment.expires(expires);
                loaded.shard.table.insert(tag_of(id), place);
                loaded.waits.extend(entry.wake.map(|wake| (wake, id)));
                continue;
            }
            let record = unsettled(segment, place, id)?;
            if is_held(&record) {
                loaded.shard.active.insert(id, Active { record, place });
            } else {
                loaded.shard.table.insert(tag_of(id), place);
                loaded.seats.push((id, Seat::of(&record, cell_of(group, state))));
            }
        }
        Ok(loaded)
    }

    /// The entries of a shard of a segment that was not read.
    fn entries_of(&self, at: usize, segment: &Segment, shard: usize) -> io::Result<Vec<Entry>> {
        let mut entries = segment.entries_of(shard)?;
        let waits = self.waits.get(&at).map(Vec::as_slice).unwrap_or_default();
        if !waits.is_empty()
            && let Some(sidecar) = segment.sidecar()
        {
            let first = sidecar.first_of(shard);
            let from = waits.partition_point(|(number, _)| *number < first);
            for (number, wake) in &waits[from..] {
                let Some(entry) = entries.get_mut((number - first) as usize) else { break };
                entry.wake = Some(*wake);
            }
        }
        Ok(entries)
    }
}

/// A shard, and what it adds to what is known of all of them.
struct Loaded {
    shard: Shard,
    /// How many records of a group are in a state.
    counts: HashMap<(usize, StateName), u64>,
    /// Settled records that are due once more, and when.
    waits: Vec<(Timestamp, RecordId)>,
    /// Records that wait, and where.
    seats: Vec<(RecordId, Seat)>,
}

fn unsettled(segment: &Segment, place: Place, id: RecordId) -> Result<Arc<semel_core::Record>, OpenError> {
    match fact("open", place, segment.read(place)) {
        Ok(Fact::Holds(record)) if record.id() == id => Ok(record),
        Ok(Fact::Holds(_) | Fact::Gone | Fact::Damaged(_)) => {
            Err(broken(place.segment(), place.offset() as usize))
        }
        Err(error) => Err(OpenError::corrupt(error.to_string())),
    }
}

fn unreadable(number: u32, error: ReadError) -> OpenError {
    match error {
        ReadError::Io(error) => OpenError::io("cannot read a segment", error),
        ReadError::Corrupt(offset, error) => {
            let at = format!("{} holds a record at byte {offset} that cannot be read", name_of(number));
            OpenError::corrupt(format!("{at}: {error}"))
        }
    }
}
