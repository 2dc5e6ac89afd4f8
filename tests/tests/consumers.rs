//! `[[consumers]]`: topics of Kafka whose events are delivered to a target, once, by the real process and a real broker.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::Signal;
use serde_json::Value;

use crate::server::{self, Server};
use crate::shared_store::Kind;
use crate::target::Target;
use crate::toxiproxy::{Proxy, Way};
use crate::wait::eventually;

const ANSWER: Duration = Duration::from_secs(60);

/// Where the broker is, or `None` where tests need none: by hand.
pub(crate) fn brokers() -> Option<String> {
    let brokers = std::env::var("SEMEL_TEST_KAFKA").ok();
    if brokers.is_none() {
        assert!(std::env::var_os("CI").is_none(), "SEMEL_TEST_KAFKA is not set; `cargo xtask test` sets it");
        println!("skipped: SEMEL_TEST_KAFKA is not set; `eval \"$(cargo xtask services env)\"` sets it");
    }
    brokers
}

fn unique(what: &str) -> String {
    format!("{what}-{}-{}", std::process::id(), std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos())
}

/// A topic, made by its first message.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) group: String,
    brokers: String,
    producer: FutureProducer,
}

impl Topic {
    pub(crate) fn new(brokers: &str) -> Self {
        let mut client = ClientConfig::new();
        let producer = client.set("bootstrap.servers", brokers).set("acks", "all").create().unwrap();
        Self { name: unique("orders"), group: unique("group"), brokers: brokers.to_owned(), producer }
    }

    pub(crate) async fn send(&self, headers: &[(&str, Option<&str>)], payload: Option<&str>) {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: *value }));
        let mut record = FutureRecord::<str, str>::to(&self.name).headers(headers);
        record.payload = payload;
        self.producer.send(record, ANSWER).await.unwrap();
    }

    async fn event(&self, id: &str, payload: Option<&str>) {
        let headers = [
            ("ce_specversion", Some("1.0")),
            ("CE_Id", Some(id)),
            ("ce_source", Some("/shop")),
            ("ce_type", Some("placed")),
            ("content-type", Some("application/json")),
            ("traceparent", None),
        ];
        self.send(&headers, payload).await;
    }

    /// How much of its one partition the group has committed, and how much there is.
    fn committed(&self) -> (i64, i64) {
        let mut client = ClientConfig::new();
        let reader: BaseConsumer =
            client.set("bootstrap.servers", &self.brokers).set("group.id", &self.group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.name, 0);
        let committed = reader.committed_offsets(list, ANSWER).unwrap();
        let offset = match committed.find_partition(&self.name, 0).unwrap().offset() {
            Offset::Offset(offset) => offset,
            _ => 0,
        };
        (offset, reader.fetch_watermarks(&self.name, 0, ANSWER).unwrap().1)
    }

    pub(crate) async fn all_committed(&self) {
        eventually("all is committed", async || {
            let (committed, end) = self.committed();
            (committed == end).then_some(())
        })
        .await;
    }

    fn config(&self, target: &Target, more: &str) -> String {
        format!(
            "[server]\ndevelopment = true\n[[consumers]]\nbrokers = \"{}\"\ntopic = \"{}\"\ngroup = \"{}\"\n\
             target = \"{}/text\"\noptions = {{ \"session.timeout.ms\" = \"2000\" }}\n{more}\n",
            self.brokers,
            self.name,
            self.group,
            target.url()
        )
    }
}

fn ids(target: &Target) -> BTreeSet<String> {
    let id = |body: &str| serde_json::from_str::<Value>(body).unwrap()["id"].as_str().unwrap().to_owned();
    target.seen().iter().map(|arrived| id(&arrived.body)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_of_a_topic_is_delivered_once_in_structured_mode_and_committed_when_it_is_durable() {
    let Some(brokers) = brokers() else { return };
    let (topic, target) = (Topic::new(&brokers), Target::start().await);
    topic.event("e-1", Some(r#"{"n":12345678901234567890}"#)).await;
    topic.event("e-1", Some(r#"{"n":12345678901234567890}"#)).await;
    topic.event("e-2", None).await;
    topic.send(&[("x", Some("1"))], Some("no event")).await;
    let server = Server::start(&topic.config(&target, "")).await;
    target.arrived(2).await;
    topic.all_committed().await;
    // Not before: messages without a key have no order among each other.
    topic.event("e-1", Some(r#"{"n":2}"#)).await;
    topic.all_committed().await;
    let seen = target.seen();
    assert_eq!(
        (seen.len(), ids(&target).len()),
        (2, 2),
        "a duplicate, one that is none, and a conflict are not delivered"
    );
    let first = seen.iter().find(|arrived| arrived.body.contains("e-1")).unwrap();
    assert_eq!(
        first.body,
        r#"{"specversion":"1.0","id":"e-1","source":"/shop","type":"placed","datacontenttype":"application/json","data":{"n":12345678901234567890}}"#
    );
    assert_eq!(first.headers["content-type"], "application/cloudevents+json");
    assert_eq!((&*first.headers["semel-event-id"], &*first.headers["semel-event-source"]), ("e-1", "/shop"));
    assert!(first.headers.contains_key("idempotency-key"));
    let metrics = server.http().get(&format!("{}/metrics", server.admin_url()), &[]).await.unwrap();
    let of = format!("service=\"semel\",topic=\"{}\",consumer_group=\"{}\"", topic.name, topic.group);
    for line in [
        format!("message_deduplication_hits_total{{{of}}} 1"),
        format!("message_deduplication_misses_total{{{of}}} 2"),
        format!("semel_consumer_dead_letters_total{{{of},reason=\"malformed\"}} 1"),
        format!("semel_consumer_dead_letters_total{{{of},reason=\"conflict\"}} 1"),
    ] {
        assert!(metrics.text().contains(&line), "{line}\n{}", metrics.text());
    }
    let actor = eventually("accepted", async || {
        let audit = format!("{}/v1/audit?action=accepted", server.admin_url());
        let page = server.http().get(&audit, &[]).await.unwrap().json();
        page["entries"].get(0).map(|entry| entry["actor"].clone())
    });
    assert_eq!(actor.await, format!("topic:{}/{}", topic.name, topic.group));
    assert!(server.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_consumes_a_server_loses_no_event_and_delivers_none_under_two_keys_l4_l9() {
    let Some(brokers) = brokers() else { return };
    let (topic, target) = (Topic::new(&brokers), Target::start().await);
    let folder = tempfile::tempdir().unwrap();
    // What the killed one was about to deliver is soon another's.
    let config = topic.config(&target, "lease = \"1s\"");
    let first = Server::start_in(folder.path(), &config).await;
    for n in 0..100 {
        topic.event(&format!("e-{n}"), Some("{}")).await;
    }
    target.arrived(10).await;
    first.kill().await;
    for n in 0..100 {
        // All of them again, and as many more.
        topic.event(&format!("e-{n}"), Some("{}")).await;
        topic.event(&format!("f-{n}"), Some("{}")).await;
    }
    let second = Server::start_in(folder.path(), &config).await;
    topic.all_committed().await;
    eventually("every event is delivered", async || (ids(&target).len() == 200).then_some(())).await;
    let keys: BTreeSet<String> =
        target.seen().iter().map(|arrived| arrived.headers["idempotency-key"].clone()).collect();
    assert_eq!(keys.len(), 200, "what was delivered twice has the same key");
    assert!(second.stop().await.success());
}

/// The network to the store loses answers after the commit, and is cut; meanwhile events come, some of them again.
#[tokio::test(flavor = "multi_thread")]
async fn over_a_store_that_fails_a_server_commits_nothing_that_is_not_in_and_delivers_none_under_two_keys_l4_l9()
 {
    let Some(brokers) = brokers() else { return };
    let Some(store) = Kind::Postgres.fresh().await else { return };
    let proxy = Proxy::to(&store.address()).await;
    let (topic, target) = (Topic::new(&brokers), Target::start().await);
    // What it was about to deliver when the store went is soon due again.
    let config = topic.config(&target, "lease = \"1s\"");
    let server = Server::start_on(&store.url_at(proxy.address()), &config).await;
    let send = async |from: usize| {
        for n in from..from + 50 {
            topic.event(&format!("e-{n}"), Some("{}")).await;
            topic.event(&format!("e-{}", n / 2), Some("{}")).await;
        }
    };
    send(0).await;
    target.arrived(10).await;
    // What goes up arrives and is done; the answer is a reset.
    proxy.spoil(Way::Down, "reset_peer", serde_json::json!({ "timeout": 0 })).await;
    send(50).await;
    not_ready(&server).await;
    // It has taken the new ones from the broker, and an answer that was lost is none.
    behind(&server, 100).await;
    assert!(topic.committed().0 <= 100, "{:?}: no more than came before", topic.committed());
    proxy.cut().await;
    send(100).await;
    behind(&server, 200).await;
    assert!(topic.committed().0 <= 100, "{:?}: no more than came before", topic.committed());
    proxy.heal().await;
    topic.all_committed().await;
    eventually("every event is delivered", async || (ids(&target).len() == 150).then_some(())).await;
    let keys: BTreeSet<String> =
        target.seen().iter().map(|arrived| arrived.headers["idempotency-key"].clone()).collect();
    assert_eq!(keys.len(), 150, "what was delivered twice has the same key");
    assert!(server.stop().await.success());
}

async fn not_ready(server: &Server) {
    eventually("the store is missed", async || {
        (server.get("/readyz", &[]).await.status == 503).then_some(())
    })
    .await;
}

/// Waits until the consumer's one partition is behind by so many messages, or more.
async fn behind(server: &Server, messages: u64) {
    let url = format!("{}/metrics", server.admin_url());
    eventually(&format!("it is {messages} behind"), async || {
        let scrape = server.http().get(&url, &[]).await.unwrap();
        let lag = scrape.text().lines().find(|line| line.starts_with("semel_consumer_lag_messages{"))?;
        let (_, lag) = lag.rsplit_once(' ')?;
        (lag.parse::<u64>().unwrap() >= messages).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_starts_and_stops_consumers() {
    let Some(brokers) = brokers() else { return };
    let (topic, target) = (Topic::new(&brokers), Target::start().await);
    let folder = tempfile::tempdir().unwrap();
    topic.event("e-1", Some("{}")).await;
    let server = Server::start_in(folder.path(), "[server]\ndevelopment = true\n").await;
    let file = folder.path().join("semel.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let with = topic.config(&target, "");
    let consumer = &with[with.find("[[consumers]]").unwrap()..];
    std::fs::write(&file, format!("{before}\n{consumer}")).unwrap();
    server.signal(Signal::HUP);
    target.arrived(1).await;
    topic.all_committed().await;
    std::fs::write(&file, &before).unwrap();
    server.signal(Signal::HUP);
    // Without it the group has no member: another that consumes in its name is given all that comes.
    let other = Server::start(&topic.config(&target, "")).await;
    topic.event("e-2", Some("{}")).await;
    target.arrived(2).await;
    topic.all_committed().await;
    assert!(other.stop().await.success());
    assert!(server.stop().await.success());
}

#[tokio::test]
async fn config_check_says_what_cannot_be_of_a_consumer() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("semel.toml");
    let consumer = "[[consumers]]\nbrokers = \"127.0.0.1:1\"\ntarget = \"http://127.0.0.1:9000/events\"\n";
    for (more, expected) in [
        ("group = \"g\"\n", "consumers[0].topic: is missing"),
        (
            "topic = \"a\"\ngroup = \"g\"\nidentity = \"SourceAndId\"\n",
            "consumers[0].identity: is `SourceAndId`; write `source+id`",
        ),
        ("topic = \"a\"\ngroup = \"g\"\nidentity = \"Id\"\n", "consumers[0].identity: is `Id`; write `id`"),
        (
            "topic = \"a\"\ngroup = \"g\"\nidentity = \"/a/~5\"\n",
            "consumers[0].identity: is no JSON Pointer: behind each `~` comes 0 or 1",
        ),
        (
            "topic = \"a\"\ngroup = \"g\"\nidentity = \"what ever\"\n",
            "consumers[0].identity: must be source+id, id, offset, a JSON Pointer or the name of a header",
        ),
        ("topic = \"a/b\"\ngroup = \"g\"\n", "no topic can have the name `a/b`"),
        ("topics = [\"a\", \"a.dlq\"]\ngroup = \"g\"\n", "which is consumed itself"),
        ("topic = \"a\"\ngroup = \"g\"\nidentiy = \"id\"\n", "identiy"),
        ("topic = \"a\"\n", "consumers[0].group: is missing"),
        ("topic = \"a\"\ngroup = \"g\"\noptions = { \"sesion.timeout.ms\" = \"1\" }\n", "sesion.timeout.ms"),
        ("topic = \"a\"\ngroup = \"g\"\noptions = { \"session.timeout.ms\" = 2000 }\n", "must be a text"),
        ("topic = \"a\"\ngroup = \"g\"\noptions = { \"group.id\" = \"other\" }\n", "the consumer's own"),
        ("topic = \"a\"\ngroup = \"g\"\noptions = { \"sasl.password\" = \"x\" }\n", "only in development"),
    ] {
        std::fs::write(&file, format!("{consumer}{more}")).unwrap();
        let checked =
            server::command(&["config", "check", "--config", "semel.toml"], folder.path()).output().await;
        let checked = checked.unwrap();
        let said =
            String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
        assert!(!checked.status.success() && said.contains(expected), "{more}: {said}");
    }
}

#[tokio::test]
async fn no_option_of_a_consumer_hides_what_is_wrong_with_another() {
    let folder = tempfile::tempdir().unwrap();
    let lines = [
        "[[consumers]]",
        "brokers = \"\"",
        "topic = \"a/b\"",
        "identity = \"Id\"",
        "conflicts = \"drop\"",
        "target = \"ftp://127.0.0.1/\"",
        "retention = \"0s\"",
        "headers = { \"a b\" = \"hunter2\" }",
        "[consumers.options]",
        "\"sesion.timeout.ms\" = \"1\"",
        "\"session.timeout.ms\" = \"soon\"",
        "\"group.id\" = \"other\"",
        "\"max.poll.interval.ms\" = 2000",
        "\"sasl.password\" = \"hunter2\"",
        "\"heartbeat.interval.ms\" = \"100\"",
    ];
    std::fs::write(folder.path().join("semel.toml"), lines.join("\n")).unwrap();
    let checked = server::command(&["config", "check"], folder.path()).output().await.unwrap();
    let said = String::from_utf8(checked.stderr).unwrap() + &String::from_utf8(checked.stdout).unwrap();
    assert!(!checked.status.success() && !said.contains("hunter2"), "{said}");
    assert!(said.contains("consumers[0].group: is missing"), "{said}");
    for message in ["only in development", "`a b` is no name of a header"] {
        let begin = "semel.toml:8: consumers[0].headers.a b: ";
        assert!(said.lines().any(|line| line.starts_with(begin) && line.contains(message)), "{said}");
    }
    for (place, line) in lines.iter().enumerate().skip(1) {
        let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| *key != "headers") else { continue };
        let of = if place > 8 { "consumers[0].options" } else { "consumers[0]" };
        let is_wrong = !key.contains("heartbeat");
        let message = format!("semel.toml:{}: {of}.{key}: ", place + 1);
        assert_eq!(said.contains(&message), is_wrong, "{message} in\n{said}");
    }
}

#[tokio::test]
async fn a_password_to_a_broker_comes_from_the_environment_and_shows_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[[consumers]]\nbrokers = \"127.0.0.1:1\"\ntopic = \"a\"\ngroup = \"g\"\ntarget = \"http://127.0.0.1:9000/\"\n\
                  options = { \"sasl.username\" = \"orders\", \"sasl.password\" = { env = \"BROKER_PASSWORD\" } }\n";
    std::fs::write(folder.path().join("semel.toml"), config).unwrap();
    let mut show = server::command(&["config", "show"], folder.path());
    let shown = show.env("BROKER_PASSWORD", "hunter2").output().await.unwrap();
    let said = String::from_utf8_lossy(&shown.stderr).into_owned() + &String::from_utf8_lossy(&shown.stdout);
    assert!(shown.status.success() && said.contains("BROKER_PASSWORD") && said.contains("orders"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}
