//! A storm of webhooks: a hundred thousand deliveries, nearly a third of them duplicates, and the server is killed twice in the
//! middle of it, on its embedded store; a smaller one over two servers that share a PostgreSQL, of which now one is killed and
//! then the other. In the end every distinct event is delivered, no two deliveries of one event were under way at the same time,
//! and nothing is pending (L1, L4, L9).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::sync::watch;

use crate::http::Http;
use crate::inbox::Inbox;
use crate::load::seed;
use crate::server::Server;
use crate::shared_store::Kind;
use crate::wait::eventually;

/// Deliveries at once, as a partner that catches up after an outage has them.
const PARTNERS: usize = 32;
/// Tries at once towards the target.
const CONCURRENCY: usize = 32;
/// How often the server is killed.
const KILLS: usize = 2;

/// Deliveries in all, of so many in the full run.
fn deliveries(full: usize, usual: usize) -> usize {
    if std::env::var_os("SEMEL_FULL").is_some() { full } else { usual }
}

/// Events in an order in which duplicates stand anywhere, also right beside the first: 7 of 10 are new.
fn sequence(random: &mut StdRng, count: usize) -> (Vec<usize>, usize) {
    let distinct = count * 7 / 10;
    let mut events: Vec<usize> = (0..distinct).collect();
    events.extend((distinct..count).map(|_| random.random_range(0..distinct)));
    events.shuffle(random);
    (events, distinct)
}

/// What partners share.
struct Partners {
    events: Vec<usize>,
    next: AtomicUsize,
    /// Where the servers are; changes when another one has come in the place of one.
    urls: Mutex<Vec<String>>,
    acknowledged: watch::Sender<usize>,
}

impl Partners {
    /// Delivers what is left, each until it is acknowledged.
    async fn deliver(self: Arc<Self>) {
        let http = Http::new();
        while let Some(event) = self.events.get(self.next.fetch_add(1, Ordering::SeqCst)) {
            let body = json!({
                "event": "payment.succeeded", "data": { "payment_id": format!("py-{event}"), "status": "SUCCEEDED" }
            })
            .to_string();
            for turn in *event.. {
                let url = {
                    let urls = self.urls.lock().unwrap();
                    format!("{}/v1/webhooks/xendit", urls[turn % urls.len()])
                };
                let id = format!("wh-{event}");
                let headers = [
                    ("content-type", "application/json"),
                    ("x-callback-token", "token"),
                    ("webhook-id", &*id),
                ];
                match http.post(&url, &headers, body.clone()).await {
                    Ok(answer) if answer.status == 200 => break,
                    Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
                    // Killed, or not yet there again: a partner comes again a little later.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
            self.acknowledged.send_modify(|count| *count += 1);
        }
    }
}

/// Waits until `count` stands at `wanted`, for as long as it moves.
async fn grows(what: &str, wanted: usize, count: impl Fn() -> usize) {
    loop {
        let seen = count();
        if seen >= wanted {
            return;
        }
        eventually(&format!("{what}: more than {seen} of {wanted}"), async || (count() > seen).then_some(()))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_with_duplicates_and_two_kills_ends_with_every_event_delivered_none_twice_at_once_and_nothing_pending_l1_l4_l9()
 {
    let folder = tempfile::tempdir().unwrap();
    storm(deliveries(100_000, 3_000), 1, async |config| Server::start_in(folder.path(), &config).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_over_two_nodes_of_which_each_is_killed_once_ends_with_every_event_delivered_and_none_twice_at_once_l1_l4_l9()
 {
    let Some(store) = Kind::Postgres.fresh().await else { return };
    let url = store.url();
    storm(deliveries(10_000, 1_000), 2, async |config| Server::start_on(&url, &config).await).await;
}

/// So many deliveries to so many servers at once, each of which `start` starts, over one store.
async fn storm(count: usize, nodes: usize, start: impl AsyncFn(String) -> Server) {
    let mut random = StdRng::seed_from_u64(seed());
    let (events, distinct) = sequence(&mut random, count);
    let shop = Inbox::open().await;
    let config = format!(
        "[server]\ndevelopment = true\n[log]\nfilter = \"warn\"\n\
         [[webhooks]]\nsource = \"xendit\"\nprovider = \"xendit\"\n\
         secrets = [{{ id = \"1\", value = \"token\" }}]\ntarget = \"{}\"\n\
         lease = \"5s\"\nconcurrency = {CONCURRENCY}\nretry = {{ max_attempts = 100, first = \"50ms\", cap = \"1s\" }}\n",
        shop.url("/hooks")
    );
    let mut servers = VecDeque::new();
    for _ in 0..nodes {
        servers.push_back(start(config.clone()).await);
    }
    let urls = |servers: &VecDeque<Server>| servers.iter().map(Server::url).collect::<Vec<_>>();
    let partners = Arc::new(Partners {
        events,
        next: AtomicUsize::new(0),
        urls: Mutex::new(urls(&servers)),
        acknowledged: watch::channel(0).0,
    });
    let tasks: Vec<_> = (0..PARTNERS).map(|_| tokio::spawn(Arc::clone(&partners).deliver())).collect();
    for kill in 1..=KILLS {
        let mut acknowledged = partners.acknowledged.subscribe();
        let place = count * kill / (KILLS + 1);
        acknowledged.wait_for(|count| *count >= place).await.unwrap();
        // The one that is there for longest.
        servers.pop_front().unwrap().kill().await;
        servers.push_back(start(config.clone()).await);
        *partners.urls.lock().unwrap() = urls(&servers);
    }
    grows("acknowledged", count, || *partners.acknowledged.borrow()).await;
    for task in tasks {
        task.await.unwrap();
    }
    grows("distinct events delivered", distinct, || shop.events()).await;
    nothing_is_pending(&servers[0], distinct).await;
    judge(&shop, distinct);
    for server in servers {
        server.stop().await;
    }
}

/// Everything has ended, and all of it is completed.
async fn nothing_is_pending(server: &Server, distinct: usize) {
    let admin = server.admin_url();
    let unfinished =
        format!("{admin}/v1/records?namespace=webhook&state=pending,running,unknown,dead&limit=1");
    eventually("nothing is pending", async || {
        let page = server.http().get(&unfinished, &[]).await.unwrap().json();
        page["records"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    // A store that nodes share adds its counts up some time later.
    eventually("a record for each event, and no other", async || {
        let metrics = server.http().get(&format!("{admin}/metrics"), &[]).await.unwrap();
        let text = metrics.text();
        let is_it = |line: &&str| {
            line.starts_with("semel_records{") && line.contains("webhook") && line.contains("completed")
        };
        let completed =
            text.lines().find(is_it).and_then(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
        (completed == Some(distinct)).then_some(())
    })
    .await;
}

fn judge(shop: &Inbox, distinct: usize) {
    assert_eq!(shop.overlaps(), 0, "L1: no two deliveries of one event at the same time");
    let seen = shop.seen();
    let mut events: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
    for one in &seen {
        events.entry(&one.event).or_default().push((one.fence, &one.key));
    }
    let wanted: BTreeSet<String> = (0..distinct).map(|event| format!("wh-{event}")).collect();
    assert_eq!(events.keys().map(|event| (*event).to_owned()).collect::<BTreeSet<_>>(), wanted);
    let keys: BTreeSet<&str> = seen.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(keys.len(), distinct, "a key for each event, the same for all of its tries");
    for (event, tries) in &events {
        assert!(tries.windows(2).all(|two| two[1].0 > two[0].0), "L2: {event}: {tries:?}");
    }
    // Only what was under way when the server was killed comes twice: nobody knows what became of it.
    let twice = seen.len() - distinct;
    println!("{} deliveries of {distinct} events", seen.len());
    assert!(twice <= KILLS * CONCURRENCY, "{twice} came again");
}
