//! Every record comes back as it was, and nothing else comes back at all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use semel_core::audit::{Action, Entry};
use semel_core::id::{
    AttemptId, Fence, Key, Lane, Namespace, Operation, Phase, RecordId, Scope, Subject, Tag, TagName,
    TagValue, Tenant, Token, Version,
};
use semel_core::outcome::{Class, Header, Headers, Outcome};
use semel_core::policy::{Keep, OnLapse, Policy, Schedule};
use semel_core::record::{Checkpoint, CommandDigest, Parts, State, StateName, Text, Times, Why};
use semel_core::request::{Fingerprint, Input, Request};
use semel_core::{Record, Timestamp};

use crate::codec::{decode_audit, decode_record, encode_audit, encode_record};

#[cfg(feature = "embedded")]
mod glances;

fn headers() -> impl Strategy<Value = Headers> {
    let header = ("[a-z-]{1,12}", vec(any::<u8>(), 0..20));
    vec(header, 0..4).prop_map(|headers| {
        let headers = headers.into_iter();
        let headers = headers.map(|(name, value)| Header { name: name.into(), value: Bytes::from(value) });
        Headers::try_new(headers.collect()).unwrap()
    })
}

fn body() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..600).prop_map(Bytes::from)
}

fn policy() -> impl Strategy<Value = Policy> {
    let lapse = prop_oneof![Just(OnLapse::AtMostOnce), Just(OnLapse::Resume)];
    let keep = prop_oneof![Just(Keep::Deterministic), Just(Keep::AllButServerErrors), Just(Keep::Everything)];
    let lengths = (100_000_000_u64..1_000_000_000_000, 1_000_000_u64..1_000_000_000_000_000);
    let payload = option::of(1_000_000_u64..1_000_000_000_000_000);
    (lengths, lapse, keep, 1_u32..1_000, option::of(1_u64..1_000_000), payload).prop_map(
        |((lease, retention), lapse, keep, attempts, age, payload)| {
            let (first, cap) = (Duration::from_millis(1_500), Duration::from_secs(60));
            let retry = Schedule::try_new(attempts, first, cap, age.map(Duration::from_millis)).unwrap();
            let (lease, retention) = (Duration::from_nanos(lease), Duration::from_nanos(retention));
            let policy = Policy::try_new(lease, retention, lapse, keep, retry).unwrap();
            let payload = payload.map(Duration::from_nanos).filter(|payload| *payload < retention);
            policy.try_with_payload_retention(payload).unwrap()
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let names = ("[ -~]{1,20}", option::of("[ -~]{1,20}"), "\\PC{1,40}", "[a-z.]{1,20}");
    let tags = vec("[ -~]{1,20}", 0..5);
    let input = option::of((headers(), body()));
    let rest = (option::of("[a-z]{1,9}"), option::of(any::<[u8; 16]>()));
    let namespace = (0..Namespace::ALL.len()).prop_map(|at| Namespace::ALL[at]);
    (namespace, names, policy(), any::<(u8, [u8; 32])>(), tags, input, rest).prop_map(
        |(
            namespace,
            (tenant, subject, key, operation),
            policy,
            (version, digest),
            tags,
            input,
            (lane, origin),
        )| {
            let scope = Scope {
                namespace,
                tenant: Tenant::try_new(&tenant).unwrap(),
                subject: subject.map(|subject| Subject::try_new(&subject).unwrap()),
            };
            let (key, operation) = (Key::try_new(&key).unwrap(), Operation::try_new(&operation).unwrap());
            let mut request = Request::new(scope, key, operation, Fingerprint { version, digest }, policy);
            let tags = tags.iter().enumerate().map(|(n, value)| Tag {
                name: TagName::try_new(&format!("tag_{n}")).unwrap(),
                value: TagValue::try_new(value).unwrap(),
            });
            request = request.try_with_tags(tags.collect()).unwrap();
            if let Some((headers, body)) = input {
                request = request.with_input(Input::try_new("POST", "/orders?a=b", headers, body).unwrap());
            }
            if let Some(lane) = lane {
                request = request.in_lane(Lane::try_new(&lane).unwrap());
            }
            match origin {
                Some(origin) => request.repeating(RecordId::from_bytes(origin)),
                None => request,
            }
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let class = prop_oneof![Just(Class::Success), Just(Class::Rejection), Just(Class::Discarded)];
    (class, 100_u16..1_000, headers(), option::of(body())).prop_map(|(class, status, headers, body)| {
        match body {
            Some(body) => Outcome::try_new(class, status, headers, body).unwrap(),
            None => Outcome::try_without_body(class, status, headers).unwrap(),
        }
    })
}

fn state() -> impl Strategy<Value = State> {
    let text = || "\\PC{0,60}".prop_map(|text| Text::new(&text));
    let why = proptest::sample::select(&Why::ALL[..]);
    let attempt_id = option::of("[a-z0-9]{1,9}");
    prop_oneof![
        option::of(text()).prop_map(|last_error| State::Pending { last_error }),
        attempt_id
            .prop_map(|id| State::Running { attempt_id: id.map(|id| AttemptId::try_new(&id).unwrap()) }),
        text().prop_map(|last_error| State::Released { last_error }),
        outcome().prop_map(|outcome| State::Completed { outcome }),
        (why, text()).prop_map(|(why, detail)| State::Unknown { why, detail }),
        text().prop_map(|last_error| State::Dead { last_error }),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let times = (1_u64..1 << 45, 0_u64..1 << 40, 0_u64..1 << 40);
    let numbers = (1_u64..u64::MAX, any::<(u32, u32, u32, u32)>());
    let marks = (any::<bool>(), any::<[u8; 16]>(), any::<Option<[u8; 16]>>(), any::<bool>());
    let checkpoints = vec(("[a-z]{1,9}", body()), 0..3);
    (request(), state(), times, numbers, marks, checkpoints).prop_map(
        |(
            request,
            state,
            (created, age, ahead),
            (fence, (sequence, attempt, uncounted, generation)),
            marks,
            checkpoints,
        )| {
            let (tainted, token, last, accepted) = marks;
            let written = Timestamp::from_millis(created + age);
            let later = Timestamp::from_millis(created + age + ahead);
            let name = state.name();
            let rests = matches!(name, StateName::Released | StateName::Completed);
            let wakes = matches!(name, StateName::Pending | StateName::Running)
                || (name == StateName::Completed && request.policy().payload_retention().is_some());
            let checkpoints: Vec<_> = checkpoints
                .into_iter()
                .map(|(phase, data)| Checkpoint::try_new(Phase::try_new(&phase).unwrap(), data).unwrap())
                .collect();
            Record::from_parts(Parts {
                request: Arc::new(request),
                version: Version { fence: Fence(fence), sequence },
                times: Times {
                    created: Timestamp::from_millis(created),
                    written,
                    wake: wakes.then_some(later),
                    settled: rests.then_some(written),
                    expires: rests.then_some(later),
                },
                attempt,
                uncounted: uncounted.min(attempt),
                generation,
                accepted: name == StateName::Pending || (accepted && name != StateName::Released),
                taken_in_by: last.map(Token::from_bytes),
                tainted,
                token: Some(Token::from_bytes(token)),
                last: CommandDigest(last.unwrap_or_default()),
                checkpoints: checkpoints.into(),
                state,
            })
            .unwrap()
        },
    )
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_record(record, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn a_record_comes_back_as_it_was_byte_for_byte_l10(record in record(), behind in vec(any::<u8>(), 0..9)) {
        let mut bytes = encoded(&record);
        let len = bytes.len();
        bytes.extend_from_slice(&behind);
        let (found, rest) = decode_record(Bytes::from(bytes.clone())).unwrap();
        prop_assert_eq!(&found, &record);
        prop_assert_eq!(&rest[..], &behind[..]);
        prop_assert_eq!(encoded(&found), &bytes[..len]);
    }

    #[test]
    fn bytes_that_are_none_of_ours_are_corrupt_and_never_a_panic_l13(bytes in vec(any::<u8>(), 0..300)) {
        let mut ours = bytes.clone();
        ours.insert(0, crate::codec::FORMAT);
        for bytes in [bytes, ours] {
            // Chance may make a record; it must then be one that can be written.
            if let Ok((record, _)) = decode_record(Bytes::from(bytes.clone())) {
                encoded(&record);
            }
            drop(decode_audit(Bytes::from(bytes)));
        }
    }

    #[test]
    fn a_changed_or_shortened_record_is_corrupt_or_another_record_l13(
        record in record(), at in any::<prop::sample::Index>(), bits in 1_u8..=255, end in any::<prop::sample::Index>(),
    ) {
        let bytes = encoded(&record);
        let mut changed = bytes.clone();
        changed[at.index(bytes.len())] ^= bits;
        if let Ok((found, _)) = decode_record(Bytes::from(changed)) {
            encoded(&found);
        }
        prop_assert!(decode_record(Bytes::copy_from_slice(&bytes[..end.index(bytes.len())])).is_err());
    }

    #[test]
    fn an_audit_entry_comes_back_as_it_was(
        sequence in any::<u64>(), at in any::<u64>(), texts in vec("\\PC{0,30}", 5), record in any::<Option<[u8; 16]>>(),
        action in 0..Action::ALL.len(), about in option::of(request()), end in any::<prop::sample::Index>(),
    ) {
        let mut entry = Entry::new(Action::ALL[action], Text::new(&texts[0]));
        entry.at = Timestamp::from_millis(at);
        entry.record = record.map(RecordId::from_bytes);
        entry.to = record.map(|_| StateName::Completed);
        entry.reason = record.map(|_| Text::new(&texts[1]));
        entry.correlation_id = Some(Text::new(&texts[2]));
        entry.metadata = vec![(texts[3].clone().into(), Text::new(&texts[4]))];
        if let Some(request) = &about {
            entry = entry.about(request);
        }
        let mut bytes = Vec::new();
        encode_audit(sequence, &entry, &mut bytes);
        prop_assert_eq!(decode_audit(Bytes::from(bytes.clone())).unwrap(), (sequence, entry));
        prop_assert!(decode_audit(Bytes::copy_from_slice(&bytes[..end.index(bytes.len())])).is_err());
    }
}

#[test]
fn an_audit_entry_of_the_first_format_is_read_without_what_it_did_not_hold() {
    let mut entry = Entry::new(Action::Resolved, Text::new("op"));
    entry.reason = Some(Text::new("asked the bank"));
    let mut bytes = Vec::new();
    encode_audit(7, &entry, &mut bytes);
    // Since the second format three bytes more say that there is no operation, no key and no tag.
    bytes.truncate(bytes.len() - 3);
    bytes[0] = 1;
    assert_eq!(decode_audit(Bytes::from(bytes)).unwrap(), (7, entry));
}

#[test]
fn a_later_format_is_not_guessed_at() {
    let error = decode_record(Bytes::from_static(&[crate::codec::FORMAT + 1, 0, 0])).unwrap_err();
    assert_eq!(error.to_string(), "stored bytes cannot be read: unknown version of the format");
}
