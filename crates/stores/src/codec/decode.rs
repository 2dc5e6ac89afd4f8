//! From bytes to records. Nothing here trusts a length, a number or a text.
#![expect(
    clippy::needless_pass_by_value,
    reason = "what is made of bytes shares their memory: who has them read hands them over"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use semel_core::Record;
use semel_core::audit::Entry;
use semel_core::error::Invalid;
use semel_core::id::{
    AttemptId, Key, Lane, Namespace, Operation, Phase, Scope, Subject, Tag, TagName, TagValue, Tenant,
    Version,
};
use semel_core::limits;
use semel_core::outcome::{Header, Headers, Outcome};
use semel_core::policy::{Policy, Schedule};
use semel_core::record::{Checkpoint, CommandDigest, Parts, State, StateName, Text};
use semel_core::request::{Fingerprint, Input, Request};
use semel_core::time::Timestamp;

use crate::codec::reader::{Read, Reader, invalid};
use crate::codec::{Corrupt, has};

/// Reads a record from the begin of `bytes`, and gives what follows it. Bodies share the memory of `bytes`.
///
/// # Errors
/// The bytes are no record of a known format.
pub fn decode_record(bytes: Bytes) -> Result<(Record, Bytes), Corrupt> {
    let mut from = Reader::new(&bytes);
    from.format()?;
    let flags = from.flags()?;
    let (namespace, state) = from.kinds()?;
    let request = Arc::new(from.request(namespace, flags)?);
    let version = Version { fence: from.fence()?, sequence: from.small()? };
    let times = from.times(flags)?;
    let attempt = from.small()?;
    let uncounted = if flags & has::UNCOUNTED == 0 { 0 } else { from.small()? };
    let generation = from.small()?;
    let token = from.token(flags & has::TOKEN != 0)?;
    let last = if flags & has::LAST == 0 { CommandDigest::default() } else { CommandDigest(from.array()?) };
    let taken_in_by = from.token(flags & has::TAKEN_IN_BY != 0)?;
    let count = from.count(limits::CHECKPOINTS_MAX)?;
    let checkpoints = (0..count).map(|_| from.checkpoint()).collect::<Read<Arc<[_]>>>()?;
    let state = from.state(state)?;
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
    let mut from = Reader::new(&bytes);
    let input = from.input()?;
    from.end()?;
    Ok(input)
}

/// Reads an audit entry and its number.
///
/// # Errors
/// The bytes are no audit entry of a known format.
pub fn decode_audit(bytes: Bytes) -> Result<(u64, Entry), Corrupt> {
    let mut from = Reader::new(&bytes);
    let format = from.audit_format()?;
    let sequence = from.number()?;
    let at = Timestamp::from_millis(from.number()?);
    let action = from.action()?;
    let record = from.optional(Reader::id)?;
    let (before, after) = (from.optional_state()?, from.optional_state()?);
    let actor = from.kept_text()?;
    let reason = from.optional(Reader::kept_text)?;
    let correlation_id = from.optional(Reader::kept_text)?;
    let count = from.number()?;
    let mut metadata = Vec::new();
    for _ in 0..count {
        let name = from.text()?.to_owned().into();
        metadata.push((name, from.kept_text()?));
    }
    let (mut operation, mut key, mut tags) = (None, None, Box::default());
    if format >= 2 {
        operation = from.optional(|from| from.name(Operation::try_new))?;
        key = from.optional(|from| from.name(Key::try_new))?;
        let count = from.count(limits::TAGS_MAX)?;
        tags = (0..count).map(|_| from.tag()).collect::<Read<_>>()?;
    }
    from.end()?;
    let (from, to) = (before, after);
    let entry =
        Entry { at, action, record, from, to, actor, reason, correlation_id, metadata, operation, key, tags };
    Ok((sequence, entry))
}

/// What shares the memory of the bytes, or takes memory of its own.
impl Reader<'_, Bytes> {
    fn name<T>(&mut self, make: impl FnOnce(&str) -> Result<T, Invalid>) -> Read<T> {
        make(self.text()?).map_err(invalid)
    }

    fn kept_text(&mut self) -> Read<Text> {
        self.short_text().map(Text::new)
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
            request = request.repeating(self.id()?);
        }
        Ok(request)
    }

    fn tag(&mut self) -> Read<Tag> {
        Ok(Tag { name: self.name(TagName::try_new)?, value: self.name(TagValue::try_new)? })
    }

    fn policy(&mut self, flags: u64) -> Read<Policy> {
        let (on_lapse, keep) = self.policy_kinds()?;
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

    fn checkpoint(&mut self) -> Read<Checkpoint> {
        let phase = self.name(Phase::try_new)?;
        Checkpoint::try_new(phase, self.bytes()?).map_err(invalid)
    }

    fn state(&mut self, name: StateName) -> Read<State> {
        Ok(match name {
            StateName::Pending => State::Pending { last_error: self.optional(Self::kept_text)? },
            StateName::Running => {
                State::Running { attempt_id: self.optional(|from| from.name(AttemptId::try_new))? }
            }
            StateName::Released => State::Released { last_error: self.kept_text()? },
            StateName::Completed => State::Completed { outcome: self.outcome()? },
            StateName::Unknown => {
                let why = self.why()?;
                State::Unknown { why, detail: self.kept_text()? }
            }
            StateName::Dead => State::Dead { last_error: self.kept_text()? },
        })
    }

    fn outcome(&mut self) -> Read<Outcome> {
        let (class, is_body_there) = self.outcome_kinds()?;
        let status = self.status()?;
        let headers = self.headers()?;
        if is_body_there {
            Outcome::try_new(class, status, headers, self.bytes()?).map_err(invalid)
        } else {
            Outcome::try_without_body(class, status, headers).map_err(invalid)
        }
    }
}
