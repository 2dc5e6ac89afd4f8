//! Jobs over HTTP: one running instance of each type, over all nodes, and the record of its runs.

use futures_util::future::join_all;
use semel_api::Time;
use serde_json::{Value, json};

use crate::http::Answer;
use crate::server::Server;
use crate::shared_store::{Kind, SharedStore, on_every_store};
use crate::wait::eventually;

/// Servers at once.
const NODES: usize = 3;
const RUNS: &str = "/v1/jobs/EXPIRE_LOCKS/runs";

on_every_store! {
    of_three_nodes_that_start_a_job_at_once_one_runs_and_the_others_are_skipped,
    a_holder_that_is_gone_is_overtaken_once_its_lease_has_lapsed_and_is_fenced_l2_l6,
    the_lease_of_a_run_is_the_one_that_its_own_start_asks_for_l1,
}

async fn nodes(store: &SharedStore) -> Vec<Server> {
    let url = store.url();
    join_all((0..NODES).map(|_| Server::start_on(&url, ""))).await
}

async fn begun(server: &Server, body: &str) -> Value {
    let answer = server.post(RUNS, body).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

/// A command of a run's holder, with more fields beside the token.
async fn command(server: &Server, run: &Value, command: &str, more: &str) -> Answer {
    let (id, token) = (run["id"].as_str().unwrap(), run["token"].as_str().unwrap());
    server.post(&format!("{RUNS}/{id}/{command}"), &format!(r#"{{"token":"{token}"{more}}}"#)).await
}

async fn history(server: &Server) -> Vec<Value> {
    server.get(RUNS, &[]).await.json()["runs"].as_array().unwrap().clone()
}

async fn metrics(server: &Server) -> String {
    let url = format!("{}/metrics", server.admin_url());
    server.http().get(&url, &[]).await.unwrap().text().to_owned()
}

fn statuses(runs: &[Value]) -> Vec<&str> {
    runs.iter().map(|run| run["status"].as_str().unwrap()).collect()
}

async fn of_three_nodes_that_start_a_job_at_once_one_runs_and_the_others_are_skipped(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let nodes = nodes(&store).await;
    let started = join_all(
        nodes
            .iter()
            .enumerate()
            .map(async |(number, node)| node.post(RUNS, &format!(r#"{{"holder":"node-{number}"}}"#)).await),
    );
    let started = started.await;
    let (ran, skipped): (Vec<_>, Vec<_>) = started.iter().partition(|answer| answer.status == 201);
    assert_eq!((ran.len(), skipped.len()), (1, NODES - 1));
    for answer in skipped {
        assert_eq!(answer.refusal(), (409, "JOB_ALREADY_RUNNING".to_owned()));
        assert_eq!(answer.json()["error"]["message"], "Another instance is already running");
    }
    let run = ran[0].json();
    assert_eq!((run["jobType"].as_str(), run["status"].as_str()), (Some("EXPIRE_LOCKS"), Some("RUNNING")));
    // Whichever node is asked: the run and its skips are there.
    for node in &nodes {
        let mut seen = history(node).await;
        seen.sort_by_key(|run| run["status"].as_str().unwrap().to_owned());
        assert_eq!(statuses(&seen), ["RUNNING", "SKIPPED", "SKIPPED"]);
        for skip in &seen[1..] {
            assert_eq!((&skip["by"], &skip["fence"]), (&run["holder"], &Value::Null));
        }
    }
    // Another node ends it, and another one begins the next.
    let results = r#","results":{"processed":12,"errors":1,"details":"lock 7 was gone"}"#;
    let ended = command(&nodes[1], &run, "complete", results).await;
    assert_eq!(ended.status, 200, "{}", ended.text());
    let ended = ended.json();
    assert_eq!(ended["status"], "COMPLETED");
    assert_eq!(ended["results"], json!({"processed": 12, "errors": 1, "details": "lock 7 was gone"}));
    assert!(ended["completedAt"].is_string() && ended["expiresAt"].is_string());
    let next = begun(&nodes[2], "{}").await;
    assert!(next["fence"].as_u64() > run["fence"].as_u64(), "L2");
    assert_eq!(next["takenOver"], false);
}

async fn a_holder_that_is_gone_is_overtaken_once_its_lease_has_lapsed_and_is_fenced_l2_l6(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let nodes = nodes(&store).await;
    let gone = begun(&nodes[0], r#"{"holder":"gone","lease_ms":300}"#).await;
    let next = eventually("the lease lapses", async || {
        let answer = nodes[1].post(RUNS, r#"{"holder":"next"}"#).await;
        (answer.status == 201).then(|| answer.json())
    })
    .await;
    assert_eq!(next["takenOver"], true);
    let scrape = metrics(&nodes[1]).await;
    let lapsed = r#"semel_job_runs_total{service="semel",job_type="EXPIRE_LOCKS",status="LAPSED"} 1"#;
    assert!(scrape.contains(lapsed), "{scrape}");
    assert!(next["fence"].as_u64() > gone["fence"].as_u64(), "L2");
    for (said, more) in [("heartbeat", ""), ("complete", ""), ("fail", r#","error":"x""#)] {
        let answer = command(&nodes[0], &gone, said, more).await;
        assert_eq!(answer.refusal(), (409, "IDEMPOTENCY_FENCED".to_owned()), "{said}");
    }
    let scrape = metrics(&nodes[0]).await;
    let fenced = scrape.lines().find(|line| line.starts_with("semel_fenced_writes_total")).unwrap();
    // Behind the number may stand an exemplar.
    assert_eq!(fenced.split(' ').nth(1), Some("3"), "{fenced}");
    assert_eq!(command(&nodes[2], &next, "heartbeat", "").await.json()["status"], "RUNNING");
    let seen = history(&nodes[2]).await;
    let of = |holder: &'static str| {
        seen.iter().filter(move |run| run["holder"] == holder).map(|run| &run["status"])
    };
    assert_eq!(of("gone").collect::<Vec<_>>(), ["LAPSED"]);
    assert_eq!(of("next").filter(|status| **status == "RUNNING").count(), 1);
}

/// How long a run that was shown holds its guard from its last heartbeat on, in milliseconds.
fn held(run: &Value) -> u64 {
    let time = |name: &str| Time::parse(run[name].as_str().unwrap()).unwrap().as_millis();
    time("leaseUntil") - time("heartbeatAt")
}

/// As long as this, and not as any other lease of the test.
fn holds(run: &Value, lease_ms: u64) {
    let held = held(run);
    assert!((lease_ms..lease_ms + 60_000).contains(&held), "{held} ms of {lease_ms}: {run}");
}

async fn the_lease_of_a_run_is_the_one_that_its_own_start_asks_for_l1(kind: Kind) {
    const USUAL: u64 = 600_000;
    const LONG: u64 = 3_600_000;
    let Some(store) = kind.fresh().await else { return };
    let url = store.url();
    let nodes = [Server::start_on(&url, "").await, Server::start_on(&url, "").await];
    for (number, lease_ms) in [USUAL, LONG, USUAL].into_iter().enumerate() {
        let named = |lease_ms: u64| {
            format!(r#"{{"attempt_id":"try-{number}","holder":"cron","lease_ms":{lease_ms}}}"#)
        };
        let run = begun(&nodes[number % 2], &named(lease_ms)).await;
        assert_eq!(run["leaseMs"], lease_ms);
        holds(&run, lease_ms);
        let again = begun(&nodes[0], &named(7_200_000)).await;
        assert_eq!((&again["id"], &again["leaseMs"]), (&run["id"], &run["leaseMs"]), "as it began");
        holds(&command(&nodes[1], &run, "heartbeat", "").await.json(), lease_ms);
        assert_eq!(command(&nodes[1], &run, "complete", "").await.status, 200);
    }
    let gone = begun(&nodes[0], r#"{"holder":"gone","lease_ms":300}"#).await;
    assert_eq!(gone["leaseMs"], 300);
    let heir = eventually("the short lease lapses", async || {
        let answer = nodes[1].post(RUNS, &format!(r#"{{"holder":"heir","lease_ms":{LONG}}}"#)).await;
        (answer.status == 201).then(|| answer.json())
    })
    .await;
    assert_eq!((&heir["takenOver"], &heir["leaseMs"]), (&json!(true), &json!(LONG)));
    holds(&heir, LONG);
    holds(&nodes[0].get("/v1/jobs", &[]).await.json()["jobs"][0]["running"], LONG);
}

/// The requirement's test, as it stands there: `curl -X POST …`, without a body, twice at once.
#[tokio::test]
async fn a_start_needs_no_body() {
    let server = Server::start("").await;
    let url = format!("{}/v1/jobs/expire-bookings/runs", server.url());
    let start = async || server.http().send("POST", &url, &[], "").await.unwrap();
    let (one, other) = tokio::join!(start(), start());
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
    let skipped = if one.status == 409 { one } else { other };
    assert!(skipped.text().contains("Another instance is already running"));
    let odd = server.http().send("POST", &url, &[("content-type", "application/json")], "").await.unwrap();
    assert_eq!(odd.status, 409, "nothing is nothing, whatever type it has");
}

#[tokio::test]
async fn an_end_that_is_said_again_is_a_success_and_a_failure_says_why() {
    let server = Server::start("").await;
    let run = begun(&server, r#"{"lease_ms":60000}"#).await;
    assert_eq!((&run["leaseMs"], &run["holder"]), (&json!(60_000), &json!("default")));
    for _ in 0..2 {
        let failed = command(&server, &run, "fail", r#","error":"the database is gone""#).await;
        assert_eq!((failed.status, &failed.json()["status"]), (200, &json!("FAILED")), "{}", failed.text());
        assert_eq!(failed.json()["results"]["details"], "the database is gone");
    }
    let other = command(&server, &run, "complete", "").await;
    assert_eq!(other.refusal(), (409, "IDEMPOTENCY_FENCED".to_owned()), "it has failed");
    let shown = server.get(&format!("{RUNS}/{}", run["id"].as_str().unwrap()), &[]).await.json();
    assert_eq!(shown["status"], "FAILED");
    assert!(shown.get("token").is_none());
    let named = r#"{"attempt_id":"try-1","holder":"cron"}"#;
    let (first, again) = (begun(&server, named).await, begun(&server, named).await);
    assert_eq!((&first["id"], &first["token"]), (&again["id"], &again["token"]), "the answer was lost");
    let listed = server.get("/v1/jobs", &[]).await.json();
    assert_eq!(listed["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(listed["jobs"][0]["running"]["id"], first["id"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_about_a_job_is_said_with_its_field() {
    let server = Server::start("").await;
    let run = begun(&server, "{}").await;
    let id = run["id"].as_str().unwrap();
    let nothing = "0".repeat(32);
    for (path, body, status, said) in [
        ("/v1/jobs/a%20b/runs".to_owned(), "{}", 400, "\"type\""),
        ("/v1/jobs/OTHER/runs".to_owned(), r#"{"lease_ms":1}"#, 400, "\"lease_ms\""),
        ("/v1/jobs/OTHER/runs".to_owned(), r#"{"retention_ms":0}"#, 400, "\"retention_ms\""),
        ("/v1/jobs/OTHER/runs".to_owned(), r#"{"attempt_id":"a@b","holder":"cron"}"#, 400, "\"attempt_id\""),
        ("/v1/jobs/OTHER/runs".to_owned(), r#"{"attempt_id":"try-1"}"#, 400, "\"holder\""),
        ("/v1/jobs/OTHER/runs".to_owned(), r#"{"holder":""}"#, 400, "\"holder\""),
        ("/v1/jobs/OTHER/runs".to_owned(), r#"{"leaseMs":1}"#, 400, "\"leaseMs\""),
        (format!("{RUNS}/{id}/complete"), r#"{"token":"x"}"#, 400, "\"token\""),
        (format!("{RUNS}/{id}/heartbeat"), "{}", 400, "\"token\""),
        (
            format!("{RUNS}/{id}/complete"),
            r#"{"token":"00000000000000000000000000000000","results":{"processed":9007199254740992}}"#,
            400,
            "\"results.processed\"",
        ),
        (
            format!("{RUNS}/{nothing}/heartbeat"),
            r#"{"token":"00000000000000000000000000000000"}"#,
            404,
            "NOT_FOUND",
        ),
        (
            format!("/v1/jobs/OTHER/runs/{id}/heartbeat"),
            r#"{"token":"00000000000000000000000000000000"}"#,
            404,
            "NOT_FOUND",
        ),
        (
            format!("{RUNS}/{id}/heartbeat"),
            r#"{"token":"00000000000000000000000000000000"}"#,
            409,
            "IDEMPOTENCY_FENCED",
        ),
    ] {
        let answer = server.post(&path, body).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        assert!(answer.text().contains(said), "{path} {body}: {}", answer.text());
    }
    for (path, status) in [("?limit=0", 400), ("?tenant=x", 400), ("?cursor=x", 400), ("/none", 404)] {
        assert_eq!(server.get(&format!("{RUNS}{path}"), &[]).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_start_may_say_nothing_whatever_the_type_of_nothing_is() {
    let server = Server::start("").await;
    let (url, http) = (format!("{}{RUNS}", server.url()), server.http());
    for (number, content_type) in
        [None, Some("application/json"), Some("application/x-www-form-urlencoded")].into_iter().enumerate()
    {
        let url = url.replace("EXPIRE_LOCKS", &format!("JOB_{number}"));
        let headers: Vec<_> = content_type.map(|value| ("content-type", value)).into_iter().collect();
        let answer = http.send("POST", &url, &headers, String::new()).await.unwrap();
        assert_eq!(answer.status, 201, "{content_type:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_run_whose_lease_has_lapsed_is_not_said_to_have_beaten_then() {
    let server = Server::start("").await;
    let run = begun(&server, r#"{"lease_ms":200}"#).await;
    assert!(run["heartbeatAt"].is_string() && run["leaseUntil"].is_string());
    let shown = format!("{RUNS}/{}", run["id"].as_str().unwrap());
    let lapsed = eventually("its lapse is seen", async || {
        let run = server.get(&shown, &[]).await.json();
        run["leaseUntil"].is_null().then_some(run)
    })
    .await;
    assert_eq!((&lapsed["heartbeatAt"], &lapsed["status"]), (&Value::Null, &json!("RUNNING")));
    let beat = command(&server, &run, "heartbeat", "").await;
    assert_eq!(beat.status, 200, "nobody has overtaken it: {}", beat.text());
    assert!(beat.json()["heartbeatAt"].is_string());
}

#[tokio::test]
async fn one_tenant_neither_holds_up_nor_sees_the_jobs_of_another() {
    let config = "[server]\ndevelopment = true\n[[tenants]]\nname = \"acme\"\ntokens = [\"a\"]\n\
                  [[tenants]]\nname = \"globex\"\ntokens = [\"g\"]\n";
    let server = Server::start(config).await;
    let json = ("content-type", "application/json");
    let asked = async |method: &str, path: &str, token: &str, body: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [json, ("authorization", bearer.as_str())];
        server
            .http()
            .send(method, &format!("{}{path}", server.url()), &headers, body.to_owned())
            .await
            .unwrap()
    };
    let run = asked("POST", RUNS, "a", "{}").await;
    assert_eq!((run.status, asked("POST", RUNS, "g", "{}").await.status), (201, 201));
    let id = run.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(asked("GET", &format!("{RUNS}/{id}"), "g", "").await.status, 404);
    assert_eq!(asked("GET", &format!("{RUNS}/{id}"), "a", "").await.status, 200);
    let seen = asked("GET", RUNS, "g", "").await.json();
    assert_eq!(seen["runs"].as_array().unwrap().len(), 1);
    let operators = format!("{}{RUNS}?tenant=acme", server.admin_url());
    let seen = server.http().get(&operators, &[]).await.unwrap().json();
    assert_eq!(seen["runs"][0]["id"], id.as_str());
}

#[tokio::test]
async fn an_operator_releases_a_job_by_force_by_the_fence_that_was_judged_and_it_is_audited() {
    let server = Server::start("").await;
    let stuck = begun(&server, r#"{"holder":"stuck"}"#).await;
    let fence = stuck["fence"].as_u64().unwrap();
    let release = async |body: String| {
        let url = format!("{}/v1/jobs/EXPIRE_LOCKS/release", server.admin_url());
        server.http().post(&url, &[("content-type", "application/json")], body).await.unwrap()
    };
    let of = |fence: u64, reason: &str| format!(r#"{{"fence":{fence},"reason":"{reason}"}}"#);
    assert_eq!(release(of(fence, " ")).await.refusal(), (400, "VALIDATION_FAILED".to_owned()));
    assert_eq!(release(of(fence + 1, "it hangs")).await.refusal(), (409, "VERSION_CONFLICT".to_owned()));
    let released = release(of(fence, "it hangs")).await;
    assert_eq!((released.status, &released.json()["status"]), (200, &json!("LAPSED")), "{}", released.text());
    assert_eq!(released.json()["results"]["details"], "released by force by admin:local: it hangs");
    assert_eq!(release(of(fence, "again")).await.refusal(), (404, "NOT_FOUND".to_owned()));
    assert_eq!(command(&server, &stuck, "complete", "").await.status, 409, "it is fenced");
    assert_eq!(begun(&server, "{}").await["takenOver"], false);
    let audit = format!("{}/v1/audit?action=forced_release", server.admin_url());
    let audit = server.http().get(&audit, &[]).await.unwrap().json();
    assert_eq!(audit["entries"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&audit["entries"][0]["reason"], &audit["entries"][0]["actor"]),
        (&json!("it hangs"), &json!("admin:local"))
    );
    let scrape = metrics(&server).await;
    for (status, count) in [("RUNNING", 2), ("LAPSED", 1)] {
        let line = format!(
            r#"semel_job_runs_total{{service="semel",job_type="EXPIRE_LOCKS",status="{status}"}} {count}"#
        );
        assert!(scrape.contains(&line), "{line}\n{scrape}");
    }
}

#[tokio::test]
async fn jobs_are_listed_followed_and_released_from_a_shell() {
    let server = Server::start("").await;
    let stuck = begun(&server, r#"{"holder":"stuck"}"#).await;
    assert_eq!(server.post(RUNS, "{}").await.status, 409);
    let folder = tempfile::tempdir().unwrap();
    let admin = server.admin_url();
    let jobs = async |arguments: &[&str]| {
        let mut all = vec!["jobs", arguments[0], "--admin-url", admin.as_str()];
        all.extend(&arguments[1..]);
        let output = crate::server::command(&all, folder.path()).output().await.unwrap();
        let (out, err) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code().unwrap(), out + &err)
    };
    let (code, listed) = jobs(&["ls"]).await;
    let cells: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        (code, &cells[0][..5]),
        (0, &["type", "running", "fence", "heartbeat", "lapses"][..]),
        "{listed}"
    );
    let shown = server.get("/v1/jobs", &[]).await.json()["jobs"][0]["running"].clone();
    let fence = stuck["fence"].to_string();
    let (beat, until) = (shown["heartbeatAt"].as_str().unwrap(), shown["leaseUntil"].as_str().unwrap());
    assert_eq!(cells[1][..5], ["EXPIRE_LOCKS", "stuck", &fence, beat, until], "{listed}");
    let (code, history) = jobs(&["history", "EXPIRE_LOCKS"]).await;
    assert_eq!((code, history.lines().count()), (0, 3), "a header, a run and a skip: {history}");
    assert!(history.contains("RUNNING") && history.contains("SKIPPED"), "{history}");
    let (code, page) = jobs(&["history", "EXPIRE_LOCKS", "--limit", "1", "--json"]).await;
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!((code, page["runs"].as_array().unwrap().len()), (0, 1));
    let (code, refused) = jobs(&["release", "EXPIRE_LOCKS", "--fence", "0", "--reason", "x"]).await;
    assert_eq!(code, 11, "another fence: {refused}");
    assert!(!refused.contains("--tenant"), "{refused}");
    for unknown in [&["EXPIRE_LOCK"][..], &["EXPIRE_LOCKS", "--tenant", "acme"]] {
        let all = [&["release"], unknown, &["--fence", &fence, "--reason", "x"]].concat();
        let (code, refused) = jobs(&all).await;
        let whose = if unknown.contains(&"acme") { "tenant `acme`" } else { "tenant `default`" };
        assert!(code == 11 && refused.contains("NOT_FOUND") && refused.contains(whose), "{refused}");
        assert!(refused.contains(&format!("`{}`", unknown[0])) && refused.contains("--tenant"), "{refused}");
    }
    let (code, released) =
        jobs(&["release", "EXPIRE_LOCKS", "--fence", &fence, "--reason", "it hangs"]).await;
    assert!(code == 0 && released.contains("LAPSED"), "{released}");
    assert_eq!(jobs(&["release", "EXPIRE_LOCKS", "--fence", &fence]).await.0, 2, "why?");
}
