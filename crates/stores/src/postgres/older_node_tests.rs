//! A node of an older version goes on while newer ones have migrated the schema: what it sends is in this file, as it sent it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use semel_conformance::fixture::{Ask, Hand, claim_holder, claim_key, outcome, token_of, write_of};
use semel_core::command::{Complete, Extend};
use semel_core::record::StateName;
use semel_core::store::Inserted;
use semel_core::write::Write;
use semel_core::{Record, RecordId, Store};
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::rows::{Draft, Id, literal, millis, record, stamps, version_numbers};
use super::schema::MIGRATIONS;
use super::sql::Sql;
use super::testing::{Schema, client, url};
use super::{Joined, Options, PostgresStore};

/// Version 2's batch of inserts without tags.
const INSERT: &str = "WITH clock AS MATERIALIZED (SELECT SCHEMA.now_ms() AS now, (SELECT fence FROM SCHEMA.floor) AS floor),
    done AS (
      INSERT INTO SCHEMA.records (id, fence, sequence, namespace, state, operation, key, lane, created, written, wake,
        settled, expires, names, head, sum, input)
      SELECT g.id, greatest(g.after, floor) + 1, 0, g.namespace, g.state, g.operation, g.key, g.lane, now, now,
        now + g.wake, CASE WHEN g.rests IS NULL THEN NULL ELSE now END, now + g.rests, g.names::bigint[], g.head,
        sha256(g.head), g.input
      FROM clock, unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        AS g (id, after, namespace, operation, key, lane, state, wake, rests, names, head, input, deadline, lock)
      WHERE now <= g.deadline AND pg_try_advisory_xact_lock_shared(g.lock)
      ON CONFLICT (id) DO NOTHING
      RETURNING id, fence, sequence, namespace, operation, state, created, written, wake, settled, expires, names
    ),
    moved AS (
      INSERT INTO SCHEMA.moves (namespace, operation, state, records)
      SELECT namespace, operation, state, count(*) FROM done GROUP BY namespace, operation, state
    )
    SELECT clock.now, false, NULL::uuid, SCHEMA.above_floor((SELECT min(fence) FROM done)), NULL::bigint, NULL::bigint,
      NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bytea, NULL::boolean, NULL::bytea FROM clock
    UNION ALL SELECT NULL::bigint, true, done.id, done.fence, done.sequence, done.created, done.written,
      done.wake, done.settled, done.expires, NULL::bytea, NULL::boolean, NULL::bytea FROM done
    UNION ALL SELECT NULL::bigint, false, r.id, r.fence, r.sequence, r.created, r.written, r.wake, r.settled,
      r.expires, r.head, r.sum = sha256(r.head), r.input FROM SCHEMA.records r
      WHERE (SELECT count(*) FROM done) < cardinality($1) AND r.id = ANY ($1) AND r.id NOT IN (SELECT done.id FROM done)";

const INSERT_TYPES: [Type; 14] = [
    Type::UUID_ARRAY,
    Type::INT8_ARRAY,
    Type::INT2_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT2_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
];

/// Version 2's batch of replacements.
const REPLACE: &str = "WITH clock AS MATERIALIZED (SELECT SCHEMA.now_ms() AS now, (SELECT fence FROM SCHEMA.floor) AS floor),
    done AS (
      UPDATE SCHEMA.records r SET
        fence = CASE WHEN g.raise THEN greatest(r.fence, floor) + 1 ELSE r.fence END,
        sequence = CASE WHEN g.raise THEN 0 ELSE r.sequence + 1 END,
        state = g.state, operation = g.operation, lane = g.lane, written = greatest(now, r.written),
        wake = CASE WHEN g.keep_wake THEN r.wake ELSE greatest(now, r.written) + g.wake END,
        settled = CASE WHEN g.rests IS NULL THEN NULL ELSE greatest(now, r.written) END,
        expires = greatest(now, r.written) + g.rests,
        head = g.head, sum = sha256(g.head), input = coalesce(r.input, g.input),
        was_state = r.state, was_operation = nullif(r.operation, g.operation), was_created = NULL, was_names = NULL
      FROM clock, unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        AS g (id, fence, sequence, raise, operation, lane, state, keep_wake, wake, rests, head, input, deadline, lock)
      WHERE r.id = g.id AND r.fence = g.fence AND r.sequence = g.sequence AND SCHEMA.now_ms() <= g.deadline
        AND r.sum = sha256(r.head) AND pg_try_advisory_xact_lock_shared(g.lock)
      RETURNING r.id, r.fence, r.sequence, r.namespace, r.operation, r.state, r.created, r.written, r.wake, r.settled,
        r.expires, r.was_state, r.was_operation
    ),
    moved AS (
      INSERT INTO SCHEMA.moves (namespace, operation, state, was_operation, was_state, records)
      SELECT namespace, operation, state, was_operation, was_state, count(*) FROM done
      WHERE was_state <> state OR was_operation IS NOT NULL
      GROUP BY namespace, operation, state, was_operation, was_state
    )
    SELECT clock.now, false, NULL::uuid, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
      NULL::bigint, NULL::bigint, NULL::bytea, NULL::boolean, NULL::bytea FROM clock
    UNION ALL SELECT NULL::bigint, true, done.id, done.fence, done.sequence, done.created, done.written,
      done.wake, done.settled, done.expires, NULL::bytea, NULL::boolean, NULL::bytea FROM done
    UNION ALL SELECT NULL::bigint, false, r.id, r.fence, r.sequence, r.created, r.written, r.wake, r.settled,
      r.expires, r.head, r.sum = sha256(r.head), r.input FROM SCHEMA.records r
      WHERE (SELECT count(*) FROM done) < cardinality($1) AND r.id = ANY ($1) AND r.id NOT IN (SELECT done.id FROM done)";

const REPLACE_TYPES: [Type; 14] = [
    Type::UUID_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::BOOL_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT2_ARRAY,
    Type::BOOL_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
];

/// A schema as version 2 had left it.
async fn schema_of_version_2(url: String) -> Schema {
    let schema = Schema::new(url).await;
    let name = &schema.name;
    schema.client.batch_execute(&format!("CREATE SCHEMA {name}")).await.unwrap();
    schema
        .run("CREATE TABLE SCHEMA.version (version int NOT NULL); INSERT INTO SCHEMA.version VALUES (2)")
        .await;
    for migration in &MIGRATIONS[..2] {
        schema.run(migration).await;
    }
    schema
}

async fn store(schema: &Schema) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::open(&Options::parse(&schema.url()).unwrap()).await.unwrap())
}

type Records = BTreeMap<RecordId, Arc<Record>>;

/// A session of a node of version 2.
struct Old {
    client: Client,
    sql: Sql,
    insert: tokio_postgres::Statement,
    replace: tokio_postgres::Statement,
}

impl Old {
    /// Its statements are prepared now, and said later.
    async fn connect(schema: &Schema) -> Self {
        let client = client(&schema.server).await;
        let of_schema = |text: &str| text.replace("SCHEMA", &schema.name);
        let insert = client.prepare_typed(&of_schema(INSERT), &INSERT_TYPES).await.unwrap();
        let replace = client.prepare_typed(&of_schema(REPLACE), &REPLACE_TYPES).await.unwrap();
        Self { client, sql: Sql::new(&schema.name), insert, replace }
    }

    /// What was made, and what was there in the place of the others.
    async fn insert(&self, writes: impl Iterator<Item = Write>) -> (Records, Records) {
        let mut drafts: Vec<_> = writes.map(|write| Draft::of(write).unwrap()).collect();
        drafts.sort_by_key(|draft| draft.id.0);
        let ids: Vec<_> = drafts.iter().map(|draft| draft.id).collect();
        let after: Vec<_> = drafts.iter().map(|draft| draft.after).collect();
        let namespaces: Vec<_> = drafts.iter().map(|draft| draft.namespace).collect();
        let keys: Vec<_> = drafts.iter().map(|draft| draft.key).collect();
        let names: Vec<_> = drafts.iter().map(|draft| literal(&draft.names)).collect();
        let common = Common::of(&self.sql, &drafts);
        let values: [&(dyn ToSql + Sync); 14] = [
            &ids,
            &after,
            &namespaces,
            &common.operations,
            &keys,
            &common.lanes,
            &common.states,
            &common.wakes,
            &common.rests,
            &names,
            &common.heads,
            &common.inputs,
            &common.deadlines,
            &common.locks,
        ];
        self.said(&self.insert, &values, &drafts).await
    }

    /// The same of replacements, each of the version that it was judged on.
    async fn replace(&self, writes: impl Iterator<Item = Write>) -> (Records, Records) {
        let mut drafts: Vec<_> = writes.map(|write| Draft::of(write).unwrap()).collect();
        drafts.sort_by_key(|draft| draft.id.0);
        let ids: Vec<_> = drafts.iter().map(|draft| draft.id).collect();
        let (fences, sequences): (Vec<_>, Vec<_>) =
            drafts.iter().map(|draft| version_numbers(draft.judged)).unzip();
        let raise: Vec<_> = drafts.iter().map(|draft| draft.raise).collect();
        let keep_wake: Vec<_> = drafts.iter().map(|draft| draft.keep_wake).collect();
        let common = Common::of(&self.sql, &drafts);
        let values: [&(dyn ToSql + Sync); 14] = [
            &ids,
            &fences,
            &sequences,
            &raise,
            &common.operations,
            &common.lanes,
            &common.states,
            &keep_wake,
            &common.wakes,
            &common.rests,
            &common.heads,
            &common.inputs,
            &common.deadlines,
            &common.locks,
        ];
        self.said(&self.replace, &values, &drafts).await
    }

    async fn said(
        &self,
        statement: &tokio_postgres::Statement,
        values: &[&(dyn ToSql + Sync)],
        drafts: &[Draft],
    ) -> (Records, Records) {
        let (mut made, mut there) = (Records::new(), Records::new());
        for row in self.client.query(statement, values).await.unwrap() {
            let Some(Id(id)) = row.get(2) else { continue };
            if row.get(1) {
                let draft = drafts.iter().find(|draft| draft.id.0 == id).unwrap();
                made.insert(id, draft.stamped(stamps(&row, 3).unwrap().unwrap()).unwrap());
            } else {
                there.insert(id, record(&row, 3).unwrap().unwrap());
            }
        }
        (made, there)
    }
}

/// What every write brought along, by column.
struct Common<'a> {
    operations: Vec<&'a str>,
    lanes: Vec<&'a str>,
    states: Vec<i16>,
    wakes: Vec<Option<i64>>,
    rests: Vec<Option<i64>>,
    heads: Vec<&'a [u8]>,
    inputs: Vec<Option<&'a [u8]>>,
    deadlines: Vec<i64>,
    locks: Vec<i64>,
}

impl<'a> Common<'a> {
    fn of(sql: &Sql, drafts: &'a [Draft]) -> Self {
        Self {
            operations: drafts.iter().map(|draft| draft.operation.as_str()).collect(),
            lanes: drafts.iter().map(|draft| draft.lane.as_str()).collect(),
            states: drafts.iter().map(|draft| draft.state).collect(),
            wakes: drafts.iter().map(|draft| draft.wake).collect(),
            rests: drafts.iter().map(|draft| draft.rests).collect(),
            heads: drafts.iter().map(|draft| draft.head.as_slice()).collect(),
            inputs: drafts.iter().map(|draft| draft.input.as_deref()).collect(),
            deadlines: drafts.iter().map(|draft| millis(draft.deadline)).collect(),
            locks: drafts.iter().map(|draft| sql.lock_of(draft.id.0)).collect(),
        }
    }
}

fn asks(names: std::ops::Range<u32>) -> Vec<Ask> {
    names.map(|number| Ask::key(&format!("key-{number}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_version_2_goes_on_beside_one_that_has_migrated_the_schema_l2_l6() {
    let Some(url) = url() else { return };
    let schema = schema_of_version_2(url).await;
    let old = Old::connect(&schema).await;
    // It has worked before there was any other.
    let lonely = old.client.query_one(&format!("SELECT version FROM {}.version", schema.name), &[]).await;
    assert_eq!(lonely.unwrap().get::<_, i32>(0), 2);

    let store = store(&schema).await;
    assert_eq!(schema.number("SELECT version::bigint FROM SCHEMA.version").await, 3);
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    let claims = |asks: &[Ask], token: u64| {
        asks.iter().map(|ask| write_of(&claim_key(ask, token), &*store, None)).collect::<Vec<_>>()
    };

    // What the old one inserts, the new one reads as the old one was told it is.
    let of_old = asks(0..20);
    let (running, there) = old.insert(claims(&of_old, 1).into_iter()).await;
    assert_eq!((running.len(), there.len()), (20, 0));
    for (id, record) in &running {
        assert_eq!(hand.stored(*id).await.as_ref(), Some(record));
    }

    // The new one completes half of it; the old one, which has not seen that, extends all of it, and hears of it.
    let (done_by_new, held_by_old) = of_old.split_at(10);
    for ask in done_by_new {
        hand.done(&Complete { holder: claim_holder(ask, 1), outcome: outcome("new") }).await;
    }
    let extends = of_old
        .iter()
        .map(|ask| write_of(&Extend { holder: claim_holder(ask, 1) }, &*store, running.get(&ask.id())));
    let (extended, there) = old.replace(extends.collect::<Vec<_>>().into_iter()).await;
    assert_eq!((extended.len(), there.len()), (10, 10));
    for ask in held_by_old {
        assert_eq!(hand.stored(ask.id()).await.as_ref(), extended.get(&ask.id()));
        assert!(extended[&ask.id()].version() > running[&ask.id()].version());
    }
    for ask in done_by_new {
        let stored = hand.stored(ask.id()).await;
        assert_eq!(stored.as_ref(), there.get(&ask.id()));
        assert_eq!(stored.unwrap().outcome(), Some(&outcome("new")));
    }

    // The other way round: what the new one has claimed is taken for the old one, which then has it completed.
    let of_new = asks(20..30);
    for write in claims(&of_new, 2) {
        assert!(matches!(store.insert(write).await.unwrap().value, Inserted::Inserted(_)));
    }
    let (made, there) = old.insert(claims(&of_new, 3).into_iter()).await;
    assert_eq!((made.len(), there.len()), (0, 10));
    let completes = of_new.iter().map(|ask| {
        let complete = Complete { holder: claim_holder(ask, 2), outcome: outcome("old") };
        write_of(&complete, &*store, there.get(&ask.id()))
    });
    let (done_by_old, _) = old.replace(completes.collect::<Vec<_>>().into_iter()).await;
    for ask in &of_new {
        let again = write_of(&claim_key(ask, 4), &*store, None);
        let Inserted::Occupied(shown) = store.insert(again).await.unwrap().value else { panic!("twice") };
        assert_eq!(Some(&shown), done_by_old.get(&ask.id()));
        assert_eq!(shown.outcome(), Some(&outcome("old")));
    }

    let counts = store.counts().await.unwrap();
    let records =
        |state| counts.iter().filter(|count| count.state == state).map(|count| count.records).sum::<u64>();
    assert_eq!((records(StateName::Completed), records(StateName::Running)), (20, 10));
}

/// It does not note that a claim joined a transaction, so batches do not look whose key such a one holds: who asks for
/// that key waits for it, and nobody else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_a_node_of_version_2_is_waited_for_by_who_asks_for_its_key_and_nobody_else() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    // Whoever waits does so in this time; the others are done long before.
    let patient = format!("{}&statement_timeout_ms=9500", schema.url());
    let new = Arc::new(PostgresStore::open(&Options::parse(&patient).unwrap()).await.unwrap());
    let old = store(&schema).await;
    // To version 2 there was nothing to note.
    old.shared.joins.store(true, Ordering::Release);
    let ask = Ask::key("held");
    let mut caller = client(&schema.server).await;
    let mut transaction = caller.transaction().await.unwrap();
    let work = async |_: &mut _, _: &_| Ok::<_, std::convert::Infallible>(outcome("ordered"));
    let joined = old.in_transaction(&mut transaction, ask.request(), token_of(1), work).await.unwrap();
    assert!(matches!(joined, Joined::Ran(_)));
    assert_eq!(schema.number("SELECT count(*) FROM SCHEMA.version WHERE joins").await, 0);

    let insert = |ask: &Ask| {
        let (store, write) = (Arc::clone(&new), write_of(&claim_key(ask, 2), &*new, None));
        async move { store.insert(write).await.unwrap().value }
    };
    let waits = tokio::spawn(insert(&ask));
    let mut mates = JoinSet::new();
    for mate in asks(0..50) {
        mates.spawn(insert(&mate));
    }
    for answer in mates.join_all().await {
        assert!(matches!(answer, Inserted::Inserted(_)));
    }
    assert!(!waits.is_finished(), "it waits for what becomes of the transaction");
    transaction.commit().await.unwrap();
    let Inserted::Occupied(shown) = waits.await.unwrap() else { panic!("twice") };
    assert_eq!(shown.outcome(), Some(&outcome("ordered")));
}
