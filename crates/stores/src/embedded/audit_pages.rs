//! Pages of the audit log, newest first: the numbers of entries are in memory for what is being written, and in the
//! sidecars for the rest.

use std::collections::BTreeMap;
use std::io;

use semel_core::audit::Entry;
use semel_core::query::{AuditCursor, AuditQuery, Page};

use crate::codec;
use crate::embedded::engine::Engine;
use crate::embedded::index::Place;

impl Engine {
    pub(crate) fn audit_page(
        &self,
        query: &AuditQuery,
        cursor: Option<AuditCursor>,
        limit: usize,
    ) -> io::Result<Page<Entry, AuditCursor>> {
        let before = cursor.map_or(u64::MAX, |cursor| cursor.0);
        let mut page = Page { items: Vec::new(), next: None, entries_read: 0 };
        let mut ready: BTreeMap<u64, Place> =
            self.audits.lock().range(..before).map(|(sequence, place)| (*sequence, *place)).collect();
        let segments: Vec<_> = self.segments.read().values().cloned().collect();
        // Those with the latest entries last, so that a page opens only the lists that it needs.
        let mut closed: Vec<_> = segments
            .into_iter()
            .filter_map(|segment| Some((segment.sidecar()?.last_audit?, segment)))
            .collect();
        closed.sort_by_key(|(last, _)| *last);
        loop {
            while let Some((last, _)) = closed.last()
                && ready.last_key_value().is_none_or(|(newest, _)| last >= newest)
            {
                let Some((_, segment)) = closed.pop() else { break };
                let audits = Self::audits_of(&segment)?.into_iter();
                ready.extend(audits.filter(|(sequence, ..)| *sequence < before).map(
                    |(sequence, offset, len)| (sequence, Place::new(segment.number, offset, len as usize)),
                ));
            }
            let Some((sequence, place)) = ready.pop_last() else { break };
            page.entries_read += 1;
            let Some(entry) = self.audit_entry(place)? else { continue };
            if !is_asked_for(query, &entry) {
                continue;
            }
            if page.items.len() == limit {
                page.next = Some(AuditCursor(sequence + 1));
                break;
            }
            page.items.push(entry);
        }
        Ok(page)
    }

    /// The entry at a place; `None` if a merge has just taken it away, and put it elsewhere.
    fn audit_entry(&self, place: Place) -> io::Result<Option<Entry>> {
        let Some(segment) = self.segment(place) else { return Ok(None) };
        Ok(segment.read(place)?.and_then(audit_in))
    }
}

/// The audit entry of a frame: alone, or behind a record.
fn audit_in(payload: bytes::Bytes) -> Option<Entry> {
    if let Ok((_, entry)) = codec::decode_audit(payload.clone()) {
        return Some(entry);
    }
    let (_, rest) = codec::decode_record(payload).ok()?;
    codec::decode_audit(rest).ok().map(|(_, entry)| entry)
}

fn is_asked_for(query: &AuditQuery, entry: &Entry) -> bool {
    let correlation_id = entry.correlation_id.as_ref().map(semel_core::record::Text::as_str);
    query.record.is_none_or(|id| entry.record == Some(id))
        && query.action.is_none_or(|action| entry.action == action)
        && query.correlation_id.as_deref().is_none_or(|id| correlation_id == Some(id))
        && query.from.is_none_or(|from| entry.at >= from)
        && query.until.is_none_or(|until| entry.at < until)
}
