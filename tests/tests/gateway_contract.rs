//! The contract at the gateway: an upstream that knows nothing of it runs at most once for a key.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::http::Answer;
use crate::server::Server;
use crate::upstream::Upstream;
use crate::wait::eventually;

const JSON: (&str, &str) = ("content-type", "application/json");

/// POSTs under a key.
async fn post(server: &Server, path: &str, key: &str, body: &str, more: &[(&str, &str)]) -> Answer {
    let mut headers = vec![JSON, ("idempotency-key", key)];
    headers.extend(more);
    server.http().post(&format!("{}{path}", server.gateway_url()), &headers, body.to_owned()).await.unwrap()
}

fn header<'a>(seen: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = seen["headers"].as_array().unwrap();
    let named = headers.iter().filter(|header| header[0] == name);
    named.map(|header| header[1].as_str().unwrap()).collect()
}

/// The status and the code of a problem document.
fn problem(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["code"].as_str().unwrap_or("(none)").to_owned())
}

/// A port on which nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn a_key_runs_once_and_its_answer_is_replayed_byte_for_byte_l10() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("")).await;
    let first = post(&server, "/orders?a=b", "k-1", r#"{"a":1,"b":2}"#, &[]).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, None));
    assert!(first.header("idempotency-expires").is_some());
    assert_eq!(first.header("set-cookie"), Some("session=1"));
    let again = post(&server, "/orders?a=b", "\"k-1\"", r#"{"b":2,"a":1}"#, &[]).await;
    assert_eq!((again.status, &again.body), (201, &first.body), "another spelling of the same request");
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.header("set-cookie"), None, "a cookie belongs to one answer");
    let kept = |answer: &Answer| answer.headers.get_all("x-kept").iter().count();
    assert_eq!((kept(&first), kept(&again), again.header("x-private")), (2, 2, None));
    let seen = upstream.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(header(&seen[0], "idempotency-key"), ["k-1"]);
    assert_eq!((header(&seen[0], "semel-attempt"), header(&seen[0], "semel-fence").len()), (vec!["1"], 1));
    assert_eq!(header(&seen[0], "content-length"), ["13"]);

    let other = post(&server, "/orders?a=b", "k-1", r#"{"a":2}"#, &[]).await;
    assert_eq!(problem(&other), (422, "IDEMPOTENCY_PARAMETER_MISMATCH".to_owned()));
    assert_eq!(problem(&post(&server, "/refunds", "k-1", r#"{"a":1,"b":2}"#, &[]).await).0, 422);
    assert_eq!(problem(&post(&server, "/orders", "k\u{e9}", "{}", &[]).await).1, "IDEMPOTENCY_KEY_INVALID");
    assert_eq!(upstream.seen().len(), 1, "none of them has reached the upstream");
}

#[tokio::test]
async fn a_duplicate_of_what_runs_is_told_so_or_waits() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("")).await;
    upstream.close();
    let first = post(&server, "/gated", "k-1", "{}", &[]);
    let others = async {
        upstream.arrived(1).await;
        let busy = post(&server, "/gated", "k-1", "{}", &[]).await;
        assert_eq!(problem(&busy), (409, "IDEMPOTENCY_CONCURRENT_REQUEST".to_owned()));
        assert!(busy.header("retry-after").is_some());
        let waiting = post(&server, "/gated", "k-1", "{}", &[("prefer", "wait=30")]);
        let opened = async { upstream.open() };
        tokio::join!(waiting, opened).0
    };
    let (first, waited) = tokio::join!(first, others);
    assert_eq!((first.status, waited.status, waited.body), (201, 201, first.body));
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn what_has_no_key_passes_unless_its_route_needs_one() {
    let upstream = Upstream::start().await;
    let routes = "[[gateway.routes]]\nmatch = \"POST /orders/{id}/pay\"\nrequire_key = true\n\
                  [[gateway.routes]]\nmatch = \"/open/{*rest}\"\nprotect = false\n";
    let server = Server::start(&upstream.gateway(routes)).await;
    let url = server.gateway_url();
    let plain = |path: &'static str, method: &'static str| {
        let (http, url) = (server.http().clone(), format!("{url}{path}"));
        async move { http.send(method, &url, &[JSON], "{}").await.unwrap() }
    };
    assert_eq!(plain("/orders", "POST").await.status, 201);
    assert_eq!(problem(&plain("/orders/7/pay", "POST").await), (400, "IDEMPOTENCY_KEY_REQUIRED".to_owned()));
    assert_eq!(plain("/orders/7/pay", "GET").await.status, 201, "a GET changes nothing");
    let runs = async |path: &str| {
        let before = upstream.seen().len();
        for _ in 0..2 {
            post(&server, path, "same", "{}", &[]).await;
        }
        upstream.seen().len() - before
    };
    assert_eq!((runs("/open/a").await, runs("/orders").await), (2, 1));
    let metrics = server.http().get(&format!("{}/metrics", server.admin_url()), &[]).await.unwrap();
    for line in [
        "semel_keys_total{service=\"semel\",route=\"(unmatched)\",key=\"present\"} 2",
        "semel_keys_total{service=\"semel\",route=\"(unmatched)\",key=\"missing\"} 1",
        "semel_keys_total{service=\"semel\",route=\"POST /orders/{id}/pay\",key=\"missing\"} 1",
        "idempotency_hits_total{service=\"semel\"} 1",
        "idempotency_misses_total{service=\"semel\"} 1",
        "semel_duplicates_total{service=\"semel\",door=\"gateway\",reason=\"replayed\"} 1",
        "semel_requests_total{service=\"semel\",door=\"gateway\",operation=\"POST /orders/{id}/pay\",status=\"4xx\"} 1",
        "semel_gateway_upstream_well{service=\"semel\",upstream=\"upstream\",address=",
    ] {
        assert!(metrics.text().contains(line), "{line} is not in\n{}", metrics.text());
    }
    server.logged("\"isRetry\":true").await;
    let log = server.log();
    let line = log.lines().find(|line| line.contains("\"isRetry\":true")).unwrap();
    for field in [
        "\"door\":\"gateway\"",
        "\"idempotency_key\":\"same\"",
        "\"record_id\":",
        "\"route\":\"(unmatched)\"",
    ] {
        assert!(line.contains(field), "{field} is not in {line}");
    }
}

#[tokio::test]
async fn an_upstream_that_is_cut_off_in_the_middle_leaves_the_outcome_unknown_l7() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("first_byte_timeout = \"500ms\"")).await;
    upstream.close();
    let first = post(&server, "/gated", "cut", "{}", &[]);
    let cut = async {
        upstream.arrived(1).await;
        upstream.cut();
    };
    let (first, ()) = tokio::join!(first, cut);
    upstream.open();
    assert_eq!(problem(&first), (502, "OUTCOME_UNKNOWN".to_owned()));
    let silent = post(&server, "/silent", "late", "{}", &[]).await;
    assert_eq!(problem(&silent), (504, "OUTCOME_UNKNOWN".to_owned()));
    let half = post(&server, "/half", "half", "{}", &[]).await;
    assert_eq!(problem(&half), (502, "OUTCOME_UNKNOWN".to_owned()));
    let ran = upstream.seen().len();
    for (path, key) in [("/gated", "cut"), ("/silent", "late"), ("/half", "half")] {
        let again = post(&server, path, key, "{}", &[]).await;
        assert_eq!(problem(&again), (409, "IDEMPOTENCY_OUTCOME_UNKNOWN".to_owned()), "{key}");
    }
    assert_eq!(upstream.seen().len(), ran, "nothing runs again by itself");
    // An operator is told what is missing, and no reply is made up that had proved nothing.
    for (key, last_error) in [
        ("cut", "the upstream's answer was cut off, or never came"),
        ("late", "the upstream did not answer in time"),
        ("half", "the reply broke off"),
    ] {
        let of_key = format!("{}/v1/records?key={key}", server.admin_url());
        let listed = server.http().get(&of_key, &[]).await.unwrap().json();
        let of_record =
            format!("{}/v1/records/{}", server.admin_url(), listed["records"][0]["id"].as_str().unwrap());
        let record = server.http().get(&of_record, &[]).await.unwrap().json();
        assert_eq!(
            (&record["unknown_because"], &record["last_error"]),
            (&"answer_lost".into(), &last_error.into()),
            "{key}"
        );
    }
}

#[tokio::test]
async fn what_never_reached_an_upstream_runs_when_it_is_asked_for_again() {
    let address = nobody().await;
    let config = format!("[gateway]\nlisten = \"127.0.0.1:0\"\nupstream = \"http://{address}\"\n");
    let server = Server::start(&config).await;
    let refused = post(&server, "/orders", "k-1", "{}", &[]).await;
    assert_eq!(problem(&refused), (503, "TARGET_UNAVAILABLE".to_owned()));
    assert!(refused.header("retry-after").is_some());
    let upstream = Upstream::at(&address, None).await;
    let ran = post(&server, "/orders", "k-1", "{}", &[]).await;
    assert_eq!((ran.status, ran.header("idempotent-replayed")), (201, None));
    assert_eq!(header(&upstream.seen()[0], "semel-attempt"), ["2"]);
    assert_eq!(post(&server, "/orders", "k-1", "{}", &[]).await.header("idempotent-replayed"), Some("true"));
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn under_resume_a_lost_answer_lets_the_next_request_run_with_a_higher_fence() {
    let upstream = Upstream::start().await;
    let server =
        Server::start(&upstream.gateway("semantics = \"resume\"\nfirst_byte_timeout = \"300ms\"")).await;
    let lost = post(&server, "/silent", "k-1", "{}", &[]).await;
    assert_eq!(problem(&lost), (503, "OUTCOME_UNKNOWN".to_owned()));
    assert!(lost.header("retry-after").is_some());
    post(&server, "/silent", "k-1", "{}", &[]).await;
    let seen = upstream.seen();
    let fence = |run: usize| header(&seen[run], "semel-fence")[0].parse::<u64>().unwrap();
    assert_eq!((seen.len(), header(&seen[1], "semel-attempt")), (2, vec!["2"]));
    assert!(fence(1) > fence(0));
}

#[tokio::test]
async fn an_answer_is_kept_as_its_profile_its_route_and_its_upstream_say() {
    let upstream = Upstream::start().await;
    let routes = "[[gateway.routes]]\nmatch = \"POST /status/500\"\non_5xx = \"unknown\"\n\
                  [[gateway.routes]]\nmatch = \"POST /status/502\"\non_5xx = \"keep\"\n\
                  [[gateway.routes]]\nmatch = \"POST /status/503\"\non_5xx = \"unknown\"\nnot_executed = [503]\n";
    let server = Server::start(&upstream.gateway(routes)).await;
    let check = async |path: &str, steer: Option<&str>, expected: (u16, u16, usize)| {
        let before = upstream.seen().len();
        let key = format!("{path}-{}", steer.unwrap_or("")).replace('/', "-");
        let steer: Vec<_> = steer.into_iter().map(|word| ("x-test-outcome", word)).collect();
        let first = post(&server, path, &key, "{}", &steer).await;
        assert_eq!(first.header("semel-outcome"), None, "it is stripped");
        let again = post(&server, path, &key, "{}", &steer).await;
        assert_eq!(again.header("semel-outcome"), None, "it is stripped");
        let runs = upstream.seen().len() - before;
        assert_eq!((first.status, again.status, runs), expected, "{path} {steer:?}");
    };
    check("/status/200", None, (200, 200, 1)).await;
    check("/status/404", None, (404, 404, 1)).await;
    check("/status/429", None, (429, 429, 2)).await;
    check("/status/501", None, (501, 501, 2)).await;
    check("/status/500", None, (500, 409, 1)).await;
    check("/status/502", None, (502, 502, 1)).await;
    check("/status/503", None, (503, 503, 2)).await;
    check("/status/201", Some("do-not-keep"), (201, 201, 2)).await;
    check("/status/201", Some("release"), (201, 201, 2)).await;
    check("/status/201", Some("unknown"), (201, 409, 1)).await;
    check("/status/501", Some("keep"), (501, 501, 1)).await;
    // Where there is no key there is nothing to steer, and it is no business of a client's.
    let url = format!("{}/status/200", server.gateway_url());
    let plain = server.http().post(&url, &[("x-test-outcome", "keep")], "").await.unwrap();
    assert_eq!((plain.status, plain.header("semel-outcome")), (200, None));
}

#[tokio::test]
async fn errors_have_the_form_of_the_routes_profile() {
    let upstream = Upstream::start().await;
    let routes = "[[gateway.routes]]\nmatch = \"/wms\"\nprofile = \"wms\"\nrequire_key = true\n\
                  [[gateway.routes]]\nmatch = \"/stripe\"\nprofile = \"stripe\"\n\
                  [[gateway.routes]]\nmatch = \"/acp\"\nprofile = \"acp\"\n";
    let server = Server::start(&upstream.gateway(routes)).await;
    let missing = server.http().post(&format!("{}/wms", server.gateway_url()), &[JSON], "{}").await.unwrap();
    assert_eq!((missing.status, &missing.json()["code"]), (400, &"IDEMPOTENCY_KEY_REQUIRED".into()));
    let first = post(&server, "/wms", "k-1", "{}", &[]).await;
    let again = post(&server, "/wms", "k-1", "{}", &[]).await;
    assert_eq!(
        (first.status, again.status, again.body),
        (201, 200, first.body),
        "a replayed success is a 200"
    );
    post(&server, "/stripe", "k-1", "{}", &[]).await;
    let mismatch = post(&server, "/stripe", "k-1", "{\"a\":1}", &[]).await;
    assert_eq!(mismatch.status, 400);
    assert!(mismatch.json()["error"].is_object(), "{}", mismatch.text());
    let missing = server.http().post(&format!("{}/acp", server.gateway_url()), &[JSON], "{}").await.unwrap();
    assert_eq!(missing.status, 400, "this profile needs a key");
}

#[tokio::test]
async fn callers_do_not_see_each_others_answers_and_a_missing_identity_is_nobodys() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("scope = [\"header:x-account-id\"]")).await;
    let one = post(&server, "/orders", "k-1", "{}", &[("x-account-id", "one")]).await;
    let two = post(&server, "/orders", "k-1", "{}", &[("x-account-id", "two")]).await;
    assert_eq!((one.json()["run"].clone(), two.json()["run"].clone()), (1.into(), 2.into()));
    let nobody = post(&server, "/orders", "k-1", "{}", &[]).await;
    assert_eq!(problem(&nobody), (401, "UNAUTHENTICATED".to_owned()));
    assert!(nobody.text().contains("x-account-id"), "what is needed is named: {}", nobody.text());
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn an_upstream_is_never_answered_for_by_another() {
    let (a, b) = (Upstream::start().await, Upstream::start().await);
    let upstream = |name: &str, url: String| {
        format!("[[gateway.upstreams]]\nname = \"{name}\"\nurl = \"{url}\"\nhosts = [\"{name}.example\"]\n")
    };
    let config = format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\nshared_keys = true\n{}{}",
        upstream("a", a.url()),
        upstream("b", b.url())
    );
    let server = Server::start(&config).await;
    for (host, replayed) in
        [("a.example", None), ("b.example", None), ("a.example", Some("true")), ("b.example", Some("true"))]
    {
        let answer = post(&server, "/orders", "k-1", "{}", &[("host", host)]).await;
        assert_eq!((answer.status, answer.header("idempotent-replayed")), (201, replayed), "{host}");
        let seen = answer.json();
        assert_eq!(header(&seen, "host"), [host], "the answer is that of the host that was asked");
    }
    assert_eq!((a.seen().len(), b.seen().len()), (1, 1), "each has run once");
}

#[tokio::test]
async fn a_path_is_neither_in_records_nor_in_the_log_and_still_tells_requests_apart() {
    let upstream = Upstream::start().await;
    let route = "[[gateway.routes]]\nmatch = \"POST /tokens/{token}\"\n";
    let server = Server::start(&upstream.gateway(route)).await;
    for (path, status) in [("/tokens/hidden-1", 201), ("/tokens/hidden-2", 422), ("/other/hidden-3", 422)] {
        assert_eq!(post(&server, path, "k-1", "{}", &[]).await.status, status, "{path}");
    }
    post(&server, "/other/hidden-4", "k-2", "{}", &[]).await;
    server.logged("\"operation\":\"POST /tokens/{token}\"").await;
    server.logged("\"operation\":\"POST\"").await;
    assert!(!server.log().contains("hidden"), "{}", server.log());
}

#[tokio::test]
async fn what_the_gateway_says_of_a_key_no_upstream_says_and_an_id_belongs_to_one_exchange() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("")).await;
    let claims = [("x-test-claims", "")];
    let first = post(&server, "/orders", "k-1", "{}", &claims).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, None), "it has just run");
    assert!(first.header("idempotency-expires").unwrap().ends_with("GMT"));
    let again = post(&server, "/orders", "k-1", "{}", &claims).await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert!(again.header("x-request-id").is_some_and(|id| id != "of-the-first"));
    let released = post(&server, "/status/429", "k-2", "{}", &claims).await;
    assert_eq!(
        (released.header("idempotent-replayed"), released.header("idempotency-expires")),
        (None, None)
    );
}

#[tokio::test]
async fn streams_and_large_answers_reach_their_client_whole_and_are_gone_for_the_next() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("max_response_size = 1000\nmax_body_bytes = 2000")).await;
    let large = post(&server, "/bytes/5000", "large", "{}", &[]).await;
    assert_eq!((large.status, large.body.len()), (200, 5000));
    let events = post(&server, "/events", "events", "{}", &[]);
    let pushed = async {
        upstream.arrived(2).await;
        eventually("a stream to push to", async || {
            upstream.push("data: 1\n\n");
            upstream.end_streams();
            Some(())
        })
        .await;
    };
    let (events, ()) = tokio::join!(events, pushed);
    assert_eq!((events.status, events.text()), (200, "data: 1\n\n"));
    for (path, key) in [("/bytes/5000", "large"), ("/events", "events")] {
        let again = post(&server, path, key, "{}", &[]).await;
        assert_eq!(problem(&again), (410, "IDEMPOTENCY_RESULT_GONE".to_owned()), "{key}");
    }
    let too_large = post(&server, "/orders", "k-1", &"x".repeat(3000), &[]).await;
    assert_eq!(problem(&too_large), (413, "PAYLOAD_TOO_LARGE".to_owned()));
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn fields_that_change_with_every_attempt_are_left_out_of_the_comparison() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("fingerprint_exclude = [\"/sent_at\"]")).await;
    post(&server, "/orders", "k-1", r#"{"a":1,"sent_at":1}"#, &[]).await;
    let again = post(&server, "/orders", "k-1", r#"{"a":1,"sent_at":2}"#, &[]).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(post(&server, "/orders", "k-1", r#"{"a":2,"sent_at":2}"#, &[]).await.status, 422);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_nothing_l11() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.gateway("")).await;
    upstream.close();
    let gone = tokio::spawn({
        let (http, url) = (server.http().clone(), format!("{}/gated", server.gateway_url()));
        async move { http.post(&url, &[JSON, ("idempotency-key", "k-1")], "{}").await }
    });
    upstream.arrived(1).await;
    gone.abort();
    upstream.open();
    let again = eventually("the outcome of what went on", async || {
        let again = post(&server, "/gated", "k-1", "{}", &[]).await;
        (again.status != 409).then_some(again)
    })
    .await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn answers_outlive_the_server_and_what_ran_when_it_died_is_unknown_l4() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start().await;
    let config = upstream.gateway("lease = \"1s\"");
    let server = Server::start_in(folder.path(), &config).await;
    let first = post(&server, "/orders", "done", "{}", &[]).await;
    upstream.close();
    let (http, url) = (server.http().clone(), format!("{}/gated", server.gateway_url()));
    let running =
        tokio::spawn(async move { http.post(&url, &[JSON, ("idempotency-key", "k-1")], "{}").await });
    upstream.arrived(2).await;
    server.kill().await;
    assert!(running.await.unwrap().is_err());
    upstream.open();
    let server = Server::start_in(folder.path(), &config).await;
    let again = post(&server, "/orders", "done", "{}", &[]).await;
    assert_eq!(
        (again.status, &again.body, again.header("idempotent-replayed")),
        (201, &first.body, Some("true"))
    );
    eventually("a lease that lapses", async || {
        let (status, code) = problem(&post(&server, "/gated", "k-1", "{}", &[]).await);
        assert_eq!(status, 409, "nothing runs again by itself");
        (code == "IDEMPOTENCY_OUTCOME_UNKNOWN").then_some(())
    })
    .await;
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn report_mode_changes_nothing_and_counts_what_would_have_happened() {
    let upstream = Upstream::start().await;
    let config = "enforce = false\n[[gateway.routes]]\nmatch = \"POST /orders\"\nrequire_key = true\n";
    let server = Server::start(&upstream.gateway(config)).await;
    let url = format!("{}/orders", server.gateway_url());
    for body in ["{}", "{}", "{\"a\":1}"] {
        let answer = post(&server, "/orders", "k-1", body, &[]).await;
        assert_eq!((answer.status, answer.header("idempotent-replayed")), (201, None));
    }
    assert_eq!(server.http().post(&url, &[JSON], "{}").await.unwrap().status, 201);
    assert_eq!(post(&server, "/orders", "k\u{e9}", "{}", &[]).await.status, 201);
    assert_eq!(upstream.seen().len(), 5, "everything runs");
    for seen in upstream.seen() {
        assert!(header(&seen, "semel-fence").is_empty(), "nothing is promised to the upstream either");
    }
    let report = |result: &str, count: u32| {
        format!("semel_reports_total{{service=\"semel\",route=\"POST /orders\",result=\"{result}\"}} {count}")
    };
    eventually("the report", async || {
        let metrics = server.http().get(&format!("{}/metrics", server.admin_url()), &[]).await.unwrap();
        let told = [
            report("run", 1),
            report("replayed", 1),
            report("mismatch", 1),
            report("key_missing", 1),
            report("key_invalid", 1),
        ];
        let whole = told.iter().all(|line| metrics.text().contains(line.as_str()));
        let hits = metrics.text().contains("idempotency_hits_total{service=\"semel\"} 0");
        (whole && hits).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_are_reloaded_under_load_without_dropping_a_request() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let server = Server::start_in(folder.path(), &one.gateway("")).await;
    let url = format!("{}/orders", server.gateway_url());
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (http, url, stopped) = (server.http().clone(), url.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut answered = 0;
                while !*stopped.borrow() {
                    let key = format!("key-{client}-{answered}");
                    let answer = http.post(&url, &[JSON, ("idempotency-key", &key)], "{}").await.unwrap();
                    assert_eq!(answer.status, 201, "{}", answer.text());
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for (round, upstream) in [&two, &one, &two].into_iter().enumerate() {
        let more = format!("[[gateway.routes]]\nmatch = \"POST /round/{round}\"\n");
        let before = upstream.seen().len();
        std::fs::write(folder.path().join("semel.toml"), upstream.gateway(&more)).unwrap();
        server.signal(Signal::HUP);
        upstream.arrived(before + 50).await;
    }
    stop.send_replace(true);
    let mut answered = 0;
    for client in clients {
        answered += client.await.unwrap();
    }
    assert_eq!(one.seen().len() + two.seen().len(), answered, "each has run once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_drains_what_runs_and_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start().await;
    let config = upstream.gateway("");
    let mut server = Server::start_in(folder.path(), &config).await;
    upstream.close();
    let url = server.gateway_url();
    let (http, slow) = (server.http().clone(), format!("{url}/gated"));
    let running =
        tokio::spawn(async move { http.post(&slow, &[JSON, ("idempotency-key", "slow")], "{}").await });
    upstream.arrived(1).await;
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (http, url) = (server.http().clone(), format!("{url}/orders"));
            tokio::spawn(async move {
                let mut done = Vec::new();
                for n in 0.. {
                    let key = format!("key-{client}-{n}");
                    match http.post(&url, &[JSON, ("idempotency-key", &key)], "{}").await {
                        Ok(answer) if answer.status == 201 => done.push((key, answer)),
                        Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
                        Err(_) => break,
                    }
                }
                done
            })
        })
        .collect();
    upstream.arrived(200).await;
    server.signal(Signal::TERM);
    server.logged("stopping").await;
    upstream.open();
    assert_eq!(running.await.unwrap().unwrap().status, 201, "what runs is finished");
    assert_eq!(server.ended().await.code(), Some(0));
    let mut done = Vec::new();
    for client in clients {
        done.extend(client.await.unwrap());
    }
    let ran = upstream.seen().len();
    let server = Server::start_in(folder.path(), &config).await;
    for (key, first) in done {
        let again = post(&server, "/orders", &key, "{}", &[]).await;
        assert_eq!(
            (again.status, &again.body, again.header("idempotent-replayed").is_some()),
            (201, &first.body, true),
            "{key}"
        );
    }
    assert_eq!(upstream.seen().len(), ran, "every one was a replay");
    tokio::time::timeout(Duration::from_secs(60), server.stop()).await.unwrap();
}
