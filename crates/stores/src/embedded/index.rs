//! The index: from a record's id to its place in the log, in twelve bytes and a little.
//!
//! A table of small buckets that grows by splitting one bucket at a time (linear hashing), so that no insert ever waits for a
//! table that doubles. It keeps 32 bits of the id beside the place: two ids may share them, so whoever asks
//! reads the record and looks at the whole id, and whoever changes an entry names the place it had.
//! Ids are digests, so their bits are spread already.

use std::fmt;

use semel_core::RecordId;

use crate::embedded::segment::name_of;
use crate::limits::{BUCKET_ENTRIES, FRAME_ALIGN};

/// Where a frame lies: segment, offset, and about how long it is, in eight bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place(u64);

const OFFSET_BITS: u32 = 24;
const SIZE_BITS: u32 = 16;
const SIZE_UNIT: usize = 64;
const SIZE_MAX: u64 = (1 << SIZE_BITS) - 1;

impl Place {
    /// The place of a frame of `len` bytes.
    pub(crate) fn new(segment: u32, offset: u32, len: usize) -> Self {
        let units = (len.div_ceil(SIZE_UNIT) as u64).min(SIZE_MAX);
        let offset = u64::from(offset) / FRAME_ALIGN as u64;
        Self(u64::from(segment) << (OFFSET_BITS + SIZE_BITS) | offset << SIZE_BITS | units)
    }

    pub(crate) const fn segment(self) -> u32 {
        (self.0 >> (OFFSET_BITS + SIZE_BITS)) as u32
    }

    pub(crate) const fn offset(self) -> u32 {
        (((self.0 >> SIZE_BITS) & ((1 << OFFSET_BITS) - 1)) as u32) * FRAME_ALIGN as u32
    }

    /// At least the length of the frame, within 64 bytes; `None` for the few that are too long for the field.
    pub(crate) fn len_at_most(self) -> Option<usize> {
        let units = self.0 & SIZE_MAX;
        (units < SIZE_MAX).then(|| units as usize * SIZE_UNIT)
    }

    /// The length as far as the field can tell, for accounts.
    pub(crate) const fn bytes(self) -> u64 {
        (self.0 & SIZE_MAX) * SIZE_UNIT as u64
    }

    /// Where it is, for people.
    pub(crate) fn in_words(self) -> String {
        format!("byte {} of {}", self.offset(), name_of(self.segment()))
    }

    /// No place yet.
    pub(crate) const NONE: Self = Self(0);
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment(), self.offset())
    }
}

/// Which shard an id belongs to.
pub(crate) fn shard_of(id: RecordId) -> usize {
    id.as_bytes()[0] as usize % crate::limits::SHARDS
}

/// The 32 bits of an id that its entry keeps; they choose the bucket, too.
pub(crate) fn tag_of(id: RecordId) -> u32 {
    let bytes = id.as_bytes();
    u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]])
}

/// An entry: the tag, and the place in two halves so that the whole is twelve bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Slot {
    tag: u32,
    high: u32,
    low: u32,
}

impl Slot {
    fn new(tag: u32, place: Place) -> Self {
        Self { tag, high: (place.0 >> 32) as u32, low: place.0 as u32 }
    }

    fn place(self) -> Place {
        Place(u64::from(self.high) << 32 | u64::from(self.low))
    }
}

/// One shard of the index.
#[derive(Default)]
pub(crate) struct Table {
    /// A power of two of them, and those that were split since.
    buckets: Vec<Vec<Slot>>,
    entries: usize,
}

impl Table {
    /// A table that is as large as `entries` will make it.
    pub(crate) fn with_capacity(entries: usize) -> Self {
        let mut table = Self::default();
        table.buckets.resize_with(entries.div_ceil(BUCKET_ENTRIES), Vec::new);
        table
    }

    /// How many entries there are.
    pub(crate) const fn len(&self) -> usize {
        self.entries
    }

    /// Bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        let slots: usize = self.buckets.iter().map(Vec::capacity).sum();
        slots * size_of::<Slot>() + self.buckets.capacity() * size_of::<Vec<Slot>>()
    }

    /// Which bucket: the tag's low bits, one more of them for buckets that were split in this round.
    fn bucket_of(&self, tag: u32) -> usize {
        let wide = self.buckets.len().next_power_of_two();
        let bucket = tag as usize & (wide - 1);
        if bucket < self.buckets.len() { bucket } else { bucket & (wide / 2 - 1) }
    }

    /// Places of entries that may be this id's: nearly always none or one.
    pub(crate) fn places(&self, tag: u32) -> impl Iterator<Item = Place> + '_ {
        let bucket = if self.buckets.is_empty() { &[][..] } else { &self.buckets[self.bucket_of(tag)][..] };
        bucket.iter().filter(move |slot| slot.tag == tag).map(|slot| slot.place())
    }

    /// Whether an entry has this tag and place.
    pub(crate) fn holds(&self, tag: u32, place: Place) -> bool {
        self.places(tag).any(|held| held == place)
    }

    /// Adds an entry; the id has none yet.
    pub(crate) fn insert(&mut self, tag: u32, place: Place) {
        if self.entries >= self.buckets.len() * BUCKET_ENTRIES {
            self.split_one();
        }
        let bucket = self.bucket_of(tag);
        push(&mut self.buckets[bucket], Slot::new(tag, place));
        self.entries += 1;
    }

    /// Moves an entry from a place to another; `false` if there is none at `from`.
    pub(crate) fn move_entry(&mut self, tag: u32, from: Place, to: Place) -> bool {
        if self.buckets.is_empty() {
            return false;
        }
        let bucket = self.bucket_of(tag);
        let old = Slot::new(tag, from);
        let found = self.buckets[bucket].iter_mut().find(|slot| **slot == old);
        found.is_some_and(|slot| {
            *slot = Slot::new(tag, to);
            true
        })
    }

    /// Takes an entry out; `false` if there is none at `place`.
    pub(crate) fn remove(&mut self, tag: u32, place: Place) -> bool {
        if self.buckets.is_empty() {
            return false;
        }
        let bucket = self.bucket_of(tag);
        let old = Slot::new(tag, place);
        let bucket = &mut self.buckets[bucket];
        let Some(at) = bucket.iter().position(|slot| *slot == old) else { return false };
        bucket.swap_remove(at);
        if bucket.capacity() > 2 * BUCKET_ENTRIES && bucket.len() < BUCKET_ENTRIES {
            bucket.shrink_to(BUCKET_ENTRIES);
        }
        self.entries -= 1;
        true
    }

    /// Adds a bucket, and gives it its part of the one that it splits.
    fn split_one(&mut self) {
        let new = self.buckets.len();
        self.buckets.push(Vec::new());
        if new == 0 {
            return;
        }
        let round = (new + 1).next_power_of_two() / 2;
        let source = std::mem::take(&mut self.buckets[new - round]);
        let mut stay = Vec::with_capacity(source.len() / 2 + SPARE_SLOTS);
        let mut go = Vec::with_capacity(source.len() / 2 + SPARE_SLOTS);
        for slot in source {
            let bucket = if self.bucket_of(slot.tag) == new { &mut go } else { &mut stay };
            push(bucket, slot);
        }
        self.buckets[new - round] = stay;
        self.buckets[new] = go;
    }
}

/// Slots that a bucket grows by: doubling would leave a quarter of all slots empty.
const SPARE_SLOTS: usize = 4;

fn push(bucket: &mut Vec<Slot>, slot: Slot) {
    if bucket.len() == bucket.capacity() {
        bucket.reserve_exact(SPARE_SLOTS);
    }
    bucket.push(slot);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_made() {
        let place = Place::new(0xab_cdef, 0x7ff_fff8, 530);
        assert_eq!(
            (place.segment(), place.offset(), place.len_at_most()),
            (0xab_cdef, 0x7ff_fff8, Some(576))
        );
        assert_eq!(Place::new(1, 4096, 64 << 20).len_at_most(), None);
    }

    #[test]
    fn an_index_entry_takes_less_than_32_bytes_at_every_size() {
        let mut table = Table::default();
        for n in 0..200_000_u32 {
            table.insert(n.wrapping_mul(0x9e37_79b9), Place::new(1, n * 8, 512));
            if n > 1_000 && n % 1_000 == 0 {
                assert!(table.bytes() < table.len() * 32, "{} bytes at {n}", table.bytes() / table.len());
            }
        }
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_plain_map(steps in prop::collection::vec((0_u32..40, 0_u8..3), 1..400)) {
            let mut table = Table::default();
            let mut plain: HashMap<u32, Vec<Place>> = HashMap::new();
            for (n, (key, what)) in steps.into_iter().enumerate() {
                // Few keys and fewer tags, so that ids share tags.
                let tag = (key / 2).wrapping_mul(0x9e37_79b9);
                let place = Place::new(7, n as u32 * 8, 64);
                let held = plain.entry(tag).or_default();
                match (what, held.first().copied()) {
                    (0, _) => { table.insert(tag, place); held.push(place); }
                    (1, Some(old)) => { prop_assert!(table.move_entry(tag, old, place)); held[0] = place; }
                    (2, Some(old)) => { prop_assert!(table.remove(tag, old)); held.remove(0); }
                    (_, _) => prop_assert!(!table.remove(tag, place)),
                }
                let mut found: Vec<_> = table.places(tag).collect();
                let mut expected = held.clone();
                found.sort();
                expected.sort();
                prop_assert_eq!(found, expected);
            }
            prop_assert_eq!(table.len(), plain.values().map(Vec::len).sum::<usize>());
        }
    }
}
