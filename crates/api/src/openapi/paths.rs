//! Every endpoint, as the document has it. The functions are only names for utoipa; the handlers live in the server,
//! and an end-to-end test asks a running server for each of these.

#![expect(dead_code, reason = "utoipa reads the attributes; nobody calls the functions")]

use super::errors::{
    BulkErrors, ClaimErrors, ExecuteErrors, ExecutionsErrors, HeldErrors, JudgeErrors, ReadErrors,
    ShowErrors, VerifyErrors, WebhookErrors,
};
use crate::audit::{AuditPage, AuditQuery};
use crate::claims::{
    CheckpointRequest, ClaimGranted, ClaimReplayed, ClaimRequest, CompleteRequest, ExtendRequest, HeldReply,
    ReleaseRequest,
};
use crate::dead::{
    DeadBulkReply, DeadBulkRequest, DeadDetail, DeadFilter, DeadGroups, DeadGroupsPlace, DeadPage, DeadPlace,
    ReviveReply, ReviveRequest,
};
use crate::error::ErrorEnvelope;
use crate::execute::{ExecuteRequest, Execution};
use crate::health::Health;
use crate::records::{
    BulkReply, BulkRequest, BulkResolveRequest, JudgeReply, JudgeRequest, RecordDetail, RecordPage,
    RecordQuery, ResolveRequest,
};
use crate::webhooks::{VerifyReply, VerifyRequest};

/// Execute an operation at most once
///
/// Runs the named operation against its target, once per key: the first request runs it, every later one with the same
/// key, operation and payload is given the same answer with `Idempotent-Replayed: true`. The payload may have up to
/// 1 MiB, unless configured otherwise.
#[utoipa::path(
    post, path = "/v1/idempotency/execute", tag = "execute", operation_id = "execute",
    request_body(
        content = inline(ExecuteRequest<'static>),
        example = json!({"operation": "echo", "payload": {"amount": 500, "currency": "IDR"}})
    ),
    params(
        ("Idempotency-Key" = Option<String>, Header,
            description = "The key: a Structured Field string or a bare token, 1 to 255 letters, digits, `-` and `_` \
                (a policy may allow all printable ASCII). Required, unless the body's `idempotency_key` carries it.",
            example = "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("Prefer" = Option<String>, Header,
            description = "`respond-async`: accept the work durably and answer 202 at once. `wait=N`: wait up to N \
                seconds for the result of a request that is being processed (RFC 7240)."),
        ("X-Request-Id" = Option<String>, Header, description = "Up to 128 characters; made here if absent."),
        ("X-Correlation-Id" = Option<String>, Header, description = "Up to 128 characters; the request's id if absent."),
    ),
    responses(
        (status = 200, description = "It was done, now or before.", body = Execution,
            headers(
                ("Idempotent-Replayed" = String, description = "`true` when this key had been executed before."),
                ("Idempotency-Expires" = String, description = "When the key is forgotten (IMF-fixdate)."),
            ),
            example = json!({"status": "completed", "result": {"amount": 500, "currency": "IDR"}})),
        (status = 202, description = "Somebody is at it, or it was accepted with `Prefer: respond-async`.",
            body = Execution,
            headers(
                ("Retry-After" = u64, description = "Seconds after which asking again may give another answer."),
                ("Location" = String, description = "Where to ask for the result, with `respond-async`."),
                ("Preference-Applied" = String, description = "Which preference was honoured."),
            ),
            example = json!({"status": "processing"})),
        ExecuteErrors,
    ),
    security((), ("tenant" = [])),
)]
pub(super) fn execute() {}

/// The state or result of an execution
///
/// What a request with this key would be told, without running anything. `Prefer: wait=N` waits for the result.
#[utoipa::path(
    get, path = "/v1/idempotency/executions/{key}", tag = "execute", operation_id = "getExecution",
    params(
        ("key" = String, Path, description = "The idempotency key, percent-encoded."),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds (RFC 7240)."),
    ),
    responses(
        (status = 200, description = "It was done.", body = Execution,
            headers(("Idempotency-Expires" = String, description = "When the key is forgotten (IMF-fixdate).")),
            example = json!({"status": "completed", "result": {"amount": 500}})),
        (status = 202, description = "Somebody is at it, or it waits for a worker.", body = Execution,
            headers(("Retry-After" = u64, description = "Seconds after which asking again may give another answer.")),
            example = json!({"status": "processing"})),
        ExecutionsErrors,
    ),
    security((), ("tenant" = [])),
)]
pub(super) fn execution() {}

/// Claim a key
///
/// Asks for the exclusive right to run one attempt of an operation that the caller does itself. Extend the claim at a
/// third of its lease while the work runs; complete or release it at the end.
#[utoipa::path(
    post, path = "/v1/claims", tag = "claims", operation_id = "claim",
    request_body(content = ClaimRequest, example = json!({
        "key": "invoice-1001", "operation": "invoice.render", "payload": {"invoice": 1001},
        "attempt_id": "worker-7/1", "lease_ms": 60000, "tags": {"order_id": "A-1001"}
    })),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The key, unless the body's `key` carries it."),
    ),
    responses(
        (status = 201, description = "The claim is yours: run it.", body = ClaimGranted, example = json!({
            "status": "claimed", "claim": {
                "id": "6d0f4bd6a3c51f0a9be2c1f1f0b3a7d2", "key": "invoice-1001", "operation": "invoice.render",
                "token": "00000000000000000000000000000000", "fence": 1, "attempt": 1, "resumed": false,
                "lease_ms": 60000, "lease_until": "2026-11-21T04:31:00.000Z",
                "downstream_key": "2f0b9d3f3f8b4c1f9a7e6d5c4b3a2910", "checkpoints": []
            }
        })),
        (status = 200, description = "It was done: this is what it gave.", body = ClaimReplayed,
            headers(
                ("Idempotent-Replayed" = String, description = "`true`."),
                ("Idempotency-Expires" = String, description = "When the key is forgotten (IMF-fixdate)."),
            ),
            example = json!({
                "status": "completed", "id": "6d0f4bd6a3c51f0a9be2c1f1f0b3a7d2",
                "outcome": {"class": "success", "status": 200, "result": {"url": "/invoices/1001.pdf"}}
            })),
        ClaimErrors,
    ),
    security((), ("tenant" = [])),
)]
pub(super) fn claim() {}

/// Extend a claim
///
/// A heartbeat: the lease begins anew. Also possible after a lapse, if nobody has taken over.
#[utoipa::path(
    post, path = "/v1/claims/{id}/extend", tag = "claims", operation_id = "extendClaim",
    request_body(content = ExtendRequest),
    params(("id" = String, Path, description = "The claim's `id`; 32 hexadecimal digits.")),
    responses((status = 200, description = "The lease was renewed.", body = HeldReply), HeldErrors),
    security((), ("tenant" = [])),
)]
pub(super) fn extend() {}

/// Record a step that is done
///
/// The next attempt is handed the checkpoints so far. Up to 64 of up to 64 KiB each; the same phase and data again is
/// a success.
#[utoipa::path(
    post, path = "/v1/claims/{id}/checkpoints", tag = "claims", operation_id = "addCheckpoint",
    request_body(content = CheckpointRequest),
    params(("id" = String, Path, description = "The claim's `id`; 32 hexadecimal digits.")),
    responses((status = 200, description = "The checkpoint is durable.", body = HeldReply), HeldErrors),
    security((), ("tenant" = [])),
)]
pub(super) fn checkpoint() {}

/// Complete a claim
///
/// It was done, and gave this: every later claim of the key is told so. The same outcome again is a success.
#[utoipa::path(
    post, path = "/v1/claims/{id}/complete", tag = "claims", operation_id = "completeClaim",
    request_body(content = CompleteRequest, example = json!({
        "token": "00000000000000000000000000000000", "outcome": {"result": {"url": "/invoices/1001.pdf"}}
    })),
    params(("id" = String, Path, description = "The claim's `id`; 32 hexadecimal digits.")),
    responses((status = 200, description = "The outcome is durable.", body = HeldReply), HeldErrors),
    security((), ("tenant" = [])),
)]
pub(super) fn complete() {}

/// Release a claim
///
/// The attempt ended and is known to have had no effect: the next claim may run.
#[utoipa::path(
    post, path = "/v1/claims/{id}/release", tag = "claims", operation_id = "releaseClaim",
    request_body(content = ReleaseRequest),
    params(("id" = String, Path, description = "The claim's `id`; 32 hexadecimal digits.")),
    responses((status = 200, description = "The claim is given back.", body = HeldReply), HeldErrors),
    security((), ("tenant" = [])),
)]
pub(super) fn release() {}

/// List records
///
/// Newest first. Role `read`.
#[utoipa::path(
    get, path = "/v1/records", tag = "records", operation_id = "listRecords",
    params(RecordQuery),
    responses((status = 200, description = "A page of records.", body = RecordPage), ReadErrors),
    security((), ("admin" = [])),
)]
pub(super) fn list_records() {}

/// Show a record
///
/// Everything but its token. Bodies are shown to the role `operate` only, as the first 16 KiB in base64.
#[utoipa::path(
    get, path = "/v1/records/{id}", tag = "records", operation_id = "getRecord",
    params(("id" = String, Path, description = "The record; 32 hexadecimal digits.")),
    responses((status = 200, description = "The record.", body = RecordDetail), ShowErrors),
    security((), ("admin" = [])),
)]
pub(super) fn show_record() {}

/// Say what a record did
///
/// Settles an `unknown` or `dead` record: `completed` replays the outcome from now on, `not_executed` lets it run
/// again. Role `operate`.
#[utoipa::path(
    post, path = "/v1/records/{id}/resolve", tag = "records", operation_id = "resolveRecord",
    request_body(content = ResolveRequest, example = json!({
        "version": "1.2", "resolution": "completed", "outcome": {"result": {"charge": "ch_1"}},
        "reason": "found at the provider, ticket 4711"
    })),
    params(("id" = String, Path, description = "The record; 32 hexadecimal digits.")),
    responses((status = 200, description = "The record as it is now.", body = JudgeReply), JudgeErrors),
    security((), ("admin" = [])),
)]
pub(super) fn resolve_record() {}

/// Revive a dead record
///
/// It gets all its tries anew, with the same downstream key. Role `operate`.
#[utoipa::path(
    post, path = "/v1/records/{id}/revive", tag = "records", operation_id = "reviveRecord",
    request_body(content = JudgeRequest, example = json!({"version": "3.1", "reason": "the target is back"})),
    params(("id" = String, Path, description = "The record; 32 hexadecimal digits.")),
    responses((status = 200, description = "The record as it is now.", body = JudgeReply), JudgeErrors),
    security((), ("admin" = [])),
)]
pub(super) fn revive_record() {}

/// Discard a record
///
/// Puts a `pending`, `dead` or `unknown` record aside for good: whoever asks is told 410. Role `operate`.
#[utoipa::path(
    post, path = "/v1/records/{id}/discard", tag = "records", operation_id = "discardRecord",
    request_body(content = JudgeRequest, example = json!({"version": "3.1", "reason": "a test order"})),
    params(("id" = String, Path, description = "The record; 32 hexadecimal digits.")),
    responses((status = 200, description = "The record as it is now.", body = JudgeReply), JudgeErrors),
    security((), ("admin" = [])),
)]
pub(super) fn discard_record() {}

/// Say what many records did
///
/// As for one record, for all that match. `dry_run` counts and changes nothing. Works on up to `limit` records and
/// answers where to go on. Role `operate`.
#[utoipa::path(
    post, path = "/v1/records/resolve", tag = "records", operation_id = "resolveRecords",
    request_body(content = BulkResolveRequest, example = json!({
        "filter": {"operation": "payment.charge", "states": ["unknown"]}, "resolution": "not_executed",
        "reason": "the provider confirms that nothing arrived", "limit": 500
    })),
    responses((status = 200, description = "How far it got.", body = BulkReply), BulkErrors),
    security((), ("admin" = [])),
)]
pub(super) fn resolve_records() {}

/// Revive many dead records
///
/// `dry_run` counts and changes nothing. Works on up to `limit` records and answers where to go on. Role `operate`.
#[utoipa::path(
    post, path = "/v1/records/revive", tag = "records", operation_id = "reviveRecords",
    request_body(content = BulkRequest, example = json!({
        "filter": {"operation": "payment.charge"}, "dry_run": true
    })),
    responses((status = 200, description = "How far it got.", body = BulkReply), BulkErrors),
    security((), ("admin" = [])),
)]
pub(super) fn revive_records() {}

/// Discard many records
///
/// `dry_run` counts and changes nothing. Works on up to `limit` records and answers where to go on. Role `operate`.
#[utoipa::path(
    post, path = "/v1/records/discard", tag = "records", operation_id = "discardRecords",
    request_body(content = BulkRequest, example = json!({
        "filter": {"states": ["dead"], "until": "2026-11-01T00:00:00Z"}, "reason": "older than the contract"
    })),
    responses((status = 200, description = "How far it got.", body = BulkReply), BulkErrors),
    security((), ("admin" = [])),
)]
pub(super) fn discard_records() {}

/// List dead letters
///
/// The latest taken in first. Role `read`.
#[utoipa::path(
    get, path = "/v1/dead", tag = "dead", operation_id = "listDead",
    params(DeadFilter, DeadPlace),
    responses((status = 200, description = "A page of dead letters.", body = DeadPage), ReadErrors),
    security((), ("admin" = [])),
)]
pub(super) fn list_dead() {}

/// Group dead letters by what they died of
///
/// Reads at most 10,000 of them, and says where to go on. Role `read`.
#[utoipa::path(
    get, path = "/v1/dead/groups", tag = "dead", operation_id = "groupDead",
    params(DeadFilter, DeadGroupsPlace),
    responses((status = 200, description = "The largest groups.", body = DeadGroups), ReadErrors),
    security((), ("admin" = [])),
)]
pub(super) fn group_dead() {}

/// Show a record with all its tries
///
/// Any record, dead or not. Bodies and answers are shown to the role `operate` only.
#[utoipa::path(
    get, path = "/v1/dead/{id}", tag = "dead", operation_id = "getDead",
    params(("id" = String, Path, description = "The record; 32 hexadecimal digits.")),
    responses((status = 200, description = "The record and its tries.", body = DeadDetail), ShowErrors),
    security((), ("admin" = [])),
)]
pub(super) fn show_dead() {}

/// Revive a dead letter
///
/// It gets all its tries anew, with the same downstream key. What was done already is repeated only with `force`: as a
/// new record with a downstream key of its own. Role `operate`.
#[utoipa::path(
    post, path = "/v1/dead/{id}/revive", tag = "dead", operation_id = "reviveDead",
    request_body(content = ReviveRequest, example = json!({"version": "3.1", "reason": "the target is back"})),
    params(("id" = String, Path, description = "The record; 32 hexadecimal digits.")),
    responses((status = 200, description = "The record that is tried now.", body = ReviveReply), JudgeErrors),
    security((), ("admin" = [])),
)]
pub(super) fn revive_dead() {}

/// Discard a dead letter
///
/// Puts it aside for good. Role `operate`.
#[utoipa::path(
    post, path = "/v1/dead/{id}/discard", tag = "dead", operation_id = "discardDead",
    request_body(content = JudgeRequest, example = json!({"version": "3.1", "reason": "a test order"})),
    params(("id" = String, Path, description = "The record; 32 hexadecimal digits.")),
    responses((status = 200, description = "The record as it is now.", body = JudgeReply), JudgeErrors),
    security((), ("admin" = [])),
)]
pub(super) fn discard_dead() {}

/// Revive many dead letters
///
/// All that match a filter, or those that are named. `dry_run` counts and changes nothing, `rate` bounds how many a
/// second. Works on up to `limit` of them and answers where to go on; not going on cancels. Role `operate`.
#[utoipa::path(
    post, path = "/v1/dead/revive", tag = "dead", operation_id = "reviveAllDead",
    request_body(content = DeadBulkRequest, example = json!({
        "filter": {"source": "xendit", "error": "the target answered 503"}, "rate": 50,
        "reason": "the target is back"
    })),
    responses((status = 200, description = "How far it got.", body = DeadBulkReply), BulkErrors),
    security((), ("admin" = [])),
)]
pub(super) fn revive_all_dead() {}

/// Discard many dead letters
///
/// As `revive`, with the same bounds. Role `operate`.
#[utoipa::path(
    post, path = "/v1/dead/discard", tag = "dead", operation_id = "discardAllDead",
    request_body(content = DeadBulkRequest, example = json!({
        "filter": {"kind": "duplicate", "until": "2026-11-01T00:00:00Z"}, "reason": "looked at"
    })),
    responses((status = 200, description = "How far it got.", body = DeadBulkReply), BulkErrors),
    security((), ("admin" = [])),
)]
pub(super) fn discard_all_dead() {}

/// Take a webhook in
///
/// For partners: the address that a source is configured under. The order is always size, raw bytes, signature, identity,
/// ledger. What is answered with a success is durable; what came before is answered as the first time, and is not
/// processed again. Status and body are those that the provider wants, such as `[accepted]`.
#[utoipa::path(
    post, path = "/v1/webhooks/{source}", tag = "webhooks", operation_id = "takeWebhook",
    request_body(content = String, content_type = "application/octet-stream",
        description = "Whatever the partner sends, byte by byte."),
    params(("source" = String, Path, description = "The source, as it is configured.", example = "xendit")),
    responses(
        (status = 200, description = "It is in, now or before.", body = String, content_type = "text/plain"),
        (status = 409, description = "- `IDEMPOTENCY_PARAMETER_MISMATCH`: its identity stands for another body, and the \
            source says so by `conflict_status = 409`. The body is kept among the dead letters.", body = ErrorEnvelope),
        WebhookErrors,
    ),
)]
pub(super) fn webhook() {}

/// Why does this signature not hold?
///
/// Verifies a delivery that somebody has kept, and where it fails looks for what would have passed. Nothing is stored,
/// and nothing that is answered is a secret. Role `read`.
#[utoipa::path(
    post, path = "/v1/webhooks/{source}/verify", tag = "webhooks", operation_id = "verifyWebhook",
    request_body(content = VerifyRequest, example = json!({
        "headers": [{"name": "X-Hub-Signature-256", "value": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}],
        "body_base64": "SGVsbG8sIFdvcmxkIQ=="
    })),
    params(("source" = String, Path, description = "The source, as it is configured.", example = "github")),
    responses(
        (status = 200, description = "What was found out.", body = VerifyReply, example = json!({
            "source": "github", "provider": "github", "verified": false, "reason": "signature_mismatch",
            "message": "no signature matches: x-hub-signature-256", "place": "x-hub-signature-256",
            "template": "{body}", "body_bytes": 13, "secrets": [{"id": "2026-11", "holds": true, "used": false}],
            "findings": ["nothing comes near: most likely it is another secret"], "events": []
        })),
        VerifyErrors,
    ),
    security((), ("admin" = [])),
)]
pub(super) fn verify_webhook() {}

/// Who did what
///
/// The audit log, newest first. Role `read`.
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit", operation_id = "listAudit",
    params(AuditQuery),
    responses((status = 200, description = "A page of the audit log.", body = AuditPage, example = json!({
        "entries": [{
            "action": "replayed", "fromState": "completed", "toState": "completed", "correlationId": "c-1",
            "actor": "acme", "reason": null, "recordId": "6d0f4bd6a3c51f0a9be2c1f1f0b3a7d2",
            "operation": "payment.charge", "key": "order-1", "tags": {"order_id": "1"},
            "at": "2026-11-21T04:30:00.000Z",
            "metadata": {"isRetry": true, "originalAttemptId": "6d0f4bd6a3c51f0a9be2c1f1f0b3a7d2:1"}
        }],
        "next": null
    })), ReadErrors),
    security((), ("admin" = [])),
)]
pub(super) fn list_audit() {}

/// Whether the process is alive
#[utoipa::path(
    get, path = "/healthz", tag = "health", operation_id = "health",
    responses((status = 200, description = "It is alive.", body = Health,
        example = json!({"status": "ok", "version": "0.1.0"}))),
)]
pub(super) fn health() {}

/// Whether it can serve
///
/// Follows the store, and says no while the server shuts down.
#[utoipa::path(
    get, path = "/readyz", tag = "health", operation_id = "ready",
    responses(
        (status = 200, description = "Reads and writes would be answered now.", body = Health,
            example = json!({"status": "ready", "store": "embedded"})),
        (status = 503, description = "The store does not answer or takes no writes, or the server is shutting down.", body = Health,
            example = json!({"status": "unavailable", "store": "embedded", "reason": "out_of_space"})),
    ),
)]
pub(super) fn ready() {}

/// Metrics
///
/// OpenMetrics text, for Prometheus. Role `read`.
#[utoipa::path(
    get, path = "/metrics", tag = "health", operation_id = "metrics",
    responses((status = 200, description = "All metrics.", body = String,
        content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8")),
    security((), ("admin" = [])),
)]
pub(super) fn metrics() {}
