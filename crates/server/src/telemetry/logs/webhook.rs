//! Lines about events of webhooks: one for each, with what it turned out to be and what shows that.

use std::net::IpAddr;

use semel_api::Time;
use semel_core::Request;
use semel_core::id::Namespace;
use semel_core::record::StateName;

use super::tag;

/// An event that was judged.
#[derive(Clone, Copy, Debug)]
pub struct WebhookLine<'a> {
    /// What it turned out to be.
    pub verdict: &'static str,
    /// Whose it is.
    pub source: &'a str,
    /// What was asked of the ledger.
    pub request: &'a Request,
    /// Where its record stands, if the store was asked.
    pub state: Option<StateName>,
    /// Of what has come before: when.
    pub first_seen: Option<Time>,
    /// How long ago that was.
    pub gap_ms: Option<u64>,
    /// Whether its bytes are other ones.
    pub body_differs: Option<bool>,
    /// Whether it was answered without the store.
    pub remembered: Option<bool>,
    /// Where it came from.
    pub address: IpAddr,
    /// The request.
    pub request_id: Option<&'a str>,
    /// What the request belongs to.
    pub correlation_id: Option<&'a str>,
}

/// Says what an event turned out to be.
pub fn webhook(line: &WebhookLine<'_>) {
    if !tracing::enabled!(target: "semel::webhook", tracing::Level::INFO) {
        return;
    }
    let tags = line.request.tags();
    tracing::info!(
        target: "semel::webhook",
        verdict = line.verdict,
        partner = line.source,
        event_id = event_id(line.request),
        idempotency_key = line.request.key().as_str(),
        record_id = %line.request.id(),
        operation = line.request.operation().as_str(),
        state = line.state.map(StateName::as_str),
        isRetry = line.first_seen.is_some(),
        first_seen = line.first_seen.map(tracing::field::display),
        gap_ms = line.gap_ms,
        body_differs = line.body_differs,
        remembered = line.remembered,
        source_address = %line.address,
        order_id = tag(tags, "order_id"),
        shipment_id = tag(tags, "shipment_id"),
        request_id = line.request_id,
        correlation_id = line.correlation_id,
        "webhook",
    );
}

/// Which event a record stands for: as it is tagged, else the key of a webhook's record.
pub(super) fn event_id(request: &Request) -> Option<&str> {
    let key = (request.scope().namespace == Namespace::Webhook).then(|| request.key().as_str());
    tag(request.tags(), "event_id").or(key)
}

/// Whose event it is: as it is tagged, else the source of a webhook's record.
pub(super) fn partner(request: &Request) -> Option<&str> {
    let is_webhook = request.scope().namespace == Namespace::Webhook;
    let source = if is_webhook { tag(request.tags(), "source") } else { None };
    tag(request.tags(), "partner").or(source)
}
