//! `docs/guide/phases.md`: an order in four phases, under the layer.

use std::collections::BTreeMap;
use std::fmt;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use semel::{Config, IdempotencyLayer};
use serde::{Deserialize, Serialize};
use tower::ServiceExt as _;

#[derive(Deserialize)]
struct Order {
    sku: String,
}

#[derive(Serialize, Deserialize)]
struct Reservation {
    key: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct OrderId(String);

#[derive(Debug)]
struct AppError(&'static str);

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, self.0).into_response()
    }
}

/// What the phases have done for an order, one after the other; and whether its customer can be told.
static DONE: Mutex<BTreeMap<String, Vec<String>>> = Mutex::new(BTreeMap::new());

fn done(order: &str, what: impl Into<String>) -> usize {
    let mut done = DONE.lock();
    let all = done.entry(order.to_owned()).or_default();
    all.push(what.into());
    all.len()
}

async fn validate(order: &Order) -> Result<(), AppError> {
    done(&order.sku, "validated");
    Ok(())
}

async fn reserve(order: &Order, key: Option<String>) -> Result<Reservation, AppError> {
    done(&order.sku, format!("reserved under {}", key.clone().unwrap_or_default()));
    Ok(Reservation { key })
}

async fn insert(order: &Order, reservation: &Reservation) -> Result<OrderId, AppError> {
    done(&order.sku, format!("created, with {}", reservation.key.clone().unwrap_or_default()));
    Ok(OrderId(order.sku.clone()))
}

async fn notify(order: &OrderId) -> Result<(), AppError> {
    // The first time the mail server is away.
    if done(&order.0, "told") == 4 { Err(AppError("no mail")) } else { Ok(()) }
}

use semel::{PhaseError, Phases};

async fn create_order(
    phases: Phases,
    Json(order): Json<Order>,
) -> Result<impl IntoResponse, PhaseError<AppError>> {
    phases.phase("validated", || validate(&order)).await?;
    let key = phases.downstream_key("inventory_reserved").map_err(PhaseError::Invalid)?;
    let reservation: Reservation = phases.phase("inventory_reserved", || reserve(&order, key)).await?;
    let id: OrderId = phases.phase("order_created", || insert(&order, &reservation)).await?;
    phases.phase("notification_sent", || notify(&id)).await?;
    phases.finish()?;
    Ok((StatusCode::CREATED, Json(id)))
}

async fn ask(app: &Router, sku: &str, key: Option<&str>) -> (StatusCode, String) {
    let request = Request::post("/orders").header("content-type", "application/json");
    let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
    let request = request.body(Body::from(format!(r#"{{"sku":"{sku}"}}"#))).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_handler_of_the_guide_goes_on_where_it_stopped() {
    let ledger = semel::open("memory:").await.unwrap();
    let config = Config::new("orders").shared_keys(true);
    let layer = IdempotencyLayer::try_new(ledger, config).unwrap();
    let app = Router::new().route("/orders", post(create_order)).layer(layer);
    let (status, _) = ask(&app, "A-1", Some("key-1")).await;
    assert!(status.is_server_error(), "{status}");
    let placed = ask(&app, "A-1", Some("key-1")).await;
    assert_eq!(placed, (StatusCode::CREATED, r#""A-1""#.to_owned()));
    assert_eq!(ask(&app, "A-1", Some("key-1")).await, placed, "a replay");
    let of_the_order = DONE.lock()["A-1"].clone();
    let key = of_the_order[1].strip_prefix("reserved under ").unwrap();
    assert_eq!((key.len(), of_the_order.len()), (32, 5), "{of_the_order:?}");
    assert_eq!(of_the_order[0], "validated");
    assert_eq!(of_the_order[2..], [format!("created, with {key}"), "told".to_owned(), "told".to_owned()]);
    // Without a key the same code runs unprotected.
    assert!(ask(&app, "B-1", None).await.0.is_server_error());
    assert_eq!(DONE.lock()["B-1"], ["validated", "reserved under ", "created, with ", "told"]);
}
