//! Pages of what no store has an order for: picked from a listing that has one, by what each record says.
//!
//! A page reads a bounded number of records, and says where to go on even when it has found too few: however many there are
//! that are not asked for, no page costs more than that.

use semel_core::query::{Cursor, Page, Query, Summary};
use semel_core::{Store, StoreError};

use crate::limits::{PICKED_READ_AT_ONCE, PICKED_READ_PER_ROW};

/// A page of at most `limit` of the records that match `query` and are wanted, from after `cursor`.
///
/// # Errors
/// As those of a search.
pub(super) async fn page(
    store: &dyn Store,
    query: &Query,
    mut cursor: Option<Cursor>,
    limit: usize,
    is_wanted: impl Fn(&Summary) -> bool,
) -> Result<Page<Summary, Cursor>, StoreError> {
    let mut found = Page { items: Vec::new(), next: None, entries_read: 0 };
    let mut left = limit.saturating_mul(PICKED_READ_PER_ROW);
    loop {
        let wanted = left.min(PICKED_READ_AT_ONCE);
        let read = store.search(query.clone(), cursor, wanted).await?;
        found.entries_read = found.entries_read.saturating_add(read.entries_read);
        left = left.saturating_sub(wanted);
        let last = read.items.last().map(Summary::cursor);
        for summary in read.items {
            if !is_wanted(&summary) {
                continue;
            }
            let here = summary.cursor();
            found.items.push(summary);
            if found.items.len() == limit {
                found.next = read.next.or_else(|| last.filter(|last| *last != here)).map(|_| here);
                return Ok(found);
            }
        }
        cursor = read.next;
        if cursor.is_none() || left == 0 {
            found.next = cursor;
            return Ok(found);
        }
    }
}
