//! `complete`: what the operation gave. Durable before anyone is told (L4), and final (L3).

use std::sync::Arc;

use super::{Command, Held, Verdict, live};
use crate::id::{Holder, RecordId};
use crate::outcome::Outcome;
use crate::record::{CommandDigest, Record, State};
use crate::time::Timestamp;
use crate::write::Write;

/// Settles a claim with what the operation gave. A late one counts if nobody took over.
#[derive(Clone, Debug)]
pub struct Complete {
    /// Who held it.
    pub holder: Holder,
    /// What the operation gave.
    pub outcome: Outcome,
}

impl Command for Complete {
    type Answer = Held;

    fn id(&self) -> RecordId {
        self.holder.id
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Held> {
        let Some(live) = live(record, now).filter(|record| record.answers_to(&self.holder)) else {
            return Verdict::Stay(Held::Fenced(record.cloned()));
        };
        match live.state() {
            State::Running { .. } | State::Unknown { .. } | State::Dead { .. } => self.complete(live),
            // Still answers to the token only if somebody else said "not executed": the holder knows better.
            State::Released { .. } | State::Pending { .. } => self.complete(live),
            State::Completed { outcome } if *outcome == self.outcome => {
                Verdict::Stay(Held::Done(Arc::clone(live)))
            }
            // It is final (L3), and the holder says otherwise than what was said.
            State::Completed { .. } => Verdict::Stay(Held::Fenced(record.cloned())),
        }
    }

    fn answer(&self, written: Arc<Record>) -> Held {
        Held::Done(written)
    }
}

impl Complete {
    fn complete(&self, live: &Record) -> Verdict<Held> {
        let completed = State::Completed { outcome: self.outcome.clone() };
        Verdict::write(Write::next(live, completed).rest().with(|parts| {
            parts.checkpoints = Arc::default();
            parts.last = CommandDigest::default();
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, outcome, token};
    use super::*;
    use crate::command::Resolution;
    use crate::policy::OnLapse;
    use crate::record::StateName;

    fn complete(script: &mut Script, holder: u8, body: &'static str) -> Held {
        let holder = Holder { id: script.record().id(), token: token(holder) };
        script.apply(&Complete { holder, outcome: outcome(body) })
    }

    #[test]
    fn a_complete_whose_answer_was_lost_is_a_success_and_not_fenced() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        assert!(matches!(complete(&mut script, 1, "a"), Held::Done(_)));
        let before = script.record().clone();
        assert!(matches!(complete(&mut script, 1, "a"), Held::Done(_)));
        assert!(matches!(complete(&mut script, 1, "b"), Held::Fenced(_)), "L3");
        assert_eq!(script.record(), &before);
    }

    #[test]
    fn a_stale_owner_completes_nothing_of_the_new_owner() {
        let mut script = Script::new(OnLapse::Resume);
        script.granted(1);
        script.after_lease();
        script.granted(2);
        assert!(matches!(complete(&mut script, 1, "a"), Held::Fenced(_)), "L6");
        assert!(matches!(complete(&mut script, 2, "b"), Held::Done(_)));
    }

    #[test]
    fn a_late_complete_counts_if_nobody_took_over() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        script.after_lease();
        script.claim(2);
        assert_eq!(script.record().state().name(), StateName::Unknown);
        assert!(matches!(complete(&mut script, 1, "a"), Held::Done(_)));
    }

    #[test]
    fn a_holder_that_was_resolved_as_not_executed_may_still_say_that_it_was() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        script.after_lease();
        script.claim(2);
        script.resolve(Resolution::NotExecuted);
        assert_eq!(script.record().state().name(), StateName::Released);
        assert!(matches!(complete(&mut script, 1, "a"), Held::Done(_)));
    }

    #[test]
    fn the_result_is_kept_from_the_end_for_the_retention_and_the_lease_is_not() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        script.after_ms(70);
        complete(&mut script, 1, "a");
        let record = script.record();
        let retention = record.request().policy().retention();
        assert_eq!(record.times().wake, None);
        assert_eq!(record.times().expires, record.times().settled.map(|end| end.plus(retention)));
    }
}
