//! From bytes to records. Nothing here trusts a length, a number or a text.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use semel_core::Record;
use semel_core::audit::{Action, Entry};
use semel_core::error::Invalid;
use semel_core::id::{
    AttemptId, Fence, Key, Lane, Namespace, Operation, Phase, RecordId, Scope, Subject, Tag, TagName,
    TagValue, Tenant, Token, Version,
};
use semel_core::limits;
use semel_core::outcome::{Class, Header, Headers, Outcome};
use semel_core::policy::{Keep, OnLapse, Policy, Schedule};
use semel_core::record::{Checkpoint, CommandDigest, Parts, State, StateName, Text, Times, Why};
use semel_core::request::{Fingerprint, Input, Request};
use semel_core::time::Timestamp;

use crate::codec::encode::state_number;
use crate::codec::{AUDIT_FORMAT, Corrupt, FORMAT, has};

type Read<T> = Result<T, Corrupt>;

const EARLY_END: Corrupt = Corrupt("the end came early");

/// Reads a record from the begin of `bytes`, and gives what follows it. Bodies share the memory of `bytes`.
///
/// # Errors
/// The bytes are no record of a known format.
pub fn decode_record(bytes: Bytes) -> Result<(Record, Bytes), Corrupt> {
    let mut from = Reader { bytes, at: 0 };
    from.format()?;
    let flags = from.number()?;
    if flags & !has::ALL != 0 {
        return Err(Corrupt("unknown parts"));
    }
    let kinds = from.byte()?;
    let namespace = namespace(kinds >> 4)?;
    let request = Arc::new(from.request(namespace, flags)?);
    let version = Version { fence: Fence(from.number()?), sequence: from.small()? };
    let times = from.times(flags)?;
    let attempt = from.small()?;
    let uncounted = if flags & has::UNCOUNTED == 0 { 0 } else { from.small()? };
    let generation = from.small()?;
    let token = from.token(flags & has::TOKEN != 0)?;
    let last = if flags & has::LAST == 0 { CommandDigest::default() } else { CommandDigest(from.array()?) };
    let taken_in_by = from.token(flags & has::TAKEN_IN_BY != 0)?;
    let count = from.count(limits::CHECKPOINTS_MAX)?;
    let checkpoints = (0..count).map(|_| from.checkpoint()).collect::<Read<Arc<[_]>>>()?;
    let state = from.state(state_name(kinds & 0xf)?)?;
    let parts = Parts {
        request,
        version,
        times,
        attempt,
        uncounted,
        generation,
        accepted: flags & has::ACCEPTED != 0,
        taken_in_by,
        tainted: flags & has::TAINTED != 0,
        token,
        last,
        checkpoints,
        state,
    };
    Ok((Record::from_parts(parts).map_err(Corrupt)?, from.rest()))
}

/// Reads an input that was kept apart from its record.
///
/// # Errors
/// The bytes are no input.
pub fn decode_input(bytes: Bytes) -> Result<Input, Corrupt> {
    let mut from = Reader { bytes, at: 0 };
    let input = from.input()?;
    if !from.is_at_end() {
        return Err(Corrupt("bytes after the end"));
    }
    Ok(input)
}

/// Reads an audit entry and its number.
///
/// # Errors
/// The bytes are no audit entry of a known format.
pub fn decode_audit(bytes: Bytes) -> Result<(u64, Entry), Corrupt> {
    let mut from = Reader { bytes, at: 0 };
    let format = from.byte()?;
    if !(FORMAT..=AUDIT_FORMAT).contains(&format) {
        return Err(Corrupt("unknown version of the format"));
    }
    let sequence = from.number()?;
    let at = Timestamp::from_millis(from.number()?);
    let action = Action::parse(from.text()?).ok_or(Corrupt("unknown action"))?;
    let record = if from.flag()? { Some(RecordId::from_bytes(from.array()?)) } else { None };
    let (before, after) = (from.optional_state()?, from.optional_state()?);
    let actor = from.kept_text()?;
    let reason = if from.flag()? { Some(from.kept_text()?) } else { None };
    let correlation_id = if from.flag()? { Some(from.kept_text()?) } else { None };
    let count = from.number()?;
    let mut metadata = Vec::new();
    for _ in 0..count {
        let name = from.text()?.to_owned().into();
        metadata.push((name, from.kept_text()?));
    }
    let (mut operation, mut key, mut tags) = (None, None, Box::default());
    if format >= 2 {
        operation = if from.flag()? { Some(from.name(Operation::try_new)?) } else { None };
        key = if from.flag()? { Some(from.name(Key::try_new)?) } else { None };
        let count = from.count(limits::TAGS_MAX)?;
        tags = (0..count).map(|_| from.tag()).collect::<Read<_>>()?;
    }
    if !from.is_at_end() {
        return Err(Corrupt("bytes after the end"));
    }
    let (from, to) = (before, after);
    let entry =
        Entry { at, action, record, from, to, actor, reason, correlation_id, metadata, operation, key, tags };
    Ok((sequence, entry))
}

fn namespace(number: u8) -> Read<Namespace> {
    Namespace::ALL.get(usize::from(number)).copied().ok_or(Corrupt("unknown namespace"))
}

fn state_name(number: u8) -> Read<StateName> {
    StateName::ALL.into_iter().find(|state| state_number(*state) == number).ok_or(Corrupt("unknown state"))
}

fn invalid(_: Invalid) -> Corrupt {
    Corrupt("a value outside its limits")
}

/// What is left to be read. Numbers and texts are read in place; only bodies and values of headers take a share of the memory.
struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn rest(self) -> Bytes {
        self.bytes.slice(self.at..)
    }

    fn byte(&mut self) -> Read<u8> {
        let byte = *self.bytes.get(self.at).ok_or(EARLY_END)?;
        self.at += 1;
        Ok(byte)
    }

    /// Where the next `count` bytes lie.
    fn next(&mut self, count: usize) -> Read<Range<usize>> {
        let from = self.at;
        if self.bytes.len() - from < count {
            return Err(EARLY_END);
        }
        self.at += count;
        Ok(from..self.at)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let range = self.next(N)?;
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[range]);
        Ok(array)
    }

    fn token(&mut self, is_there: bool) -> Read<Option<Token>> {
        if is_there { self.array().map(|bytes| Some(Token::from_bytes(bytes))) } else { Ok(None) }
    }

    fn format(&mut self) -> Read<()> {
        if self.byte()? == FORMAT { Ok(()) } else { Err(Corrupt("unknown version of the format")) }
    }

    fn flag(&mut self) -> Read<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Corrupt("neither yes nor no")),
        }
    }

    fn number(&mut self) -> Read<u64> {
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

    fn small(&mut self) -> Read<u32> {
        u32::try_from(self.number()?).map_err(|_| Corrupt("a number too large"))
    }

    fn count(&mut self, max: usize) -> Read<usize> {
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if count <= max { Ok(count) } else { Err(Corrupt("too many parts")) }
    }

    /// Where what follows its length lies.
    fn counted(&mut self) -> Read<Range<usize>> {
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        self.next(count)
    }

    fn bytes(&mut self) -> Read<Bytes> {
        let range = self.counted()?;
        Ok(self.bytes.slice(range))
    }

    fn text(&mut self) -> Read<&str> {
        let range = self.counted()?;
        str::from_utf8(&self.bytes[range]).map_err(|_| Corrupt("a text that is none"))
    }

    fn name<T>(&mut self, make: impl FnOnce(&str) -> Result<T, Invalid>) -> Read<T> {
        make(self.text()?).map_err(invalid)
    }

    fn kept_text(&mut self) -> Read<Text> {
        let text = self.text()?;
        if text.len() > limits::TEXT_BYTES_MAX {
            return Err(Corrupt("a text too long"));
        }
        Ok(Text::new(text))
    }

    fn time_after(&mut self, from: Timestamp) -> Read<Timestamp> {
        let coded = self.number()?;
        let distance = (coded >> 1) ^ (coded & 1).wrapping_neg();
        Ok(Timestamp::from_millis(from.as_millis().wrapping_add(distance)))
    }

    fn duration(&mut self) -> Read<Duration> {
        let coded = self.number()?;
        let length = coded >> 1;
        Ok(if coded & 1 == 0 { Duration::from_millis(length) } else { Duration::from_nanos(length) })
    }

    fn request(&mut self, namespace: Namespace, flags: u64) -> Read<Request> {
        let tenant = self.name(Tenant::try_new)?;
        let subject = if flags & has::SUBJECT == 0 { None } else { Some(self.name(Subject::try_new)?) };
        let key = self.name(Key::try_new)?;
        let operation = self.name(Operation::try_new)?;
        let fingerprint = Fingerprint { version: self.byte()?, digest: self.array()? };
        let policy = self.policy(flags)?;
        let scope = Scope { namespace, tenant, subject };
        let mut request = Request::new(scope, key, operation, fingerprint, policy);
        if flags & has::LANE != 0 {
            request = request.in_lane(self.name(Lane::try_new)?);
        }
        let count = self.count(limits::TAGS_MAX)?;
        if count > 0 {
            let tags = (0..count).map(|_| self.tag()).collect::<Read<Vec<_>>>()?;
            request = request.try_with_tags(tags).map_err(invalid)?;
        }
        if flags & has::INPUT != 0 {
            request = request.with_input(self.input()?);
        }
        if flags & has::ORIGIN != 0 {
            request = request.repeating(RecordId::from_bytes(self.array()?));
        }
        Ok(request)
    }

    fn tag(&mut self) -> Read<Tag> {
        Ok(Tag { name: self.name(TagName::try_new)?, value: self.name(TagValue::try_new)? })
    }

    fn policy(&mut self, flags: u64) -> Read<Policy> {
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
        let (lease, retention) = (self.duration()?, self.duration()?);
        let (attempts, first, cap) = (self.small()?, self.duration()?, self.duration()?);
        let mut length = |bit| if flags & bit == 0 { Ok(None) } else { self.duration().map(Some) };
        let (max_age, payload) = (length(has::MAX_AGE)?, length(has::PAYLOAD_RETENTION)?);
        let retry = Schedule::try_new(attempts, first, cap, max_age).map_err(invalid)?;
        let policy = Policy::try_new(lease, retention, on_lapse, keep, retry).map_err(invalid)?;
        policy.try_with_payload_retention(payload).map_err(invalid)
    }

    fn input(&mut self) -> Read<Input> {
        let (method, path) = (self.text()?.to_owned(), self.text()?.to_owned());
        let headers = self.headers()?;
        Input::try_new(&method, &path, headers, self.bytes()?).map_err(invalid)
    }

    fn headers(&mut self) -> Read<Headers> {
        let count = self.count(limits::HEADERS_MAX)?;
        let headers = (0..count).map(|_| self.header()).collect::<Read<Vec<_>>>()?;
        Headers::try_new(headers).map_err(invalid)
    }

    fn header(&mut self) -> Read<Header> {
        Ok(Header { name: self.text()?.into(), value: self.bytes()? })
    }

    fn times(&mut self, flags: u64) -> Read<Times> {
        let created = Timestamp::from_millis(self.number()?);
        let written = self.time_after(created)?;
        let mut optional = |bit| {
            if flags & bit == 0 { Ok(None) } else { self.time_after(written).map(Some) }
        };
        let (wake, settled, expires) =
            (optional(has::WAKE)?, optional(has::SETTLED)?, optional(has::EXPIRES)?);
        Ok(Times { created, written, wake, settled, expires })
    }

    fn checkpoint(&mut self) -> Read<Checkpoint> {
        let phase = self.name(Phase::try_new)?;
        Checkpoint::try_new(phase, self.bytes()?).map_err(invalid)
    }

    fn optional_state(&mut self) -> Read<Option<StateName>> {
        match self.byte()? {
            0 => Ok(None),
            number => state_name(number - 1).map(Some),
        }
    }

    fn state(&mut self, name: StateName) -> Read<State> {
        Ok(match name {
            StateName::Pending => {
                State::Pending { last_error: if self.flag()? { Some(self.kept_text()?) } else { None } }
            }
            StateName::Running => {
                let named = self.flag()?;
                State::Running { attempt_id: if named { Some(self.name(AttemptId::try_new)?) } else { None } }
            }
            StateName::Released => State::Released { last_error: self.kept_text()? },
            StateName::Completed => State::Completed { outcome: self.outcome()? },
            StateName::Unknown => {
                let why = match self.byte()? {
                    0 => Why::LeaseLapsed,
                    1 => Why::AnswerLost,
                    2 => Why::WorkAbandoned,
                    3 => Why::AnswerInconclusive,
                    _ => return Err(Corrupt("unknown reason")),
                };
                State::Unknown { why, detail: self.kept_text()? }
            }
            StateName::Dead => State::Dead { last_error: self.kept_text()? },
        })
    }

    fn outcome(&mut self) -> Read<Outcome> {
        let kinds = self.byte()?;
        let class = match kinds & 0xf {
            0 => Class::Success,
            1 => Class::Rejection,
            2 => Class::Discarded,
            _ => return Err(Corrupt("unknown class")),
        };
        let status = u16::try_from(self.number()?).map_err(|_| Corrupt("a status too large"))?;
        let headers = self.headers()?;
        match kinds >> 4 {
            0 => Outcome::try_new(class, status, headers, self.bytes()?).map_err(invalid),
            1 => Outcome::try_without_body(class, status, headers).map_err(invalid),
            _ => Err(Corrupt("unknown kind of body")),
        }
    }
}
