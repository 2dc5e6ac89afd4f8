//! Traces: what a collector is sent, in the form that it reads, and what targets are told.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;
use tokio::net::TcpListener;

use crate::server::Server;
use crate::target::Target;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector that keeps what it is sent.
#[derive(Clone)]
struct Collector {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Span>>>,
}

/// A span, as far as these tests look.
#[derive(Clone, Debug)]
struct Span {
    service: String,
    name: String,
    trace: String,
    parent: String,
    id: String,
    said: BTreeMap<String, String>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self { address: listener.local_addr().unwrap(), taken: Arc::default() };
        let routes = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        collector
    }

    fn config(&self, more: &str) -> String {
        let address = self.address;
        format!("[tracing]\nendpoint = \"http://{address}/v1/traces\"\n{more}\n")
    }

    /// The span of this route. (A server that has stopped has exported them all.)
    fn span(&self, name: &str) -> Span {
        let taken = self.taken.lock().unwrap();
        let found: Vec<_> = taken.iter().filter(|span| span.name == name).collect();
        let [span] = found[..] else { panic!("not one {name}: {taken:#?}") };
        span.clone()
    }
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert_eq!(headers["authorization"], "Bearer collector-token");
    let exported = ExportTraceServiceRequest::decode(body).unwrap();
    for resource in exported.resource_spans {
        let service = named(&resource.resource.unwrap().attributes)["service.name"].clone();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
            collector.taken.lock().unwrap().push(Span {
                service: service.clone(),
                name: span.name,
                trace: hex(&span.trace_id),
                parent: hex(&span.parent_span_id),
                id: hex(&span.span_id),
                said: named(&span.attributes),
            });
        }
    }
    StatusCode::OK
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn named(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|one| (one.key.clone(), text(&one.value))).collect()
}

const TOKEN: &str = "headers = { authorization = \"Bearer collector-token\" }";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

#[tokio::test]
async fn a_request_is_a_span_of_its_clients_trace_and_what_its_target_does_is_a_part_of_it() {
    let (collector, target) = (Collector::start().await, Target::start().await);
    let operation = target.operation("charge", "/json", "tags = { order_id = \"/order_id\" }");
    let config = format!(
        "[server]\ndevelopment = true\nservice_name = \"orders\"\n{}{operation}",
        collector.config(TOKEN)
    );
    let server = Server::start(&config).await;
    let payload = r#"{"order_id":"o-7","card":"4111111111111111"}"#;
    let given = traceparent("01");
    let trace = [("traceparent", given.as_str()), ("x-correlation-id", "c-1")];
    assert_eq!(server.execute("charge", "key-1", payload, &trace).await.status, 200);
    assert_eq!(server.get("/v1/idempotency/executions/key-1", &trace).await.status, 200);
    server.get("/readyz", &trace).await;
    assert!(server.stop().await.success());

    let span = collector.span("POST /v1/idempotency/execute");
    assert_eq!((span.service.as_str(), span.trace.as_str(), span.parent.as_str()), ("orders", TRACE, PARENT));
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/idempotency/execute"),
        ("http.response.status_code", "200"),
        ("door", "execute"),
        ("tenant", "default"),
        ("operation", "charge"),
        ("idempotency_key", "key-1"),
        ("order_id", "o-7"),
        ("correlation_id", "c-1"),
        ("isRetry", "false"),
    ] {
        assert_eq!(span.said.get(name).map(String::as_str), Some(value), "{name} of {:?}", span.said);
    }
    assert!(span.said.contains_key("request_id") && span.said.contains_key("record_id"), "{:?}", span.said);
    let [arrived] = &target.seen()[..] else { panic!("it ran once") };
    assert_eq!(arrived.headers["traceparent"], format!("00-{TRACE}-{}-01", span.id));

    let shown = collector.span("GET /v1/idempotency/executions/{key}");
    assert_eq!((shown.trace.as_str(), shown.parent.as_str()), (TRACE, PARENT));
    let all = format!("{:?}", collector.taken.lock().unwrap());
    assert!(!all.contains("4111") && !all.contains("collector-token"), "bodies and secrets: {all}");
    assert!(!all.contains("readyz"), "probes are no requests: {all}");
}

#[tokio::test]
async fn a_trace_that_is_not_sampled_stays_so_and_a_request_without_one_begins_its_own() {
    let (collector, target) = (Collector::start().await, Target::start().await);
    let operation = target.operation("charge", "/json", "");
    let server =
        Server::start(&format!("[server]\ndevelopment = true\n{}{operation}", collector.config(TOKEN))).await;
    let unsampled = traceparent("00");
    server.execute("charge", "unsampled", "{}", &[("traceparent", &unsampled)]).await;
    server.execute("charge", "malformed", "{}", &[("traceparent", "00-not-a-trace-01")]).await;
    assert!(server.stop().await.success());
    let own = collector.span("POST /v1/idempotency/execute");
    assert_eq!(own.said["idempotency_key"], "malformed");
    assert_ne!(own.trace, TRACE);
    assert_eq!(own.parent, "");
    let told: Vec<_> = target.seen().iter().map(|seen| seen.headers["traceparent"].clone()).collect();
    assert!(told[0].starts_with(&format!("00-{TRACE}-")) && told[0].ends_with("-00"), "{told:?}");
    assert_eq!(told[1], format!("00-{}-{}-01", own.trace, own.id));
}

#[tokio::test]
async fn what_goes_through_the_gateway_is_a_span_and_its_upstream_is_a_part_of_it() {
    let (collector, target) = (Collector::start().await, Target::start().await);
    let upstream = target.url();
    let gateway = format!("[gateway]\nlisten = \"127.0.0.1:0\"\nupstream = \"{upstream}\"\n");
    let server =
        Server::start(&format!("[server]\ndevelopment = true\n{}{gateway}", collector.config(TOKEN))).await;
    let given = traceparent("01");
    for key in [None, Some(("idempotency-key", "key-1"))] {
        let mut headers = vec![("traceparent", given.as_str())];
        headers.extend(key);
        let url = format!("{}/json", server.gateway_url());
        server.http().post(&url, &headers, "{}".to_owned()).await.unwrap();
    }
    assert!(server.stop().await.success());
    let taken = collector.taken.lock().unwrap().clone();
    assert_eq!(taken.len(), 2, "{taken:#?}");
    for (span, arrived) in taken.iter().zip(target.seen()) {
        assert_eq!((span.trace.as_str(), span.parent.as_str()), (TRACE, PARENT));
        assert_eq!(span.said["door"], "gateway");
        assert_eq!(arrived.headers["traceparent"], format!("00-{TRACE}-{}-01", span.id));
    }
    assert_eq!(taken[1].said["idempotency_key"], "key-1");
}

#[tokio::test]
async fn a_collector_that_is_not_there_keeps_nobody_waiting_and_is_missed_in_the_log() {
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nowhere.local_addr().unwrap();
    drop(nowhere);
    let tracing = format!("[tracing]\nendpoint = \"http://{address}/v1/traces\"\n");
    let server = Server::start(&format!("[server]\ndevelopment = true\n{tracing}")).await;
    assert_eq!(server.execute("echo", "key-1", "1", &[]).await.status, 200);
    server.logged("spans could not be exported").await;
    assert_eq!(server.execute("echo", "key-2", "1", &[]).await.status, 200);
    assert!(server.stop().await.success());
}
