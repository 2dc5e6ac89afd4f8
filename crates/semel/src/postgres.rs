//! PostgreSQL: a ledger that any number of services share, and that a transaction of yours can join.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use semel::postgres::{PostgresLedger, outcome, request};
//!
//! let url = "postgres://shop@localhost/shop";
//! let ledger = PostgresLedger::open(url).await?;
//! # let (mut client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
//! let asked = request("shop", "8e03978e-40d5", "order.create", br#"{"sku":"A-1"}"#)?;
//! let mut transaction = client.transaction().await?;
//! let work = async |transaction: &mut tokio_postgres::Transaction<'_>, _: &semel::Claim| {
//!     transaction.execute("INSERT INTO orders (sku) VALUES ('A-1')", &[]).await?;
//!     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(outcome("ordered")?)
//! };
//! let joined = ledger.in_transaction(&mut transaction, asked, work).await?;
//! transaction.commit().await?;
//! println!("{:?}", joined.outcome());
//! # Ok(()) }
//! ```
//! The guide's page `in-transaction.md` says what holds, and the example `in_transaction` has it for both drivers.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use semel_core::command::Claim;
use semel_core::error::Invalid;
use semel_core::id::{Namespace, Scope, Tenant};
use semel_core::ledger::Entropy;
use semel_core::outcome::{Class, Headers};
use semel_core::request::Fingerprint;
use semel_core::{Key, Ledger, Operation, Outcome, Policy, Request, Store};
use semel_fingerprint::FingerprintBuilder;
use semel_runtime::OsEntropy;

use crate::{OpenError, because};

pub use semel_stores::postgres::{
    Cells, InvalidUrl, JoinError, Joined, Options, PostgresStore, Transaction, Value,
};

/// A ledger over PostgreSQL. It is a [`Ledger`], and it can join a transaction.
#[derive(Clone)]
pub struct PostgresLedger {
    ledger: Ledger,
    store: Arc<PostgresStore>,
}

impl fmt::Debug for PostgresLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ledger.fmt(f)
    }
}

impl Deref for PostgresLedger {
    type Target = Ledger;

    fn deref(&self) -> &Ledger {
        &self.ledger
    }
}

impl PostgresLedger {
    /// Connects, and brings the ledger's tables up to date, in a schema of their own (`semel`, or as the URL says).
    ///
    /// # Errors
    /// The URL says something that cannot be, or the database cannot be reached or must not be touched.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let options = Options::parse(url).map_err(because("the URL of PostgreSQL is wrong"))?;
        let store = PostgresStore::open(&options).await;
        Ok(Self::over(Arc::new(store.map_err(because("the store in PostgreSQL cannot be opened"))?)))
    }

    /// Over a store that is open.
    pub fn over(store: Arc<PostgresStore>) -> Self {
        let ledger = Ledger::new(Arc::clone(&store) as Arc<dyn Store>, Arc::new(OsEntropy));
        Self { ledger, store }
    }

    /// Runs `work` at most once for a key, as a part of the transaction that the caller has begun, and commits or rolls
    /// back: the key, whatever the work does in the transaction, and the outcome are there together, or none of them.
    /// The transaction is one of tokio-postgres or, with the feature `sqlx`, of sqlx; it must be of the ledger's own
    /// database.
    ///
    /// # Errors
    /// See [`PostgresStore::in_transaction`]. Roll the transaction back.
    ///
    /// # Cancellation
    /// As an error.
    pub async fn in_transaction<T: Transaction, E, F>(
        &self,
        transaction: &mut T,
        request: Request,
        work: F,
    ) -> Result<Joined, JoinError<T::Error, E>>
    where
        F: AsyncFnOnce(&mut T, &Claim) -> Result<Outcome, E>,
    {
        self.store.in_transaction(transaction, Arc::new(request), OsEntropy.token(), work).await
    }
}

/// What the work gave: a success with this body.
///
/// # Errors
/// The body is too large to be kept.
pub fn outcome(body: impl Into<Bytes>) -> Result<Outcome, Invalid> {
    Outcome::try_new(Class::Success, 200, Headers::default(), body.into())
}

/// What is asked for: this operation, for this payload (JSON, else bytes as they are), under this key of this tenant. The
/// same key with another operation or payload is a mismatch. With the usual policy; [`Request::new`] takes another.
///
/// # Errors
/// A name or the key is empty, too long, or holds what it must not.
pub fn request(tenant: &str, key: &str, operation: &str, payload: &[u8]) -> Result<Request, Invalid> {
    let scope = Scope { namespace: Namespace::Execute, tenant: Tenant::try_new(tenant)?, subject: None };
    let digest = FingerprintBuilder::new().operation(operation).json(payload).finish();
    let fingerprint = Fingerprint { version: digest.version(), digest: *digest.digest() };
    let operation = Operation::try_new(operation)?;
    Ok(Request::new(scope, Key::try_new(key)?, operation, fingerprint, Policy::default()))
}

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/in-transaction.md")]
struct Guide;
