//! What the server tells about itself: metrics, health, documents, the log.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::server::Server;
use crate::target::Target;

async fn scrape(server: &Server) -> String {
    let answer = server.http().get(&format!("{}/metrics", server.admin_url()), &[]).await.unwrap();
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(openmetrics)));
    answer.text().to_owned()
}

/// One sample: its name, its labels, its value.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads OpenMetrics text strictly: every sample below its own `# TYPE`, no family or series twice, `# EOF` at the end.
fn parse(text: &str) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut families: BTreeMap<String, String> = BTreeMap::new();
    let mut family = String::new();
    let mut lines = text.lines();
    assert_eq!(lines.next_back(), Some("# EOF"));
    for line in lines {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is there twice");
            name.clone_into(&mut family);
            continue;
        }
        if line.starts_with("# HELP ") || line.starts_with("# UNIT ") {
            continue;
        }
        let sample = sample(line);
        let suffix = sample.name.strip_prefix(family.as_str());
        let suffix = suffix.unwrap_or_else(|| panic!("{line} is not below its type"));
        let suffixes: &[&str] = match families[&family].as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            kind => panic!("{kind}"),
        };
        assert!(suffixes.contains(&suffix), "{line}");
        let twice = samples.iter().any(|other| other.name == sample.name && other.labels == sample.labels);
        assert!(!twice, "{line} is there twice");
        samples.push(sample);
    }
    samples
}

fn sample(line: &str) -> Sample {
    let (series, rest) = match line.split_once('}') {
        Some((series, rest)) => (series, rest),
        None => line.split_once(' ').unwrap(),
    };
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let label = |label: &str| {
        let (name, value) = label.split_once('=').unwrap();
        (name.to_owned(), value.trim_matches('"').to_owned())
    };
    let labels = labels.split(',').filter(|text| !text.is_empty()).map(label).collect();
    let (value, exemplar) = match rest.trim().split_once(" # ") {
        Some((value, exemplar)) => (value, Some(exemplar)),
        None => (rest.trim(), None),
    };
    // An exemplar's labels have at most 128 characters in all.
    let fits = exemplar.is_none_or(|text| {
        text.len() < 128 && (text.starts_with("{record_id=") || text.starts_with("{trace_id="))
    });
    assert!(fits, "{line}");
    Sample { name: name.to_owned(), labels, value: value.parse().unwrap() }
}

/// The sum of all series of that name with these labels; `None` if there is none.
fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let fits = |sample: &&Sample| {
        let has = |(name, value): &(&str, &str)| sample.labels.get(*name).is_some_and(|is| is == value);
        sample.name == name && labels.iter().all(has)
    };
    let found: Vec<f64> = samples.iter().filter(fits).map(|sample| sample.value).collect();
    (!found.is_empty()).then(|| found.iter().sum())
}

#[tokio::test]
async fn the_requirements_metrics_count_what_happens_under_the_service_name() {
    let server = Server::start("[server]\ndevelopment = true\nservice_name = \"orders\"\n").await;
    server.execute("echo", "one", "{}", &[]).await;
    server.execute("echo", "one", "{}", &[]).await;
    server.execute("echo", "one", r#"{"other":1}"#, &[]).await;
    server.execute("fail", "two", r#"{"status":500}"#, &[]).await;
    server.execute("no-such-operation", "three", "{}", &[]).await;
    let claim = r#"{"key":"four","operation":"render","payload":{}}"#;
    assert_eq!(server.post("/v1/claims", claim).await.status, 201);
    assert_eq!(server.post("/v1/claims", claim).await.status, 409);
    let samples = parse(&scrape(&server).await);
    let orders = &[("service", "orders")][..];
    let execute = |operation, status| [("door", "execute"), ("operation", operation), ("status", status)];
    let duplicates = |door, reason| [("door", door), ("reason", reason)];
    let records = |operation, state| [("operation", operation), ("state", state)];
    for (name, labels, expected) in [
        ("idempotency_hits_total", orders, 1.0),
        ("idempotency_misses_total", orders, 3.0),
        ("idempotency_parameter_mismatches_total", orders, 1.0),
        ("idempotency_concurrent_collisions_total", orders, 1.0),
        ("idempotency_storage_errors_total", orders, 0.0),
        ("idempotency_lock_acquisition_duration_seconds_count", orders, 4.0),
        ("semel_requests_total", &execute("echo", "2xx"), 2.0),
        ("semel_requests_total", &execute("echo", "4xx"), 1.0),
        ("semel_requests_total", &execute("fail", "5xx"), 1.0),
        ("semel_requests_total", &execute("other", "4xx"), 1.0),
        ("semel_requests_total", &[("door", "claims"), ("operation", "other")], 2.0),
        ("semel_request_duration_seconds_count", &[("door", "execute"), ("operation", "echo")], 3.0),
        ("semel_duplicates_total", &duplicates("execute", "replayed"), 1.0),
        ("semel_duplicates_total", &duplicates("execute", "mismatch"), 1.0),
        ("semel_duplicates_total", &duplicates("claims", "in_progress"), 1.0),
        ("semel_outcomes_unknown_total", &[("why", "answer_inconclusive")], 1.0),
        ("semel_records", &records("echo", "completed"), 1.0),
        ("semel_records", &records("fail", "unknown"), 1.0),
        ("semel_records", &records("other", "running"), 1.0),
        ("oldest_pending_seconds", orders, 0.0),
        ("semel_dead_letters_total", orders, 0.0),
        ("semel_heartbeats_failed_total", orders, 0.0),
        ("semel_audit_entries_dropped_total", orders, 0.0),
        ("semel_log_lines_dropped_total", orders, 0.0),
    ] {
        let found = sum(&samples, name, labels);
        // Claims that met something may have asked the store or not; at least the granted ones did.
        let enough = name.starts_with("idempotency_lock") && found >= Some(expected);
        assert!(enough || found == Some(expected), "{name} {labels:?}: {found:?}, not {expected}");
    }
    assert!(sum(&samples, "semel_store_batch_size_count", orders) > Some(0.0));
    assert!(sum(&samples, "process_resident_memory_bytes", &[]) > Some(1e6));
    assert!(sum(&samples, "process_start_time_seconds", &[]) > Some(1.7e9));
    for sample in samples.iter().filter(|sample| !sample.name.starts_with("process_")) {
        assert_eq!(sample.labels.get("service").map(String::as_str), Some("orders"), "{sample:?}");
        let unbounded = ["one", "two", "three", "four", "no-such-operation", "render"];
        assert!(!sample.labels.values().any(|label| unbounded.contains(&label.as_str())), "{sample:?}");
    }
}

#[tokio::test]
async fn histograms_reach_from_100_microseconds_to_10_seconds() {
    let server = Server::development().await;
    server.execute("echo", "one", "{}", &[]).await;
    let samples = parse(&scrape(&server).await);
    for name in ["idempotency_lock_acquisition_duration_seconds", "semel_request_duration_seconds"] {
        let buckets = samples.iter().filter(|sample| {
            let door = sample.labels.get("door");
            sample.name == format!("{name}_bucket") && door.is_none_or(|door| door == "execute")
        });
        let bounds: Vec<f64> =
            buckets.map(|sample| sample.labels["le"].replace("+Inf", "inf").parse().unwrap()).collect();
        assert!(
            bounds.is_sorted() && bounds.contains(&0.0001) && bounds.contains(&10.0),
            "{name}: {bounds:?}"
        );
        assert_eq!(bounds.last(), Some(&f64::INFINITY));
    }
}

#[tokio::test]
async fn latency_histograms_lead_to_a_trace_where_the_request_had_one() {
    let server = Server::development().await;
    let (executed, claimed) = ("0af7651916cd43dd8448eb211c80319c", "4bf92f3577b34da6a3ce929d0e0e4736");
    let traceparent = |id: &str| format!("00-{id}-b7ad6b7169203331-01");
    server.execute("echo", "one", "{}", &[("traceparent", &traceparent(executed))]).await;
    server.execute("echo", "two", "{}", &[("traceparent", "00-not-a-trace-01")]).await;
    let claim = r#"{"key":"three","operation":"render","payload":{}}"#;
    let trace = traceparent(claimed);
    let headers = [("content-type", "application/json"), ("traceparent", trace.as_str())];
    let granted = server.http().post(&format!("{}/v1/claims", server.url()), &headers, claim).await.unwrap();
    assert_eq!(granted.status, 201);
    let text = scrape(&server).await;
    parse(&text);
    let exemplars = |series: &str, labels: &str| -> Vec<&str> {
        let lines = text.lines().filter(|line| line.starts_with(series) && line.contains(labels));
        lines.filter_map(|line| line.split_once(" # {trace_id=\"")?.1.get(..32)).collect()
    };
    assert_eq!(exemplars("semel_request_duration_seconds_bucket", "door=\"execute\""), [executed], "{text}");
    assert_eq!(exemplars("semel_request_duration_seconds_bucket", "door=\"claims\""), [claimed]);
    let locks = exemplars("idempotency_lock_acquisition_duration_seconds_bucket", "");
    assert!(locks.contains(&claimed), "{text}");
    assert!(locks.iter().all(|id| [executed, claimed].contains(id)), "{locks:?}");
}

#[tokio::test]
async fn health_and_readiness_are_told_on_both_listeners_without_a_token() {
    let server = Server::start(
        "[server]\ndevelopment = true\n[[tenants]]\nname = \"a\"\ntokens = [\"ta\"]\n[admin]\n\
         tokens = [{ role = \"read\", name = \"r\", token = \"tr\" }]\n",
    )
    .await;
    for url in [server.url(), server.admin_url()] {
        let health = server.http().get(&format!("{url}/healthz"), &[]).await.unwrap();
        assert_eq!((health.status, &health.json()["status"]), (200, &"ok".into()), "{url}");
        let ready = server.http().get(&format!("{url}/readyz"), &[]).await.unwrap();
        assert_eq!((ready.status, &ready.json()["status"]), (200, &"ready".into()), "{url}");
        assert_eq!(ready.json()["store"], "embedded");
    }
}

#[tokio::test]
async fn the_document_and_its_reader_come_from_the_server_itself() {
    let server = Server::development().await;
    let get =
        async |path: &str| server.http().get(&format!("{}{path}", server.admin_url()), &[]).await.unwrap();
    let (doors, admin) = (server.url(), server.admin_url());
    assert_eq!(get("/openapi.json").await.text(), semel_api::openapi::document_at(&doors, &admin));
    assert_eq!(get("/openapi.json").await.json()["servers"][0]["url"], doors.as_str(), "as it is configured");
    let moved = get("/docs").await;
    assert_eq!((moved.status, moved.header("location")), (308, Some("/docs/")));
    let page = get("/docs/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html")));
    for file in ["swagger-ui-bundle.js", "swagger-ui.css", "swagger-initializer.js"] {
        assert!(page.text().contains(file), "{file}");
        let file = get(&format!("/docs/{file}")).await;
        assert!(file.status == 200 && !file.body.is_empty());
    }
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("http"),
        "nothing from elsewhere: {policy}"
    );
    assert_eq!(get("/docs/nothing.js").await.status, 404);
}

#[tokio::test]
async fn every_endpoint_of_the_document_is_there_and_no_other_method() {
    let server = Server::development().await;
    let document: Value = serde_json::from_str(&semel_api::openapi::document()).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let concrete = path.replace("{id}", "00000000000000000000000000000000").replace("{key}", "nobody");
        let concrete = concrete.replace("{source}", "nobody");
        let concrete =
            concrete.replace("{run}", "00000000000000000000000000000000").replace("{type}", "NIGHTLY");
        let operators = methods.as_object().unwrap().values().all(|operation| {
            let tag = operation["tags"][0].as_str().unwrap();
            ["records", "audit", "dead"].contains(&tag)
                || ["/metrics", "/v1/jobs/{type}/release"].contains(&path.as_str())
                || path.ends_with("/verify")
        });
        let base = if operators { server.admin_url() } else { server.url() };
        for method in ["GET", "POST", "PUT", "DELETE"] {
            // What is posted is no JSON, so nothing is done.
            let answer = server.http().send(method, &format!("{base}{concrete}"), &[], "x").await.unwrap();
            if methods.get(method.to_lowercase()).is_some() {
                assert_ne!(answer.status, 405, "{method} {path}");
                let no_route = answer.status == 404 && !path.contains('{');
                assert!(!no_route, "{method} {path}: {}", answer.text());
            } else {
                assert_eq!(answer.refusal(), (405, "METHOD_NOT_ALLOWED".to_owned()), "{method} {path}");
                assert!(answer.header("allow").is_some());
            }
        }
    }
}

#[tokio::test]
async fn the_log_is_json_with_the_named_fields_and_nothing_that_was_sent() {
    let target = Target::start().await;
    let config = "[server]\ndevelopment = true\n[log]\nfilter = \"trace\"\nformat = \"json\"\n\
                  [[tenants]]\nname = \"acme\"\ntokens = [\"tenant-token\"]\n\
                  [admin]\ntokens = [{ role = \"operate\", name = \"ann\", token = \"admin-token\" }]\n";
    let tags = "tags = { order_id = \"/order\", partner = \"/partner\" }";
    let config = format!("{config}{}", target.operation("charge", "/json", tags));
    let server = Server::start(&config).await;
    let headers =
        [("authorization", "Bearer tenant-token"), ("x-request-id", "r-1"), ("x-correlation-id", "c-1")];
    let payload = r#"{"order":"A-1","partner":"xendit","card":"4111-1111"}"#;
    for _ in 0..2 {
        let answer = server.execute("charge", "key-1", payload, &headers).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let post = async |path: &str, body: String| {
        let json = [("content-type", "application/json"), headers[0]];
        server.http().post(&format!("{}{path}", server.url()), &json, body).await.unwrap()
    };
    let claim = r#"{"key":"held","operation":"render","payload":{"card":"4111-1111"}}"#.to_owned();
    let claim = post("/v1/claims", claim).await.json();
    let token = claim["claim"]["token"].as_str().unwrap().to_owned();
    let id = claim["claim"]["id"].as_str().unwrap();
    let complete = format!(r#"{{"token":"{token}","outcome":{{"result":"4111-1111"}}}}"#);
    assert_eq!(post(&format!("/v1/claims/{id}/complete"), complete).await.status, 200);
    let odd = server.execute("charge", "key-2", "{\"card\":\"4111-1111\",", &headers).await;
    assert_eq!(odd.status, 400);
    let bearer = [("authorization", "Bearer admin-token")];
    let metrics = server.http().get(&format!("{}/metrics", server.admin_url()), &bearer).await.unwrap();
    server.logged("\"status\":400").await;
    let log = server.log();
    for secret in ["4111-1111", "tenant-token", "admin-token", token.as_str()] {
        assert!(!log.contains(secret), "{secret} is in the log");
        assert!(!metrics.text().contains(secret), "{secret} is in the metrics");
        assert!(!odd.text().contains(secret), "{secret} is in an error");
    }
    check_fields(&log);
}

/// Lines of the log about the key `key-1`, whose operation ran once and was asked for twice.
fn check_fields(log: &str) {
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    let lines: Vec<Value> = log.lines().map(read).collect();
    let about = |message: &'static str| {
        lines.iter().filter(move |line| line["message"] == message && line["idempotency_key"] == "key-1")
    };
    let retries: Vec<&Value> = about("request").map(|line| &line["isRetry"]).collect();
    assert_eq!(retries, [&Value::Bool(false), &Value::Bool(true)], "one line for each request");
    for line in about("request").chain(about("state")) {
        for (field, value) in [
            ("order_id", "A-1"),
            ("partner", "xendit"),
            ("operation", "charge"),
            ("request_id", "r-1"),
            ("correlation_id", "c-1"),
        ] {
            assert_eq!(line[field], value, "{line}");
        }
        assert!(line["record_id"].as_str().is_some_and(|id| id.len() == 32));
    }
    let states: Vec<&str> = about("state").map(|line| line["to"].as_str().unwrap()).collect();
    assert_eq!(states, ["running", "completed"], "one line for each change");
}
