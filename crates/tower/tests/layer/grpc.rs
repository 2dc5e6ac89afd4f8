//! The layer around a service of tonic, over HTTP/2: statuses in trailers, replays, refusals that a gRPC client reads.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use semel_core::Ledger;
use semel_runtime::OsEntropy;
use semel_stores::memory::MemoryStore;
use semel_tower::{Config, IdempotencyLayer, OnServerError};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::server::{NamedService, ServerStreamingService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tower_service::Service;

use crate::harness::shared;

/// Messages as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// `orders.Orders`, with `Create` (which fails with the status that its message names), `Slow` and `Watch`.
#[derive(Clone)]
struct Orders {
    runs: Arc<AtomicUsize>,
    go: Arc<Semaphore>,
}

impl NamedService for Orders {
    const NAME: &'static str = "orders.Orders";
}

impl Service<http::Request<Body>> for Orders {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let orders = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Raw);
            Ok(match request.uri().path() {
                "/orders.Orders/Watch" => grpc.server_streaming(orders, request).await,
                _ => grpc.unary(orders, request).await,
            })
        })
    }
}

impl UnaryService<Bytes> for Orders {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        let go = Arc::clone(&self.go);
        Box::pin(async move {
            match &request.get_ref()[..] {
                b"slow" => go.acquire().await.unwrap().forget(),
                b"not found" => return Err(Status::not_found(format!("no such order, said run {run}"))),
                b"unavailable" => return Err(Status::unavailable("not now")),
                _ => {}
            }
            let mut response = Response::new(Bytes::from(format!("order {run}")));
            response.metadata_mut().insert("x-run", MetadataValue::from(run));
            Ok(response)
        })
    }
}

impl ServerStreamingService<Bytes> for Orders {
    type Response = Bytes;
    type ResponseStream = stream::BoxStream<'static, Result<Bytes, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let go = Arc::clone(&self.go);
        let later = async move {
            go.acquire().await.unwrap().forget();
            Ok(Bytes::from("second"))
        };
        ready(Ok(Response::new(stream::iter([Ok(Bytes::from("first"))]).chain(stream::once(later)).boxed())))
    }
}

/// The service on a socket, and a client of it.
struct Running {
    orders: Orders,
    channel: Channel,
}

impl Running {
    async fn start(config: Config) -> Self {
        let ledger = Ledger::new(Arc::new(MemoryStore::new()), Arc::new(OsEntropy));
        let layer = IdempotencyLayer::try_new(ledger, config).unwrap();
        let orders = Orders { runs: Arc::default(), go: Arc::new(Semaphore::new(0)) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = Server::builder().layer(layer).add_service(orders.clone());
        tokio::spawn(server.serve_with_incoming(incoming));
        let channel = Endpoint::try_from(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { orders, channel }
    }

    async fn create(&self, key: &str, message: &'static str) -> Result<Response<Bytes>, Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/orders.Orders/Create");
        grpc.unary(keyed(key, message), path, Raw).await
    }

    fn runs(&self) -> usize {
        self.orders.runs.load(Ordering::SeqCst)
    }
}

fn keyed(key: &str, message: &'static str) -> Request<Bytes> {
    let mut request = Request::new(Bytes::from(message));
    request.metadata_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

fn said<'a>(metadata: &'a tonic::metadata::MetadataMap, name: &str) -> &'a str {
    metadata.get(name).unwrap().to_str().unwrap()
}

fn is_replay(metadata: &tonic::metadata::MetadataMap) -> bool {
    metadata.get("idempotent-replayed").is_some_and(|said| said == "true")
}

#[tokio::test]
async fn a_unary_call_of_tonic_runs_once_and_its_retry_is_given_message_metadata_and_status() {
    let running = Running::start(shared("orders")).await;
    let first = running.create("k-1", "{}").await.unwrap();
    assert!(!is_replay(first.metadata()) && first.metadata().contains_key("idempotency-expires"));
    let again = running.create("k-1", "{}").await.unwrap();
    assert!(is_replay(again.metadata()));
    assert_eq!(
        (again.get_ref(), said(again.metadata(), "x-run")),
        (first.get_ref(), said(first.metadata(), "x-run"))
    );
    assert_eq!(running.runs(), 1);
    assert_eq!(running.create("k-2", "{}").await.unwrap().get_ref(), "order 2");
}

#[tokio::test]
async fn a_status_of_tonic_is_kept_where_it_would_come_again_and_frees_the_key_where_it_would_not() {
    let running = Running::start(shared("orders")).await;
    for is_retry in [false, true] {
        let status = running.create("gone", "not found").await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "no such order, said run 1"));
        assert_eq!(is_replay(status.metadata()), is_retry);
    }
    for run in [2, 3] {
        let status = running.create("later", "unavailable").await.unwrap_err();
        assert_eq!((status.code(), running.runs()), (Code::Unavailable, run), "it runs again");
    }
    let strict = Running::start(shared("orders").on_5xx(OnServerError::Unknown)).await;
    assert_eq!(strict.create("k", "unavailable").await.unwrap_err().code(), Code::Unavailable);
    let unknown = strict.create("k", "unavailable").await.unwrap_err();
    assert_eq!((unknown.code(), strict.runs()), (Code::FailedPrecondition, 1));
    assert_eq!(said(unknown.metadata(), "semel-error-code"), "IDEMPOTENCY_OUTCOME_UNKNOWN");
}

#[tokio::test]
async fn a_call_in_flight_a_mismatch_and_a_missing_key_are_statuses_that_a_grpc_client_reads() {
    let running = Running::start(shared("orders").require_key(true)).await;
    let first = tokio::spawn({
        let running = Running { orders: running.orders.clone(), channel: running.channel.clone() };
        async move { running.create("k", "slow").await }
    });
    while running.runs() == 0 {
        tokio::task::yield_now().await;
    }
    let busy = running.create("k", "slow").await.unwrap_err();
    assert_eq!(
        (busy.code(), said(busy.metadata(), "semel-error-code")),
        (Code::Aborted, "IDEMPOTENCY_CONCURRENT_REQUEST")
    );
    assert!(
        busy.metadata().contains_key("retry-after") && busy.metadata().contains_key("grpc-retry-pushback-ms")
    );
    running.orders.go.add_permits(1);
    assert_eq!(first.await.unwrap().unwrap().get_ref(), "order 1");
    assert!(is_replay(running.create("k", "slow").await.unwrap().metadata()));
    let mismatch = running.create("k", "other").await.unwrap_err();
    assert_eq!(mismatch.code(), Code::InvalidArgument);
    assert_eq!(said(mismatch.metadata(), "semel-error-code"), "IDEMPOTENCY_PARAMETER_MISMATCH");
    let mut grpc = tonic::client::Grpc::new(running.channel.clone());
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/orders.Orders/Create");
    let missing = grpc.unary(Request::new(Bytes::new()), path, Raw).await.unwrap_err();
    assert_eq!(said(missing.metadata(), "semel-error-code"), "IDEMPOTENCY_KEY_REQUIRED");
    assert_eq!(running.runs(), 1);
}

#[tokio::test]
async fn a_stream_of_tonic_comes_piece_by_piece_and_a_retry_is_told_that_it_was_done() {
    let running = Running::start(shared("orders")).await;
    let watch = async || {
        let mut grpc = tonic::client::Grpc::new(running.channel.clone());
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/orders.Orders/Watch");
        grpc.server_streaming(keyed("k", "{}"), path, Raw).await
    };
    let mut messages = watch().await.unwrap().into_inner();
    let first = tokio::time::timeout(Duration::from_secs(20), messages.message()).await.unwrap();
    assert_eq!(first.unwrap().unwrap(), "first", "before the second is there");
    let again = watch().await.unwrap_err();
    assert_eq!(
        (again.code(), said(again.metadata(), "semel-error-code")),
        (Code::AlreadyExists, "IDEMPOTENCY_RESULT_GONE")
    );
    running.orders.go.add_permits(1);
    assert_eq!(messages.message().await.unwrap().unwrap(), "second");
    assert!(messages.message().await.unwrap().is_none());
    assert_eq!(running.runs(), 1);
}
