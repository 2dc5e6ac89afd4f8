//! The world outside: a target that counts what reaches it and answers as its path says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::wait::eventually;

/// A target that runs until the test ends. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Arrived>>>,
    gate: Arc<watch::Sender<bool>>,
}

/// A request that has reached the target.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Target {
    /// Starts one on a free port, with its gate open.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Self { address, seen: Arc::default(), gate: Arc::new(watch::channel(true).0) };
        let routes = Router::new()
            .route("/json", post(json))
            .route("/text", post(text))
            .route("/empty", post(|state, headers, body| status(state, Path(204), headers, body)))
            .route("/status/{status}", post(status))
            .route("/refused/{how}", post(refused))
            .route("/sized/{bytes}", post(sized))
            .route("/gated", post(gated))
            .with_state(target.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        target
    }

    /// An operation of the configuration that leads here.
    pub(crate) fn operation(&self, name: &str, path: &str, more: &str) -> String {
        format!("[[operations]]\nname = \"{name}\"\ntarget = \"http://{}{path}\"\n{more}\n", self.address)
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has arrived so far.
    pub(crate) fn seen(&self) -> Vec<Arrived> {
        self.seen.lock().unwrap().clone()
    }

    /// Keeps those who come to `/gated` waiting until it is opened.
    pub(crate) fn close(&self) {
        self.gate.send_replace(false);
    }

    /// Lets everybody through.
    pub(crate) fn open(&self) {
        self.gate.send_replace(true);
    }

    /// Waits until so many requests have arrived.
    pub(crate) async fn arrived(&self, count: usize) {
        let what = format!("{count} requests arrive");
        eventually(&what, async || (self.seen().len() >= count).then_some(())).await;
    }

    fn note(&self, headers: &HeaderMap, body: &str) -> usize {
        let text = |value: &axum::http::HeaderValue| value.to_str().unwrap().to_owned();
        let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let mut seen = self.seen.lock().unwrap();
        seen.push(Arrived { headers, body: body.to_owned() });
        seen.len()
    }
}

/// JSON in an order and with numbers that a parser would change, and headers of all kinds.
async fn json(State(target): State<Target>, headers: HeaderMap, body: String) -> Response {
    let run = target.note(&headers, &body);
    Response::builder()
        .status(201)
        .header("content-type", "application/json")
        .header("set-cookie", "session=1")
        .header("x-kept", "one")
        .header("x-kept", "two")
        .header("x-dropped", "three")
        .body(Body::from(format!(r#"{{"z":1.10,"run":{run},"big":9007199254740993,"a":"é\u00e9"}}"#)))
        .unwrap()
}

async fn text(State(target): State<Target>, headers: HeaderMap, body: String) -> Response {
    target.note(&headers, &body);
    Response::builder().header("content-type", "text/plain").body(Body::from("done")).unwrap()
}

async fn status(
    State(target): State<Target>,
    Path(status): Path<u16>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let run = target.note(&headers, &body);
    let answer = if status == 204 { String::new() } else { format!(r#"{{"run":{run}}}"#) };
    let answered = Response::builder().status(status).header("content-type", "application/json");
    answered.body(Body::from(answer)).unwrap()
}

/// 422, with JSON that a parser would change, with a text, or with nothing.
async fn refused(
    State(target): State<Target>,
    Path(how): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Response {
    target.note(&headers, &body);
    let (media, said) = match how.as_str() {
        "json" => ("application/json", r#"{"z":1.10,"big":9007199254740993}"#),
        "text" => ("text/plain", "no"),
        _ => ("application/json", ""),
    };
    Response::builder().status(422).header("content-type", media).body(Body::from(said)).unwrap()
}

/// A JSON text of so many bytes, its quotes included.
async fn sized(
    State(target): State<Target>,
    Path(bytes): Path<usize>,
    headers: HeaderMap,
    body: String,
) -> Response {
    target.note(&headers, &body);
    let answer = format!("\"{}\"", "x".repeat(bytes - 2));
    Response::builder().header("content-type", "application/json").body(Body::from(answer)).unwrap()
}

async fn gated(State(target): State<Target>, headers: HeaderMap, body: String) -> Response {
    let run = target.note(&headers, &body);
    target.gate.subscribe().wait_for(|open| *open).await.unwrap();
    let answer = format!(r#"{{"run":{run}}}"#);
    Response::builder().header("content-type", "application/json").body(Body::from(answer)).unwrap()
}
