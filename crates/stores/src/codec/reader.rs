//! The parts that all reading is made of. Nothing here trusts a length, a number or a text.

use std::ops::Range;

use bytes::Bytes;
use semel_core::audit::Action;
use semel_core::error::Invalid;
use semel_core::id::{Fence, Namespace, RecordId, Token};
use semel_core::limits;
use semel_core::outcome::Class;
use semel_core::policy::{Keep, OnLapse};
use semel_core::record::{StateName, Times, Why};
use semel_core::time::Timestamp;

use crate::codec::encode::state_number;
use crate::codec::{AUDIT_FORMAT, Corrupt, FORMAT, has};

pub(super) type Read<T> = Result<T, Corrupt>;

const EARLY_END: Corrupt = Corrupt("the end came early");

pub(super) fn namespace(number: u8) -> Read<Namespace> {
    Namespace::ALL.get(usize::from(number)).copied().ok_or(Corrupt("unknown namespace"))
}

pub(super) fn state_name(number: u8) -> Read<StateName> {
    StateName::ALL.into_iter().find(|state| state_number(*state) == number).ok_or(Corrupt("unknown state"))
}

pub(super) fn invalid(_: Invalid) -> Corrupt {
    Corrupt("a value outside its limits")
}

/// What is left to be read. Numbers and texts are read in place. What shares the memory of the bytes can be read only from
/// [`Bytes`]; whoever keeps nothing reads from a slice.
pub(super) struct Reader<'a, B: ?Sized = [u8]> {
    bytes: &'a B,
    at: usize,
}

impl<'a, B: AsRef<[u8]> + ?Sized> Reader<'a, B> {
    pub(super) const fn new(bytes: &'a B) -> Self {
        Self { bytes, at: 0 }
    }

    /// All of the bytes, read or not.
    fn all(&self) -> &'a [u8] {
        self.bytes.as_ref()
    }

    /// How many bytes were read.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// What was read since `from`.
    pub(super) fn since(&self, from: usize) -> &'a [u8] {
        &self.all()[from..self.at]
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.all().len()
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Read<()> {
        if self.is_at_end() { Ok(()) } else { Err(Corrupt("bytes after the end")) }
    }

    pub(super) fn byte(&mut self) -> Read<u8> {
        let byte = *self.all().get(self.at).ok_or(EARLY_END)?;
        self.at += 1;
        Ok(byte)
    }

    /// Where the next `count` bytes lie.
    pub(super) fn next(&mut self, count: usize) -> Read<Range<usize>> {
        let from = self.at;
        if self.all().len() - from < count {
            return Err(EARLY_END);
        }
        self.at += count;
        Ok(from..self.at)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let range = self.next(N)?;
        let mut array = [0; N];
        array.copy_from_slice(&self.all()[range]);
        Ok(array)
    }

    pub(super) fn token(&mut self, is_there: bool) -> Read<Option<Token>> {
        if is_there { self.array().map(|bytes| Some(Token::from_bytes(bytes))) } else { Ok(None) }
    }

    /// The version of the format of a record.
    pub(super) fn format(&mut self) -> Read<()> {
        if self.byte()? == FORMAT { Ok(()) } else { Err(Corrupt("unknown version of the format")) }
    }

    /// The version of the format of an audit entry.
    pub(super) fn audit_format(&mut self) -> Read<u8> {
        let format = self.byte()?;
        let is_known = (FORMAT..=AUDIT_FORMAT).contains(&format);
        if is_known { Ok(format) } else { Err(Corrupt("unknown version of the format")) }
    }

    /// Which optional parts of a record are there.
    pub(super) fn flags(&mut self) -> Read<u64> {
        let flags = self.number()?;
        if flags & !has::ALL == 0 { Ok(flags) } else { Err(Corrupt("unknown parts")) }
    }

    /// Through which doors a record came, and where it stands.
    pub(super) fn kinds(&mut self) -> Read<(Namespace, StateName)> {
        let kinds = self.byte()?;
        Ok((namespace(kinds >> 4)?, state_name(kinds & 0xf)?))
    }

    pub(super) fn flag(&mut self) -> Read<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Corrupt("neither yes nor no")),
        }
    }

    pub(super) fn number(&mut self) -> Read<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Corrupt("a number too long"))
    }

    pub(super) fn small(&mut self) -> Read<u32> {
        u32::try_from(self.number()?).map_err(|_| Corrupt("a number too large"))
    }

    pub(super) fn count(&mut self, max: usize) -> Read<usize> {
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if count <= max { Ok(count) } else { Err(Corrupt("too many parts")) }
    }

    /// Where what follows its length lies.
    pub(super) fn counted(&mut self) -> Read<Range<usize>> {
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        self.next(count)
    }

    pub(super) fn text(&mut self) -> Read<&'a str> {
        let range = self.counted()?;
        str::from_utf8(&self.all()[range]).map_err(|_| Corrupt("a text that is none"))
    }

    /// A text that is kept for people, not longer than one is kept.
    pub(super) fn short_text(&mut self) -> Read<&'a str> {
        let text = self.text()?;
        if text.len() <= limits::TEXT_BYTES_MAX { Ok(text) } else { Err(Corrupt("a text too long")) }
    }

    /// What is there if a flag says so.
    pub(super) fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(super) fn id(&mut self) -> Read<RecordId> {
        self.array().map(RecordId::from_bytes)
    }

    /// What was done.
    pub(super) fn action(&mut self) -> Read<Action> {
        Action::parse(self.text()?).ok_or(Corrupt("unknown action"))
    }

    pub(super) fn fence(&mut self) -> Read<Fence> {
        self.number().map(Fence)
    }

    fn time_after(&mut self, from: Timestamp) -> Read<Timestamp> {
        let coded = self.number()?;
        let distance = (coded >> 1) ^ (coded & 1).wrapping_neg();
        Ok(Timestamp::from_millis(from.as_millis().wrapping_add(distance)))
    }

    pub(super) fn times(&mut self, flags: u64) -> Read<Times> {
        let created = Timestamp::from_millis(self.number()?);
        let written = self.time_after(created)?;
        let mut optional = |bit| {
            if flags & bit == 0 { Ok(None) } else { self.time_after(written).map(Some) }
        };
        let (wake, settled, expires) =
            (optional(has::WAKE)?, optional(has::SETTLED)?, optional(has::EXPIRES)?);
        Ok(Times { created, written, wake, settled, expires })
    }

    /// What a lapse means under a policy, and which outcomes it keeps.
    pub(super) fn policy_kinds(&mut self) -> Read<(OnLapse, Keep)> {
        let kinds = self.byte()?;
        let on_lapse = match kinds & 0xf {
            0 => OnLapse::AtMostOnce,
            1 => OnLapse::Resume,
            _ => return Err(Corrupt("unknown meaning of a lapse")),
        };
        let keep = match kinds >> 4 {
            0 => Keep::Deterministic,
            1 => Keep::AllButServerErrors,
            2 => Keep::Everything,
            _ => return Err(Corrupt("unknown choice of outcomes")),
        };
        Ok((on_lapse, keep))
    }

    pub(super) fn optional_state(&mut self) -> Read<Option<StateName>> {
        match self.byte()? {
            0 => Ok(None),
            number => state_name(number - 1).map(Some),
        }
    }

    /// Why an outcome is unknown.
    pub(super) fn why(&mut self) -> Read<Why> {
        Ok(match self.byte()? {
            0 => Why::LeaseLapsed,
            1 => Why::AnswerLost,
            2 => Why::WorkAbandoned,
            3 => Why::AnswerInconclusive,
            _ => return Err(Corrupt("unknown reason")),
        })
    }

    /// The class of an outcome, and whether its body is there.
    pub(super) fn outcome_kinds(&mut self) -> Read<(Class, bool)> {
        let kinds = self.byte()?;
        let class = match kinds & 0xf {
            0 => Class::Success,
            1 => Class::Rejection,
            2 => Class::Discarded,
            _ => return Err(Corrupt("unknown class")),
        };
        match kinds >> 4 {
            0 => Ok((class, true)),
            1 => Ok((class, false)),
            _ => Err(Corrupt("unknown kind of body")),
        }
    }

    pub(super) fn status(&mut self) -> Read<u16> {
        u16::try_from(self.number()?).map_err(|_| Corrupt("a status too large"))
    }
}

impl Reader<'_, Bytes> {
    /// Shares the memory of all that is read.
    pub(super) fn bytes(&mut self) -> Read<Bytes> {
        let range = self.counted()?;
        Ok(self.bytes.slice(range))
    }

    /// What was not read.
    pub(super) fn rest(&self) -> Bytes {
        self.bytes.slice(self.at..)
    }
}
