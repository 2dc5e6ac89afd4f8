//! `accept`: takes work in durably, for a worker to do. From then on it must end (L9).

use std::sync::Arc;
use std::time::Duration;

use super::{Command, Verdict, live};
use crate::error::{Invalid, Problem};
use crate::id::{RecordId, Token};
use crate::record::{Record, State, Text};
use crate::request::Request;
use crate::time::Timestamp;
use crate::write::{Wake, Write};

/// Takes work in.
#[derive(Clone, Debug)]
pub struct Accept {
    request: Arc<Request>,
    /// Why it is dead from the beginning, if it is.
    dead: Option<Text>,
    /// How long it waits before it is due.
    after: Duration,
    /// What tells this asking from every other one.
    by: Option<Token>,
}

/// What became of taking work in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is in, durably: by this asking, whatever has become of it if its answer was lost and it was asked again.
    Accepted(Arc<Record>),
    /// It was in before, or has been done: where it stands.
    Duplicate(Arc<Record>),
    /// The key stands for something else.
    Mismatch(Arc<Record>),
}

impl Accept {
    /// Takes this request in.
    ///
    /// # Errors
    /// It has no input, so nobody but the client could ever do it.
    pub fn try_new(request: Arc<Request>) -> Result<Self, Invalid> {
        if request.input().is_none() {
            return Err(Invalid::new("payload", Problem::Empty));
        }
        Ok(Self { request, dead: None, after: Duration::ZERO, by: None })
    }

    /// The same, but that new work is due so long after it was taken in, and not at once. What is there already under its
    /// key is due when it was.
    #[must_use]
    pub fn due_after(self, pause: Duration) -> Self {
        Self { after: pause, ..self }
    }

    /// Files this request among the dead letters, without a try: somebody is to look at it, and may revive it. What is
    /// there already under its key stays as it is.
    ///
    /// # Errors
    /// As [`try_new`](Self::try_new).
    pub fn try_dead(request: Arc<Request>, why: Text) -> Result<Self, Invalid> {
        Ok(Self { dead: Some(why), ..Self::try_new(request)? })
    }

    /// The same, asked under 128 bits that nobody else has: asked again under them, because its answer was lost, it is
    /// answered as it was, and not as its own duplicate.
    #[must_use]
    pub fn asked_by(self, token: Token) -> Self {
        Self { by: Some(token), ..self }
    }

    fn has_taken_in(&self, live: &Record) -> bool {
        self.by.is_some() && live.parts().taken_in_by == self.by
    }
}

impl Command for Accept {
    type Answer = Accepted;

    fn id(&self) -> RecordId {
        self.request.id()
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Accepted> {
        let due_now = Wake::After(Duration::ZERO);
        let Some(live) = live(record, now) else {
            let (state, wake) = match &self.dead {
                None => (State::Pending { last_error: None }, Wake::After(self.after)),
                Some(why) => (State::Dead { last_error: why.clone() }, Wake::Clear),
            };
            let write = Write::begin(Arc::clone(&self.request), record.map(Arc::as_ref), state);
            return Verdict::write(write.wake(wake).with(|parts| {
                parts.accepted = true;
                parts.taken_in_by = self.by;
            }));
        };
        if !self.request.asks_for_the_same_as(live.request()) {
            return Verdict::Stay(Accepted::Mismatch(Arc::clone(live)));
        }
        if self.has_taken_in(live) {
            return Verdict::Stay(Accepted::Accepted(Arc::clone(live)));
        }
        if self.dead.is_some() {
            // Nobody is to work on it, so nothing that stands there is taken in because of it.
            return Verdict::Stay(Accepted::Duplicate(Arc::clone(live)));
        }
        let take_in = |write: Write| {
            Verdict::write(write.with(|parts| {
                parts.accepted = true;
                parts.taken_in_by = self.by;
                if parts.request.input().is_none() {
                    parts.request = Arc::new(parts.request.driven_as(&self.request));
                }
            }))
        };
        match live.state() {
            State::Running { .. } if !live.accepted() => {
                // A lapse that was seen already is in no due order: from now on a worker has to see it (L9).
                let wake = if live.times().wake.is_some() { Wake::Keep } else { due_now };
                take_in(Write::next(live, live.state().clone()).wake(wake))
            }
            State::Released { last_error } => {
                let pending = State::Pending { last_error: Some(last_error.clone()) };
                // Whatever was tried before is known to be without effect, and the schedule is for what comes now: else
                // work whose tries a client has spent would die without one.
                take_in(Write::next(live, pending).wake(due_now).anew())
            }
            // In already, or beyond: it has ended, or an operator has it.
            State::Running { .. }
            | State::Pending { .. }
            | State::Completed { .. }
            | State::Unknown { .. }
            | State::Dead { .. } => Verdict::Stay(Accepted::Duplicate(Arc::clone(live))),
        }
    }

    fn answer(&self, written: Arc<Record>) -> Accepted {
        Accepted::Accepted(written)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, token};
    use super::super::{Lapse, Lapsed, Take, Taken};
    use super::*;
    use crate::policy::OnLapse;
    use crate::record::StateName;

    #[test]
    fn accepted_work_waits_and_accepting_it_again_is_a_duplicate() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        assert!(matches!(script.accept(), Accepted::Accepted(_)));
        assert!(matches!(script.accept(), Accepted::Duplicate(_)));
        script.refuses_busy(1);
    }

    #[test]
    fn an_acceptance_whose_answer_was_lost_is_no_duplicate_of_itself_even_when_its_work_is_done() {
        let mut script = Script::new(OnLapse::Resume);
        let accepted = |answer| matches!(answer, Accepted::Accepted(_));
        assert!(accepted(script.accept_by(1)));
        assert!(accepted(script.accept_by(1)), "asked again");
        assert!(!accepted(script.accept_by(2)), "by somebody else");
        let id = script.record().id();
        assert!(matches!(script.apply(&Take { id, token: token(7) }), Taken::Granted(_)));
        script.complete(7);
        let before = script.record().clone();
        assert!(accepted(script.accept_by(1)), "a worker was quicker than its answer");
        assert!(!accepted(script.accept_by(2)));
        assert_eq!(script.record(), &before);
        script.after_retention();
        assert!(accepted(script.accept_by(2)), "another life, another asking");
        assert!(!accepted(script.accept_by(1)));
    }

    #[test]
    fn l9_work_accepted_while_it_runs_goes_back_to_pending_when_released() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        assert!(matches!(script.accept(), Accepted::Accepted(_)));
        assert_eq!(script.record().state().name(), StateName::Running);
        script.release(1);
        assert_eq!(script.record().state().name(), StateName::Pending);
        assert!(script.record().is_drivable(), "the input came with the acceptance");
    }

    #[test]
    fn accepting_does_not_lengthen_the_lease_of_a_holder_that_may_be_gone() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        let lease = script.record().times().wake;
        script.after_ms(50).accept();
        assert_eq!(script.record().times().wake, lease);
    }

    #[test]
    fn released_work_that_is_accepted_is_due_at_once() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        script.release(1);
        assert!(matches!(script.accept(), Accepted::Accepted(_)));
        assert_eq!(script.record().state().name(), StateName::Pending);
        assert_eq!(script.record().tries(), 0, "its tries begin now");
    }

    #[test]
    fn attempts_rise_whatever_door_they_came_by_and_the_schedule_counts_its_own() {
        let mut script = Script::new(OnLapse::Resume);
        for attempt in 1..=4 {
            assert_eq!(script.granted(1).attempt(), attempt);
            script.release(1);
        }
        script.accept();
        let id = script.record().id();
        let tries = script.record().request().policy().retry().max_attempts();
        for attempt in 5..5 + tries {
            let Taken::Granted(claim) = script.apply(&Take { id, token: token(2) }) else {
                panic!("attempt {attempt}: what its client has spent is none of the schedule's")
            };
            assert_eq!((claim.attempt(), claim.record().tries()), (attempt, attempt - 4));
            script.after_lease();
        }
        assert!(matches!(script.apply(&Take { id, token: token(3) }), Taken::Ended(_)), "and it ends");
    }

    #[test]
    fn what_is_filed_as_dead_is_never_due_and_is_filed_once() {
        let mut script = Script::new(OnLapse::Resume);
        assert!(matches!(script.file("another body"), Accepted::Accepted(_)));
        let before = script.record().clone();
        assert_eq!((before.state().name(), before.attempt(), before.due()), (StateName::Dead, 0, None));
        assert!(before.accepted() && before.is_drivable(), "it can be revived");
        assert!(matches!(script.file("again"), Accepted::Duplicate(_)));
        assert!(matches!(script.accept(), Accepted::Duplicate(_)));
        assert_eq!(script.record(), &before, "and it stays as it was");
        let id = script.record().id();
        assert!(matches!(script.apply(&Take { id, token: token(2) }), Taken::NotDue(_)));
    }

    #[test]
    fn work_that_is_taken_in_for_later_is_due_then_and_not_before() {
        let mut script = Script::new(OnLapse::Resume);
        assert!(matches!(script.accept_for_later(100), Accepted::Accepted(_)));
        let id = script.record().id();
        let take = |script: &mut Script| script.apply(&Take { id, token: token(2) });
        assert!(matches!(take(script.after_ms(99)), Taken::NotDue(_)));
        assert!(matches!(script.accept(), Accepted::Duplicate(_)), "and nobody hurries it by asking again");
        assert!(matches!(take(&mut script), Taken::NotDue(_)));
        assert!(matches!(take(script.after_ms(1)), Taken::Granted(_)));
    }

    #[test]
    fn filing_takes_nothing_in_that_its_client_still_has() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        assert!(matches!(script.file("why"), Accepted::Duplicate(_)));
        assert!(!script.record().accepted(), "it is the client's to end");
        script.release(1);
        assert!(matches!(script.file("why"), Accepted::Duplicate(_)));
        assert_eq!(script.record().state().name(), StateName::Released);
    }

    #[test]
    fn l9_work_accepted_after_its_lapse_was_seen_is_due_at_once() {
        let mut script = Script::new(OnLapse::Resume);
        script.granted(1);
        script.after_lease();
        let id = script.record().id();
        assert!(matches!(script.apply(&Lapse { id }), Lapsed::Parked(_)));
        assert!(matches!(script.accept(), Accepted::Accepted(_)));
        assert!(script.record().due().is_some(), "a worker will see it");
        assert!(matches!(script.apply(&Take { id, token: token(2) }), Taken::Granted(_)));
    }
}
