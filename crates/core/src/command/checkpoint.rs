//! `checkpoint`: a step of the operation is done, and what it gave; handed to whoever takes over.

use std::sync::Arc;

use super::{Command, Held, Verdict, live};
use crate::id::{Holder, RecordId};
use crate::limits;
use crate::record::{Checkpoint, Record, State};
use crate::time::Timestamp;
use crate::write::{Wake, Write};

/// Adds a checkpoint after those that are there.
#[derive(Clone, Debug)]
pub struct AddCheckpoint {
    /// Who holds the claim.
    pub holder: Holder,
    /// What is done.
    pub checkpoint: Checkpoint,
}

impl Command for AddCheckpoint {
    type Answer = Held;

    fn id(&self) -> RecordId {
        self.holder.id
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Held> {
        let Some(live) = live(record, now).filter(|record| record.answers_to(&self.holder)) else {
            return Verdict::Stay(Held::Fenced(record.cloned()));
        };
        match live.state() {
            State::Running { .. } => self.add(live),
            // A lapse at most once, an end, a return: the attempt is over, and no step of it counts any more.
            State::Unknown { .. }
            | State::Pending { .. }
            | State::Released { .. }
            | State::Completed { .. }
            | State::Dead { .. } => Verdict::Stay(Held::Fenced(record.cloned())),
        }
    }

    fn answer(&self, written: Arc<Record>) -> Held {
        Held::Done(written)
    }
}

impl AddCheckpoint {
    fn add(&self, live: &Arc<Record>) -> Verdict<Held> {
        let done = live.checkpoints();
        if let Some(known) = done.iter().find(|known| known.phase() == self.checkpoint.phase()) {
            let same = *known == self.checkpoint;
            let illegal = "this phase is checkpointed with other data";
            return Verdict::Stay(if same {
                Held::Done(Arc::clone(live))
            } else {
                Held::Illegal(Arc::clone(live), illegal)
            });
        }
        if done.len() >= limits::CHECKPOINTS_MAX {
            return Verdict::Stay(Held::Illegal(Arc::clone(live), "there are 64 checkpoints already"));
        }
        let checkpoints = done.iter().chain([&self.checkpoint]).cloned().collect();
        let write = Write::next(live, live.state().clone()).wake(Wake::Keep);
        Verdict::write(write.with(|parts| parts.checkpoints = checkpoints))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::testing::{Script, token};
    use super::*;
    use crate::id::Phase;
    use crate::policy::OnLapse;

    fn add(script: &mut Script, holder: u8, phase: &str, data: &'static str) -> Held {
        let holder = Holder { id: script.record().id(), token: token(holder) };
        let phase = Phase::try_new(phase).unwrap();
        let checkpoint = Checkpoint::try_new(phase, Bytes::from_static(data.as_bytes())).unwrap();
        script.apply(&AddCheckpoint { holder, checkpoint })
    }

    #[test]
    fn a_takeover_is_handed_all_steps_in_order() {
        let mut script = Script::new(OnLapse::Resume);
        script.granted(1);
        assert!(matches!(add(&mut script, 1, "reserve", "r1"), Held::Done(_)));
        assert!(matches!(add(&mut script, 1, "charge", "c1"), Held::Done(_)));
        script.after_lease();
        let claim = script.granted(2);
        let phases: Vec<_> = claim.checkpoints().iter().map(|done| done.phase().as_str()).collect();
        assert_eq!(phases, ["reserve", "charge"]);
        assert!(matches!(add(&mut script, 1, "ship", "s1"), Held::Fenced(_)), "L6");
    }

    #[test]
    fn a_step_said_twice_is_a_success_and_said_otherwise_an_error() {
        let mut script = Script::new(OnLapse::Resume);
        script.granted(1);
        add(&mut script, 1, "reserve", "r1");
        let before = script.record().clone();
        assert!(matches!(add(&mut script, 1, "reserve", "r1"), Held::Done(_)));
        assert!(matches!(add(&mut script, 1, "reserve", "r2"), Held::Illegal(..)));
        assert_eq!(script.record(), &before);
    }

    #[test]
    fn a_checkpoint_does_not_lengthen_the_lease() {
        let mut script = Script::new(OnLapse::Resume);
        script.granted(1);
        let lease = script.record().times().wake;
        script.after_ms(50);
        add(&mut script, 1, "reserve", "r1");
        assert_eq!(script.record().times().wake, lease);
    }
}
