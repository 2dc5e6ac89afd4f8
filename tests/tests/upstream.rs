//! A service behind the gateway: it tells what reached it, streams, waits, changes the protocol, and breaks off, as its
//! path says. Over HTTP/1.1 and HTTP/2, with and without TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::wait::eventually;

/// A service that runs until it is dropped. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Upstream(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    is_tls: bool,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    seen: Mutex<Vec<Value>>,
    connections: AtomicUsize,
    gate: watch::Sender<bool>,
    /// What the streams at `/stream` send.
    chunks: Mutex<Vec<mpsc::UnboundedSender<Bytes>>>,
    /// Cuts every connection.
    cut: watch::Sender<u32>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Starts one on a free port.
    pub(crate) async fn start() -> Self {
        Self::at("127.0.0.1:0", None).await
    }

    /// Starts one on this address.
    pub(crate) async fn at(address: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            gate: watch::channel(true).0,
            chunks: Mutex::default(),
            cut: watch::channel(0).0,
        });
        let is_tls = tls.is_some();
        let task = tokio::spawn(accept(listener, tls, Arc::clone(&state)));
        Self(Arc::new(Inner { address, is_tls, state, task }))
    }

    /// Starts one with a certificate and its key, that offers these protocols.
    pub(crate) async fn with_tls(certificate: &Path, key: &Path, protocols: &[&str]) -> Self {
        Self::asking_for(None, certificate, key, protocols).await
    }

    /// The same, for clients alone who show a certificate of this authority.
    pub(crate) async fn asking_for(
        authority: Option<&Path>,
        certificate: &Path,
        key: &Path,
        protocols: &[&str],
    ) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match authority {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
                let clients =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(clients.build().unwrap())
            }
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self::at("127.0.0.1:0", Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http{}://{}", if self.0.is_tls { "s" } else { "" }, self.0.address)
    }

    /// A configuration with a gateway before it; `more` stands in `[gateway]` or below it.
    pub(crate) fn gateway(&self, more: &str) -> String {
        format!("[gateway]\nlisten = \"127.0.0.1:0\"\nupstream = \"{}\"\n{more}\n", self.url())
    }

    /// What has arrived so far.
    pub(crate) fn seen(&self) -> Vec<Value> {
        self.0.state.seen.lock().unwrap().clone()
    }

    /// Connections that were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.0.state.connections.load(Ordering::SeqCst)
    }

    /// Waits until so many requests have arrived.
    pub(crate) async fn arrived(&self, count: usize) {
        eventually("requests at the upstream", async || (self.seen().len() >= count).then_some(())).await;
    }

    /// Keeps those who come to `/gated` waiting until it is opened.
    pub(crate) fn close(&self) {
        self.0.state.gate.send_replace(false);
    }

    /// Lets everybody through.
    pub(crate) fn open(&self) {
        self.0.state.gate.send_replace(true);
    }

    /// Sends a piece to everybody at `/stream` and `/events`.
    pub(crate) fn push(&self, piece: &str) {
        for sender in &*self.0.state.chunks.lock().unwrap() {
            let _ = sender.send(Bytes::copy_from_slice(piece.as_bytes()));
        }
    }

    /// Ends all streams.
    pub(crate) fn end_streams(&self) {
        self.0.state.chunks.lock().unwrap().clear();
    }

    /// Cuts every connection that is open.
    pub(crate) fn cut(&self) {
        self.0.state.cut.send_modify(|cuts| *cuts += 1);
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    // Ended with the listener.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        state.connections.fetch_add(1, Ordering::SeqCst);
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        connections.spawn(async move {
            match tls {
                None => serve(stream, state).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, state).await;
                    }
                }
            }
        });
    }
}

async fn serve<S>(stream: S, state: Arc<State>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut cut = state.cut.subscribe();
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(state, request).await) }
    });
    let builder = Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::select! {
        _ = connection => {}
        _ = cut.changed() => {}
    }
}

async fn answer(state: Arc<State>, mut request: Request<Incoming>) -> Response<Body> {
    let upgrade = request.headers().contains_key("upgrade").then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    // Some look at the head alone.
    if let Some(wait) = path.strip_prefix("/early/") {
        return Response::builder().status(wait.parse::<u16>().unwrap()).body(Body::empty()).unwrap();
    }
    let collected = body.collect().await;
    let Ok(collected) = collected else { return Response::new(Body::from("the request was cut")) };
    let trailers = collected.trailers().map(|all| format!("{all:?}"));
    let body = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
    let headers: Vec<Value> = parts
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let run = {
        let mut seen = state.seen.lock().unwrap();
        let run = seen.len() + 1;
        seen.push(json!({
            "run": run, "method": parts.method.as_str(), "uri": parts.uri.to_string(), "version": format!("{:?}", parts.version),
            "headers": headers, "body": body, "trailers": trailers,
        }));
        run
    };
    let wants = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let mut response = match path.as_str() {
        "/gated" => {
            let mut gate = state.gate.subscribe();
            gate.wait_for(|open| *open).await.unwrap();
            json_of(201, &json!({ "run": run }))
        }
        "/stream" | "/events" => stream(&state, &path),
        "/upgrade" => upgraded(upgrade, &wants("upgrade").unwrap_or_default()),
        "/silent" => std::future::pending().await,
        "/half" => half(),
        "/trailers" => with_trailers(),
        "/empty" => Response::builder().status(204).body(Body::empty()).unwrap(),
        path if path.starts_with("/status/") => {
            json_of(path["/status/".len()..].parse().unwrap(), &json!({ "run": run }))
        }
        path if path.starts_with("/bytes/") => {
            let count: usize = path["/bytes/".len()..].parse().unwrap();
            Response::builder()
                .header("content-type", "application/octet-stream")
                .body(Body::from(vec![b'x'; count]))
                .unwrap()
        }
        _ => {
            let seen = state.seen.lock().unwrap()[run - 1].clone();
            json_of(201, &seen)
        }
    };
    if let Some(outcome) = wants("x-test-outcome") {
        response.headers_mut().insert("semel-outcome", outcome.parse().unwrap());
    }
    if parts.headers.contains_key("x-test-claims") {
        // It speaks of keys itself, or calls somebody who does.
        for (name, value) in [("idempotent-replayed", "true"), ("idempotency-expires", "never")] {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response.headers_mut().insert("x-request-id", "of-the-first".parse().unwrap());
    }
    response
}

fn json_of(status: u16, value: &Value) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .header("set-cookie", "session=1")
        .header("x-kept", "one")
        .header("x-kept", "two")
        .header("connection", "x-private")
        .header("x-private", "for the next hop alone")
        .header("keep-alive", "timeout=5")
        .body(Body::from(value.to_string()))
        .unwrap_or_default()
}

/// Streams whatever is pushed, as it is pushed.
fn stream(state: &State, path: &str) -> Response<Body> {
    let (sender, mut pieces) = mpsc::unbounded_channel();
    state.chunks.lock().unwrap().push(sender);
    let kind = if path == "/events" { "text/event-stream" } else { "text/plain" };
    let body = http_body_util::StreamBody::new(futures_util::stream::poll_fn(move |cx| {
        pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok::<_, Infallible>(Frame::data(piece))))
    }));
    Response::builder().header("content-type", kind).body(Body::new(body)).unwrap()
}

/// A body with a trailer behind it, as gRPC has it.
fn with_trailers() -> Response<Body> {
    let mut trailers = hyper::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let frames = [Frame::data(Bytes::from_static(b"{}")), Frame::trailers(trailers)];
    let frames = futures_util::stream::iter(frames.map(Ok::<_, Infallible>));
    Response::new(Body::new(http_body_util::StreamBody::new(frames)))
}

/// Begins an answer and breaks off, once the beginning is on its way.
fn half() -> Response<Body> {
    let pieces = futures_util::stream::unfold(0, |piece| async move {
        if piece == 0 {
            return Some((Ok(Frame::data(Bytes::from_static(b"the first half"))), 1));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((Err(std::io::Error::other("cut")), 2))
    });
    let body = Body::new(http_body_util::StreamBody::new(Box::pin(pieces)));
    Response::builder().header("content-length", "100").body(body).unwrap()
}

fn upgraded(upgrade: Option<hyper::upgrade::OnUpgrade>, protocol: &str) -> Response<Body> {
    let Some(upgrade) = upgrade else { return Response::builder().status(426).body(Body::empty()).unwrap() };
    tokio::spawn(async move {
        // Says everything back, until the other side is done.
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut bytes = [0; 1024];
        while let Ok(read) = stream.read(&mut bytes).await {
            if read == 0 || stream.write_all(&bytes[..read]).await.is_err() {
                break;
            }
        }
    });
    Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", protocol)
        .body(Body::empty())
        .unwrap()
}
