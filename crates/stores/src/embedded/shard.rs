//! A shard of what the store knows: records that somebody holds whole, all others by their place in the log.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use semel_core::{Record, RecordId};
use tokio::sync::Notify;

use crate::embedded::batch::Batch;
use crate::embedded::index::{Place, Table, tag_of};

/// Record ids are digests: any eight bytes of them are a hash.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk() {
            self.0 = u64::from_le_bytes(*last);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map by record id.
pub(crate) type IdMap<T> = HashMap<RecordId, T, BuildHasherDefault<IdHasher>>;

/// A record that somebody holds.
#[derive(Clone)]
pub(crate) struct Active {
    pub(crate) record: Arc<Record>,
    pub(crate) place: Place,
}

/// What the log says about a place.
#[derive(Clone)]
pub(crate) enum Fact {
    /// This record.
    Holds(Arc<Record>),
    /// A merge has taken the segment away since the index was asked: the record is somewhere else, if it is there.
    Gone,
    /// No record, and this is what is wrong with it. Never absent: while the index points here, the store is damaged.
    Damaged(&'static str),
}

/// What lies at places that were read while a shard was not locked. A place never holds anything else later.
pub(crate) type Facts = Vec<(Place, Fact)>;

/// Where a record is.
pub(crate) enum Look {
    /// It is not there.
    Absent,
    /// Here it is.
    Found(Arc<Record>),
    /// One has to read there to know.
    Read(Place),
    /// The index points to a place that cannot be read, for this reason.
    Damaged(Place, &'static str),
}

/// One of the parts that the ids are divided into. Under its lock are only steps in memory, never a read or a wait.
#[derive(Default)]
pub(crate) struct Shard {
    /// Records that nobody holds.
    pub(crate) table: Table,
    /// Records that somebody holds.
    pub(crate) active: IdMap<Active>,
    /// Ids with a version on its way to the disk. Nothing is decided about such an id until the version is durable, so
    /// that nobody is refused on the strength of one that a crash takes back (L4).
    pub(crate) pending: IdMap<Arc<Batch>>,
    /// Who waits for a change. An entry goes with its last waiter.
    pub(crate) watchers: IdMap<Arc<Notify>>,
}

impl Shard {
    /// Where the newest durable version of `id` is. `cached` is asked only for ids that the table may hold.
    pub(crate) fn look(
        &self,
        id: RecordId,
        facts: &Facts,
        cached: impl FnOnce() -> Option<Arc<Record>>,
    ) -> Look {
        if let Some(active) = self.active.get(&id) {
            return Look::Found(Arc::clone(&active.record));
        }
        let mut cached = Some(cached);
        for place in self.table.places(tag_of(id)) {
            match facts.iter().rev().find(|(read, _)| *read == place) {
                Some((_, Fact::Holds(record))) if record.id() == id => {
                    return Look::Found(Arc::clone(record));
                }
                Some((_, Fact::Holds(_))) => {}
                Some((_, Fact::Gone)) => return Look::Damaged(place, "its segment is not there"),
                Some((_, Fact::Damaged(why))) => return Look::Damaged(place, why),
                None => {
                    if let Some(record) = cached.take().and_then(|cached| cached()) {
                        return Look::Found(record);
                    }
                    return Look::Read(place);
                }
            }
        }
        Look::Absent
    }
}
