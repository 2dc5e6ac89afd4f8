//! Claims in the caller's own transaction: the key, the rows of the business and the outcome are committed together or not
//! at all.
//!
//! Three statements of ours run beside the caller's: a lock on the key, the claim, the outcome. Whoever asks for the same
//! key meanwhile waits for the transaction's end and is given its outcome, or the claim if it was rolled back. A crash
//! leaves nothing behind, so there is no unknown state; and a transaction whose work has not ended cannot be committed,
//! whoever tries to: a constraint that is checked at the commit refuses.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use semel_core::command::{Claim, ClaimKey, Claimed, Command, Complete, Held, Verdict};
use semel_core::{Outcome, Record, RecordId, Request, StoreError, Timestamp, Token};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::PostgresStore;
use super::alone::{Swapped, insert_values, replace_values};
use super::error::Kind;
use super::pool::{Statement, Values};
use super::rows::{Columns, Draft, Id, millis, record, time, version_numbers};
use super::store::Shared;
use crate::limits;

type Trouble = Box<dyn Error + Sync + Send>;

/// Somebody's transaction, of whichever driver: it runs a statement of ours among the caller's own.
pub trait Transaction: Send {
    /// What its driver says when a statement fails.
    type Error: Error + Send + Sync + 'static;

    /// Runs a statement whose places are filled by these values, and gives all of its rows, their columns in binary
    /// format.
    ///
    /// # Errors
    /// As the driver has them.
    fn rows(
        &mut self,
        statement: &str,
        values: &[Value],
    ) -> impl Future<Output = Result<Vec<Cells>, Self::Error>> + Send;

    /// The SQLSTATE of an error, if the server has sent one.
    fn sqlstate(error: &Self::Error) -> Option<String>;
}

/// A value in PostgreSQL's binary format.
#[derive(Clone, Debug)]
pub struct Value {
    kind: Type,
    bytes: Option<Vec<u8>>,
}

impl Value {
    fn of(value: &(dyn ToSql + Sync), kind: &Type) -> Result<Self, StoreError> {
        let mut out = BytesMut::new();
        let is_null = value.to_sql_checked(kind, &mut out).map_err(|error| {
            StoreError::not_applied("join", false, "a value cannot be encoded").with_source(error)
        })?;
        let bytes = matches!(is_null, IsNull::No).then(|| out.to_vec());
        Ok(Self { kind: kind.clone(), bytes })
    }

    /// The type's number in the server's catalog.
    pub fn oid(&self) -> u32 {
        self.kind.oid()
    }

    /// The value; `None` is NULL.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.bytes.as_deref()
    }
}

impl ToSql for Value {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Trouble> {
        let Some(bytes) = &self.bytes else { return Ok(IsNull::Yes) };
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// The columns of a row, each in binary format; `None` is NULL.
#[derive(Clone, Debug)]
pub struct Cells(pub Vec<Option<Vec<u8>>>);

impl Columns for Cells {
    fn get<'a, T: FromSql<'a>>(&'a self, at: usize) -> Result<T, StoreError> {
        let cell = self.0.get(at).map(Option::as_deref);
        let cell = cell.ok_or_else(|| StoreError::corrupt("read a row", "a column is missing"))?;
        // What is read here is read by its length and not by its type.
        T::from_sql_nullable(&Type::UNKNOWN, cell).map_err(|error| {
            StoreError::corrupt("read a row", "a column is not what it should be").with_source(error)
        })
    }
}

/// A column as it came.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Trouble> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl Transaction for tokio_postgres::Transaction<'_> {
    type Error = tokio_postgres::Error;

    async fn rows(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Cells>, Self::Error> {
        let typed: Vec<_> =
            values.iter().map(|value| (value as &(dyn ToSql + Sync), value.kind.clone())).collect();
        let rows = self.query_typed(statement, &typed).await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in &rows {
            let cell = |at| row.try_get::<_, Option<Raw<'_>>>(at).map(|raw| raw.map(|raw| raw.0.to_vec()));
            all.push(Cells((0..row.len()).map(cell).collect::<Result<_, _>>()?));
        }
        Ok(all)
    }

    fn sqlstate(error: &Self::Error) -> Option<String> {
        error.code().map(|code| code.code().to_owned())
    }
}

/// What became of asking for a claim in somebody's transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The work ran just now. It counts once the transaction is committed.
    Ran(Arc<Record>),
    /// It was done before: this is what it gave.
    Replay(Arc<Record>),
    /// It is being done outside of a transaction, or waits for a worker.
    Busy {
        /// By whom, and since when.
        record: Arc<Record>,
        /// When asking again may give another answer.
        retry_after: Duration,
    },
    /// The key stands for something else.
    Mismatch(Arc<Record>),
    /// It may have happened outside of a transaction, and nobody knows.
    Unknown(Arc<Record>),
    /// Its retries are spent.
    Dead(Arc<Record>),
}

impl Joined {
    /// What the work gave, now or before.
    pub fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Ran(record) | Self::Replay(record) => record.outcome(),
            Self::Busy { .. } | Self::Mismatch(_) | Self::Unknown(_) | Self::Dead(_) => None,
        }
    }
}

/// Why a claim could not join a transaction, or its work did not end well. The transaction is of no more use: roll it back.
#[derive(Debug)]
#[non_exhaustive]
pub enum JoinError<D, E> {
    /// A statement of ours failed.
    Database {
        /// What the driver says.
        error: D,
        /// Whether the whole transaction, begun anew, can succeed: somebody was in its way.
        begin_again: bool,
    },
    /// The work failed.
    Work(E),
    /// What is stored cannot be read, or what is to be stored cannot be.
    Store(StoreError),
}

impl<D, E> JoinError<D, E> {
    /// Whether the whole transaction, begun anew, can succeed: somebody was in its way.
    pub fn begin_again(&self) -> bool {
        match self {
            Self::Database { begin_again, .. } => *begin_again,
            Self::Store(error) => error.retry_helps(),
            Self::Work(_) => false,
        }
    }
}

impl<D, E> From<StoreError> for JoinError<D, E> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl<D: fmt::Display, E: fmt::Display> fmt::Display for JoinError<D, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database { error, .. } => write!(f, "PostgreSQL refused a statement of the claim: {error}"),
            Self::Work(error) => write!(f, "the work under the claim failed: {error}"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

/// The work's error may be anything that can be shown, such as a boxed one.
impl<D: Error + 'static, E: fmt::Debug + fmt::Display> Error for JoinError<D, E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Database { error, .. } => Some(error),
            Self::Work(_) => None,
            Self::Store(error) => error.source(),
        }
    }
}

impl PostgresStore {
    /// Runs `work` at most once for a key, as a part of the transaction that the caller has begun: the claim, whatever the
    /// work does in the transaction, and the outcome are committed together by the caller, or not at all.
    ///
    /// Whoever asks for the same key while the transaction is open waits for its end: of those who join with a transaction
    /// of their own, the next one gets the outcome, or the claim if it was rolled back. Under `READ COMMITTED` that is the
    /// answer; under a stricter isolation it is a serialization failure ([`JoinError::begin_again`]), and the transaction,
    /// begun anew, finds the outcome. Other claims on the key, by doors of this ledger, fail after the store's statement
    /// time-out, and are told to try again.
    ///
    /// # Errors
    /// Of the work, or of a statement of ours. Roll the transaction back. If it is committed all the same, the commit fails
    /// (SQLSTATE `2D000`) unless the work has ended.
    ///
    /// # Cancellation
    /// As an error.
    pub async fn in_transaction<T: Transaction, E, F>(
        &self,
        transaction: &mut T,
        request: Arc<Request>,
        token: Token,
        work: F,
    ) -> Result<Joined, JoinError<T::Error, E>>
    where
        F: AsyncFnOnce(&mut T, &Claim) -> Result<Outcome, E>,
    {
        let command = ClaimKey { request, token, attempt_id: None };
        self.shared.joins().await?;
        let mut session = Session { shared: &self.shared, transaction };
        let as_of = session.lock(command.id()).await?;
        let claim = match session.drive(&command, None, as_of).await? {
            Claimed::Granted(claim) => claim,
            Claimed::Replay(record) => return Ok(Joined::Replay(record)),
            Claimed::Busy { record, retry_after } => return Ok(Joined::Busy { record, retry_after }),
            Claimed::Mismatch(record) => return Ok(Joined::Mismatch(record)),
            Claimed::Unknown(record) => return Ok(Joined::Unknown(record)),
            Claimed::Dead(record) => return Ok(Joined::Dead(record)),
        };
        let outcome = work(session.transaction, &claim).await.map_err(JoinError::Work)?;
        let seen = Arc::clone(claim.record());
        let as_of = seen.times().written;
        match session.drive(&Complete { holder: claim.holder(), outcome }, Some(seen), as_of).await? {
            Held::Done(record) => Ok(Joined::Ran(record)),
            Held::Fenced(_) | Held::Illegal(..) => {
                let gone = "the claim is no longer in the transaction that made it";
                Err(StoreError::not_applied(JOIN, false, gone).into())
            }
        }
    }
}

const JOIN: &str = "join";

impl Shared {
    /// Has batches look, from now on, whose key is held by a transaction: before the first one holds any. A batch that
    /// began before may wait for it, for as long as a batch waits for anybody.
    async fn joins(&self) -> Result<(), StoreError> {
        if !self.joins.load(Ordering::Acquire) {
            self.rows(JOIN, Kind::Write, &self.sql.joins, &[]).await?;
            self.joins.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// Our statements in somebody's transaction.
struct Session<'a, T> {
    shared: &'a Shared,
    transaction: &'a mut T,
}

impl<T: Transaction> Session<'_, T> {
    async fn row<E>(
        &mut self,
        statement: &Statement,
        values: &Values<'_>,
    ) -> Result<Option<Cells>, JoinError<T::Error, E>> {
        let places = values.iter().zip(&statement.types);
        let values = places.map(|(value, kind)| Value::of(*value, kind)).collect::<Result<Vec<_>, _>>()?;
        let rows = self.transaction.rows(&statement.text, &values).await.map_err(|error| {
            let code = T::sqlstate(&error);
            // Serialization, deadlock: the classes of a transaction that was rolled back for others' sake.
            let begin_again = code.is_some_and(|code| code == "40001" || code == "40P01");
            JoinError::Database { error, begin_again }
        })?;
        Ok(rows.into_iter().next())
    }

    async fn some<E>(
        &mut self,
        statement: &Statement,
        values: &Values<'_>,
    ) -> Result<Cells, JoinError<T::Error, E>> {
        let row = self.row(statement, values).await?;
        row.ok_or_else(|| StoreError::corrupt(JOIN, "PostgreSQL answered without a row").into())
    }

    /// Waits until nobody else's transaction holds the key, and gives the time then. In a statement of its own, so that
    /// the next one sees what that transaction has left.
    async fn lock<E>(&mut self, id: RecordId) -> Result<Timestamp, JoinError<T::Error, E>> {
        let lock = self.shared.sql.lock_of(id);
        let row = self.some(&self.shared.sql.lock_joined, &[&lock]).await?;
        Ok(self.shared.time.told(time(row.get(0)?)))
    }

    /// The ledger's loop within the transaction: what it shows is judged, and nobody else can change what it has written.
    async fn drive<C: Command, E>(
        &mut self,
        command: &C,
        mut seen: Option<Arc<Record>>,
        mut as_of: Timestamp,
    ) -> Result<C::Answer, JoinError<T::Error, E>> {
        for _ in 0..limits::POSTGRES_ROUNDS {
            let write = match command.decide(seen.as_ref(), as_of) {
                Verdict::Stay(answer) => return Ok(answer),
                Verdict::Write(write) => write,
            };
            // Bounded by the life of what was judged only: while it holds the key, nobody decides otherwise.
            let write = write.decided_on(seen.as_deref(), as_of, Duration::MAX);
            let swapped = self.swap(Draft::of(write).map_err(unfit)?, seen.as_deref()).await?;
            match swapped {
                Ok(written) => return Ok(command.answer(written)),
                Err(found) => (seen, as_of) = found,
            }
        }
        Err(StoreError::not_applied(JOIN, true, "others were quicker, time and again").into())
    }

    /// Writes, or gives what is there and the time.
    async fn swap<E>(
        &mut self,
        draft: Draft,
        judged: Option<&Record>,
    ) -> Result<Result<Arc<Record>, (Option<Arc<Record>>, Timestamp)>, JoinError<T::Error, E>> {
        let sql = &self.shared.sql;
        let (operation, deadline) = (draft.operation.as_str(), millis(draft.deadline));
        let row = match judged {
            None => self.some(&sql.insert_joined, &insert_values(&draft, &operation, &deadline)).await?,
            Some(judged) => {
                let version = version_numbers(judged.version());
                let values = replace_values(&draft, &version, &operation, &deadline);
                self.some(&sql.replace_joined, &values).await?
            }
        };
        let swapped = Swapped::read(&row)?;
        if let Some(stamps) = swapped.stamps {
            return Ok(Ok(draft.stamped(stamps)?));
        }
        let is_news = |there: &Arc<Record>| judged.is_none_or(|judged| judged.version() != there.version());
        if let Some(there) = swapped.there.filter(is_news) {
            return Ok(Err((Some(there), swapped.as_of)));
        }
        // It came or went while the statement ran, which cannot show it.
        let row = self.some(&sql.load, &[&Id(draft.id.0)]).await?;
        Ok(Err((record(&row, 1)?, time(row.get(0)?))))
    }
}

fn unfit<D, E>(why: &'static str) -> JoinError<D, E> {
    StoreError::not_applied(JOIN, false, why).into()
}
