//! `discard`: an operator puts aside what waits, died or is unknown. It is final, and says so when asked again.

use std::sync::Arc;

use super::resolve::entry;
use super::{Command, Judged, Verdict, digest, live};
use crate::audit::Action;
use crate::id::{RecordId, Version};
use crate::outcome::{Body, Class, Headers, Outcome};
use crate::record::{Record, State, Text};
use crate::time::Timestamp;
use crate::write::Write;

/// The status of a discarded outcome: 410, gone.
const DISCARDED: u16 = 410;

/// Puts a record aside.
#[derive(Clone, Debug)]
pub struct Discard {
    /// The record.
    pub id: RecordId,
    /// The version that was judged.
    pub version: Version,
    /// Who puts it aside.
    pub actor: Text,
    /// Why.
    pub reason: Text,
    /// What links it to a request.
    pub correlation_id: Option<Text>,
}

impl Command for Discard {
    type Answer = Judged;

    fn id(&self) -> RecordId {
        self.id
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Judged> {
        let Some(live) = live(record, now) else { return Verdict::Stay(Judged::NotFound) };
        let said = digest("discard", None, &[self.version.to_string().as_bytes()]);
        if live.parts().last == said {
            return Verdict::Stay(Judged::Done(Arc::clone(live)));
        }
        if live.version() != self.version {
            return Verdict::Stay(Judged::VersionConflict(Arc::clone(live)));
        }
        match live.state() {
            State::Pending { .. } | State::Dead { .. } | State::Unknown { .. } => {
                let outcome = Outcome {
                    class: Class::Discarded,
                    status: DISCARDED,
                    headers: Headers::default(),
                    body: Body::Gone,
                };
                let write = Write::next(live, State::Completed { outcome }).rest().with(|parts| {
                    parts.token = None;
                    parts.checkpoints = Arc::default();
                    parts.last = said;
                });
                let correlation_id = self.correlation_id.as_ref();
                let entry = entry(Action::Discarded, live, &write, &self.actor, &self.reason, correlation_id);
                Verdict::write(write.audited(entry))
            }
            // Somebody is at work on it, or there is nothing left to put aside.
            State::Running { .. } | State::Released { .. } | State::Completed { .. } => Verdict::Stay(
                Judged::Illegal(Arc::clone(live), "only pending, dead or unknown records are discarded"),
            ),
        }
    }

    fn answer(&self, written: Arc<Record>) -> Judged {
        Judged::Done(written)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Script;
    use super::*;
    use crate::command::Claimed;
    use crate::policy::OnLapse;

    #[test]
    fn what_was_discarded_is_final_and_never_runs() {
        let mut script = Script::new(OnLapse::Resume);
        script.dies();
        let (id, version) = (script.record().id(), script.record().version());
        let discard =
            Discard { id, version, actor: "op".into(), reason: "test".into(), correlation_id: None };
        assert!(matches!(script.apply(&discard), Judged::Done(_)));
        let Claimed::Replay(record) = script.claim(9) else { panic!("final") };
        assert_eq!(record.outcome().map(|outcome| outcome.class), Some(Class::Discarded));
    }
}
