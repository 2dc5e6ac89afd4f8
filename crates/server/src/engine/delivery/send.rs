//! One try of a delivery: a signed POST of the event as it came, and what its answer means.
//!
//! It goes over the connections that all targets have, so redirects are not followed and nothing is tried again by itself.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use semel_core::Timestamp;
use semel_core::command::Claim;
use semel_core::outcome::Class;
use semel_core::record::Text;
use semel_webhook::Verdict;
use tokio::time::{Instant, timeout_at};

use super::tried::{Heard, TryResult};
use crate::config::{DeliveryTarget, OperationConfig};
use crate::engine::progress::Progress;
use crate::engine::reply::{Lost, Reply, Said};
use crate::engine::target::{
    ATTEMPT, CORRELATION_ID, Connection, FENCE, IDEMPOTENCY_KEY, Read, TRACEPARENT, Targets, kept, started,
};
use crate::engine::work::Work;
use crate::limits;

const EVENT_ID: HeaderName = HeaderName::from_static("semel-event-id");
const EVENT_SOURCE: HeaderName = HeaderName::from_static("semel-event-source");
/// What stands in the place of a secret.
const HIDDEN: &str = "***";

impl Targets {
    /// One try of a delivery. Its time is kept by whoever runs it.
    pub(in crate::engine) async fn deliver(
        &self,
        target: &DeliveryTarget,
        claim: &Claim,
        work: &Work,
        progress: &Progress,
        heard: &OnceLock<Heard>,
    ) -> Reply {
        let hear = |what| drop(heard.set(what));
        let until = Instant::now() + work.operation.config().timeout.mul_f32(0.9);
        let request = match request(target, claim, work) {
            Ok(request) => request,
            Err(detail) => {
                hear(Heard::nothing(TryResult::Unsigned));
                return Reply::not_sent(detail);
            }
        };
        match self.exchange(&target.url, request, progress).await {
            Ok((response, connection)) => {
                let (what, reply) =
                    self.hear(target, work.operation.config(), response, connection, until).await;
                hear(what);
                reply
            }
            Err(failed) if failed.sent => {
                hear(Heard::nothing(TryResult::Cut));
                Reply::lost(Lost::Answer, failed.detail)
            }
            Err(failed) => {
                hear(Heard::nothing(TryResult::Unreachable));
                let (detail, permanent) = (failed.detail, failed.permanent);
                Reply::NotExecuted { detail, retry_after: None, permanent }
            }
        }
    }

    /// What an answer means: its status says it all. Of its body only the beginning is kept, and not waited for long.
    async fn hear(
        &self,
        target: &DeliveryTarget,
        config: &OperationConfig,
        response: Response<Incoming>,
        connection: Connection,
        until: Instant,
    ) -> (Heard, Reply) {
        let (head, mut incoming) = response.into_parts();
        let status = head.status.as_u16();
        let retry_after = text(&head.headers, &header::RETRY_AFTER);
        let verdict = target.statuses.judge(status, retry_after, now_of(&head.headers));
        let (mut read, until) = (Read::default(), until.min(Instant::now() + limits::DELIVERY_SAID_WITHIN));
        let end = timeout_at(until, read.on(&mut incoming, limits::DELIVERY_SAID_BYTES_MAX)).await;
        let is_whole = matches!(end, Ok(Ok(true)));
        if is_whole {
            self.give_back(&target.url, connection);
        }
        let said = read.finish();
        let words = excerpt(&said, config);
        let with = |result| Heard { result, status: Some(status), response: words };
        let detail = || format!("the target answered {status}");
        match verdict {
            Verdict::Done => {
                let body = if is_whole { Said::Kept(said) } else { Said::Gone };
                let headers = kept(&head.headers, config);
                (with(TryResult::Delivered), Reply::Answered { class: Class::Success, status, headers, body })
            }
            Verdict::Bury => {
                let reply = Reply::NotExecuted { detail: detail(), retry_after: None, permanent: true };
                (with(TryResult::Permanent), reply)
            }
            Verdict::Retry { not_before } => {
                let (how, detail) = (Lost::Inconclusive, detail());
                (with(TryResult::Refused), Reply::Lost { how, detail, retry_after: not_before })
            }
        }
    }
}

/// The event as it came, with what the target needs to take it once.
fn request(target: &DeliveryTarget, claim: &Claim, work: &Work) -> Result<Request<Full<Bytes>>, String> {
    let config = work.operation.config();
    let record = claim.record();
    let held = record.request().input().map(semel_core::request::Input::headers);
    let kept = |name: &HeaderName| {
        let value = held.and_then(|headers| headers.get(name.as_str()))?;
        HeaderValue::from_bytes(value).ok()
    };
    // Not the event's own name: that may hold what no signed text can, and it is the same for every target.
    let key = record.id().downstream_key(None);
    let source = kept(&EVENT_SOURCE).or_else(|| HeaderValue::from_str(&target.source).ok());
    let event = kept(&EVENT_ID).or_else(|| HeaderValue::from_str(record.request().key().as_str()).ok());
    let mut request = started(Method::POST, &target.url, config)
        .header(IDEMPOTENCY_KEY, &key)
        .header(ATTEMPT, claim.attempt())
        .header(FENCE, claim.fence().0);
    let correlation = work.link.correlation_id.as_ref().and_then(|id| HeaderValue::from_str(id).ok());
    let own = [
        (header::CONTENT_TYPE, kept(&header::CONTENT_TYPE)),
        (EVENT_ID, event),
        (EVENT_SOURCE, source),
        (TRACEPARENT, work.link.traceparent.clone()),
        (CORRELATION_ID, correlation),
    ];
    for (name, value) in own {
        if let Some(value) = value {
            request = request.header(name, value);
        }
    }
    if let Some(signer) = &target.signer {
        let signed = signer.sign(&key, wall(), &work.payload);
        let signed = signed.map_err(|error| format!("the delivery cannot be signed: {error}"))?;
        for (name, value) in signed.headers() {
            request = request.header(name, value);
        }
    }
    let request = request.body(Full::new(work.payload.clone()));
    request.map_err(|error| format!("the request cannot be built: {error}"))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The time that a date in an answer counts from: the answer's own, so that no two clocks are compared, or the wall's.
fn now_of(headers: &HeaderMap) -> Timestamp {
    let date = text(headers, &header::DATE).and_then(|text| httpdate::parse_http_date(text).ok());
    date.map_or_else(wall, since_epoch)
}

fn since_epoch(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The time on the wall, which whoever verifies a signature compares its time stamp with.
fn wall() -> Timestamp {
    #[expect(
        clippy::disallowed_methods,
        reason = "a signature's time is read by other machines; no record's time comes from here"
    )]
    since_epoch(SystemTime::now())
}

/// The beginning of what a target said, on one line, and nothing of what it was sent in confidence.
fn excerpt(said: &[u8], config: &OperationConfig) -> Option<Text> {
    let mut text = String::from_utf8_lossy(said).into_owned();
    for (_, secret) in &config.headers {
        // A scheme's name before a token is no secret, and the token alone is one.
        for part in [secret.expose(), secret.expose().rsplit(' ').next().unwrap_or_default()] {
            if part.len() >= limits::HIDDEN_BYTES_MIN {
                text = text.replace(part, HIDDEN);
            }
        }
    }
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let line: String = text.trim().chars().map(plain).collect();
    let end = line.floor_char_boundary(limits::DELIVERY_EXCERPT_BYTES_MAX);
    (end > 0).then(|| Text::new(&line[..end]))
}
