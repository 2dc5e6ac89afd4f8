//! `POST /v1/webhooks/{source}/verify`: why a signature does not hold, for those who run the source.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use semel_api::ErrorCode;
use semel_api::webhooks::{SecretState, VerifyReply, VerifyRequest};
use semel_core::Timestamp;
use semel_webhook::{Delivery, Diagnosis, Identity, Rejection, Source, Verified};

use super::access::Operator;
use super::{Admin, json};
use crate::door::{self, Refusal};
use crate::limits::VERIFY_BODY_BYTES_MAX;
use crate::wall;

pub(super) async fn verify(
    State(admin): State<Admin>,
    Extension(_): Extension<Operator>,
    Path(source): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let inbound = admin.sources.get(&source).ok_or_else(door::webhooks::unknown)?;
    let body = door::json_body(&headers, body, VERIFY_BODY_BYTES_MAX, &admin.stopping).await?;
    let wanted: VerifyRequest = semel_api::decode(&body)?;
    // It signs the body some dozens of times: not where others wait.
    let found = tokio::task::spawn_blocking(move || look(&inbound.config().source, wanted)).await;
    let reply = found.map_err(|panic| {
        tracing::error!(%panic, "the signature debugger has panicked");
        ErrorCode::Internal
    })?;
    json(StatusCode::OK, &reply)
}

fn look(source: &Source, wanted: VerifyRequest) -> VerifyReply {
    let now = wanted.at.map_or_else(wall::now, |at| Timestamp::from_millis(at.as_millis()));
    let fields: Vec<(&str, &[u8])> =
        wanted.headers.iter().map(|field| (&*field.name, field.value.as_bytes())).collect();
    let body = Bytes::from(wanted.body_base64);
    let delivery = Delivery::new(&fields, &body);
    let delivery = wanted.address.map_or(delivery, |address| delivery.from(address));
    let verified = source.verify(&delivery, now).ok();
    let used = verified.as_ref().and_then(|verified| verified.secret());
    let Diagnosis { rejection, template, skew_ms, secrets, body_bytes, findings } =
        source.diagnose(&delivery, now);
    let secret = |(id, holds): (String, bool)| SecretState { used: used == Some(&*id), id, holds };
    let rule = source.provider().rule();
    VerifyReply {
        source: source.name().to_owned(),
        provider: source.provider().as_str().to_owned(),
        rule: (!rule.is_empty()).then(|| rule.to_owned()),
        verified: rejection.is_none(),
        reason: rejection.as_ref().map(|rejection| rejection.reason().as_str().to_owned()),
        message: rejection.as_ref().map(ToString::to_string),
        place: rejection.as_ref().and_then(Rejection::place).map(str::to_owned),
        template,
        skew_ms: skew_ms
            .map(|skew| i64::try_from(skew).unwrap_or(if skew < 0 { i64::MIN } else { i64::MAX })),
        body_bytes: body_bytes as u64,
        secrets: secrets.into_iter().map(secret).collect(),
        findings: findings.iter().map(ToString::to_string).collect(),
        events: verified
            .iter()
            .flat_map(Verified::events)
            .map(|event| Identity::as_str(event.identity()).to_owned())
            .collect(),
    }
}
