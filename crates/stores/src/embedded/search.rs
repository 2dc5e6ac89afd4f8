//! Pages over many records, newest first, without a scan of what grows.
//!
//! Unsettled records are in an order in memory, settled ones in the lists of their segments; within a term and a cell (an
//! operation and a state) each list is in the order of the page. So a page is a merge of short runs, whatever is asked
//! for, and what is read grows with the page and with the number of segments, not with the number of records. A segment keeps lines about records that have moved on;
//! the index tells them from the current ones.

use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;

use semel_core::id::{Namespace, Operation};
use semel_core::query::{Cursor, Page, Query, Summary};
use semel_core::record::StateName;
use semel_core::{Record, RecordId, Timestamp};

use crate::embedded::engine::Engine;
use crate::embedded::index::{Place, tag_of};
use crate::embedded::listing::{ALL, Built, Entry, Row, Term, cell_of, key_term, tag_term};
use crate::embedded::segment::Segment;
use crate::embedded::shard::Fact;
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
    /// `None` for an unsettled record.
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

impl Engine {
    pub(crate) fn search(
        &self,
        query: &Query,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> io::Result<Page<Summary, Cursor>> {
        let plan = Plan::new(query, cursor);
        let mut page = Page { items: Vec::new(), next: None, entries_read: 0 };
        let mut runs = self.runs(&plan)?;
        let mut heads = BinaryHeap::new();
        for (at, run) in runs.iter_mut().enumerate() {
            if let Some(hit) = self.next_hit(run, &plan, &mut page.entries_read)? {
                heads.push((hit, at));
            }
        }
        let now = self.now();
        while let Some((hit, at)) = heads.pop() {
            if let Some(next) = self.next_hit(&mut runs[at], &plan, &mut page.entries_read)? {
                heads.push((next, at));
            }
            if hit.expires.is_some_and(|expires| now >= expires) {
                continue;
            }
            let Some(record) = self.find_hit(&hit)? else { continue };
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
            runs.extend(plan.cells(tally.groups()).map(|cell| run(None, cell)));
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
    fn next_hit(&self, run: &mut Run, plan: &Plan, entries_read: &mut u64) -> io::Result<Option<Hit>> {
        if run.ready.is_empty() && !run.is_read {
            run.ready = match &run.segment {
                None => self.unsettled_hits(run, plan),
                Some(segment) => segment_hits(segment, run, plan)?,
            };
            *entries_read += run.ready.len() as u64;
            run.is_read = run.ready.len() < SEARCH_RUN;
            if let Some(oldest) = run.ready.first() {
                run.before = oldest.stand;
            }
        }
        Ok(run.ready.pop().filter(|hit| hit.stand.0 >= plan.from))
    }

    fn unsettled_hits(&self, run: &Run, plan: &Plan) -> Vec<Hit> {
        let orders = self.orders.lock();
        let stands = orders.before(plan.term, run.cell, run.before).take(SEARCH_RUN);
        let mut hits: Vec<_> = stands.map(|stand| Hit { stand, place: None, expires: None }).collect();
        hits.reverse();
        hits
    }

    /// The record of a line, if the line is about its newest version.
    fn find_hit(&self, hit: &Hit) -> io::Result<Option<Arc<Record>>> {
        let id = hit.stand.1;
        let shard = self.shard(id).lock();
        let Some(place) = hit.place else {
            return Ok(shard.active.get(&id).map(|active| Arc::clone(&active.record)));
        };
        if !shard.table.holds(tag_of(id), place) {
            return Ok(None);
        }
        drop(shard);
        match self.read(place).map_err(io::Error::other)? {
            Fact::Holds(record) => Ok(Some(record).filter(|record| record.id() == id)),
            // A merge was quicker: the copy stands in a newer segment, which this page may have passed already.
            Fact::Gone => Ok(None),
        }
    }
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
