//! `accept`: takes work in durably, for a worker to do. From then on it must end (L9).

use std::sync::Arc;
use std::time::Duration;

use super::{Command, Verdict, live};
use crate::error::{Invalid, Problem};
use crate::id::RecordId;
use crate::record::{Record, State};
use crate::request::Request;
use crate::time::Timestamp;
use crate::write::{Wake, Write};

/// Takes work in.
#[derive(Clone, Debug)]
pub struct Accept {
    request: Arc<Request>,
}

/// What became of taking work in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is in, durably.
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
        Ok(Self { request })
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
            let pending = State::Pending { last_error: None };
            let write = Write::begin(Arc::clone(&self.request), record.map(Arc::as_ref), pending);
            return Verdict::write(write.wake(due_now).with(|parts| parts.accepted = true));
        };
        if !self.request.asks_for_the_same_as(live.request()) {
            return Verdict::Stay(Accepted::Mismatch(Arc::clone(live)));
        }
        let take_in = |write: Write| {
            Verdict::write(write.with(|parts| {
                parts.accepted = true;
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
                take_in(Write::next(live, pending).wake(due_now).with(|parts| parts.attempt = 0))
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
        assert_eq!(script.record().attempt(), 0, "its tries begin now");
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
