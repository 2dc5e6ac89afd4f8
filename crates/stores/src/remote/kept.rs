//! A record as stores with a server of their own keep it: the stamps, which the server makes, apart from the rest, which is
//! the bytes of the [codec](crate::codec); and the input apart from that, so that a heartbeat does not write it again.

use std::sync::Arc;

use bytes::Bytes;
use semel_core::id::{Fence, Version};
use semel_core::record::{Parts, Times};
use semel_core::write::{Stamp, Write};
use semel_core::{Record, StoreError, Timestamp};

use super::draft::{AuditDraft, without_input};
use crate::codec::{Corrupt, decode_input, decode_record, encode_input, encode_record};

/// What the server stamped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamps {
    pub(crate) version: Version,
    pub(crate) times: Times,
}

/// A write, sealed with stamps that the server's will replace.
pub(crate) struct Sealed {
    pub(crate) parts: Parts,
    pub(crate) stamp: Stamp,
    pub(crate) after: Version,
    pub(crate) deadline: Timestamp,
    pub(crate) head: Vec<u8>,
    pub(crate) input: Option<Vec<u8>>,
    pub(crate) audit: Option<AuditDraft>,
}

impl Sealed {
    pub(crate) fn of(write: Write) -> Result<Self, &'static str> {
        let (stamp, after, deadline) = (*write.stamp(), write.after(), write.deadline());
        let (record, entry) = write.seal(Timestamp::ZERO, Fence::default());
        let parts = record.parts().clone();
        let (mut head, mut input) = (Vec::new(), None);
        match parts.request.input() {
            None => encode_record(&record, &mut head),
            Some(apart) => {
                encode_input(apart, input.insert(Vec::new()));
                let request = Arc::new(without_input(&parts.request)?);
                encode_record(&Record::from_parts(Parts { request, ..parts.clone() })?, &mut head);
            }
        }
        let audit = entry.as_ref().map(AuditDraft::of);
        Ok(Self { parts, stamp, after, deadline, head, input, audit })
    }
}

/// What was written, as the server stamped it.
pub(crate) fn stamped(parts: &Parts, stamps: Stamps) -> Result<Arc<Record>, StoreError> {
    let parts = Parts { version: stamps.version, times: stamps.times, ..parts.clone() };
    // Written it is; what the server has made of it cannot be told.
    Record::from_parts(parts).map(Arc::new).map_err(|why| StoreError::in_doubt("stamp", why))
}

/// What is there, from its bytes, of which a checksum was found to fit.
pub(crate) fn record(stamps: Stamps, head: &[u8], input: Option<&[u8]>) -> Result<Arc<Record>, StoreError> {
    let (bare, rest) = decode_record(Bytes::copy_from_slice(head)).map_err(corrupt)?;
    if !rest.is_empty() {
        return Err(corrupt(Corrupt("bytes after the end")));
    }
    let mut parts = Parts { version: stamps.version, times: stamps.times, ..bare.parts().clone() };
    if let Some(input) = input {
        let input = decode_input(Bytes::copy_from_slice(input)).map_err(corrupt)?;
        parts.request = Arc::new((*parts.request).clone().with_input(input));
    }
    Record::from_parts(parts).map(Arc::new).map_err(|why| corrupt(Corrupt(why)))
}

/// Stored bytes that cannot be read (L13).
pub(crate) fn corrupt(error: Corrupt) -> StoreError {
    StoreError::corrupt("read a record", "stored bytes cannot be read").with_source(error)
}
