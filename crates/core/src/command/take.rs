//! `take`: a worker claims what is due, or what a dead worker has left.

use std::sync::Arc;

use super::claim::{Claim, grant, lapsed_into_unknown};
use super::{Command, Verdict, digest, live};
use crate::id::{RecordId, Token};
use crate::record::{CommandDigest, Record, State, StateName};
use crate::time::Timestamp;
use crate::write::Write;

/// Claims a due record for a worker.
#[derive(Clone, Copy, Debug)]
pub struct Take {
    /// The record.
    pub id: RecordId,
    /// 128 bits that nobody else has.
    pub token: Token,
}

/// What became of taking.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Run it.
    Granted(Claim),
    /// It came to an end instead: unknown, or dead, since its tries were spent.
    Ended(Arc<Record>),
    /// There is nothing to do: somebody was quicker, it is not due, or it is not a worker's to do.
    NotDue(Option<Arc<Record>>),
}

impl Command for Take {
    type Answer = Taken;

    fn id(&self) -> RecordId {
        self.id
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Taken> {
        let Some(live) = live(record, now) else { return Verdict::Stay(Taken::NotDue(None)) };
        let due = live.times().wake.is_some_and(|wake| now >= wake);
        match live.state() {
            State::Pending { .. } if due && live.is_drivable() => self.take(live, false),
            State::Running { .. } if !live.is_lapsed(now) && live.token() == Some(self.token) => {
                Verdict::Stay(Taken::Granted(Claim::of(Arc::clone(live), self.token)))
            }
            State::Running { .. } if live.is_lapsed(now) && live.lapse_is_unknown() => {
                Verdict::write(self.ended(Write::next(live, lapsed_into_unknown()).after_lapse()))
            }
            State::Running { .. } if live.is_lapsed(now) && live.is_drivable() => self.take(live, true),
            // Not due, held by somebody, or only the client can go on with it.
            State::Pending { .. } | State::Running { .. } => {
                Verdict::Stay(Taken::NotDue(Some(Arc::clone(live))))
            }
            // The end that it came upon, and whose answer was lost.
            State::Unknown { .. } | State::Dead { .. } if live.parts().last == self.said() => {
                Verdict::Stay(Taken::Ended(Arc::clone(live)))
            }
            // At rest: nothing in the due order is in one of these states.
            State::Released { .. } | State::Completed { .. } | State::Unknown { .. } | State::Dead { .. } => {
                Verdict::Stay(Taken::NotDue(Some(Arc::clone(live))))
            }
        }
    }

    fn answer(&self, written: Arc<Record>) -> Taken {
        match written.state().name() {
            StateName::Running => Taken::Granted(Claim::of(written, self.token)),
            StateName::Pending
            | StateName::Released
            | StateName::Completed
            | StateName::Unknown
            | StateName::Dead => Taken::Ended(written),
        }
    }
}

impl Take {
    fn said(&self) -> CommandDigest {
        digest("take", Some(self.token), &[])
    }

    fn ended(&self, write: Write) -> Write {
        write.with(|parts| parts.last = self.said())
    }

    /// One try more, if there is one left: an event that kills its worker each time is counted, and buried.
    fn take(&self, record: &Record, lapsed: bool) -> Verdict<Taken> {
        let next = |state| {
            let write = Write::next(record, state);
            if lapsed { write.after_lapse() } else { write }
        };
        if record.tries() >= record.request().policy().retry().max_attempts() {
            let last_error = match record.state() {
                State::Pending { last_error: Some(error) } => error.clone(),
                State::Pending { last_error: None }
                | State::Running { .. }
                | State::Released { .. }
                | State::Completed { .. }
                | State::Unknown { .. }
                | State::Dead { .. } => "the last try ended without a word: its worker died or hung".into(),
            };
            return Verdict::write(self.ended(next(State::Dead { last_error })));
        }
        let running = next(State::Running { attempt_id: None }).raise_fence();
        Verdict::write(grant(running.with(|parts| parts.tainted |= lapsed), self.token))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, token};
    use super::*;
    use crate::policy::OnLapse;

    fn take(script: &mut Script, n: u8) -> Taken {
        let id = script.record().id();
        script.apply(&Take { id, token: token(n) })
    }

    #[test]
    fn what_is_due_is_taken_once() {
        let mut script = Script::new(OnLapse::Resume);
        script.accept();
        assert!(matches!(take(&mut script, 1), Taken::Granted(_)));
        assert!(matches!(take(&mut script, 2), Taken::NotDue(Some(_))), "L1");
        assert!(matches!(take(&mut script, 1), Taken::Granted(_)), "its answer was lost");
    }

    #[test]
    fn work_that_kills_its_worker_each_time_is_counted_and_buried() {
        let mut script = Script::new(OnLapse::Resume);
        script.accept();
        for attempt in 1..=script.record().request().policy().retry().max_attempts() {
            let Taken::Granted(claim) = take(&mut script, 1) else { panic!("attempt {attempt}") };
            assert_eq!(claim.attempt(), attempt);
            script.after_lease();
        }
        let Taken::Ended(record) = take(&mut script, 9) else { panic!("buried") };
        assert_eq!(record.state().name(), StateName::Dead, "L9: it ends");
        assert_eq!(take(&mut script, 9), Taken::Ended(record), "its answer was lost");
        assert!(matches!(take(&mut script, 8), Taken::NotDue(_)), "told once");
    }

    #[test]
    fn a_lapse_at_most_once_is_unknown_and_never_run_again() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.accept();
        take(&mut script, 1);
        script.after_lease();
        let Taken::Ended(record) = take(&mut script, 2) else { panic!("unknown") };
        assert_eq!(record.state().name(), StateName::Unknown, "L7");
        assert_eq!(take(&mut script, 2), Taken::Ended(record), "its answer was lost");
        assert!(matches!(take(&mut script, 3), Taken::NotDue(_)), "told once");
    }
}
