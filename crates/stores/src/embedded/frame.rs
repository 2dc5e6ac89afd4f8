//! Frames: how records lie in a segment, and how recovery tells a torn tail from damage.
//!
//! ```text
//! 0  u32  checksum of everything below and of where the frame lies: store, segment, offset
//! 4  u32  length of the payload (28 bits), kind (4 bits)
//! 8  u32  where the batch of this frame begins in the segment, in units of 8 bytes
//! 12      payload, then zeros up to the next multiple of 8
//! ```
//! The checksum covers the frame's place, so that what an earlier life of a recycled segment left behind, and a tail of zeros, are
//! never read as records. A batch is written only when the one before it is synced; so a whole frame whose batch
//! begins *after* a broken one proves that the broken one had been acknowledged, and is damaged rather than torn.

use crate::limits::{FRAME_ALIGN, FRAME_HEADER_BYTES};

/// What a frame holds. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The begin of a batch: the store's time and the floor under all fences.
    Mark = 1,
    /// A version of a record, and the audit entry that goes with it, if any.
    Record = 2,
    /// An id that is removed.
    Removal = 3,
    /// An audit entry.
    Audit = 4,
    /// Nothing follows in this segment.
    End = 5,
}

impl Kind {
    fn of(number: u32) -> Option<Self> {
        [Self::Mark, Self::Record, Self::Removal, Self::Audit, Self::End]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
}

/// Where a frame lies; part of its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    /// The store's own number, so that segments of two stores cannot be mixed.
    pub(crate) store: u64,
    /// The segment's number, never used twice.
    pub(crate) segment: u32,
    /// The frame's offset in the segment.
    pub(crate) offset: u32,
}

/// A frame that was read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: Kind,
    /// Where its batch begins.
    pub(crate) batch: u32,
    pub(crate) payload: &'a [u8],
}

impl Frame<'_> {
    /// Bytes from its begin to the next frame's.
    pub(crate) const fn len(&self) -> usize {
        frame_len(self.payload.len())
    }
}

/// Bytes of a frame with a payload of `payload` bytes.
pub(crate) const fn frame_len(payload: usize) -> usize {
    (FRAME_HEADER_BYTES + payload).next_multiple_of(FRAME_ALIGN)
}

const LENGTH_BITS: u32 = 28;
const LENGTH_MASK: u32 = (1 << LENGTH_BITS) - 1;

/// Appends a frame without its seat to `buffer`; [`seat`] completes it. `fill` appends the payload.
pub(crate) fn append(buffer: &mut Vec<u8>, kind: Kind, fill: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    fill(buffer);
    let payload = buffer.len() - start - FRAME_HEADER_BYTES;
    // A payload over 2^28 bytes is over every segment's size and refused by the caller before it is seated.
    let length = u32::try_from(payload).unwrap_or(LENGTH_MASK) & LENGTH_MASK;
    let word = length | (kind as u32) << LENGTH_BITS;
    buffer[start + 4..start + 8].copy_from_slice(&word.to_le_bytes());
    buffer.resize(start + frame_len(payload), 0);
    buffer.len() - start
}

/// Gives the frame at the begin of `frame` its place and checksum.
pub(crate) fn seat(frame: &mut [u8], seat: Seat, batch: u32) {
    frame[8..12].copy_from_slice(&(batch / FRAME_ALIGN as u32).to_le_bytes());
    let payload = (word(frame, 4) & LENGTH_MASK) as usize;
    let sum = checksum(&frame[4..FRAME_HEADER_BYTES + payload], seat);
    frame[..4].copy_from_slice(&sum.to_le_bytes());
}

/// Reads the frame at the begin of `bytes`, which reach to the end of the segment or further than the frame; `None`
/// if there is no whole frame of this seat.
pub(crate) fn parse(bytes: &[u8], seat: Seat) -> Option<Frame<'_>> {
    let (kind, length) = header(bytes)?;
    let end = FRAME_HEADER_BYTES + length;
    let covered = bytes.get(4..end)?;
    if word(bytes, 0) != checksum(covered, seat) {
        return None;
    }
    let batch = word(bytes, 8).checked_mul(FRAME_ALIGN as u32)?;
    Some(Frame { kind, batch, payload: &bytes[FRAME_HEADER_BYTES..end] })
}

/// The kind and payload length that a frame's header claims.
pub(crate) fn header(bytes: &[u8]) -> Option<(Kind, usize)> {
    if bytes.len() < FRAME_HEADER_BYTES {
        return None;
    }
    let word = word(bytes, 4);
    Some((Kind::of(word >> LENGTH_BITS)?, (word & LENGTH_MASK) as usize))
}

/// Looks behind the broken frame at `from` for a whole frame of a batch that begins after it.
pub(crate) fn later_batch(segment: &[u8], from: u32, store: u64, number: u32) -> Option<u32> {
    let behind = segment.get(from as usize + FRAME_ALIGN..)?;
    let base = from + FRAME_ALIGN as u32;
    find(behind, base, store, number, |batch, offset| batch > from && batch <= offset)
}

/// Where the first whole frame of this segment lies in `bytes`, which begin at `base`, if any does.
pub(crate) fn whole_frame(bytes: &[u8], base: u32, store: u64, number: u32) -> Option<u32> {
    find(bytes, base, store, number, |_, _| true)
}

fn find(bytes: &[u8], base: u32, store: u64, number: u32, wanted: impl Fn(u32, u32) -> bool) -> Option<u32> {
    let mut at = 0;
    while at + FRAME_HEADER_BYTES <= bytes.len() {
        let rest = &bytes[at..];
        let offset = base + at as u32;
        // Cheap looks first: most of a damaged region is no header at all.
        let batch = word(rest, 8).saturating_mul(FRAME_ALIGN as u32);
        if header(rest).is_some()
            && wanted(batch, offset)
            && parse(rest, Seat { store, segment: number, offset }).is_some()
        {
            return Some(offset);
        }
        at += FRAME_ALIGN;
    }
    None
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn checksum(covered: &[u8], seat: Seat) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&seat.store.to_le_bytes());
    place[8..12].copy_from_slice(&seat.segment.to_le_bytes());
    place[12..].copy_from_slice(&seat.offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAT: Seat = Seat { store: 7, segment: 3, offset: 4096 };

    fn framed(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        append(&mut bytes, Kind::Record, |buffer| buffer.extend_from_slice(payload));
        seat(&mut bytes, SEAT, 4096);
        bytes
    }

    #[test]
    fn a_frame_is_read_only_where_it_was_written() {
        let bytes = framed(b"hello");
        let frame = parse(&bytes, SEAT).unwrap();
        assert_eq!((frame.kind, frame.batch, frame.payload), (Kind::Record, 4096, &b"hello"[..]));
        assert_eq!(frame.len(), bytes.len());
        assert_eq!(parse(&bytes, Seat { segment: 4, ..SEAT }), None, "a recycled segment");
        assert_eq!(parse(&bytes, Seat { offset: 4104, ..SEAT }), None, "another place");
        assert_eq!(parse(&bytes, Seat { store: 8, ..SEAT }), None, "another store");
    }

    #[test]
    fn a_zero_filled_preallocated_tail_is_not_read_as_records() {
        assert_eq!(parse(&[0; 64], SEAT), None);
        assert_eq!(parse(&[], SEAT), None);
    }

    #[test]
    fn a_checksum_that_does_not_cover_the_length_would_pass_here() {
        let bytes = framed(b"hello, length");
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            let padding = bit / 8 >= FRAME_HEADER_BYTES + 13;
            assert_eq!(parse(&broken, SEAT).is_none(), !padding, "bit {bit}");
        }
    }

    #[test]
    fn a_later_batch_behind_a_broken_frame_is_found_and_the_same_batch_is_not() {
        let mut segment = vec![0; 4096];
        let first = segment.len() as u32;
        let mut offsets = Vec::new();
        for batch in [first, first, 4096 + 48] {
            let offset = segment.len();
            append(&mut segment, Kind::Record, |buffer| buffer.extend_from_slice(b"abcdefgh"));
            let place = Seat { offset: offset as u32, ..SEAT };
            seat(&mut segment[offset..], place, batch);
            offsets.push(offset);
        }
        segment[offsets[0] + 13] ^= 1;
        assert_eq!(later_batch(&segment, first, 7, 3), Some(offsets[2] as u32));
        assert_eq!(later_batch(&segment[..offsets[2]], first, 7, 3), None);
    }
}
