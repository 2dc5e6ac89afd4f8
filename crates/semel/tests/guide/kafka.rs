//! `docs/guide/kafka.md`: an order service that consumes, against a real broker.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use semel::kafka::Handled;
use serde::Deserialize;
use tokio::sync::Notify;

use semel::kafka::{Config, Consumer, Deduplicated, Settings};

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn consume(store: &str, brokers: &str) -> Result<(), Failure> {
    let ledger = semel::open(store).await?;
    let config = Config::new("order-service", "orders.received", "order-processor");
    let handler = Deduplicated::try_new(ledger, config, |event, claim| async move {
        let order: Order = serde_json::from_slice(event.data().ok_or("no data")?)?;
        // What takes an idempotency key is given one that is the same on every try.
        warehouse::reserve(order, &claim.downstream_key()).await?;
        Ok(())
    })?;
    let consumer = Consumer::start(&Settings::new(brokers), handler)?;
    shutdown_signal().await;
    consumer.stop().await; // drains, commits, leaves the group
    Ok(())
}

use semel::kafka::{CloudEvent, HandlerError};
use semel::wms::{ConsumerConfig, DeduplicatingHandler, MessageRepository, deduplicating_handler};

fn set_up(repository: MessageRepository) -> Result<DeduplicatingHandler, HandlerError> {
    let config = ConsumerConfig::new("order-service", "orders.received", "order-processor", repository);
    Ok(deduplicating_handler(config, |event, _| async move { process_order(&event).await })?)
}

fn start(handler: DeduplicatingHandler, brokers: &str) -> Result<Consumer, HandlerError> {
    Ok(handler.start(&Settings::new(brokers))?)
}

async fn received(handler: &DeduplicatingHandler, event: &CloudEvent) -> Result<(), HandlerError> {
    handler.handle(event).await // in a consumer of your own: Ok, then commit
}

use semel::kafka::Message;
use semel::postgres::{PostgresLedger, outcome};

async fn take_in(
    handler: &Deduplicated,
    ledger: &PostgresLedger,
    client: &mut tokio_postgres::Client,
    message: &Message,
) -> Result<(), Failure> {
    let asked = handler.request(message)?; // the same identity as ever
    let mut transaction = client.transaction().await?;
    let work = async |transaction: &mut tokio_postgres::Transaction<'_>, _: &semel::Claim| {
        transaction.execute("INSERT INTO orders (offset_in_topic) VALUES ($1)", &[&message.offset]).await?;
        Ok::<_, Failure>(outcome("")?)
    };
    ledger.in_transaction(&mut transaction, asked, work).await?;
    transaction.commit().await?; // then commit the offset
    Ok(())
}

/// The guide's topic. Others may have left messages there: what is counted is told apart by its id.
const TOPIC: &str = "orders.received";
/// No member that has died is in the way for longer, and no test waits longer.
const WITHIN: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Order {
    #[serde(rename = "orderId")]
    id: String,
}

/// How often each order was reserved, and processed.
static RESERVED: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());
static PROCESSED: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());
static SHUTDOWN: Notify = Notify::const_new();

mod warehouse {
    pub(super) async fn reserve(order: super::Order, key: &str) -> Result<(), super::Failure> {
        assert_eq!(key.len(), 32);
        *super::RESERVED.lock().entry(order.id).or_default() += 1;
        Ok(())
    }
}

async fn process_order(event: &CloudEvent) -> Handled {
    *PROCESSED.lock().entry(event.id().to_owned()).or_default() += 1;
    Ok(())
}

async fn shutdown_signal() {
    SHUTDOWN.notified().await;
}

/// A service of the tests, or `None` where they need none: by hand, and in a quick run.
fn service(variable: &str) -> Option<String> {
    let service = std::env::var(variable).ok();
    if service.is_none() {
        let wanted = std::env::var_os("CI").is_some() && std::env::var_os("SEMEL_QUICK").is_none();
        assert!(!wanted, "{variable} is not set; `cargo xtask test` sets it");
        println!("skipped: {variable} is not set; `eval \"$(cargo xtask services env)\"` sets it");
    }
    service
}

/// An id that no other run of this test has.
fn unique(what: &str) -> String {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    format!("{what}-{}-{since}", std::process::id())
}

fn event(id: &str) -> CloudEvent {
    let event = CloudEvent::new(id, "/order-service", "com.wms.OrderReceived").unwrap();
    event.with_data("application/json", format!(r#"{{"orderId":"{id}"}}"#))
}

/// Sends an event. All of them have one key: they are handled one after the other.
async fn send(producer: &FutureProducer, id: &str) {
    let message = event(id).to_message(TOPIC);
    let headers = message.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: value.as_deref() })
    });
    let mut record = FutureRecord::<str, [u8]>::to(TOPIC).key("one").headers(headers);
    record.payload = message.payload.as_deref();
    producer.send(record, WITHIN).await.unwrap();
}

/// Waits until the last of them was counted.
async fn counted(counts: &Mutex<BTreeMap<String, u32>>, id: &str) {
    let counted = async {
        while !counts.lock().contains_key(id) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WITHIN, counted).await.unwrap_or_else(|_| panic!("{id} never comes"));
}

fn count(counts: &Mutex<BTreeMap<String, u32>>, id: &str) -> u32 {
    counts.lock().get(id).copied().unwrap_or(0)
}

/// One after the other: they are members of one group.
#[tokio::test(flavor = "multi_thread")]
async fn the_consumers_of_the_guide_handle_each_event_once_and_stop() {
    let Some(brokers) = service("SEMEL_TEST_KAFKA") else { return };
    let client = ClientConfig::new().set("bootstrap.servers", &brokers).set("acks", "all").clone();
    let producer: FutureProducer = client.create().unwrap();
    let ids = ["first", "second", "third", "fourth"].map(unique);
    for id in [&ids[0], &ids[0], &ids[1]] {
        send(&producer, id).await;
    }
    let at = brokers.clone();
    let consuming = tokio::spawn(async move { consume("memory:", &at).await });
    counted(&RESERVED, &ids[1]).await;
    assert_eq!(count(&RESERVED, &ids[0]), 1, "sent twice");
    SHUTDOWN.notify_one();
    consuming.await.unwrap().unwrap();

    let repository = MessageRepository::new(semel::open("memory:").await.unwrap());
    let handler = set_up(repository).map_err(|error| error.to_string()).unwrap();
    for id in [&ids[2], &ids[2], &ids[3]] {
        send(&producer, id).await;
    }
    let consumer = start(handler.clone(), &brokers).map_err(|error| error.to_string()).unwrap();
    counted(&PROCESSED, &ids[3]).await;
    assert_eq!(count(&PROCESSED, &ids[2]), 1, "sent twice");
    consumer.stop().await;
    assert_eq!(count(&RESERVED, &ids[1]), 1, "it was committed before");
}

#[tokio::test]
async fn the_wrapped_handler_of_the_guide_processes_an_event_once() {
    let repository = MessageRepository::new(semel::open("memory:").await.unwrap());
    let handler = set_up(repository).map_err(|error| error.to_string()).unwrap();
    let event = event(&unique("by-hand"));
    for _ in 0..2 {
        received(&handler, &event).await.map_err(|error| error.to_string()).unwrap();
    }
    assert_eq!(count(&PROCESSED, event.id()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_transaction_of_the_guide_takes_an_event_in_once() {
    let Some(url) = service("SEMEL_TEST_POSTGRES") else { return };
    let schema = format!("guide_{}", std::process::id());
    let (mut client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let own = format!("CREATE SCHEMA {schema}_orders; SET search_path TO {schema}_orders");
    let remove =
        format!("DROP SCHEMA IF EXISTS {schema}_orders CASCADE; DROP SCHEMA IF EXISTS {schema} CASCADE");
    client.batch_execute(&format!("{remove}; {own}")).await.unwrap();
    client.batch_execute("CREATE TABLE orders (offset_in_topic bigint NOT NULL)").await.unwrap();
    let joint = if url.contains('?') { '&' } else { '?' };
    let ledger = PostgresLedger::open(&format!("{url}{joint}schema={schema}&pool=4")).await.unwrap();
    let config = Config::new("order-service", TOPIC, "order-processor");
    let handler = Deduplicated::try_new((*ledger).clone(), config, |_, _| async { Ok(()) }).unwrap();
    let message = Message { offset: 7, ..event("8e03978e").to_message(TOPIC) };
    for _ in 0..2 {
        take_in(&handler, &ledger, &mut client, &message).await.unwrap();
    }
    let rows = client.query("SELECT offset_in_topic FROM orders", &[]).await.unwrap();
    let offsets: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(offsets, [7]);
    drop((handler, ledger));
    client.batch_execute(&remove).await.unwrap();
}
