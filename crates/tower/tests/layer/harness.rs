//! What the tests share: a service that counts its runs, a layer around it, and a client.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use semel_conformance::faulty::Faulty;
use semel_core::{Ledger, Record, RecordId, Store};
use semel_runtime::OsEntropy;
use semel_stores::memory::MemoryStore;
use semel_tower::{Body, Config, IdempotencyLayer, IdempotencyService};
use serde_json::Value;
use tokio_util::task::TaskTracker;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt as _, service_fn};
use tower_layer::Layer as _;

pub(crate) type Inner = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// A layer around a service that counts how often it runs.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) runs: Arc<AtomicUsize>,
    pub(crate) layer: IdempotencyLayer,
    pub(crate) store: Arc<Faulty>,
    service: IdempotencyService<Inner>,
}

/// An answer, read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The code of an error, in whichever form.
    pub(crate) fn code(&self) -> String {
        let json = self.json();
        let code = if json["error"].is_object() { &json["error"]["code"] } else { &json["code"] };
        code.as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.header("idempotent-replayed") == Some("true")
    }
}

pub(crate) fn reply(status: u16, body: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// `{"run":N}`, with status 201.
pub(crate) fn created(run: usize) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{{\"run\":{run}}}").into_bytes()));
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

/// A configuration for callers who share their keys, as there are no others in most tests; and for a store in memory, from
/// which no test here expects more.
pub(crate) fn shared(service: &str) -> Config {
    Config::new(service).shared_keys(true).accept_claim_loss(true)
}

impl Bench {
    /// A service that answers its run's number.
    pub(crate) fn new(config: Config) -> Self {
        Self::serving(config, |run, _| async move { created(run) })
    }

    /// A service that does what it is told with the number of its run (from 1) and the request.
    pub(crate) fn serving<F, R>(config: Config, serve: F) -> Self
    where
        F: Fn(usize, Request<Body>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::trying(config, move |run, request| {
            let reply = serve(run, request);
            async move { Ok(reply.await) }
        })
    }

    fn trying<F, R>(config: Config, serve: F) -> Self
    where
        F: Fn(usize, Request<Body>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let inner = service_fn(move |request| {
            let run = counted.fetch_add(1, Ordering::SeqCst) + 1;
            let reply: BoxFuture<'static, _> = Box::pin(serve(run, request));
            reply
        });
        let store = Arc::new(Faulty::over(Arc::new(MemoryStore::new()), 7));
        let shared: Arc<dyn Store> = Arc::clone(&store) as _;
        let ledger = Ledger::new(shared, Arc::new(OsEntropy));
        let layer = IdempotencyLayer::try_new(ledger, config).unwrap();
        let service = layer.layer(BoxCloneSyncService::new(inner));
        Self { runs, layer, store, service }
    }

    /// The same store under another configuration.
    pub(crate) fn enforced(&self, config: Config) -> Self {
        let layer = IdempotencyLayer::try_new(self.layer.ledger().clone(), config).unwrap();
        let runs = Arc::clone(&self.runs);
        let inner = service_fn(move |_| {
            let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
            async move { Ok(created(run)) }
        });
        let service = layer.layer(BoxCloneSyncService::new(inner));
        Self { layer, service, ..self.clone() }
    }

    /// The layered service.
    pub(crate) fn service(&self) -> IdempotencyService<Inner> {
        self.service.clone()
    }

    /// What runs apart from any request.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        self.layer.runtime().tasks()
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.start(request).await;
        read(response).await
    }

    /// The response, whose body is not read yet.
    pub(crate) async fn start(&self, request: Request<Body>) -> Response<Body> {
        self.service.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn post(&self, key: &str) -> Answer {
        self.send(post(key, r#"{"amount":5}"#)).await
    }

    /// The records of the store.
    pub(crate) async fn records(&self) -> Vec<Arc<Record>> {
        let found = self.store.search(semel_core::query::Query::default(), None, 100).await.unwrap();
        let mut records = Vec::new();
        for summary in found.items {
            records.extend(self.load(summary.id).await);
        }
        records
    }

    /// The store's time.
    pub(crate) fn now(&self) -> semel_core::Timestamp {
        self.store.time()
    }

    pub(crate) async fn load(&self, id: RecordId) -> Option<Arc<Record>> {
        self.store.load(id).await.unwrap().value
    }
}

pub(crate) async fn read(response: Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

pub(crate) fn post(key: &str, body: &'static str) -> Request<Body> {
    request(Method::POST, "/orders", &[("idempotency-key", key), ("content-type", "application/json")], body)
}

pub(crate) fn request(
    method: Method,
    uri: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body)).unwrap()
}
