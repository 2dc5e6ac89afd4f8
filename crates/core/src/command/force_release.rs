//! `force_release`: an operator takes the guard of a job from its holder.

use std::sync::Arc;

use super::resolve::entry;
use super::{Command, Judged, Verdict, digest, live};
use crate::audit::Action;
use crate::id::{Namespace, RecordId, Version};
use crate::record::{Record, State, Text};
use crate::time::Timestamp;
use crate::write::Write;

/// Releases the running guard of a job; its holder is fenced.
#[derive(Clone, Debug)]
pub struct ForceRelease {
    /// The guard.
    pub id: RecordId,
    /// The version that was judged.
    pub version: Version,
    /// Who does it.
    pub actor: Text,
    /// Why.
    pub reason: Text,
    /// What links it to a request.
    pub correlation_id: Option<Text>,
}

impl Command for ForceRelease {
    type Answer = Judged;

    fn id(&self) -> RecordId {
        self.id
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Judged> {
        let Some(live) = live(record, now) else { return Verdict::Stay(Judged::NotFound) };
        let said = digest("force_release", None, &[self.version.to_string().as_bytes()]);
        if live.parts().last == said {
            return Verdict::Stay(Judged::Done(Arc::clone(live)));
        }
        if live.version() != self.version {
            return Verdict::Stay(Judged::VersionConflict(Arc::clone(live)));
        }
        match live.state() {
            State::Running { .. }
                if live.request().scope().namespace == Namespace::Job && !live.accepted() =>
            {
                let released = State::Released { last_error: self.reason.clone() };
                let write = Write::next(live, released).rest().with(|parts| {
                    parts.token = None;
                    parts.last = said;
                });
                let correlation_id = self.correlation_id.as_ref();
                let entry =
                    entry(Action::ForcedRelease, live, &write, &self.actor, &self.reason, correlation_id);
                Verdict::write(write.audited(entry))
            }
            // Not a guard, or not held: whatever runs elsewhere may have had its effect.
            State::Running { .. }
            | State::Pending { .. }
            | State::Released { .. }
            | State::Completed { .. }
            | State::Unknown { .. }
            | State::Dead { .. } => Verdict::Stay(Judged::Illegal(
                Arc::clone(live),
                "only the running guard of a job can be released by force",
            )),
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
    use crate::command::Held;
    use crate::policy::OnLapse;
    use crate::record::StateName;

    fn force(script: &mut Script) -> Judged {
        let (id, version) = (script.record().id(), script.record().version());
        let force =
            ForceRelease { id, version, actor: "op".into(), reason: "hung".into(), correlation_id: None };
        script.apply(&force)
    }

    #[test]
    fn a_guard_is_freed_and_its_holder_fenced() {
        let mut script = Script::in_namespace(Namespace::Job, OnLapse::Resume);
        script.granted(1);
        assert!(matches!(force(&mut script), Judged::Done(_)));
        assert_eq!(script.record().state().name(), StateName::Released);
        assert!(matches!(script.try_extend(1), Held::Fenced(_)), "L6");
    }

    #[test]
    fn nothing_but_a_guard_is_released_by_force() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        assert!(matches!(force(&mut script), Judged::Illegal(..)), "L7");
    }
}
