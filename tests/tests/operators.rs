//! What operators see and do on the admin listener: records, bulk forms, the audit log, roles.

use serde_json::{Value, json};

use crate::http::{Answer, raw};
use crate::server::Server;
use crate::wait::eventually;

/// A server on which one thing of each kind has happened: `done` completed, `lost` unknown, `spent` dead.
async fn busy() -> Server {
    let server = Server::start(
        "[server]\ndevelopment = true\n[[operations]]\nname = \"ship\"\ntarget = \"http://127.0.0.1:1/\"\n\
         tags = { order_id = \"/order/id\" }\nretry = { max_attempts = 1, first = \"1ms\", cap = \"1ms\" }\n",
    )
    .await;
    assert_eq!(server.execute("echo", "done", r#"{"secret":"hunter2"}"#, &[]).await.status, 200);
    assert_eq!(server.execute("fail", "lost", r#"{"status":500}"#, &[]).await.status, 502);
    let asked = [("prefer", "respond-async"), ("x-correlation-id", "c-spent")];
    assert_eq!(server.execute("ship", "spent", r#"{"order":{"id":"A-1"}}"#, &asked).await.status, 202);
    until(&server, "spent", "dead").await;
    server
}

async fn admin(server: &Server, method: &str, path: &str, body: &str) -> Answer {
    let json = [("content-type", "application/json")];
    let url = format!("{}{path}", server.admin_url());
    server.http().send(method, &url, &json, body.to_owned()).await.unwrap()
}

async fn get(server: &Server, path: &str) -> Value {
    let answer = admin(server, "GET", path, "").await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

fn list<'v>(page: &'v Value, of: &str) -> &'v [Value] {
    page[of].as_array().unwrap()
}

/// The record of a key, as the listing has it.
async fn record(server: &Server, key: &str) -> Value {
    let page = get(server, &format!("/v1/records?key={key}")).await;
    assert_eq!(list(&page, "records").len(), 1, "{page}");
    page["records"][0].clone()
}

/// Asks until the record of the key is in this state, and gives it.
async fn until(server: &Server, key: &str, state: &str) -> Value {
    eventually("the state", async || Some(record(server, key).await).filter(|now| now["state"] == state))
        .await
}

fn path_of(record: &Value, rest: &str) -> String {
    format!("/v1/records/{}{rest}", record["id"].as_str().unwrap())
}

fn judgement(version: &Value, reason: &str) -> String {
    json!({"version": version, "reason": reason}).to_string()
}

#[tokio::test]
async fn records_are_found_by_state_operation_key_tag_namespace_and_time_newest_first() {
    let server = busy().await;
    let keys = async |query: &str| -> Vec<String> {
        let page = get(&server, &format!("/v1/records?{query}")).await;
        list(&page, "records").iter().map(|record| record["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys("").await, ["spent", "lost", "done"]);
    assert_eq!(keys("state=unknown,dead").await, ["spent", "lost"]);
    assert_eq!(keys("states=unknown,dead").await, ["spent", "lost"]);
    assert_eq!(keys("operation=echo").await, ["done"]);
    assert_eq!(keys("tag=order_id%3DA-1").await, ["spent"]);
    assert!(keys("tag=order_id%3DA-2").await.is_empty());
    assert_eq!(keys("namespace=execute&key=lost").await, ["lost"]);
    assert!(keys("namespace=job").await.is_empty());
    let created = record(&server, "lost").await["created_at"].as_str().unwrap().to_owned();
    assert_eq!(keys(&format!("from={created}")).await, ["spent", "lost"]);
    assert_eq!(keys(&format!("until={created}")).await, ["done"]);
}

#[tokio::test]
async fn pages_follow_a_cursor_that_does_not_move_when_records_come() {
    let server = busy().await;
    let first = get(&server, "/v1/records?limit=2").await;
    server.execute("echo", "later", "{}", &[]).await;
    let next = first["next"].as_str().unwrap();
    let second = get(&server, &format!("/v1/records?limit=2&cursor={next}")).await;
    let both = [list(&first, "records"), list(&second, "records")].concat();
    let keys: Vec<&str> = both.iter().map(|record| record["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["spent", "lost", "done"], "nothing twice, nothing left out");
    assert_eq!(second["next"], Value::Null);
    let odd = [
        ("cursor=zz", "cursor"),
        ("limit=0", "limit"),
        ("state=x", "state"),
        ("state=dead&states=dead", "states"),
        ("sort=key", "sort"),
    ];
    for (query, field) in odd {
        let refused = admin(&server, "GET", &format!("/v1/records?{query}"), "").await;
        assert_eq!(refused.refusal(), (400, "VALIDATION_FAILED".to_owned()), "{query}");
        assert_eq!(refused.json()["error"]["details"][0]["field"], field);
    }
}

#[tokio::test]
async fn a_record_is_shown_whole_but_for_its_token() {
    let server = busy().await;
    let claim = server.post("/v1/claims", r#"{"key":"held","operation":"render","payload":{}}"#).await.json();
    let token = claim["claim"]["token"].as_str().unwrap();
    let held = admin(&server, "GET", &path_of(&record(&server, "held").await, ""), "").await;
    assert!(!held.text().contains(token));
    assert_eq!(held.json()["fence"], claim["claim"]["fence"]);
    let done = get(&server, &path_of(&record(&server, "done").await, "")).await;
    assert_eq!(done["outcome"]["class"], "success");
    assert_eq!(done["outcome"]["body_bytes"], 20);
    assert_eq!(done["outcome"]["body"], json!({"base64": "eyJzZWNyZXQiOiJodW50ZXIyIn0=", "cut": false}));
    let spent = get(&server, &path_of(&record(&server, "spent").await, "")).await;
    assert_eq!(spent["tags"], json!({"order_id": "A-1"}));
    assert!(spent["last_error"].as_str().is_some_and(|error| !error.is_empty()), "{spent}");
    for odd in ["0123", "00000000000000000000000000000000", "x"] {
        let nothing = admin(&server, "GET", &format!("/v1/records/{odd}"), "").await;
        assert_eq!(nothing.refusal(), (404, "NOT_FOUND".to_owned()));
    }
}

#[tokio::test]
async fn what_an_operator_resolves_is_replayed_from_then_on_and_audited() {
    let server = busy().await;
    let lost = record(&server, "lost").await;
    let outcome = r#"{"result":{"charge":9007199254740993}}"#;
    let body = |version: &str| {
        format!(
            r#"{{"version":"{version}","resolution":"completed","outcome":{outcome},"reason":"ticket 7"}}"#
        )
    };
    let path = path_of(&lost, "/resolve");
    let stale = admin(&server, "POST", &path, &body("1.999")).await;
    assert_eq!(stale.refusal(), (409, "VERSION_CONFLICT".to_owned()));
    let version = lost["version"].as_str().unwrap();
    let resolved = admin(&server, "POST", &path, &body(version)).await;
    assert_eq!((resolved.status, &resolved.json()["record"]["state"]), (200, &json!("completed")));
    let again = admin(&server, "POST", &path, &body(version)).await;
    assert_eq!(again.status, 200, "its answer was lost");
    let replay = server.execute("fail", "lost", r#"{"status":500}"#, &[]).await;
    assert_eq!(replay.text(), r#"{"status":"completed","result":{"charge":9007199254740993}}"#);
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    let audit = get(&server, "/v1/audit?action=resolved").await;
    assert_eq!(list(&audit, "entries").len(), 1);
    let entry = &audit["entries"][0];
    assert_eq!((&entry["fromState"], &entry["toState"]), (&json!("unknown"), &json!("completed")));
    assert_eq!((&entry["reason"], &entry["actor"]), (&json!("ticket 7"), &json!("admin:local")));
    assert_eq!(entry["recordId"], lost["id"]);
    let done = record(&server, "done").await;
    let body = json!({"version": done["version"], "resolution": "not_executed", "reason": "x"}).to_string();
    let illegal = admin(&server, "POST", &path_of(&done, "/resolve"), &body).await;
    assert_eq!(illegal.refusal(), (409, "ILLEGAL_TRANSITION".to_owned()));
}

#[tokio::test]
async fn what_was_not_executed_may_run_again() {
    let server = busy().await;
    let lost = record(&server, "lost").await;
    let refused = server.execute("fail", "lost", r#"{"status":500}"#, &[]).await;
    assert_eq!(refused.refusal(), (409, "IDEMPOTENCY_OUTCOME_UNKNOWN".to_owned()));
    let body = json!({"version": lost["version"], "resolution": "not_executed", "reason": "never arrived"});
    let resolved = admin(&server, "POST", &path_of(&lost, "/resolve"), &body.to_string()).await;
    assert_eq!(resolved.json()["record"]["state"], "released");
    assert_eq!(server.execute("fail", "lost", r#"{"status":500}"#, &[]).await.status, 502, "it ran again");
}

#[tokio::test]
async fn a_dead_record_is_revived_or_discarded_with_a_reason() {
    let server = busy().await;
    let spent = record(&server, "spent").await;
    let silent =
        admin(&server, "POST", &path_of(&spent, "/discard"), &judgement(&spent["version"], " ")).await;
    assert_eq!(silent.json()["error"]["details"][0]["field"], "reason");
    let body = judgement(&spent["version"], "it is back");
    let revived = admin(&server, "POST", &path_of(&spent, "/revive"), &body).await;
    assert_eq!((revived.status, &revived.json()["record"]["state"]), (200, &json!("pending")));
    // Its target is still not there, so it dies again, and is put aside.
    let dead = until(&server, "spent", "dead").await;
    let body = judgement(&dead["version"], "a test order");
    let discarded = admin(&server, "POST", &path_of(&dead, "/discard"), &body).await;
    assert_eq!(discarded.json()["record"]["state"], "completed");
    let asked = server.execute("ship", "spent", r#"{"order":{"id":"A-1"}}"#, &[]).await;
    assert_eq!(asked.refusal(), (410, "OPERATION_DISCARDED".to_owned()));
    let audit = get(&server, &format!("/v1/audit?record={}", spent["id"].as_str().unwrap())).await;
    let actions: Vec<&str> =
        list(&audit, "entries").iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert!(actions.contains(&"discarded") && actions.contains(&"revived"), "{actions:?}");
}

#[tokio::test]
async fn a_bulk_form_shows_first_what_it_would_change_and_then_goes_on_part_by_part() {
    let server = Server::development().await;
    for number in 0..25 {
        let key = format!("lost-{number}");
        assert_eq!(server.execute("fail", &key, r#"{"status":500}"#, &[]).await.status, 502);
    }
    server.execute("echo", "done", "{}", &[]).await;
    let bulk = async |body: &Value| admin(&server, "POST", "/v1/records/discard", &body.to_string()).await;
    let preview = bulk(&json!({"filter": {"operation": "fail"}, "dry_run": true})).await.json();
    assert_eq!((&preview["matched"], &preview["changed"]), (&json!(25), &json!(0)));
    let unknown = get(&server, "/v1/records?state=unknown&limit=100").await;
    assert_eq!(list(&unknown, "records").len(), 25, "a preview changes nothing");
    let mut ask = json!({"filter": {"operation": "fail"}, "limit": 10, "reason": "a drill"});
    let mut changed = Vec::new();
    loop {
        let part = bulk(&ask).await.json();
        assert_eq!(part["failed"], 0);
        changed.push(part["changed"].as_u64().unwrap());
        match part["next"].as_str() {
            Some(next) => ask["cursor"] = json!(next),
            None => break,
        }
    }
    assert_eq!(changed.iter().sum::<u64>(), 25);
    assert!(changed.iter().all(|part| *part <= 10), "{changed:?}");
    assert_eq!(get(&server, "/v1/records?state=unknown").await["records"], json!([]));
    let audit = get(&server, "/v1/audit?action=discarded&limit=100").await;
    assert_eq!(list(&audit, "entries").len(), 25);
}

#[tokio::test]
async fn a_bulk_form_takes_states_under_both_names_as_a_list_and_as_a_text() {
    let server = busy().await;
    for filter in [
        json!({"states": ["dead", "unknown"]}),
        json!({"state": ["dead", "unknown"]}),
        json!({"states": "dead,unknown"}),
        json!({"state": "dead,unknown"}),
    ] {
        let body = json!({"filter": filter, "dry_run": true}).to_string();
        let preview = admin(&server, "POST", "/v1/records/discard", &body).await;
        assert_eq!(preview.json()["matched"], 2, "{body}: {}", preview.text());
    }
}

#[tokio::test]
async fn a_bulk_form_without_a_condition_or_a_reason_changes_nothing() {
    let server = busy().await;
    for (path, body, field) in [
        ("discard", json!({"filter": {}, "reason": "x"}), "filter"),
        ("discard", json!({"filter": {"states": ["dead"]}}), "reason"),
        ("discard", json!({"filter": {"states": ["completed"]}, "reason": "x"}), "filter.states"),
        ("discard", json!({"filter": {"state": "completed"}, "reason": "x"}), "filter.state"),
        ("discard", json!({"filter": {"state": "", "operation": "fail"}, "reason": "x"}), "filter.state"),
        ("discard", json!({"filter": {"state": [], "operation": "fail"}, "reason": "x"}), "filter.state"),
        ("discard", json!({"filter": {"key": ""}, "reason": "x"}), "filter.key"),
        ("revive", json!({"filter": {"operation": ""}, "reason": "x"}), "filter.operation"),
        ("revive", json!({"filter": {"tag": "x"}, "reason": "x"}), "filter.tag"),
        ("discard", json!({"filter": {"state": "dead", "states": ["dead"]}, "reason": "x"}), "filter.states"),
        ("revive", json!({"filter": {"sate": ["dead"]}, "reason": "x"}), "filter.sate"),
        ("revive", json!({"filter": {"states": ["dead"]}, "reason": "x", "limit": 10_001}), "limit"),
        ("resolve", json!({"filter": {"states": ["dead"]}, "reason": "x"}), "resolution"),
    ] {
        let refused = admin(&server, "POST", &format!("/v1/records/{path}"), &body.to_string()).await;
        assert_eq!(refused.refusal(), (400, "VALIDATION_FAILED".to_owned()), "{body}");
        assert_eq!(refused.json()["error"]["details"][0]["field"], field, "{body}");
    }
    let states = get(&server, "/v1/records?state=unknown,dead").await;
    assert_eq!(list(&states, "records").len(), 2);
}

#[tokio::test]
async fn whoever_may_read_cannot_change_and_sees_no_bodies() {
    let server = Server::start(
        "[server]\ndevelopment = true\n[admin]\ntokens = [\n{ role = \"read\", name = \"grafana\", token = \"tr\" },\n\
         { role = \"operate\", name = \"ann\", token = \"to\" },\n]\n",
    )
    .await;
    server.execute("echo", "done", r#"{"secret":"hunter2"}"#, &[]).await;
    server.execute("fail", "lost", r#"{"status":500}"#, &[]).await;
    let ask = async |method: &str, path: &str, token: &str, body: String| {
        let bearer = format!("Bearer {token}");
        let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
        server.http().send(method, &format!("{}{path}", server.admin_url()), &headers, body).await.unwrap()
    };
    for path in ["/v1/records", "/v1/audit", "/metrics"] {
        let nobody = admin(&server, "GET", path, "").await;
        assert_eq!(nobody.refusal(), (401, "UNAUTHENTICATED".to_owned()), "{path}");
        assert_eq!(ask("GET", path, "t", String::new()).await.status, 401);
        assert_eq!(ask("GET", path, "tr", String::new()).await.status, 200);
    }
    let page = ask("GET", "/v1/records?key=done", "tr", String::new()).await.json();
    let path = path_of(&page["records"][0], "");
    let read = ask("GET", &path, "tr", String::new()).await.json();
    assert_eq!((&read["outcome"]["body"], &read["outcome"]["body_bytes"]), (&Value::Null, &json!(20)));
    assert!(ask("GET", &path, "to", String::new()).await.json()["outcome"]["body"]["base64"].is_string());
    let page = ask("GET", "/v1/records?key=lost", "tr", String::new()).await.json();
    let lost = &page["records"][0];
    let body = judgement(&lost["version"], "x");
    let many = json!({"filter": {"states": ["unknown"]}, "reason": "x"}).to_string();
    for (path, body) in [
        (path_of(lost, "/discard"), body.clone()),
        (path_of(lost, "/revive"), body.clone()),
        ("/v1/records/discard".to_owned(), many),
    ] {
        let refused = ask("POST", &path, "tr", body).await;
        assert_eq!(refused.refusal(), (403, "FORBIDDEN".to_owned()), "{path}");
    }
    assert_eq!(ask("POST", &path_of(lost, "/discard"), "to", body).await.status, 200);
    let audit = ask("GET", "/v1/audit?action=discarded", "tr", String::new()).await.json();
    assert_eq!(audit["entries"][0]["actor"], "admin:ann");
}

#[tokio::test]
async fn a_page_of_another_site_cannot_speak_to_an_admin_listener_without_tokens() {
    let server = busy().await;
    let url = server.admin_url();
    let asked = b"GET /v1/records HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    let rebound = raw(&url, asked).await;
    assert!(rebound.starts_with(b"HTTP/1.1 403"), "{}", String::from_utf8_lossy(&rebound));
    // What a form of another site can send without asking first is no JSON.
    let body = r#"{"filter":{"states":["dead"]},"reason":"x"}"#;
    let form = [("content-type", "text/plain")];
    let sent =
        server.http().post(&format!("{url}/v1/records/discard"), &form, body.to_owned()).await.unwrap();
    assert_eq!(sent.refusal(), (415, "UNSUPPORTED_MEDIA_TYPE".to_owned()));
    assert_eq!(record(&server, "spent").await["state"], "dead");
}

#[tokio::test]
async fn the_audit_log_tells_an_original_from_a_retry_and_links_both() {
    let server = Server::development().await;
    for correlation in ["c-1", "c-2"] {
        server.execute("echo", "order-1", "{}", &[("x-correlation-id", correlation)]).await;
    }
    server.execute("echo", "order-1", r#"{"other":1}"#, &[("x-correlation-id", "c-3")]).await;
    // Traffic is written in the background.
    let entries = eventually("the last entry", async || {
        let audit = get(&server, "/v1/audit").await;
        (audit["entries"][0]["action"] == "mismatch").then(|| list(&audit, "entries").to_vec())
    })
    .await;
    let told: Vec<(&str, &Value)> = entries
        .iter()
        .rev()
        .map(|entry| (entry["action"].as_str().unwrap(), &entry["correlationId"]))
        .collect();
    assert_eq!(
        told,
        [
            ("configuration_loaded", &Value::Null),
            ("claimed", &json!("c-1")),
            ("completed", &json!("c-1")),
            ("replayed", &json!("c-2")),
            ("mismatch", &json!("c-3")),
        ]
    );
    let (claimed, replayed) = (&entries[3], &entries[1]);
    assert_eq!(claimed["metadata"]["isRetry"], false);
    assert_eq!(replayed["metadata"]["isRetry"], true);
    assert_eq!(replayed["metadata"]["originalAttemptId"], claimed["metadata"]["attemptId"]);
    assert_eq!((&replayed["fromState"], &replayed["toState"]), (&json!("completed"), &json!("completed")));
    let linked = get(&server, "/v1/audit?correlation_id=c-2").await;
    assert_eq!(list(&linked, "entries").len(), 1);
    let first = get(&server, "/v1/audit?limit=2").await;
    let next = first["next"].as_str().unwrap();
    let rest = get(&server, &format!("/v1/audit?limit=10&cursor={next}")).await;
    assert_eq!(list(&rest, "entries").len(), 3);
}

#[tokio::test]
async fn the_audit_log_is_searched_by_key_tag_operation_and_actor() {
    let server = busy().await;
    let actions = async |query: &str| -> Vec<String> {
        let page = get(&server, &format!("/v1/audit?{query}")).await;
        list(&page, "entries").iter().map(|entry| entry["action"].as_str().unwrap().to_owned()).collect()
    };
    eventually("traffic is written in the background", async || {
        (actions("key=spent").await.first().is_some_and(|last| last == "dead")).then_some(())
    })
    .await;
    assert_eq!(actions("key=done").await, ["completed", "claimed"]);
    assert_eq!(actions("tag=order_id%3DA-1").await, actions("operation=ship").await);
    assert_eq!(actions("tag=order_id%3DA-2").await, [] as [&str; 0]);
    assert_eq!(actions("operation=fail&action=unknown").await, ["unknown"]);
    assert_eq!(actions("operation=fail&key=done").await, [] as [&str; 0]);
    let lost = get(&server, "/v1/records?key=lost").await["records"][0].clone();
    let path = format!("/v1/records/{}/discard", lost["id"].as_str().unwrap());
    let body = json!({"version": lost["version"], "reason": "a test"}).to_string();
    assert_eq!(admin(&server, "POST", &path, &body).await.status, 200);
    let page = get(&server, "/v1/audit?key=lost&action=discarded").await;
    let entry = &list(&page, "entries")[0];
    assert_eq!((&entry["key"], &entry["operation"]), (&json!("lost"), &json!("fail")), "an operator's, too");
    let by_operator = format!("actor={}", entry["actor"].as_str().unwrap());
    assert_eq!(actions(&by_operator).await, ["discarded"]);
    let wrong = admin(&server, "GET", "/v1/audit?tag=x", "").await;
    assert_eq!(wrong.refusal(), (400, "VALIDATION_FAILED".to_owned()));
}

#[tokio::test]
async fn what_has_outlived_the_audit_logs_retention_is_forgotten_and_a_restart_does_not_bring_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let config = |retention| format!("[server]\ndevelopment = true\n[audit]\nretention = \"{retention}\"\n");
    let server = Server::start_in(folder.path(), &config("1s")).await;
    server.execute("echo", "old", "{}", &[]).await;
    let about = async |server: &Server, key: &str| {
        list(&get(server, &format!("/v1/audit?key={key}")).await, "entries").len()
    };
    eventually("the entries are written", async || (about(&server, "old").await == 2).then_some(())).await;
    eventually("the entries go", async || (about(&server, "old").await == 0).then_some(())).await;
    assert_eq!(
        get(&server, "/v1/records?key=old").await["records"][0]["state"],
        "completed",
        "not the record"
    );
    server.kill().await;
    let server = Server::start_in(folder.path(), &config("90d")).await;
    server.execute("echo", "young", "{}", &[]).await;
    eventually("the entries are written", async || (about(&server, "young").await == 2).then_some(())).await;
    assert_eq!(about(&server, "old").await, 0);
    let all = get(&server, "/v1/audit?until=2100-01-01T00:00:00Z").await;
    let left = list(&all, "entries").iter().filter(|entry| entry["key"] == "old").count();
    assert_eq!(left, 0);
    server.stop().await;
}
