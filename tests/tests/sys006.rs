//! SYS006, webhook replay, as the document has it: Xendit sends its webhooks again because of a network issue, and the system
//! tolerates that without making data inconsistent. Each test is a line of the document, on the embedded store and on PostgreSQL.
//!
//! | in the document | here |
//! |---|---|
//! | expected result | `expected_…` |
//! | failure results | `failure_…` |
//! | alternative results, and edge results, which are the same five | `alternative_…`, `edge_…` |
//! | acceptance criteria, SLA | `acceptance_…` |

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::disk::Disk;
use crate::http::Answer;
use crate::inbox::Inbox;
use crate::server::Server;
use crate::shared_store::{Kind, SharedStore};
use crate::toxiproxy::Proxy;
use crate::wait::eventually;

/// Where the system keeps its idempotency keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    Embedded,
    Postgres,
}

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::On::Embedded).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::On::Postgres).await;
            })*
        }
    };
}

on_both! {
    expected_the_system_checks_the_store_ignores_the_duplicate_and_returns_200_ok,
    failure_the_store_cannot_be_read_or_written_503_and_nothing_is_acknowledged,
    failure_a_payload_or_signature_that_cannot_be_verified_confirms_no_duplicate_and_stores_nothing,
    failure_processing_fails_before_its_state_is_recorded_and_is_done_again_with_the_same_key,
    alternative_returns_200_ok_at_once_and_records_the_duplicate_in_a_log_for_later_inspection,
    alternative_sends_the_duplicate_to_a_dead_letter_queue_for_later_analysis,
    alternative_retries_by_a_set_policy_without_repeating_an_update_already_made,
    alternative_sends_an_alert_when_duplicates_are_found_and_a_storm_is_one_alert,
    alternative_keeps_the_duplicates_reference_in_a_cache_to_speed_up_the_next_check,
    edge_duplicates_that_come_at_the_same_moment_are_one_event,
    edge_the_next_status_of_a_payment_is_no_duplicate_and_another_body_is_a_conflict,
    acceptance_keys_are_retained_for_7_days_or_as_long_as_is_configured,
    acceptance_a_duplicate_is_safe_across_a_restart,
}

/// The token of the account, as Xendit's dashboard shows it.
const TOKEN: &str = "xnd_callback_2026";

/// The system, and the world around it.
struct Case {
    server: Option<Server>,
    config: String,
    backing: Backing,
    /// Where the system's events go: the shop that books payments.
    shop: Inbox,
    /// Where SRE and DevOps are told.
    on_call: Inbox,
}

enum Backing {
    Embedded(TempDir),
    Disk(Disk),
    Postgres(Box<Behind>),
}

/// A PostgreSQL, and the network before it.
struct Behind {
    proxy: Proxy,
    store: SharedStore,
}

impl Backing {
    async fn start(&self, config: &str) -> Server {
        match self {
            Self::Embedded(folder) => Server::start_in(folder.path(), config).await,
            Self::Disk(disk) => Server::start_in(disk.path(), config).await,
            Self::Postgres(behind) => {
                let Behind { proxy, store } = &**behind;
                Server::start_on(&store.url_at(proxy.address()), config).await
            }
        }
    }
}

impl Case {
    /// The system with this said of its source. `None` by hand, and without the service.
    async fn new(on: On, source: &str) -> Option<Self> {
        let backing = match on {
            On::Embedded => Backing::Embedded(tempfile::tempdir().unwrap()),
            On::Postgres => {
                let store = Kind::Postgres.fresh().await?;
                Backing::Postgres(Box::new(Behind { proxy: Proxy::to(&store.address()).await, store }))
            }
        };
        Some(Self::over(backing, source).await)
    }

    async fn over(backing: Backing, source: &str) -> Self {
        let (shop, on_call) = (Inbox::open().await, Inbox::open().await);
        let config = format!(
            "[server]\ndevelopment = true\n\
             [alerts]\nurl = \"{}\"\nformat = \"slack\"\n\
             [[webhooks]]\nsource = \"xendit\"\nprovider = \"xendit\"\n\
             secrets = [{{ id = \"2026-11\", value = \"{TOKEN}\" }}]\ntarget = \"{}\"\n{source}",
            on_call.url("/alerts"),
            shop.url("/hooks/xendit"),
        );
        let server = backing.start(&config).await;
        Self { server: Some(server), config, backing, shop, on_call }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// The process is killed, and started again over the same store.
    async fn killed_and_started_again(&mut self) {
        self.server.take().unwrap().kill().await;
        self.server = Some(self.backing.start(&self.config).await);
    }

    /// Xendit sends this.
    async fn receives(&self, body: &Value) -> Answer {
        self.receives_with(&[("x-callback-token", TOKEN)], &body.to_string()).await
    }

    async fn receives_with(&self, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        let url = format!("{}/v1/webhooks/xendit", self.server().url());
        self.server().http().post(&url, &all, body.to_owned()).await.unwrap()
    }

    async fn admin(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.server().admin_url());
        let answer = self.server().http().get(&url, &[]).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// All that is stored of webhooks, the newest first.
    async fn records(&self) -> Vec<Value> {
        let page = self.admin("/v1/records?namespace=webhook&tag=source%3Dxendit").await;
        page["records"].as_array().unwrap().clone()
    }

    /// Waits until so many events are delivered, and that is stored.
    async fn settled(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} are completed"), async || {
            let records = self.records().await;
            let done = records.iter().filter(|record| record["state"] == "completed").count();
            (done == count).then_some(records)
        })
        .await
    }

    /// What a counter of the metrics stands at, all of its labels together that hold this text.
    async fn counted(&self, name: &str, labels: &str) -> f64 {
        let url = format!("{}/metrics", self.server().admin_url());
        let text = self.server().http().get(&url, &[]).await.unwrap().text().to_owned();
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(labels));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

/// A payment that has succeeded, as Xendit tells of it.
fn payment(id: &str) -> Value {
    json!({
        "event": "payment.succeeded", "business_id": "biz-1",
        "data": { "payment_id": id, "status": "SUCCEEDED", "amount": 150_000, "currency": "IDR" }
    })
}

async fn expected_the_system_checks_the_store_ignores_the_duplicate_and_returns_200_ok(on: On) {
    let Some(case) = Case::new(on, "").await else { return };
    assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    case.settled(1).await;
    // User -> System: the system receives a duplicate webhook with the same payment_id.
    for _ in 0..3 {
        // System -> User: the system ignores duplicate processing, returns 200 OK.
        assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    }
    // Xendit does not write its JSON the same way twice; it is the same event all the same.
    let rewritten = serde_json::to_string_pretty(&payment("py-1")).unwrap();
    let again = case.receives_with(&[("x-callback-token", TOKEN)], &rewritten).await;
    assert_eq!(again.status, 200);
    // Another payment is another event: when it is there, whatever came before it would be, too.
    assert_eq!(case.receives(&payment("py-2")).await.status, 200);
    case.settled(2).await;
    let seen = case.shop.seen();
    assert_eq!(seen.len(), 2, "py-1 once, py-2 once");
    assert_eq!(seen[0].body, payment("py-1").to_string(), "the bytes that came");
    assert_ne!(seen[0].key, seen[1].key);
    let verdicts = case.counted("semel_webhook", "duplicate").await;
    assert!((verdicts - 4.0).abs() < f64::EPSILON, "four duplicates are counted, not {verdicts}");
}

async fn failure_the_store_cannot_be_read_or_written_503_and_nothing_is_acknowledged(on: On) {
    let case = match on {
        On::Postgres => Case::new(on, "").await,
        // A disk with room for two segments of the log, and not for a third.
        On::Embedded => match Disk::of(170) {
            Some(disk) => Some(Case::over(Backing::Disk(disk), "").await),
            None => None,
        },
    };
    let Some(case) = case else { return };
    assert_eq!(case.receives(&payment("before")).await.status, 200);
    case.settled(1).await;
    let mut large = payment("during");
    match &case.backing {
        Backing::Postgres(behind) => behind.proxy.cut().await,
        Backing::Disk(_) => {
            large["data"]["note"] = json!("x".repeat(900_000));
            let mut filled = 0;
            loop {
                let mut filling = large.clone();
                filling["data"]["payment_id"] = json!(format!("filling-{filled}"));
                if case.receives(&filling).await.status != 200 {
                    break;
                }
                filled += 1;
                assert!(filled < 250, "the disk fills");
            }
        }
        Backing::Embedded(_) => unreachable!("it has a disk of its own"),
    }
    let refused = case.receives(&large).await;
    assert_eq!(refused.refusal(), (503, "IDEMPOTENCY_STORAGE_UNAVAILABLE".to_owned()));
    assert!(refused.header("retry-after").is_some(), "Xendit is told when to come again");
    // The store is well again, and Xendit retries what was not acknowledged: it is taken, and once.
    match &case.backing {
        Backing::Postgres(behind) => behind.proxy.heal().await,
        Backing::Disk(disk) => disk.of_size(600),
        Backing::Embedded(_) => unreachable!("it has a disk of its own"),
    }
    eventually("the retry is taken", async || (case.receives(&large).await.status == 200).then_some(()))
        .await;
    assert_eq!(case.receives(&large).await.status, 200, "and sent once more");
    let times = eventually("it is delivered", async || {
        let seen = case.shop.seen();
        let times = seen.iter().filter(|one| one.body.contains("\"during\"")).count();
        (times > 0).then_some(times)
    })
    .await;
    assert_eq!(times, 1);
    let before = case.shop.seen().iter().filter(|one| one.body.contains("\"before\"")).count();
    assert_eq!(before, 1, "what was acknowledged before was not repeated");
}

async fn failure_a_payload_or_signature_that_cannot_be_verified_confirms_no_duplicate_and_stores_nothing(
    on: On,
) {
    let Some(case) = Case::new(on, "").await else { return };
    assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    let stored = case.settled(1).await;
    let (known, new) = (payment("py-1").to_string(), payment("py-9").to_string());
    for headers in [&[][..], &[("x-callback-token", "forged")], &[("x-callback-token", "")]] {
        for body in [&known, &new] {
            let refused = case.receives_with(headers, body).await;
            assert_eq!(refused.refusal(), (401, "SIGNATURE_INVALID".to_owned()), "{headers:?}");
            assert!(!refused.text().contains(TOKEN));
        }
    }
    for body in ["", "{", "[]", r#"{"event":"payment.succeeded"}"#] {
        let refused = case.receives_with(&[("x-callback-token", TOKEN)], body).await;
        assert_eq!(refused.status, 400, "verified, but it does not say which event it is: {body}");
    }
    assert_eq!(case.records().await, stored, "nothing is stored, and nothing of what is stored has changed");
    assert_eq!(case.shop.count(), 1);
    let audit = case.admin("/v1/audit?limit=1000").await;
    let told = audit["entries"].as_array().unwrap();
    let of_forged = told.iter().filter(|entry| entry["metadata"]["verdict"] == "rejected").count();
    assert_eq!(of_forged, 0, "a forger cannot fill the audit");
    let counted = case.counted("semel_webhook", "signature_mismatch").await;
    assert!(counted >= 2.0, "but is counted, by reason: {counted}");
}

async fn failure_processing_fails_before_its_state_is_recorded_and_is_done_again_with_the_same_key(on: On) {
    let Some(mut case) = Case::new(on, "lease = \"2s\"\n").await else { return };
    case.shop.hold();
    assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    case.shop.has(1).await;
    // The shop has the event, and the system goes down before it can record that.
    case.killed_and_started_again().await;
    case.shop.go_on();
    assert_eq!(case.receives(&payment("py-1")).await.status, 200, "Xendit sends it again meanwhile");
    case.settled(1).await;
    let seen = case.shop.seen();
    assert_eq!(seen.len(), 2, "the first one nobody knows of, so it was delivered once more, by nobody else");
    assert_eq!(seen[0].key, seen[1].key, "the shop sees that it is the same");
    assert!(seen[1].fence > seen[0].fence && seen[1].attempt == 2, "and which is the later one");
}

async fn alternative_returns_200_ok_at_once_and_records_the_duplicate_in_a_log_for_later_inspection(on: On) {
    let Some(case) = Case::new(on, "").await else { return };
    case.shop.hold();
    assert_eq!(case.receives(&payment("py-1")).await.status, 200, "at once: the shop has not answered yet");
    case.shop.has(1).await;
    assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    case.server().logged("\"verdict\":\"duplicate\"").await;
    let log = case.server().log();
    let line = log.lines().find(|line| line.contains("\"verdict\":\"duplicate\"")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert!(line.to_string().contains("py-1"), "it says which: {line}");
    assert!(!log.contains(TOKEN) && !log.contains("150000"), "neither secrets nor bodies are logged");
    // The evidence is in the audit log, too: first seen, how long ago, where from, whether the body differs.
    let entry = eventually("the audit log has it", async || {
        let page = case.admin("/v1/audit?action=replayed").await;
        page["entries"].as_array().unwrap().first().cloned()
    })
    .await;
    let said = &entry["metadata"];
    assert_eq!((&said["isRetry"], &said["verdict"]), (&json!(true), &json!("duplicate")), "{entry}");
    assert!(said["firstSeen"].is_string() && said["gapMs"].is_string(), "{entry}");
    assert_eq!((&said["sourceAddress"], &said["bodyDiffers"]), (&json!("127.0.0.1"), &json!("false")));
    case.shop.go_on();
    case.settled(1).await;
    assert_eq!(case.shop.count(), 1);
}

async fn alternative_sends_the_duplicate_to_a_dead_letter_queue_for_later_analysis(on: On) {
    let Some(case) = Case::new(on, "duplicates = { dead_letter = true }\n").await else { return };
    assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    case.settled(1).await;
    for _ in 0..2 {
        assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    }
    let dead = case.admin("/v1/dead?source=xendit&kind=duplicate").await;
    let letters = dead["dead"].as_array().unwrap();
    assert_eq!(letters.len(), 2, "each is there, durably, before it was answered: {dead}");
    let id = letters[0]["id"].as_str().unwrap();
    let shown = case.admin(&format!("/v1/dead/{id}")).await;
    assert_eq!(shown["input"]["body_bytes"], payment("py-1").to_string().len());
    let groups = case.admin("/v1/dead/groups?source=xendit").await;
    assert_eq!((groups["groups"].as_array().unwrap().len(), &groups["groups"][0]["count"]), (1, &json!(2)));
    // It is there to be looked at. Reviving all that has died does not repeat it.
    let revive = json!({ "filter": { "source": "xendit" }, "reason": "the shop is back" }).to_string();
    let url = format!("{}/v1/dead/revive", case.server().admin_url());
    let json = [("content-type", "application/json")];
    let revived = case.server().http().post(&url, &json, revive).await.unwrap().json();
    assert_eq!((&revived["changed"], &revived["skipped"]), (&json!(0), &json!(2)));
    assert_eq!(case.shop.count(), 1);
}

async fn alternative_retries_by_a_set_policy_without_repeating_an_update_already_made(on: On) {
    let policy = "retry = { max_attempts = 50, first = \"20ms\", cap = \"50ms\" }\n";
    let Some(case) = Case::new(on, policy).await else { return };
    case.shop.answers(503);
    assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    case.shop.has(3).await;
    assert_eq!(case.receives(&payment("py-1")).await.status, 200, "Xendit's own retry starts nothing");
    case.shop.answers(200);
    let records = case.settled(1).await;
    let seen = case.shop.seen();
    assert!(seen.iter().all(|one| one.key == seen[0].key), "every try says that it is the same update");
    let attempts: Vec<u32> = seen.iter().map(|one| one.attempt).collect();
    assert_eq!(attempts, (1..=u32::try_from(seen.len()).unwrap()).collect::<Vec<_>>());
    assert!(seen.windows(2).all(|two| two[1].fence > two[0].fence));
    assert_eq!(case.shop.overlaps(), 0);
    // The fast path: it is made, and whatever comes now changes nothing.
    assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    assert_eq!((case.records().await, case.shop.count()), (records.clone(), seen.len()));
    // What was tried is there to be read, try by try.
    let id = records[0]["id"].as_str().unwrap();
    let tries = eventually("all tries are in the audit log", async || {
        let shown = case.admin(&format!("/v1/dead/{id}")).await;
        let tries = shown["attempts"].as_array().unwrap().clone();
        (tries.len() == seen.len()).then_some(tries)
    })
    .await;
    assert_eq!((&tries[0]["status"], &tries[0]["to_state"]), (&json!(200), &json!("completed")));
    let first = tries.last().unwrap();
    assert_eq!((&first["attempt"], &first["status"]), (&json!(1), &json!(503)));
    assert_eq!(first["response"], "taken");
    assert!(first["latency_ms"].is_u64(), "{first}");
}

async fn alternative_sends_an_alert_when_duplicates_are_found_and_a_storm_is_one_alert(on: On) {
    let Some(case) = Case::new(on, "duplicates = { alert = true }\n").await else { return };
    assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    case.settled(1).await;
    assert_eq!(case.on_call.count(), 0, "an event is no news");
    for _ in 0..40 {
        assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    }
    case.on_call.has(1).await;
    let alert = case.on_call.seen().remove(0);
    let said: Value = serde_json::from_str(&alert.body).unwrap();
    let text = said["text"].as_str().unwrap();
    assert!(text.contains("duplicate") && text.contains("xendit"), "{text}");
    assert!(!alert.body.contains(TOKEN));
    // A second source of news comes through, so it is not that alerts have stopped.
    case.shop.answers(410);
    assert_eq!(case.receives(&payment("py-2")).await.status, 200);
    case.on_call.has(2).await;
    let all: Vec<String> = case.on_call.seen().into_iter().map(|alert| alert.body).collect();
    assert_eq!(all.iter().filter(|body| body.contains("duplicate")).count(), 1, "{all:?}");
    assert_eq!(all.iter().filter(|body| body.contains("dead letter")).count(), 1, "{all:?}");
}

async fn alternative_keeps_the_duplicates_reference_in_a_cache_to_speed_up_the_next_check(on: On) {
    let Some(case) = Case::new(on, "").await else { return };
    assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    case.settled(1).await;
    assert_eq!(case.receives(&payment("py-1")).await.status, 200, "the first duplicate meets the store");
    let inserts = || case.counted("semel_store_call_duration_seconds_count", "call=\"insert\"");
    let before = inserts().await;
    for _ in 0..5 {
        assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    }
    let after = inserts().await;
    assert!((after - before).abs() < f64::EPSILON, "the others are remembered: {before} and {after}");
    if let Backing::Postgres(behind) = &case.backing {
        behind.proxy.cut().await;
        assert_eq!(
            case.receives(&payment("py-1")).await.status,
            200,
            "it is settled, whatever the store does"
        );
        assert_eq!(case.receives(&payment("py-2")).await.status, 503, "and nothing else is acknowledged");
        behind.proxy.heal().await;
    }
    // What is remembered is what was asked: another body is no duplicate of it.
    let mut other = payment("py-1");
    other["data"]["amount"] = json!(1);
    eventually("it is judged by the store", async || {
        (case.receives(&other).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(case.admin("/v1/dead?kind=conflict").await["dead"].as_array().unwrap().len(), 1);
}

async fn edge_duplicates_that_come_at_the_same_moment_are_one_event(on: On) {
    let Some(case) = Case::new(on, "").await else { return };
    let body = payment("py-1");
    let at_once = futures_util::future::join_all((0..16).map(|_| case.receives(&body))).await;
    assert!(at_once.iter().all(|answer| answer.status == 200));
    assert_eq!(case.settled(1).await.len(), 1);
    assert_eq!((case.shop.count(), case.shop.overlaps()), (1, 0));
}

async fn edge_the_next_status_of_a_payment_is_no_duplicate_and_another_body_is_a_conflict(on: On) {
    let Some(case) = Case::new(on, "").await else { return };
    let mut pending = payment("py-1");
    pending["data"]["status"] = json!("PENDING");
    assert_eq!(case.receives(&pending).await.status, 200);
    assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    case.settled(2).await;
    let mut other = payment("py-1");
    other["data"]["amount"] = json!(1);
    assert_eq!(case.receives(&other).await.status, 200, "Xendit is told that it arrived");
    let dead = case.admin("/v1/dead?source=xendit&kind=conflict").await;
    assert_eq!(dead["dead"].as_array().unwrap().len(), 1, "not processed, and not lost: {dead}");
    assert_eq!(case.shop.count(), 2);
    let text = |alert: &crate::inbox::Delivered| alert.body.contains("conflict");
    eventually("somebody is told", async || case.on_call.seen().iter().any(text).then_some(())).await;
    // Somebody decides that the second body is the right one: it is delivered under a key of its own, as the same event.
    let letter = &dead["dead"][0];
    let url = format!("{}/v1/dead/{}/revive", case.server().admin_url(), letter["id"].as_str().unwrap());
    let body = json!({ "version": letter["version"], "reason": "Xendit has confirmed it" }).to_string();
    let revived =
        case.server().http().post(&url, &[("content-type", "application/json")], body).await.unwrap();
    assert_eq!(revived.status, 200, "{}", revived.text());
    case.shop.has(3).await;
    let seen = case.shop.seen();
    assert_eq!(seen[2].body, other.to_string());
    let known = payment("py-1").to_string();
    let first = seen.iter().find(|one| one.body == known).unwrap();
    assert_eq!(seen[2].event, first.event);
    assert_ne!(seen[2].key, first.key);
}

async fn acceptance_keys_are_retained_for_7_days_or_as_long_as_is_configured(on: On) {
    let Some(case) = Case::new(on, "").await else { return };
    assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    let record = case.settled(1).await.remove(0);
    let shown = case.admin(&format!("/v1/records/{}", record["id"].as_str().unwrap())).await;
    assert_eq!(shown["policy"]["retention_ms"], 7 * 24 * 60 * 60 * 1000);
    assert!(record["expires_at"].as_str().unwrap() > record["settled_at"].as_str().unwrap());
    let Some(short) = Case::new(on, "retention = \"1s\"\n").await else { return };
    assert_eq!(short.receives(&payment("py-1")).await.status, 200);
    short.shop.has(1).await;
    // When its time is over it is forgotten, and the same is a new event. Until then it is a duplicate, however often.
    eventually("it is a new event", async || {
        assert_eq!(short.receives(&payment("py-1")).await.status, 200);
        (short.shop.count() == 2).then_some(())
    })
    .await;
    let seen = short.shop.seen();
    assert!(seen[1].fence > seen[0].fence, "L2: fences rise, also across what is forgotten");
}

async fn acceptance_a_duplicate_is_safe_across_a_restart(on: On) {
    let Some(mut case) = Case::new(on, "").await else { return };
    assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    let before = case.settled(1).await;
    case.killed_and_started_again().await;
    assert_eq!(case.receives(&payment("py-1")).await.status, 200);
    assert_eq!(case.records().await, before);
    assert_eq!(case.shop.count(), 1);
}
