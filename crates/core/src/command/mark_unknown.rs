//! `mark_unknown`: the holder no longer knows what its attempt did.

use std::sync::Arc;

use super::{Command, Held, Verdict, live};
use crate::id::{Holder, RecordId};
use crate::record::{Record, State, Text, Why};
use crate::time::Timestamp;
use crate::write::Write;

/// Ends an attempt of which nobody knows what it did: the answer was lost after sending, or the work panicked.
#[derive(Clone, Debug)]
pub struct MarkUnknown {
    /// Who holds it.
    pub holder: Holder,
    /// Why nobody knows.
    pub why: Why,
    /// The circumstances.
    pub detail: Text,
}

impl Command for MarkUnknown {
    type Answer = Held;

    fn id(&self) -> RecordId {
        self.holder.id
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Held> {
        let Some(live) = live(record, now).filter(|record| record.answers_to(&self.holder)) else {
            return Verdict::Stay(Held::Fenced(record.cloned()));
        };
        match live.state() {
            State::Running { .. } => {
                let unknown = State::Unknown { why: self.why, detail: self.detail.clone() };
                Verdict::write(Write::next(live, unknown))
            }
            // Said twice, or the lapse was quicker: it is unknown all the same.
            State::Unknown { .. } => Verdict::Stay(Held::Done(Arc::clone(live))),
            // Settled by somebody who knew.
            State::Pending { .. } | State::Released { .. } | State::Completed { .. } | State::Dead { .. } => {
                Verdict::Stay(Held::Fenced(record.cloned()))
            }
        }
    }

    fn answer(&self, written: Arc<Record>) -> Held {
        Held::Done(written)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, token};
    use super::*;
    use crate::command::Claimed;
    use crate::policy::OnLapse;

    #[test]
    fn what_nobody_knows_is_not_run_again_and_the_holder_may_still_find_out() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        let holder = Holder { id: script.record().id(), token: token(1) };
        let unknown = MarkUnknown { holder, why: Why::AnswerLost, detail: "cut after sending".into() };
        assert!(matches!(script.apply(&unknown), Held::Done(_)));
        assert!(matches!(script.apply(&unknown), Held::Done(_)), "its answer was lost");
        assert!(matches!(script.claim(2), Claimed::Unknown(_)), "L7");
        script.complete(1);
    }
}
