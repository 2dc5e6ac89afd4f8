//! What is PostgreSQL's own: migrations, locks, lost connections, clocks, several nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use semel_conformance::fixture::{Ask, Hand, claim_holder, claim_key, write_of};
use semel_core::command::{Extend, Release};
use semel_core::error::StoreErrorKind;
use semel_core::store::{Inserted, Replaced};
use semel_core::{Fence, Store, Timestamp};
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::Client;

use super::testing::{Schema, Stepped, client, url};
use super::{Options, PostgresStore};
use crate::clock::SteppedClock;

/// Longer than any test may take: who is not woken hangs, and fails.
const FOR_EVER: Duration = Duration::from_secs(100_000);

async fn store(options: &Options) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::open(options).await.unwrap())
}

fn options(schema: &Schema) -> Options {
    Options::parse(&schema.url()).unwrap()
}

/// Waits until a statement of the store waits for a lock.
async fn until_blocked(schema: &Schema) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE application_name = 'SCHEMA' AND wait_event_type = 'Lock'";
    while schema.number(waiting).await == 0 {
        tokio::task::yield_now().await;
    }
}

/// Somebody else holds the record.
async fn lock(schema: &Schema, ask: &Ask) -> Client {
    let other = client(&schema.server).await;
    let (name, id) = (&schema.name, ask.id());
    let lock = format!("BEGIN; SELECT FROM {name}.records WHERE id = '{id}' FOR UPDATE");
    other.batch_execute(&lock).await.unwrap();
    other
}

fn extend(store: &Arc<PostgresStore>, ask: &Ask, deadline: Timestamp) -> JoinHandle<semel_core::StoreError> {
    let (store, ask) = (Arc::clone(store), ask.clone());
    tokio::spawn(async move {
        let there = store.load(ask.id()).await.unwrap().value.unwrap();
        let extend = Extend { holder: claim_holder(&ask, 1) };
        let write = write_of(&extend, &*store, Some(&there)).not_after(deadline);
        store.replace(write, there.version()).await.expect_err("it did not happen")
    })
}

async fn inserted(store: &PostgresStore, ask: &Ask) -> Arc<semel_core::Record> {
    match store.insert(write_of(&claim_key(ask, 1), store, None)).await.unwrap().value {
        Inserted::Inserted(record) => record,
        Inserted::Occupied(record) => panic!("{record:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_run_twice_by_two_nodes_starting_together_are_run_once() {
    let Some(url) = url() else { return };
    let schema = Schema::new(url).await;
    let mut nodes = JoinSet::new();
    for _ in 0..8 {
        let options = options(&schema);
        nodes.spawn(async move { PostgresStore::open(&options).await.unwrap() });
    }
    let nodes = nodes.join_all().await;
    assert_eq!(
        schema.number("SELECT sum(version) FROM SCHEMA.version").await,
        i64::from(super::schema::VERSION)
    );
    assert_eq!(schema.number("SELECT count(*) FROM SCHEMA.floor").await, 1);
    let ask = Ask::key("a");
    let there = inserted(&nodes[0], &ask).await;
    assert_eq!(nodes[7].load(ask.id()).await.unwrap().value, Some(there));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_of_a_newer_program_is_left_alone() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    schema.run("UPDATE SCHEMA.version SET version = 99").await;
    let error = PostgresStore::open(&options(&schema)).await.unwrap_err().to_string();
    assert!(error.contains("version 99") && error.contains("newer"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_create_nothing_opens_a_schema_that_is_up_to_date() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let (name, role) = (&schema.name, format!("{}_role", schema.name));
    let grants = format!(
        "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {name} TO {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {name} TO {role};
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA {name} TO {role}"
    );
    schema.client.batch_execute(&grants).await.unwrap();
    let store = store(&Options::parse(&schema.url().replace("semel@", &format!("{role}@"))).unwrap()).await;
    inserted(&store, &Ask::key("a")).await;
    store.close().await.unwrap();
    schema.client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_lost_after_a_write_was_sent_leaves_it_in_doubt() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let store = store(&options(&schema)).await;
    let ask = Ask::key("a");
    let there = inserted(&store, &ask).await;
    let other = lock(&schema, &ask).await;
    let waits = extend(&store, &ask, Timestamp::MAX);
    until_blocked(&schema).await;
    schema.cut().await;
    assert_eq!(waits.await.unwrap().kind(), StoreErrorKind::InDoubt);
    other.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(store.load(ask.id()).await.unwrap().value, Some(there), "and the store goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_the_server_cancels_did_not_happen_and_may_be_tried_again() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let options = Options::parse(&format!("{}&statement_timeout_ms=300", schema.url())).unwrap();
    let store = store(&options).await;
    let ask = Ask::key("a");
    let there = inserted(&store, &ask).await;
    let other = lock(&schema, &ask).await;
    let error = extend(&store, &ask, Timestamp::MAX).await.unwrap();
    assert_eq!(error.kind(), StoreErrorKind::NotApplied { retry_helps: true }, "{error}");
    other.batch_execute("ROLLBACK").await.unwrap();
    let extend = Extend { holder: claim_holder(&ask, 1) };
    let write = write_of(&extend, &*store, Some(&there));
    assert!(matches!(store.replace(write, there.version()).await.unwrap().value, Replaced::Replaced(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passes_while_the_row_is_locked_is_kept() {
    let Some(url) = url() else { return };
    let stepped = Stepped::new(url).await;
    let store = stepped.store.clone().unwrap();
    let ask = Ask::key("a");
    let there = inserted(&store, &ask).await;
    let other = lock(&stepped.schema, &ask).await;
    let waits = extend(&store, &ask, store.time().plus(Duration::from_secs(10)));
    until_blocked(&stepped.schema).await;
    stepped.schema.pass(Duration::from_secs(11)).await;
    // Somebody has to have written for the comparison to be made again.
    let name = &stepped.schema.name;
    other.batch_execute(&format!("UPDATE {name}.records SET key = key; COMMIT")).await.unwrap();
    let error = waits.await.unwrap();
    assert_eq!(error.kind(), StoreErrorKind::NotApplied { retry_helps: true }, "{error}");
    assert_eq!(store.load(ask.id()).await.unwrap().value, Some(there));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_a_fence_is_above_a_removal_that_the_insert_could_not_see_when_it_began() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let store = store(&options(&schema)).await;
    let (ask, name) = (Ask::key("a"), &schema.name);
    // An earlier life of the key, by somebody who has not committed yet: the insert waits for them.
    let other = client(&schema.server).await;
    let earlier = format!(
        "BEGIN; INSERT INTO {name}.records (id, fence, sequence, namespace, state, operation, key, lane, created,
           written, names, head, sum)
         VALUES ('{}', 50, 0, 0, 1, 'charge', 0, '', 0, 0, '{{}}', '', '')",
        ask.id()
    );
    other.batch_execute(&earlier).await.unwrap();
    let inserts = {
        let (store, ask) = (Arc::clone(&store), ask.clone());
        tokio::spawn(async move { inserted(&store, &ask).await })
    };
    until_blocked(&schema).await;
    let removed = format!("DELETE FROM {name}.records; UPDATE {name}.floor SET fence = 50; COMMIT");
    other.batch_execute(&removed).await.unwrap();
    assert_eq!(inserts.await.unwrap().fence(), Fence(51));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_and_times_are_the_databases_whatever_this_nodes_clock_says() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let in_1970 = SteppedClock::at(Timestamp::ZERO);
    let store = store(&options(&schema).clock(Arc::new(in_1970))).await;
    let now = "SELECT SCHEMA.now_ms()";
    let before = schema.number(now).await.unsigned_abs();
    let times = *inserted(&store, &Ask::key("a").lease_ms(5_000)).await.times();
    let after = schema.number(now).await.unsigned_abs();
    assert!((before..=after).contains(&times.written.as_millis()), "{before} {times:?} {after}");
    assert_eq!(times.wake, Some(times.written.plus(Duration::from_millis(5_000))));
    assert_eq!(times.created, times.written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rows_times_never_go_back_though_the_databases_clock_does() {
    let Some(url) = url() else { return };
    let stepped = Stepped::new(url).await;
    let store = stepped.store.clone().unwrap();
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    let claim = hand.claim(&Ask::key("a")).await;
    stepped.schema.run("UPDATE SCHEMA.test_clock SET ms = ms - 600000").await;
    let extended = hand.done(&Extend { holder: claim.holder() }).await;
    assert_eq!(extended.times().written, claim.record().times().written);
    let loaded = store.load(claim.record().id()).await.unwrap();
    assert!(loaded.as_of >= extended.times().written);
}

/// Two nodes over one schema; `look` is how often each looks for what the other did.
async fn nodes(schema: &Schema, look: Duration, listens: bool) -> [Arc<PostgresStore>; 2] {
    let mut options = options(schema).poll(look);
    if listens {
        options = options.listen_url(&schema.server).unwrap();
    }
    [store(&options).await, store(&options).await]
}

async fn waiters_hear_of_other_nodes(schema: &Schema, [here, there]: [Arc<PostgresStore>; 2]) {
    let hand = Hand::on(Arc::clone(&there) as Arc<dyn Store>);
    let claim = hand.claim(&Ask::key("a").lease_ms(86_000_000)).await;
    let mut seen = claim.record().version();
    for round in 0..10 {
        let (waiter, id) = (Arc::clone(&here), claim.record().id());
        let waits = tokio::spawn(async move { waiter.changed(id, seen, FOR_EVER).await.unwrap().value });
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        let changed = hand.done(&Extend { holder: claim.holder() }).await;
        assert_eq!(waits.await.unwrap(), Some(Arc::clone(&changed)));
        seen = changed.version();
        here.next_due().await.unwrap();
        let waiter = Arc::clone(&here);
        let waits = tokio::spawn(async move { waiter.due_changed(FOR_EVER).await.unwrap() });
        tokio::task::yield_now().await;
        hand.accept(&Ask::key(&format!("key-{round}")).lane(&format!("lane-{round}"))).await;
        waits.await.unwrap();
    }
    assert_eq!(schema.number("SELECT count(*) FROM SCHEMA.records").await, 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_find_what_other_nodes_did_by_looking() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let nodes = nodes(&schema, Duration::from_millis(5), false).await;
    waiters_hear_of_other_nodes(&schema, nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_are_notified_of_what_other_nodes_did() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let nodes = nodes(&schema, FOR_EVER, true).await;
    waiters_hear_of_other_nodes(&schema, nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_nothing_is_left_in_a_session() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let options = Options::parse(&format!("{}&pgbouncer=true", schema.url())).unwrap();
    let store = store(&options).await;
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    let claim = hand.claim(&Ask::key("a").tag("order_id", "o")).await;
    let released = hand.done(&Release { holder: claim.holder(), error: "refused".into() }).await;
    assert!(store.remove(released.id(), released.version()).await.unwrap());
    assert_eq!(store.counts().await.unwrap(), []);
    let statements = super::sql::Sql::new(&schema.name);
    let prepared = "SELECT count(*) FROM pg_prepared_statements";
    let asked = super::pool::Statement { text: prepared.to_owned(), types: Vec::new() };
    let database = super::pool::Database::new(&options, super::tls::Tls::none()).unwrap();
    database.rows(&statements.ready, &[]).await.unwrap();
    assert_eq!(database.rows(&asked, &[]).await.unwrap()[0].get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_does_not_write_the_input_again() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let store = store(&options(&schema)).await;
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    let mut noise: u32 = 1;
    let noise = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.to_le_bytes()[3]
    });
    let body = Bytes::from(noise.take(1 << 20).collect::<Vec<_>>());
    let claim = hand.claim(&Ask::key("a").body(body.clone())).await;
    let apart = "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'SCHEMA.records'::regclass";
    let before = schema.number(apart).await;
    assert!(before > 1 << 20, "it is kept apart: {before}");
    for _ in 0..5 {
        hand.done(&Extend { holder: claim.holder() }).await;
    }
    assert_eq!(schema.number(apart).await, before);
    let stored = hand.stored(claim.record().id()).await.unwrap();
    assert_eq!(stored.request().input().unwrap().body(), &body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_are_folded_into_the_counts_and_nothing_is_counted_twice() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let store = store(&options(&schema)).await;
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    for number in 0..30 {
        hand.complete(&Ask::key(&format!("key-{number}"))).await;
    }
    let before = store.counts().await.unwrap();
    assert_eq!(before.len(), 1);
    assert_eq!(before[0].records, 30);
    let mut sweeps = JoinSet::new();
    for _ in 0..4 {
        let store = Arc::clone(&store);
        sweeps.spawn(async move { store.sweep(10).await.unwrap() });
    }
    assert_eq!(sweeps.join_all().await, [0; 4]);
    store.sweep(1).await.unwrap();
    assert_eq!(schema.number("SELECT count(*) FROM SCHEMA.moves").await, 0);
    assert_eq!(store.counts().await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_takes_no_writes_is_not_ready_and_refuses_them() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let read_only = schema.url().replace("options=", "options=-c%20default_transaction_read_only%3Don%20");
    let error = PostgresStore::open(&Options::parse(&read_only).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("takes no writes"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_commit_does_not_wait_for_does_not_survive() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    assert!(!store(&options(&schema)).await.survives_failover(), "the tests do not wait for syncs");
    let synced = format!("{}?schema={}", schema.server, schema.name);
    let store = store(&Options::parse(&synced).unwrap()).await;
    assert!(store.survives_failover(), "one server, and it syncs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_no_absence() {
    if url().is_none() {
        return;
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = Options::parse(&format!("postgres://semel@127.0.0.1:{nobody}/postgres")).unwrap();
    let error = PostgresStore::open(&options).await.unwrap_err().to_string();
    assert!(error.contains("cannot connect to PostgreSQL"), "{error}");
}

/// Whatever the tables hold when a session plans its statements, and nothing is known of them yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_page_or_a_claim_that_scans_the_whole_table() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let options = options(&schema);
    let (client, connection) = options.server.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client.batch_execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
    let sql = super::sql::Sql::new(&schema.name);
    let statements = [
        &sql.insert,
        &sql.insert_audited,
        &sql.replace,
        &sql.replace_audited,
        &sql.insert_many,
        &sql.insert_many_tagged,
        &sql.replace_many,
        &sql.load_many,
        &sql.remove,
        &sql.load,
        &sql.take_due,
        &sql.lanes,
        &sql.oldest_pending,
        &sql.sweep,
        &sql.search,
        &sql.search_key,
        &sql.search_tag,
        &sql.search_kinds,
        &sql.append_audit,
        &sql.audit,
        &sql.audit_term,
        &sql.forget_audit,
    ];
    for (number, statement) in statements.into_iter().enumerate() {
        let types: Vec<_> = statement.types.iter().map(tokio_postgres::types::Type::name).collect();
        let list = |items: &[&str]| {
            if items.is_empty() { String::new() } else { format!("({})", items.join(", ")) }
        };
        let prepare = format!("PREPARE s{number}{} AS {}", list(&types), statement.text);
        client.batch_execute(&prepare).await.unwrap();
        let explain = format!("EXPLAIN EXECUTE s{number}{}", list(&vec!["NULL"; types.len()]));
        for message in client.simple_query(&explain).await.unwrap() {
            let tokio_postgres::SimpleQueryMessage::Row(row) = message else { continue };
            let line = row.get(0).unwrap();
            let scans = ["records", "tags", "audit ", "audit_terms"];
            let scans = scans.iter().any(|table| line.contains(&format!("Seq Scan on {table}")));
            assert!(!scans, "{line}\n{}", statement.text);
        }
    }
}

/// The connection that hears is lost, and with it what is said meanwhile; the write that nobody heard of is found when the
/// next connection listens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_whose_connection_is_killed_misses_nothing() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let [here, there] = nodes(&schema, FOR_EVER, true).await;
    let hand = Hand::on(Arc::clone(&there) as Arc<dyn Store>);
    let claim = hand.claim(&Ask::key("a").lease_ms(86_000_000)).await;
    let mut seen = claim.record().version();
    for _ in 0..3 {
        let (waiter, id) = (Arc::clone(&here), claim.record().id());
        let waits = tokio::spawn(async move { waiter.changed(id, seen, FOR_EVER).await.unwrap().value });
        let listening = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE query = 'LISTEN SCHEMA_changes'";
        while schema.number(listening).await == 0 {
            tokio::task::yield_now().await;
        }
        let changed = hand.done(&Extend { holder: claim.holder() }).await;
        assert_eq!(waits.await.unwrap(), Some(Arc::clone(&changed)));
        seen = changed.version();
    }
}

/// Transactions that notify are committed one after the other, so what writes does not notify.
#[test]
fn a_claim_that_notifies_within_its_transaction_waits_for_every_other() {
    let sql = super::sql::Sql::new("semel");
    for statement in [
        &sql.insert,
        &sql.insert_audited,
        &sql.insert_joined,
        &sql.insert_many,
        &sql.insert_many_tagged,
        &sql.replace,
        &sql.replace_audited,
        &sql.replace_joined,
        &sql.replace_many,
        &sql.remove,
        &sql.sweep,
    ] {
        assert!(!statement.text.contains("notify"), "{}", statement.text);
    }
    for migration in super::schema::MIGRATIONS {
        assert!(!migration.contains("notify"));
    }
    assert!(sql.notify.text.contains("pg_notify"));
}
