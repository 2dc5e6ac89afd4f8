//! Tables, and how they come to be: migrations that many nodes may run at once.
//!
//! A node looks at the version first and takes the lock only if it has something to do, so that a role without the right
//! to create anything can open a schema that is up to date. The lock is of the transaction, not of the session: behind a
//! pooler, a session is nobody's.

use tokio_postgres::{Client, IsolationLevel};

use super::error::{Failure, Kind};
use crate::remote::open::OpenError;

/// Whether it is only that the connection was lost, perhaps long before: a pooler keeps some that are dead.
pub(super) fn is_lost_connection(error: &OpenError) -> bool {
    let cause = error.causes().find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>());
    cause.is_some_and(|error| {
        let code = error.code().map(tokio_postgres::error::SqlState::code);
        error.is_closed() || code.is_some_and(|code| code == "57P01" || code.starts_with("08"))
    })
}

/// Each brings the schema from the version of its place in the list to the next; none is changed once it was released.
/// `SCHEMA` stands for the schema's name.
pub(super) const MIGRATIONS: &[&str] =
    &[include_str!("migrations/1.sql"), include_str!("migrations/2.sql"), include_str!("migrations/3.sql")];

/// The version that this program works with.
pub(super) const VERSION: i32 = 3;
const _: () = assert!(MIGRATIONS.len() == VERSION as usize);

/// Brings the schema up to date.
///
/// # Errors
/// The database cannot be reached, the role may not create what is missing, or a newer program has been there.
pub(super) async fn migrate(client: &mut Client, schema: &str) -> Result<(), OpenError> {
    let failed = |error| {
        let error = Failure::Sent(error).into_error(Kind::Read, "migrate");
        OpenError::because(format!("cannot migrate the schema `{schema}`"), error)
    };
    if version(client, schema).await.map_err(failed)? == Some(VERSION) {
        return Ok(());
    }
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()
        .await
        .map_err(failed)?;
    let lock = format!("SELECT pg_advisory_xact_lock(hashtextextended('semel schema {schema}', 0))");
    transaction.batch_execute(&lock).await.map_err(failed)?;
    // Whoever had the lock before may have done it all.
    let found = version(transaction.client(), schema).await.map_err(failed)?;
    let from = usize::try_from(found.unwrap_or(0)).unwrap_or(usize::MAX);
    if from > MIGRATIONS.len() {
        return Err(OpenError::new(format!(
            "the schema `{schema}` has version {from}, made by a newer program; this one knows {VERSION}"
        )));
    }
    if found.is_none() {
        let exists = format!("SELECT 1 FROM pg_namespace WHERE nspname = '{schema}'");
        if transaction.simple_query(&exists).await.map_err(failed)?.len() < 3 {
            transaction.batch_execute(&format!("CREATE SCHEMA {schema}")).await.map_err(failed)?;
        }
        let table = format!("CREATE TABLE {schema}.version (version int NOT NULL)");
        transaction.batch_execute(&table).await.map_err(failed)?;
        let first = format!("INSERT INTO {schema}.version VALUES (0)");
        transaction.batch_execute(&first).await.map_err(failed)?;
    }
    for migration in &MIGRATIONS[from..] {
        transaction.batch_execute(&migration.replace("SCHEMA", schema)).await.map_err(failed)?;
    }
    let now = format!("UPDATE {schema}.version SET version = {VERSION}");
    transaction.batch_execute(&now).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

/// The version of the schema; `None` if it is not there. By unnamed statements, for whatever pooler there is.
async fn version(client: &Client, schema: &str) -> Result<Option<i32>, tokio_postgres::Error> {
    // From the catalog itself: what a session remembers of names that are not there outlives the wait for the lock.
    let there = format!(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = '{schema}' AND c.relname = 'version')"
    );
    if !client.query_typed_one(&there, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let row = client.query_typed_one(&format!("SELECT version FROM {schema}.version"), &[]).await?;
    row.try_get(0).map(Some)
}
