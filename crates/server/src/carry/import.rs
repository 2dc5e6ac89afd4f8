//! Into a store. Saying it again changes nothing: what is there already, and as it should be, stays.

use std::io::Read;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use semel_core::limits::WRITE_WITHIN;
use semel_core::store::{Inserted, Replaced};
use semel_core::write::Write;
use semel_core::{Record, Store, StoreError, Timestamp};

use super::CarryError;
use super::archive::{Frame, Reader};

/// Records that are written at once: they share a sync, where the store has one.
const AT_ONCE: usize = 64;
/// Times that a record is tried: somebody was quicker, or the store did not answer.
const TRIES: usize = 8;

/// What became of the records of an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// They are there now, and were not.
    pub added: u64,
    /// They are there now, in the place of others.
    pub replaced: u64,
    /// They were there already.
    pub same: u64,
    /// Something else has their place, and was left alone.
    pub different: u64,
    /// They had expired.
    pub expired: u64,
}

enum Became {
    Added,
    Replaced,
    Same,
    Different,
    Expired,
}

impl Imported {
    /// All of them.
    pub const fn records(&self) -> u64 {
        self.added + self.replaced + self.same + self.different + self.expired
    }

    fn count(&mut self, became: &Became) {
        *match became {
            Became::Added => &mut self.added,
            Became::Replaced => &mut self.replaced,
            Became::Same => &mut self.same,
            Became::Different => &mut self.different,
            Became::Expired => &mut self.expired,
        } += 1;
    }
}

/// Reads an archive into the store; `told` how many records so far. With `replace` what is there and differs is replaced:
/// right for the last of several imports, before any server uses the store, and wrong afterwards.
///
/// # Errors
/// The store fails, or the archive is damaged or has no end. What was read until then is in the store; import it again.
pub async fn import(
    store: &Arc<dyn Store>,
    source: impl Read,
    replace: bool,
    mut told: impl FnMut(u64),
) -> Result<Imported, CarryError> {
    // So that its time is known before a deadline is reckoned from it.
    store.ready().await?;
    let mut reader = Reader::begin(source)?;
    let (mut imported, mut under_way) = (Imported::default(), FuturesUnordered::new());
    loop {
        match reader.next()? {
            Frame::Record(record, as_of) => under_way.push(carry(store, record, as_of, replace)),
            Frame::Floor(record, as_of) => raise_floor(store, &record, as_of).await?,
            Frame::End(records) => {
                while let Some(became) = under_way.next().await {
                    imported.count(&became?);
                }
                told(imported.records());
                if imported.records() != records {
                    let came = imported.records();
                    return Err(CarryError::Damaged(format!("{came} records came, and it says {records}")));
                }
                return Ok(imported);
            }
        }
        if under_way.len() >= AT_ONCE
            && let Some(became) = under_way.next().await
        {
            imported.count(&became?);
            told(imported.records());
        }
    }
}

async fn carry(
    store: &Arc<dyn Store>,
    record: Record,
    as_of: Timestamp,
    replace: bool,
) -> Result<Became, StoreError> {
    let mut last = None;
    for _ in 0..TRIES {
        match carry_once(store, &record, as_of, replace).await {
            Ok(Some(became)) => return Ok(became),
            Ok(None) => {}
            // Whether it happened or not, the next try finds out.
            Err(error) if error.retry_helps() => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last
        .unwrap_or_else(|| StoreError::not_applied("import", true, "others were quicker, time and again")))
}

/// `None` if somebody was quicker.
async fn carry_once(
    store: &Arc<dyn Store>,
    record: &Record,
    as_of: Timestamp,
    replace: bool,
) -> Result<Option<Became>, StoreError> {
    let deadline = || store.time().plus(WRITE_WITHIN);
    let Some(write) = Write::carried_over(record, as_of, None) else { return Ok(Some(Became::Expired)) };
    let inserted = store.insert(write.not_after(deadline())).await?;
    let there = match inserted.value {
        Inserted::Inserted(_) => return Ok(Some(Became::Added)),
        Inserted::Occupied(there) => there,
    };
    let is_gone = there.is_expired(inserted.as_of);
    if !is_gone && is_same(record, &there) && !(replace && record.times().wake.is_some()) {
        return Ok(Some(Became::Same));
    }
    if !is_gone && !replace {
        return Ok(Some(Became::Different));
    }
    let Some(write) = Write::carried_over(record, as_of, Some(&there)) else {
        return Ok(Some(Became::Expired));
    };
    let replaced = store.replace(write.not_after(deadline()), there.version()).await?;
    Ok(match replaced.value {
        Replaced::Replaced(_) if is_gone => Some(Became::Added),
        Replaced::Replaced(_) => Some(Became::Replaced),
        Replaced::Conflict(_) => None,
    })
}

/// Whether nothing has happened to either that did not happen to the other. Versions and times are each store's own.
fn is_same(one: &Record, other: &Record) -> bool {
    let (one, other) = (one.parts(), other.parts());
    one.request == other.request
        && (one.attempt, one.uncounted) == (other.attempt, other.uncounted)
        && one.generation == other.generation
        && one.accepted == other.accepted
        && one.tainted == other.tainted
        && one.token == other.token
        && one.last == other.last
        && one.checkpoints == other.checkpoints
        && one.state == other.state
}

/// A record with that fence comes, and goes: what is given out from now on is above it.
async fn raise_floor(store: &Arc<dyn Store>, record: &Record, as_of: Timestamp) -> Result<(), StoreError> {
    let mut last = None;
    for _ in 0..TRIES {
        match carry_once(store, record, as_of, true).await {
            Ok(_) => match store.load(record.id()).await?.value {
                Some(there) if there.fence() > record.fence() => {
                    store.remove(record.id(), there.version()).await?;
                    return Ok(());
                }
                Some(_) | None => {}
            },
            Err(error) if error.retry_helps() => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last
        .unwrap_or_else(|| StoreError::not_applied("import", true, "the floor of the fences did not rise")))
}
