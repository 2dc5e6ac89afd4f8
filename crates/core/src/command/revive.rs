//! `revive`: a dead record gets its tries anew. It keeps its downstream key.

use std::sync::Arc;
use std::time::Duration;

use super::resolve::entry;
use super::{Command, Judged, Verdict, digest, live};
use crate::audit::Action;
use crate::id::{RecordId, Version};
use crate::record::{Record, State, Text};
use crate::time::Timestamp;
use crate::write::{Wake, Write};

/// Brings a dead letter back, as a new generation.
#[derive(Clone, Debug)]
pub struct Revive {
    /// The record.
    pub id: RecordId,
    /// The version that was judged.
    pub version: Version,
    /// Who brings it back.
    pub actor: Text,
    /// Why.
    pub reason: Text,
    /// What links it to a request.
    pub correlation_id: Option<Text>,
}

impl Command for Revive {
    type Answer = Judged;

    fn id(&self) -> RecordId {
        self.id
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Judged> {
        let Some(live) = live(record, now) else { return Verdict::Stay(Judged::NotFound) };
        let said = digest("revive", None, &[self.version.to_string().as_bytes()]);
        if live.parts().last == said {
            return Verdict::Stay(Judged::Done(Arc::clone(live)));
        }
        if live.version() != self.version {
            return Verdict::Stay(Judged::VersionConflict(Arc::clone(live)));
        }
        match live.state() {
            State::Dead { last_error } if live.is_drivable() => {
                let pending = State::Pending { last_error: Some(last_error.clone()) };
                let write =
                    Write::next(live, pending).wake(Wake::After(Duration::ZERO)).anew().with(|parts| {
                        parts.token = None;
                        parts.accepted = true;
                        parts.generation = parts.generation.saturating_add(1);
                        parts.last = said;
                    });
                let correlation_id = self.correlation_id.as_ref();
                let entry = entry(Action::Revived, live, &write, &self.actor, &self.reason, correlation_id);
                Verdict::write(write.audited(entry))
            }
            // Alive, at rest, or nobody's to run.
            State::Dead { .. }
            | State::Pending { .. }
            | State::Running { .. }
            | State::Released { .. }
            | State::Completed { .. }
            | State::Unknown { .. } => {
                Verdict::Stay(Judged::Illegal(Arc::clone(live), "only dead records are revived"))
            }
        }
    }

    fn answer(&self, written: Arc<Record>) -> Judged {
        Judged::Done(written)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, token};
    use super::*;
    use crate::command::{Effect, Retry, Take, Taken};
    use crate::id::Holder;
    use crate::policy::OnLapse;
    use crate::record::StateName;

    #[test]
    fn a_dead_letter_comes_back_with_all_its_tries_and_the_same_downstream_key() {
        let mut script = Script::new(OnLapse::Resume);
        script.dies();
        let (id, version) = (script.record().id(), script.record().version());
        let revive =
            || Revive { id, version, actor: "op".into(), reason: "fixed".into(), correlation_id: None };
        let attempt = script.record().attempt();
        assert!(matches!(script.apply(&revive()), Judged::Done(_)));
        assert_eq!((script.record().tries(), script.record().generation()), (0, 1));
        assert_eq!(script.record().id(), id, "the downstream key is the id's");
        assert!(matches!(script.apply(&revive()), Judged::Done(_)), "its answer was lost");
        assert_eq!(script.record().generation(), 1);
        let Taken::Granted(claim) = script.apply(&Take { id, token: token(1) }) else { panic!("due") };
        assert_eq!(claim.attempt(), attempt + 1, "a later attempt than any before");
    }

    #[test]
    fn what_is_revived_long_after_it_was_taken_in_has_all_its_tries_and_not_one() {
        let max_age = Duration::from_mins(1);
        let mut script = Script::until(max_age, OnLapse::Resume);
        let fail = |script: &mut Script| {
            let id = script.record().id();
            assert!(matches!(script.apply(&Take { id, token: token(1) }), Taken::Granted(_)));
            let (holder, error) = (Holder { id, token: token(1) }, "503".into());
            let (pause, effect) = (Duration::ZERO, Effect::Possible);
            script.apply(&Retry { holder, error, pause, effect, permanent: false });
            script.record().state().name()
        };
        script.accept();
        script.after_ms(60_000);
        assert_eq!(fail(&mut script), StateName::Dead, "it is too old for another try");
        let (id, version) = (script.record().id(), script.record().version());
        script.apply(&Revive { id, version, actor: "op".into(), reason: "x".into(), correlation_id: None });
        assert_eq!(fail(&mut script), StateName::Pending);
        assert_eq!(fail(&mut script), StateName::Pending);
        assert_eq!(fail(&mut script), StateName::Dead);
    }
}
