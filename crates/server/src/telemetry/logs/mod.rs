//! The log on standard error: one line for each request, one for each change of a record's state, and one for each event
//! of a webhook.
//!
//! The fields have the names that operators search by: `order_id`, `shipment_id`, `event_id` and `partner` (from tags of
//! those names), `idempotency_key`, `operation`, `record_id`, `request_id`, `correlation_id`, `isRetry`. Bodies, tokens and
//! secrets are never among them: a line is made of what stands here, and nothing else is passed in.

use std::cell::RefCell;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use semel_api::Time;
use semel_core::id::{Hex, Tag};
use semel_core::record::{State, StateName};
use semel_core::{Record, Request};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

mod format;
mod webhook;
mod writer;

use crate::config::{LogConfig, LogFormat};
use crate::engine::Tried;
pub use webhook::{WebhookLine, webhook};
use writer::{LineWriter, WriterThread};

/// The log, once it is started. When it is dropped, what is left is written.
pub struct Logs {
    writer: LineWriter,
    _thread: WriterThread,
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logs")
    }
}

/// Why there is no log.
#[derive(Debug)]
pub enum LogError {
    /// The filter is none.
    Filter(String),
    /// The thread that writes cannot be started.
    Thread(std::io::Error),
    /// Something else in this process has taken the log.
    Taken,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(problem) => write!(
                f,
                "{problem}; expected a level (error, warn, info, debug, trace), or targets with levels \
                 such as `info,semel_server=debug`"
            ),
            Self::Thread(error) => write!(f, "the log's thread cannot be started: {error}"),
            Self::Taken => f.write_str("the log is already started"),
        }
    }
}

impl std::error::Error for LogError {}

/// Whether a filter can be read, for the check of a configuration.
///
/// # Errors
/// It cannot: why.
pub fn check_filter(filter: &str) -> Result<(), LogError> {
    parse_filter(filter).map(|_| ())
}

fn parse_filter(filter: &str) -> Result<Targets, LogError> {
    // The parser takes any text for a target's name, and then nothing at all is logged.
    let is_odd = |c: &char| !(c.is_ascii_alphanumeric() || "_:.-=,[]{} ".contains(*c));
    if let Some(odd) = filter.chars().find(is_odd) {
        return Err(LogError::Filter(format!("{odd:?} is in no name of a target")));
    }
    filter.parse::<Targets>().map_err(|error| LogError::Filter(error.to_string()))
}

impl Logs {
    /// Starts the log of this process on standard error.
    ///
    /// # Errors
    /// The filter cannot be read, or there is a log already.
    pub fn start(config: &LogConfig) -> Result<Self, LogError> {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let format = config.format.unwrap_or(if std::io::stderr().is_terminal() {
            LogFormat::Pretty
        } else {
            LogFormat::Json
        });
        let (logs, subscriber) = Self::make(&config.filter, format, colour, Box::new(std::io::stderr()))?;
        tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Taken)?;
        Ok(logs)
    }

    fn make(
        filter: &str,
        format: LogFormat,
        colour: bool,
        out: Box<dyn Write + Send>,
    ) -> Result<(Self, impl Subscriber + use<>), LogError> {
        let filter = parse_filter(filter)?;
        let (writer, thread) = LineWriter::start(out).map_err(LogError::Thread)?;
        let lines = Lines { writer: writer.clone(), format, colour };
        let subscriber = tracing_subscriber::registry().with(lines).with(filter);
        Ok((Self { writer, _thread: thread }, subscriber))
    }

    /// Lines that found no room, for the metrics.
    pub fn dropped(&self) -> Counter {
        self.writer.dropped()
    }

    /// Waits until what was said so far is written.
    pub fn flush(&self) {
        self.writer.flush();
    }
}

/// Turns events into lines.
struct Lines {
    writer: LineWriter,
    format: LogFormat,
    colour: bool,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        thread_local! {
            static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
        }
        SCRATCH.with_borrow_mut(|Scratch { line, time, text }| {
            let now = wall();
            if *time != Some(now) {
                (*time, *text) = (Some(now), now.to_string());
            }
            line.clear();
            format::line(line, self.format, self.colour, text, event);
            self.writer.put(line);
        });
    }
}

/// What a thread keeps from one line to the next: memory, and a time in words, which holds for all lines of its
/// millisecond.
struct Scratch {
    line: Vec<u8>,
    time: Option<Time>,
    text: String,
}

impl Scratch {
    const fn new() -> Self {
        Self { line: Vec::new(), time: None, text: String::new() }
    }
}

/// The time on the wall: what is logged must be comparable with other machines' logs.
fn wall() -> Time {
    #[expect(
        clippy::disallowed_methods,
        reason = "a line of a log says when it was written, and decides nothing"
    )]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A request that was answered.
#[derive(Clone, Debug, Default)]
pub struct RequestLine<'a> {
    /// The door it came through.
    pub door: &'static str,
    /// The method.
    pub method: &'a str,
    /// The route that matched, such as `/v1/records/{id}`: never the path itself.
    pub route: &'a str,
    /// The status of the answer.
    pub status: u16,
    /// From its last header to the answer.
    pub took: Duration,
    /// The code, where the answer is an error.
    pub code: Option<&'static str>,
    /// Who asked.
    pub tenant: Option<&'a str>,
    /// The operation, where one is known.
    pub operation: Option<&'a str>,
    /// The key, where there is one.
    pub key: Option<&'a str>,
    /// The record, where there is one.
    pub record: Option<&'a Record>,
    /// Whether the key had been asked for before.
    pub is_retry: Option<bool>,
    /// The request.
    pub request_id: &'a str,
    /// What links it to others.
    pub correlation_id: Option<&'a str>,
}

/// Says that a request was answered.
pub fn request(line: &RequestLine<'_>) {
    if !tracing::enabled!(target: "semel::request", tracing::Level::INFO) {
        return;
    }
    let asked = line.record.map(|record| &**record.request());
    let tags = asked.map_or(&[][..], Request::tags);
    let record_id = line.record.map(|record| record.id().hex());
    tracing::info!(
        target: "semel::request",
        door = line.door,
        method = line.method,
        route = line.route,
        status = u64::from(line.status),
        duration_us = u64::try_from(line.took.as_micros()).unwrap_or(u64::MAX),
        code = line.code,
        tenant = line.tenant,
        operation = line.operation,
        idempotency_key = line.key,
        record_id = record_id.as_ref().map(Hex::as_str),
        isRetry = line.is_retry,
        order_id = tag(tags, "order_id"),
        shipment_id = tag(tags, "shipment_id"),
        event_id = asked.and_then(webhook::event_id),
        partner = asked.and_then(webhook::partner),
        request_id = line.request_id,
        correlation_id = line.correlation_id,
        "request",
    );
}

/// Says that a record went from one state to another. `request_id` and `correlation_id` are those of the request on
/// whose behalf it was, where there was one.
pub fn state_change(
    from: Option<StateName>,
    record: &Record,
    request_id: Option<&str>,
    correlation_id: Option<&str>,
) {
    if !tracing::enabled!(target: "semel::state", tracing::Level::INFO) {
        return;
    }
    let request = record.request();
    let tags = request.tags();
    let why = match record.state() {
        State::Unknown { detail, .. } => Some(detail.as_str()),
        State::Released { last_error } | State::Dead { last_error } => Some(last_error.as_str()),
        State::Pending { last_error } => last_error.as_ref().map(semel_core::record::Text::as_str),
        State::Running { .. } | State::Completed { .. } => None,
    };
    tracing::info!(
        target: "semel::state",
        from = from.map(StateName::as_str),
        to = record.state().name().as_str(),
        operation = request.operation().as_str(),
        idempotency_key = request.key().as_str(),
        record_id = record.id().hex().as_str(),
        version = %record.version(),
        attempt = u64::from(record.attempt()),
        isRetry = record.attempt() > 1,
        order_id = tag(tags, "order_id"),
        shipment_id = tag(tags, "shipment_id"),
        event_id = webhook::event_id(request),
        partner = webhook::partner(request),
        why,
        request_id,
        correlation_id,
        "state",
    );
}

/// Says what a try of a delivery came to.
pub fn delivery(tried: &Tried, record: &Record, correlation_id: Option<&str>) {
    if !tracing::enabled!(target: "semel::delivery", tracing::Level::INFO) {
        return;
    }
    let request = record.request();
    let tags = request.tags();
    tracing::info!(
        target: "semel::delivery",
        source = &*tried.target.source,
        delivered_to = &*tried.target.name,
        result = tried.result.as_str(),
        status = tried.status.map(u64::from),
        latency_ms = u64::try_from(tried.latency.as_millis()).unwrap_or(u64::MAX),
        attempt = u64::from(tried.attempt),
        isRetry = tried.attempt > 1,
        operation = request.operation().as_str(),
        idempotency_key = request.key().as_str(),
        record_id = %record.id(),
        order_id = tag(tags, "order_id"),
        shipment_id = tag(tags, "shipment_id"),
        event_id = tag(tags, "event_id").unwrap_or(request.key().as_str()),
        partner = tag(tags, "partner").unwrap_or(&tried.target.source),
        correlation_id,
        "delivery",
    );
}

/// Tags that lines and spans have as fields of their own.
pub(crate) const SEARCHED_TAGS: [&str; 4] = ["order_id", "shipment_id", "event_id", "partner"];

pub(crate) fn tag<'a>(tags: &'a [Tag], name: &str) -> Option<&'a str> {
    tags.iter().find(|tag| tag.name.as_str() == name).map(|tag| tag.value.as_str())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use semel_core::id::{Key, Namespace, Operation, Scope, TagName, TagValue, Tenant};
    use semel_core::request::{Fingerprint, Input};
    use semel_core::{Ledger, Policy, Token};
    use tracing::subscriber::with_default;

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    struct Fixed;

    impl semel_core::ledger::Entropy for Fixed {
        fn token(&self) -> Token {
            Token::from_bytes([0xab; 16])
        }
    }

    async fn record() -> Arc<Record> {
        let tag = |name, value| Tag {
            name: TagName::try_new(name).unwrap(),
            value: TagValue::try_new(value).unwrap(),
        };
        let body = bytes::Bytes::from_static(b"{\"card\":\"4111\"}");
        let input = Input::try_new("POST", "/charge", semel_core::outcome::Headers::default(), body).unwrap();
        let request = Request::new(
            Scope { namespace: Namespace::Execute, tenant: Tenant::try_new("acme").unwrap(), subject: None },
            Key::try_new("k-1").unwrap(),
            Operation::try_new("payment.charge").unwrap(),
            Fingerprint { version: 1, digest: [1; 32] },
            Policy::default(),
        );
        let tags = vec![tag("order_id", "A-1"), tag("partner", "xendit"), tag("card", "4111")];
        let request = request.try_with_tags(tags).unwrap().with_input(input);
        let store = Arc::new(semel_stores::memory::MemoryStore::new());
        let ledger = Ledger::new(store, Arc::new(Fixed));
        let claimed = ledger.claim(Arc::new(request), None).await.unwrap();
        let semel_core::command::Claimed::Granted(claim) = claimed else { panic!("it is free") };
        Arc::clone(claim.record())
    }

    fn lines(filter: &str, say: impl FnOnce()) -> Vec<serde_json::Value> {
        let memory = Memory::default();
        let out = Box::new(memory.clone());
        let (logs, subscriber) = Logs::make(filter, LogFormat::Json, false, out).unwrap();
        with_default(subscriber, say);
        logs.flush();
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_request_and_a_state_change_can_be_searched_by_the_named_fields() {
        let record = record().await;
        let told = lines("info", || {
            request(&RequestLine {
                door: "execute",
                method: "POST",
                route: "/v1/idempotency/execute",
                status: 200,
                key: Some("k-1"),
                operation: Some("payment.charge"),
                record: Some(&record),
                is_retry: Some(true),
                request_id: "r-1",
                correlation_id: Some("c-1"),
                ..RequestLine::default()
            });
            state_change(None, &record, Some("r-1"), Some("c-1"));
        });
        let id = record.id().to_string();
        for line in &told {
            assert_eq!(line["record_id"], id.as_str());
            assert_eq!(line["order_id"], "A-1");
            assert_eq!(line["partner"], "xendit");
            assert_eq!(line["idempotency_key"], "k-1");
            assert_eq!(line["operation"], "payment.charge");
            assert_eq!((&line["request_id"], &line["correlation_id"]), (&"r-1".into(), &"c-1".into()));
            assert!(line.get("shipment_id").is_none(), "it does not apply");
        }
        assert_eq!((&told[0]["isRetry"], &told[1]["isRetry"]), (&true.into(), &false.into()));
        assert_eq!(told[1]["to"], "running");
        let all = format!("{told:?}");
        assert!(!all.contains("4111"), "neither the body nor a tag that nobody named");
        assert!(!all.contains("abababab"), "nor the token");
    }

    #[tokio::test]
    async fn a_filter_by_target_leaves_out_the_rest() {
        let record = record().await;
        let told = lines("warn,semel::state=info", || {
            request(&RequestLine::default());
            state_change(None, &record, None, None);
            tracing::info!("something else");
            tracing::warn!("a warning");
        });
        let messages: Vec<&str> = told.iter().filter_map(|line| line["message"].as_str()).collect();
        assert_eq!(messages, ["state", "a warning"]);
        assert!(check_filter("semel=loud").is_err());
        assert!(check_filter("!!!").is_err());
    }
}
