//! What a failure means for the command that met it, by its SQLSTATE.

use deadpool_postgres::PoolError;
use semel_core::StoreError;
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity, SqlState};

pub(super) use crate::remote::Kind;

/// How a statement ended that has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was never sent.
    NotSent(Box<dyn std::error::Error + Send + Sync>, bool),
    /// It was sent, and this came back, or the connection was lost.
    Sent(Error),
    /// It was sent, and nothing came back in time.
    NoAnswer,
}

impl Failure {
    /// No connection could be had.
    pub(super) fn no_connection(error: PoolError) -> Self {
        let retry_helps = match &error {
            PoolError::Closed => false,
            PoolError::Backend(error) => error.as_db_error().is_none_or(|error| helps(error.code())),
            _ => true,
        };
        Self::NotSent(error.into(), retry_helps)
    }

    /// The statement could not be prepared, so that it never ran.
    pub(super) fn not_prepared(error: Error) -> Self {
        let retry_helps = error.as_db_error().is_none_or(|error| helps(error.code()));
        Self::NotSent(error.into(), retry_helps)
    }

    fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Sent(error) => error.code(),
            Self::NotSent(..) | Self::NoAnswer => None,
        }
    }

    /// Whether the same statement should be said again at once: somebody was in its way.
    pub(super) fn is_collision(&self) -> bool {
        self.code().is_some_and(|code| {
            *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED
        })
    }

    /// Whether the connection was lost, perhaps long before the statement: without a word, or with the one that ends
    /// the session, as a pooler says it whose own connection was ended.
    pub(super) fn is_lost_connection(&self) -> bool {
        matches!(self, Self::Sent(error) if error.as_db_error().is_none_or(is_fatal))
    }

    /// Whether it may be about one of the statement's commands and not about all of them: a value that cannot be, a
    /// lock that one of them waits for. It did not happen, and trying each by itself tells. What the server lacks (disk,
    /// memory, the right to write), each would meet again.
    pub(super) fn is_of_one_command(&self) -> bool {
        let Self::Sent(error) = self else { return false };
        let Some(server) = error.as_db_error() else { return false };
        let class = server.code().code().get(..2).unwrap_or_default();
        let of_all =
            *server.code() != SqlState::QUERY_CANCELED && matches!(class, "08" | "25" | "53" | "57" | "58");
        !is_fatal(server) && !of_all && *server.code() != SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
    }

    /// Whether the connection is of no more use although it may look so: a statement that the server no longer has, or
    /// whose result has another shape since somebody migrated, or an answer that never came.
    pub(super) fn spoils_connection(&self) -> bool {
        match self {
            Self::NoAnswer => true,
            Self::NotSent(..) | Self::Sent(_) => self.code().is_some_and(is_stale_statement),
        }
    }

    /// As the contract has it.
    pub(super) fn into_error(self, kind: Kind, during: &'static str) -> StoreError {
        match self {
            Self::NotSent(error, retry_helps) => {
                StoreError::not_applied(during, retry_helps, "PostgreSQL could not be asked")
                    .with_source(error)
            }
            Self::NoAnswer if kind == Kind::Write => {
                StoreError::in_doubt(during, "PostgreSQL did not answer in time")
            }
            Self::NoAnswer => StoreError::not_applied(during, true, "PostgreSQL did not answer in time"),
            Self::Sent(error) => sent(error, kind, during),
        }
    }
}

fn sent(error: Error, kind: Kind, during: &'static str) -> StoreError {
    let judged = match (error.as_db_error(), kind) {
        (Some(server), kind) => judge(server.code(), is_fatal(server), kind, during),
        (None, Kind::Write) => StoreError::in_doubt(during, "the connection was lost on the way"),
        (None, Kind::Read) => StoreError::not_applied(during, true, "the connection was lost on the way"),
    };
    judged.with_source(error)
}

/// A session that is ended says so in the place of an answer, perhaps after its commit.
fn is_fatal(error: &DbError) -> bool {
    match error.parsed_severity() {
        Some(severity) => matches!(severity, Severity::Fatal | Severity::Panic),
        None => matches!(error.severity(), "FATAL" | "PANIC"),
    }
}

/// What the server said. An `ERROR` ends the statement's transaction before it is committed, whatever it is about.
fn judge(code: &SqlState, fatal: bool, kind: Kind, during: &'static str) -> StoreError {
    let class = code.code().get(..2).unwrap_or_default();
    let lost = fatal || class == "08" || *code == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN;
    if lost && kind == Kind::Write {
        return StoreError::in_doubt(during, "PostgreSQL ended the session");
    }
    if *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED {
        return StoreError::corrupt(during, "PostgreSQL found damaged data");
    }
    // A datum of a gigabyte, an index entry of more than a third of a page, a message that fits no buffer.
    if class == "54" {
        return StoreError::too_large(during, "PostgreSQL can hold no such value");
    }
    StoreError::not_applied(during, lost || helps(code), "PostgreSQL refused the statement")
}

/// Whether the same statement can succeed later without anybody changing something.
fn helps(code: &SqlState) -> bool {
    match code.code().get(..2).unwrap_or_default() {
        // Connections, the transaction rolled back (serialization, deadlock), resources (disk, memory, connections),
        // an operator (shutdown, cancelled, starting up), the system below (input and output).
        "08" | "40" | "53" | "57" | "58" => true,
        _ => {
            // A standby that is about to be promoted, a row or table that is locked, a plan of yesterday.
            *code == SqlState::READ_ONLY_SQL_TRANSACTION
                || *code == SqlState::LOCK_NOT_AVAILABLE
                || *code == SqlState::OBJECT_IN_USE
                || is_stale_statement(code)
        }
    }
}

/// The session behind the connection is another one, or the tables were changed under a statement.
fn is_stale_statement(code: &SqlState) -> bool {
    *code == SqlState::INVALID_SQL_STATEMENT_NAME
        || *code == SqlState::DUPLICATE_PSTATEMENT
        || *code == SqlState::FEATURE_NOT_SUPPORTED
}

#[cfg(test)]
mod tests {
    use semel_core::error::StoreErrorKind;

    use super::*;

    #[test]
    fn a_sqlstate_says_whether_the_write_happened_and_whether_a_retry_helps() {
        const AGAIN: StoreErrorKind = StoreErrorKind::NotApplied { retry_helps: true };
        const NEVER: StoreErrorKind = StoreErrorKind::NotApplied { retry_helps: false };
        for (code, fatal, write, read) in [
            ("40001", false, AGAIN, AGAIN),
            ("40P01", false, AGAIN, AGAIN),
            ("40003", false, StoreErrorKind::InDoubt, AGAIN),
            ("08006", false, StoreErrorKind::InDoubt, AGAIN),
            ("08007", false, StoreErrorKind::InDoubt, AGAIN),
            ("57P01", true, StoreErrorKind::InDoubt, AGAIN),
            ("57P02", true, StoreErrorKind::InDoubt, AGAIN),
            ("XX000", true, StoreErrorKind::InDoubt, AGAIN),
            ("57014", false, AGAIN, AGAIN),
            ("55P03", false, AGAIN, AGAIN),
            ("53100", false, AGAIN, AGAIN),
            ("53300", false, AGAIN, AGAIN),
            ("58030", false, AGAIN, AGAIN),
            ("25006", false, AGAIN, AGAIN),
            ("26000", false, AGAIN, AGAIN),
            ("0A000", false, AGAIN, AGAIN),
            ("42P01", false, NEVER, NEVER),
            ("42501", false, NEVER, NEVER),
            ("28P01", false, NEVER, NEVER),
            ("3D000", false, NEVER, NEVER),
            ("23505", false, NEVER, NEVER),
            ("XX000", false, NEVER, NEVER),
            ("54000", false, StoreErrorKind::TooLarge, StoreErrorKind::TooLarge),
            ("XX001", false, StoreErrorKind::Corrupt, StoreErrorKind::Corrupt),
            ("XX002", false, StoreErrorKind::Corrupt, StoreErrorKind::Corrupt),
        ] {
            let code = SqlState::from_code(code);
            assert_eq!(judge(&code, fatal, Kind::Write, "replace").kind(), write, "{code:?}, a write");
            assert_eq!(judge(&code, fatal, Kind::Read, "load").kind(), read, "{code:?}, a read");
        }
    }
}
