//! Replies that stream, and replies larger than is kept: passed on whole, and recorded as done before they begin.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::BodyExt as _;
use semel_conformance::faulty::Fault;
use semel_core::record::StateName;
use semel_tower::{Body, Config, Steer, Streamed};
use tokio::sync::mpsc;

use crate::harness::{Bench, post, read, reply, request, shared};

/// A body of what comes through a channel, of which nobody knows the length.
struct Channel(mpsc::UnboundedReceiver<Result<&'static str, &'static str>>);

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|piece| {
            piece.map(|piece| match piece {
                Ok(text) => Ok(Frame::data(Bytes::from_static(text.as_bytes()))),
                Err(error) => Err(error.into()),
            })
        })
    }
}

fn channel() -> (mpsc::UnboundedSender<Result<&'static str, &'static str>>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Body::stream(Channel(receiver)))
}

fn pieces(texts: &[&'static str]) -> Body {
    let (sender, body) = channel();
    for text in texts {
        sender.send(Ok(text)).unwrap();
    }
    body
}

/// A service that gives out these bodies, one for each run.
fn giving(config: Config, replies: Vec<Response<Body>>) -> Bench {
    let replies = Arc::new(parking_lot::Mutex::new(VecDeque::from(replies)));
    Bench::serving(config, move |_, _| {
        let reply = replies.lock().pop_front().unwrap();
        async move { reply }
    })
}

fn events(body: Body) -> Response<Body> {
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

#[tokio::test]
async fn a_stream_is_recorded_as_done_before_its_first_byte_and_a_retry_is_410_l4() {
    let (sender, body) = channel();
    let bench = giving(shared("orders"), vec![events(body)]);
    let response = bench.start(post("k", "{}")).await;
    let records = bench.records().await;
    assert_eq!(records[0].state().name(), StateName::Completed, "though not a byte has come");
    assert!(response.headers().contains_key("idempotency-expires"));
    let retry = bench.send(post("k", "{}")).await;
    assert_eq!((retry.status, retry.code().as_str()), (410, "IDEMPOTENCY_RESULT_GONE"));
    assert!(retry.header("idempotency-expires").is_some());
    let mut body = response.into_body();
    for text in ["data: 1\n\n", "data: 2\n\n"] {
        sender.send(Ok(text)).unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), text, "as it comes");
    }
    drop(sender);
    assert!(body.frame().await.is_none());
    assert_eq!(bench.runs(), 1);
}

#[tokio::test]
async fn a_handler_can_mark_a_stream_and_grpc_that_does_not_come_at_once_is_one() {
    let mut marked = Response::new(pieces(&["a", "b"]));
    marked.extensions_mut().insert(Streamed);
    let (_more_may_come, body) = channel();
    let grpc = Response::builder().header("content-type", "application/grpc").body(body).unwrap();
    let web =
        Response::builder().header("content-type", "application/grpc-web").body(pieces(&["x"])).unwrap();
    for reply in [marked, grpc, web] {
        let bench = giving(shared("orders"), vec![reply]);
        assert_eq!(bench.start(post("k", "{}")).await.status(), 200);
        assert_eq!(bench.send(post("k", "{}")).await.status, 410);
        assert_eq!(bench.runs(), 1);
    }
}

#[tokio::test]
async fn trailers_are_replayed_behind_the_body_and_no_header_is_taken_for_one() {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-checksum", "7".parse().unwrap());
    trailers.insert("set-cookie", "a=1".parse().unwrap());
    let body = http_body_util::Full::new(Bytes::from("ab")).with_trailers(async move { Some(Ok(trailers)) });
    let mut reply = Response::new(Body::stream(body));
    reply.headers_mut().insert("semel-trailer-x-forged", "1".parse().unwrap());
    let bench = giving(shared("orders"), vec![reply]);
    for is_replay in [false, true] {
        let response = bench.start(post("k", "{}")).await;
        assert_eq!(response.headers().contains_key("idempotent-replayed"), is_replay);
        let collected = response.into_body().collect().await.unwrap();
        let trailers = collected.trailers().unwrap().clone();
        assert_eq!((trailers["x-checksum"].to_str().unwrap(), collected.to_bytes()), ("7", "ab".into()));
        assert_eq!(
            trailers.contains_key("set-cookie"),
            !is_replay,
            "what is never replayed is not here either"
        );
        assert!(!trailers.contains_key("x-forged"));
    }
}

#[tokio::test]
async fn an_unknown_length_alone_is_buffered_and_replayed() {
    let bench = giving(shared("orders"), vec![Response::new(pieces(&["ab", "cd"]))]);
    assert_eq!(bench.send(post("k", "{}")).await.body, "abcd");
    let again = bench.send(post("k", "{}")).await;
    assert_eq!((again.status, again.is_replay(), &again.body[..]), (200, true, &b"abcd"[..]));
}

#[tokio::test]
async fn a_reply_larger_than_is_kept_is_passed_on_whole_and_a_retry_is_410() {
    for body in [Body::from("123456789"), pieces(&["1234", "56789"]), pieces(&["123456789"])] {
        let bench = giving(shared("orders").max_response_size(8), vec![Response::new(body)]);
        let first = bench.send(post("k", "{}")).await;
        assert_eq!((first.status, &first.body[..]), (200, &b"123456789"[..]));
        let retry = bench.send(post("k", "{}")).await;
        assert_eq!((retry.status, retry.code().as_str(), bench.runs()), (410, "IDEMPOTENCY_RESULT_GONE", 1));
    }
    let bench = giving(shared("orders").max_response_size(8), vec![reply(200, "12345678")]);
    bench.send(post("k", "{}")).await;
    assert!(bench.send(post("k", "{}")).await.is_replay(), "the limit itself is kept");
}

#[tokio::test]
async fn a_stream_or_a_large_reply_that_is_not_kept_frees_the_key() {
    let failing = || {
        let mut reply = Response::new(pieces(&["123456789"]));
        *reply.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        reply
    };
    let mut steered = events(pieces(&["x"]));
    steered.extensions_mut().insert(Steer::Release);
    let config = shared("orders").max_response_size(8);
    let bench = giving(config, vec![failing(), steered, reply(201, "done")]);
    assert_eq!(bench.send(post("k", "{}")).await.body, "123456789");
    assert_eq!(bench.send(post("k", "{}")).await.body, "x");
    assert_eq!(bench.send(post("k", "{}")).await.status, 201);
    assert!(bench.send(post("k", "{}")).await.is_replay());
}

#[tokio::test]
async fn what_is_not_protected_is_not_buffered_either_way() {
    let (reply_sender, reply_body) = channel();
    let bench = giving(shared("orders"), vec![Response::new(reply_body)]);
    let (request_sender, request_body) = channel();
    let request = request(http::Method::POST, "/orders", &[], "").map(|_| request_body);
    let response = bench.start(request).await;
    request_sender.send(Ok("still sending")).ok();
    reply_sender.send(Ok("first")).unwrap();
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    reply_sender.send(Ok("second")).unwrap();
    drop(reply_sender);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "second");
}

#[tokio::test]
async fn a_stream_whose_client_goes_away_does_not_run_again() {
    let (sender, body) = channel();
    let bench = giving(shared("orders"), vec![events(body)]);
    drop(bench.start(post("k", "{}")).await);
    assert!(sender.is_closed());
    assert_eq!((bench.send(post("k", "{}")).await.status, bench.runs()), (410, 1));
}

#[tokio::test]
async fn a_body_of_a_request_that_ends_early_is_400_and_nothing_runs() {
    let bench = giving(shared("orders"), Vec::new());
    let (sender, body) = channel();
    sender.send(Ok("{")).unwrap();
    sender.send(Err("reset")).unwrap();
    let answer = read(bench.start(post("k", "").map(|_| body)).await).await;
    assert_eq!((answer.status, answer.code().as_str(), bench.runs()), (400, "VALIDATION_FAILED", 0));
    assert!(bench.records().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_400_in_time_and_a_client_that_leaves_meanwhile_leaves_nothing() {
    let bench = giving(shared("orders"), Vec::new());
    let (_sender, body) = channel();
    let answer = read(bench.start(post("k", "").map(|_| body)).await).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "VALIDATION_FAILED"));
    let (_sender, body) = channel();
    let waiting = bench.start(post("k", "").map(|_| body));
    tokio::select! {
        _ = waiting => panic!("it waits for its body"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!((bench.runs(), bench.records().await.len()), (0, 0));
}

/// A request's body that must not be looked at.
struct Unread;

impl http_body::Body for Unread {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        panic!("the body is read")
    }
}

#[tokio::test]
async fn a_key_is_validated_before_the_body_is_read_and_the_store_is_asked() {
    let config = shared("orders").require_key(true).max_key_length(8);
    let bench = giving(config, vec![reply(201, "")]);
    bench.store.script(&[Fault::Refused]);
    let headers: [&[(&str, &str)]; 4] = [
        &[],
        &[("idempotency-key", "a b")],
        &[("idempotency-key", "123456789")],
        &[("idempotency-key", "a"), ("idempotency-key", "a")],
    ];
    for headers in headers {
        let unread = request(http::Method::POST, "/orders", headers, "").map(|_| Body::stream(Unread));
        assert_eq!(bench.send(unread).await.status, 400, "{headers:?}");
    }
    assert_eq!(bench.post("k").await.status, 503, "only now is the store asked, and fails as it is told");
    assert_eq!(bench.runs(), 0);
}
