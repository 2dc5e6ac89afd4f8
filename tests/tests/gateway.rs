//! The gateway as a proxy: requests go through as they are, and nothing of one connection reaches the other.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http::raw;
use crate::server::Server;
use crate::upstream::Upstream;
use crate::wait::eventually;

/// All values of a header that an upstream has seen.
fn header<'a>(seen: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = seen["headers"].as_array().unwrap();
    let named = headers.iter().filter(|header| header[0] == name);
    named.map(|header| header[1].as_str().unwrap()).collect()
}

/// A connection to the gateway, to speak over by hand.
async fn connect(server: &Server) -> TcpStream {
    let address = server.gateway_url().replace("http://", "");
    TcpStream::connect(address).await.unwrap()
}

/// Reads until the text is there.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    let found = async {
        while !String::from_utf8_lossy(&read).contains(text) {
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).await.unwrap();
            assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&read));
            read.extend_from_slice(&bytes[..count]);
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(60), found).await;
    assert!(found.is_ok(), "no {text:?} in {:?}", String::from_utf8_lossy(&read));
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn a_request_and_its_answer_go_through_as_they_are() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("protect = false")).await;
    let url = format!("{}/a/b%20c?d=e&f=%2F", server.gateway_url());
    let headers = [("x-own", "1"), ("x-own", "2"), ("cookie", "a=b"), ("idempotency-key", "k")];
    let answer = server.http().send("PATCH", &url, &headers, r#"{"z":1.10}"#).await.unwrap();
    assert_eq!(answer.status, 201);
    let kept: Vec<_> = answer.headers.get_all("x-kept").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!((kept, answer.header("set-cookie")), (vec!["one", "two"], Some("session=1")));
    let seen = &upstream.seen()[0];
    assert_eq!(answer.json(), *seen, "the answer is the upstream's, byte for byte");
    assert_eq!(
        (&seen["method"], &seen["uri"], &seen["body"]),
        (&"PATCH".into(), &"/a/b%20c?d=e&f=%2F".into(), &r#"{"z":1.10}"#.into())
    );
    assert_eq!((header(seen, "x-own"), header(seen, "cookie")), (vec!["1", "2"], vec!["a=b"]));
    assert_eq!((header(seen, "idempotency-key"), header(seen, "content-length")), (vec!["k"], vec!["10"]));
    let again = server.http().send("PATCH", &url, &headers, r#"{"z":1.10}"#).await.unwrap();
    assert_eq!(again.json()["run"], 2, "without the contract a key means nothing");
    assert_eq!(upstream.connections(), 1, "the connection is used again");
}

#[tokio::test]
async fn what_belongs_to_one_connection_is_not_passed_on_in_either_direction() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("protect = false")).await;
    let request = "POST /a HTTP/1.1\r\nHost: shop.example\r\nConnection: x-private, close\r\nX-Private: 1\r\n\
        Keep-Alive: timeout=9\r\nTE: gzip\r\nProxy-Authorization: Basic eDp5\r\nSemel-Fence: 9\r\n\
        Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let answer = String::from_utf8(raw(&server.gateway_url(), request.as_bytes()).await).unwrap();
    let (head, _) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert!(head.starts_with("http/1.1 201"), "{head}");
    for gone in ["x-private", "keep-alive"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    assert!(head.contains("via: 1.1 semel"), "{head}");
    let seen = &upstream.seen()[0];
    assert_eq!(seen["body"], "abc");
    for gone in ["connection", "x-private", "keep-alive", "te", "proxy-authorization", "semel-fence"] {
        assert_eq!(header(seen, gone), Vec::<&str>::new(), "{gone}");
    }
    assert_eq!(header(seen, "transfer-encoding"), ["chunked"], "the next hop's own");
}

#[tokio::test]
async fn upstreams_are_told_who_asked_and_believe_no_stranger() {
    let upstream = Upstream::start().await;
    let given = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=203.0.113.9"),
    ];
    let server = Server::start(&upstream.gateway("protect = false")).await;
    server.http().get(&format!("{}/a", server.gateway_url()), &given).await.unwrap();
    let host = server.gateway_url().replace("http://", "");
    let seen = &upstream.seen()[0];
    assert_eq!(header(seen, "host"), [host.as_str()]);
    assert_eq!(header(seen, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(
        (header(seen, "x-forwarded-proto"), header(seen, "x-forwarded-host")),
        (vec!["http"], vec![host.as_str()])
    );
    assert_eq!(header(seen, "forwarded"), [format!("for=127.0.0.1;host=\"{host}\";proto=http")]);
    assert_eq!(header(seen, "x-request-id").len(), 1);

    let trusting = "protect = false\ntrusted_proxies = [\"127.0.0.0/8\"]\nforwarded = \"x-forwarded\"";
    let server = Server::start(&upstream.gateway(trusting)).await;
    server.http().get(&format!("{}/a", server.gateway_url()), &given).await.unwrap();
    let seen = &upstream.seen()[1];
    assert_eq!(header(seen, "x-forwarded-for"), ["203.0.113.9, 127.0.0.1"]);
    assert_eq!(
        (header(seen, "x-forwarded-proto"), header(seen, "forwarded")),
        (vec!["https"], vec!["for=203.0.113.9"])
    );
    // One that has said it in the standard way only has said it for those, too, who read the other.
    let standard = [("forwarded", "for=\"[2001:db8::1]:80\";proto=https, for=203.0.113.9")];
    server.http().get(&format!("{}/a", server.gateway_url()), &standard).await.unwrap();
    let seen = &upstream.seen()[2];
    assert_eq!(header(seen, "x-forwarded-for"), ["2001:db8::1, 203.0.113.9, 127.0.0.1"]);
    assert_eq!(header(seen, "x-forwarded-proto"), ["https"]);
}

#[tokio::test]
async fn streams_come_piece_by_piece_and_uploads_go_piece_by_piece() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("protect = false")).await;
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.contains("text/event-stream"), "the head comes before there is an event: {head}");
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        upstream.push(event);
        read_until(&mut stream, event).await;
    }
    upstream.end_streams();
    read_until(&mut stream, "0\r\n\r\n").await;

    // The same connection goes on, with a body that the client has not finished when it is answered.
    stream
        .write_all(b"PUT /early/202 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc")
        .await
        .unwrap();
    read_until(&mut stream, "HTTP/1.1 202").await;
}

#[tokio::test]
async fn large_bodies_go_through_whole_in_both_directions() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("protect = false")).await;
    let url = server.gateway_url();
    let large = "y".repeat(20 * 1024 * 1024);
    let answer = server.http().post(&format!("{url}/large"), &[], large.clone()).await.unwrap();
    assert_eq!((answer.status, upstream.seen()[0]["body"].as_str().unwrap().len()), (201, large.len()));
    let answer = server.http().get(&format!("{url}/bytes/20000000"), &[]).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 20_000_000));
    assert_eq!(answer.header("content-length"), Some("20000000"));
    let answer = server.http().send("HEAD", &format!("{url}/bytes/300"), &[], "").await.unwrap();
    assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (200, Some("300"), 0));
    let answer = server.http().get(&format!("{url}/empty"), &[]).await.unwrap();
    assert_eq!((answer.status, answer.header("content-length")), (204, None));
}

#[tokio::test]
async fn a_connection_that_changes_its_protocol_carries_bytes_both_ways() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("protect = false")).await;
    let mut stream = connect(&server).await;
    let asked =
        b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(asked).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await.to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    for said in ["one\0\u{1}", "two"] {
        stream.write_all(said.as_bytes()).await.unwrap();
        read_until(&mut stream, said).await;
    }
    drop(stream);
    // When the server stops, it waits for such a connection a little, and not for ever; for events likewise.
    let (mut stream, mut events) = (connect(&server).await, connect(&server).await);
    stream.write_all(asked).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    events.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut events, "\r\n\r\n").await;
    assert_eq!(server.stop().await.code(), Some(0));
}

#[tokio::test]
async fn an_expected_continue_is_given_when_the_body_is_wanted() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("protect = false")).await;
    let mut stream = connect(&server).await;
    stream
        .write_all(b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut stream, "HTTP/1.1 100").await;
    stream.write_all(b"abc").await.unwrap();
    read_until(&mut stream, "HTTP/1.1 201").await;
    assert_eq!(upstream.seen()[0]["body"], "abc");
    assert!(header(&upstream.seen()[0], "expect").is_empty());
}

#[tokio::test]
async fn what_two_servers_would_read_differently_is_one_request_or_none() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("protect = false")).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = smuggled.len() + 5;
    let cases = [
        format!(
            "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!(
            "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{smuggled}"
        ),
        format!(
            "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\nConnection: close\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!(
            "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\nConnection: close\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!("POST /a HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n{smuggled}"),
        format!("POST /a HTTP/1.1\r\nConnection: close\r\n\r\n{smuggled}"),
        format!("POST /a/../b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{smuggled}"),
    ];
    for (number, case) in cases.iter().enumerate() {
        let answer = String::from_utf8(raw(&server.gateway_url(), case.as_bytes()).await).unwrap();
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "case {number}: {answer}");
    }
    let smuggled = upstream.seen().iter().filter(|seen| seen["uri"] == "/smuggled").count();
    assert_eq!(smuggled, 0, "{:?}", upstream.seen());
}

#[tokio::test]
async fn requests_go_to_the_upstream_of_their_host_and_path_and_to_none_otherwise() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let config = format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\nprotect = false\n[[gateway.upstreams]]\nname = \"one\"\nurl = \"{}\"\n\
         hosts = [\"one.example\"]\n[[gateway.upstreams]]\nname = \"two\"\nurl = \"{}\"\npaths = [\"/two\"]\n\
         preserve_host = false\n[[gateway.routes]]\nmatch = \"GET /special/{{id}}\"\nupstream = \"two\"\n",
        one.url(),
        two.url()
    );
    let server = Server::start(&config).await;
    let status = async |host: &str, path: &str| {
        let url = format!("{}{path}", server.gateway_url());
        server.http().get(&url, &[("host", host)]).await.unwrap().status
    };
    assert_eq!(status("one.example", "/a").await, 201);
    assert_eq!((one.seen().len(), two.seen().len()), (1, 0));
    assert_eq!(status("else.example", "/two/a").await, 201);
    assert_eq!(status("one.example", "/special/7").await, 201);
    assert_eq!((one.seen().len(), two.seen().len()), (1, 2));
    assert_eq!(header(&two.seen()[0], "host"), [two.address().to_string()], "its own");
    assert_eq!(header(&two.seen()[0], "x-forwarded-host"), ["else.example"]);
    let answer = server.http().get(&server.gateway_url(), &[("host", "else.example")]).await.unwrap();
    assert_eq!((answer.status, answer.json()["code"].as_str()), (404, Some("NOT_FOUND")));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "the profile's form");
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_503_and_another_address_is_tried() {
    let upstream = Upstream::start().await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    let config = |urls: &str| {
        format!(
            "[gateway]\nlisten = \"127.0.0.1:0\"\nprotect = false\nprofile = \"wms\"\n[[gateway.upstreams]]\n\
             name = \"a\"\nurls = [{urls}]\n"
        )
    };
    let server = Server::start(&config(&format!("\"http://{nobody}\""))).await;
    let answer = server.http().get(&server.gateway_url(), &[]).await.unwrap();
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("TARGET_UNAVAILABLE")));
    assert!(answer.header("retry-after").is_some());
    let server = Server::start(&config(&format!("\"http://{nobody}\", \"{}\"", upstream.url()))).await;
    for _ in 0..6 {
        let answer = server.http().post(&server.gateway_url(), &[], "body").await.unwrap();
        assert_eq!((answer.status, answer.json()["body"].as_str()), (201, Some("body")));
    }
}

#[tokio::test]
async fn requests_are_spread_over_the_addresses_of_an_upstream() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let config = format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\nprotect = false\n[[gateway.upstreams]]\nname = \"a\"\n\
         urls = [\"{}\", \"{}\"]\n",
        one.url(),
        two.url()
    );
    let server = Server::start(&config).await;
    for _ in 0..10 {
        server.http().get(&server.gateway_url(), &[]).await.unwrap();
    }
    assert_eq!((one.seen().len(), two.seen().len()), (5, 5));
}

#[tokio::test]
async fn an_address_that_says_that_it_is_not_well_is_avoided_until_it_is() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let health =
        "health = { path = \"/gated\", interval = \"20ms\", timeout = \"200ms\", fall = 1, rise = 1 }";
    let config = format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\nprotect = false\n[[gateway.upstreams]]\nname = \"a\"\n\
         urls = [\"{}\", \"{}\"]\n{health}\n",
        one.url(),
        two.url()
    );
    let server = Server::start(&config).await;
    one.close();
    server.logged("does not say any more that it is well").await;
    for _ in 0..6 {
        let answer = server.http().get(&format!("{}/counted", server.gateway_url()), &[]).await.unwrap();
        assert_eq!(answer.status, 201);
    }
    let counted =
        |upstream: &Upstream| upstream.seen().iter().filter(|seen| seen["uri"] == "/counted").count();
    assert_eq!((counted(&one), counted(&two)), (0, 6));
    one.open();
    server.logged("says that it is well again").await;
    for _ in 0..6 {
        server.http().get(&format!("{}/counted", server.gateway_url()), &[]).await.unwrap();
    }
    assert!(counted(&one) > 0);
}

#[tokio::test]
async fn times_run_out_with_a_504_and_a_long_upload_is_no_slow_upstream() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("protect = false\nfirst_byte_timeout = \"300ms\"")).await;
    let answer = server.http().get(&format!("{}/silent", server.gateway_url()), &[]).await.unwrap();
    assert_eq!((answer.status, answer.json()["code"].as_str()), (504, Some("OUTCOME_UNKNOWN")));
    let mut stream = connect(&server).await;
    stream.write_all(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n").await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.write_all(b"x").await.unwrap();
    }
    read_until(&mut stream, "HTTP/1.1 201").await;
}

#[tokio::test]
async fn a_stream_that_stands_still_is_cut_and_so_is_an_answer_that_breaks_off() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("protect = false\nidle_timeout = \"200ms\"")).await;
    let error = server.http().get(&format!("{}/stream", server.gateway_url()), &[]).await.unwrap_err();
    assert!(!error.is_empty());
    let error = server.http().get(&format!("{}/half", server.gateway_url()), &[]).await.unwrap_err();
    assert!(!error.is_empty(), "a part is never passed for the whole");
    let server = Server::start(&upstream.gateway("protect = false\ntimeout = \"300ms\"")).await;
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut read = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut read)).await;
    assert!(ended.is_ok(), "the whole exchange has its time, whatever moves");
    assert!(!String::from_utf8_lossy(&read).contains("0\r\n\r\n"), "it does not look whole");
}

#[tokio::test]
async fn above_the_bound_requests_are_refused_and_nothing_waits_for_room() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("max_in_progress = 1")).await;
    upstream.close();
    let url = format!("{}/gated", server.gateway_url());
    let first = server.http().post(&url, &[("idempotency-key", "k-1")], "{}");
    let second = async {
        upstream.arrived(1).await;
        let refused = server.http().get(&server.gateway_url(), &[]).await.unwrap();
        assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("OVERLOADED")));
        assert!(refused.header("retry-after").is_some());
        upstream.open();
    };
    let (first, ()) = tokio::join!(first, second);
    assert_eq!((first.unwrap().status, upstream.seen().len()), (201, 1));
}

/// Asks until there is room for a request; those before are refused.
async fn has_room(server: &Server) {
    eventually("room for another request", async || {
        let answer = server.http().get(&server.gateway_url(), &[]).await.unwrap();
        (answer.status != 503).then_some(())
    })
    .await;
}

async fn is_full(server: &Server) -> bool {
    let refused = server.http().get(&server.gateway_url(), &[]).await.unwrap();
    (refused.status, refused.json()["code"].as_str()) == (503, Some("OVERLOADED"))
}

#[tokio::test]
async fn work_whose_client_has_left_counts_until_it_ends_and_its_request_is_told_as_499() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("max_in_progress = 1")).await;
    upstream.close();
    let (http, url) = (server.http().clone(), format!("{}/gated", server.gateway_url()));
    let gone = tokio::spawn(async move { http.post(&url, &[("idempotency-key", "k-1")], "{}").await });
    upstream.arrived(1).await;
    gone.abort();
    server.logged("\"status\":499").await;
    assert!(is_full(&server).await, "the work goes on");
    let metrics = server.http().get(&format!("{}/metrics", server.admin_url()), &[]).await.unwrap();
    let counted = "door=\"gateway\",operation=\"(unmatched)\",status=\"4xx\"} 1";
    assert!(metrics.text().contains(counted), "{}", metrics.text());
    upstream.open();
    has_room(&server).await;
}

#[tokio::test]
async fn a_stream_and_a_tunnel_count_until_they_end() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("max_in_progress = 1")).await;
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    assert!(is_full(&server).await, "its head is out, and it goes on");
    upstream.end_streams();
    has_room(&server).await;
    let mut tunnel = connect(&server).await;
    let upgrade = b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    tunnel.write_all(upgrade).await.unwrap();
    tunnel.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    assert!(is_full(&server).await, "bytes may go both ways");
    drop(tunnel);
    has_room(&server).await;
}

#[tokio::test]
async fn a_client_of_http_1_0_is_served_and_told_who_passed_it_on() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("")).await;
    let answer = raw(&server.gateway_url(), b"GET /old HTTP/1.0\r\n\r\n").await;
    let answer = String::from_utf8(answer).unwrap().to_lowercase();
    assert!(answer.starts_with("http/1.0 201") && answer.contains("via: 1.0 semel"), "{answer}");
    assert_eq!(header(&upstream.seen()[0], "host"), [upstream.address().to_string()], "it named none");
    // A tunnel to anywhere is nothing that a gateway gives.
    let refused =
        raw(&server.gateway_url(), b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n").await;
    assert!(String::from_utf8(refused).unwrap().starts_with("HTTP/1.1 405"));
    assert_eq!(upstream.seen().len(), 1);
}
