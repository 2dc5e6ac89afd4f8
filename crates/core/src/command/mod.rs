//! Commands: the pure transitions of the ledger, one file each.
//!
//! A command is judged in this order: expiry, then fingerprint, then state. It either leaves the record as it is
//! (and the answer is known), or says what the record becomes (and the answer is known once a store has written it).
//! Deciding a command again on the record that it has written leaves it as it is and repeats the answer: that is how
//! a lost answer, and a write in doubt, are settled.

use std::sync::Arc;

use crate::id::{RecordId, Token, frame};
use crate::record::{CommandDigest, Record};
use crate::time::Timestamp;
use crate::write::Write;

mod accept;
mod checkpoint;
mod claim;
mod complete;
mod discard;
mod drop_payload;
mod extend;
mod force_release;
mod lapse;
mod mark_unknown;
mod postpone;
mod release;
mod resolve;
mod retry;
mod revive;
mod take;
#[cfg(test)]
pub(crate) mod testing;

pub use accept::{Accept, Accepted};
pub use checkpoint::AddCheckpoint;
pub use claim::{Claim, ClaimKey, Claimed};
pub use complete::Complete;
pub use discard::Discard;
pub use drop_payload::{DropPayload, Dropped};
pub use extend::Extend;
pub use force_release::ForceRelease;
pub use lapse::{Lapse, Lapsed};
pub use mark_unknown::MarkUnknown;
pub use postpone::Postpone;
pub use release::Release;
pub use resolve::{Resolution, Resolve};
pub use retry::{Effect, Retry};
pub use revive::Revive;
pub use take::{Take, Taken};

/// What a command decided.
#[derive(Clone, Debug)]
pub enum Verdict<A> {
    /// The record stays as it is.
    Stay(A),
    /// The record becomes this; the answer follows from what the store has written.
    Write(Box<Write>),
}

impl<A> Verdict<A> {
    pub(crate) fn write(write: Write) -> Self {
        Self::Write(Box::new(write))
    }
}

/// A pure transition of one record.
pub trait Command: Send + Sync {
    /// What it answers.
    type Answer: Send;

    /// Which record it is about.
    fn id(&self) -> RecordId;

    /// Decides it on what is stored. `now` is the store's time.
    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Self::Answer>;

    /// What it answers once its write is durable.
    fn answer(&self, written: Arc<Record>) -> Self::Answer;
}

/// What a command of a holder answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// It holds, now or since it was said before.
    Done(Arc<Record>),
    /// The token is wrong, stale or spent: stop, the claim is lost. Nothing changed (L6).
    Fenced(Option<Arc<Record>>),
    /// The token is right, and the command not possible: why.
    Illegal(Arc<Record>, &'static str),
}

/// What a command of an operator or a probe answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It holds, now or since it was said before.
    Done(Arc<Record>),
    /// The record has changed since it was judged.
    VersionConflict(Arc<Record>),
    /// It is in no state for this command: why.
    Illegal(Arc<Record>, &'static str),
    /// There is none.
    NotFound,
}

/// The record, unless it is as good as absent (L8).
pub(crate) fn live(record: Option<&Arc<Record>>, now: Timestamp) -> Option<&Arc<Record>> {
    record.filter(|record| !record.is_expired(now))
}

/// A digest over what a command says, for those that leave no other trace in the record.
pub(crate) fn digest(kind: &str, token: Option<Token>, parts: &[&[u8]]) -> CommandDigest {
    let mut digest = blake3::Hasher::new();
    frame(&mut digest, kind.as_bytes());
    frame(&mut digest, token.as_ref().map_or(&[], |token| token.as_bytes()));
    for part in parts {
        frame(&mut digest, part);
    }
    CommandDigest(crate::id::first_16(&digest))
}
