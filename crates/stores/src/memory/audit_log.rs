//! The audit log of a store in memory: the newest entries, numbered, in the orders that they are searched by.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use semel_core::Timestamp;
use semel_core::audit::{Action, Entry};
use semel_core::id::{Key, Operation, RecordId, Tag};
use semel_core::query::{AuditCursor, AuditQuery, Page};

use crate::limits;

/// What entries are looked up by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Term {
    All,
    Record(RecordId),
    Correlation(String),
    Key(String),
    Tag(String, String),
}

/// Who did what: operation, actor, action.
type Cell = (Option<Box<str>>, Box<str>, Action);

/// The newest entries, oldest first.
#[derive(Default)]
pub(super) struct AuditLog {
    entries: VecDeque<Entry>,
    orders: BTreeMap<Term, BTreeMap<Cell, BTreeSet<u64>>>,
    /// The number of the first entry that is still there.
    first: u64,
}

impl AuditLog {
    /// Adds a stamped entry; the oldest gives way when there are too many.
    pub(super) fn add(&mut self, entry: Entry) {
        if self.entries.len() >= limits::MEMORY_AUDIT_ENTRIES_MAX {
            self.drop_oldest();
        }
        let number = self.first + self.entries.len() as u64;
        for term in terms_of(&entry) {
            self.orders.entry(term).or_default().entry(cell_of(&entry)).or_default().insert(number);
        }
        self.entries.push_back(entry);
    }

    /// When the newest entry happened.
    pub(super) fn newest(&self) -> Timestamp {
        self.entries.back().map_or(Timestamp::ZERO, |entry| entry.at)
    }

    /// Drops entries that were stamped before `before`, at most `limit`; how many.
    pub(super) fn forget(&mut self, before: Timestamp, limit: usize) -> usize {
        let mut dropped = 0;
        while dropped < limit && self.entries.front().is_some_and(|oldest| oldest.at < before) {
            self.drop_oldest();
            dropped += 1;
        }
        dropped
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.entries.pop_front() else { return };
        let cell = cell_of(&oldest);
        for term in terms_of(&oldest) {
            let Some(cells) = self.orders.get_mut(&term) else { continue };
            if let Some(numbers) = cells.get_mut(&cell) {
                numbers.remove(&self.first);
                if numbers.is_empty() {
                    cells.remove(&cell);
                }
            }
            if cells.is_empty() {
                self.orders.remove(&term);
            }
        }
        self.first += 1;
    }

    /// Entries that match, newest first, below the cursor.
    pub(super) fn page(
        &self,
        query: &AuditQuery,
        cursor: Option<AuditCursor>,
        limit: usize,
    ) -> Page<Entry, AuditCursor> {
        let before = |time| self.entries.partition_point(|entry| entry.at < time) as u64 + self.first;
        let end = self.first + self.entries.len() as u64;
        let below = cursor.map_or(end, |cursor| cursor.0).min(query.until.map_or(end, before));
        let from = query.from.map_or(self.first, before).min(below);
        let cells = self.orders.get(&term_of(query)).into_iter().flatten();
        let runs = cells.filter(|(cell, _)| is_asked_for(query, cell)).map(|(_, numbers)| numbers);
        let runs: Vec<_> = runs.collect();
        let newest =
            |run: usize, below: u64| Some((*runs[run].range(from..below.max(from)).next_back()?, run));
        let mut heads: BinaryHeap<_> = (0..runs.len()).filter_map(|run| newest(run, below)).collect();
        let mut page = Page { items: Vec::new(), next: None, entries_read: 0 };
        let mut last = None;
        while let Some((number, run)) = heads.pop() {
            heads.extend(newest(run, number));
            let Some(entry) = self.entry(number) else { break };
            page.entries_read += 1;
            if !query.matches(entry) {
                continue;
            }
            if page.items.len() == limit {
                page.next = last;
                break;
            }
            last = Some(AuditCursor(number));
            page.items.push(entry.clone());
        }
        page
    }

    fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
}

fn cell_of(entry: &Entry) -> Cell {
    let operation = entry.operation.as_ref().map(|operation| Operation::as_str(operation).into());
    (operation, entry.actor.as_str().into(), entry.action)
}

fn is_asked_for(query: &AuditQuery, (operation, actor, action): &Cell) -> bool {
    let wanted = query.operation.as_ref().map(Operation::as_str);
    query.action.is_none_or(|wanted| wanted == *action)
        && (wanted.is_none() || wanted == operation.as_deref())
        && query.actor.as_deref().is_none_or(|wanted| wanted == &**actor)
}

fn tag_term(tag: &Tag) -> Term {
    Term::Tag(tag.name.as_str().to_owned(), tag.value.as_str().to_owned())
}

fn key_term(key: &Key) -> Term {
    Term::Key(key.as_str().to_owned())
}

/// The narrowest thing that a query says.
fn term_of(query: &AuditQuery) -> Term {
    let record = query.record.map(Term::Record);
    let correlation = || query.correlation_id.clone().map(Term::Correlation);
    let key = || query.key.as_ref().map(key_term);
    let tag = || query.tag.as_ref().map(tag_term);
    record.or_else(correlation).or_else(key).or_else(tag).unwrap_or(Term::All)
}

fn terms_of(entry: &Entry) -> Vec<Term> {
    let record = entry.record.map(Term::Record);
    let correlation = entry.correlation_id.as_ref().map(|id| Term::Correlation(id.as_str().to_owned()));
    let key = entry.key.as_ref().map(key_term);
    let tags = entry.tags.iter().map(tag_term);
    [Some(Term::All), record, correlation, key].into_iter().flatten().chain(tags).collect()
}
