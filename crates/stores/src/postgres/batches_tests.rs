//! What batches owe each of their commands.

use std::sync::Arc;
use std::time::Duration;

use semel_conformance::fixture::{Ask, Hand, claim_key, outcome, write_of};
use semel_core::command::{Complete, Extend};
use semel_core::error::StoreErrorKind;
use semel_core::store::{AsOf, Inserted, Replaced};
use semel_core::write::Write;
use semel_core::{Record, Store, StoreError, Timestamp};
use tokio::task::JoinSet;

use super::testing::{Schema, Stepped, client, url};
use super::{Options, PostgresStore};

async fn store(schema: &Schema) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::open(&Options::parse(&schema.url()).unwrap()).await.unwrap())
}

/// Gives all writes at once; their answers in the order of the writes.
async fn insert_all(
    store: &Arc<PostgresStore>,
    writes: impl IntoIterator<Item = Write>,
) -> Vec<Result<AsOf<Inserted>, StoreError>> {
    let mut tasks = Vec::new();
    for write in writes {
        let store = Arc::clone(store);
        tasks.push(tokio::spawn(async move { store.insert(write).await }));
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

fn inserted(answer: &Result<AsOf<Inserted>, StoreError>) -> &Arc<Record> {
    match &answer.as_ref().unwrap().value {
        Inserted::Inserted(record) => record,
        Inserted::Occupied(record) => panic!("occupied: {record:?}"),
    }
}

/// How many statements inserted records, and how many records: told by a trigger that tests put there.
async fn count_inserts(schema: &Schema) {
    schema
        .run(
            "CREATE TABLE SCHEMA.test_statements (records bigint NOT NULL);
             CREATE FUNCTION SCHEMA.test_note() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN INSERT INTO SCHEMA.test_statements SELECT count(*) FROM changed; RETURN NULL; END';
             CREATE TRIGGER test_inserts AFTER INSERT ON SCHEMA.records REFERENCING NEW TABLE AS changed
               FOR EACH STATEMENT EXECUTE FUNCTION SCHEMA.test_note();
             CREATE TRIGGER test_deletes AFTER DELETE ON SCHEMA.records REFERENCING OLD TABLE AS changed
               FOR EACH STATEMENT EXECUTE FUNCTION SCHEMA.test_note()",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_come_together_share_statements_and_each_has_its_own_answer() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let store = store(&schema).await;
    count_inserts(&schema).await;
    let asks: Vec<_> = (0..500).map(|number| Ask::key(&format!("key-{number}")).tag("n", "x")).collect();
    let writes = asks.iter().map(|ask| write_of(&claim_key(ask, 1), &*store, None));
    let answers = insert_all(&store, writes).await;
    for (ask, answer) in asks.iter().zip(&answers) {
        assert_eq!(inserted(answer).id(), ask.id());
    }
    let statements = schema.number("SELECT count(*) FROM SCHEMA.test_statements WHERE records > 0").await;
    assert!(statements < 100, "{statements} statements for 500 inserts");
    assert_eq!(schema.number("SELECT count(*) FROM SCHEMA.tags").await, 500);
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    assert_eq!(hand.stored(asks[77].id()).await.as_ref(), Some(inserted(&answers[77])));
    assert_eq!(store.counts().await.unwrap()[0].records, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_within_a_batch_are_shown_the_one_that_was_first() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let store = store(&schema).await;
    let ask = Ask::key("a");
    let writes = (0..200).map(|number| write_of(&claim_key(&ask, number), &*store, None));
    let answers = insert_all(&store, writes).await;
    let first: Vec<_> = answers
        .iter()
        .filter(|answer| matches!(answer.as_ref().unwrap().value, Inserted::Inserted(_)))
        .collect();
    assert_eq!(first.len(), 1);
    let there = inserted(first[0]);
    for answer in &answers {
        let (Inserted::Inserted(shown) | Inserted::Occupied(shown)) = &answer.as_ref().unwrap().value;
        assert_eq!(shown, there);
    }
}

/// One value that the database refuses, in the middle of many that it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_command_does_not_fail_its_batch_mates() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let store = store(&schema).await;
    schema.run("ALTER TABLE SCHEMA.records ADD CHECK (operation <> 'refused')").await;
    let ask = |number: u64| {
        let ask = Ask::key(&format!("key-{number}"));
        if number % 50 == 7 { ask.operation("refused") } else { ask }
    };
    let writes = (0..200).map(|number| write_of(&claim_key(&ask(number), 1), &*store, None));
    let answers = insert_all(&store, writes).await;
    for (number, answer) in (0..).zip(&answers) {
        if number % 50 == 7 {
            let kind = answer.as_ref().unwrap_err().kind();
            assert_eq!(kind, StoreErrorKind::NotApplied { retry_helps: false }, "{number}");
        } else {
            assert_eq!(inserted(answer).id(), ask(number).id());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_in_a_batch_is_of_its_own_command() {
    let Some(url) = url() else { return };
    let stepped = Stepped::new(url).await;
    let store = stepped.store.clone().unwrap();
    let now = store.load(Ask::key("a").id()).await.unwrap().as_of;
    let before = Timestamp::from_millis(now.as_millis() - 1);
    let writes = (0..100).map(|number| {
        let ask = Ask::key(&format!("key-{number}"));
        let write = write_of(&claim_key(&ask, 1), &*store, None);
        write.not_after(if number % 10 == 0 { before } else { now })
    });
    let answers = insert_all(&store, writes).await;
    for (number, answer) in answers.iter().enumerate() {
        match answer {
            Ok(_) => assert_ne!(number % 10, 0),
            Err(error) => {
                assert_eq!(number % 10, 0, "{error}");
                assert_eq!(error.kind(), StoreErrorKind::NotApplied { retry_helps: true });
            }
        }
    }
    assert_eq!(stepped.schema.number("SELECT count(*) FROM SCHEMA.records").await, 90);
}

/// Who holds a row for long is waited for by the command that needs it, not by its mates.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_one_command_waits_for_does_not_hold_up_its_batch_mates() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let store = store(&schema).await;
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    let held = hand.claim(&Ask::key("held")).await;
    let other = client(&schema.server).await;
    let (name, id) = (&schema.name, held.record().id());
    other
        .batch_execute(&format!("BEGIN; SELECT FROM {name}.records WHERE id = '{id}' FOR UPDATE"))
        .await
        .unwrap();
    let extend = |claim: &semel_core::command::Claim| {
        let write = write_of(&Extend { holder: claim.holder() }, &*store, Some(claim.record()));
        let (store, version) = (Arc::clone(&store), claim.record().version());
        async move { store.replace(write, version).await.unwrap().value }
    };
    let waits = tokio::spawn(extend(&held));
    let mut mates = JoinSet::new();
    for number in 0..50 {
        let claim = hand.claim(&Ask::key(&format!("key-{number}"))).await;
        mates.spawn(extend(&claim));
    }
    for answer in mates.join_all().await {
        assert!(matches!(answer, Replaced::Replaced(_)));
    }
    assert!(!waits.is_finished(), "it still waits");
    other.batch_execute("ROLLBACK").await.unwrap();
    assert!(matches!(waits.await.unwrap(), Replaced::Replaced(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_replacements_in_a_batch_the_second_is_shown_the_first() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let store = store(&schema).await;
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    let ask = Ask::key("a");
    let claim = hand.claim(&ask).await;
    let version = claim.record().version();
    let mut tasks = JoinSet::new();
    for number in 0..60 {
        let store = Arc::clone(&store);
        let complete = Complete { holder: claim.holder(), outcome: outcome(format!("{number}")) };
        let write = write_of(&complete, &*store, Some(claim.record()));
        tasks.spawn(async move { store.replace(write, version).await.unwrap().value });
    }
    let answers = tasks.join_all().await;
    let stored = hand.stored(ask.id()).await.unwrap();
    let replaced = answers.iter().filter(|answer| matches!(answer, Replaced::Replaced(_))).count();
    assert_eq!(replaced, 1);
    for answer in answers {
        let (Replaced::Replaced(shown) | Replaced::Conflict(Some(shown))) = answer else { panic!("gone") };
        assert_eq!(shown, stored);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_takes_nobody_along_l11() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let store = store(&schema).await;
    let mut tasks = Vec::new();
    for number in 0..300 {
        let store = Arc::clone(&store);
        let write = write_of(&claim_key(&Ask::key(&format!("key-{number}")), 1), &*store, None);
        tasks.push(tokio::spawn(async move { store.insert(write).await }));
    }
    for task in tasks.iter().step_by(3) {
        task.abort();
    }
    for (number, task) in tasks.into_iter().enumerate() {
        match task.await {
            Ok(answer) => drop(inserted(&answer)),
            Err(left) => assert!(left.is_cancelled() && number % 3 == 0),
        }
    }
    let after = write_of(&claim_key(&Ask::key("after"), 1), &*store, None);
    inserted(&store.insert(after).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_lost_leaves_every_command_of_its_batch_in_doubt() {
    let Some(url) = url() else { return };
    let schema = Schema::migrated(url).await;
    let store = store(&schema).await;
    let ask = Ask::key("a");
    // An insert by somebody who has not committed yet: who inserts the same waits for them.
    let other = client(&schema.server).await;
    let name = &schema.name;
    let earlier = format!(
        "BEGIN; INSERT INTO {name}.records (id, fence, sequence, namespace, state, operation, key, lane, created,
           written, names, head, sum)
         VALUES ('{}', 50, 0, 0, 1, 'charge', 0, '', 0, 0, '{{}}', '', '')",
        ask.id()
    );
    other.batch_execute(&earlier).await.unwrap();
    let waits = {
        let write = write_of(&claim_key(&ask, 1), &*store, None);
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.insert(write).await })
    };
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE application_name = 'SCHEMA' AND wait_event_type = 'Lock'";
    while schema.number(waiting).await == 0 {
        tokio::task::yield_now().await;
    }
    schema.cut().await;
    let error = waits.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InDoubt, "{error}");
    other.batch_execute("ROLLBACK").await.unwrap();
    // The ledger settles it, and the store goes on.
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    assert_eq!(hand.claim(&ask).await.attempt(), 1);
}

/// A sweep of many is many short transactions, so that nobody waits long and vacuum gets by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unbounded_delete_of_expired_rows_stalls_live_traffic() {
    let Some(url) = url() else { return };
    let stepped = Stepped::new(url).await;
    let store = stepped.store.clone().unwrap();
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    let mut done = JoinSet::new();
    for number in 0..700 {
        let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
        done.spawn(
            async move { hand.complete(&Ask::key(&format!("key-{number}")).retention_ms(1_000)).await },
        );
    }
    done.join_all().await;
    let alive = hand.claim(&Ask::key("alive")).await;
    stepped.pass_two_seconds().await;
    count_inserts(&stepped.schema).await;
    assert_eq!(store.sweep(650).await.unwrap(), 650, "no more than it was told");
    let most = "SELECT max(records) FROM SCHEMA.test_statements";
    let most = stepped.schema.number(most).await;
    assert_eq!(most, i64::try_from(crate::limits::POSTGRES_SWEEP_STEP).unwrap());
    assert_eq!(store.sweep(650).await.unwrap(), 50);
    assert_eq!(hand.stored(alive.record().id()).await.as_ref(), Some(alive.record()));
}

impl Stepped {
    async fn pass_two_seconds(&self) {
        let length = Duration::from_secs(2);
        self.schema.pass(length).await;
        self.clock.advance(length);
    }
}
