//! From records to bytes.
#![expect(
    clippy::cast_possible_truncation,
    reason = "low bits are what LEB128 takes; limits of core bound the rest"
)]

use std::time::Duration;

use semel_core::Record;
use semel_core::audit::Entry;
use semel_core::id::{Key, Namespace, Operation, RecordId, Tag};
use semel_core::outcome::{Body, Class, Headers, Outcome};
use semel_core::policy::{Keep, OnLapse, Policy};
use semel_core::record::{CommandDigest, State, StateName, Text, Why};
use semel_core::request::{Input, Request};
use semel_core::time::Timestamp;

use crate::codec::{AUDIT_FORMAT, FORMAT, has};

/// Appends the bytes of a record to `out`.
pub fn encode_record(record: &Record, out: &mut Vec<u8>) {
    let parts = record.parts();
    let request = &*parts.request;
    out.push(FORMAT);
    number(out, flags(record));
    let state = state_number(parts.state.name());
    out.push(namespace_number(request.scope().namespace) << 4 | state);
    encode_request(request, out);
    number(out, parts.version.fence.0);
    number(out, parts.version.sequence.into());
    let times = &parts.times;
    number(out, times.created.as_millis());
    delta(out, times.created, times.written);
    for time in [times.wake, times.settled, times.expires].into_iter().flatten() {
        delta(out, times.written, time);
    }
    number(out, parts.attempt.into());
    if parts.uncounted > 0 {
        number(out, parts.uncounted.into());
    }
    number(out, parts.generation.into());
    if let Some(token) = &parts.token {
        out.extend_from_slice(token.as_bytes());
    }
    if parts.last != CommandDigest::default() {
        out.extend_from_slice(&parts.last.0);
    }
    if let Some(token) = &parts.taken_in_by {
        out.extend_from_slice(token.as_bytes());
    }
    number(out, parts.checkpoints.len() as u64);
    for checkpoint in &*parts.checkpoints {
        text(out, checkpoint.phase().as_str());
        bytes(out, checkpoint.data());
    }
    encode_state(&parts.state, out);
}

fn flags(record: &Record) -> u64 {
    let parts = record.parts();
    let request = &*parts.request;
    let bits = [
        (parts.accepted, has::ACCEPTED),
        (parts.tainted, has::TAINTED),
        (parts.token.is_some(), has::TOKEN),
        (parts.last != CommandDigest::default(), has::LAST),
        (request.scope().subject.is_some(), has::SUBJECT),
        (request.lane().is_some(), has::LANE),
        (request.input().is_some(), has::INPUT),
        (request.origin().is_some(), has::ORIGIN),
        (parts.times.wake.is_some(), has::WAKE),
        (parts.times.settled.is_some(), has::SETTLED),
        (parts.times.expires.is_some(), has::EXPIRES),
        (request.policy().retry().max_age().is_some(), has::MAX_AGE),
        (request.policy().payload_retention().is_some(), has::PAYLOAD_RETENTION),
        (parts.taken_in_by.is_some(), has::TAKEN_IN_BY),
        (parts.uncounted > 0, has::UNCOUNTED),
    ];
    bits.into_iter().filter(|(is_set, _)| *is_set).fold(0, |flags, (_, bit)| flags | bit)
}

fn encode_request(request: &Request, out: &mut Vec<u8>) {
    text(out, request.scope().tenant.as_str());
    if let Some(subject) = &request.scope().subject {
        text(out, subject.as_str());
    }
    text(out, request.key().as_str());
    text(out, request.operation().as_str());
    out.push(request.fingerprint().version);
    out.extend_from_slice(&request.fingerprint().digest);
    encode_policy(request.policy(), out);
    if let Some(lane) = request.lane() {
        text(out, lane.as_str());
    }
    encode_tags(request.tags(), out);
    if let Some(input) = request.input() {
        encode_input(input, out);
    }
    if let Some(origin) = request.origin() {
        out.extend_from_slice(origin.as_bytes());
    }
}

fn encode_policy(policy: &Policy, out: &mut Vec<u8>) {
    let on_lapse = match policy.on_lapse() {
        OnLapse::AtMostOnce => 0,
        OnLapse::Resume => 1,
    };
    let keep = match policy.keep() {
        Keep::Deterministic => 0,
        Keep::AllButServerErrors => 1,
        Keep::Everything => 2,
    };
    out.push(keep << 4 | on_lapse);
    duration(out, policy.lease());
    duration(out, policy.retention());
    let retry = policy.retry();
    number(out, retry.max_attempts().into());
    duration(out, retry.first());
    duration(out, retry.cap());
    for length in [retry.max_age(), policy.payload_retention()].into_iter().flatten() {
        duration(out, length);
    }
}

/// Appends the bytes of an input alone to `out`, for stores that keep it apart from what changes.
pub fn encode_input(input: &Input, out: &mut Vec<u8>) {
    text(out, input.method());
    text(out, input.path());
    headers(out, input.headers());
    bytes(out, input.body());
}

fn encode_state(state: &State, out: &mut Vec<u8>) {
    match state {
        State::Pending { last_error } => optional(out, last_error.as_ref().map(Text::as_str)),
        State::Running { attempt_id } => {
            optional(out, attempt_id.as_ref().map(semel_core::id::AttemptId::as_str));
        }
        State::Released { last_error } => text(out, last_error.as_str()),
        State::Completed { outcome } => encode_outcome(outcome, out),
        State::Unknown { why, detail } => {
            out.push(match why {
                Why::LeaseLapsed => 0,
                Why::AnswerLost => 1,
                Why::WorkAbandoned => 2,
                Why::AnswerInconclusive => 3,
            });
            text(out, detail.as_str());
        }
        State::Dead { last_error } => text(out, last_error.as_str()),
    }
}

fn encode_outcome(outcome: &Outcome, out: &mut Vec<u8>) {
    let class = match outcome.class {
        Class::Success => 0,
        Class::Rejection => 1,
        Class::Discarded => 2,
    };
    let gone = u8::from(outcome.body == Body::Gone);
    out.push(gone << 4 | class);
    number(out, outcome.status.into());
    headers(out, &outcome.headers);
    if let Body::Kept(body) = &outcome.body {
        bytes(out, body);
    }
}

/// Appends the bytes of an audit entry, numbered by the store, to `out`.
pub fn encode_audit(sequence: u64, entry: &Entry, out: &mut Vec<u8>) {
    out.push(AUDIT_FORMAT);
    number(out, sequence);
    number(out, entry.at.as_millis());
    text(out, entry.action.as_str());
    optional_id(out, entry.record);
    for state in [entry.from, entry.to] {
        out.push(state.map_or(0, |state| state_number(state) + 1));
    }
    text(out, entry.actor.as_str());
    optional(out, entry.reason.as_ref().map(Text::as_str));
    optional(out, entry.correlation_id.as_ref().map(Text::as_str));
    number(out, entry.metadata.len() as u64);
    for (name, value) in &entry.metadata {
        text(out, name);
        text(out, value.as_str());
    }
    optional(out, entry.operation.as_ref().map(Operation::as_str));
    optional(out, entry.key.as_ref().map(Key::as_str));
    encode_tags(&entry.tags, out);
}

fn encode_tags(tags: &[Tag], out: &mut Vec<u8>) {
    number(out, tags.len() as u64);
    for tag in tags {
        text(out, tag.name.as_str());
        text(out, tag.value.as_str());
    }
}

pub(super) const fn state_number(state: StateName) -> u8 {
    match state {
        StateName::Pending => 0,
        StateName::Running => 1,
        StateName::Released => 2,
        StateName::Completed => 3,
        StateName::Unknown => 4,
        StateName::Dead => 5,
    }
}

const fn namespace_number(namespace: Namespace) -> u8 {
    match namespace {
        Namespace::Execute => 0,
        Namespace::Http => 1,
        Namespace::Webhook => 2,
        Namespace::Topic => 3,
        Namespace::Job => 4,
    }
}

fn number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A time as its distance from another: mostly short, and seldom negative.
fn delta(out: &mut Vec<u8>, from: Timestamp, to: Timestamp) {
    let distance = to.as_millis().wrapping_sub(from.as_millis()).cast_signed();
    number(out, ((distance << 1) ^ (distance >> 63)).cast_unsigned());
}

/// Whole milliseconds, or, marked by the low bit, nanoseconds.
fn duration(out: &mut Vec<u8>, length: Duration) {
    let millis = length.as_millis() as u64;
    if Duration::from_millis(millis) == length {
        number(out, millis << 1);
    } else {
        number(out, (length.as_nanos() as u64) << 1 | 1);
    }
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn text(out: &mut Vec<u8>, text: &str) {
    bytes(out, text.as_bytes());
}

fn optional(out: &mut Vec<u8>, value: Option<&str>) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        text(out, value);
    }
}

fn optional_id(out: &mut Vec<u8>, id: Option<RecordId>) {
    out.push(u8::from(id.is_some()));
    if let Some(id) = id {
        out.extend_from_slice(id.as_bytes());
    }
}

fn headers(out: &mut Vec<u8>, headers: &Headers) {
    number(out, headers.len() as u64);
    for header in headers {
        text(out, &header.name);
        bytes(out, &header.value);
    }
}
