//! What the layer adds to a request: nanoseconds for a first run, a replay, and a request without a key, over the
//! memory store, against the bare service. All sides take turns in each round; medians of all rounds are printed.
//!
//! ```text
//! cargo run --release -p semel-tower --example layer_bench -- [rounds] [requests]
//! ```

#![expect(clippy::unwrap_used, reason = "a bench that cannot run says so")]
#![expect(clippy::print_stdout, reason = "it is what a bench is for")]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use semel_core::Ledger;
use semel_runtime::OsEntropy;
use semel_stores::memory::MemoryStore;
use semel_tower::{Body, Config, IdempotencyLayer};
use tower::util::BoxCloneSyncService;
use tower::{Service, service_fn};
use tower_layer::Layer as _;

const ORDER: &[u8] =
    br#"{"customerId":"CUST-001","priority":"standard","items":[{"sku":"SKU-001","quantity":2}]}"#;

/// The sides, in the order of the table.
const SIDES: [&str; 4] = ["bare", "no key", "first run", "replay"];

async fn reply<B>(request: Request<B>) -> Result<Response<Body>, Infallible>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    Ok(response)
}

fn request(key: Option<&HeaderValue>) -> Request<Full<Bytes>> {
    let mut request = Request::post("/orders").body(Full::new(Bytes::from_static(ORDER))).unwrap();
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    if let Some(key) = key {
        request.headers_mut().insert("idempotency-key", key.clone());
    }
    request
}

/// Nanoseconds for each request, with the time to make it.
async fn time<S>(mut service: S, keys: &[Option<HeaderValue>]) -> f64
where
    S: Service<Request<Full<Bytes>>, Response = Response<Body>, Error = Infallible>,
{
    let began = Instant::now();
    for key in keys {
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        let response = service.call(request(key.as_ref())).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes().len(), ORDER.len());
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(u32::try_from(keys.len()).unwrap())
}

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|number| number.parse::<usize>().unwrap());
    let rounds = arguments.next().unwrap_or(9);
    let requests = arguments.next().unwrap_or(20_000);
    let keys: Vec<_> = (0..requests)
        .map(|number| Some(HeaderValue::try_from(format!("8e03978e-40d5-43e8-bc93-{number:012}")).unwrap()))
        .collect();
    let none = vec![None; requests];
    let mut times: [Vec<f64>; 4] = Default::default();
    for round in 0..rounds {
        let store = Arc::new(MemoryStore::new());
        let layer = IdempotencyLayer::try_new(
            Ledger::new(store, Arc::new(OsEntropy)),
            Config::new("bench").shared_keys(true),
        );
        // Boxed on both sides, as a router does it.
        let layered = layer.unwrap().layer(BoxCloneSyncService::new(service_fn(reply::<Body>)));
        let bare = BoxCloneSyncService::new(service_fn(reply::<Full<Bytes>>));
        for turn in 0..SIDES.len() {
            // A replay needs its first run before it; the bare sides change places.
            let side = match (turn, round % 2) {
                (0, 1) => 1,
                (1, 1) => 0,
                (turn, _) => turn,
            };
            times[side].push(match side {
                0 => time(bare.clone(), &none).await,
                1 => time(layered.clone(), &none).await,
                _ => time(layered.clone(), &keys).await,
            });
        }
    }
    let (bare, _, _) = median(times[0].clone());
    println!(
        "{rounds} rounds of {requests} requests, one at a time; nanoseconds per request, median (lowest to highest)"
    );
    for (side, times) in SIDES.iter().zip(times) {
        let (middle, lowest, highest) = median(times);
        println!(
            "{side:>9}: {middle:7.0} ({lowest:.0} to {highest:.0}); added {:6.0}; {:.2} of bare",
            middle - bare,
            middle / bare
        );
    }
}
