//! Cursors as clients see them: opaque texts that stand for a place which does not move.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use semel_api::{ApiError, Detail};
use semel_core::query::{AuditCursor, Cursor};
use semel_core::{RecordId, Timestamp};

/// What a cursor begins with: of which listing it is, and in which form.
const RECORDS: u8 = 1;
const AUDIT: u8 = 2;

pub(crate) fn write(cursor: &Cursor) -> String {
    let mut bytes = vec![RECORDS];
    bytes.extend_from_slice(&cursor.created.as_millis().to_be_bytes());
    bytes.extend_from_slice(cursor.id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn read(text: &str) -> Result<Cursor, ApiError> {
    let bytes = decode(text, RECORDS)?;
    let (created, id) = bytes.split_first_chunk::<8>().ok_or_else(refused)?;
    let id: [u8; 16] = id.try_into().map_err(|_| refused())?;
    let created = Timestamp::from_millis(u64::from_be_bytes(*created));
    Ok(Cursor { created, id: RecordId::from_bytes(id) })
}

pub(super) fn write_audit(cursor: AuditCursor) -> String {
    let mut bytes = vec![AUDIT];
    bytes.extend_from_slice(&cursor.0.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn read_audit(text: &str) -> Result<AuditCursor, ApiError> {
    let bytes = decode(text, AUDIT)?;
    let number: [u8; 8] = bytes.try_into().map_err(|_| refused())?;
    Ok(AuditCursor(u64::from_be_bytes(number)))
}

fn decode(text: &str, kind: u8) -> Result<Vec<u8>, ApiError> {
    let mut bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refused())?;
    if bytes.first() != Some(&kind) {
        return Err(refused());
    }
    Ok(bytes.split_off(1))
}

fn refused() -> ApiError {
    Detail::new("cursor", "value", "must be the `next` of a page of this listing").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_one_of_another_listing_is_refused() {
        let cursor =
            Cursor { created: Timestamp::from_millis(u64::MAX), id: RecordId::from_bytes([0xfe; 16]) };
        assert_eq!(read(&write(&cursor)).unwrap(), cursor);
        let audit = AuditCursor(u64::MAX - 1);
        assert_eq!(read_audit(&write_audit(audit)).unwrap(), audit);
        for odd in ["", "x", "AQ", "é", &write_audit(audit)] {
            assert!(read(odd).is_err(), "{odd}");
        }
        assert!(read_audit(&write(&cursor)).is_err());
    }
}
