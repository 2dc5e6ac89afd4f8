//! What a failed exchange proves, against upstreams that are scripted byte by byte.

use std::time::Duration;

use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::{Connector, Failed, Sent, Times, Upstream};
use crate::gateway::body::Outgoing;
use crate::gateway::testing::config_of;
use crate::telemetry::metrics::Metrics;

/// The type of a HEADERS frame (RFC 9113, section 6.2).
const HEADERS: u8 = 1;
/// SETTINGS, without any.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

fn rst_stream(code: u8) -> Vec<u8> {
    vec![0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, code]
}

fn goaway(last_stream: u8, code: u8) -> Vec<u8> {
    vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last_stream, 0, 0, 0, code]
}

/// What an upstream does once it has the head of a request.
#[derive(Clone)]
struct Script {
    says: Vec<u8>,
    closes: bool,
}

/// Reads the preface, then frames until there is a request.
async fn until_a_request(stream: &mut TcpStream) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    stream.write_all(SETTINGS).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        if head[3] == HEADERS {
            return;
        }
    }
}

fn upstream(address: &str, protocol: &str) -> std::sync::Arc<Upstream> {
    let text = format!(
        "[gateway]\n[[gateway.upstreams]]\nname = \"a\"\nurl = \"http://{address}\"\nprotocol = \"{protocol}\"\n"
    );
    let config = config_of(&text);
    let connector = Connector::new(&config.targets).unwrap();
    Upstream::start(&config.gateway.unwrap().upstreams[0], &connector, &Metrics::new("semel", []))
}

const TIMES: Times = Times { first_byte: Duration::from_secs(30), deadline: None };

fn request() -> Request<Outgoing> {
    Request::post("/charges").header("host", "a").body(Outgoing::Empty).unwrap()
}

fn proves(failed: &Failed) -> &'static str {
    match failed.sent {
        Sent::Nothing(_) | Sent::NothingButSpent => "nothing was done",
        Sent::Something => "it may have been done",
    }
}

/// What is known after an exchange over HTTP/2 with an upstream that follows the script.
async fn over_http2(script: Script) -> &'static str {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let scripted = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        until_a_request(&mut stream).await;
        stream.write_all(&script.says).await.unwrap();
        if !script.closes {
            // Stays open, and says nothing more.
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.ok();
        }
    });
    let failed = upstream(&address, "h2").exchange(request(), TIMES).await.err().expect("no answer");
    scripted.abort();
    proves(&failed)
}

#[tokio::test]
async fn a_stream_that_was_refused_or_lies_above_a_goaway_was_not_executed() {
    const REFUSED_STREAM: u8 = 7;
    const INTERNAL_ERROR: u8 = 2;
    const CANCEL: u8 = 8;
    let (nothing, maybe) = ("nothing was done", "it may have been done");
    for (says, closes, expected) in [
        (rst_stream(REFUSED_STREAM), false, nothing),
        (goaway(0, 0), false, nothing),
        (goaway(0, INTERNAL_ERROR), false, nothing),
        (goaway(0, 0), true, nothing),
        (rst_stream(INTERNAL_ERROR), false, maybe),
        (rst_stream(CANCEL), false, maybe),
        (goaway(1, 0), true, maybe),
        (goaway(1, INTERNAL_ERROR), true, maybe),
        (Vec::new(), true, maybe),
    ] {
        assert_eq!(over_http2(Script { says: says.clone(), closes }).await, expected, "{says:?} {closes}");
    }
}

#[tokio::test]
async fn over_http_1_what_was_written_may_have_been_done_and_what_was_not_was_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let upstream = upstream(&address, "http1");
    let cut_after = async |bytes: usize| {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = vec![0; bytes];
        stream.read_exact(&mut read).await.unwrap();
    };
    for bytes in [1, 10, 30] {
        let (failed, ()) = tokio::join!(upstream.exchange(request(), TIMES), cut_after(bytes));
        assert_eq!(proves(&failed.err().unwrap()), "it may have been done", "{bytes}");
    }
    let late = Times { first_byte: Duration::from_millis(50), ..TIMES };
    let (failed, accepted) = tokio::join!(upstream.exchange(request(), late), listener.accept());
    let failed = failed.err().unwrap();
    assert_eq!((proves(&failed), failed.timed_out), ("it may have been done", true));
    drop((accepted, listener));
    let failed = upstream.exchange(request(), TIMES).await.err().unwrap();
    assert_eq!(proves(&failed), "nothing was done", "nobody listens");
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_was_idle_is_replaced_before_anything_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = upstream(&listener.local_addr().unwrap().to_string(), "http1");
    let served = tokio::spawn(async move {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 1024];
            let _ = stream.read(&mut bytes).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            // It is closed without having said that it would be.
        }
    });
    for _ in 0..3 {
        let (response, lent) = upstream.exchange(request(), TIMES).await.ok().expect("an answer");
        assert_eq!(response.status(), 204);
        lent.give_back();
        // The close has to arrive; until then nobody can know of it.
        let seen = Instant::now();
        while upstream.endpoints[0].has_idle() {
            assert!(seen.elapsed() < Duration::from_secs(30), "the close does not arrive");
            tokio::task::yield_now().await;
        }
    }
    served.await.unwrap();
}
