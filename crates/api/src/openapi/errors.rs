//! The errors that an endpoint can answer, as responses by status: which codes, and what the client does.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;
use utoipa::openapi::{ContentBuilder, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder};

use crate::error::ErrorCode;

/// Responses for these codes, one for each status.
fn responses(codes: &[ErrorCode]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<String, Vec<ErrorCode>> = BTreeMap::new();
    for code in codes {
        let statuses: &[&str] = match code {
            // The target's own status, any of its 4xx.
            ErrorCode::OperationRejected => &["4XX"],
            ErrorCode::OutcomeUnknown => &["502", "503", "504"],
            code => &[match code.status() {
                400 => "400",
                401 => "401",
                403 => "403",
                404 => "404",
                405 => "405",
                409 => "409",
                410 => "410",
                413 => "413",
                415 => "415",
                422 => "422",
                429 => "429",
                431 => "431",
                503 => "503",
                _ => "500",
            }],
        };
        for status in statuses {
            by_status.entry((*status).to_owned()).or_default().push(*code);
        }
    }
    by_status.into_iter().map(|(status, codes)| (status, RefOr::T(response(&codes)))).collect()
}

fn response(codes: &[ErrorCode]) -> Response {
    let mut description = String::new();
    for code in codes {
        // Writing into a text cannot fail.
        let _ = writeln!(description, "- `{code}`: {}. Client: {}.", code.message(), code.client_does());
    }
    let example = codes.first().map(|code| {
        json!({"error": {
            "code": code.as_str(), "message": code.message(), "details": [],
            "request_id": "5f1d0c4f2a7b9e63-1a",
        }})
    });
    let content = |name: &str| ContentBuilder::new().schema(Some(Ref::from_schema_name(name)));
    let mut response = ResponseBuilder::new();
    if codes.contains(&ErrorCode::MethodNotAllowed) {
        let allow = HeaderBuilder::new().description(Some("The methods that are possible here."));
        response = response.header("Allow", allow.build());
    }
    response
        .description(description.trim_end())
        .content("application/json", content("ErrorEnvelope").example(example).build())
        .content("application/problem+json", content("Problem").build())
        .build()
}

macro_rules! error_sets {
    ($($(#[$doc:meta])* $name:ident [$($code:ident),* $(,)?];)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                responses(&[$(ErrorCode::$code),*])
            }
        }
    )*};
}

error_sets! {
    /// Of `POST /v1/idempotency/execute`.
    ExecuteErrors [
        IdempotencyKeyRequired, IdempotencyKeyInvalid, ValidationFailed, Unauthenticated, UnknownOperation,
        MethodNotAllowed, IdempotencyOutcomeUnknown, OperationDead, IdempotencyResultGone,
        OperationDiscarded, PayloadTooLarge, UnsupportedMediaType, IdempotencyParameterMismatch,
        RateLimited, OperationRejected, TargetUnavailable, IdempotencyStorageUnavailable, Overloaded,
        OutcomeUnknown, HeadersTooLarge, Internal,
    ];
    /// Of `GET /v1/idempotency/executions/{key}`.
    ExecutionsErrors [
        IdempotencyKeyInvalid, ValidationFailed, Unauthenticated, NotFound, IdempotencyOutcomeUnknown,
        OperationDead, IdempotencyResultGone, OperationDiscarded, RateLimited, OperationRejected,
        TargetUnavailable, IdempotencyStorageUnavailable, Overloaded, MethodNotAllowed, HeadersTooLarge,
        Internal,
    ];
    /// Of `POST /v1/claims`.
    ClaimErrors [
        IdempotencyKeyRequired, IdempotencyKeyInvalid, ValidationFailed, Unauthenticated,
        IdempotencyConcurrentRequest, IdempotencyOutcomeUnknown, OperationDead, IdempotencyResultGone,
        OperationDiscarded, PayloadTooLarge, UnsupportedMediaType, IdempotencyParameterMismatch,
        RateLimited, IdempotencyStorageUnavailable, Overloaded, MethodNotAllowed, HeadersTooLarge, Internal,
    ];
    /// Of the commands of a claim.
    HeldErrors [
        ValidationFailed, Unauthenticated, NotFound, IdempotencyFenced, IllegalTransition, PayloadTooLarge,
        UnsupportedMediaType, RateLimited, IdempotencyStorageUnavailable, Overloaded, MethodNotAllowed,
        HeadersTooLarge, Internal,
    ];
    /// Of `POST /v1/webhooks/{source}`.
    WebhookErrors [
        ValidationFailed, SignatureInvalid, NotFound, MethodNotAllowed, PayloadTooLarge, RateLimited,
        IdempotencyStorageUnavailable, Overloaded, HeadersTooLarge, Internal,
    ];
    /// Of the signature debugger.
    VerifyErrors [
        ValidationFailed, Unauthenticated, Forbidden, NotFound, PayloadTooLarge, UnsupportedMediaType,
        MethodNotAllowed, HeadersTooLarge, Internal,
    ];
    /// Of what operators look at.
    ReadErrors [
        ValidationFailed, Unauthenticated, Forbidden, IdempotencyStorageUnavailable, MethodNotAllowed,
        HeadersTooLarge, Internal,
    ];
    /// Of one thing that operators look at.
    ShowErrors [
        Unauthenticated, Forbidden, NotFound, IdempotencyStorageUnavailable, MethodNotAllowed,
        HeadersTooLarge, Internal,
    ];
    /// Of what operators do to one record.
    JudgeErrors [
        ValidationFailed, Unauthenticated, Forbidden, NotFound, VersionConflict, IllegalTransition,
        PayloadTooLarge, UnsupportedMediaType, IdempotencyStorageUnavailable, MethodNotAllowed,
        HeadersTooLarge, Internal,
    ];
    /// Of what operators do to many records.
    BulkErrors [
        ValidationFailed, Unauthenticated, Forbidden, PayloadTooLarge, UnsupportedMediaType,
        IdempotencyStorageUnavailable, MethodNotAllowed, HeadersTooLarge, Internal,
    ];
    /// Of the start of a job's run.
    JobStartErrors [
        ValidationFailed, Unauthenticated, JobAlreadyRunning, IdempotencyFenced, PayloadTooLarge,
        UnsupportedMediaType, RateLimited, IdempotencyStorageUnavailable, Overloaded, MethodNotAllowed,
        HeadersTooLarge, Internal,
    ];
    /// Of the commands of a job's run.
    JobErrors [
        ValidationFailed, Unauthenticated, NotFound, IdempotencyFenced, PayloadTooLarge, UnsupportedMediaType,
        RateLimited, IdempotencyStorageUnavailable, Overloaded, MethodNotAllowed, HeadersTooLarge, Internal,
    ];
    /// Of what there is to see of jobs.
    JobReadErrors [
        ValidationFailed, Unauthenticated, Forbidden, RateLimited, IdempotencyStorageUnavailable, Overloaded,
        MethodNotAllowed, HeadersTooLarge, Internal,
    ];
    /// Of a forced release.
    JobReleaseErrors [
        ValidationFailed, Unauthenticated, Forbidden, NotFound, VersionConflict, PayloadTooLarge,
        UnsupportedMediaType, IdempotencyStorageUnavailable, MethodNotAllowed, HeadersTooLarge, Internal,
    ];
}
