//! What a failure means for the command that met it.

use mongodb::error::{Error, ErrorKind, RETRYABLE_WRITE_ERROR, WriteFailure};
use semel_core::StoreError;

pub(super) use crate::remote::Kind;

/// A key that is there already.
const DUPLICATE_KEY: i32 = 11000;
/// A document or request that is too large for the server.
const TOO_LARGE: [i32; 3] = [10334, 17280, 17419];
/// It knew before it began that it is not, or no longer, the primary: nothing happened.
const NOT_PRIMARY: [i32; 3] = [10107, 13435, 10058];
/// Nobody but an operator can help: wrong credentials, missing rights, a wrong command.
const REFUSED: [i32; 8] = [2, 9, 13, 18, 20, 59, 73, 123];

/// The server's code, if it is the server that failed it.
fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        _ => None,
    }
}

/// Whether a slot is taken.
pub(super) fn is_duplicate(error: &Error) -> bool {
    code(error) == Some(DUPLICATE_KEY)
}

/// As the contract has it.
pub(super) fn failed(error: Error, kind: Kind, during: &'static str) -> StoreError {
    judge(&error, kind, during).with_source(error)
}

/// Nothing came back in time.
pub(super) fn no_answer(kind: Kind, during: &'static str) -> StoreError {
    match kind {
        Kind::Write => StoreError::in_doubt(during, "MongoDB did not answer in time"),
        Kind::Read => StoreError::not_applied(during, true, "MongoDB did not answer in time"),
    }
}

fn judge(error: &Error, kind: Kind, during: &'static str) -> StoreError {
    if let Some(code) = code(error) {
        if TOO_LARGE.contains(&code) {
            return StoreError::too_large(during, "MongoDB can hold no such document");
        }
        // A labelled error was tried again by the driver, whose second try may hide what the first one did.
        let labelled = error.contains_label(RETRYABLE_WRITE_ERROR);
        if NOT_PRIMARY.contains(&code) && !labelled {
            return StoreError::not_applied(during, true, "this server is not the primary");
        }
        if REFUSED.contains(&code) {
            return StoreError::not_applied(during, false, "MongoDB refused the command");
        }
    }
    match &*error.kind {
        // No server could be had, so nothing was sent to one.
        ErrorKind::ServerSelection { .. } | ErrorKind::DnsResolve { .. } => {
            StoreError::not_applied(during, true, "no MongoDB server can be reached")
        }
        ErrorKind::Authentication { .. }
        | ErrorKind::InvalidArgument { .. }
        | ErrorKind::InvalidTlsConfig { .. }
        | ErrorKind::IncompatibleServer { .. } => {
            StoreError::not_applied(during, false, "MongoDB cannot be asked")
        }
        ErrorKind::InvalidResponse { .. } if kind == Kind::Read => {
            StoreError::corrupt(during, "MongoDB's answer cannot be read")
        }
        _ if kind == Kind::Read => StoreError::not_applied(during, true, "MongoDB did not answer"),
        // It may be there and not yet on a majority, or be there and its answer lost.
        _ => StoreError::in_doubt(during, "MongoDB did not confirm the write"),
    }
}

#[cfg(test)]
mod tests {
    use semel_core::error::StoreErrorKind;

    use super::*;

    fn server_says(code: i32) -> Error {
        let reply = mongodb::bson::doc! { "code": code, "codeName": "X", "errmsg": "no" };
        let command: mongodb::error::CommandError = mongodb::bson::deserialize_from_document(reply).unwrap();
        Error::from(ErrorKind::Command(command))
    }

    #[test]
    fn a_code_says_whether_the_write_happened_and_whether_a_retry_helps() {
        const AGAIN: StoreErrorKind = StoreErrorKind::NotApplied { retry_helps: true };
        const NEVER: StoreErrorKind = StoreErrorKind::NotApplied { retry_helps: false };
        const DOUBT: StoreErrorKind = StoreErrorKind::InDoubt;
        for (code, write, read) in [
            (10107, AGAIN, AGAIN),
            (13435, AGAIN, AGAIN),
            (189, DOUBT, AGAIN),
            (11602, DOUBT, AGAIN),
            (91, DOUBT, AGAIN),
            (50, DOUBT, AGAIN),
            (64, DOUBT, AGAIN),
            (13, NEVER, NEVER),
            (18, NEVER, NEVER),
            (10334, StoreErrorKind::TooLarge, StoreErrorKind::TooLarge),
        ] {
            assert_eq!(failed(server_says(code), Kind::Write, "replace").kind(), write, "{code}, a write");
            assert_eq!(failed(server_says(code), Kind::Read, "load").kind(), read, "{code}, a read");
        }
        let lost = || Error::from(std::io::Error::other("reset"));
        assert_eq!(failed(lost(), Kind::Write, "replace").kind(), DOUBT);
        assert_eq!(failed(lost(), Kind::Read, "load").kind(), AGAIN);
    }
}
