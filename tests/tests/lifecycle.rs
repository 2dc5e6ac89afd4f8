//! Starting, reading again, stopping.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::server::{Server, command};
use crate::target::Target;

#[tokio::test]
async fn the_line_to_try_works_as_it_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = command(&["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"], folder.path());
    let mut server = server.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut banner = String::new();
    let mut output = server.stdout.take().unwrap();
    let line = loop {
        let mut bytes = [0; 4096];
        let read = output.read(&mut bytes).await.unwrap();
        assert!(read > 0, "{banner}");
        banner.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        if let Some(line) = banner.lines().find(|line| line.trim_start().starts_with("curl "))
            && banner.ends_with("\n\n")
        {
            break line.trim().to_owned();
        }
    };
    let once = Command::new("sh").args(["-c", &line]).output().await.unwrap();
    let twice = Command::new("sh").args(["-c", &line]).output().await.unwrap();
    let (once, twice) = (String::from_utf8(once.stdout).unwrap(), String::from_utf8(twice.stdout).unwrap());
    assert!(once.starts_with("HTTP/1.1 200 ") && !once.contains("idempotent-replayed"), "{once}");
    assert!(twice.contains("idempotent-replayed: true"), "{twice}");
    assert_eq!(once.lines().last(), twice.lines().last());
    assert!(folder.path().join("semel-data").exists(), "the embedded store, where it is said to be");
    server.kill().await.unwrap();
}

#[tokio::test]
async fn sigterm_finishes_what_runs_and_ends_with_0() {
    let target = Target::start().await;
    target.close();
    let mut server = Server::start(&target.operation("charge", "/gated", "")).await;
    let url = format!("{}/v1/idempotency/execute", server.url());
    let http = server.http().clone();
    let running = tokio::spawn(async move {
        let headers = [("content-type", "application/json"), ("idempotency-key", "one")];
        http.post(&url, &headers, r#"{"operation":"charge","payload":{}}"#).await
    });
    target.arrived(1).await;
    server.signal(Signal::TERM);
    server.logged("stopping").await;
    // The same wish once more, as `timeout` and shells send it, is not impatience.
    server.signal(Signal::TERM);
    target.open();
    let answer = running.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.text()), (200, r#"{"status":"completed","result":{"run":1}}"#));
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn sigterm_waits_for_no_request_that_has_not_arrived_whole() {
    let mut server = Server::start("[server]\nshutdown_grace = \"50s\"\n").await;
    let (doors, admin) = (server.url(), server.admin_url());
    let body = "content-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let halves = [
        (&doors, "POST /v1/idempotency/execute HTTP/1.1\r\nho".to_owned()),
        (&doors, format!("POST /v1/idempotency/execute HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\n{body}")),
        (&doors, format!("POST /v1/claims HTTP/1.1\r\nhost: a\r\n{body}")),
        (&doors, "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nGET /healthz HT".to_owned()),
        (&admin, format!("POST /v1/records/discard HTTP/1.1\r\nhost: localhost\r\n{body}")),
    ];
    let mut open = Vec::new();
    for (url, half) in halves {
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        stream.write_all(half.as_bytes()).await.unwrap();
        open.push(stream);
    }
    open[3].readable().await.unwrap();
    // Whoever is answered now came after them.
    assert_eq!(server.get("/healthz", &[]).await.status, 200);
    assert_eq!(server.http().get(&format!("{admin}/healthz"), &[]).await.unwrap().status, 200);
    let asked = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    let mut told = Vec::new();
    for mut stream in open {
        let mut answer = Vec::new();
        // A connection that is closed with bytes unread may be reset.
        let _ = stream.read_to_end(&mut answer).await;
        told.push(String::from_utf8(answer).unwrap());
    }
    assert_eq!(told[0], "");
    for told in [&told[1], &told[2], &told[4]] {
        assert!(
            told.is_empty() || told.starts_with("HTTP/1.1 503 ") && told.contains("OVERLOADED"),
            "{told}"
        );
    }
    assert_eq!(told[3].matches("HTTP/1.1 200").count(), 1, "{}", told[3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start().await;
    let config = target.operation("charge", "/json", "");
    let mut server = Server::start_in(folder.path(), &config).await;
    let url = format!("{}/v1/idempotency/execute", server.url());
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (http, url) = (server.http().clone(), url.clone());
            tokio::spawn(async move {
                let mut done = Vec::new();
                for n in 0.. {
                    let key = format!("key-{client}-{n}");
                    let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
                    match http.post(&url, &headers, r#"{"operation":"charge","payload":{}}"#).await {
                        Ok(answer) if answer.status == 200 => done.push((key, answer)),
                        // It is going: what it refuses it has not done.
                        Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
                        Err(_) => break,
                    }
                }
                done
            })
        })
        .collect();
    target.arrived(200).await;
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0));
    let mut done = Vec::new();
    for client in clients {
        done.extend(client.await.unwrap());
    }
    assert!(done.len() >= 190, "{}", done.len());
    let server = Server::start_in(folder.path(), &config).await;
    for (key, first) in done {
        let again = server.execute("charge", &key, "{}", &[]).await;
        assert_eq!(again.without_the_exchange(), first.without_the_exchange(), "{key}");
    }
}

#[tokio::test]
async fn sighup_reads_operations_and_secrets_again_without_dropping_a_request() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start().await;
    target.close();
    let secret = folder.path().join("token");
    std::fs::write(&secret, "old").unwrap();
    let tenants = "[[tenants]]\nname = \"a\"\ntokens = [{ file = \"token\" }]\n".to_owned();
    let config = tenants + &target.operation("charge", "/gated", "");
    let server = Server::start_in(folder.path(), &config).await;
    let old = [("authorization", "Bearer old")];
    let new = [("authorization", "Bearer new")];
    let running = server.execute("charge", "one", "{}", &old);
    let reloaded = async {
        target.arrived(1).await;
        std::fs::write(&secret, "new").unwrap();
        let config = config.clone() + &target.operation("refund", "/json", "");
        std::fs::write(folder.path().join("semel.toml"), config).unwrap();
        server.signal(Signal::HUP);
        server.logged("the configuration was read again").await;
        assert_eq!(server.execute("refund", "two", "{}", &old).await.status, 401);
        assert_eq!(server.execute("refund", "two", "{}", &new).await.status, 200);
        target.open();
    };
    let (answer, ()) = tokio::join!(running, reloaded);
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_configuration_that_is_wrong_changes_nothing_when_it_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start().await;
    let server = Server::start_in(folder.path(), &target.operation("charge", "/json", "")).await;
    std::fs::write(folder.path().join("semel.toml"), "[server]\nnonsense = 1\n").unwrap();
    server.signal(Signal::HUP);
    server.logged("the configuration stays as it was").await;
    assert!(server.log().contains("server.nonsense: unknown key"));
    assert_eq!(server.execute("charge", "one", "{}", &[]).await.status, 200);
}

#[tokio::test]
async fn a_configuration_file_that_has_gone_opens_nothing_when_it_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "secret").unwrap();
    let target = Target::start().await;
    let tenants = "[[tenants]]\nname = \"a\"\ntokens = [{ file = \"token\" }]\n".to_owned();
    let config = tenants + &target.operation("charge", "/json", "");
    let server = Server::start_in(folder.path(), &config).await;
    // Without a file a server that starts is in development mode: no tokens, built-in operations.
    std::fs::remove_file(folder.path().join("semel.toml")).unwrap();
    server.signal(Signal::HUP);
    server.logged("the configuration stays as it was").await;
    assert_eq!(server.execute("echo", "one", "{}", &[]).await.status, 401);
    let token = [("authorization", "Bearer secret")];
    assert_eq!(server.execute("echo", "two", "{}", &token).await.status, 404);
    assert_eq!(server.execute("charge", "three", "{}", &token).await.status, 200);
}

#[tokio::test]
async fn development_mode_neither_comes_nor_goes_when_the_configuration_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), "").await;
    std::fs::write(folder.path().join("semel.toml"), "[server]\ndevelopment = true\n").unwrap();
    server.signal(Signal::HUP);
    server.logged("server.development is only read at the start").await;
    assert_eq!(server.execute("echo", "one", "{}", &[]).await.status, 404);
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _server = Server::start_in(folder.path(), "").await;
    let mut second = command(&["serve"], folder.path());
    second.env("SEMEL__STORE__URL", format!("embedded:{}", folder.path().join("data").display()));
    let said = Server::run(second).await.err().expect("a refusal");
    assert!(said.contains("store"), "{said}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let server = Server::start("").await;
    let address = server.url().replace("http://", "");
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["serve", "--store", "memory:", "--listen", address.as_str(), "--admin-listen", "127.0.0.1:0"];
    let output = command(&arguments, folder.path()).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
}
