//! Dead letters as operators see them: found, grouped, shown with all tries, revived and discarded; by the API and from a shell.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::http::Answer;
use crate::server::{Server, command};
use crate::wait::eventually;

/// A target that answers as it is told, and knows which keys it has seen.
#[derive(Clone)]
struct Moody {
    status: Arc<AtomicU16>,
    keys: Arc<Mutex<Vec<String>>>,
}

impl Moody {
    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn keys(&self) -> Vec<String> {
        self.keys.lock().unwrap().clone()
    }
}

async fn answer(State(moody): State<Moody>, headers: HeaderMap) -> (StatusCode, &'static str) {
    moody.keys.lock().unwrap().push(headers["idempotency-key"].to_str().unwrap().to_owned());
    (StatusCode::from_u16(moody.status.load(Ordering::SeqCst)).unwrap(), "{}")
}

/// A server whose work dies at its first try, as long as its target says so.
struct World {
    server: Server,
    target: Moody,
}

const TOKENS: &str =
    "[admin]\ntokens = [{ role = \"read\", token = \"r\" }, { role = \"operate\", token = \"o\" }]\n";

impl World {
    async fn new(more: &str) -> Self {
        let target = Moody { status: Arc::new(AtomicU16::new(429)), keys: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/", post(answer)).with_state(target.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let operation = format!(
            "[server]\ndevelopment = true\n{more}[[operations]]\nname = \"ship\"\ntarget = \"http://{address}/\"\n\
             tags = {{ source = \"/source\", target = \"/target\", kind = \"/kind\" }}\n\
             retry = {{ max_attempts = 1, first = \"1ms\", cap = \"1ms\" }}\n"
        );
        Self { server: Server::start(&operation).await, target }
    }

    /// Takes work in, which will die.
    async fn accept(&self, key: &str, tags: &Value) {
        let asked = [("prefer", "respond-async")];
        assert_eq!(self.server.execute("ship", key, &tags.to_string(), &asked).await.status, 202);
    }

    async fn ask(&self, method: &str, path: &str, body: &str, token: &str) -> Answer {
        let token = format!("Bearer {token}");
        let headers = [("content-type", "application/json"), ("authorization", &token)];
        let url = format!("{}{path}", self.server.admin_url());
        self.server.http().send(method, &url, &headers, body.to_owned()).await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, "", "o").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.ask("POST", path, &body.to_string(), "o").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    async fn refused(&self, path: &str, body: &Value) -> (u16, String) {
        self.ask("POST", path, &body.to_string(), "o").await.refusal()
    }

    /// The keys of what is dead and matches.
    async fn keys(&self, query: &str) -> BTreeSet<String> {
        let page = self.get(&format!("/v1/dead?{query}")).await;
        let letters = page["dead"].as_array().unwrap();
        letters.iter().map(|letter| letter["key"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until so many have died.
    async fn dead(&self, count: usize) {
        eventually(&format!("{count} are dead"), async || {
            (self.keys("limit=1000").await.len() == count).then_some(())
        })
        .await;
    }

    /// The record of a key.
    async fn record(&self, key: &str) -> Value {
        let page = self.get(&format!("/v1/records?key={key}")).await;
        page["records"][0].clone()
    }

    async fn until(&self, key: &str, state: &str) -> Value {
        eventually(&format!("{key} is {state}"), async || {
            Some(self.record(key).await).filter(|now| now["state"] == state)
        })
        .await
    }
}

/// Six of two sources: two events each, and of the first a conflict and a duplicate.
async fn six(world: &World) {
    for (key, source, target, kind) in [
        ("x-1", "xendit", "books", ""),
        ("x-2", "xendit", "mail", ""),
        ("x-conflict", "xendit", "books", "conflict"),
        ("x-duplicate", "xendit", "books", "duplicate"),
        ("s-1", "stripe", "books", ""),
        ("s-2", "stripe", "mail", ""),
    ] {
        world.accept(key, &json!({ "source": source, "target": target, "kind": kind })).await;
    }
    world.dead(6).await;
}

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

fn path_of(record: &Value, rest: &str) -> String {
    format!("/v1/dead/{}{rest}", record["id"].as_str().unwrap())
}

fn judgement(record: &Value, reason: &str) -> Value {
    json!({ "version": record["version"], "reason": reason })
}

#[tokio::test]
async fn dead_letters_are_found_by_source_target_kind_error_and_time() {
    let world = World::new("").await;
    six(&world).await;
    assert_eq!(world.keys("source=xendit").await.len(), 4);
    assert_eq!(world.keys("source=xendit&target=mail").await, set(&["x-2"]));
    assert_eq!(world.keys("target=mail").await, set(&["x-2", "s-2"]));
    assert_eq!(world.keys("kind=event&source=xendit").await, set(&["x-1", "x-2"]));
    assert_eq!(world.keys("kind=conflict").await, set(&["x-conflict"]));
    assert_eq!(world.keys("kind=duplicate&source=stripe").await, set(&[]));
    assert_eq!(world.keys("tag=target%3Dbooks&source=stripe").await, set(&["s-1"]));
    assert_eq!(world.keys("namespace=webhook").await, set(&[]));
    let letter = world.get("/v1/dead?key=s-1").await["dead"][0].clone();
    let error = letter["error"].as_str().unwrap();
    assert!(error.contains("429"), "{error}");
    assert_eq!(
        (&letter["source"], &letter["kind"], &letter["state"]),
        (&json!("stripe"), &json!("event"), &json!("dead"))
    );
    let same = error.replace(' ', "%20");
    assert_eq!(world.keys(&format!("error={same}")).await.len(), 6);
    assert!(world.keys("error=something%20else").await.is_empty());
    let created = letter["created_at"].as_str().unwrap();
    assert!(world.keys(&format!("from={created}")).await.contains("s-1"));
    assert!(!world.keys(&format!("until={created}")).await.contains("s-1"));
    // What is alive is no dead letter.
    world.server.execute("echo", "alive", "{}", &[]).await;
    assert_eq!(world.keys("").await.len(), 6);
    for odd in ["kind=x", "sauce=xendit", "limit=0", "cursor=zz", "tag=x", "namespace=x"] {
        let refused = world.ask("GET", &format!("/v1/dead?{odd}"), "", "o").await;
        assert_eq!(refused.refusal(), (400, "VALIDATION_FAILED".to_owned()), "{odd}");
    }
}

#[tokio::test]
async fn a_page_that_picks_reads_a_bounded_number_and_says_where_to_go_on() {
    let world = World::new("").await;
    world.accept("wanted", &json!({ "source": "xendit", "target": "mail" })).await;
    world.dead(1).await;
    for number in 0..25 {
        world.accept(&format!("other-{number}"), &json!({ "source": "xendit", "target": "books" })).await;
    }
    world.dead(26).await;
    let first = world.get("/v1/dead?source=xendit&target=mail&limit=1").await;
    assert_eq!(first["dead"], json!([]), "twenty were read, and none of them is wanted");
    let next = first["next"].as_str().unwrap();
    let second = world.get(&format!("/v1/dead?source=xendit&target=mail&limit=1&cursor={next}")).await;
    assert_eq!(second["dead"][0]["key"], "wanted");
    assert_eq!(second["next"], Value::Null);
}

#[tokio::test]
async fn they_are_grouped_by_what_they_died_of_with_count_first_last_and_an_example() {
    let world = World::new("").await;
    six(&world).await;
    world.target.answers(407);
    world.accept("other", &json!({ "source": "xendit" })).await;
    world.dead(7).await;
    let all = world.get("/v1/dead/groups").await;
    assert_eq!(
        (&all["counted"], &all["others"], &all["more"], &all["next"]),
        (&json!(7), &json!(0), &json!(false), &Value::Null)
    );
    let groups = all["groups"].as_array().unwrap();
    let counts: Vec<_> = groups.iter().map(|group| group["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [6, 1], "the largest first");
    let (large, small) = (&groups[0], &groups[1]);
    assert!(large["first"].as_str() <= large["last"].as_str());
    assert_eq!(large["last"], large["example"]["died_at"], "the example is the one that died last");
    assert_eq!(small["example"]["key"], "other");
    // What a group is called finds its dead letters.
    let called = small["error"].as_str().unwrap().replace(' ', "+");
    let found = world.get(&format!("/v1/dead?error={called}")).await;
    assert_eq!((found["dead"].as_array().unwrap().len(), &found["dead"][0]["key"]), (1, &json!("other")));
    let one = world.get("/v1/dead/groups?limit=1&source=xendit").await;
    assert_eq!(
        (one["groups"].as_array().unwrap().len(), &one["counted"], &one["others"]),
        (1, &json!(5), &json!(1))
    );
}

#[tokio::test]
async fn a_dead_letter_is_shown_with_all_its_tries_and_answers_only_to_who_may_see_bodies() {
    let world = World::new(TOKENS).await;
    world.accept("one", &json!({ "source": "xendit" })).await;
    world.dead(1).await;
    let dead = world.record("one").await;
    world.post(&path_of(&dead, "/revive"), &judgement(&dead, "it is back")).await;
    // It is not, so it dies once more.
    let dead = eventually("it dies again", async || {
        let now = world.record("one").await;
        (now["state"] == "dead" && now["version"] != dead["version"]).then_some(now)
    })
    .await;
    let tries = async |token: &str| world.ask("GET", &path_of(&dead, ""), "", token).await.json();
    let shown = eventually("the audit log has both tries", async || {
        Some(tries("o").await).filter(|shown| shown["attempts"].as_array().unwrap().len() == 2)
    })
    .await;
    assert_eq!(
        (&shown["source"], &shown["generation"], &shown["state"]),
        (&json!("xendit"), &json!(1), &json!("dead"))
    );
    for tried in shown["attempts"].as_array().unwrap() {
        assert!(tried["error"].as_str().unwrap().contains("429"), "{tried}");
        assert_eq!(tried["to_state"], "dead");
    }
    assert!(shown["attempts"][0]["at"].as_str() >= shown["attempts"][1]["at"].as_str(), "the last one first");
    let read = tries("r").await;
    assert_eq!((&read["input"]["body"], &read["attempts"][0]["response"]), (&Value::Null, &Value::Null));
    assert_ne!(shown["input"]["body"], Value::Null);
    assert_eq!(world.ask("GET", "/v1/dead/00000000000000000000000000000000", "", "r").await.status, 404);
}

#[tokio::test]
async fn the_role_read_looks_and_does_not_judge_and_nobody_does_without_a_token() {
    let world = World::new(TOKENS).await;
    world.accept("one", &json!({})).await;
    world.dead(1).await;
    let dead = world.record("one").await;
    for path in ["/v1/dead", "/v1/dead/groups", &path_of(&dead, "")] {
        assert_eq!(world.ask("GET", path, "", "r").await.status, 200);
        assert_eq!(world.ask("GET", path, "", "x").await.refusal(), (401, "UNAUTHENTICATED".to_owned()));
    }
    let one = judgement(&dead, "x").to_string();
    let all = json!({ "all": true, "reason": "x" }).to_string();
    for (path, body) in [
        (path_of(&dead, "/revive"), &one),
        (path_of(&dead, "/discard"), &one),
        ("/v1/dead/revive".to_owned(), &all),
        ("/v1/dead/discard".to_owned(), &all),
    ] {
        assert_eq!(
            world.ask("POST", &path, body, "r").await.refusal(),
            (403, "FORBIDDEN".to_owned()),
            "{path}"
        );
    }
    assert_eq!(world.record("one").await["version"], dead["version"]);
}

#[tokio::test]
async fn a_manual_replay_is_not_swallowed_by_the_dedupe_and_has_a_reason_a_new_generation_and_the_same_downstream_key()
 {
    let world = World::new("").await;
    world.accept("one", &json!({})).await;
    world.dead(1).await;
    let dead = world.record("one").await;
    let silent = world.refused(&path_of(&dead, "/revive"), &judgement(&dead, " ")).await;
    assert_eq!(silent, (400, "VALIDATION_FAILED".to_owned()));
    world.target.answers(200);
    let revived = world.post(&path_of(&dead, "/revive"), &judgement(&dead, "the target is back")).await;
    assert_eq!((&revived["record"]["id"], &revived["repeats"]), (&dead["id"], &Value::Null));
    let done = world.until("one", "completed").await;
    let shown = world.get(&path_of(&done, "")).await;
    assert_eq!((&shown["generation"], &shown["attempt"], &shown["tries"]), (&json!(1), &json!(2), &json!(1)));
    let keys = world.target.keys();
    assert_eq!((keys.len(), &keys[0]), (2, &keys[1]));
    let audit = world.get(&format!("/v1/audit?action=revived&record={}", done["id"].as_str().unwrap())).await;
    assert_eq!(audit["entries"][0]["reason"], "the target is back");
    let stale = world.refused(&path_of(&dead, "/discard"), &judgement(&dead, "x")).await;
    assert_eq!(stale, (409, "VERSION_CONFLICT".to_owned()));
}

#[tokio::test]
async fn a_replay_that_repeats_completed_work_needs_force_and_is_a_new_generation() {
    let world = World::new("").await;
    world.target.answers(200);
    world.accept("one", &json!({ "source": "xendit" })).await;
    let done = world.until("one", "completed").await;
    let path = path_of(&done, "/revive");
    let refused = world.refused(&path, &judgement(&done, "again")).await;
    assert_eq!(refused, (409, "ILLEGAL_TRANSITION".to_owned()));
    assert_eq!(world.target.keys().len(), 1, "a completed event is not repeated");
    let mut forced = judgement(&done, "the warehouse has lost it");
    forced["force"] = json!(true);
    let first = world.post(&path, &forced).await;
    assert_eq!(first["repeats"], done["id"]);
    let repetition = eventually("it is repeated", async || {
        let now = world.get(&path_of(&first["record"], "")).await;
        (now["state"] == "completed").then_some(now)
    })
    .await;
    assert_eq!(repetition["origin"], done["id"]);
    let again = world.post(&path, &forced).await;
    assert_eq!(
        again["record"]["id"], first["record"]["id"],
        "its answer was lost: there is no second repetition"
    );
    let keys = world.target.keys();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1], "a downstream key of its own");
    let shown = world.get(&path_of(&done, "")).await;
    assert_eq!(shown["repeated_by"], first["record"]["id"]);
    assert_eq!(
        world.record("one").await["version"],
        done["version"],
        "L3: what is completed does not change"
    );
    let id = done["id"].as_str().unwrap();
    let audit = world.get(&format!("/v1/audit?action=revived&record={id}")).await;
    let entries = audit["entries"].as_array().unwrap();
    assert_eq!((entries.len(), &entries[0]["reason"]), (1, &json!("the warehouse has lost it")));
    // To repeat once more, the repetition is repeated.
    let mut once_more = judgement(&repetition, "and again");
    once_more["force"] = json!(true);
    let third = world.post(&path_of(&repetition, "/revive"), &once_more).await;
    assert_eq!(third["repeats"], repetition["id"]);
    eventually("three runs", async || (world.target.keys().len() == 3).then_some(())).await;
}

#[tokio::test]
async fn a_duplicate_that_is_filed_is_delivered_only_by_force_whichever_way_it_is_revived() {
    let world = World::new("").await;
    six(&world).await;
    let duplicate = world.record("x-duplicate").await;
    let illegal = (409, "ILLEGAL_TRANSITION".to_owned());
    assert_eq!(world.refused(&path_of(&duplicate, "/revive"), &judgement(&duplicate, "x")).await, illegal);
    let other = format!("/v1/records/{}/revive", duplicate["id"].as_str().unwrap());
    assert_eq!(world.refused(&other, &judgement(&duplicate, "x")).await, illegal);
    let bulk =
        world.post("/v1/records/revive", &json!({ "filter": { "key": "x-duplicate" }, "reason": "x" })).await;
    assert_eq!((&bulk["changed"], &bulk["failed"]), (&json!(0), &json!(1)));
    world.target.answers(200);
    let mut forced = judgement(&duplicate, "it was never taken after all");
    forced["force"] = json!(true);
    world.post(&path_of(&duplicate, "/revive"), &forced).await;
    world.until("x-duplicate", "completed").await;
}

#[tokio::test]
async fn all_that_match_are_counted_first_and_what_is_filed_is_left_out() {
    let world = World::new("").await;
    six(&world).await;
    let filter = json!({ "source": "xendit" });
    let preview = world.post("/v1/dead/revive", &json!({ "filter": filter, "dry_run": true })).await;
    assert_eq!(
        (&preview["matched"], &preview["skipped"], &preview["changed"]),
        (&json!(4), &json!(2), &json!(0))
    );
    assert_eq!(world.keys("").await.len(), 6, "nothing has changed");
    world.target.answers(200);
    let revived = world.post("/v1/dead/revive", &json!({ "filter": filter, "reason": "it is back" })).await;
    assert_eq!(
        (&revived["changed"], &revived["skipped"], &revived["next"]),
        (&json!(2), &json!(2), &Value::Null)
    );
    for key in ["x-1", "x-2"] {
        world.until(key, "completed").await;
    }
    assert_eq!(world.keys("source=xendit").await, set(&["x-conflict", "x-duplicate"]));
    let conflicts = json!({ "filter": { "kind": "conflict" }, "reason": "the second one holds" });
    assert_eq!(world.post("/v1/dead/revive", &conflicts).await["changed"], 1);
    let duplicates = json!({ "filter": { "kind": "duplicate" }, "reason": "looked at" });
    assert_eq!(world.post("/v1/dead/revive", &duplicates).await["skipped"], 1, "without force");
    assert_eq!(world.post("/v1/dead/discard", &duplicates).await["changed"], 1);
    let rest = world.post("/v1/dead/discard", &json!({ "all": true, "reason": "tests" })).await;
    assert_eq!(rest["changed"], 2);
    assert!(world.keys("").await.is_empty());
}

#[tokio::test]
async fn a_part_works_on_its_limit_at_its_rate_and_says_where_to_go_on() {
    let world = World::new("").await;
    for number in 0..12 {
        world.accept(&format!("k-{number}"), &json!({})).await;
    }
    world.dead(12).await;
    world.target.answers(200);
    let begun = std::time::Instant::now();
    let mut body = json!({ "all": true, "limit": 5, "rate": 20, "reason": "it is back" });
    let (mut parts, mut changed) = (0, 0);
    loop {
        let part = world.post("/v1/dead/revive", &body).await;
        parts += 1;
        changed += part["changed"].as_u64().unwrap();
        assert_eq!(part["more"].as_bool().unwrap(), part["next"].is_string());
        let Some(next) = part["next"].as_str() else { break };
        body["cursor"] = json!(next);
    }
    assert_eq!((parts, changed), (3, 12));
    assert!(begun.elapsed().as_millis() >= 600, "twelve at twenty a second");
    world.dead(0).await;
}

#[tokio::test]
async fn some_are_named_one_by_one_with_the_version_that_was_judged() {
    let world = World::new("").await;
    six(&world).await;
    let (one, two) = (world.record("x-1").await, world.record("s-1").await);
    let named = |record: &Value, version: &Value| json!({ "id": record["id"], "version": version });
    let body = json!({
        "records": [named(&one, &one["version"]), named(&two, &json!("9.9"))], "reason": "a test order"
    });
    let mut dry = body.clone();
    dry["dry_run"] = json!(true);
    let preview = world.post("/v1/dead/discard", &dry).await;
    assert_eq!((&preview["matched"], &preview["failed"]), (&json!(1), &json!(1)));
    let done = world.post("/v1/dead/discard", &body).await;
    assert_eq!((&done["changed"], &done["failed"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&done["failures"][0]["id"], &done["failures"][0]["code"]),
        (&two["id"], &json!("VERSION_CONFLICT"))
    );
    assert_eq!(world.record("x-1").await["state"], "completed");
    assert_eq!(world.record("s-1").await["state"], "dead");
}

#[tokio::test]
async fn what_is_asked_wrongly_changes_nothing_and_says_which_field() {
    let world = World::new("").await;
    six(&world).await;
    let named = json!([{ "id": "00000000000000000000000000000000", "version": "1.1" }]);
    for (path, body, field) in [
        ("revive", json!({ "reason": "x" }), "filter"),
        ("revive", json!({ "filter": {}, "reason": "x" }), "filter"),
        ("revive", json!({ "filter": { "source": "a" }, "all": true, "reason": "x" }), "all"),
        ("revive", json!({ "filter": { "sauce": "a" }, "reason": "x" }), "filter.sauce"),
        ("revive", json!({ "filter": { "kind": "a" }, "reason": "x" }), "filter.kind"),
        ("revive", json!({ "all": true }), "reason"),
        ("revive", json!({ "all": true, "reason": "x", "limit": 0 }), "limit"),
        ("revive", json!({ "all": true, "reason": "x", "rate": 0 }), "rate"),
        ("revive", json!({ "all": true, "reason": "x", "cursor": "zz" }), "cursor"),
        ("revive", json!({ "all": true, "records": named, "reason": "x" }), "records"),
        ("revive", json!({ "records": [{ "id": "x", "version": "1.1" }], "reason": "x" }), "records[0].id"),
        ("discard", json!({ "all": true, "force": true, "reason": "x" }), "force"),
    ] {
        let refused = world.ask("POST", &format!("/v1/dead/{path}"), &body.to_string(), "o").await;
        assert_eq!(refused.refusal(), (400, "VALIDATION_FAILED".to_owned()), "{body}");
        assert_eq!(refused.json()["error"]["details"][0]["field"], field, "{body}");
    }
    assert_eq!(world.keys("").await.len(), 6);
}

// From a shell.

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn shell(world: &World, arguments: &[&str], folder: &Path) -> tokio::process::Command {
    let admin = world.server.admin_url();
    let mut all = vec!["dead", arguments[0], "--admin-url", admin.as_str()];
    all.extend(&arguments[1..]);
    command(&all, folder)
}

async fn dead(world: &World, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    shell(world, arguments, folder.path()).output().await.unwrap()
}

#[tokio::test]
async fn dead_letters_are_listed_grouped_shown_revived_and_discarded_from_a_shell() {
    let world = World::new("").await;
    six(&world).await;
    let listed = dead(&world, &["ls", "--source", "stripe"]).await;
    assert_eq!((code(&listed), out(&listed).lines().count()), (0, 3), "{}{}", out(&listed), err(&listed));
    let groups = dead(&world, &["groups"]).await;
    assert!(out(&groups).lines().nth(1).unwrap().trim_start().starts_with('6'), "{}", out(&groups));
    let page = dead(&world, &["ls", "--key", "s-1", "--json"]).await;
    let page: Value = serde_json::from_slice(&page.stdout).unwrap();
    let id = page["dead"][0]["id"].as_str().unwrap();
    let shown = eventually("its try is in the audit log", async || {
        Some(dead(&world, &["show", id]).await).filter(|shown| out(shown).matches("429").count() == 2)
    })
    .await;
    assert!(out(&shown).contains("stripe"), "{}", out(&shown));
    let silent = dead(&world, &["revive", id]).await;
    assert_eq!((code(&silent), err(&silent).contains("--reason")), (2, true), "{}", err(&silent));
    world.target.answers(200);
    let revived = dead(&world, &["revive", id, "--reason", "back"]).await;
    assert_eq!(code(&revived), 0, "{}", err(&revived));
    world.until("s-1", "completed").await;
    let again = dead(&world, &["revive", id, "--reason", "back"]).await;
    assert_eq!((code(&again), err(&again).contains("ILLEGAL_TRANSITION")), (11, true), "{}", err(&again));
    let forced = dead(&world, &["revive", id, "--force", "--reason", "lost", "--json"]).await;
    let reply: Value = serde_json::from_slice(&forced.stdout).unwrap();
    assert_eq!(reply["repeats"], id);
    let nothing = dead(&world, &["discard", "--reason", "x"]).await;
    assert_eq!(code(&nothing), 2, "neither ids, nor a filter, nor --all");
    let both = dead(&world, &["discard", "--all", "--source", "xendit", "--reason", "x"]).await;
    assert_eq!((code(&both), err(&both).contains("not both")), (2, true), "{}", err(&both));
    let dry = dead(&world, &["discard", "--source", "xendit", "--dry-run"]).await;
    assert_eq!(out(&dry), "4 dead letters would be discarded, 0 left out\n");
    let unasked = dead(&world, &["discard", "--source", "xendit", "--reason", "x"]).await;
    assert_eq!((code(&unasked), world.keys("source=xendit").await.len()), (2, 4), "nobody said yes");
    let done = dead(&world, &["discard", "--source", "xendit", "--reason", "tests", "--yes"]).await;
    assert_eq!((code(&done), out(&done)), (0, "4 dead letters discarded, 0 not, 0 left out\n"));
    let last = dead(&world, &["revive", "--all", "--reason", "back", "--yes", "--json"]).await;
    let total: Value = serde_json::from_slice(&last.stdout).unwrap();
    assert_eq!((&total["changed"], &total["next"]), (&json!(1), &Value::Null));
    let gone = dead(&world, &["show", "00000000000000000000000000000000"]).await;
    assert_eq!((code(&gone), err(&gone).contains("NOT_FOUND")), (11, true));
}

#[tokio::test]
async fn an_interrupted_revive_says_how_far_it_came_and_goes_on_from_there() {
    const LETTERS: usize = 60;
    let world = World::new("").await;
    for number in 0..LETTERS {
        world.accept(&format!("k-{number}"), &json!({})).await;
    }
    world.dead(LETTERS).await;
    world.target.answers(200);
    let folder = tempfile::tempdir().unwrap();
    // One a second: there is a minute in which to interrupt it.
    let slow = ["revive", "--all", "--rate", "1", "--reason", "back", "--yes"];
    let mut slow = shell(&world, &slow, folder.path());
    let child = slow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("one is revived", async || (world.keys("limit=1000").await.len() < LETTERS).then_some(()))
        .await;
    let id = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), Signal::INT).unwrap();
    let ended = child.wait_with_output().await.unwrap();
    assert_eq!(code(&ended), 130, "{}{}", out(&ended), err(&ended));
    let revived: usize = out(&ended).split(' ').next().unwrap().parse().unwrap();
    assert!((1..LETTERS).contains(&revived), "{}", out(&ended));
    let cursor = err(&ended).split("--cursor ").nth(1).unwrap().trim().to_owned();
    let rest = dead(&world, &["revive", "--all", "--cursor", &cursor, "--reason", "back", "--yes"]).await;
    let left: usize = out(&rest).split(' ').next().unwrap().parse().unwrap();
    assert_eq!((code(&rest), revived + left), (0, LETTERS), "{}", err(&rest));
    world.dead(0).await;
}
