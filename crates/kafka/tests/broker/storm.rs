//! Members of a group that are killed, paused and added while events come in, many of them twice: processes of their own,
//! over one ledger in PostgreSQL, before a resource that counts.
//!
//! Between an effect and its record there is one window, which only the resource can close: it is handed the downstream
//! key and the fence of each attempt, does each key once, and refuses stale fences, as any resource can. What is counted is
//! what it has done, and beside that how often it was asked, since nobody but the taken-over may ask twice.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::{Pid, Signal, kill_process};
use semel_core::Ledger;
use semel_kafka::{CloudEvent, Config, Consumer, Deduplicated, Handled, HandlerError, Message, Settings};
use semel_runtime::OsEntropy;
use semel_stores::postgres::{Options, PostgresStore};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::broker::{
    self, all_committed, brokers, committed, dead_letters, eventually, producer, reader, send, unique,
};

/// What a member is told: topic, group, the counter's address, its own name.
const MEMBER: &str = "SEMEL_STORM_MEMBER";

const PARTITIONS: i32 = 6;

/// Short, so that what a dead member held is soon another's; long enough that no member that lives loses one on a busy
/// machine.
const LEASE: Duration = Duration::from_secs(10);

const CONCURRENCY: usize = 8;

/// How many messages: 5,000, and at full length 50,000.
fn messages() -> usize {
    let given = std::env::var("SEMEL_STORM_MESSAGES").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| match (std::env::var_os("SEMEL_FULL"), std::env::var_os("SEMEL_QUICK")) {
        (Some(_), _) => 50_000,
        (None, Some(_)) => 500,
        (None, None) => 5_000,
    })
}

/// The ledger that all members share: a schema of its own for each storm.
fn postgres(schema: &str) -> Option<String> {
    let url = std::env::var("SEMEL_TEST_POSTGRES").ok()?;
    let joint = if url.contains('?') { '&' } else { '?' };
    Some(format!("{url}{joint}schema={schema}&pool=4"))
}

/// What the resource has seen of one key.
#[derive(Clone, Debug, Default)]
struct Seen {
    event: String,
    asked: u32,
    /// Of what was asked again, how much said that it may have been done before.
    warned: u32,
    fence: u64,
    stale: u32,
}

/// The resource: does each key once, and refuses stale fences.
#[derive(Clone, Default)]
struct Resource(Arc<Mutex<BTreeMap<(String, String), Seen>>>);

impl Resource {
    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let resource = self.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while let Ok(1..) = stream.read_line(&mut line).await {
                    let answer = resource.ask(line.trim_end());
                    line.clear();
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    }

    fn ask(&self, line: &str) -> &'static str {
        let words: Vec<&str> = line.split('\t').collect();
        let [group, key, event, fence, attempt, taken_over] = words[..] else { panic!("{line}") };
        let (fence, attempt): (u64, u32) = (fence.parse().unwrap(), attempt.parse().unwrap());
        let mut all = self.0.lock();
        let seen = all.entry((group.to_owned(), key.to_owned())).or_default();
        event.clone_into(&mut seen.event);
        if fence < seen.fence {
            seen.stale += 1;
            return "stale\n";
        }
        seen.fence = fence;
        seen.warned += u32::from(seen.asked > 0 && (attempt > 1 || taken_over == "true"));
        seen.asked += 1;
        "done\n"
    }

    fn done(&self, group: &str) -> usize {
        self.0.lock().keys().filter(|(of, _)| of == group).count()
    }

    fn events(&self, group: &str) -> BTreeSet<String> {
        let all = self.0.lock();
        all.iter().filter(|((of, _), _)| of == group).map(|(_, seen)| seen.event.clone()).collect()
    }
}

/// The program of a member. Started by the storm; by itself there is nothing for it to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member() {
    let Ok(told) = std::env::var(MEMBER) else { return };
    let words: Vec<&str> = told.split('\t').collect();
    let [topic, group, resource, schema] = words[..] else { panic!("{told}") };
    let store = PostgresStore::open(&Options::parse(&postgres(schema).unwrap()).unwrap()).await.unwrap();
    let ledger = Ledger::new(Arc::new(store), Arc::new(OsEntropy));
    // Every kill is a try: enough of them that none is put aside for the storm's sake.
    let config = Config::new("order-service", topic, group).lease(LEASE).attempts(50);
    let (resource, name): (Arc<str>, Arc<str>) = (resource.into(), group.into());
    let handler = Deduplicated::try_new(ledger, config, move |event, claim| {
        let (resource, name) = (Arc::clone(&resource), Arc::clone(&name));
        async move {
            let line = format!(
                "{name}\t{}\t{}\t{}\t{}\t{}\n",
                claim.downstream_key(),
                event.id(),
                claim.fence(),
                claim.attempt(),
                claim.is_taken_over()
            );
            effect(&resource, &line).await
        }
    });
    let settings = Settings::new(brokers().unwrap())
        .concurrency(CONCURRENCY)
        .in_flight(200)
        .commit_every(Duration::from_millis(200))
        .option("session.timeout.ms", "3000")
        .option("heartbeat.interval.ms", "500");
    let consumer = Consumer::start(&settings, handler.unwrap()).unwrap();
    // Until the storm closes its end.
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    ended.await.unwrap().unwrap();
    consumer.stop().await;
}

async fn effect(resource: &str, line: &str) -> Handled {
    let mut stream = BufReader::new(TcpStream::connect(resource).await?);
    stream.write_all(line.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await?;
    match answer.trim_end() {
        "done" => Ok(()),
        "stale" => Err(HandlerError::not_executed("a newer holder was here")),
        other => Err(format!("the resource says {other}").into()),
    }
}

/// Members of a group.
struct Members {
    topic: String,
    group: String,
    resource: String,
    schema: String,
    all: Vec<Child>,
}

impl Members {
    fn add(&mut self) {
        let told = [&*self.topic, &self.group, &self.resource, &self.schema].join("\t");
        let member = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "storm::member", "--nocapture"])
            .env(MEMBER, told)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        self.all.push(member.unwrap());
    }

    fn signal(&self, index: usize, signal: Signal) {
        let id = i32::try_from(self.all[index].id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    async fn kill(&mut self, index: usize) {
        let mut member = self.all.swap_remove(index);
        member.kill().await.unwrap();
    }

    /// All of them stop in peace.
    async fn stop(self) {
        for mut member in self.all {
            drop(member.stdin.take());
            assert!(member.wait().await.unwrap().success());
        }
    }
}

/// What is sent: events, a fifth of them again, some of those elsewhere; and what is none.
struct Sent {
    distinct: BTreeSet<String>,
    /// The event of each place, or none where there is none.
    places: BTreeMap<(i32, i64), Option<String>>,
}

fn event(id: &str) -> CloudEvent {
    CloudEvent::new(id, "/shop", "placed")
        .unwrap()
        .with_data("application/json", format!(r#"{{"order":"{id}"}}"#))
}

/// The event in one of both modes, in any partition.
fn message(topic: &str, id: &str, random: &mut StdRng) -> Message {
    let partition = random.random_range(0..PARTITIONS);
    let tombstone = id.starts_with('t');
    if random.random_bool(0.5) {
        let binary = event(id).to_message(topic);
        let payload = binary.payload.clone().filter(|_| !tombstone);
        return Message { partition, payload, ..binary }.with_null_header("traceparent");
    }
    let data = if tombstone { String::new() } else { format!(r#","data":{{"order":"{id}"}}"#) };
    Message::new(topic, partition, 0)
        .with_header("content-type", "application/CloudEvents+json")
        .with_payload(format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/shop","type":"placed","datacontenttype":"application/json"{data}}}"#
        ))
}

fn malformed(topic: &str, random: &mut StdRng) -> Message {
    let bare = Message::new(topic, random.random_range(0..PARTITIONS), 0);
    match random.random_range(0..4) {
        0 => bare,
        1 => bare.with_header("ce_id", "1").with_null_header("ce_specversion").with_payload("{}"),
        2 => bare.with_header("Content-Type", "application/cloudevents+json").with_payload("{\"id\":"),
        _ => bare.with_header("content-type", "application/cloudevents-batch+json").with_payload("[]"),
    }
}

async fn produce(brokers: &str, topic: &str, count: usize) -> Sent {
    let mut random = StdRng::seed_from_u64(20_261);
    let (producer, topic) = (producer(brokers), topic.to_owned());
    let (twice, wrong, empty) = (count / 5, count / 100, count / 100);
    let mut ids: Vec<Option<String>> =
        (0..count - twice - wrong - empty).map(|n| Some(format!("e{n}"))).collect();
    ids.extend((0..empty).map(|n| Some(format!("t{n}"))));
    let distinct: BTreeSet<String> = ids.iter().flatten().cloned().collect();
    for _ in 0..twice {
        let again = ids[random.random_range(0..distinct.len())].clone();
        ids.push(again);
    }
    ids.extend((0..wrong).map(|_| None));
    ids.shuffle(&mut random);
    let mut places = BTreeMap::new();
    for some in ids.chunks(500) {
        let messages: Vec<_> = some
            .iter()
            .map(|id| match id {
                Some(id) => message(&topic, id, &mut random),
                None => malformed(&topic, &mut random),
            })
            .collect();
        let sent =
            futures_util::future::join_all(messages.iter().map(|message| send(&producer, message))).await;
        places.extend(sent.into_iter().zip(some.iter().cloned()));
    }
    assert_eq!(places.len(), count);
    Sent { distinct, places }
}

/// What is committed was handled, or lies in the dead letter topic; looked at in this order, so that it holds at any time.
fn nothing_is_skipped(brokers: &str, topic: &str, group: &str, sent: &Sent, resource: &Resource) {
    let committed = committed(&reader(brokers, group), topic, PARTITIONS);
    let (handled, dead) = (resource.events(group), dead_letters(brokers, topic));
    for ((partition, offset), id) in &sent.places {
        if *offset >= committed[usize::try_from(*partition).unwrap()] {
            continue;
        }
        match id {
            Some(id) => {
                assert!(handled.contains(id), "{id} at {partition}/{offset} is committed, and not handled");
            }
            None => assert!(
                dead.contains_key(&(*partition, *offset)),
                "{partition}/{offset} is committed, and nowhere"
            ),
        }
    }
}

async fn handled(resource: &Resource, group: &str, at_least: usize) {
    eventually(&format!("{group} handles {at_least}"), async || {
        let done = resource.done(group);
        if done >= at_least { Ok(()) } else { Err(done.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_killed_paused_and_added_and_each_event_is_done_once_for_each_group_l1_l2_l7() {
    let Some(brokers) = brokers() else { return };
    let schema = format!("storm_{}", std::process::id());
    assert!(postgres(&schema).is_some(), "SEMEL_TEST_POSTGRES is not set; `cargo xtask test` sets it");
    let (topic, [group, second]) = (unique("orders"), [unique("a"), unique("b")]);
    broker::topic(&brokers, &topic, PARTITIONS).await;
    let resource = Resource::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(resource.clone().serve(listener));
    let members = |group: &str| Members {
        topic: topic.clone(),
        group: group.to_owned(),
        resource: address.clone(),
        schema: schema.clone(),
        all: Vec::new(),
    };
    let began = std::time::Instant::now();
    let sent = produce(&brokers, &topic, messages()).await;
    println!("{} messages sent after {:?}", sent.places.len(), began.elapsed());
    let total = sent.distinct.len();
    let (mut first, mut other) = (members(&group), members(&second));
    (0..3).for_each(|_| first.add());
    other.add();

    handled(&resource, &group, total / 10).await;
    first.kill(0).await;
    nothing_is_skipped(&brokers, &topic, &group, &sent, &resource);
    handled(&resource, &group, total * 2 / 10).await;
    first.add();
    // One stands still in the middle of its work, and the others go on without it.
    first.signal(0, Signal::STOP);
    handled(&resource, &group, total * 4 / 10).await;
    nothing_is_skipped(&brokers, &topic, &group, &sent, &resource);
    first.add();
    handled(&resource, &group, total * 6 / 10).await;
    first.kill(1).await;
    handled(&resource, &group, total * 8 / 10).await;
    nothing_is_skipped(&brokers, &topic, &group, &sent, &resource);
    first.kill(1).await;
    first.add();
    // All of them, those as well that the one has claimed which stands still: it comes back to a world that has done without.
    handled(&resource, &group, total).await;
    first.signal(0, Signal::CONT);

    for group in [&group, &second] {
        all_committed(&brokers, group, &topic, PARTITIONS).await;
        assert_eq!(resource.events(group), sent.distinct, "{group}: every event, and nothing else");
        nothing_is_skipped(&brokers, &topic, group, &sent, &resource);
    }
    println!("all committed after {:?}", began.elapsed());
    first.stop().await;
    other.stop().await;
    serving.abort();
    judge(&brokers, &topic, &sent, &resource, &[&group, &second]);
}

fn judge(brokers: &str, topic: &str, sent: &Sent, resource: &Resource, groups: &[&String]) {
    let all = resource.0.lock();
    assert_eq!(all.len(), sent.distinct.len() * groups.len(), "one key for each event and group");
    let again: Vec<&Seen> = all.values().filter(|seen| seen.asked > 1).collect();
    for seen in &again {
        assert_eq!(seen.asked - 1, seen.warned, "asked again unawares: {seen:?}");
    }
    let stale: u32 = all.values().map(|seen| seen.stale).sum();
    println!(
        "{} events were asked for again after their member had died or stood still; {stale} stale ones were refused",
        again.len()
    );
    // Three were killed and one stood still: what they had begun, and no more, is begun again.
    assert!(again.len() <= 4 * CONCURRENCY, "{again:?}");
    let wrong: BTreeSet<(i32, i64)> =
        sent.places.iter().filter(|(_, id)| id.is_none()).map(|(place, _)| *place).collect();
    let dead = dead_letters(brokers, topic);
    assert_eq!(
        dead.keys().copied().collect::<BTreeSet<_>>(),
        wrong,
        "all that is malformed, and nothing else"
    );
    assert!(dead.values().all(|reason| reason == "malformed"), "{dead:?}");
}
