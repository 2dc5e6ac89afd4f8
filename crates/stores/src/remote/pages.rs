//! Pages of a list, filled by reading on from place to place until enough of what was read is shown.

use semel_core::query::{Cursor, Page};
use semel_core::{RecordId, StoreError, Timestamp};

/// What was read of an order at once.
pub(crate) struct Run<P, T> {
    /// The places that were read, in their order, each with what is shown of it, if anything.
    pub(crate) items: Vec<(P, Option<T>)>,
    /// Whether there may be more.
    pub(crate) full: bool,
    /// Entries of whatever order it was read from.
    pub(crate) read: u64,
}

/// The page below a place. `read` is asked for the next so many places below one, and `cursor` makes of a place where the
/// next page begins.
pub(crate) async fn page<P: Copy, T, C, F>(
    limit: usize,
    mut below: P,
    read: impl Fn(P, usize) -> F,
    cursor: impl Fn(P) -> Option<C>,
) -> Result<Page<T, C>, StoreError>
where
    F: Future<Output = Result<Run<P, T>, StoreError>>,
{
    let limit = limit.clamp(1, semel_core::limits::PAGE_MAX);
    let mut page = Page { items: Vec::new(), next: None, entries_read: 0 };
    let (mut window, mut last) = (limit + 1, None);
    loop {
        let run = read(below, window).await?;
        page.entries_read += run.read;
        for (place, shown) in run.items {
            below = place;
            let Some(item) = shown else { continue };
            if page.items.len() == limit {
                page.next = last.and_then(cursor);
                return Ok(page);
            }
            last = Some(place);
            page.items.push(item);
        }
        if !run.full {
            return Ok(page);
        }
        // Little of what was read was asked for: fewer and longer looks.
        window = (window * 2).min(semel_core::limits::PAGE_MAX + 1);
    }
}

/// Above every record.
pub(crate) fn newest() -> Cursor {
    Cursor { created: Timestamp::MAX, id: RecordId::from_bytes([0xff; 16]) }
}
