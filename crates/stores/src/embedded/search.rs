//! Pages over many records, newest first, without a scan of what grows.
//!
//! Unsettled records have their seats in an order in memory, settled ones their lines in the lists of their segments; within a term and a cell (an
//! operation and a state) each list is in the order of the page. So a page is a merge of short runs, whatever is asked
//! for, and what is read grows with the page and with the number of segments, not with the number of records. A segment keeps lines about records that have moved on;
//! the index tells them from the current ones. A record that cannot be read fails the page that it belongs to: it is never
//! absent (L13).

use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;

use semel_core::id::{Namespace, Operation};
use semel_core::query::{Cursor, Page, Query, Summary};
use semel_core::record::StateName;
use semel_core::{Record, RecordId, StoreError, Timestamp};

use crate::embedded::engine::{Engine, damaged};
use crate::embedded::index::{Place, tag_of};
use crate::embedded::listing::{ALL, Built, Entry, Row, Term, cell_of, key_term, tag_term};
use crate::embedded::orders::Orders;
use crate::embedded::segment::Segment;
use crate::embedded::shard::{Fact, Facts, Shard};
use crate::limits::SEARCH_RUN;

/// Where a record stands in a listing.
pub(crate) type Stand = (Timestamp, RecordId);

/// What a query says about lists.
pub(crate) struct Plan {
    pub(crate) term: Term,
    pub(crate) before: Stand,
    pub(crate) from: Timestamp,
    namespace: Option<Namespace>,
    operation: Option<Operation>,
    states: Vec<StateName>,
}

impl Plan {
    fn new(query: &Query, cursor: Option<Cursor>) -> Self {
        let term = match (&query.key, &query.tag) {
            (Some(key), _) => key_term(key.as_str()),
            (None, Some(tag)) => tag_term(tag.name.as_str(), tag.value.as_str()),
            (None, None) => ALL,
        };
        // Stands below this one: the smallest id of a time is before every record of that time.
        let until = (query.until.unwrap_or(Timestamp::MAX), RecordId::from_bytes([0; 16]));
        let before = cursor.map_or(until, |cursor| until.min((cursor.created, cursor.id)));
        let states = if query.states.is_empty() { StateName::ALL.to_vec() } else { query.states.clone() };
        Self {
            term,
            before,
            from: query.from.unwrap_or(Timestamp::ZERO),
            namespace: query.namespace,
            operation: query.operation.clone(),
            states,
        }
    }

    /// The cells of these groups that are asked for.
    pub(crate) fn cells<'a>(
        &'a self,
        groups: impl Iterator<Item = (usize, Namespace, &'a Operation)> + 'a,
    ) -> impl Iterator<Item = u32> + 'a {
        groups
            .filter(|(_, namespace, operation)| {
                self.namespace.is_none_or(|wanted| wanted == *namespace)
                    && self.operation.as_ref().is_none_or(|wanted| wanted == *operation)
            })
            .flat_map(|(group, ..)| self.states.iter().map(move |state| cell_of(group, *state)))
    }
}

/// A line of a list: a record that may be one of the page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Hit {
    stand: Stand,
    /// `None` for an unsettled record: it is wherever the index says.
    place: Option<Place>,
    expires: Option<Timestamp>,
}

/// A run of lines, read in small pieces.
struct Run {
    /// `None` for unsettled records.
    segment: Option<Arc<Segment>>,
    cell: u32,
    /// Lines that are read and not used, the newest last.
    ready: Vec<Hit>,
    before: Stand,
    is_read: bool,
}

impl Run {
    /// More lines of it, the newest last.
    fn filled(&mut self, ready: Vec<Hit>) {
        self.is_read = ready.len() < SEARCH_RUN;
        if let Some(oldest) = ready.first() {
            self.before = oldest.stand;
        }
        self.ready = ready;
    }
}

fn unsettled_hits(orders: &Orders, plan: &Plan, cell: u32, before: Stand) -> Vec<Hit> {
    let stands = orders.before(plan.term, cell, before).take(SEARCH_RUN);
    let mut hits: Vec<_> = stands.map(|stand| Hit { stand, place: None, expires: None }).collect();
    hits.reverse();
    hits
}

impl Engine {
    pub(crate) fn search(
        &self,
        query: &Query,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Summary, Cursor>, StoreError> {
        let plan = Plan::new(query, cursor);
        let mut page = Page { items: Vec::new(), next: None, entries_read: 0 };
        let begun_at = self.newest_segment();
        let mut runs = self.runs(&plan).map_err(|error| unread("search", error))?;
        page.entries_read += runs.iter().map(|run| run.ready.len() as u64).sum::<u64>();
        let mut heads = BinaryHeap::new();
        for (at, run) in runs.iter_mut().enumerate() {
            if let Some(hit) = self.next_hit(run, &plan, &mut page.entries_read)? {
                heads.push((hit, at));
            }
        }
        let now = self.now();
        let mut found = None;
        while let Some((hit, at)) = heads.pop() {
            if let Some(next) = self.next_hit(&mut runs[at], &plan, &mut page.entries_read)? {
                heads.push((next, at));
            }
            // A record may have a line in two places: a merge has copied it, or it has changed meanwhile.
            if hit.expires.is_some_and(|expires| now >= expires) || found == Some(hit.stand) {
                continue;
            }
            let Some(record) = self.find_hit(&hit, begun_at)? else { continue };
            found = Some(hit.stand);
            if !query.matches(&record) || record.is_expired(now) {
                continue;
            }
            if page.items.len() == limit {
                page.next = page.items.last().map(Summary::cursor);
                break;
            }
            page.items.push(Summary::of(&record));
        }
        Ok(page)
    }

    fn runs(&self, plan: &Plan) -> io::Result<Vec<Run>> {
        let run = |segment: Option<Arc<Segment>>, cell| Run {
            segment,
            cell,
            ready: Vec::new(),
            before: plan.before,
            is_read: false,
        };
        let mut runs = Vec::new();
        {
            let mut orders = self.orders.lock();
            self.settle_orders(&mut orders);
            let tally = self.tally.lock();
            // The first rows of all states at one moment: a record that goes from one state to another while they are read
            // one by one would be in none of them.
            runs.extend(plan.cells(tally.groups()).map(|cell| {
                let mut run = run(None, cell);
                run.filled(unsettled_hits(&orders, plan, cell, plan.before));
                run
            }));
        }
        let segments: Vec<_> = self.segments.read().values().cloned().collect();
        for segment in segments {
            let groups = match segment.sidecar() {
                Some(sidecar) => {
                    // Damaged lists are as good as none: they are made anew from the segment.
                    if sidecar.check_rows().is_err() {
                        segment.in_memory(|built| built.groups.clone())?
                    } else {
                        sidecar.groups.clone()
                    }
                }
                None => segment.in_memory(|built| built.groups.clone())?,
            };
            let groups =
                groups.iter().enumerate().map(|(at, (namespace, operation))| (at, *namespace, operation));
            runs.extend(plan.cells(groups).map(|cell| run(Some(Arc::clone(&segment)), cell)));
        }
        Ok(runs)
    }

    /// The next line of a run, the newest first.
    fn next_hit(
        &self,
        run: &mut Run,
        plan: &Plan,
        entries_read: &mut u64,
    ) -> Result<Option<Hit>, StoreError> {
        if run.ready.is_empty() && !run.is_read {
            let ready = match &run.segment {
                None => unsettled_hits(&self.orders.lock(), plan, run.cell, run.before),
                Some(segment) => segment_hits(segment, run, plan).map_err(|error| unread("search", error))?,
            };
            *entries_read += ready.len() as u64;
            run.filled(ready);
        }
        Ok(run.ready.pop().filter(|hit| hit.stand.0 >= plan.from))
    }

    /// The record of a line, if it still stands where the line says; `begun_at` is the newest segment of the time when
    /// the page was begun.
    ///
    /// What a merge has copied meanwhile, or somebody has changed, is found by its id: the page may have passed the line
    /// that is about it now, and what was there all the time must not drop out of it.
    fn find_hit(&self, hit: &Hit, begun_at: u32) -> Result<Option<Arc<Record>>, StoreError> {
        let (created, id) = hit.stand;
        let stands = |record: Arc<Record>| Some(record).filter(|record| record.times().created == created);
        let mut facts = Facts::new();
        loop {
            let place = {
                let shard = self.shard(id).lock();
                if let Some(active) = shard.active.get(&id) {
                    return Ok(stands(Arc::clone(&active.record)));
                }
                if hit.place.is_none()
                    && let Some(record) = self.cache.peek(&id)
                {
                    return Ok(stands(record));
                }
                let is_read = |place| facts.iter().any(|(read, _)| *read == place);
                match newest_place(&shard, hit, begun_at, is_read) {
                    Some(place) => place,
                    None => return Ok(None),
                }
            };
            let read = self.read("search", place)?;
            let why = match &read {
                Fact::Holds(record) if record.id() == id => return Ok(stands(Arc::clone(record))),
                Fact::Holds(_) => None,
                Fact::Gone => Some("its segment is not there"),
                Fact::Damaged(why) => Some(*why),
            };
            if let Some(why) = why
                && self.shard(id).lock().table.holds(tag_of(id), place)
            {
                return Err(damaged("search", id, place, why));
            }
            facts.push((place, read));
        }
    }
}

/// Where the record of a line may be now, and nobody has looked yet. What had changed before the page was begun has a
/// line of its own in the page, so only later places are worth a read. What has no line is where the index says.
fn newest_place(shard: &Shard, hit: &Hit, begun_at: u32, is_read: impl Fn(Place) -> bool) -> Option<Place> {
    let tag = tag_of(hit.stand.1);
    let line = hit.place.filter(|place| !is_read(*place) && shard.table.holds(tag, *place));
    let from = if hit.place.is_some() { begun_at } else { 0 };
    line.or_else(|| shard.table.places(tag).find(|place| place.segment() >= from && !is_read(*place)))
}

/// Lists that could not be read: damage, or a disk that may answer the next time.
pub(crate) fn unread(during: &'static str, error: io::Error) -> StoreError {
    if error.kind() == io::ErrorKind::InvalidData {
        return StoreError::corrupt(during, error.to_string());
    }
    StoreError::not_applied(during, true, "cannot read the log").with_source(error)
}

fn segment_hits(segment: &Segment, run: &Run, plan: &Plan) -> io::Result<Vec<Hit>> {
    let hit = |entry: &Entry| Hit {
        stand: (entry.created, entry.id),
        place: Some(entry.place(segment.number)),
        expires: entry.expires,
    };
    if let Some(sidecar) = segment.sidecar() {
        let rows = sidecar.rows();
        let lists = Lists { rows, row: |at| sidecar.row(at), entry: |at| sidecar.entry(at) };
        return lists.before(plan.term, run.cell, run.before, hit);
    }
    segment.in_memory(|built| {
        built.sort_rows();
        let built: &Built = built;
        let rows = built.rows.len() as u32;
        let row = |at: u32| Ok(built.rows[at as usize]);
        let lists = Lists { rows, row, entry: |at: u32| Ok(built.entries[at as usize]) };
        lists.before(plan.term, run.cell, run.before, hit)
    })?
}

/// The lists of a segment, wherever they are.
struct Lists<R, E> {
    rows: u32,
    row: R,
    entry: E,
}

impl<R: Fn(u32) -> io::Result<Row>, E: Fn(u32) -> io::Result<Entry>> Lists<R, E> {
    /// The last few lines of a term and cell before a stand, the newest last.
    fn before<T>(
        &self,
        term: Term,
        cell: u32,
        before: Stand,
        make: impl Fn(&Entry) -> T,
    ) -> io::Result<Vec<T>> {
        let (mut low, mut high) = (0, self.rows);
        while low < high {
            let middle = low + (high - low) / 2;
            let row = (self.row)(middle)?;
            let is_before = match (row.term, row.cell).cmp(&(term, cell)) {
                std::cmp::Ordering::Less => true,
                std::cmp::Ordering::Greater => false,
                std::cmp::Ordering::Equal => {
                    let entry = (self.entry)(row.entry)?;
                    (entry.created, entry.id) < before
                }
            };
            if is_before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut lines = Vec::new();
        while low > 0 && lines.len() < SEARCH_RUN {
            low -= 1;
            let row = (self.row)(low)?;
            if (row.term, row.cell) != (term, cell) {
                break;
            }
            lines.push(make(&(self.entry)(row.entry)?));
        }
        lines.reverse();
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use semel_core::store::Store;

    use super::*;
    use crate::clock::SteppedClock;
    use crate::embedded::disk::sim::SimDisk;
    use crate::embedded::testing::{claim, complete, request};
    use crate::embedded::{EmbeddedStore, Options};
    use crate::limits::SEGMENT_BYTES_MIN;

    fn step<T>(store: &EmbeddedStore, mut future: semel_core::store::Answer<'_, T>) -> T {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for _ in 0..8 {
            if let std::task::Poll::Ready(answer) = future.as_mut().poll(&mut context) {
                return answer.unwrap();
            }
            store.step();
        }
        panic!("a writer was forgotten");
    }

    #[test]
    fn a_reader_follows_an_index_entry_into_a_segment_that_a_merge_has_just_removed_and_finds_the_record() {
        let clock = Arc::new(SteppedClock::at(Timestamp::from_millis(1_000_000)));
        let options = Options::new("simulated").segment_bytes(SEGMENT_BYTES_MIN * 2).clock(clock);
        let store = EmbeddedStore::open_stepwise(Arc::new(SimDisk::default()), &options).unwrap();
        for n in 0..200 {
            let write = claim(&request(&format!("key-{n}")), 1, None, store.time());
            step(&store, store.insert(write));
            let running = step(&store, store.load(request(&format!("key-{n}")).id())).value.unwrap();
            step(&store, store.replace(complete(&running, &[7; 400]), running.version()));
        }
        (0..20).for_each(|_| store.upkeep(None));
        let engine = &store.engine;
        let plan = Plan::new(&Query::default(), None);
        let begun_at = engine.newest_segment();
        let mut hits = Vec::new();
        for mut run in engine.runs(&plan).unwrap() {
            while let Some(hit) = engine.next_hit(&mut run, &plan, &mut 0).unwrap() {
                hits.push(hit);
            }
        }
        assert_eq!(hits.len(), 200);
        let oldest = |engine: &Engine| engine.segments.read().keys().min().copied().unwrap();
        let before = oldest(engine);
        (0..200).for_each(|_| store.upkeep(Some(begun_at)));
        assert!(oldest(engine) > before + 3, "segments were merged meanwhile");
        for hit in hits {
            let found = engine.find_hit(&hit, begun_at).unwrap();
            assert_eq!(found.map(|record| record.id()), Some(hit.stand.1));
        }
    }
}
