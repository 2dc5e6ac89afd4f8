//! Lists that are made at a glance are those that whole records would make, and are put in order as they always were.

use std::cmp::Reverse;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use semel_core::record::StateName;

use super::*;
use crate::embedded::audit_list::AuditRow;

/// The logs that earlier versions wrote, with the number of each segment.
fn golden_logs() -> Vec<(u32, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stored_bytes");
    let formats = std::fs::read_dir(folder).unwrap().map(|format| format.unwrap().path());
    let logs =
        formats.flat_map(|format| [1, 2].map(|number| (number, format.join(format!("{number:08x}.log")))));
    logs.map(|(number, log)| (number, std::fs::read(log).unwrap())).collect()
}

#[test]
fn a_glance_says_of_all_golden_frames_what_a_whole_reading_says() {
    let (mut records, mut audits) = (0, 0);
    for (number, mut log) in golden_logs() {
        // Zeros at the end are not checked in.
        log.resize(log.len() + 64, 0);
        let store = long(&log, 16);
        let mut offset = SEGMENT_HEADER_BYTES as usize;
        while let Some(frame) =
            frame::parse(&log[offset..], Seat { store, segment: number, offset: offset as u32 })
        {
            let payload = Bytes::copy_from_slice(frame.payload);
            if frame.kind == Kind::Record {
                let (record, rest) = codec::decode_record(payload).unwrap();
                let (glance, glanced_rest) = codec::glance_record(frame.payload).unwrap();
                assert_eq!(
                    (glance.id(), glance.fence, &rest[..]),
                    (record.id(), record.fence(), glanced_rest)
                );
                assert_eq!((&glance.times, glance.state), (record.times(), record.state().name()));
                let at_a_glance: Vec<_> = terms(glance.key, glance.tags.iter()).collect();
                assert_eq!(at_a_glance, terms_of(&record).collect::<Vec<_>>());
                assert_eq!(glance.operation, record.request().operation().as_str());
                records += 1;
            } else if frame.kind == Kind::Audit {
                let (sequence, entry) = codec::decode_audit(payload).unwrap();
                let glance = codec::glance_audit(frame.payload).unwrap();
                assert_eq!((glance.sequence, glance.at, glance.action), (sequence, entry.at, entry.action));
                assert_eq!((glance.actor, glance.key.is_some()), (entry.actor.as_str(), entry.key.is_some()));
                audits += 1;
            }
            offset += frame.len();
        }
    }
    assert!(records > 200 && audits >= 2, "{records} records and {audits} audit entries");
}

/// Puts lists in order as one would do it by hand.
fn in_order(built: &Built) -> (Vec<Entry>, Vec<Row>) {
    let mut newest: Vec<_> = built.entries.iter().copied().zip(0_u32..).collect();
    newest.sort_by_key(|(entry, at)| (entry.id, Reverse(*at)));
    newest.dedup_by_key(|(entry, _)| entry.id);
    let place = |row: &Row| newest.iter().position(|(_, at)| *at == row.entry);
    let rows = built.rows.iter().filter_map(|row| Some(Row { entry: place(row)? as u32, ..*row }));
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by_key(|row| (row.term, row.cell, newest[row.entry as usize].0.created, row.entry));
    (newest.into_iter().map(|(entry, _)| entry).collect(), rows)
}

/// Ids of which many begin alike, some for longer than what is sorted by first.
fn id() -> impl Strategy<Value = RecordId> {
    (0_u8..3, 0_u8..4, 0_u8..3, 0_u8..3).prop_map(|(first, fourth, sixth, last)| {
        let mut id = [0xa5; 16];
        (id[0], id[4], id[5], id[15]) = (first * 100, fourth, sixth, last);
        RecordId::from_bytes(id)
    })
}

proptest! {
    #[test]
    fn of_each_id_the_newest_entry_stays_and_rows_are_in_the_order_of_pages(
        entries in vec((id(), 0_u64..6, any::<bool>()), 0..60),
        terms in vec((0_u32..4, 0_u32..3, any::<prop::sample::Index>()), 0..90),
    ) {
        let mut built = Built::default();
        for (at, (id, created, is_settled)) in (0_u32..).zip(entries) {
            let created = Timestamp::from_millis(created);
            let expires = is_settled.then_some(created);
            let cell = cell_of(0, StateName::Completed);
            built.entries.push(Entry { id, offset: at * 8, len: 8, created, expires, wake: None, cell });
        }
        for (term, cell, entry) in terms {
            if let Some(last) = built.entries.len().checked_sub(1) {
                built.rows.push(Row { term, cell, entry: entry.index(last + 1) as u32 });
            }
        }
        // A record stands once under a term and a cell.
        built.rows.sort_by_key(|row| (row.term, row.cell, row.entry));
        built.rows.dedup();
        let (entries, rows) = in_order(&built);
        built.finish();
        prop_assert_eq!(built.entries, entries);
        prop_assert_eq!(built.rows, rows);
    }

    #[test]
    fn audit_lines_are_in_the_order_of_their_numbers_and_rows_by_term_cell_and_number(
        sequences in vec(0_u64..40, 0..40),
        rows in vec((0_u32..4, 0_u32..3, any::<prop::sample::Index>()), 0..90),
    ) {
        let mut list = AuditList::default();
        for (at, sequence) in (0_u32..).zip(&sequences) {
            let at_time = Timestamp::from_millis(*sequence);
            list.lines.push(AuditLine { sequence: *sequence, at: at_time, offset: at * 8, len: 8 });
        }
        for (term, cell, line) in rows {
            if !sequences.is_empty() {
                list.rows.push(AuditRow { term, cell, line: line.index(sequences.len()) as u32 });
            }
        }
        let mut lines: Vec<_> = list.lines.clone();
        lines.sort_by_key(|line| (line.sequence, line.offset));
        let place = |line: u32| lines.iter().position(|found| found.offset == line * 8).unwrap() as u32;
        let mut rows: Vec<_> = list.rows.iter().map(|row| AuditRow { line: place(row.line), ..*row }).collect();
        rows.sort();
        list.finish();
        prop_assert_eq!(list.lines, lines);
        prop_assert_eq!(list.rows, rows);
    }
}

#[test]
fn a_term_is_the_sum_of_its_kind_and_of_its_framed_name_and_value() {
    let whole = |kind: &[u8], name: &str, value: &str| {
        let len = (name.len() as u64).to_le_bytes();
        crc32c::crc32c(&[kind, &len, name.as_bytes(), value.as_bytes()].concat())
    };
    assert_eq!(key_term("order-1"), whole(b"key", "", "order-1"));
    assert_eq!(tag_term("order_id", "A-1001"), whole(b"tag", "order_id", "A-1001"));
    assert_eq!(TermKind::new(b"record").of("", "ab"), whole(b"record", "", "ab"));
}
