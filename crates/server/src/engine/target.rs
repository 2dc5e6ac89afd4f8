//! Calls a target over HTTP, and says exactly what is known of what it did.
//!
//! Whether an operation may run again hangs on one question: has a byte of the request reached the transport? So the
//! connections are our own: HTTP/1.1, one request at a time on each, every byte that is written counted (see
//! `docs/adr/0005-connections-to-targets.md`). What was never written was never executed; everything else may have
//! been. Redirects are not followed, nothing is tried again by itself, and no early data is sent.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use semel_core::Record;
use semel_core::command::Claim;
use semel_core::outcome::{Header, Headers};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::operation::Operation;
use super::progress::Progress;
use super::reply::{Lost, Reply, Said};
use super::work::Work;
use crate::config::{OperationConfig, Secret, Target, TargetsConfig};
use crate::limits;

mod connection;
mod pool;

pub(super) use connection::Connection;
pub(crate) use connection::Counted;
use pool::Pool;

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(super) const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const OPERATION: HeaderName = HeaderName::from_static("semel-operation");
pub(super) const ATTEMPT: HeaderName = HeaderName::from_static("semel-attempt");
pub(super) const FENCE: HeaderName = HeaderName::from_static("semel-fence");

/// Never kept, so never replayed: they belong to one connection, one moment or one caller.
const NEVER_KEPT: [HeaderName; 12] = [
    header::SET_COOKIE,
    header::DATE,
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::WWW_AUTHENTICATE,
];

/// All targets, with the connections that are open to them.
pub struct Targets {
    pool: Pool,
    /// For results that are too large to be kept, in units of [`limits::RESULT_UNIT_BYTES`].
    room: Arc<Semaphore>,
}

/// A result that is only passed on, with the room that it takes.
struct Large {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why targets cannot be called at all.
#[derive(Debug)]
pub struct TargetError(String);

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for TargetError {}

/// A call that has no answer.
#[derive(Debug)]
pub(super) struct Failed {
    /// Whether a byte of the request may have reached the transport.
    pub(super) sent: bool,
    /// Whether no other try can help until somebody changes something.
    pub(super) permanent: bool,
    pub(super) detail: String,
}

impl Failed {
    fn unsent(detail: impl Into<String>) -> Self {
        Self { sent: false, permanent: false, detail: detail.into() }
    }
}

impl Targets {
    /// Targets as they are configured.
    ///
    /// # Errors
    /// The authorities to trust cannot be read.
    pub fn new(config: &TargetsConfig) -> Result<Self, TargetError> {
        let room = limits::RESULTS_HELD_BYTES_MAX / limits::RESULT_UNIT_BYTES;
        Ok(Self { pool: Pool::new(config)?, room: Arc::new(Semaphore::new(room)) })
    }

    /// One try of an operation. Its time is kept by whoever runs it.
    pub(super) async fn call(&self, claim: &Claim, work: &Work, progress: &Progress) -> Reply {
        let config = work.operation.config();
        // The last of an answer is not worth that all of it is lost: from then on its rest is not waited for.
        let rest_until = Instant::now() + config.timeout.mul_f32(0.9);
        let Target::Http(uri) = &config.target else {
            return Reply::not_sent("the operation has no address");
        };
        let request = match request(uri, claim, work) {
            Ok(request) => request,
            Err(error) => return Reply::not_sent(format!("the request cannot be built: {error}")),
        };
        match self.exchange(uri, request, progress).await {
            Ok((response, connection)) => self.judge(uri, response, connection, config, rest_until).await,
            Err(failed) if failed.sent => Reply::lost(Lost::Answer, failed.detail),
            Err(Failed { detail, permanent, .. }) => {
                Reply::NotExecuted { detail, retry_after: None, permanent }
            }
        }
    }

    /// What an answer proves. Where the status says it, its body is not waited for; and nothing of a body that is too
    /// large to be kept can change what is known by then.
    async fn judge(
        &self,
        uri: &Uri,
        response: Response<Incoming>,
        connection: Connection,
        config: &OperationConfig,
        rest_until: Instant,
    ) -> Reply {
        let (head, mut incoming) = response.into_parts();
        let retry_after = retry_after(&head.headers);
        let class = match Reply::of_status(head.status, &config.not_executed, retry_after) {
            Ok(class) => class,
            Err(reply) => return reply,
        };
        let mut read = Read::default();
        let body = match read.on(&mut incoming, config.result_bytes_max).await {
            Ok(true) => Said::Kept(read.finish()),
            Ok(false) => match tokio::time::timeout_at(rest_until, self.pass(incoming, read)).await {
                Ok(Some(whole)) => Said::Passed(whole),
                Ok(None) | Err(_) => Said::Gone,
            },
            Err(detail) => return Reply::lost(Lost::Answer, detail),
        };
        if body != Said::Gone {
            self.pool.give_back(uri, connection);
        }
        let headers = kept(&head.headers, config);
        Reply::Answered { class, status: head.status.as_u16(), headers, body }
    }

    /// The rest of a body that is too large to be kept, with what came of it before; `None` if it is cut, or too large
    /// to be held, or if there is no room for it beside others.
    async fn pass(&self, mut incoming: Incoming, mut read: Read) -> Option<Bytes> {
        let mut room: Option<OwnedSemaphorePermit> = None;
        loop {
            let announced = usize::try_from(incoming.size_hint().lower()).unwrap_or(usize::MAX);
            if read.len().saturating_add(announced) > limits::RESULT_HELD_BYTES_MAX {
                return None;
            }
            let taken = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let more = read.len().div_ceil(limits::RESULT_UNIT_BYTES).saturating_sub(taken);
            let more = u32::try_from(more).ok()?;
            let more = Arc::clone(&self.room).try_acquire_many_owned(more).ok()?;
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
            let Some(frame) = incoming.frame().await else { break };
            if let Ok(data) = frame.ok()?.into_data() {
                read.push(data);
            }
        }
        Some(Bytes::from_owner(Large { bytes: read.finish(), _room: room }))
    }

    /// Asks a target whether a record's key took effect: the answer's status, headers that are kept, and body.
    pub(super) async fn ask(
        &self,
        url: &str,
        operation: &Operation,
        record: &Record,
    ) -> Result<(StatusCode, Headers, Option<Bytes>), String> {
        let config = operation.config();
        let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
        let request = started(Method::GET, &uri, config)
            .header(header::ACCEPT, "application/json")
            .header(IDEMPOTENCY_KEY, operation.target_key(record))
            .header(FENCE, record.fence().0);
        let request = request.body(Full::default()).map_err(|error| error.to_string())?;
        let asked = async {
            let exchanged = self.exchange(&uri, request, &Progress::default()).await;
            let (response, connection) = exchanged.map_err(|failed| failed.detail)?;
            let (head, mut incoming) = response.into_parts();
            let mut read = Read::default();
            let is_whole = read.on(&mut incoming, config.result_bytes_max).await?;
            if is_whole {
                self.pool.give_back(&uri, connection);
            }
            Ok((head.status, kept(&head.headers, config), is_whole.then(|| read.finish())))
        };
        let within = config.timeout.min(limits::PROBE_WITHIN);
        tokio::time::timeout(within, asked)
            .await
            .unwrap_or_else(|_| Err(format!("nothing within {within:?}")))
    }

    /// The answer came whole: the connection may serve another request.
    pub(super) fn give_back(&self, uri: &Uri, connection: Connection) {
        self.pool.give_back(uri, connection);
    }

    /// A POST of JSON that is no operation's, and what is answered: the status, and the body if it has at most so many bytes.
    ///
    /// # Errors
    /// There is no whole answer: why.
    pub(super) async fn post(
        &self,
        uri: &Uri,
        headers: HeaderMap,
        body: Bytes,
        bytes_max: usize,
    ) -> Result<(StatusCode, Option<Bytes>), String> {
        let request = Request::post(path_of(uri))
            .header(header::HOST, host_of(uri))
            .header(header::USER_AGENT, concat!("semel/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json");
        let mut request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        request.headers_mut().extend(headers);
        let exchanged = self.exchange(uri, request, &Progress::default()).await;
        let (response, connection) = exchanged.map_err(|failed| failed.detail)?;
        let (head, mut incoming) = response.into_parts();
        let mut read = Read::default();
        let is_whole = read.on(&mut incoming, bytes_max).await?;
        if is_whole {
            self.pool.give_back(uri, connection);
        }
        Ok((head.status, is_whole.then(|| read.finish())))
    }

    /// Whether a request to this address would find an open connection.
    #[cfg(test)]
    pub(super) fn has_idle(&self, uri: &Uri) -> bool {
        self.pool.has_idle(uri)
    }

    /// Sends a request and gives the head of its answer. A connection that was idle, and turns out to be closed before
    /// a byte was written to it, is replaced by a new one: nothing has been sent.
    pub(super) async fn exchange(
        &self,
        uri: &Uri,
        request: Request<Full<Bytes>>,
        progress: &Progress,
    ) -> Result<(Response<Incoming>, Connection), Failed> {
        let stopped = || Failed::unsent("the lease was lost before anything was sent");
        if let Some(mut idle) = self.pool.take_idle(uri) {
            progress.begin().map_err(|_| stopped())?;
            match idle.send(request.clone()).await {
                Ok(response) => return Ok((response, idle)),
                Err(failed) if failed.sent => return Err(failed),
                Err(_) => progress.take_back(),
            }
        }
        let mut connection = tokio::select! {
            biased;
            opened = self.pool.open(uri) => opened?,
            () = progress.stopped() => return Err(stopped()),
        };
        // From here on it may have been sent, until it is known that it was not.
        progress.begin().map_err(|_| stopped())?;
        let response = connection.send(request).await?;
        Ok((response, connection))
    }
}

/// A body as far as it has come. Most come in one piece, which is kept as it is.
#[derive(Default)]
pub(super) struct Read {
    first: Option<Bytes>,
    rest: BytesMut,
}

impl Read {
    fn len(&self) -> usize {
        self.first.as_ref().map_or(0, Bytes::len) + self.rest.len()
    }

    fn push(&mut self, data: Bytes) {
        match self.first.take() {
            None if self.rest.is_empty() => self.first = Some(data),
            None => self.rest.extend_from_slice(&data),
            Some(whole) => {
                self.rest.extend_from_slice(&whole);
                self.rest.extend_from_slice(&data);
            }
        }
    }

    pub(super) fn finish(self) -> Bytes {
        self.first.unwrap_or_else(|| self.rest.freeze())
    }

    /// Reads on, to the end (`true`), or until there is more than what may be.
    pub(super) async fn on(&mut self, incoming: &mut Incoming, bytes_max: usize) -> Result<bool, String> {
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| format!("the answer was cut: {}", chain(&error)))?;
            if let Ok(data) = frame.into_data() {
                self.push(data);
            }
            if self.len() > bytes_max {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What is kept of an answer's headers: its type, and what the operation lists.
pub(super) fn kept(headers: &HeaderMap, config: &OperationConfig) -> Headers {
    let listed = |name: &HeaderName| config.keep_headers.contains(name) && !NEVER_KEPT.contains(name);
    let values = |name: &HeaderName| {
        let name: Box<str> = name.as_str().into();
        move |value: &HeaderValue| Header {
            name: name.clone(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        }
    };
    // The type first: what is beyond the limits is left out, and the type must not be.
    let others = headers.keys().filter(|name| **name != header::CONTENT_TYPE && listed(name));
    let kept: Vec<Header> = std::iter::once(&header::CONTENT_TYPE)
        .chain(others)
        .flat_map(|name| headers.get_all(name).iter().map(values(name)))
        .filter(|header| header.name.len() + header.value.len() <= semel_core::limits::HEADER_BYTES_MAX)
        .take(semel_core::limits::HEADERS_MAX)
        .collect();
    Headers::try_new(kept).unwrap_or_default()
}

/// `Retry-After` (RFC 9110, section 10.2.3): in seconds, or as a date, which counts from the answer's own `Date`, so
/// that no two clocks are compared.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::trim);
    let asked = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(asked).ok()?;
    let from = httpdate::parse_http_date(text(header::DATE)?).ok()?;
    until.duration_since(from).ok()
}

/// A request as every one to this target begins.
pub(super) fn started(method: Method, uri: &Uri, config: &OperationConfig) -> http::request::Builder {
    let request = Request::builder()
        .method(method)
        .uri(path_of(uri))
        .header(header::HOST, host_of(uri))
        .header(header::USER_AGENT, concat!("semel/", env!("CARGO_PKG_VERSION")));
    configured(config).fold(request, |request, (name, value)| request.header(name, value))
}

fn request(uri: &Uri, claim: &Claim, work: &Work) -> Result<Request<Full<Bytes>>, http::Error> {
    let config = work.operation.config();
    let mut request = started(Method::POST, uri, config)
        .header(header::CONTENT_TYPE, "application/json")
        .header(IDEMPOTENCY_KEY, work.operation.target_key(claim.record()))
        .header(OPERATION, config.name.as_str())
        .header(ATTEMPT, claim.attempt())
        .header(FENCE, claim.fence().0);
    if let Some(trace) = &work.link.traceparent {
        request = request.header(TRACEPARENT, trace);
    }
    if let Some(id) = &work.link.correlation_id {
        request = request.header(CORRELATION_ID, &**id);
    }
    request.body(Full::new(work.payload.clone()))
}

/// Headers that the operation sends with every try.
fn configured(config: &OperationConfig) -> impl Iterator<Item = (&HeaderName, HeaderValue)> {
    config.headers.iter().filter_map(|(name, secret): &(HeaderName, Secret)| {
        let mut value = HeaderValue::from_str(secret.expose()).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    })
}

fn path_of(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

fn host_of(uri: &Uri) -> &str {
    uri.authority().map_or("", |authority| authority.as_str().rsplit('@').next().unwrap_or_default())
}

/// An error with all that lies behind it, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date_that_counts_from_the_answers_own() {
        let asked = |retry_after: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, retry_after.parse().unwrap());
            if let Some(date) = date {
                headers.insert(header::DATE, date.parse().unwrap());
            }
            super::retry_after(&headers).map(|length| length.as_secs())
        };
        let (noon, later) = ("Sat, 21 Nov 2026 12:00:00 GMT", "Sat, 21 Nov 2026 12:00:30 GMT");
        assert_eq!(asked("7", None), Some(7));
        assert_eq!(asked(later, Some(noon)), Some(30));
        assert_eq!(asked(noon, Some(later)), None, "in the past");
        assert_eq!(asked(later, None), None, "no clock of ours is compared with the target's");
        assert_eq!(asked("-7", None), None);
        assert_eq!(asked("soon", Some(noon)), None);
    }
}
