//! A glance says what a whole reading says, of all that can be read whole.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use semel_core::Timestamp;
use semel_core::audit::{Action, Entry};
use semel_core::id::{Key, Operation, RecordId, Tag};
use semel_core::record::{StateName, Text};

use super::{encoded, record, request};
use crate::codec::{
    AUDIT_FORMAT, AuditGlance, Corrupt, FORMAT, Tags, decode_audit, decode_record, encode_audit,
    glance_audit, glance_record,
};

/// Looks at the bytes in both ways. What can be read whole is seen at a glance, as the same.
fn glance_and_read(bytes: &[u8]) -> Result<(), TestCaseError> {
    let glance = glance_record(bytes);
    if let Ok((record, rest)) = decode_record(Bytes::copy_from_slice(bytes)) {
        let (glance, glanced_rest) = glance.unwrap();
        prop_assert_eq!(glanced_rest, &rest[..]);
        let request = record.request();
        prop_assert_eq!(glance.id(), record.id());
        prop_assert_eq!(glance.namespace, request.scope().namespace);
        prop_assert_eq!(glance.key, request.key().as_str());
        prop_assert_eq!(glance.operation, request.operation().as_str());
        prop_assert_eq!(sorted(&glance.tags), texts_of(request.tags()));
        prop_assert_eq!(glance.fence, record.fence());
        prop_assert_eq!(&glance.times, record.times());
        prop_assert_eq!(glance.state, record.state().name());
        prop_assert_eq!(glance.due(), record.due());
        prop_assert_eq!(glance.is_settled(), record.times().expires.is_some());
    }
    let glance = glance_audit(bytes);
    if let Ok((sequence, entry)) = decode_audit(Bytes::copy_from_slice(bytes)) {
        let AuditGlance { sequence: number, at, action, record, actor, correlation_id, operation, key, tags } =
            glance.unwrap();
        prop_assert_eq!((number, at, action, record), (sequence, entry.at, entry.action, entry.record));
        prop_assert_eq!(actor, entry.actor.as_str());
        prop_assert_eq!(correlation_id, entry.correlation_id.as_ref().map(Text::as_str));
        prop_assert_eq!(operation, entry.operation.as_ref().map(Operation::as_str));
        prop_assert_eq!(key, entry.key.as_ref().map(Key::as_str));
        prop_assert_eq!(tags.iter().collect::<Vec<_>>(), in_order(&entry.tags));
    }
    Ok(())
}

fn in_order(tags: &[Tag]) -> Vec<(&str, &str)> {
    tags.iter().map(|tag| (tag.name.as_str(), tag.value.as_str())).collect()
}

/// Whole records have their tags in order, whatever the order of the bytes.
fn texts_of(tags: &[Tag]) -> Vec<(&str, &str)> {
    let mut texts = in_order(tags);
    texts.sort_unstable();
    texts
}

fn sorted<'a>(tags: &Tags<'a>) -> Vec<(&'a str, &'a str)> {
    let mut texts: Vec<_> = tags.iter().collect();
    texts.sort_unstable();
    texts
}

fn entry() -> impl Strategy<Value = Entry> {
    let texts = (vec("\\PC{0,30}", 3), vec(("[a-z]{1,9}", "\\PC{0,30}"), 0..3));
    let optional = (any::<Option<[u8; 16]>>(), any::<bool>(), any::<bool>(), option::of(request()));
    (any::<u64>(), 0..Action::ALL.len(), texts, optional).prop_map(
        |(at, action, (texts, metadata), (record, is_linked, has_reason, about))| {
            let mut entry = Entry::new(Action::ALL[action], Text::new(&texts[0]));
            entry.at = Timestamp::from_millis(at);
            entry.record = record.map(RecordId::from_bytes);
            entry.to = record.map(|_| StateName::Unknown);
            entry.reason = has_reason.then(|| Text::new(&texts[1]));
            entry.correlation_id = is_linked.then(|| Text::new(&texts[2]));
            let metadata = metadata.into_iter();
            entry.metadata = metadata.map(|(name, value)| (name.into(), Text::new(&value))).collect();
            match &about {
                Some(request) => entry.about(request),
                None => entry,
            }
        },
    )
}

fn encoded_entry(sequence: u64, entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_audit(sequence, entry, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn a_glance_says_what_the_record_says(record in record(), behind in vec(any::<u8>(), 0..9)) {
        let mut bytes = encoded(&record);
        bytes.extend_from_slice(&behind);
        prop_assert!(decode_record(Bytes::copy_from_slice(&bytes)).is_ok());
        glance_and_read(&bytes)?;
    }

    #[test]
    fn a_glance_says_what_the_audit_entry_says(entry in entry(), sequence in any::<u64>()) {
        let mut bytes = encoded_entry(sequence, &entry);
        prop_assert!(decode_audit(Bytes::copy_from_slice(&bytes)).is_ok());
        glance_and_read(&bytes)?;
        // The first format ended before operation, key and tags.
        entry.operation.is_none().then(|| bytes.truncate(bytes.len() - 3));
        bytes[0] = 1;
        prop_assert_eq!(decode_audit(Bytes::copy_from_slice(&bytes)).is_ok(), entry.operation.is_none());
        prop_assert_eq!(glance_audit(&bytes).is_ok(), entry.operation.is_none());
        glance_and_read(&bytes)?;
    }

    #[test]
    fn a_glance_at_bytes_that_are_cut_is_corrupt_l13(
        record in record(), entry in entry(), end in any::<prop::sample::Index>(),
    ) {
        let bytes = encoded(&record);
        prop_assert!(glance_record(&bytes[..end.index(bytes.len())]).is_err());
        let bytes = encoded_entry(7, &entry);
        prop_assert!(glance_audit(&bytes[..end.index(bytes.len())]).is_err());
    }

    #[test]
    fn a_glance_at_changed_bytes_never_panics_and_sees_all_that_can_be_read_l13(
        record in record(), entry in entry(), at in any::<prop::sample::Index>(), bits in 1_u8..=255,
        noise in vec(any::<u8>(), 0..300),
    ) {
        for mut bytes in [encoded(&record), encoded_entry(7, &entry)] {
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
            glance_and_read(&bytes)?;
        }
        for format in [FORMAT, AUDIT_FORMAT] {
            let mut bytes = vec![format];
            bytes.extend_from_slice(&noise);
            glance_and_read(&bytes)?;
        }
        glance_and_read(&noise)?;
    }

    #[test]
    fn formats_parts_and_kinds_that_are_not_known_are_corrupt_at_a_glance_l13(record in record(), entry in entry()) {
        let ours = encoded(&record);
        let refused = |at: usize, bytes: &[u8]| {
            let mut changed = ours.clone();
            changed.splice(at..=at, bytes.iter().copied());
            glance_record(&changed).map(drop).unwrap_err()
        };
        prop_assert_eq!(refused(0, &[FORMAT + 1]), Corrupt("unknown version of the format"));
        prop_assert_eq!(refused(1, &[0x80, 0x80, 0x02]), Corrupt("unknown parts"));
        // Flags take one byte to three.
        let kinds = 2 + usize::from(ours[1] >= 0x80) + usize::from(ours[1] >= 0x80 && ours[2] >= 0x80);
        prop_assert_eq!(refused(kinds, &[0x5f]), Corrupt("unknown namespace"));
        prop_assert_eq!(refused(kinds, &[0x06]), Corrupt("unknown state"));
        let mut bytes = encoded_entry(7, &entry);
        bytes[0] = AUDIT_FORMAT + 1;
        prop_assert_eq!(glance_audit(&bytes).map(drop), Err(Corrupt("unknown version of the format")));
        let mut bytes = encoded_entry(7, &entry);
        bytes.push(0);
        prop_assert_eq!(glance_audit(&bytes).map(drop), Err(Corrupt("bytes after the end")));
    }
}
