//! What is told becomes few alerts, and each of them is delivered.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use semel_core::record::StateName;
use semel_core::{Record, RecordId, Store};
use semel_stores::memory::MemoryStore;
use serde_json::Value;

use crate::alerts::Alerts;
use crate::config::{ALERTS, AlertFormat, AlertKind, AlertsConfig};
use crate::engine::events::What;
use crate::engine::operation::Operation;
use crate::engine::testing::{Fixture, Flaky, Script, Weather, delivery, done};
use crate::limits;
use crate::telemetry::metrics::DeliveryMetrics;

const EVERY: Duration = Duration::from_secs(300);

fn config(format: AlertFormat) -> AlertsConfig {
    let mut operation = delivery(&"http://127.0.0.1:1/alerts".parse().unwrap(), false);
    operation.name = semel_core::Operation::try_new(ALERTS).unwrap();
    operation.lane = semel_core::id::Lane::try_new(ALERTS).unwrap();
    let on = vec![AlertKind::Duplicates, AlertKind::DeadLetters, AlertKind::Circuits];
    AlertsConfig { format, on, every: EVERY, operation }
}

type Sent = Arc<Mutex<Vec<Arc<Record>>>>;

/// A node over this store, whose alerts are kept when they are sent.
fn node(store: &Arc<dyn Store>, format: AlertFormat, sent: &Sent) -> (Fixture, Alerts) {
    let config = config(format);
    let alerts = Alerts::new("orders", Some(&config), DeliveryMetrics::default());
    let sent = Arc::clone(sent);
    let script = Script::of_records(move |record| {
        sent.lock().push(record);
        std::future::ready(done())
    });
    let operation = Operation::scripted(config.operation, script);
    (Fixture::telling(Arc::clone(store), vec![operation], alerts.clone()), alerts)
}

fn bodies(sent: &Sent) -> Vec<Value> {
    let body =
        |record: &Arc<Record>| serde_json::from_slice(record.request().input().unwrap().body()).unwrap();
    sent.lock().iter().map(body).collect()
}

fn store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

/// A pitfall: one alert per duplicate.
#[tokio::test(start_paused = true)]
async fn alert_storms_one_alert_per_duplicate() {
    let sent = Sent::default();
    let (node, alerts) = node(&store(), AlertFormat::StandardWebhooks, &sent);
    node.engine.start(4);
    let record = RecordId::from_bytes([7; 16]);
    for _ in 0..100_000 {
        alerts.tell(AlertKind::Duplicates, "xendit", Some(record));
    }
    alerts.tell(AlertKind::Duplicates, "stripe", None);
    alerts.tell(AlertKind::DeadLetters, "xendit", None);
    node.told.wait(What::Completed, 3).await;
    let mut told: Vec<_> = bodies(&sent)
        .iter()
        .map(|body| {
            let data = &body["data"];
            let text = |name: &str| data[name].as_str().unwrap().to_owned();
            assert_eq!(body["type"], format!("semel.alert.{}", text("kind")));
            assert_eq!(data["service"], "orders");
            (text("kind"), text("source"), data["count"].as_u64().unwrap(), data["recordId"].clone())
        })
        .collect();
    told.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
    let expected = [
        ("dead_letters", "xendit", 1, Value::Null),
        ("duplicates", "stripe", 1, Value::Null),
        ("duplicates", "xendit", 100_000, Value::String(record.to_string())),
    ];
    assert_eq!(
        told,
        expected.map(|(kind, source, count, id)| (kind.to_owned(), source.to_owned(), count, id))
    );
}

#[tokio::test(start_paused = true)]
async fn what_follows_an_alert_is_told_in_one_more_when_its_time_is_over() {
    let sent = Sent::default();
    let (node, alerts) = node(&store(), AlertFormat::StandardWebhooks, &sent);
    node.engine.start(4);
    alerts.tell(AlertKind::Duplicates, "xendit", None);
    node.told.wait(What::Completed, 1).await;
    let began = tokio::time::Instant::now();
    for _ in 0..50 {
        alerts.tell(AlertKind::Duplicates, "xendit", None);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(sent.lock().len(), 1);
    node.told.wait(What::Completed, 2).await;
    assert!(began.elapsed() + limits::ALERT_GATHER >= EVERY, "{:?}", began.elapsed());
    assert_eq!(bodies(&sent)[1]["data"]["count"], 50);
    tokio::time::sleep(EVERY * 3).await;
    assert_eq!(sent.lock().len(), 2, "nothing more has happened");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_see_one_storm_send_one_alert_and_lose_no_count() {
    let (store, sent) = (store(), Sent::default());
    let (one, to_one) = node(&store, AlertFormat::StandardWebhooks, &sent);
    let (other, to_other) = node(&store, AlertFormat::StandardWebhooks, &sent);
    one.engine.start(4);
    other.engine.start(4);
    for alerts in [&to_one, &to_other] {
        for _ in 0..10 {
            alerts.tell(AlertKind::DeadLetters, "xendit", None);
        }
    }
    tokio::time::sleep(limits::ALERT_GATHER * 5).await;
    assert_eq!(sent.lock().len(), 1);
    tokio::time::sleep(EVERY * 3).await;
    let counts: Vec<_> = bodies(&sent).iter().map(|body| body["data"]["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [10, 10]);
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_durable_once_it_is_taken_in_and_goes_out_with_the_process_that_stops() {
    let (store, sent) = (store(), Sent::default());
    let (first, alerts) = node(&store, AlertFormat::StandardWebhooks, &sent);
    first.engine.start(4);
    alerts.tell(AlertKind::Circuits, "xendit", None);
    // It stops before the time to gather is over.
    assert!(first.engine.stop(Duration::from_secs(1)).await);
    assert_eq!(sent.lock().len(), 0);
    let counts = store.counts().await.unwrap();
    assert_eq!(
        counts.iter().map(|count| (count.state, count.records)).collect::<Vec<_>>(),
        [(StateName::Pending, 1)]
    );
    let (second, _) = node(&store, AlertFormat::StandardWebhooks, &sent);
    second.engine.start(4);
    second.told.wait(What::Completed, 1).await;
    assert_eq!(bodies(&sent)[0]["type"], "semel.alert.circuits");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stops_loses_nothing_of_what_it_was_told_after_an_alert_or_after_its_engine() {
    let (store, sent) = (store(), Sent::default());
    let (first, alerts) = node(&store, AlertFormat::StandardWebhooks, &sent);
    first.engine.start(4);
    alerts.tell(AlertKind::Duplicates, "xendit", None);
    first.told.wait(What::Completed, 1).await;
    for _ in 0..3 {
        alerts.tell(AlertKind::Duplicates, "xendit", None);
    }
    assert!(first.engine.stop(Duration::from_secs(1)).await);
    for _ in 0..4 {
        // By a connection that has ended after the engine.
        alerts.tell(AlertKind::Duplicates, "xendit", None);
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    first.engine.tell_what_is_left().await;
    first.engine.tell_what_is_left().await;
    let (second, _) = node(&store, AlertFormat::StandardWebhooks, &sent);
    second.engine.start(4);
    second.told.wait(What::Completed, 2).await;
    let counts: Vec<_> = bodies(&sent).iter().map(|body| body["data"]["count"].as_u64().unwrap()).collect();
    assert_eq!(counts.iter().sum::<u64>(), 8, "{counts:?}");
    tokio::time::sleep(EVERY * 3).await;
    assert_eq!(sent.lock().len(), 3, "each of them once");
}

/// Ends the process as SIGKILL does: what it has counted is forgotten, and it takes nothing more in.
async fn killed(node: Fixture, alerts: Alerts) {
    alerts.reload(None);
    assert!(node.engine.stop(Duration::from_secs(1)).await);
}

/// What was told outlives the process once `kept` has said so, whether it is the first of its kind or follows an alert.
#[tokio::test(start_paused = true)]
async fn a_process_that_is_killed_loses_a_count_and_no_alert() {
    for follows in [false, true] {
        let (store, sent) = (store(), Sent::default());
        let (first, alerts) = node(&store, AlertFormat::StandardWebhooks, &sent);
        first.engine.start(4);
        if follows {
            alerts.tell(AlertKind::Duplicates, "xendit", None);
            first.told.wait(What::Completed, 1).await;
        }
        let (record, before) = (RecordId::from_bytes([7; 16]), sent.lock().len());
        for _ in 0..3 {
            alerts.tell(AlertKind::Duplicates, "xendit", Some(record));
            alerts.kept(&first.engine, "xendit").await;
        }
        killed(first, alerts).await;
        assert_eq!(sent.lock().len(), before, "it came to nothing");
        let (second, _) = node(&store, AlertFormat::StandardWebhooks, &sent);
        second.engine.start(4);
        second.told.wait(What::Completed, 1).await;
        let body = bodies(&sent).pop().unwrap();
        let data = &body["data"];
        assert_eq!((&data["count"], &data["orMore"]), (&Value::from(1), &Value::Bool(true)));
        assert_eq!(data["text"], "1 duplicate or more at xendit");
        assert_eq!(data["recordId"], record.to_string());
        tokio::time::sleep(EVERY * 3).await;
        assert_eq!(sent.lock().len(), before + 1, "and once");
    }
}

/// The whole alert takes the place of what was promised: nobody is told twice, and nothing is left to do.
#[tokio::test(start_paused = true)]
async fn what_was_promised_is_put_aside_when_the_alert_with_its_count_is_taken_in() {
    let (store, sent) = (store(), Sent::default());
    let (node, alerts) = node(&store, AlertFormat::StandardWebhooks, &sent);
    node.engine.start(4);
    for round in 1..=3 {
        for _ in 0..5 {
            alerts.tell(AlertKind::Duplicates, "xendit", None);
            alerts.kept(&node.engine, "xendit").await;
        }
        node.told.wait(What::Completed, round).await;
        assert_eq!((&bodies(&sent)[round - 1]["data"]["count"], sent.lock().len()), (&Value::from(5), round));
        assert_eq!(bodies(&sent)[round - 1]["data"]["orMore"], Value::Null);
    }
    tokio::time::sleep(EVERY * 3).await;
    assert_eq!(sent.lock().len(), 3);
    let states: Vec<_> = store.counts().await.unwrap().iter().map(|count| count.state).collect();
    assert_eq!(states, [StateName::Completed], "no promise is left");
}

/// Whoever met a duplicate is not kept from its answer by a store that has none; and it is told when there is one again.
#[tokio::test(start_paused = true)]
async fn a_store_that_has_no_answer_is_not_waited_for_and_what_was_told_is_not_forgotten() {
    let (flaky, sent) = (Flaky::new(), Sent::default());
    let store: Arc<dyn Store> = Arc::clone(&flaky) as _;
    let (node, alerts) = node(&store, AlertFormat::StandardWebhooks, &sent);
    node.engine.start(4);
    flaky.set(Weather::Down);
    let began = tokio::time::Instant::now();
    alerts.tell(AlertKind::Duplicates, "xendit", None);
    alerts.kept(&node.engine, "xendit").await;
    assert!(began.elapsed() <= limits::ALERT_KEPT_WITHIN, "{:?}", began.elapsed());
    alerts.tell(AlertKind::Duplicates, "xendit", None);
    let again = tokio::time::Instant::now();
    alerts.kept(&node.engine, "xendit").await;
    assert!(again.elapsed() <= limits::ALERT_KEPT_WITHIN, "{:?}", again.elapsed());
    tokio::time::sleep(EVERY).await;
    assert_eq!(sent.lock().len(), 0);
    flaky.set(Weather::Fair);
    node.told.wait(What::Completed, 1).await;
    assert_eq!(bodies(&sent)[0]["data"]["count"], 2);
    tokio::time::sleep(EVERY * 3).await;
    assert_eq!(sent.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_where_nothing_was_told_or_nothing_is_wanted() {
    let sent = Sent::default();
    let (node, alerts) = node(&store(), AlertFormat::StandardWebhooks, &sent);
    let began = tokio::time::Instant::now();
    alerts.kept(&node.engine, "xendit").await;
    alerts.tell(AlertKind::Conflicts, "xendit", None);
    alerts.kept(&node.engine, "xendit").await;
    alerts.tell(AlertKind::Duplicates, "stripe", None);
    alerts.kept(&node.engine, "xendit").await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    // Nobody writes anything down before the engine starts, and nothing holds an answer back for ever.
    alerts.kept(&node.engine, "stripe").await;
    assert!(began.elapsed() >= limits::ALERT_KEPT_WITHIN, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_asked_for_is_not_told_and_a_reload_may_ask_for_it() {
    let sent = Sent::default();
    let (node, alerts) = node(&store(), AlertFormat::StandardWebhooks, &sent);
    node.engine.start(4);
    alerts.tell(AlertKind::Conflicts, "xendit", None);
    tokio::time::sleep(EVERY).await;
    assert_eq!(sent.lock().len(), 0);
    let mut wider = config(AlertFormat::StandardWebhooks);
    wider.on.push(AlertKind::Conflicts);
    alerts.reload(Some(&wider));
    alerts.tell(AlertKind::Conflicts, "xendit", None);
    node.told.wait(What::Completed, 1).await;
    alerts.reload(None);
    alerts.tell(AlertKind::Conflicts, "stripe", None);
    tokio::time::sleep(EVERY).await;
    assert_eq!(sent.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn slack_is_told_in_one_text_that_mentions_nobody() {
    let sent = Sent::default();
    let (node, alerts) = node(&store(), AlertFormat::Slack, &sent);
    node.engine.start(4);
    for _ in 0..7 {
        alerts.tell(AlertKind::DeadLetters, "<!channel> & co", None);
    }
    node.told.wait(What::Completed, 1).await;
    let body = &bodies(&sent)[0];
    let text = body["text"].as_str().unwrap();
    assert!(text.starts_with("[orders] 7 dead letters of &lt;!channel&gt; &amp; co since "), "{text}");
    assert_eq!(body.as_object().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn sources_that_are_kept_apart_have_an_end() {
    let sent = Sent::default();
    let (node, alerts) = node(&store(), AlertFormat::StandardWebhooks, &sent);
    for number in 0..limits::ALERT_GROUPS_MAX + 50 {
        alerts.tell(AlertKind::DeadLetters, &format!("operation-{number}"), None);
    }
    node.engine.start(64);
    node.told.wait(What::Completed, limits::ALERT_GROUPS_MAX + 1).await;
    let others: Vec<_> =
        bodies(&sent).into_iter().filter(|body| body["data"]["source"] == "others").collect();
    assert_eq!(others.len(), 1);
    assert_eq!(others[0]["data"]["count"], 50);
}
