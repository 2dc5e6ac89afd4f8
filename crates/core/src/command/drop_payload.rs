//! `drop_payload`: a completed record gives up its input. Key, fingerprint, state and outcome stay as they are, and for as
//! long as they would have: whoever comes again is told the same (L3).

use std::sync::Arc;

use super::{Command, Verdict, live};
use crate::id::RecordId;
use crate::record::{Record, State};
use crate::time::Timestamp;
use crate::write::Write;

/// Drops the input of what is done, once its time has come.
#[derive(Clone, Copy, Debug)]
pub struct DropPayload {
    /// The record.
    pub id: RecordId,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The input is gone.
    Gone(Arc<Record>),
    /// The record is not there, not done, or its input is to be kept for longer or was dropped before.
    Nothing,
}

impl Command for DropPayload {
    type Answer = Dropped;

    fn id(&self) -> RecordId {
        self.id
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Dropped> {
        let Some(live) = live(record, now) else { return Verdict::Stay(Dropped::Nothing) };
        match live.state() {
            State::Completed { .. } if live.times().wake.is_some_and(|wake| now >= wake) => {
                Verdict::write(Write::next(live, live.state().clone()).without_input())
            }
            // Its time has not come, or it has none.
            State::Completed { .. } => Verdict::Stay(Dropped::Nothing),
            // Somebody may have to drive it yet, if only an operator: what was accepted is never lost (L9).
            State::Pending { .. }
            | State::Running { .. }
            | State::Released { .. }
            | State::Unknown { .. }
            | State::Dead { .. } => Verdict::Stay(Dropped::Nothing),
        }
    }

    fn answer(&self, written: Arc<Record>) -> Dropped {
        Dropped::Gone(written)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PAYLOAD_MS, Script, token};
    use super::super::{Accepted, Complete, Discard, Held, Judged, Take, Taken};
    use super::*;
    use crate::command::testing::outcome;
    use crate::id::Holder;
    use crate::policy::OnLapse;
    use crate::record::StateName;

    fn drop_payload(script: &mut Script) -> Dropped {
        let id = script.record().id();
        script.apply(&DropPayload { id })
    }

    /// Taken in and delivered.
    fn done() -> Script {
        let mut script = Script::dropping_payloads();
        script.accept();
        let id = script.record().id();
        assert!(matches!(script.apply(&Take { id, token: token(1) }), Taken::Granted(_)));
        script.complete(1);
        script
    }

    #[test]
    fn l3_a_payload_goes_before_its_record_and_nothing_else_does() {
        let mut script = done();
        let before = script.record().clone();
        assert_eq!(
            before.due().map(|due| due.since(before.times().written).as_millis()),
            Some(PAYLOAD_MS.into())
        );
        assert_eq!(before.due_lane(), None, "no target holds it up");
        script.after_ms(PAYLOAD_MS - 1);
        assert_eq!(drop_payload(&mut script), Dropped::Nothing, "its time has not come");
        assert_eq!(script.record(), &before);
        script.after_ms(1);
        assert!(matches!(drop_payload(&mut script), Dropped::Gone(_)));
        let after = script.record().clone();
        assert!(after.payload_is_gone() && !before.payload_is_gone());
        assert_eq!((after.request().input(), after.due()), (None, None));
        assert_eq!(
            (after.state(), after.request().fingerprint()),
            (before.state(), before.request().fingerprint())
        );
        assert_eq!(
            (after.times().settled, after.times().expires),
            (before.times().settled, before.times().expires),
            "it is kept for as long as it would have been"
        );
        assert_eq!(drop_payload(&mut script), Dropped::Nothing, "its answer was lost");
        assert_eq!(script.record(), &after);
    }

    #[test]
    fn a_duplicate_across_the_boundary_of_its_payload_is_refused_and_so_is_another_body() {
        let mut script = done();
        script.after_ms(PAYLOAD_MS);
        assert!(matches!(drop_payload(&mut script), Dropped::Gone(_)));
        let before = script.record().clone();
        assert!(matches!(script.accept(), Accepted::Duplicate(_)));
        assert!(matches!(script.accept_other(), Accepted::Mismatch(_)));
        let holder = Holder { id: before.id(), token: token(1) };
        let again = script.apply(&Complete { holder, outcome: outcome("done") });
        assert!(matches!(again, Held::Done(_)), "a late repetition of what completed it holds still");
        assert_eq!(script.record(), &before);
        script.after_retention();
        assert!(matches!(script.accept(), Accepted::Accepted(_)), "with the record its identity has gone");
    }

    #[test]
    fn l9_what_could_still_be_delivered_keeps_its_payload_however_old_it_is() {
        let mut script = Script::dropping_payloads();
        script.accept();
        let keeps = |script: &mut Script, state| {
            script.after_ms(10 * PAYLOAD_MS);
            let before = script.record().clone();
            assert_eq!(before.state().name(), state);
            assert_eq!(drop_payload(script), Dropped::Nothing);
            assert_eq!(script.record(), &before);
        };
        keeps(&mut script, StateName::Pending);
        let id = script.record().id();
        assert!(matches!(script.apply(&Take { id, token: token(1) }), Taken::Granted(_)));
        keeps(&mut script, StateName::Running);
        script.dies();
        keeps(&mut script, StateName::Dead);
        let version = script.record().version();
        let discard = Discard { id, version, actor: "op".into(), reason: "x".into(), correlation_id: None };
        assert!(matches!(script.apply(&discard), Judged::Done(_)));
        script.after_ms(PAYLOAD_MS);
        assert!(matches!(drop_payload(&mut script), Dropped::Gone(_)), "what was put aside is done");
        assert!(matches!(script.apply(&discard), Judged::Done(_)), "its answer was lost");
    }

    #[test]
    fn a_record_without_a_payload_or_without_a_time_for_it_is_never_due() {
        let mut script = Script::dropping_payloads();
        script.granted(1);
        script.complete(1);
        assert_eq!(script.record().due(), None, "only its client had the payload");
        let mut script = Script::new(OnLapse::Resume);
        script.accept();
        let id = script.record().id();
        assert!(matches!(script.apply(&Take { id, token: token(1) }), Taken::Granted(_)));
        script.complete(1);
        assert_eq!(script.record().due(), None, "it is kept for as long as the record");
        script.after_ms(10 * PAYLOAD_MS);
        assert_eq!(drop_payload(&mut script), Dropped::Nothing);
    }
}
