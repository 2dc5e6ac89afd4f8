//! `extend`: a holder's heartbeat. Also after the lapse, if nobody took over.

use std::sync::Arc;

use super::{Command, Held, Verdict, live};
use crate::id::{Holder, RecordId};
use crate::record::{Record, State};
use crate::time::Timestamp;
use crate::write::{Wake, Write};

/// Renews a lease for its whole length.
#[derive(Clone, Copy, Debug)]
pub struct Extend {
    /// Who holds it.
    pub holder: Holder,
}

impl Command for Extend {
    type Answer = Held;

    fn id(&self) -> RecordId {
        self.holder.id
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Held> {
        let Some(live) = live(record, now).filter(|record| record.answers_to(&self.holder)) else {
            return Verdict::Stay(Held::Fenced(record.cloned()));
        };
        let lease = Wake::After(live.request().policy().lease());
        match live.state() {
            State::Running { .. } => Verdict::write(Write::next(live, live.state().clone()).wake(lease)),
            State::Unknown { .. } => {
                Verdict::write(Write::next(live, State::Running { attempt_id: None }).wake(lease))
            }
            // The attempt is over: there is no lease to renew.
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
    use crate::policy::OnLapse;

    #[test]
    fn a_heartbeat_keeps_the_claim_however_long_the_work_takes() {
        let mut script = Script::new(OnLapse::Resume);
        script.granted(1);
        for _ in 0..10 {
            script.after_part_of_lease().extend(1);
        }
        script.refuses_busy(2);
    }

    #[test]
    fn a_late_heartbeat_counts_if_nobody_took_over_and_is_fenced_if_somebody_did() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        script.after_lease();
        script.claim(2);
        script.extend(1);
        script.refuses_busy(3);
        let mut script = Script::new(OnLapse::Resume);
        script.granted(1);
        script.after_lease();
        script.granted(2);
        let before = script.record().clone();
        let id = before.id();
        let stale = Extend { holder: Holder { id, token: token(1) } };
        assert!(matches!(script.apply(&stale), Held::Fenced(_)), "L6");
        assert_eq!(script.record(), &before);
    }
}
