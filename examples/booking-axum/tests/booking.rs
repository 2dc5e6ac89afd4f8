//! The service on a real socket: a client that retries, one whose connection is cut, one that pays.

#![expect(clippy::unwrap_used, reason = "here, an expectation that is not met is a test that fails")]

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use semel_example_booking_axum::{Bookings, app};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

/// The service, listening, with its keys in a folder.
struct Service {
    address: std::net::SocketAddr,
    bookings: Bookings,
    idempotency: semel::IdempotencyLayer,
    _folder: tempfile::TempDir,
}

impl Service {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger = semel::open(&format!("embedded:{}", folder.path().display())).await.unwrap();
        let bookings = Bookings::default();
        let (router, idempotency) = app(ledger, bookings.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, bookings, idempotency, _folder: folder }
    }

    async fn post(&self, uri: &str, user: &str, key: &str, body: &'static str) -> (u16, HeaderMap, Bytes) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(uri)
            .header("host", "booking")
            .header("x-user", user)
            .header("idempotency-key", key)
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap();
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        (parts.status.as_u16(), parts.headers, body.collect().await.unwrap().to_bytes())
    }
}

const SEAT: &str = r#"{"seat":"A1","guest":"Ada"}"#;

#[tokio::test]
async fn a_client_that_sends_its_request_again_has_booked_one_seat() {
    let service = Service::start().await;
    let (status, headers, first) = service.post("/bookings", "ada", "\"k-1\"", SEAT).await;
    assert_eq!((status, headers.contains_key("idempotent-replayed")), (201, false));
    let (status, headers, again) = service.post("/bookings", "ada", "\"k-1\"", SEAT).await;
    assert_eq!((status, &headers["idempotent-replayed"], again), (201, &"true".parse().unwrap(), first));
    let (status, _, _) = service.post("/bookings", "ada", "\"k-1\"", r#"{"seat":"B2","guest":"Ada"}"#).await;
    assert_eq!((status, service.bookings.count()), (422, 1));
    let (status, headers, _) = service.post("/bookings", "bob", "\"k-1\"", SEAT).await;
    assert_eq!((status, headers.contains_key("idempotent-replayed")), (201, false), "Bob's key is his own");
}

#[tokio::test]
async fn a_connection_that_is_cut_after_sending_books_one_seat_as_well() {
    let service = Service::start().await;
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    let request = format!(
        "POST /bookings HTTP/1.1\r\nhost: booking\r\nx-user: ada\r\nidempotency-key: cut\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{SEAT}",
        SEAT.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let (status, _, _) = service.post("/bookings", "ada", "cut", SEAT).await;
    assert!([201, 409].contains(&status), "{status}");
    assert!(service.idempotency.drain(Duration::from_secs(10)).await);
    assert_eq!(service.bookings.count(), 1);
}

#[tokio::test]
async fn a_booking_is_paid_once_and_the_provider_is_given_one_key() {
    let service = Service::start().await;
    service.post("/bookings", "ada", "k-1", SEAT).await;
    for _ in 0..3 {
        assert_eq!(service.post("/bookings/1/payment", "ada", "k-2", "").await.0, 200);
    }
    assert_eq!(service.bookings.charges(), 1);
    assert_eq!(service.post("/bookings/9/payment", "ada", "k-3", "").await.0, 404);
}

#[cfg(unix)]
#[tokio::test]
async fn sigterm_and_ctrl_c_end_the_service_in_peace() {
    use rustix::process::{Pid, Signal, kill_process};
    use tokio::io::{AsyncBufReadExt as _, BufReader};

    for signal in [Signal::TERM, Signal::INT] {
        let folder = tempfile::tempdir().unwrap();
        let mut service = tokio::process::Command::new(env!("CARGO_BIN_EXE_semel-example-booking-axum"))
            .arg("127.0.0.1:0")
            .current_dir(folder.path())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(service.stdout.take().unwrap()).read_line(&mut said).await.unwrap();
        assert!(said.starts_with("listening on 127.0.0.1:"), "{said}");
        let id = Pid::from_raw(service.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(30), service.wait()).await.unwrap().unwrap();
        assert!(ended.success(), "{signal:?}: {ended}");
    }
}
