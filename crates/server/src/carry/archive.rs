//! A stream of frames: a magic word, then records, each with the store's time when it was read, and an end that counts
//! them, so that what was cut off is noticed. Each frame has its length and a sum.

use std::io::{self, Read, Write};

use bytes::Bytes;
use semel_core::{Record, Timestamp};
use semel_stores::codec::{decode_record, encode_record};

use super::CarryError;

/// What an archive begins with: a word, and the version of the format.
const MAGIC: &[u8; 8] = b"SEMEL\0A\x01";
/// Bytes of a frame: a record with its input and outcome, and then some.
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
const _: () = assert!(FRAME_BYTES_MAX > 3 * semel_core::limits::BODY_BYTES_MAX);

/// One frame.
#[derive(Debug)]
pub(super) enum Frame {
    /// A record, as it was at that time of its store.
    Record(Record, Timestamp),
    /// A record whose fence is above all that were ever given out in its store: it stands for the floor.
    Floor(Record, Timestamp),
    /// There is no more; so many records came.
    End(u64),
}

const RECORD: u8 = 1;
const FLOOR: u8 = 2;
const END: u8 = 3;

/// Writes an archive.
pub(super) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(mut out: W) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        Ok(Self { out })
    }

    pub(super) fn record(&mut self, record: &Record, as_of: Timestamp) -> io::Result<()> {
        self.stamped(RECORD, record, as_of)
    }

    pub(super) fn floor(&mut self, record: &Record, as_of: Timestamp) -> io::Result<()> {
        self.stamped(FLOOR, record, as_of)
    }

    pub(super) fn end(mut self, records: u64) -> io::Result<()> {
        self.frame(END, &records.to_le_bytes())?;
        self.out.flush()
    }

    fn stamped(&mut self, kind: u8, record: &Record, as_of: Timestamp) -> io::Result<()> {
        let mut bytes = as_of.as_millis().to_le_bytes().to_vec();
        encode_record(record, &mut bytes);
        self.frame(kind, &bytes)
    }

    fn frame(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.out.write_all(&[kind])?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&sum(kind, bytes))?;
        self.out.write_all(bytes)
    }
}

/// Told apart by kind, so that a frame cannot pass for another.
fn sum(kind: u8, bytes: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind]).update(bytes);
    let mut sum = [0; 8];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// Reads an archive.
pub(super) struct Reader<R> {
    source: R,
}

impl<R: Read> Reader<R> {
    pub(super) fn begin(mut source: R) -> Result<Self, CarryError> {
        let mut magic = [0; MAGIC.len()];
        exact(&mut source, &mut magic)?;
        if &magic != MAGIC {
            return Err(CarryError::Damaged(
                "it does not begin as an archive of this version does".to_owned(),
            ));
        }
        Ok(Self { source })
    }

    pub(super) fn next(&mut self) -> Result<Frame, CarryError> {
        let mut head = [0; 13];
        exact(&mut self.source, &mut head)?;
        let [kind, l0, l1, l2, l3, expected @ ..] = head;
        let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(CarryError::Damaged(format!("a frame of {length} bytes")));
        }
        let mut bytes = vec![0; length];
        exact(&mut self.source, &mut bytes)?;
        if sum(kind, &bytes) != expected {
            return Err(CarryError::Damaged("a frame's sum is not that of its bytes".to_owned()));
        }
        match kind {
            RECORD => stamped(&bytes).map(|(record, as_of)| Frame::Record(record, as_of)),
            FLOOR => stamped(&bytes).map(|(record, as_of)| Frame::Floor(record, as_of)),
            END => number(&bytes).map(|(records, _)| Frame::End(records)),
            _ => Err(CarryError::Damaged(format!("a frame of the kind {kind}"))),
        }
    }
}

fn number(bytes: &[u8]) -> Result<(u64, &[u8]), CarryError> {
    let (number, rest) =
        bytes.split_first_chunk().ok_or_else(|| CarryError::Damaged("a short frame".to_owned()))?;
    Ok((u64::from_le_bytes(*number), rest))
}

fn stamped(bytes: &[u8]) -> Result<(Record, Timestamp), CarryError> {
    let (as_of, rest) = number(bytes)?;
    let decoded = decode_record(Bytes::copy_from_slice(rest));
    let (record, rest) = decoded.map_err(|error| CarryError::Damaged(error.to_string()))?;
    if !rest.is_empty() {
        return Err(CarryError::Damaged("bytes behind a record".to_owned()));
    }
    Ok((record, Timestamp::from_millis(as_of)))
}

fn exact(source: &mut impl Read, into: &mut [u8]) -> Result<(), CarryError> {
    source.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            CarryError::Damaged("it ends before its end; export it again".to_owned())
        }
        _ => CarryError::Archive(error),
    })
}
