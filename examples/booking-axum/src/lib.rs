//! Seats of a show, booked over HTTP. A client whose connection breaks sends its request again, with the same key, and
//! has booked one seat and not two.
//!
//! Everything about idempotency stands in [`app`]: a layer around the routes, and one rule for the route that takes
//! money. The handlers know nothing of it, but for [`pay`], which hands its own key on to the payment provider.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use semel::{Caller, Claimed, Config, IdempotencyLayer, Ledger, OnServerError, RouteOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What is booked. It stands for a database.
#[derive(Clone, Debug, Default)]
pub struct Bookings(Arc<Mutex<Books>>);

#[derive(Debug, Default)]
struct Books {
    bookings: BTreeMap<u32, Booking>,
    /// What the payment provider has charged, by the key that it was given: it, too, charges once per key.
    charges: BTreeMap<String, u32>,
}

/// A seat, and whose it is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Booking {
    /// The seat.
    pub seat: String,
    /// Who sits on it.
    pub guest: String,
}

impl Bookings {
    fn with<T>(&self, work: impl FnOnce(&mut Books) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.with(|books| books.bookings.len())
    }

    /// How often something was charged.
    pub fn charges(&self) -> usize {
        self.with(|books| books.charges.len())
    }
}

/// The service, and the layer to drain when it has stopped accepting.
///
/// # Errors
/// The configuration is not within the limits.
pub fn app(
    ledger: Ledger,
    bookings: Bookings,
) -> Result<(Router, IdempotencyLayer), Box<dyn std::error::Error>> {
    let config = Config::new("booking")
        .require_key(true)
        // Who is logged in: here a header, in earnest what an authenticating layer has put into the request.
        .caller(|parts| match parts.headers.get("x-user").and_then(|user| user.to_str().ok()) {
            Some(user) => Caller::Known(user.to_owned()),
            None => Caller::Nobody,
        })
        // Nobody is charged again because a proxy said 502.
        .route("POST /bookings/{id}/payment", RouteOptions::new().on_5xx(OnServerError::Unknown))?;
    let idempotency = IdempotencyLayer::try_new(ledger, config)?;
    let router = Router::new()
        .route("/bookings", post(book))
        .route("/bookings", get(list))
        .route("/bookings/{id}/payment", post(pay))
        .layer(idempotency.clone())
        .with_state(bookings);
    Ok((router, idempotency))
}

async fn book(State(bookings): State<Bookings>, Json(booking): Json<Booking>) -> (StatusCode, Json<Value>) {
    let id = bookings.with(|books| {
        let id = u32::try_from(books.bookings.len()).unwrap_or(u32::MAX) + 1;
        books.bookings.insert(id, booking.clone());
        id
    });
    (StatusCode::CREATED, Json(json!({ "id": id, "booking": booking })))
}

async fn list(State(bookings): State<Bookings>) -> Json<Vec<Booking>> {
    Json(bookings.with(|books| books.bookings.values().cloned().collect()))
}

/// The provider is handed a key that is the same on every attempt and nobody else's.
async fn pay(
    State(bookings): State<Bookings>,
    Path(id): Path<u32>,
    claimed: Claimed,
) -> Result<Json<Value>, StatusCode> {
    bookings.with(|books| {
        if !books.bookings.contains_key(&id) {
            return Err(StatusCode::NOT_FOUND);
        }
        books.charges.insert(claimed.downstream_key(), id);
        Ok(Json(json!({ "paid": id })))
    })
}
