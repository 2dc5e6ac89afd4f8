//! Names of keys. A shard's keys share a hash tag, `{prefix:number}`, and so a slot of a cluster: a record, its places in the
//! orders, the shard's counts, fences and audit entries are on one node, where one script can change them together.

use semel_core::RecordId;

/// Slots of every Redis cluster.
const SLOTS: u16 = 16_384;

/// A part of the records, in one slot.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) number: usize,
    pub(super) slot: u16,
    tag: String,
    /// The last fence, the last number of the audit log.
    pub(super) own: String,
    /// What becomes due: lane, time, id.
    pub(super) due: String,
    /// Terms that records are found by: term, time of creation, id.
    pub(super) names: String,
    /// What expires: id, by time.
    pub(super) expires: String,
    /// How many there are of each kind.
    pub(super) counts: String,
    /// Terms that audit entries are found by: term, cell, number.
    pub(super) audit_terms: String,
    /// Audit entries by number: a stream.
    pub(super) audit: String,
    /// Who did what, by cell.
    pub(super) audit_cells: String,
}

impl Shard {
    pub(super) fn new(prefix: &str, number: usize) -> Self {
        let tag = format!("{{{prefix}:{number}}}");
        let key = |name: &str| format!("{tag}{name}");
        Self {
            number,
            slot: slot(tag.as_bytes()),
            own: key("shard"),
            due: key("due"),
            names: key("names"),
            expires: key("expires"),
            counts: key("counts"),
            audit_terms: key("audit-terms"),
            audit: key("audit"),
            audit_cells: key("audit-cells"),
            tag,
        }
    }

    /// The key of a record.
    pub(super) fn record(&self, id: RecordId) -> String {
        format!("{}r:{id}", self.tag)
    }
}

/// Where a prefix says how many shards it has, and by which program it was laid out.
pub(super) fn layout(prefix: &str) -> String {
    format!("{{{prefix}}}layout")
}

/// The channel on which nodes tell each other of changes.
pub(super) fn channel(prefix: &str) -> String {
    format!("{{{prefix}}}changes")
}

/// The shard of a record. The id is a digest, so any part of it spreads.
pub(super) fn shard_of(id: RecordId, shards: usize) -> usize {
    let bytes = id.as_bytes();
    usize::from(u16::from_be_bytes([bytes[1], bytes[2]])) % shards
}

/// The slot of a key: CRC-16/XMODEM of what stands between the first `{` and the next `}`, if anything does, else of all.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tagged = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}').filter(|close| *close > 0)?;
        Some(&rest[..close])
    });
    crc16(tagged.unwrap_or(key)) % SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_the_slot_that_every_redis_puts_it_in() {
        // What `CLUSTER KEYSLOT` says.
        for (key, at) in
            [("123456789", 12_739), ("foo", 12_182), ("{foo}.bar", 12_182), ("{}x", slot(b"{}x"))]
        {
            assert_eq!(slot(key.as_bytes()), at, "{key}");
        }
        assert_eq!(slot(b"{}foo"), crc16(b"{}foo") % SLOTS, "an empty tag is none");
    }

    #[test]
    fn all_keys_of_a_record_are_in_one_slot() {
        let shard = Shard::new("semel", 3);
        let record = shard.record(RecordId::from_bytes([7; 16]));
        assert_eq!(record, format!("{{semel:3}}r:{}", "07".repeat(16)));
        let keys = [&shard.own, &shard.due, &shard.names, &shard.expires, &shard.counts, &shard.audit_terms];
        for key in keys.into_iter().chain([&shard.audit, &shard.audit_cells, &record]) {
            assert_eq!(slot(key.as_bytes()), shard.slot, "{key}");
        }
        assert_ne!(Shard::new("semel", 4).slot, shard.slot);
    }
}
