//! The audit log of a store in memory: the newest entries, numbered.

use std::collections::{BTreeSet, VecDeque};

use semel_core::audit::Entry;
use semel_core::id::RecordId;
use semel_core::query::{AuditCursor, AuditQuery, Page};

use crate::limits;

/// The newest entries, oldest first.
#[derive(Default)]
pub(super) struct AuditLog {
    entries: VecDeque<Entry>,
    by_record: BTreeSet<(RecordId, u64)>,
    /// The number of the first entry that is still there.
    first: u64,
}

impl AuditLog {
    /// Adds a stamped entry; the oldest gives way when there are too many.
    pub(super) fn add(&mut self, entry: Entry) {
        if self.entries.len() >= limits::MEMORY_AUDIT_ENTRIES_MAX
            && let Some(oldest) = self.entries.pop_front()
        {
            if let Some(record) = oldest.record {
                self.by_record.remove(&(record, self.first));
            }
            self.first += 1;
        }
        if let Some(record) = entry.record {
            self.by_record.insert((record, self.first + self.entries.len() as u64));
        }
        self.entries.push_back(entry);
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
        let numbers: Box<dyn Iterator<Item = u64>> = match query.record {
            Some(record) => Box::new(
                self.by_record.range((record, from)..(record, below)).rev().map(|(_, number)| *number),
            ),
            None => Box::new((from..below).rev()),
        };
        let mut page = Page { items: Vec::new(), next: None, entries_read: 0 };
        let mut last = None;
        for number in numbers {
            let Some(entry) = self.entry(number) else { break };
            page.entries_read += 1;
            if !matches(query, entry) {
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

fn matches(query: &AuditQuery, entry: &Entry) -> bool {
    let correlated = |id: &String| entry.correlation_id.as_ref().is_some_and(|text| text.as_str() == id);
    query.record.is_none_or(|record| entry.record == Some(record))
        && query.action.is_none_or(|action| entry.action == action)
        && query.correlation_id.as_ref().is_none_or(correlated)
        && query.from.is_none_or(|from| entry.at >= from)
        && query.until.is_none_or(|until| entry.at < until)
}
