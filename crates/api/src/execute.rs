//! `POST /v1/idempotency/execute` and `GET /v1/idempotency/executions/{key}`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::value::Json;

/// What is to be executed at most once.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExecuteRequest<'a> {
    /// The name of a configured operation.
    #[serde(borrow)]
    #[cfg_attr(feature = "openapi", schema(value_type = String, max_length = 255, example = "payment.charge"))]
    pub operation: Cow<'a, str>,
    /// Any JSON; sent on to the target as it is, and compared with that of later requests with the same key.
    #[serde(borrow)]
    #[cfg_attr(feature = "openapi", schema(value_type = Json))]
    pub payload: &'a RawValue,
    /// The key, where it cannot be a header. If both are given they must be the same.
    #[serde(borrow, default, alias = "idempotencyKey")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, max_length = 255))]
    pub idempotency_key: Option<Cow<'a, str>>,
    /// The client's name for this attempt; the audit log has it as `clientAttemptId`.
    #[serde(borrow, default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, max_length = 255))]
    pub attempt_id: Option<Cow<'a, str>>,
}

/// Where an execution stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Execution {
    /// Where it stands.
    pub status: ExecutionStatus,
    /// What it gave, when it is completed: the target's JSON as it came, or `{"content_type","body_base64"}`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result: Option<Json>,
}

impl Execution {
    /// It was done, and gave this.
    pub const fn completed(result: Json) -> Self {
        Self { status: ExecutionStatus::Completed, result: Some(result) }
    }

    /// Somebody is at it.
    pub const fn processing() -> Self {
        Self { status: ExecutionStatus::Processing, result: None }
    }
}

/// Where an execution stands, for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExecutionStatus {
    /// It was done; `result` says what it gave.
    Completed,
    /// Somebody is at it, or it waits for a worker.
    Processing,
    /// An attempt ended, known to be without effect: the same request may be sent again.
    Released,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requirements_bodies_are_these_to_the_letter() {
        let done = Execution::completed(Json::from_text("{}").unwrap());
        assert_eq!(serde_json::to_string(&done).unwrap(), r#"{"status":"completed","result":{}}"#);
        assert_eq!(serde_json::to_string(&Execution::processing()).unwrap(), r#"{"status":"processing"}"#);
    }

    #[test]
    fn the_payload_is_the_text_that_came() {
        let body = r#"{"operation":"payment.charge","payload":{"n": 12345678901234567890.50}}"#;
        let request: ExecuteRequest<'_> = serde_json::from_str(body).unwrap();
        assert_eq!(request.payload.get(), r#"{"n": 12345678901234567890.50}"#);
        assert!(matches!(request.operation, Cow::Borrowed("payment.charge")), "nothing is copied");
    }
}
