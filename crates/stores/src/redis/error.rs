//! What a failure means for the command that met it, by what the server said.

use redis::RedisError;
use semel_core::StoreError;

pub(super) use crate::remote::Kind;

/// How a command ended that has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was never sent.
    NotSent(Box<dyn std::error::Error + Send + Sync>, bool),
    /// It was sent, and this came back, or the connection was lost.
    Sent(RedisError),
    /// It was sent, and nothing came back in time.
    NoAnswer,
    /// It is done here, and so many replicas have it, which is not enough.
    TooFewReplicas(i64),
    /// It is done here, and not synced in time, as far as the server says.
    NotSynced,
}

impl Failure {
    /// No connection could be had.
    pub(super) fn no_connection(error: RedisError) -> Self {
        let retry_helps = error.code().is_none_or(|code| judge(code) != Judged::Never);
        Self::NotSent(error.into(), retry_helps)
    }

    fn code(&self) -> Option<&str> {
        match self {
            Self::Sent(error) => error.code(),
            Self::NotSent(..) | Self::NoAnswer | Self::TooFewReplicas(_) | Self::NotSynced => None,
        }
    }

    /// Whether the server does not have the script: it was started anew, or somebody flushed.
    pub(super) fn is_unknown_script(&self) -> bool {
        self.code() == Some("NOSCRIPT")
    }

    /// Whether the connection was lost, perhaps long before the command.
    pub(super) fn is_lost_connection(&self) -> bool {
        matches!(self, Self::Sent(error) if error.code().is_none())
    }

    /// Whether the connection is of no more use: its end, an answer that never came, or a server that has become a replica,
    /// so that its name may lead to another one by now.
    pub(super) fn spoils_connection(&self) -> bool {
        match self {
            Self::NoAnswer => true,
            Self::NotSent(..) | Self::TooFewReplicas(_) | Self::NotSynced => false,
            Self::Sent(error) => {
                error.code().is_none_or(|code| matches!(code, "READONLY" | "MASTERDOWN" | "UNBLOCKED"))
            }
        }
    }

    /// Where a cluster says that the key is, and whether for this one command only.
    pub(super) fn elsewhere(&self) -> Option<(String, u16, bool)> {
        let Self::Sent(error) = self else { return None };
        let (host, port) = error.redirect_node()?;
        Some((host.to_owned(), port, error.code() == Some("ASK")))
    }

    /// Whether another look at the cluster's map may help.
    pub(super) fn is_lost_node(&self) -> bool {
        matches!(self, Self::NotSent(_, true))
            || matches!(self.code(), Some("READONLY" | "MASTERDOWN" | "CLUSTERDOWN"))
    }

    /// As the contract has it.
    pub(super) fn into_error(self, kind: Kind, during: &'static str) -> StoreError {
        let write = kind == Kind::Write;
        match self {
            Self::NotSent(error, retry_helps) => {
                StoreError::not_applied(during, retry_helps, "Redis could not be asked").with_source(error)
            }
            Self::NoAnswer if write => StoreError::in_doubt(during, "Redis did not answer in time"),
            Self::NoAnswer => StoreError::not_applied(during, true, "Redis did not answer in time"),
            Self::TooFewReplicas(have) if write => {
                StoreError::in_doubt(during, format!("only {have} replicas have it"))
            }
            Self::TooFewReplicas(have) => {
                StoreError::not_applied(during, true, format!("only {have} replicas have what is there"))
            }
            Self::NotSynced if write => StoreError::in_doubt(during, "it was not synced in time"),
            Self::NotSynced => StoreError::not_applied(during, true, "what is there was not synced in time"),
            Self::Sent(error) => sent(error, kind, during),
        }
    }
}

fn sent(error: RedisError, kind: Kind, during: &'static str) -> StoreError {
    let judged = match error.code() {
        Some(code) => match (judge(code), kind) {
            (Judged::Later, _) => StoreError::not_applied(during, true, "Redis refused the command for now"),
            (Judged::Never, _) => StoreError::not_applied(during, false, "Redis refused the command"),
            (Judged::Damaged, _) => StoreError::corrupt(during, "a key holds something else"),
            (Judged::Unknown, Kind::Write) => {
                StoreError::in_doubt(during, "an answer that Redis does not give")
            }
            (Judged::Unknown, Kind::Read) => {
                StoreError::not_applied(during, true, "an answer that Redis does not give")
            }
        },
        None if kind == Kind::Write => StoreError::in_doubt(during, "the connection was lost on the way"),
        None => StoreError::not_applied(during, true, "the connection was lost on the way"),
    };
    judged.with_source(error)
}

/// What an error says. A script of this store writes the record last, and the server refuses writes before the first one or
/// not at all: whatever it says, the record is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    /// The same command can succeed later without anybody changing something.
    Later,
    /// Somebody has to change something.
    Never,
    /// What is there is not ours.
    Damaged,
    /// It may come from something between here and the server.
    Unknown,
}

fn judge(code: &str) -> Judged {
    match code {
        // Starting, busy, a replica that may be promoted, a cluster that moves or has no quorum, too few replicas, no
        // memory (until something expires), a disk that fails (until it does not).
        "LOADING" | "BUSY" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK"
        | "NOREPLICAS" | "OOM" | "MISCONF" | "NOSCRIPT" => Judged::Later,
        // Rights and passwords; a command that this server does not know; keys of two slots.
        "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED" | "CROSSSLOT" | "NOPROTO" | "ERR" => Judged::Never,
        "WRONGTYPE" => Judged::Damaged,
        _ => Judged::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use semel_core::error::StoreErrorKind;

    use super::*;

    #[test]
    fn an_error_says_whether_the_write_happened_and_whether_a_retry_helps() {
        const AGAIN: StoreErrorKind = StoreErrorKind::NotApplied { retry_helps: true };
        const NEVER: StoreErrorKind = StoreErrorKind::NotApplied { retry_helps: false };
        const CORRUPT: StoreErrorKind = StoreErrorKind::Corrupt;
        for (code, write, read) in [
            ("LOADING", AGAIN, AGAIN),
            ("BUSY", AGAIN, AGAIN),
            ("READONLY", AGAIN, AGAIN),
            ("CLUSTERDOWN", AGAIN, AGAIN),
            ("TRYAGAIN", AGAIN, AGAIN),
            ("NOREPLICAS", AGAIN, AGAIN),
            ("OOM", AGAIN, AGAIN),
            ("MISCONF", AGAIN, AGAIN),
            ("NOAUTH", NEVER, NEVER),
            ("NOPERM", NEVER, NEVER),
            ("CROSSSLOT", NEVER, NEVER),
            ("ERR", NEVER, NEVER),
            ("WRONGTYPE", CORRUPT, CORRUPT),
            ("UNBLOCKED", StoreErrorKind::InDoubt, AGAIN),
            ("upstream", StoreErrorKind::InDoubt, AGAIN),
        ] {
            let error = || redis::make_extension_error(code.to_owned(), Some("said".to_owned()));
            assert_eq!(sent(error(), Kind::Write, "replace").kind(), write, "{code}, a write");
            assert_eq!(sent(error(), Kind::Read, "load").kind(), read, "{code}, a read");
        }
    }

    #[test]
    fn l12_what_has_no_answer_is_in_doubt_if_it_writes() {
        let io = || RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        for failure in [|| Failure::NoAnswer, || Failure::TooFewReplicas(0), || Failure::NotSynced] {
            assert!(failure().into_error(Kind::Write, "insert").is_in_doubt());
            let read = failure().into_error(Kind::Read, "load").kind();
            assert_eq!(read, StoreErrorKind::NotApplied { retry_helps: true });
        }
        assert!(Failure::Sent(io()).into_error(Kind::Write, "insert").is_in_doubt());
        let not_sent = Failure::NotSent(io().into(), true).into_error(Kind::Write, "insert").kind();
        assert_eq!(not_sent, StoreErrorKind::NotApplied { retry_helps: true });
    }
}
