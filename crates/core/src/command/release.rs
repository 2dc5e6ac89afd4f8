//! `release`: the attempt is over, and the holder knows that nothing happened.

use std::sync::Arc;
use std::time::Duration;

use super::{Command, Held, Verdict, digest, live};
use crate::id::{Holder, RecordId};
use crate::record::{CommandDigest, Record, State, Text};
use crate::time::Timestamp;
use crate::write::{Wake, Write};

/// Gives a claim back. Only for a holder that knows that nothing happened: the next claim runs.
#[derive(Clone, Debug)]
pub struct Release {
    /// Who held it.
    pub holder: Holder,
    /// Why the attempt ended.
    pub error: Text,
}

impl Command for Release {
    type Answer = Held;

    fn id(&self) -> RecordId {
        self.holder.id
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Held> {
        let said = digest("release", Some(self.holder.token), &[self.error.as_str().as_bytes()]);
        let Some(live) = live(record, now) else { return Verdict::Stay(Held::Fenced(record.cloned())) };
        if !live.answers_to(&self.holder) {
            return Verdict::Stay(said_before(live, said));
        }
        match live.state() {
            State::Running { .. } | State::Unknown { .. } => {
                let write = rest_or_queue(live, self.error.clone(), Duration::ZERO);
                Verdict::write(write.with(|parts| {
                    parts.token = None;
                    parts.last = said;
                }))
            }
            // The attempt has ended otherwise: what it was without is no longer this holder's to say.
            State::Pending { .. } | State::Released { .. } | State::Completed { .. } | State::Dead { .. } => {
                Verdict::Stay(Held::Fenced(record.cloned()))
            }
        }
    }

    fn answer(&self, written: Arc<Record>) -> Held {
        Held::Done(written)
    }
}

/// What a token that answers for nothing any more is told: that it holds what it says, if it has said it before.
pub(super) fn said_before(live: &Arc<Record>, said: CommandDigest) -> Held {
    if live.parts().last == said {
        Held::Done(Arc::clone(live))
    } else {
        Held::Fenced(Some(Arc::clone(live)))
    }
}

/// Released, and forgotten with time; but what was accepted must end, so it goes back into the queue (L9).
pub(super) fn rest_or_queue(record: &Record, error: Text, pause: Duration) -> Write {
    if record.accepted() {
        let pending = State::Pending { last_error: Some(error) };
        Write::next(record, pending).wake(Wake::After(pause))
    } else {
        Write::next(record, State::Released { last_error: error }).rest()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, token};
    use super::*;
    use crate::policy::OnLapse;

    #[test]
    fn after_a_release_the_next_claim_runs_under_a_higher_fence() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        let first = script.granted(1).fence();
        script.release(1);
        assert!(script.granted(2).fence() > first, "L2: a release does not forget the fence");
    }

    #[test]
    fn a_release_said_twice_is_a_success_and_the_token_is_spent() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        script.release(1);
        script.release(1);
        let id = script.record().id();
        let other = Release { holder: Holder { id, token: token(1) }, error: "another word".into() };
        assert!(matches!(script.apply(&other), Held::Fenced(_)));
        script.granted(2);
        assert!(matches!(script.apply(&other), Held::Fenced(_)), "L6");
    }
}
