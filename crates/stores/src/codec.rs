//! Records as bytes: a compact format of our own, shared by the stores that keep bytes.
//!
//! The first byte is the version of the format; whatever comes later must still read every version before it (the golden files
//! under `tests/stored_bytes` hold that). Numbers are LEB128, texts and bodies carry their length in front. Decoding never
//! panics and never guesses: bytes that no version of this program wrote are [`Corrupt`] (L13).

mod decode;
mod encode;
#[cfg(feature = "embedded")]
mod glance;
mod reader;

use std::fmt;

pub use decode::{decode_audit, decode_input, decode_record};
pub use encode::{encode_audit, encode_input, encode_record};
#[cfg(feature = "embedded")]
pub use glance::{AuditGlance, RecordGlance, Tags, glance_audit, glance_record};

/// The version of the format that is written.
pub const FORMAT: u8 = 1;

/// The version of the format of audit entries that is written: since 2 they hold operation, key and tags.
pub const AUDIT_FORMAT: u8 = 2;

/// Bytes that cannot be read as what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt(pub(crate) &'static str);

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stored bytes cannot be read: {}", self.0)
    }
}

impl std::error::Error for Corrupt {}

/// Bits that say which optional parts follow. The numbers are stored.
mod has {
    pub(super) const ACCEPTED: u64 = 1;
    pub(super) const TAINTED: u64 = 1 << 1;
    pub(super) const TOKEN: u64 = 1 << 2;
    pub(super) const LAST: u64 = 1 << 3;
    pub(super) const SUBJECT: u64 = 1 << 4;
    pub(super) const LANE: u64 = 1 << 5;
    pub(super) const INPUT: u64 = 1 << 6;
    pub(super) const ORIGIN: u64 = 1 << 7;
    pub(super) const WAKE: u64 = 1 << 8;
    pub(super) const SETTLED: u64 = 1 << 9;
    pub(super) const EXPIRES: u64 = 1 << 10;
    pub(super) const MAX_AGE: u64 = 1 << 11;
    pub(super) const PAYLOAD_RETENTION: u64 = 1 << 12;
    pub(super) const TAKEN_IN_BY: u64 = 1 << 13;
    pub(super) const UNCOUNTED: u64 = 1 << 14;
    /// All that this version knows; another one is not ours to read.
    pub(super) const ALL: u64 = (1 << 15) - 1;
}

#[cfg(test)]
mod tests;
