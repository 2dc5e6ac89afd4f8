//! `/v1/records` on the admin address: what operators see and do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::claims::OutcomeBody;
use crate::value::{Time, base64_bytes, names};

/// `GET /v1/records`: which records. All that is given must hold; newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub struct RecordQuery {
    /// In one of these states, separated by commas: `pending`, `running`, `released`, `completed`, `unknown`, `dead`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The same as `state`, under the name that it has in a bulk filter. Only one of the two may be given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub states: Option<String>,
    /// Of this operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// With this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// With this tag, as `name=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// In this namespace: `execute`, `http`, `webhook`, `topic` or `job`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// With `true`: running, but with a lapsed lease and nobody who goes on by himself; their `wake_at` is `null`. Such a
    /// page may show fewer than `limit` records, even none, and still have a `next`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lapsed: Option<bool>,
    /// Created at or after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// Created before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Where the page begins: the `next` of the one before. It does not move when records come and go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Records of the page, 1 to 1,000; 50 if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A part of a listing of records, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecordPage {
    /// The records.
    pub records: Vec<RecordSummary>,
    /// The `cursor` of the next page; `null` on the last.
    pub next: Option<String>,
}

/// What a listing shows of a record: no bodies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecordSummary {
    /// The record; 32 hexadecimal digits.
    pub id: String,
    /// The family of doors that its key came through.
    pub namespace: String,
    /// The tenant.
    pub tenant: String,
    /// The verified caller, source or consumer group, where the door has one.
    pub subject: Option<String>,
    /// The key.
    pub key: String,
    /// The operation.
    pub operation: String,
    /// Where it stands.
    pub state: String,
    /// Its version, `fence.sequence`; commands name the one that was judged.
    pub version: String,
    /// The number of the last attempt, from 1; 0 before the first. It only rises, also over a revival.
    pub attempt: u32,
    /// Whether it was taken in for asynchronous work.
    pub accepted: bool,
    /// Names and values to find it by.
    pub tags: BTreeMap<String, String>,
    /// When this life of the record began.
    pub created_at: Time,
    /// When this version was written.
    pub written_at: Time,
    /// Pending: when it is due. Running: when the lease lapses, and `null` once it has lapsed with nobody to go on. Completed:
    /// when its payload is dropped, if that is before the record is.
    pub wake_at: Option<Time>,
    /// When it came to rest.
    pub settled_at: Option<Time>,
    /// When it is forgotten.
    pub expires_at: Option<Time>,
}

/// `GET /v1/records/{id}`: everything about a record but its token. Bodies and data of checkpoints are shown to the
/// role `operate` only, cut to 16 KiB each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecordDetail {
    /// What a listing shows.
    #[serde(flatten)]
    pub summary: RecordSummary,
    /// The fence of its last claim. Below 2^53.
    pub fence: u64,
    /// Attempts that its schedule counts, `policy.max_attempts` at most: those since the work was taken in, was revived, or was
    /// said to have had no effect.
    pub tries: u32,
    /// How often it was revived.
    pub generation: u32,
    /// Whether an earlier attempt may have had an effect.
    pub tainted: bool,
    /// The client's name for the running attempt.
    pub attempt_id: Option<String>,
    /// What the last try said, or the circumstances of an unknown outcome.
    pub last_error: Option<String>,
    /// Why the outcome is unknown: `lease_lapsed`, `answer_lost` (none came in time or whole), `answer_inconclusive` (one came that
    /// proves nothing, such as a 500) or `work_abandoned`.
    pub unknown_because: Option<String>,
    /// What the request means, as algorithm and digest: `1:` and 64 hexadecimal digits.
    pub fingerprint: String,
    /// The key that targets are handed.
    pub downstream_key: String,
    /// What was promised about it when it began.
    pub policy: PolicyView,
    /// The queue it waits in when it is due: its target.
    pub lane: Option<String>,
    /// The record whose completed work it repeats.
    pub origin: Option<String>,
    /// Steps that are done, in order.
    pub checkpoints: Vec<CheckpointSummary>,
    /// What drives it without the client.
    pub input: Option<InputView>,
    /// Whether that was there, and was dropped after `policy.payload_retention_ms`.
    pub payload_dropped: bool,
    /// What it came to.
    pub outcome: Option<OutcomeView>,
}

/// What holds for a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyView {
    /// What a lapsed lease means: `at-most-once` or `resume`.
    pub semantics: String,
    /// How long a claim holds without a heartbeat.
    pub lease_ms: u64,
    /// How long a settled record is kept.
    pub retention_ms: u64,
    /// How long the payload of a completed one is kept, where that is not for as long as the record.
    pub payload_retention_ms: Option<u64>,
    /// Tries of accepted work.
    pub max_attempts: u32,
    /// The first pause between tries, before jitter.
    pub first_pause_ms: u64,
    /// The longest pause between tries.
    pub longest_pause_ms: u64,
    /// The age after which no try begins.
    pub max_age_ms: Option<u64>,
}

/// A step that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckpointSummary {
    /// The step.
    pub phase: String,
    /// What it gave; `null` for the role `read`.
    pub data: Option<Excerpt>,
}

/// What drives a record without the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InputView {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The headers that are kept.
    pub headers: Vec<HeaderView>,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// Its beginning; `null` for the role `read`.
    pub body: Option<Excerpt>,
}

/// What a record came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutcomeView {
    /// What kind of end it is: `success`, `rejection` or `discarded`.
    pub class: String,
    /// The status, as in HTTP.
    pub status: u16,
    /// The headers that are kept.
    pub headers: Vec<HeaderView>,
    /// Bytes of the body; `null` when it is not kept.
    pub body_bytes: Option<u64>,
    /// Its beginning; `null` for the role `read`, and when it is not kept.
    pub body: Option<Excerpt>,
}

/// A header. What is not UTF-8 in its value is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeaderView {
    /// The name, in lower case.
    pub name: String,
    /// The value.
    pub value: String,
}

/// The beginning of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Excerpt {
    /// The first 16 KiB, in base64.
    #[serde(with = "base64_bytes")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, content_encoding = "base64"))]
    pub base64: Vec<u8>,
    /// Whether there is more.
    pub cut: bool,
}

impl Excerpt {
    /// As much of the body as is shown.
    pub fn of(body: &[u8]) -> Self {
        let shown = body.len().min(crate::limits::EXCERPT_BYTES_MAX);
        Self { base64: body[..shown].to_vec(), cut: shown < body.len() }
    }
}

/// `POST /v1/records/{id}/resolve`: says what an unknown or dead record did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// The version that was judged.
    pub version: String,
    /// What it did.
    pub resolution: Resolution,
    /// What it gave, with `completed`; an empty success if it is not given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<OutcomeBody>,
    /// How that is known; kept in the audit log, 1 to 1,024 bytes.
    pub reason: String,
}

/// What an unknown or dead record did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// It took effect: the outcome is replayed from now on.
    Completed,
    /// It had no effect and never will: it may run again.
    NotExecuted,
}

/// `POST /v1/records/{id}/revive` and `…/discard`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JudgeRequest {
    /// The version that was judged.
    pub version: String,
    /// Why; kept in the audit log, 1 to 1,024 bytes.
    pub reason: String,
}

/// The answer of a command on one record: what it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JudgeReply {
    /// The record.
    pub record: RecordSummary,
}

/// Which records a bulk form works on. All that is given must hold; at least one must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct BulkFilter {
    /// In one of these states, as a list, or as one text with commas. What the command cannot change is left out by
    /// itself.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "names")]
    pub states: Vec<String>,
    /// The same as `states`, under the name that it has in a listing. Only one of the two may be given.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "names")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub state: Vec<String>,
    /// Of this operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// With this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// With this tag, as `name=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// In this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Created at or after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// Created before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// `POST /v1/records/revive` and `…/discard`: one command on all records that match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BulkRequest {
    /// Which records.
    pub filter: BulkFilter,
    /// Only count what matches and could be changed; nothing is changed.
    #[serde(default)]
    pub dry_run: bool,
    /// Records that this request works on at most, 1 to 10,000; 1,000 if it is not given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<u32>,
    /// Where to go on: the `next` of the answer before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cursor: Option<String>,
    /// Why; kept in the audit log of every record, 1 to 1,024 bytes. Not needed for a dry run.
    #[serde(default)]
    pub reason: String,
}

/// `POST /v1/records/resolve`: says of all records that match what they did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BulkResolveRequest {
    /// Which records.
    pub filter: BulkFilter,
    /// Only count what matches and could be changed; nothing is changed.
    #[serde(default)]
    pub dry_run: bool,
    /// Records that this request works on at most, 1 to 10,000; 1,000 if it is not given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<u32>,
    /// Where to go on: the `next` of the answer before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cursor: Option<String>,
    /// What they did.
    pub resolution: Resolution,
    /// What they gave, with `completed`; an empty success if it is not given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<OutcomeBody>,
    /// How that is known; kept in the audit log of every record, 1 to 1,024 bytes. Not needed for a dry run.
    #[serde(default)]
    pub reason: String,
}

/// What a bulk form did. Repeat the request with `cursor` set to `next` until that is `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BulkReply {
    /// Whether it only counted.
    pub dry_run: bool,
    /// Records that matched and could be changed.
    pub matched: u64,
    /// Whether there may be more than were counted, past the limit.
    pub more: bool,
    /// Records that were changed.
    pub changed: u64,
    /// Records that were not, since they had changed in between or the store refused.
    pub failed: u64,
    /// The first 100 of those, by id.
    pub failures: Vec<BulkFailure>,
    /// Where to go on; `null` when all is done.
    pub next: Option<String>,
}

/// A record that a bulk form could not change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BulkFailure {
    /// The record.
    pub id: String,
    /// A code of the error catalogue, such as `VERSION_CONFLICT`.
    pub code: String,
    /// What it means, for people.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::EXCERPT_BYTES_MAX;

    #[test]
    fn an_excerpt_says_when_it_is_cut() {
        assert!(!Excerpt::of(&vec![0; EXCERPT_BYTES_MAX]).cut);
        let cut = Excerpt::of(&vec![0; EXCERPT_BYTES_MAX + 1]);
        assert_eq!((cut.cut, cut.base64.len()), (true, EXCERPT_BYTES_MAX));
    }

    #[test]
    fn a_state_is_read_under_both_names_as_a_list_and_as_a_text_with_commas() {
        for value in [r#"["unknown","dead"]"#, r#""unknown,dead""#, r#"" unknown , dead,""#] {
            let read =
                |name| -> BulkFilter { serde_json::from_str(&format!("{{\"{name}\":{value}}}")).unwrap() };
            assert_eq!(read("state").state, ["unknown", "dead"], "{value}");
            assert_eq!(read("states").states, ["unknown", "dead"], "{value}");
        }
        assert!(serde_json::from_str::<BulkFilter>(r#"{"states":[1]}"#).is_err());
        assert!(serde_json::from_str::<BulkFilter>(r#"{"state":7}"#).is_err());
    }

    #[test]
    fn a_list_of_no_states_is_an_error_and_not_a_wider_filter() {
        for value in [r#""""#, r#"" , ""#, "[]"] {
            for name in ["state", "states"] {
                let text = format!(r#"{{"filter":{{"{name}":{value},"operation":"fail"}},"reason":"x"}}"#);
                let wrong = crate::decode::<BulkRequest>(text.as_bytes()).unwrap_err();
                assert_eq!(wrong.field, format!("filter.{name}"), "{value}");
                assert!(
                    wrong.message.starts_with("must be a list of at least one name"),
                    "{}",
                    wrong.message
                );
            }
        }
    }

    #[test]
    fn an_unknown_field_of_a_filter_is_an_error_and_not_a_wider_filter() {
        assert!(serde_json::from_str::<BulkFilter>(r#"{"sate":"dead"}"#).is_err());
    }
}
