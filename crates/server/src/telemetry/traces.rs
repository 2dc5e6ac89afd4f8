//! Traces: a span for each request, a part of the trace that the client has begun, exported by OTLP over HTTP.
//!
//! Off unless it is configured, and then nothing of this is there. A span says what the request's line in the log says, under
//! the same names, and nothing else: no body, no secret. What the request asks of targets and upstreams is a part of
//! the span. Spans are exported in the background, in batches; what finds no room there is dropped, and no request
//! waits for it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span,
};

use super::logs::{self, RequestLine};
use super::metrics::TraceId;
use crate::config::TracingConfig;
use crate::door;
use crate::exchange::Address;
use crate::limits;
use crate::tls::{self, TlsError};

/// Who is told of requests as spans. A clone is another handle; the default tells nobody.
#[derive(Clone, Default)]
pub(crate) struct Traces(Option<Arc<Inner>>);

struct Inner {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Why spans cannot be exported.
#[derive(Debug)]
pub(crate) struct TracesError(String);

impl fmt::Display for TracesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TracesError {}

impl From<TlsError> for TracesError {
    fn from(error: TlsError) -> Self {
        Self(format!("tracing.ca: {error}"))
    }
}

impl Traces {
    /// Starts the exporter, in the background of the current runtime; without a configuration there is none.
    ///
    /// # Errors
    /// The authorities cannot be read, or the exporter does not take its configuration.
    pub(crate) fn start(config: Option<&TracingConfig>, service_name: &str) -> Result<Self, TracesError> {
        let Some(config) = config else { return Ok(Self::default()) };
        let headers = config.headers.iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.expose().to_owned()));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new(config)?)
            .with_endpoint(config.endpoint.to_string())
            .with_headers(headers.collect())
            .with_timeout(limits::TRACES_EXPORT_WITHIN)
            .build()
            .map_err(|error| TracesError(error.to_string()))?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(limits::TRACES_QUEUE_MAX)
            .with_max_export_batch_size(limits::TRACES_BATCH_MAX)
            .with_scheduled_delay(limits::TRACES_EXPORT_EVERY)
            .build();
        let share = f64::from(config.sample_percent) / 100.0;
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))))
            .with_resource(
                Resource::builder()
                    .with_service_name(service_name.to_owned())
                    .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
                    .build(),
            )
            .build();
        let tracer = provider.tracer("semel");
        Ok(Self(Some(Arc::new(Inner { provider, tracer }))))
    }

    /// The place of a request in the trace that its client has begun, or in one of its own.
    pub(crate) fn place(&self, headers: &HeaderMap) -> Place {
        let given = door::traceparent(headers).map(copied);
        let trace = given.as_ref().and_then(TraceId::of);
        let Some(inner) = &self.0 else { return Place { span: None, traceparent: given, trace } };
        let parent =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let span = inner.tracer.span_builder("request").with_kind(SpanKind::Server);
        let span = span.start_with_context(&inner.tracer, &parent);
        let own = traceparent(&span);
        // An exemplar is to lead somewhere: to a trace that is exported, or at least to the client's.
        let trace = own.as_ref().filter(|_| span.is_recording()).and_then(TraceId::of).or(trace);
        Place { span: Some(Box::new(span)), traceparent: own.or(given), trace }
    }

    /// Exports what is left, as far as that goes within its time.
    pub(crate) async fn close(&self) {
        let Some(inner) = self.0.clone() else { return };
        let closed = tokio::task::spawn_blocking(move || {
            inner.provider.shutdown_with_timeout(limits::TRACES_EXPORT_WITHIN)
        });
        if let Ok(Err(error)) = closed.await {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// A header in memory of its own: a clone would keep the connection's read buffer from being used again.
fn copied(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

/// As W3C Trace Context has it (section 3.2).
fn traceparent(span: &Span) -> Option<HeaderValue> {
    let context = span.span_context();
    let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags().to_u8());
    HeaderValue::from_str(&format!("00-{trace}-{span}-{flags:02x}")).ok()
}

/// Where a request belongs.
#[derive(Default)]
pub(crate) struct Place {
    /// On the heap: where there is none, a request must not carry its room about.
    span: Option<Box<Span>>,
    /// What its work and its targets are a part of: its own span, or what its client said.
    pub(crate) traceparent: Option<HeaderValue>,
    /// The trace that exemplars lead to.
    pub(crate) trace: Option<TraceId>,
}

impl Place {
    /// Of a request that no trace is told of.
    pub(crate) fn untold(headers: &HeaderMap) -> Self {
        Traces::default().place(headers)
    }

    /// Whether the trace goes on from a span of our own.
    pub(crate) const fn is_own(&self) -> bool {
        self.span.is_some()
    }

    /// Says that the request was answered: in the log, and by the end of its span.
    pub(crate) fn tell(&mut self, line: &RequestLine<'_>) {
        logs::request(line);
        let Some(mut span) = self.span.take() else { return };
        if span.is_recording() {
            span.update_name(format!("{} {}", line.method, line.route));
            span.set_attributes(attributes(line));
            if line.status >= 500 {
                span.set_status(Status::error(line.code.unwrap_or("")));
            }
        }
        span.end();
    }
}

/// What the log's line says, under its names where OpenTelemetry has none.
fn attributes(line: &RequestLine<'_>) -> Vec<KeyValue> {
    let mut all = vec![
        KeyValue::new("http.request.method", line.method.to_owned()),
        KeyValue::new("http.route", line.route.to_owned()),
        KeyValue::new("http.response.status_code", i64::from(line.status)),
        KeyValue::new("door", line.door),
        KeyValue::new("request_id", line.request_id.to_owned()),
    ];
    let mut also = |name: &'static str, value: Option<&str>| {
        all.extend(value.map(|value| KeyValue::new(name, value.to_owned())));
    };
    also("error.type", line.code);
    also("tenant", line.tenant);
    also("operation", line.operation);
    also("idempotency_key", line.key);
    also("correlation_id", line.correlation_id);
    also("record_id", line.record.map(|record| record.id().to_string()).as_deref());
    let tags = line.record.map_or(&[][..], |record| record.request().tags());
    for name in logs::SEARCHED_TAGS {
        also(name, logs::tag(tags, name));
    }
    all.extend(line.is_retry.map(|is_retry| KeyValue::new("isRetry", is_retry)));
    all
}

/// What batches are sent with. The exporter has a thread of its own, so the exchange is a task of the server's runtime.
struct Client {
    runtime: tokio::runtime::Handle,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    fn new(config: &TracingConfig) -> Result<Self, TlsError> {
        let is_secure = config.endpoint.scheme_str() == Some("https");
        let tls = is_secure.then(|| tls::client(config.ca.as_deref())).transpose()?.map(Arc::new);
        Ok(Self { runtime: tokio::runtime::Handle::current(), tls })
    }
}

impl HttpClient for Client {
    fn send_bytes<'client, 'answer>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'answer>>
    where
        'client: 'answer,
        Self: 'answer,
    {
        let sent = self.runtime.spawn(send(request, self.tls.clone()));
        Box::pin(async move {
            let answer = sent.await.map_err(|error| error.to_string()).and_then(|answer| answer);
            if let Err(error) = &answer {
                tracing::warn!(error, "spans could not be exported");
            }
            Ok(answer?)
        })
    }
}

async fn send(
    request: Request<Bytes>,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> Result<Response<Bytes>, String> {
    let (mut head, body) = request.into_parts();
    let url = std::mem::replace(&mut head.uri, Uri::from_static("/"));
    let address = Address::of(&url)?;
    if let Some(path) = url.path_and_query() {
        head.uri = Uri::from(path.clone());
    }
    let host = HeaderValue::from_str(address.host()).map_err(|error| error.to_string())?;
    head.headers.insert(http::header::HOST, host);
    let request = Request::from_parts(head, Full::new(body));
    let sent = address.send(tls, request, limits::TRACES_ANSWER_BYTES_MAX);
    let answer = tokio::time::timeout(limits::TRACES_EXPORT_WITHIN, sent).await;
    let answer = answer.map_err(|_| format!("no answer within {:?}", limits::TRACES_EXPORT_WITHIN))??;
    let status = answer.status();
    if status.is_success() { Ok(answer) } else { Err(format!("{} answers {status}", address.host())) }
}
