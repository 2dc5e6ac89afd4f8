//! The service on `127.0.0.1:3000`, or where its argument says, with its keys under `./booking-data`. Try it twice:
//!
//! ```text
//! curl -i localhost:3000/bookings -H 'x-user: ada' -H 'Idempotency-Key: "k-1"' \
//!      -H 'content-type: application/json' -d '{"seat":"A1","guest":"Ada"}'
//! ```

use std::time::Duration;

use semel_example_booking_axum::{Bookings, app};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let ledger = semel::open("embedded:./booking-data").await?;
    let (router, idempotency) = app(ledger, Bookings::default())?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    let stopped = stopped()?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, router).with_graceful_shutdown(stopped).await?;
    idempotency.drain(Duration::from_secs(25)).await;
    Ok(())
}

/// Ends with Ctrl-C, and with what a supervisor sends: SIGTERM. They are listened for from here on.
#[cfg(unix)]
fn stopped() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ends with Ctrl-C.
#[cfg(not(unix))]
fn stopped() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async { tokio::signal::ctrl_c().await.unwrap_or_default() })
}
