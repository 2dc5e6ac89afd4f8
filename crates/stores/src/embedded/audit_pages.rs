//! Pages of the audit log, newest first, and forgetting its old end.
//!
//! A page is a merge of runs out of the lists of segments ([`audit_list`](super::audit_list)), opened from the newest
//! on. Numbers and times rise together, so forgetting is one number: what is below it is shown to nobody, and carried by no
//! merge. The mark of every batch holds it, so it is as durable as the next batch.

use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use semel_core::Timestamp;
use semel_core::audit::Entry;
use semel_core::query::{AuditCursor, AuditQuery, Page};

use crate::codec;
use crate::embedded::audit_list::{AuditLine, cells_under, first_at, is_asked_for, lines_before, term_of};
use crate::embedded::engine::Engine;
use crate::embedded::listing::Term;
use crate::embedded::segment::Segment;
use crate::embedded::upkeep::unreadable;
use crate::limits::SEARCH_RUN;

/// A run of lines, read in pieces that grow: most runs give a page little.
struct Run {
    segment: Arc<Segment>,
    of: Option<(Term, u32)>,
    /// Lines that are read and not used, the newest last.
    ready: Vec<AuditLine>,
    before: u64,
    piece: usize,
}

impl Run {
    /// The next line, the newest first.
    fn next(&mut self, entries_read: &mut u64) -> io::Result<Option<AuditLine>> {
        if self.ready.is_empty() {
            let (of, before, piece) = (self.of, self.before, self.piece);
            self.ready = self.segment.audit_lists(|lists| lines_before(lists, of, before, piece))?;
            *entries_read += self.ready.len() as u64;
            self.piece = (piece * 2).min(SEARCH_RUN);
            if let Some(oldest) = self.ready.first() {
                self.before = oldest.sequence;
            }
        }
        Ok(self.ready.pop())
    }
}

/// Runs whose newest lines are compared.
#[derive(Default)]
struct Merge {
    runs: Vec<(Run, AuditLine)>,
    heads: BinaryHeap<(u64, usize)>,
    entries_read: u64,
}

impl Merge {
    fn add(&mut self, mut run: Run) -> io::Result<()> {
        if let Some(line) = run.next(&mut self.entries_read)? {
            self.heads.push((line.sequence, self.runs.len()));
            self.runs.push((run, line));
        }
        Ok(())
    }

    /// The newest line of all, and its segment.
    fn next(&mut self) -> io::Result<Option<(AuditLine, Arc<Segment>)>> {
        let Some((_, at)) = self.heads.pop() else { return Ok(None) };
        let (run, line) = &mut self.runs[at];
        let found = (*line, Arc::clone(&run.segment));
        if let Some(next) = run.next(&mut self.entries_read)? {
            *line = next;
            self.heads.push((next.sequence, at));
        }
        Ok(Some(found))
    }
}

impl Engine {
    pub(crate) fn audit_page(
        &self,
        query: &AuditQuery,
        cursor: Option<AuditCursor>,
        limit: usize,
    ) -> io::Result<Page<Entry, AuditCursor>> {
        let floor = self.audit_floor.load(Ordering::Acquire);
        let before = self.audit_end.load(Ordering::Acquire).min(cursor.map_or(u64::MAX, |cursor| cursor.0));
        let mut page = Page { items: Vec::new(), next: None, entries_read: 0 };
        let mut closed = self.with_audits_below(before, floor, query);
        let mut merge = Merge::default();
        let mut shown = u64::MAX;
        loop {
            // A segment is opened only when something in it may come before what is known.
            while let Some((last, _)) = closed.last()
                && merge.heads.peek().is_none_or(|(newest, _)| last >= newest)
                && let Some((_, segment)) = closed.pop()
            {
                for run in runs_of(&segment, query, before)? {
                    merge.add(run)?;
                }
            }
            let Some((line, segment)) = merge.next()? else { break };
            if line.sequence < floor || query.from.is_some_and(|from| line.at < from) {
                break;
            }
            // A merge may have left an entry in two places.
            if std::mem::replace(&mut shown, line.sequence) == line.sequence {
                continue;
            }
            let place = line.place(segment.number);
            let entry = segment.read(place)?.and_then(audit_in).ok_or_else(|| unreadable(place))?;
            if !query.matches(&entry) {
                continue;
            }
            if page.items.len() == limit {
                page.next = Some(AuditCursor(line.sequence + 1));
                break;
            }
            page.items.push(entry);
        }
        page.entries_read = merge.entries_read;
        Ok(page)
    }

    /// Segments that may hold what is asked for, with the highest number in each, those with the latest last.
    fn with_audits_below(&self, before: u64, floor: u64, query: &AuditQuery) -> Vec<(u64, Arc<Segment>)> {
        let segments: Vec<_> = self.segments.read().values().cloned().collect();
        let span = |segment: Arc<Segment>| {
            let Some(sidecar) = segment.sidecar() else { return Some((u64::MAX, segment)) };
            let span = sidecar.audit_span?;
            let may = span.last.sequence >= floor
                && span.first.sequence < before
                && query.from.is_none_or(|from| span.last.at >= from)
                && query.until.is_none_or(|until| span.first.at < until);
            may.then_some((span.last.sequence, segment))
        };
        let mut found: Vec<_> = segments.into_iter().filter_map(span).collect();
        found.sort_by_key(|(last, _)| *last);
        found
    }

    /// Forgets entries that were stamped before `before`, at most about `limit`; how many numbers that are. Not durable
    /// before the next batch is.
    pub(crate) fn forget(&self, before: Timestamp, limit: usize) -> io::Result<usize> {
        let floor = self.audit_floor.load(Ordering::Acquire);
        // The lowest number that is there, and the lowest that is to stay.
        let (mut first, mut keep) = (u64::MAX, self.audit_end.load(Ordering::Acquire));
        let segments: Vec<_> = self.segments.read().values().cloned().collect();
        for segment in segments {
            let Some(span) = segment.sidecar().and_then(|sidecar| sidecar.audit_span) else { continue };
            if span.last.sequence < floor {
                continue;
            }
            first = first.min(span.first.sequence.max(floor));
            if span.first.at >= before {
                keep = keep.min(span.first.sequence);
            } else if span.last.at >= before
                && let Some(number) = segment.audit_lists(|lists| first_at(lists, before))?
            {
                keep = keep.min(number);
            }
        }
        for (taken, (number, (_, at))) in self.audits.lock().range(floor..).enumerate() {
            first = first.min(*number);
            if *at >= before {
                keep = keep.min(*number);
            }
            if *at >= before || taken >= limit {
                break;
            }
        }
        let first = first.min(keep).max(floor);
        let to = keep.min(first.saturating_add(limit as u64));
        if to <= first {
            return Ok(0);
        }
        self.audit_floor.fetch_max(to, Ordering::AcqRel);
        let mut audits = self.audits.lock();
        *audits = audits.split_off(&to);
        Ok((to - first) as usize)
    }
}

fn runs_of(segment: &Arc<Segment>, query: &AuditQuery, before: u64) -> io::Result<Vec<Run>> {
    let (of, before) = segment.audit_lists(|lists| {
        let until = query.until.map(|until| first_at(lists, until)).transpose()?.flatten();
        let before = before.min(until.unwrap_or(u64::MAX));
        let Some(term) = term_of(query) else { return Ok((vec![None], before)) };
        let cells = cells_under(lists, term)?.into_iter();
        let asked_for = cells.filter(|cell| is_asked_for(query, lists.groups(), *cell));
        Ok((asked_for.map(|cell| Some((term, cell))).collect(), before))
    })?;
    let run = |of| Run { segment: Arc::clone(segment), of, ready: Vec::new(), before, piece: 1 };
    Ok(of.into_iter().map(run).collect())
}

/// The audit entry of a frame: alone, or behind a record.
fn audit_in(payload: bytes::Bytes) -> Option<Entry> {
    if let Ok((_, entry)) = codec::decode_audit(payload.clone()) {
        return Some(entry);
    }
    let (_, rest) = codec::decode_record(payload).ok()?;
    codec::decode_audit(rest).ok().map(|(_, entry)| entry)
}
