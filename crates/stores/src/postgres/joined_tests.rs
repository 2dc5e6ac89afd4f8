//! Claims in the caller's own transaction: all of it or nothing, over both drivers.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use semel_conformance::fixture::{Ask, Hand, claim_key, outcome, token_of, write_of};
use semel_core::command::Complete;
use semel_core::store::Inserted;
use semel_core::{Outcome, Store};
use sqlx::Connection;
use tokio_postgres::{Client, IsolationLevel};

use super::testing::{Schema, client, url};
use super::{Cells, JoinError, Joined, Options, PostgresStore, Transaction, Value};

async fn store(schema: &Schema) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::open(&Options::parse(&schema.url()).unwrap()).await.unwrap())
}

/// A schema with a table of the business.
async fn schema(url: String) -> Schema {
    let schema = Schema::migrated(url).await;
    schema.run("CREATE TABLE SCHEMA.orders (sku text NOT NULL)").await;
    schema
}

async fn orders(schema: &Schema) -> i64 {
    schema.number("SELECT count(*) FROM SCHEMA.orders").await
}

/// The work of the tests: two rows, and an outcome.
async fn order<T: Transaction>(schema: &str, transaction: &mut T) -> Result<Outcome, T::Error> {
    for sku in ["A-1", "B-2"] {
        transaction.rows(&format!("INSERT INTO {schema}.orders VALUES ('{sku}')"), &[]).await?;
    }
    Ok(outcome("ordered"))
}

type Answer<T> = Result<Joined, JoinError<<T as Transaction>::Error, <T as Transaction>::Error>>;

async fn join<T: Transaction>(
    store: &PostgresStore,
    schema: &str,
    transaction: &mut T,
    ask: &Ask,
    number: u64,
) -> Answer<T> {
    let work = async |transaction: &mut T, _: &_| order(schema, transaction).await;
    store.in_transaction(transaction, ask.request(), token_of(number), work).await
}

async fn sqlx_connection(server: &str) -> sqlx::PgConnection {
    sqlx::PgConnection::connect(&format!("{server}?sslmode=disable")).await.unwrap()
}

/// Waits until a session of the tests' own waits for a lock.
async fn until_blocked(schema: &Schema, by: &Client) {
    let pid: i32 = by.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let blocked = format!("SELECT count(*) FROM pg_stat_activity WHERE {pid} = ANY (pg_blocking_pids(pid))");
    while schema.number(&blocked).await == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_rows_and_outcome_are_committed_together_and_the_next_one_is_given_the_outcome() {
    let Some(url) = url() else { return };
    let schema = schema(url).await;
    let store = store(&schema).await;
    let (ask, mut client) = (Ask::key("a"), client(&schema.server).await);
    let mut transaction = client.transaction().await.unwrap();
    let first = join(&store, &schema.name, &mut transaction, &ask, 1).await.unwrap();
    assert!(matches!(first, Joined::Ran(_)));
    assert_eq!(orders(&schema).await, 0, "nobody sees it yet");
    transaction.commit().await.unwrap();
    assert_eq!(orders(&schema).await, 2);
    let mut other = sqlx_connection(&schema.server).await;
    let mut transaction = other.begin().await.unwrap();
    let second = join(&store, &schema.name, &mut transaction, &ask, 2).await.unwrap();
    transaction.commit().await.unwrap();
    let Joined::Replay(record) = &second else { panic!("{second:?}") };
    assert_eq!(second.outcome(), first.outcome());
    assert_eq!(orders(&schema).await, 2);
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    assert_eq!(hand.stored(ask.id()).await.as_ref(), Some(record));
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.len(), counts[0].records), (1, 1), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rolled_back_never_was_and_the_next_one_runs() {
    let Some(url) = url() else { return };
    let schema = schema(url).await;
    let store = store(&schema).await;
    let ask = Ask::key("a");
    let mut connection = sqlx_connection(&schema.server).await;
    let mut transaction = connection.begin().await.unwrap();
    let ran = join(&store, &schema.name, &mut transaction, &ask, 1).await.unwrap();
    assert!(matches!(ran, Joined::Ran(_)));
    transaction.rollback().await.unwrap();
    assert_eq!(orders(&schema).await, 0);
    assert_eq!(store.load(ask.id()).await.unwrap().value, None);
    let mut transaction = connection.begin().await.unwrap();
    let ran = join(&store, &schema.name, &mut transaction, &ask, 2).await.unwrap();
    assert!(matches!(ran, Joined::Ran(_)));
    transaction.commit().await.unwrap();
    assert_eq!(orders(&schema).await, 2);
}

/// The caller forgets the error, or drops the future by a time-out, and commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_work_has_not_ended_cannot_be_committed() {
    let Some(url) = url() else { return };
    let schema = schema(url).await;
    let store = store(&schema).await;
    let (ask, mut client) = (Ask::key("a"), client(&schema.server).await);
    for leaves in [false, true] {
        let mut transaction = client.transaction().await.unwrap();
        {
            let (name, leave) = (&schema.name, tokio::sync::Notify::new());
            let work = async |transaction: &mut tokio_postgres::Transaction<'_>, _: &_| {
                drop(order(name, transaction).await);
                leave.notify_one();
                if leaves {
                    std::future::pending::<()>().await;
                }
                Err("the card was declined")
            };
            let joining = store.in_transaction(&mut transaction, ask.request(), token_of(1), work);
            tokio::select! {
                biased;
                ended = joining => assert!(matches!(ended, Err(JoinError::Work("the card was declined")))),
                () = leave.notified(), if leaves => {}
            }
        }
        let refused = transaction.commit().await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "2D000", "{refused}");
        assert_eq!(orders(&schema).await, 0);
        assert_eq!(store.load(ask.id()).await.unwrap().value, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_within_a_savepoint_takes_the_claim_with_it_and_leaves_the_rest() {
    let Some(url) = url() else { return };
    let schema = schema(url).await;
    let store = store(&schema).await;
    let (ask, mut client) = (Ask::key("a"), client(&schema.server).await);
    let mut outer = client.transaction().await.unwrap();
    let own = format!("INSERT INTO {}.orders VALUES ('the caller''s own')", schema.name);
    outer.batch_execute(&own).await.unwrap();
    let mut nested = outer.transaction().await.unwrap();
    let name = &schema.name;
    let work = async |transaction: &mut tokio_postgres::Transaction<'_>, _: &_| {
        drop(order(name, transaction).await);
        transaction.batch_execute("SELECT 1 / 0").await.map(|()| outcome("never"))
    };
    let failed = store.in_transaction(&mut nested, ask.request(), token_of(1), work).await;
    assert!(matches!(failed, Err(JoinError::Work(_))), "{failed:?}");
    nested.rollback().await.unwrap();
    outer.commit().await.unwrap();
    assert_eq!(orders(&schema).await, 1);
    assert_eq!(store.load(ask.id()).await.unwrap().value, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_concurrent_duplicate_waits_and_is_given_the_outcome_or_the_claim() {
    let Some(url) = url() else { return };
    let schema = schema(url).await;
    let store = store(&schema).await;
    for commits in [true, false] {
        let (ask, mut client) = (Ask::key(&format!("key-{commits}")), client(&schema.server).await);
        let mut first = client.transaction().await.unwrap();
        let ran = join(&store, &schema.name, &mut first, &ask, 1).await.unwrap();
        let second = {
            let (store, name, ask) = (Arc::clone(&store), schema.name.clone(), ask.clone());
            let mut connection = sqlx_connection(&schema.server).await;
            tokio::spawn(async move {
                let mut transaction = connection.begin().await.unwrap();
                let joined = join(&store, &name, &mut transaction, &ask, 2).await.unwrap();
                transaction.commit().await.unwrap();
                joined
            })
        };
        until_blocked(&schema, first.client()).await;
        if commits {
            first.commit().await.unwrap();
            let second = second.await.unwrap();
            assert!(matches!(&second, Joined::Replay(_)), "{second:?}");
            assert_eq!(second.outcome(), ran.outcome());
        } else {
            first.rollback().await.unwrap();
            assert!(matches!(second.await.unwrap(), Joined::Ran(_)));
        }
    }
    assert_eq!(orders(&schema).await, 4, "two keys, each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_stricter_isolation_a_duplicate_begins_again_and_finds_the_outcome() {
    let Some(url) = url() else { return };
    let schema = schema(url).await;
    let store = store(&schema).await;
    for isolation in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let ask = Ask::key(&format!("key-{isolation:?}"));
        let (mut first, mut second) = (client(&schema.server).await, client(&schema.server).await);
        let mut late = second.build_transaction().isolation_level(isolation).start().await.unwrap();
        late.batch_execute("SELECT 1").await.unwrap();
        let mut transaction = first.build_transaction().isolation_level(isolation).start().await.unwrap();
        let ran = join(&store, &schema.name, &mut transaction, &ask, 1).await.unwrap();
        transaction.commit().await.unwrap();
        let error = join(&store, &schema.name, &mut late, &ask, 2).await.unwrap_err();
        assert!(error.begin_again(), "{error}");
        drop(late);
        let mut again = second.build_transaction().isolation_level(isolation).start().await.unwrap();
        let replay = join(&store, &schema.name, &mut again, &ask, 3).await.unwrap();
        assert!(matches!(&replay, Joined::Replay(_)), "{replay:?}");
        assert_eq!(replay.outcome(), ran.outcome());
    }
}

/// The removal is later than the snapshot, which therefore shows neither it nor the floor that it has raised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_a_fence_is_above_a_removal_that_an_old_snapshot_does_not_show() {
    let Some(url) = url() else { return };
    let schema = schema(url).await;
    let store = store(&schema).await;
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    let ask = Ask::key("a");
    let mut client = client(&schema.server).await;
    let strict = IsolationLevel::RepeatableRead;
    let mut late = client.build_transaction().isolation_level(strict).start().await.unwrap();
    late.batch_execute("SELECT 1").await.unwrap();
    let done = hand.complete(&ask).await;
    assert!(store.remove(ask.id(), done.version()).await.unwrap());
    let error = join(&store, &schema.name, &mut late, &ask, 2).await.unwrap_err();
    assert!(error.begin_again(), "{error}");
    drop(late);
    let mut again = client.build_transaction().isolation_level(strict).start().await.unwrap();
    let Joined::Ran(record) = join(&store, &schema.name, &mut again, &ask, 3).await.unwrap() else {
        panic!("it did not run")
    };
    assert!(record.fence() > done.fence());
}

/// Claims by the ledger's other doors: the same key waits, and all others pass by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_holds_up_its_own_key_only() {
    let Some(url) = url() else { return };
    let schema = schema(url).await;
    let store = store(&schema).await;
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    let (ask, mut client) = (Ask::key("a"), client(&schema.server).await);
    let mut transaction = client.transaction().await.unwrap();
    let joins = "SELECT count(*) FROM SCHEMA.version WHERE joins";
    assert_eq!(schema.number(joins).await, 0, "nobody looks before the first");
    join(&store, &schema.name, &mut transaction, &ask, 1).await.unwrap();
    assert_eq!(schema.number(joins).await, 1, "said before its transaction ends");
    let same = {
        let (store, write) = (Arc::clone(&store), write_of(&claim_key(&ask, 2), &*store, None));
        tokio::spawn(async move { store.insert(write).await.unwrap().value })
    };
    for number in 0..20 {
        hand.complete(&Ask::key(&format!("key-{number}"))).await;
    }
    until_blocked(&schema, transaction.client()).await;
    transaction.commit().await.unwrap();
    let Inserted::Occupied(there) = same.await.unwrap() else { panic!("it ran twice") };
    assert_eq!(there.outcome(), Some(&outcome("ordered")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_outside_is_busy_and_another_request_is_a_mismatch() {
    let Some(url) = url() else { return };
    let schema = schema(url).await;
    let store = store(&schema).await;
    let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
    let ask = Ask::key("a");
    let claim = hand.claim(&ask).await;
    let mut client = client(&schema.server).await;
    let mut transaction = client.transaction().await.unwrap();
    let busy = join(&store, &schema.name, &mut transaction, &ask, 2).await.unwrap();
    assert!(matches!(&busy, Joined::Busy { record, .. } if record == claim.record()), "{busy:?}");
    let other = ask.clone().operation("refund");
    let mismatch = join(&store, &schema.name, &mut transaction, &other, 3).await.unwrap();
    assert!(matches!(mismatch, Joined::Mismatch(_)), "{mismatch:?}");
    transaction.commit().await.unwrap();
    assert_eq!(orders(&schema).await, 0);
    // What was given back outside is claimed here, under the next fence.
    let released =
        hand.done(&semel_core::command::Release { holder: claim.holder(), error: "no".into() }).await;
    let mut transaction = client.transaction().await.unwrap();
    let Joined::Ran(record) = join(&store, &schema.name, &mut transaction, &ask, 4).await.unwrap() else {
        panic!("it did not run")
    };
    assert!(record.fence() > released.fence());
    transaction.commit().await.unwrap();
    let late = Complete { holder: claim.holder(), outcome: outcome("late") };
    let refused =
        semel_core::Ledger::new(Arc::clone(&store) as Arc<dyn Store>, Arc::new(NoTokens)).apply(&late).await;
    assert!(matches!(refused.unwrap(), semel_core::command::Held::Fenced(_)), "L6");
}

struct NoTokens;

impl semel_core::ledger::Entropy for NoTokens {
    fn token(&self) -> semel_core::Token {
        unreachable!("nothing is claimed")
    }
}

/// A transaction that stops before its statement of this number, or after its last one, and says so.
struct Stops<T> {
    transaction: T,
    statements: usize,
    at: usize,
}

impl<T> Stops<T> {
    /// Says so and waits for its end, if this is the place.
    async fn place(&mut self) {
        if self.statements == self.at {
            println!("stopped");
            std::io::stdout().flush().unwrap();
            std::future::pending::<()>().await;
        }
        self.statements += 1;
    }
}

impl<T: Transaction> Transaction for Stops<T> {
    type Error = T::Error;

    async fn rows(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Cells>, T::Error> {
        self.place().await;
        self.transaction.rows(statement, values).await
    }

    fn sqlstate(error: &T::Error) -> Option<String> {
        T::sqlstate(error)
    }
}

const KILL_AT: &str = "SEMEL_TEST_KILL_AT";
const KILL_SCHEMA: &str = "SEMEL_TEST_KILL_SCHEMA";
const KILL_DRIVER: &str = "SEMEL_TEST_KILL_DRIVER";

/// What the child does, until it is killed.
async fn run_until_killed(server: &str, at: usize) {
    let (name, driver) = (std::env::var(KILL_SCHEMA).unwrap(), std::env::var(KILL_DRIVER).unwrap());
    let store =
        PostgresStore::open(&Options::parse(&format!("{server}?schema={name}")).unwrap()).await.unwrap();
    let ask = Ask::key("a");
    let named = format!("{server}?application_name={name}&sslmode=disable");
    if driver == "sqlx" {
        let mut connection = sqlx::PgConnection::connect(&named).await.unwrap();
        let mut stops = Stops { transaction: connection.begin().await.unwrap(), statements: 0, at };
        join(&store, &name, &mut stops, &ask, 1).await.unwrap();
        stops.place().await;
        let (transaction, statements) = (stops.transaction, stops.statements);
        transaction.commit().await.unwrap();
        Stops { transaction: (), statements, at }.place().await;
    } else {
        let mut client = client(&named).await;
        let transaction = client.transaction().await.unwrap();
        let mut stops = Stops { transaction, statements: 0, at };
        join(&store, &name, &mut stops, &ask, 1).await.unwrap();
        stops.place().await;
        let (transaction, statements) = (stops.transaction, stops.statements);
        transaction.commit().await.unwrap();
        Stops { transaction: (), statements, at }.place().await;
    }
    println!("ended");
}

/// Starts a child that stops at this place, and kills it there; `false` if there is no such place.
fn killed_at(at: usize, driver: &str, schema: &Schema) -> bool {
    let this = "postgres::joined_tests::a_process_killed_between_any_two_statements_leaves_all_or_nothing";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([this, "--exact", "--nocapture"])
        .env(KILL_AT, at.to_string())
        .env(KILL_SCHEMA, &schema.name)
        .env(KILL_DRIVER, driver)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let stopped = said.into_iter().find_map(|line| match line {
        line if line.ends_with("stopped") => Some(true),
        line if line.ends_with("ended") => Some(false),
        _ => None,
    });
    child.kill().unwrap();
    child.wait().unwrap();
    stopped.expect("it says how far it came")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_between_any_two_statements_leaves_all_or_nothing() {
    let Some(url) = url() else { return };
    if let Ok(at) = std::env::var(KILL_AT) {
        return run_until_killed(&url, at.parse().unwrap()).await;
    }
    for driver in ["tokio-postgres", "sqlx"] {
        let (mut at, mut nothing, mut all) = (0, 0, 0);
        loop {
            let schema = schema(url.clone()).await;
            let place = at;
            let (schema, stopped) = tokio::task::spawn_blocking(move || {
                let stopped = killed_at(place, driver, &schema);
                (schema, stopped)
            })
            .await
            .unwrap();
            let gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'SCHEMA'";
            while schema.number(gone).await > 0 {
                tokio::task::yield_now().await;
            }
            let store = store(&schema).await;
            let (rows, record) = (orders(&schema).await, store.load(Ask::key("a").id()).await.unwrap().value);
            match record {
                None => {
                    assert_eq!(rows, 0, "{driver}, killed at {at}");
                    nothing += 1;
                }
                Some(record) => {
                    assert_eq!(rows, 2, "{driver}, killed at {at}");
                    assert_eq!(record.outcome(), Some(&outcome("ordered")));
                    all += 1;
                }
            }
            let mut client = client(&schema.server).await;
            let mut transaction = client.transaction().await.unwrap();
            let again = join(&store, &schema.name, &mut transaction, &Ask::key("a"), 2).await.unwrap();
            transaction.commit().await.unwrap();
            assert_eq!(again.outcome(), Some(&outcome("ordered")));
            assert_eq!(orders(&schema).await, 2, "once, after all");
            if !stopped {
                break;
            }
            at += 1;
        }
        // Lock, claim, two rows, outcome, commit; then what is after it, and the run that nobody killed.
        assert_eq!((nothing, all), (6, 2), "{driver}");
    }
}
