//! The Claims API: claim a key, do the work yourself, complete it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::value::{Content, Json, Time, base64_bytes, unique_names};

/// `POST /v1/claims`: asks for the right to run one attempt. Give `payload` or `fingerprint`, not both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// The idempotency key; may be the `Idempotency-Key` header instead. If both are given they must be the same.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    /// The name of the action, such as `invoice.render`.
    pub operation: String,
    /// Any JSON that the operation works on: the same key with another payload is a mismatch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub payload: Option<Json>,
    /// Instead of the payload: a SHA-256 or other 256-bit digest that the client makes of it; 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fingerprint: Option<String>,
    /// The client's name for the attempt: a claim whose answer was lost can be asked for again, and is the same one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt_id: Option<String>,
    /// How long the claim holds without being extended; 100 ms to 24 h. If it is not given: as is configured for the
    /// operation, else 5 min.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lease_ms: Option<u64>,
    /// What holds for the record beside the lease.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<ClaimPolicy>,
    /// Up to 16 names and values to find the record by, beside those that are configured for the operation.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default, deserialize_with = "unique_names")]
    pub tags: BTreeMap<String, String>,
}

/// What holds for a claimed record. The first claim of a key fixes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ClaimPolicy {
    /// What a lapsed lease means. If it is not given: as is configured for the operation, else `at-most-once`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub semantics: Option<Semantics>,
    /// How long the outcome is kept from its completion; up to ten years. If it is not given: as is configured for the
    /// operation, else 24 h.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retention_ms: Option<u64>,
}

/// What a lapsed lease, or a lost answer, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Semantics {
    /// It may have happened: the record becomes `unknown`, and nothing runs again by itself.
    AtMostOnce,
    /// The next claim takes over, with a higher fence and the checkpoints so far.
    Resume,
}

/// 201 of `POST /v1/claims`: run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimGranted {
    /// `claimed`.
    pub status: ClaimStatus,
    /// The claim.
    pub claim: ClaimView,
}

/// 200 of `POST /v1/claims`: it was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimReplayed {
    /// `completed`.
    pub status: ClaimStatus,
    /// The record; 32 hexadecimal digits.
    pub id: String,
    /// What it gave.
    pub outcome: OutcomeBody,
}

/// What became of asking for a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ClaimStatus {
    /// The claim is yours.
    Claimed,
    /// It was done before.
    Completed,
}

/// The exclusive right to run one attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimView {
    /// The record, in the paths of the claim's commands; 32 hexadecimal digits.
    pub id: String,
    /// The key.
    pub key: String,
    /// The operation.
    pub operation: String,
    /// The proof, for the claim's commands: a secret; 32 hexadecimal digits.
    pub token: String,
    /// For the resource that is worked on, so that it can refuse a holder with a lower one. Below 2^53.
    pub fence: u64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Whether an earlier attempt may have had an effect: look before you act.
    pub resumed: bool,
    /// How long the claim holds without being extended. Extend it at a third of this.
    pub lease_ms: u64,
    /// When the lease ends, in the store's time.
    pub lease_until: Option<Time>,
    /// A key for targets of the work: the same over all attempts.
    pub downstream_key: String,
    /// Steps that earlier attempts have done, in order.
    pub checkpoints: Vec<CheckpointView>,
}

/// A step that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckpointView {
    /// The step.
    pub phase: String,
    /// What it gave: the JSON that was sent, or `{"content_type","body_base64"}`.
    pub data: Json,
}

/// `POST /v1/claims/{id}/extend`: a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExtendRequest {
    /// The claim's token.
    pub token: String,
}

/// `POST /v1/claims/{id}/checkpoints`: a step is done. The same phase and data again is a success.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CheckpointRequest {
    /// The claim's token.
    pub token: String,
    /// The step's name, up to 128 characters.
    pub phase: String,
    /// What it gave, up to 64 KiB of JSON; `null` if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
}

/// `POST /v1/claims/{id}/complete`: it was done. The same outcome again is a success.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CompleteRequest {
    /// The claim's token.
    pub token: String,
    /// What it gave.
    #[serde(default)]
    pub outcome: OutcomeBody,
}

/// `POST /v1/claims/{id}/release`: the attempt ended and is known to have had no effect, so the next may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// The claim's token.
    pub token: String,
    /// Why it ended, for people; up to 1,024 bytes are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The answer of a claim's commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeldReply {
    /// The record.
    pub id: String,
    /// Where it stands now.
    pub state: String,
    /// Its version, `fence.sequence`.
    pub version: String,
    /// When the lease ends, in the store's time; `null` once there is none.
    pub lease_until: Option<Time>,
}

/// What an operation gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OutcomeBody {
    /// What kind of end it is; `success` if it is not given.
    #[serde(default, deserialize_with = "sayable")]
    pub class: OutcomeClass,
    /// The status, as in HTTP; 200 if it is not given.
    #[serde(default = "ok")]
    pub status: u16,
    /// What it gave, as JSON. Give this or `body_base64`, or neither.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result: Option<Json>,
    /// The media type of `body_base64`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_type: Option<String>,
    /// What it gave, if that is not JSON, in base64.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "optional_base64")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, content_encoding = "base64"))]
    pub body_base64: Option<Vec<u8>>,
    /// `true` when it was done and what it gave is not kept.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub gone: bool,
}

const fn ok() -> u16 {
    200
}

impl Default for OutcomeBody {
    /// A success with status 200 and no body.
    fn default() -> Self {
        Self {
            class: OutcomeClass::Success,
            status: ok(),
            result: None,
            content_type: None,
            body_base64: None,
            gone: false,
        }
    }
}

impl OutcomeBody {
    /// A body of this type: shown as JSON where it is, else in base64.
    #[must_use]
    pub fn with_body(mut self, content_type: Option<&str>, body: &[u8]) -> Self {
        let json = content_type.is_none_or(crate::value::is_json).then(|| Json::from_bytes(body)).flatten();
        if json.is_none() {
            let content_type = content_type.unwrap_or("application/octet-stream").to_owned();
            let content = Content { content_type, body_base64: body.to_vec() };
            self.content_type = Some(content.content_type);
            self.body_base64 = Some(content.body_base64);
        }
        self.result = json;
        self
    }
}

/// What kind of end an operation came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OutcomeClass {
    /// It was done.
    #[default]
    Success,
    /// It was refused for good, and would be refused again.
    Rejection,
    /// An operator put it aside. No request can say this.
    Discarded,
}

/// The classes that a request can say: what is refused anyway is not among those that are expected.
fn sayable<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<OutcomeClass, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Said {
        Success,
        Rejection,
    }
    Ok(match Said::deserialize(deserializer)? {
        Said::Success => OutcomeClass::Success,
        Said::Rejection => OutcomeClass::Rejection,
    })
}

mod optional_base64 {
    //! Bytes as base64 text, where there are any.

    use super::base64_bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => base64_bytes::serialize(bytes, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        #[derive(Deserialize)]
        struct Bytes(#[serde(with = "base64_bytes")] Vec<u8>);
        Ok(Option::<Bytes>::deserialize(deserializer)?.map(|bytes| bytes.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_is_given_twice_is_an_error_and_not_the_last_of_two() {
        let twice = br#"{"key":"k","operation":"a","payload":1,"tags":{"order_id":"1","order_id":"2"}}"#;
        let wrong = crate::decode::<ClaimRequest>(twice).unwrap_err();
        assert_eq!(wrong.field, "tags");
        assert!(wrong.message.starts_with("has a name twice"), "{}", wrong.message);
    }

    #[test]
    fn an_outcome_is_json_or_base64_and_defaults_to_a_success_with_status_200() {
        let request: CompleteRequest =
            serde_json::from_str(r#"{"token":"t","outcome":{"result":{"n":9007199254740993}}}"#).unwrap();
        assert_eq!((request.outcome.class, request.outcome.status), (OutcomeClass::Success, 200));
        assert_eq!(request.outcome.result.as_ref().map(Json::as_str), Some(r#"{"n":9007199254740993}"#));
        let plain =
            OutcomeBody { status: 201, ..OutcomeBody::default() }.with_body(Some("text/plain"), b"hi");
        let text = serde_json::to_string(&plain).unwrap();
        assert_eq!(
            text,
            r#"{"class":"success","status":201,"content_type":"text/plain","body_base64":"aGk="}"#
        );
        assert_eq!(serde_json::from_str::<OutcomeBody>(&text).unwrap(), plain);
    }
}
