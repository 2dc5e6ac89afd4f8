//! One piece of work: an operation, what it is given, and what it belongs to. Made from a door's ask, or from a
//! record that a worker has taken.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use semel_core::error::Invalid;
use semel_core::id::{AttemptId, Namespace};
use semel_core::outcome::{Header, Headers};
use semel_core::request::{Fingerprint, Input};
use semel_core::{Key, Record, Request, Scope};
use semel_fingerprint::FingerprintBuilder;

use super::ask::Ask;
use super::delivery::Tried;
use super::operation::Operation;

const CORRELATION_ID: &str = "x-correlation-id";
const TRACEPARENT: &str = "traceparent";

/// What links an event to the request that caused it, in logs, audit and at targets.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// The request.
    pub request_id: Option<Arc<str>>,
    /// What the request belongs to.
    pub correlation_id: Option<Arc<str>>,
    /// The client's trace context.
    pub traceparent: Option<HeaderValue>,
    /// The client's name for the attempt.
    pub attempt_id: Option<AttemptId>,
    /// The try of a delivery that has led to it.
    pub tried: Option<Arc<Tried>>,
}

impl Link {
    pub(super) fn of(ask: &Ask) -> Self {
        Self {
            request_id: Some(Arc::clone(&ask.request_id)),
            correlation_id: Some(Arc::clone(&ask.correlation_id)),
            traceparent: ask.traceparent.clone(),
            attempt_id: ask.attempt_id.clone(),
            tried: None,
        }
    }
}

impl Link {
    /// What a record keeps of it, so that work that is done later still belongs to what it was asked for.
    fn headers(&self) -> Result<Headers, Invalid> {
        self.headers_with(std::iter::empty())
    }

    /// As [`headers`](Self::headers), with more of them.
    pub(crate) fn headers_with(&self, more: impl Iterator<Item = Header>) -> Result<Headers, Invalid> {
        let correlation_id = self.correlation_id.as_ref().map(|id| (CORRELATION_ID, id.as_bytes()));
        let traceparent = self.traceparent.as_ref().map(|trace| (TRACEPARENT, trace.as_bytes()));
        let header =
            |(name, value): (&str, &[u8])| Header { name: name.into(), value: Bytes::copy_from_slice(value) };
        Headers::try_new(correlation_id.into_iter().chain(traceparent).map(header).chain(more).collect())
    }

    fn held(input: &Input) -> Self {
        let text = |name| std::str::from_utf8(input.headers().get(name)?).ok();
        Self {
            request_id: None,
            correlation_id: text(CORRELATION_ID).map(Arc::from),
            traceparent: text(TRACEPARENT).and_then(|trace| HeaderValue::from_str(trace).ok()),
            attempt_id: None,
            tried: None,
        }
    }
}

/// One piece of work.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) operation: Arc<Operation>,
    /// The client's key, for targets that want it.
    pub(super) key: Key,
    /// JSON, as the text that came.
    pub(super) payload: Bytes,
    pub(super) link: Link,
}

impl Work {
    /// What a door asks for.
    pub(super) fn asked(operation: Arc<Operation>, ask: &Ask) -> Self {
        Self { operation, key: ask.key.clone(), payload: ask.payload.clone(), link: Link::of(ask) }
    }

    /// What a record holds; `None` where only its client could go on.
    pub(super) fn held(operation: Arc<Operation>, record: &Record) -> Option<Self> {
        let input = record.request().input()?;
        let (key, payload) = (record.request().key().clone(), input.body().clone());
        Some(Self { operation, key, payload, link: Link::held(input) })
    }

    /// The ledger's form of an ask. It holds the payload where somebody but the client may have to go on.
    pub(super) fn request(&self, ask: &Ask, drivable: bool) -> Result<Arc<Request>, Invalid> {
        let operation = &self.operation;
        let request = Request::new(
            scope(ask),
            self.key.clone(),
            operation.name().clone(),
            fingerprint(operation.name().as_str(), &self.payload),
            *operation.policy(),
        );
        let request = request.try_with_tags(operation.tags_of(&self.payload))?;
        if !drivable && !operation.resumes() {
            // No worker can go on with it, so it waits in no target's queue: its lapse is seen at once.
            return Ok(Arc::new(request));
        }
        let input = Input::try_new("POST", "", self.link.headers()?, self.payload.clone())?;
        Ok(Arc::new(request.in_lane(operation.lane().clone()).with_input(input)))
    }
}

fn scope(ask: &Ask) -> Scope {
    Scope { namespace: Namespace::Execute, tenant: ask.tenant.clone(), subject: ask.subject.clone() }
}

/// What a request means: its operation and its payload as canonical JSON.
pub fn fingerprint(operation: &str, payload: &[u8]) -> Fingerprint {
    let fingerprint = FingerprintBuilder::new().operation(operation).json(payload).finish();
    Fingerprint { version: fingerprint.version(), digest: *fingerprint.digest() }
}
