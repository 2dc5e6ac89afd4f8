//! The Claims API: somebody else does the work, and the ledger sees to it that only one does.

use serde_json::Value;

use crate::http::Answer;
use crate::server::Server;
use crate::wait::eventually;

const CLAIM: &str = r#"{"key":"invoice-7","operation":"invoice.render","payload":{"invoice":7}}"#;

async fn claim(server: &Server, body: &str) -> Answer {
    server.post("/v1/claims", body).await
}

async fn granted(server: &Server, body: &str) -> Value {
    let answer = claim(server, body).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["claim"].clone()
}

/// A command of the claim's holder, with more fields beside the token.
async fn command(server: &Server, claim: &Value, command: &str, more: &str) -> Answer {
    let (id, token) = (claim["id"].as_str().unwrap(), claim["token"].as_str().unwrap());
    server.post(&format!("/v1/claims/{id}/{command}"), &format!(r#"{{"token":"{token}"{more}}}"#)).await
}

#[tokio::test]
async fn a_claim_says_everything_that_its_holder_needs() {
    let server = Server::start("").await;
    let claim = granted(&server, CLAIM).await;
    assert_eq!(
        (claim["key"].as_str(), claim["operation"].as_str()),
        (Some("invoice-7"), Some("invoice.render"))
    );
    assert_eq!((claim["attempt"].as_u64(), claim["resumed"].as_bool()), (Some(1), Some(false)));
    assert_eq!(claim["lease_ms"].as_u64(), Some(300_000));
    assert!(claim["fence"].as_u64().unwrap() >= 1 && claim["checkpoints"].as_array().unwrap().is_empty());
    for name in ["id", "token", "downstream_key"] {
        assert_eq!(claim[name].as_str().unwrap().len(), 32, "{name}");
    }
    assert!(claim["lease_until"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn the_second_is_busy_and_after_the_completion_it_is_a_replay() {
    let server = Server::start("").await;
    let first = granted(&server, CLAIM).await;
    let busy = claim(&server, CLAIM).await;
    assert_eq!(busy.refusal(), (409, "IDEMPOTENCY_CONCURRENT_REQUEST".to_owned()));
    assert!(busy.header("retry-after").is_some());
    let outcome = r#","outcome":{"status":201,"result":{"pages":3,"big":9007199254740993}}"#;
    for _ in 0..2 {
        let done = command(&server, &first, "complete", outcome).await;
        assert_eq!(
            (done.status, done.json()["state"].as_str()),
            (200, Some("completed")),
            "said twice is a success"
        );
    }
    let replay = claim(&server, CLAIM).await;
    assert_eq!((replay.status, replay.header("idempotent-replayed")), (200, Some("true")));
    assert!(replay.header("idempotency-expires").is_some());
    let text = replay.text();
    assert!(text.starts_with(r#"{"status":"completed","id":""#), "{text}");
    let outcome =
        r#""outcome":{"class":"success","status":201,"result":{"pages":3,"big":9007199254740993}}}"#;
    assert!(text.ends_with(outcome), "{text}");
    let other = claim(&server, &CLAIM.replace('7', "8").replace("invoice-8", "invoice-7")).await;
    assert_eq!(other.refusal(), (422, "IDEMPOTENCY_PARAMETER_MISMATCH".to_owned()));
}

#[tokio::test]
async fn a_stale_owner_extends_completes_and_releases_nothing_of_the_new_owner_l6() {
    let server = Server::start("").await;
    let body = CLAIM.replace("}}", r#"},"lease_ms":150,"policy":{"semantics":"resume"}}"#);
    let stale = granted(&server, &body).await;
    let noted = command(&server, &stale, "checkpoints", r#","phase":"rendered","data":{"page":1}"#).await;
    assert_eq!(noted.status, 200, "{}", noted.text());
    let fresh = eventually("the lease lapses", async || {
        let answer = claim(&server, &body).await;
        assert!(matches!(answer.status, 201 | 409), "{}", answer.text());
        (answer.status == 201).then(|| answer.json()["claim"].clone())
    })
    .await;
    assert!(fresh["fence"].as_u64() > stale["fence"].as_u64(), "L2");
    assert_eq!((fresh["attempt"].as_u64(), fresh["resumed"].as_bool()), (Some(2), Some(true)));
    assert_eq!(fresh["checkpoints"].to_string(), r#"[{"data":{"page":1},"phase":"rendered"}]"#);
    for (name, more) in [
        ("extend", ""),
        ("checkpoints", r#","phase":"x""#),
        ("complete", r#","outcome":{"result":1}"#),
        ("release", ""),
    ] {
        let refused = command(&server, &stale, name, more).await;
        assert_eq!(refused.refusal(), (409, "IDEMPOTENCY_FENCED".to_owned()), "{name}");
    }
    assert_eq!(command(&server, &fresh, "complete", "").await.status, 200);
}

#[tokio::test]
async fn a_lapsed_claim_at_most_once_is_unknown_and_its_holder_may_still_find_out() {
    let server = Server::start("").await;
    let lost = granted(&server, &CLAIM.replace("}}", r#"},"lease_ms":100}"#)).await;
    eventually("the lease lapses", async || {
        let (status, code) = claim(&server, CLAIM).await.refusal();
        assert_eq!(status, 409);
        assert!(
            ["IDEMPOTENCY_CONCURRENT_REQUEST", "IDEMPOTENCY_OUTCOME_UNKNOWN"].contains(&&*code),
            "{code}"
        );
        (code == "IDEMPOTENCY_OUTCOME_UNKNOWN").then_some(())
    })
    .await;
    let late = command(&server, &lost, "complete", r#","outcome":{"result":"late"}"#).await;
    assert_eq!(late.status, 200, "a late one counts if nobody took over");
    assert_eq!(claim(&server, CLAIM).await.status, 200);
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_the_same_claim_under_its_attempt_id() {
    let server = Server::start("").await;
    let body = CLAIM.replace("}}", r#"},"attempt_id":"worker-1-a"}"#);
    let (first, again) = (granted(&server, &body).await, granted(&server, &body).await);
    assert_eq!(first["token"], again["token"]);
    assert_eq!(first["fence"], again["fence"]);
}

#[tokio::test]
async fn after_a_release_the_next_claim_runs_under_a_higher_fence_l2() {
    let server = Server::start("").await;
    let first = granted(&server, CLAIM).await;
    let released = command(&server, &first, "release", r#","error":"the printer is on fire""#).await;
    assert_eq!((released.status, released.json()["state"].as_str()), (200, Some("released")));
    let second = granted(&server, CLAIM).await;
    assert!(second["fence"].as_u64() > first["fence"].as_u64());
    assert_eq!(second["attempt"].as_u64(), Some(2));
}

#[tokio::test]
async fn a_checkpoint_said_twice_is_a_success_and_another_under_its_name_is_refused() {
    let server = Server::start("").await;
    let mine = granted(&server, CLAIM).await;
    let first = r#","phase":"a","data":[1]"#;
    assert_eq!(command(&server, &mine, "checkpoints", first).await.status, 200);
    assert_eq!(command(&server, &mine, "checkpoints", first).await.status, 200);
    let other = command(&server, &mine, "checkpoints", r#","phase":"a","data":[2]"#).await;
    assert_eq!(other.refusal(), (409, "ILLEGAL_TRANSITION".to_owned()));
    let large = format!(r#","phase":"b","data":"{}""#, "x".repeat(65 * 1024));
    let large = command(&server, &mine, "checkpoints", &large).await;
    assert_eq!(large.refusal(), (413, "PAYLOAD_TOO_LARGE".to_owned()));
}

#[tokio::test]
async fn extending_renews_the_lease() {
    let server = Server::start("").await;
    let mine = granted(&server, &CLAIM.replace("}}", r#"},"lease_ms":60000}"#)).await;
    // It is as long as before, so it is later as soon as the store's clock has moved.
    eventually("a later end of the lease", async || {
        let extended = command(&server, &mine, "extend", "").await;
        assert_eq!(extended.status, 200, "{}", extended.text());
        (extended.json()["lease_until"].as_str() > mine["lease_until"].as_str()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_fingerprint_of_the_clients_own_stands_for_the_payload() {
    let server = Server::start("").await;
    let body =
        |digit: &str| format!(r#"{{"key":"one","operation":"a","fingerprint":"{}"}}"#, digit.repeat(64));
    granted(&server, &body("a")).await;
    assert_eq!(claim(&server, &body("a")).await.status, 409);
    assert_eq!(claim(&server, &body("b")).await.status, 422);
    assert_eq!(claim(&server, r#"{"key":"one","operation":"a","payload":{}}"#).await.status, 422);
}

#[tokio::test]
async fn the_key_may_be_the_header_and_must_agree_with_the_field() {
    let server = Server::start("").await;
    let url = format!("{}/v1/claims", server.url());
    let send = async |key: &str, body: &str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        server.http().post(&url, &headers, body.to_owned()).await.unwrap()
    };
    assert_eq!(send("\"one\"", r#"{"operation":"a","payload":1}"#).await.status, 201);
    assert_eq!(send("one", r#"{"key":"one","operation":"a","payload":1}"#).await.status, 409);
    assert_eq!(send("two", r#"{"key":"one","operation":"a","payload":1}"#).await.status, 400);
    let missing = claim(&server, r#"{"operation":"a","payload":1}"#).await;
    assert_eq!(missing.refusal(), (400, "IDEMPOTENCY_KEY_REQUIRED".to_owned()));
    assert!(missing.text().contains("needs a `key`"), "it names the field of this door: {}", missing.text());
}

#[tokio::test]
async fn an_outcome_without_a_body_or_that_is_not_json_is_replayed_as_what_it_is() {
    let server = Server::start("").await;
    let ends = [
        ("{}", r#""outcome":{"class":"success","status":200}}"#),
        (
            r#"{"class":"rejection","status":422,"content_type":"text/plain","body_base64":"bm8="}"#,
            r#""outcome":{"class":"rejection","status":422,"content_type":"text/plain","body_base64":"bm8="}}"#,
        ),
    ];
    for (place, (given, replayed)) in ends.into_iter().enumerate() {
        let body = format!(r#"{{"key":"key-{place}","operation":"a","payload":1}}"#);
        let mine = granted(&server, &body).await;
        let done = command(&server, &mine, "complete", &format!(r#","outcome":{given}"#)).await;
        assert_eq!(done.status, 200, "{}", done.text());
        let replay = claim(&server, &body).await;
        assert!(replay.text().ends_with(replayed), "{}", replay.text());
    }
    let mine = granted(&server, r#"{"key":"gone","operation":"a","payload":1}"#).await;
    for (odd, field) in [
        (r#"{"status":99}"#, "outcome.status"),
        (r#"{"class":"x"}"#, "outcome.class"),
        (r#"{"class":"discarded"}"#, "outcome.class"),
    ] {
        let odd = command(&server, &mine, "complete", &format!(r#","outcome":{odd}"#)).await;
        assert_eq!(odd.refusal(), (400, "VALIDATION_FAILED".to_owned()), "{}", odd.text());
        let detail = &odd.json()["error"]["details"][0];
        assert_eq!(detail["field"], field);
        assert!(!detail["message"].as_str().unwrap().contains("discarded"), "{}", odd.text());
    }
    assert_eq!(command(&server, &mine, "complete", r#","outcome":{"gone":true}"#).await.status, 200);
    let gone = claim(&server, r#"{"key":"gone","operation":"a","payload":1}"#).await;
    assert_eq!(gone.refusal(), (410, "IDEMPOTENCY_RESULT_GONE".to_owned()));
}

#[tokio::test]
async fn the_handler_that_never_settles_does_not_wedge_the_key_for_a_day() {
    let server =
        Server::start("[server.claims]\nlease = \"100ms\"\nretention = \"24h\"\nsemantics = \"resume\"\n")
            .await;
    granted(&server, CLAIM).await;
    eventually("the claim carries its lease, and not the result's retention", async || {
        (claim(&server, CLAIM).await.status == 201).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_said_twice_is_counted_and_audited_once() {
    let server = Server::start("").await;
    let body = CLAIM.replace("}}", r#"},"attempt_id":"worker-1-a"}"#);
    let mine = granted(&server, &body).await;
    granted(&server, &body).await;
    for _ in 0..2 {
        let completed = command(&server, &mine, "complete", r#","outcome":{"result":{"pages":3}}"#).await;
        assert_eq!(completed.status, 200);
    }
    let metrics = server.http().get(&format!("{}/metrics", server.admin_url()), &[]).await.unwrap();
    let count = |series: &str| {
        let line = metrics.text().lines().find_map(|line| line.strip_prefix(series));
        line.and_then(|rest| rest.split_ascii_whitespace().next()).map(str::to_owned)
    };
    assert_eq!(count("idempotency_misses_total{service=\"semel\"}").as_deref(), Some("1"));
    let repeated = "semel_duplicates_total{service=\"semel\",door=\"claims\",reason=\"repeated\"}";
    assert_eq!(count(repeated).as_deref(), Some("1"));
    // A later entry is behind all earlier ones.
    assert_eq!(claim(&server, CLAIM).await.status, 200);
    let audit = format!("{}/v1/audit", server.admin_url());
    let told = eventually("the last entry is written", async || {
        let audit = server.http().get(&audit, &[]).await.unwrap().json();
        let entries = audit["entries"].as_array().unwrap().iter().rev();
        let told: Vec<_> = entries.map(|entry| entry["action"].as_str().unwrap().to_owned()).collect();
        (told.last().is_some_and(|last| last == "replayed")).then_some(told)
    })
    .await;
    assert_eq!(told, ["configuration_loaded", "claimed", "completed", "replayed"]);
}

#[tokio::test]
async fn a_claim_takes_the_policy_and_the_tags_that_its_operation_has_unless_it_says_otherwise() {
    let server = Server::start(
        "[server]\ndevelopment = true\n[[operations]]\nname = \"ship\"\ntarget = \"http://127.0.0.1:1/\"\n\
         semantics = \"resume\"\nlease = \"40s\"\nretention = \"3h\"\n\
         tags = { order_id = \"/order/id\", partner = \"/partner\" }\n",
    )
    .await;
    let record = async |key: &str| -> Value {
        let url = format!("{}/v1/records?key={key}", server.admin_url());
        let page = server.http().get(&url, &[]).await.unwrap().json();
        let id = page["records"][0]["id"].as_str().unwrap().to_owned();
        let url = format!("{}/v1/records/{id}", server.admin_url());
        server.http().get(&url, &[]).await.unwrap().json()
    };
    let payload = r#""operation":"ship","payload":{"order":{"id":"A-1"},"partner":"p"}"#;
    let usual = granted(&server, &format!(r#"{{"key":"usual",{payload}}}"#)).await;
    assert_eq!(usual["lease_ms"].as_u64(), Some(40_000));
    let shown = record("usual").await;
    assert_eq!(shown["tags"], serde_json::json!({"order_id": "A-1", "partner": "p"}));
    assert_eq!(
        (&shown["policy"]["semantics"], &shown["policy"]["retention_ms"]),
        (&serde_json::json!("resume"), &serde_json::json!(10_800_000)),
        "{shown}"
    );
    let own = r#""lease_ms":7000,"policy":{"semantics":"at-most-once"},"tags":{"partner":"q","lot":"1"}"#;
    let own = granted(&server, &format!(r#"{{"key":"own",{payload},{own}}}"#)).await;
    assert_eq!(own["lease_ms"].as_u64(), Some(7_000));
    let shown = record("own").await;
    assert_eq!(shown["tags"], serde_json::json!({"order_id": "A-1", "partner": "q", "lot": "1"}));
    assert_eq!(
        (&shown["policy"]["semantics"], &shown["policy"]["retention_ms"]),
        (&serde_json::json!("at-most-once"), &serde_json::json!(10_800_000)),
        "what it does not say stays as it is configured: {shown}"
    );
    let plain = granted(&server, CLAIM).await;
    assert_eq!(plain["lease_ms"].as_u64(), Some(300_000), "an operation that is not configured");
}

#[tokio::test]
async fn a_resumable_claim_that_nobody_drives_is_listed_as_lapsed_and_ended_by_a_takeover_l8() {
    let server = Server::start("").await;
    let body = CLAIM.replace("}}", r#"},"lease_ms":200,"policy":{"semantics":"resume"}}"#);
    let lost = granted(&server, &body).await;
    let live = granted(&server, &CLAIM.replace(r#""key":""#, r#""key":"live-"#)).await;
    let listed = format!("{}/v1/records?lapsed=true", server.admin_url());
    let lapsed = eventually("the lapse is seen", async || {
        let page = server.http().get(&listed, &[]).await.unwrap().json();
        page["records"].as_array().filter(|records| !records.is_empty()).cloned()
    })
    .await;
    assert_eq!((lapsed.len(), &lapsed[0]["id"]), (1, &lost["id"]), "and not {}", live["id"]);
    assert!(lapsed[0]["wake_at"].is_null() && lapsed[0]["state"] == "running");
    let (admin, folder) = (server.admin_url(), tempfile::tempdir().unwrap());
    let shell = ["records", "ls", "--lapsed", "--admin-url", &admin];
    let shown = crate::server::command(&shell, folder.path()).output().await.unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.lines().count() == 2 && shown.contains(lost["id"].as_str().unwrap()), "{shown}");
    let mine = granted(&server, &body).await;
    assert_eq!((mine["attempt"].as_u64(), mine["resumed"].as_bool()), (Some(2), Some(true)));
    let released = command(&server, &mine, "release", "").await;
    assert_eq!((released.status, released.json()["state"].as_str()), (200, Some("released")));
}
