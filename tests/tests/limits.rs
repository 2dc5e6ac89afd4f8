//! Limits: each is a clear refusal, and none of them is a way to take the server down.

use crate::http::raw;
use crate::server::Server;
use crate::target::Target;

#[tokio::test]
async fn a_body_that_is_too_large_is_413_and_not_a_parse_error_announced_or_in_chunks() {
    let server = Server::start("[server]\ndevelopment = true\nmax_body_bytes = 1000\n").await;
    let fits = server.execute("echo", "one", &format!("\"{}\"", "x".repeat(900)), &[]).await;
    assert_eq!(fits.status, 200);
    let large = server.execute("echo", "two", &format!("\"{}\"", "x".repeat(1_000)), &[]).await;
    assert_eq!(large.refusal(), (413, "PAYLOAD_TOO_LARGE".to_owned()));
    let chunk = format!("{:x}\r\n{}\r\n", 600, "x".repeat(600));
    let head = "POST /v1/idempotency/execute HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                Idempotency-Key: three\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = raw(&server.url(), format!("{head}{chunk}{chunk}0\r\n\r\n").as_bytes()).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("PAYLOAD_TOO_LARGE"), "{answer}");
    for key in ["two", "three"] {
        let url = format!("/v1/idempotency/executions/{key}");
        assert_eq!(server.get(&url, &[]).await.status, 404, "nothing is stored");
    }
}

#[tokio::test]
async fn headers_have_a_limit() {
    let server = Server::development().await;
    let head = |filler: &str| format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX-Filler: {filler}\r\n\r\n");
    let fits = raw(&server.url(), head(&"x".repeat(8_000)).as_bytes()).await;
    assert!(fits.starts_with(b"HTTP/1.1 200 "));
    for url in [server.url(), server.admin_url()] {
        let large = raw(&url, head(&"x".repeat(40_000)).as_bytes()).await;
        let large = String::from_utf8_lossy(&large);
        assert!(large.starts_with("HTTP/1.1 431 "), "{large}");
        let body = large.split_once("\r\n\r\n").unwrap().1;
        let error: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(error["error"]["code"], "HEADERS_TOO_LARGE", "{large}");
        assert_eq!(error["error"]["details"][0]["field"], "headers");
        let path = "x".repeat(40_000);
        let long = raw(&url, format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        assert!(String::from_utf8_lossy(&long).contains("HEADERS_TOO_LARGE"), "a path counts as well");
    }
    assert_eq!(server.get("/healthz", &[]).await.status, 200, "and it serves on");
}

#[tokio::test]
async fn what_is_not_http_is_told_a_bare_status_and_its_connection_is_closed() {
    let server = Server::development().await;
    let many = "X-Filler: x\r\n".repeat(101);
    for (request, status) in [
        ("what is this\r\n\r\n".to_owned(), "400 Bad Request"),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n".to_owned(), "400 Bad Request"),
        (format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{many}\r\n"), "431 Request Header Fields Too Large"),
        (
            format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX-Filler: {}\r\n\r\n", "x".repeat(100_000)),
            "431 Request Header Fields Too Large",
        ),
        (
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70_000)),
            "431 Request Header Fields Too Large",
        ),
    ] {
        let said = raw(&server.url(), request.as_bytes()).await;
        let said = String::from_utf8_lossy(&said);
        assert!(said.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{said}");
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("connection: close") && body.is_empty(), "{said}");
    }
    assert_eq!(server.get("/healthz", &[]).await.status, 200, "and it serves on");
}

#[tokio::test]
async fn a_tenant_that_comes_too_often_is_told_when_to_come_back() {
    let config = "[server]\ndevelopment = true\n[[tenants]]\nname = \"a\"\ntokens = [\"ta\"]\n\
                  rate_limit = { requests_per_second = 1, burst = 2 }\n\
                  [[tenants]]\nname = \"b\"\ntokens = [\"tb\"]\n";
    let server = Server::start(config).await;
    let ask = async |token: &str| {
        server.execute("echo", "one", "{}", &[("authorization", &format!("Bearer {token}"))]).await
    };
    let first = ask("ta").await;
    assert_eq!((first.status, first.header("ratelimit-policy")), (200, Some("\"tenant\";q=2;w=2")));
    assert_eq!(first.header("ratelimit"), Some("\"tenant\";r=1;t=1"));
    ask("ta").await;
    let refused = ask("ta").await;
    assert_eq!(refused.refusal(), (429, "RATE_LIMITED".to_owned()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(refused.header("ratelimit").unwrap().starts_with("\"tenant\";r=0;"));
    let other = ask("tb").await;
    assert_eq!(
        (other.status, other.header("ratelimit")),
        (200, None),
        "another tenant has nothing to do with it"
    );
    assert_eq!(server.get("/healthz", &[]).await.status, 200);
}

#[tokio::test]
async fn above_the_bound_requests_are_refused_and_health_is_still_answered() {
    let target = Target::start().await;
    target.close();
    let config = "[server]\nmax_in_progress = 1\n".to_owned() + &target.operation("charge", "/gated", "");
    let server = Server::start(&config).await;
    let (first, refused) = tokio::join!(server.execute("charge", "one", "{}", &[]), async {
        target.arrived(1).await;
        let refused = server.execute("charge", "two", "{}", &[]).await;
        assert_eq!(server.get("/readyz", &[]).await.status, 200);
        target.open();
        refused
    });
    assert_eq!(first.status, 200);
    assert_eq!(refused.refusal(), (503, "OVERLOADED".to_owned()));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(server.execute("charge", "two", "{}", &[]).await.status, 200, "and it recovers");
}

#[tokio::test]
async fn an_unbounded_body_is_not_read_before_anything_is_checked() {
    let server =
        Server::start("[server]\ndevelopment = true\n[[tenants]]\nname = \"a\"\ntokens = [\"ta\"]\n").await;
    let head = "POST /v1/idempotency/execute HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                Content-Length: 99999999999\r\n\r\n{";
    let answer = raw(&server.url(), head.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 401 "), "{}", String::from_utf8_lossy(&answer));
}
