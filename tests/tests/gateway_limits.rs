//! Where the gateway ends what has no end, and refuses what it cannot pass on rightly.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http::raw;
use crate::server::Server;
use crate::upstream::Upstream;

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.gateway_url().replace("http://", "")).await.unwrap()
}

#[tokio::test]
async fn a_head_above_its_limit_is_refused_as_at_the_other_doors() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("")).await;
    let head = |filler: usize| {
        format!("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Filler: {}\r\n\r\n", "x".repeat(filler))
    };
    let fits = raw(&server.gateway_url(), head(30_000).as_bytes()).await;
    assert!(fits.starts_with(b"HTTP/1.1 201 "), "{}", String::from_utf8_lossy(&fits));
    let refused = String::from_utf8(raw(&server.gateway_url(), head(40_000).as_bytes()).await).unwrap();
    assert!(refused.starts_with("HTTP/1.1 431 ") && refused.contains("HEADERS_TOO_LARGE"), "{refused}");
    let path = "x".repeat(40_000);
    let long = format!("GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let refused = String::from_utf8(raw(&server.gateway_url(), long.as_bytes()).await).unwrap();
    assert!(refused.contains("HEADERS_TOO_LARGE"), "a path counts as well: {refused}");
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_body_in_a_transfer_coding_is_refused_and_never_passed_for_its_content() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("")).await;
    for key in ["", "Idempotency-Key: k-1\r\n"] {
        let request = format!(
            "POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{key}Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        );
        let answer = String::from_utf8(raw(&server.gateway_url(), request.as_bytes()).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 501 ") && answer.contains("transfer-encoding"), "{answer}");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn an_error_of_the_gateways_own_names_the_page_of_its_code() {
    let server =
        Server::start("[gateway]\nlisten = \"127.0.0.1:0\"\nupstream = \"http://127.0.0.1:1\"\n").await;
    for (key, code) in
        [("", "TARGET_UNAVAILABLE"), ("k-1", "TARGET_UNAVAILABLE"), ("k\u{e9}", "IDEMPOTENCY_KEY_INVALID")]
    {
        let headers: &[(&str, &str)] = if key.is_empty() { &[] } else { &[("idempotency-key", key)] };
        let answer = server.http().post(&server.gateway_url(), headers, "{}").await.unwrap();
        assert_eq!(answer.json()["code"], code);
        let link = answer.header("link").unwrap_or_else(|| panic!("{code} has no link"));
        assert!(link.contains(code) && link.contains("rel=\"describedby\""), "{link}");
    }
}

#[tokio::test]
async fn a_connection_of_another_protocol_is_cut_when_nothing_moves_on_it() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("upgrade_idle_timeout = \"700ms\"")).await;
    let mut stream = connect(&server).await;
    let upgrade = b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(upgrade).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream.write_all(b"moves").await.unwrap();
    let mut said = [0; 5];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"moves");
    let ended = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut said)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "nobody waits for ever: {ended:?}");
}

#[tokio::test]
async fn sigterm_waits_for_no_body_that_has_not_arrived_whole() {
    let upstream = Upstream::start().await;
    let config = upstream.gateway("") + "[server]\nshutdown_grace = \"50s\"\n";
    let mut server = Server::start(&config).await;
    let half = |key: &str| format!("POST /a HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 100\r\n\r\nhalf");
    let (mut keyed, mut plain) = (connect(&server).await, connect(&server).await);
    keyed.write_all(half("Idempotency-Key: k-1\r\n").as_bytes()).await.unwrap();
    plain.write_all(half("").as_bytes()).await.unwrap();
    // Whoever is answered now came after them.
    assert_eq!(server.http().get(&server.gateway_url(), &[]).await.unwrap().status, 201);
    let asked = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    let mut told = Vec::new();
    // A connection that is closed with bytes unread may be reset.
    let _ = keyed.read_to_end(&mut told).await;
    let told = String::from_utf8(told).unwrap();
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 503 ") && told.contains("OVERLOADED"), "{told}");
    assert_eq!(upstream.seen().iter().filter(|seen| seen["uri"] == "/a").count(), 0);
}

#[tokio::test]
async fn keys_that_a_reload_does_not_take_over_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start().await;
    let server = Server::start_in(folder.path(), &upstream.gateway("max_in_progress = 10")).await;
    let changed =
        upstream.gateway("max_in_progress = 20\nretention = \"7d\"") + "[dispatcher]\nconcurrency = 7\n";
    std::fs::write(folder.path().join("semel.toml"), changed).unwrap();
    server.signal(Signal::HUP);
    server.logged("the configuration was read again").await;
    server.logged("take effect at the next start").await;
    let log = server.log();
    let line = log.lines().find(|line| line.contains("take effect at the next start")).unwrap();
    assert!(line.contains("dispatcher.concurrency, gateway.max_in_progress"), "{line}");
    assert!(!line.contains("retention"), "what holds at once needs no restart: {line}");
}
