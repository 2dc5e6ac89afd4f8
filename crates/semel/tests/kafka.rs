//! The WMS guide's deduplicating handler under its own names; and the window that a crash leaves, as it is and closed.

#![allow(
    clippy::unwrap_used,
    reason = "all of it is tests: what cannot be unwrapped is a failure, with its place"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::registry::Registry;
use semel::kafka::{CloudEvent, Config, Deduplicated, Delivered, Metrics};
use semel::wms::{ConsumerConfig, MessageRepository, deduplicating_handler};

const TOPIC: &str = "orders.received";

fn order(id: &str, source: &str) -> CloudEvent {
    let event = CloudEvent::new(id, source, "com.wms.OrderReceived").unwrap();
    event.with_data("application/json", r#"{"orderId":"ORD-1"}"#)
}

/// `setupKafkaConsumer`: business logic that is only called once per unique `event.ID`.
#[tokio::test]
async fn setup_kafka_consumer_processes_each_event_id_once_for_each_group_and_counts_it() {
    let repository = MessageRepository::new(semel::open("memory:").await.unwrap());
    repository.ensure_indexes().await.unwrap();
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let processed = Arc::new(AtomicUsize::new(0));
    let wrapped = |group: &str| {
        let processed = Arc::clone(&processed);
        let config = ConsumerConfig {
            service_name: "order-service".to_owned(),
            topic: TOPIC.to_owned(),
            consumer_group: group.to_owned(),
            repository: repository.clone(),
            retention_period: Duration::from_secs(24 * 60 * 60),
            metrics: Some(metrics.clone()),
        };
        let handler = deduplicating_handler(config, move |event, _| {
            let processed = Arc::clone(&processed);
            async move {
                assert_eq!(event.event_type(), "com.wms.OrderReceived");
                processed.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        });
        handler.unwrap()
    };
    let (orders, invoices) = (wrapped("order-processor"), wrapped("invoicing"));
    for _ in 0..3 {
        orders.handle(&order("8e03978e", "/order-service")).await.unwrap();
    }
    assert_eq!(processed.load(Ordering::SeqCst), 1);
    // The guide's rule: the id alone, from whatever source.
    orders.handle(&order("8e03978e", "/another-service")).await.unwrap();
    assert_eq!(processed.load(Ordering::SeqCst), 1);
    orders.handle(&order("17a3", "/order-service")).await.unwrap();
    invoices.handle(&order("8e03978e", "/order-service")).await.unwrap();
    assert_eq!(processed.load(Ordering::SeqCst), 3, "another id, and another group");
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for (name, group, count) in [
        ("hits", "order-processor", 3),
        ("misses", "order-processor", 2),
        ("hits", "invoicing", 0),
        ("misses", "invoicing", 1),
    ] {
        let line = format!(
            "message_deduplication_{name}_total{{topic=\"{TOPIC}\",consumer_group=\"{group}\"}} {count}"
        );
        assert!(text.contains(&line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn an_error_of_the_business_logic_is_tried_again_and_handed_out_when_its_tries_are_spent() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let ledger = semel::open("memory:").await.unwrap();
    let config = Config::new("order-service", TOPIC, "order-processor").attempts(3);
    let pause = Duration::from_millis(1);
    let handler = Deduplicated::try_new(ledger, config.pauses(pause, pause), move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Err("the warehouse does not answer".into()) }
    });
    let Delivered::DeadLetter(letter) = handler.unwrap().handle(&order("1", "/s")).await else {
        panic!("it always fails")
    };
    assert_eq!((tries.load(Ordering::SeqCst), &*letter.error), (3, "the warehouse does not answer"));
}

/// PostgreSQL, or `None` where tests need none: by hand, and in a quick run.
fn postgres() -> Option<String> {
    let url = std::env::var("SEMEL_TEST_POSTGRES").ok();
    if url.is_none() {
        let wanted = std::env::var_os("CI").is_some() && std::env::var_os("SEMEL_QUICK").is_none();
        assert!(!wanted, "SEMEL_TEST_POSTGRES is not set; `cargo xtask test` sets it");
        println!("skipped: SEMEL_TEST_POSTGRES is not set; `eval \"$(cargo xtask services env)\"` sets it");
    }
    url
}

/// A database of its own with a table of orders, and a ledger in it.
async fn database(
    url: &str,
    name: &str,
) -> (tokio_postgres::Client, semel::postgres::PostgresLedger, String) {
    let connect = async |url: &str| {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    };
    let name = format!("semel_kafka_{name}_{}", std::process::id());
    let admin = connect(url).await;
    admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
    admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await.unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    let own = format!("{server}/{name}");
    let client = connect(&own).await;
    client.batch_execute("CREATE TABLE orders (event text NOT NULL)").await.unwrap();
    let ledger = semel::postgres::PostgresLedger::open(&own).await.unwrap();
    (client, ledger, format!("DROP DATABASE {name} WITH (FORCE)"))
}

async fn orders(client: &tokio_postgres::Client) -> i64 {
    client.query_one("SELECT count(*) FROM orders", &[]).await.unwrap().get(0)
}

/// What a crash is to a ledger: the claim is never settled, and nobody renews it. The future is dropped on a runtime that
/// ends with it.
fn crash_after_the_effect(config: &Config, url: &str, event: &CloudEvent) {
    let (config, url, event) = (config.clone(), url.to_owned(), event.clone());
    let dying = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (done, waits) = tokio::sync::oneshot::channel();
        let done = Arc::new(std::sync::Mutex::new(Some(done)));
        runtime.block_on(async {
            let ledger = (*semel::postgres::PostgresLedger::open(&url).await.unwrap()).clone();
            let handler = Deduplicated::try_new(ledger, config, move |event, _| {
                let (url, done) = (url.clone(), Arc::clone(&done));
                async move {
                    insert(&url, &event).await;
                    if let Some(done) = done.lock().unwrap().take() {
                        done.send(()).unwrap();
                    }
                    // The power fails here.
                    std::future::pending().await
                }
            });
            let handler = handler.unwrap();
            tokio::select! {
                _ = handler.handle(&event) => unreachable!("it has no end"),
                effect = waits => effect.unwrap(),
            }
        });
        runtime.shutdown_background();
    });
    dying.join().unwrap();
}

async fn insert(url: &str, event: &CloudEvent) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.execute("INSERT INTO orders (event) VALUES ($1)", &[&event.id()]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_the_handlers_effect_and_before_its_completion_is_the_one_window_in_which_it_runs_again()
 {
    let Some(url) = postgres() else { return };
    let (client, ledger, drop_it) = database(&url, "window").await;
    let own: String = client.query_one("SELECT current_database()::text", &[]).await.unwrap().get(0);
    let own = format!("{}/{own}", url.rsplit_once('/').unwrap().0);
    let config = Config::new("order-service", TOPIC, "order-processor").lease(Duration::from_millis(500));
    let event = order("8e03978e", "/order-service");
    crash_after_the_effect(&config, &own, &event);
    assert_eq!(orders(&client).await, 1, "the effect is there, and nothing says so");

    // The next one is told that it may have happened, and handed the same key: who looks does it once.
    let (warned, again) = (Arc::new(AtomicUsize::new(0)), own.clone());
    let counted = Arc::clone(&warned);
    let handler = Deduplicated::try_new((*ledger).clone(), config.clone(), move |event, claim| {
        let (counted, own) = (Arc::clone(&counted), again.clone());
        async move {
            counted.fetch_add(usize::from(claim.is_taken_over() && claim.attempt() == 2), Ordering::SeqCst);
            insert(&own, &event).await;
            Ok(())
        }
    });
    let handler = handler.unwrap();
    assert_eq!(handler.handle(&event).await, Delivered::Handled);
    assert_eq!((orders(&client).await, warned.load(Ordering::SeqCst)), (2, 1), "this is what the window is");
    assert_eq!(handler.handle(&event).await, Delivered::Duplicate);

    // At most once, it is put aside instead.
    let event = order("17a3", "/order-service");
    let config = config.at_most_once();
    crash_after_the_effect(&config, &own, &event);
    let never =
        Deduplicated::try_new((*ledger).clone(), config, |_, _| async { panic!("it does not run again") });
    let Delivered::DeadLetter(letter) = never.unwrap().handle(&event).await else { panic!("nobody knows") };
    assert_eq!(letter.reason, semel::kafka::Reason::Unknown);
    assert_eq!(orders(&client).await, 3);
    drop((client, ledger));
    let (admin, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    admin.batch_execute(&drop_it).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_transaction_closes_the_window() {
    let Some(url) = postgres() else { return };
    let (mut client, ledger, drop_it) = database(&url, "closed").await;
    let config = Config::new("order-service", TOPIC, "order-processor");
    // It identifies events as ever; what it would run is not used.
    let identified = Deduplicated::try_new((*ledger).clone(), config, |_, _| async { Ok(()) }).unwrap();
    let event = order("8e03978e", "/order-service");
    let message = event.to_message(TOPIC);
    for attempt in 1..=3 {
        let asked = identified.request(&message).unwrap();
        let mut transaction = client.transaction().await.unwrap();
        let work = async |transaction: &mut tokio_postgres::Transaction<'_>, _: &semel::Claim| {
            transaction.execute("INSERT INTO orders (event) VALUES ($1)", &[&event.id()]).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(semel::postgres::outcome("")?)
        };
        let joined = ledger.in_transaction(&mut transaction, asked, work).await.unwrap();
        assert!(joined.outcome().is_some());
        if attempt == 1 {
            // The power fails before the commit: neither the effect nor the claim has ever been.
            drop(transaction);
            assert_eq!(orders(&client).await, 0);
        } else {
            transaction.commit().await.unwrap();
            assert_eq!(orders(&client).await, 1, "attempt {attempt}");
        }
    }
    // A consumer that meets it from now on commits it.
    assert_eq!(identified.handle(&event).await, Delivered::Duplicate);
    assert_eq!(orders(&client).await, 1);
    drop((client, ledger, identified));
    let (admin, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    admin.batch_execute(&drop_it).await.unwrap();
}
