//! An order that is placed once, however often it is asked for: the key, the order's row and the answer are committed
//! together, over tokio-postgres and over sqlx.
//!
//! ```text
//! DATABASE_URL=postgres://… cargo run -p semel --features sqlx --example in_transaction
//! ```

use std::error::Error;

use semel::Outcome;
use semel::postgres::{JoinError, Joined, PostgresLedger, outcome, request};
use sqlx::Connection;

type Failure = Box<dyn Error + Send + Sync>;

/// Places an order with tokio-postgres. What comes back was committed, now or the first time.
async fn place_order(
    ledger: &PostgresLedger,
    client: &mut tokio_postgres::Client,
    key: &str,
    sku: &str,
) -> Result<Outcome, Failure> {
    let payload = format!(r#"{{"sku":"{sku}"}}"#);
    loop {
        let mut transaction = client.transaction().await?;
        let asked = request("shop", key, "order.create", payload.as_bytes())?;
        let work = async |transaction: &mut tokio_postgres::Transaction<'_>, _: &_| {
            let insert = "INSERT INTO shop_orders (sku) VALUES ($1) RETURNING id";
            let order: i64 = transaction.query_one(insert, &[&sku]).await?.get(0);
            Ok::<_, Failure>(outcome(format!(r#"{{"order":{order}}}"#))?)
        };
        match ledger.in_transaction(&mut transaction, asked, work).await {
            Ok(joined) => {
                transaction.commit().await?;
                return answer(&joined);
            }
            // Somebody was in the way: dropped, it is rolled back, and begun anew.
            Err(error) if error.begin_again() => {}
            Err(JoinError::Work(error)) => return Err(error),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The same with sqlx, once: under `READ COMMITTED` there is hardly a reason to begin again.
async fn place_order_with_sqlx(
    ledger: &PostgresLedger,
    connection: &mut sqlx::PgConnection,
    key: &str,
    sku: &str,
) -> Result<Outcome, Failure> {
    let mut transaction = connection.begin().await?;
    let asked = request("shop", key, "order.create", format!(r#"{{"sku":"{sku}"}}"#).as_bytes())?;
    let work = async |transaction: &mut sqlx::Transaction<'_, sqlx::Postgres>, _: &_| {
        let insert = sqlx::query_scalar("INSERT INTO shop_orders (sku) VALUES ($1) RETURNING id");
        let order: i64 = insert.bind(sku).fetch_one(&mut **transaction).await?;
        Ok::<_, Failure>(outcome(format!(r#"{{"order":{order}}}"#))?)
    };
    let joined = ledger.in_transaction(&mut transaction, asked, work).await?;
    transaction.commit().await?;
    answer(&joined)
}

fn answer(joined: &Joined) -> Result<Outcome, Failure> {
    match joined {
        Joined::Mismatch(_) => Err("the key stands for another order".into()),
        Joined::Ran(_) | Joined::Replay(_) | Joined::Busy { .. } | Joined::Unknown(_) | Joined::Dead(_) => {
            joined.outcome().cloned().ok_or_else(|| "another door holds the key".into())
        }
    }
}

/// Places the same order three times, by both drivers.
pub(crate) async fn run(url: &str) -> Result<(), Failure> {
    let ledger = PostgresLedger::open(url).await?;
    let (mut client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let table = "DROP TABLE IF EXISTS shop_orders;
        CREATE TABLE shop_orders (id bigint GENERATED ALWAYS AS IDENTITY, sku text NOT NULL)";
    client.batch_execute(table).await?;
    let mut other = sqlx::PgConnection::connect(&format!("{url}?sslmode=disable")).await?;

    let key = format!("order-of-process-{}", std::process::id());
    let first = place_order(&ledger, &mut client, &key, "A-1").await?;
    assert_eq!(place_order(&ledger, &mut client, &key, "A-1").await?, first);
    assert_eq!(place_order_with_sqlx(&ledger, &mut other, &key, "A-1").await?, first);
    assert!(place_order_with_sqlx(&ledger, &mut other, &key, "B-2").await.is_err(), "another order");
    let orders: i64 = client.query_one("SELECT count(*) FROM shop_orders", &[]).await?.get(0);
    assert_eq!(orders, 1);
    println!("placed once, answered three times: {:?}", first.body);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    run(&std::env::var("DATABASE_URL")?).await
}
