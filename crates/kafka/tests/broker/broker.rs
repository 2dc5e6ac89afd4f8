//! The broker as tests use it: topics of their own, producers, what is committed, what lies in a topic.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use semel_kafka::Message;

/// Nothing that a test waits for stands still for longer than this, or the test has found a hang.
pub(crate) const WITHIN: Duration = Duration::from_secs(120);

/// For one answer of the broker.
const ANSWER: Duration = Duration::from_secs(60);

/// Where the broker is, or `None` where tests need none: by hand, and in a quick run.
pub(crate) fn brokers() -> Option<String> {
    let brokers = std::env::var("SEMEL_TEST_KAFKA").ok();
    if brokers.is_none() {
        let wanted = std::env::var_os("CI").is_some() && std::env::var_os("SEMEL_QUICK").is_none();
        assert!(!wanted, "SEMEL_TEST_KAFKA is not set; `cargo xtask test` sets it");
        println!("skipped: SEMEL_TEST_KAFKA is not set; `eval \"$(cargo xtask services env)\"` sets it");
    }
    brokers
}

/// A name that nobody else has: of this process, and of this call.
pub(crate) fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    format!("{what}-{since}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn client(brokers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers);
    client
}

/// Makes a topic and its dead letter topic.
pub(crate) async fn topic(brokers: &str, name: &str, partitions: i32) {
    make(brokers, name, partitions, &[]).await;
    make(brokers, &format!("{name}.dlq"), 1, &[]).await;
}

pub(crate) async fn make(brokers: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create().unwrap();
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(ANSWER));
    let made = admin.create_topics([&topic], &options).await.unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

pub(crate) fn producer(brokers: &str) -> FutureProducer {
    client(brokers).set("acks", "all").set("linger.ms", "5").create().unwrap()
}

/// Sends a message to its topic and, unless it is negative, its partition; where it came to lie.
pub(crate) async fn send(producer: &FutureProducer, message: &Message) -> (i32, i64) {
    let headers = message.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: value.as_deref() })
    });
    let mut record = FutureRecord::<[u8], [u8]>::to(&message.topic).headers(headers);
    record.key = message.key.as_deref();
    record.payload = message.payload.as_deref();
    record.partition = (message.partition >= 0).then_some(message.partition);
    let sent = producer.send(record, ANSWER).await.unwrap();
    (sent.partition, sent.offset)
}

/// A consumer that joins no group, and asks for what one has committed.
pub(crate) fn reader(brokers: &str, group: &str) -> BaseConsumer {
    let reader = client(brokers).set("group.id", group).set("enable.auto.commit", "false").create();
    reader.unwrap()
}

/// The offset at which the group goes on, of each partition; 0 where it has committed nothing.
pub(crate) fn committed(reader: &BaseConsumer, topic: &str, partitions: i32) -> Vec<i64> {
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions - 1);
    let committed = reader.committed_offsets(list, ANSWER).unwrap();
    (0..partitions)
        .map(|partition| match committed.find_partition(topic, partition).unwrap().offset() {
            Offset::Offset(offset) => offset,
            _ => 0,
        })
        .collect()
}

/// One above the last message of each partition.
pub(crate) fn ends(reader: &BaseConsumer, topic: &str, partitions: i32) -> Vec<i64> {
    (0..partitions).map(|partition| reader.fetch_watermarks(topic, partition, ANSWER).unwrap().1).collect()
}

/// Waits until the group has committed all there is.
pub(crate) async fn all_committed(brokers: &str, group: &str, topic: &str, partitions: i32) {
    let reader = reader(brokers, group);
    let ends = ends(&reader, topic, partitions);
    eventually(&format!("{group} commits {ends:?} of {topic}"), async || {
        let committed = committed(&reader, topic, partitions);
        (committed == ends).then_some(()).ok_or_else(|| format!("{committed:?}"))
    })
    .await;
}

/// Asks until it is so; fails when it is not, and the answer has not changed for a long time.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let (mut changed, mut last) = (std::time::Instant::now(), String::new());
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(other) if other != last => (changed, last) = (std::time::Instant::now(), other),
            Err(same) => assert!(changed.elapsed() < WITHIN, "{what}: not within {WITHIN:?}, but {same}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All that lies in a topic.
pub(crate) fn all_of(brokers: &str, topic: &str) -> Vec<Message> {
    let reader = reader(brokers, &unique("reader"));
    let metadata = reader.fetch_metadata(Some(topic), ANSWER).unwrap();
    let partitions = i32::try_from(metadata.topics()[0].partitions().len()).unwrap();
    let ends = ends(&reader, topic, partitions);
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    reader.assign(&list).unwrap();
    let (mut all, began) = (Vec::new(), std::time::Instant::now());
    while i64::try_from(all.len()).unwrap() < ends.iter().sum() {
        assert!(began.elapsed() < WITHIN, "{} of {ends:?}", all.len());
        let Some(polled) = reader.poll(Duration::from_millis(100)) else { continue };
        let found = polled.unwrap();
        let mut message = Message::new(topic, found.partition(), found.offset());
        message.key = found.key().map(<[u8]>::to_vec).map(Into::into);
        message.payload = found.payload().map(<[u8]>::to_vec).map(Into::into);
        if let Some(headers) = found.headers() {
            let copied = headers
                .iter()
                .map(|header| (header.key.into(), header.value.map(<[u8]>::to_vec).map(Into::into)));
            message.headers = copied.collect();
        }
        all.push(message);
    }
    all
}

/// A header as text.
pub(crate) fn text(message: &Message, header: &str) -> String {
    String::from_utf8(message.header(header).unwrap_or_else(|| panic!("no {header}")).to_vec()).unwrap()
}

/// Where the dead letters of a topic came from, and why they are there.
pub(crate) fn dead_letters(brokers: &str, topic: &str) -> BTreeMap<(i32, i64), String> {
    let letters = all_of(brokers, &format!("{topic}.dlq"));
    let place = |message: &Message| {
        let number = |header| text(message, header).parse::<i64>().unwrap();
        (i32::try_from(number("semel-dlq-partition")).unwrap(), number("semel-dlq-offset"))
    };
    letters.iter().map(|message| (place(message), text(message, "semel-dlq-reason"))).collect()
}
