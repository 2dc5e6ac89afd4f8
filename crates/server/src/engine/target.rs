//! Calls a target over HTTP, and says exactly what is known of what it did.
//!
//! Whether an operation may run again hangs on one question: has a byte of the request reached the transport? So the
//! connections are our own: HTTP/1.1, one request at a time on each, every byte that is written counted (see
//! `docs/adr/0005-connections-to-targets.md`). What was never written was never executed; everything else may have
//! been. Redirects are not followed, nothing is tried again by itself, and no early data is sent.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use semel_core::command::Claim;
use semel_core::outcome::{Class, Header, Headers};
use semel_core::{Fence, RecordId};
use tokio_util::sync::CancellationToken;

use super::reply::{Lost, Reply};
use super::work::Work;
use crate::config::{OperationConfig, Secret, Target, TargetsConfig};
use crate::limits;

mod connection;
mod pool;

use pool::Pool;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const OPERATION: HeaderName = HeaderName::from_static("semel-operation");
const ATTEMPT: HeaderName = HeaderName::from_static("semel-attempt");
const FENCE: HeaderName = HeaderName::from_static("semel-fence");

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

/// A call that has no whole answer.
#[derive(Debug)]
struct Failed {
    /// Whether a byte of the request may have reached the transport.
    sent: bool,
    detail: String,
}

/// An answer that came whole.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// `None` when it is larger than what is kept.
    body: Option<Bytes>,
}

impl Targets {
    /// Targets as they are configured.
    ///
    /// # Errors
    /// The authorities to trust cannot be read.
    pub fn new(config: &TargetsConfig) -> Result<Self, TargetError> {
        Ok(Self { pool: Pool::new(config)? })
    }

    /// One try of an operation.
    pub(super) async fn call(&self, claim: &Claim, work: &Work, lost: &CancellationToken) -> Reply {
        let config = work.operation.config();
        let Target::Http(uri) = &config.target else {
            return not_sent("the operation has no address".to_owned());
        };
        if lost.is_cancelled() {
            return not_sent("the lease was lost before anything was sent".to_owned());
        }
        let request = match request(uri, claim, work) {
            Ok(request) => request,
            Err(error) => return not_sent(format!("the request cannot be built: {error}")),
        };
        let progress = connection::Progress::default();
        let answer = self.exchange(uri, request, config.result_bytes_max, &progress);
        match tokio::time::timeout(config.timeout, answer).await {
            Ok(Ok(answer)) => judge(answer, config),
            Ok(Err(failed)) if failed.sent => {
                Reply::Lost { how: Lost::Answer, detail: failed.detail, retry_after: None }
            }
            Ok(Err(failed)) => not_sent(failed.detail),
            Err(_) if progress.is_sent() => {
                let detail = format!("no whole answer within {:?}", config.timeout);
                Reply::Lost { how: Lost::TimedOut, detail, retry_after: None }
            }
            Err(_) => not_sent(format!("no connection within {:?}", config.timeout)),
        }
    }

    /// Asks a target whether a key took effect: the answer's status, headers that are kept, and body.
    pub(super) async fn ask(
        &self,
        url: &str,
        config: &OperationConfig,
        id: RecordId,
        fence: Fence,
    ) -> Result<(StatusCode, Headers, Option<Bytes>), String> {
        let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
        let mut request = Request::builder().method(Method::GET).uri(path_of(&uri));
        request = request.header(header::HOST, host_of(&uri)).header(header::ACCEPT, "application/json");
        for (name, value) in configured(config) {
            request = request.header(name, value);
        }
        request = request.header(IDEMPOTENCY_KEY, id.downstream_key(None)).header(FENCE, fence.0);
        let request = request.body(Full::default()).map_err(|error| error.to_string())?;
        let progress = connection::Progress::default();
        let answer = self.exchange(&uri, request, config.result_bytes_max, &progress);
        match tokio::time::timeout(config.timeout, answer).await {
            Ok(Ok(answer)) => Ok((answer.status, kept(&answer.headers, config), answer.body)),
            Ok(Err(failed)) => Err(failed.detail),
            Err(_) => Err(format!("no whole answer within {:?}", config.timeout)),
        }
    }

    async fn exchange(
        &self,
        uri: &Uri,
        request: Request<Full<Bytes>>,
        body_bytes_max: usize,
        progress: &connection::Progress,
    ) -> Result<Answer, Failed> {
        let mut connection = self.pool.take(uri).await.map_err(|detail| Failed { sent: false, detail })?;
        progress.watch(&connection);
        let response = connection.send(request).await?;
        let (status, headers, body) = read(response, body_bytes_max).await?;
        if body.is_some() {
            self.pool.give_back(uri, connection);
        }
        Ok(Answer { status, headers, body })
    }
}

/// Reads an answer whole, or as far as is kept.
async fn read(
    response: Response<Incoming>,
    body_bytes_max: usize,
) -> Result<(StatusCode, HeaderMap, Option<Bytes>), Failed> {
    let (head, mut incoming) = response.into_parts();
    let mut first = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| Failed {
            sent: true,
            detail: format!("the answer was cut: {}", chain(&error)),
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let length = first.as_ref().map_or(0, Bytes::len) + rest.len() + data.len();
        if length > body_bytes_max {
            return Ok((head.status, head.headers, None));
        }
        // Most answers come in one piece, which is kept as it is.
        match first.take() {
            None if rest.is_empty() => first = Some(data),
            None => rest.extend_from_slice(&data),
            Some(whole) => {
                rest.extend_from_slice(&whole);
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok((head.status, head.headers, Some(first.unwrap_or_else(|| rest.freeze()))))
}

/// What an answer proves; the rows of the table in `docs/guide/execute.md`.
fn judge(answer: Answer, config: &OperationConfig) -> Reply {
    let Answer { status, headers, body } = answer;
    let retry_after = retry_after(&headers);
    let detail = || format!("the target answered {status}");
    if config.not_executed.contains(&status) {
        return Reply::NotExecuted { detail: detail(), retry_after };
    }
    let class = match status.as_u16() {
        200..=299 => Class::Success,
        401 | 407 | 425 | 429 => return Reply::NotExecuted { detail: detail(), retry_after },
        408 | 409 | 423 => return Reply::Lost { how: Lost::Answer, detail: detail(), retry_after },
        400..=499 => Class::Rejection,
        _ => return Reply::Lost { how: Lost::Answer, detail: detail(), retry_after },
    };
    Reply::Answered { class, status: status.as_u16(), headers: kept(&headers, config), body }
}

/// What is kept of an answer's headers: its type, and what the operation lists.
fn kept(headers: &HeaderMap, config: &OperationConfig) -> Headers {
    let listed = |name: &&HeaderName| **name == header::CONTENT_TYPE || config.keep_headers.contains(name);
    let mut kept = Vec::new();
    for name in headers.keys().filter(listed).filter(|name| !NEVER_KEPT.contains(name)) {
        for value in headers.get_all(name) {
            let value = Bytes::copy_from_slice(value.as_bytes());
            kept.push(Header { name: name.as_str().into(), value });
        }
    }
    // Beyond the limits there is nothing that a client was promised: the type alone is kept.
    Headers::try_new(kept).unwrap_or_default()
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3); the form with a date is left to the schedule.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn request(uri: &Uri, claim: &Claim, work: &Work) -> Result<Request<Full<Bytes>>, http::Error> {
    let config = work.operation.config();
    let id = claim.record().id();
    let key = if config.forward_key { work.key.as_str().to_owned() } else { id.downstream_key(None) };
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path_of(uri))
        .header(header::HOST, host_of(uri))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("semel/", env!("CARGO_PKG_VERSION")))
        .header(IDEMPOTENCY_KEY, key)
        .header(OPERATION, config.name.as_str())
        .header(ATTEMPT, claim.attempt())
        .header(FENCE, claim.fence().0);
    if let Some(trace) = &work.link.traceparent {
        request = request.header(TRACEPARENT, trace);
    }
    if let Some(id) = &work.link.correlation_id {
        request = request.header(CORRELATION_ID, &**id);
    }
    for (name, value) in configured(config) {
        request = request.header(name, value);
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

fn not_sent(detail: String) -> Reply {
    Reply::NotExecuted { detail, retry_after: None }
}

/// An error with all that lies behind it, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Addresses that no target has any business at: link-local ones, where clouds keep their metadata and credentials.
fn is_forbidden(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || limits::METADATA_V4.contains(&ip)
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(mapped) => is_forbidden(IpAddr::V4(mapped)),
            None => ip.is_unicast_link_local() || ip.is_unspecified() || limits::METADATA_V6.contains(&ip),
        },
    }
}
