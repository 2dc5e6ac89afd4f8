//! The service on `127.0.0.1:3000`, with its keys under `./booking-data`. Try it twice:
//!
//! ```text
//! curl -i localhost:3000/bookings -H 'x-user: ada' -H 'Idempotency-Key: "k-1"' \
//!      -H 'content-type: application/json' -d '{"seat":"A1","guest":"Ada"}'
//! ```

use std::time::Duration;

use semel_example_booking_axum::{Bookings, app};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ledger = semel::open("embedded:./booking-data")?;
    let (router, idempotency) = app(ledger, Bookings::default())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    let stopped = async {
        tokio::signal::ctrl_c().await.ok();
    };
    axum::serve(listener, router).with_graceful_shutdown(stopped).await?;
    idempotency.drain(Duration::from_secs(25)).await;
    Ok(())
}
