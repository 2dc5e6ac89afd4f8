//! `resolve`: a probe or an operator says what an unknown or dead record did.

use std::sync::Arc;
use std::time::Duration;

use super::release::rest_or_queue;
use super::{Command, Judged, Verdict, digest, live};
use crate::audit::{Action, Entry};
use crate::id::{RecordId, Version};
use crate::outcome::{Body, Class, Outcome};
use crate::record::{CommandDigest, Record, State, Text};
use crate::time::Timestamp;
use crate::write::Write;

/// What it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It took effect, and gave this.
    Completed(Outcome),
    /// It had no effect and never will: the target refuses lower fences, or has durably cancelled the key.
    NotExecuted,
}

/// Settles what nobody knew.
#[derive(Clone, Debug)]
pub struct Resolve {
    /// The record.
    pub id: RecordId,
    /// The version that was judged.
    pub version: Version,
    /// What it did.
    pub resolution: Resolution,
    /// Who says so.
    pub actor: Text,
    /// Why.
    pub reason: Text,
    /// What links it to a request.
    pub correlation_id: Option<Text>,
}

impl Command for Resolve {
    type Answer = Judged;

    fn id(&self) -> RecordId {
        self.id
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Judged> {
        let Some(live) = live(record, now) else { return Verdict::Stay(Judged::NotFound) };
        let said = self.said();
        if live.parts().last == said {
            return Verdict::Stay(Judged::Done(Arc::clone(live)));
        }
        if live.version() != self.version {
            return Verdict::Stay(Judged::VersionConflict(Arc::clone(live)));
        }
        match live.state() {
            State::Unknown { .. } | State::Dead { .. } => self.resolve(live, said),
            // Nothing about it is unknown.
            State::Pending { .. }
            | State::Running { .. }
            | State::Released { .. }
            | State::Completed { .. } => {
                Verdict::Stay(Judged::Illegal(Arc::clone(live), "only unknown or dead records are resolved"))
            }
        }
    }

    fn answer(&self, written: Arc<Record>) -> Judged {
        Judged::Done(written)
    }
}

impl Resolve {
    /// All of what is said, so that another outcome is another resolution, however little of it differs.
    fn said(&self) -> CommandDigest {
        let version = self.version.to_string();
        let Resolution::Completed(Outcome { class, status, headers, body }) = &self.resolution else {
            return digest("resolve", None, &[version.as_bytes(), b"not executed"]);
        };
        let status = status.to_le_bytes();
        let class: &[u8] = match class {
            Class::Success => b"success",
            Class::Rejection => b"rejection",
            Class::Discarded => b"discarded",
        };
        let (kind, body): (&[u8], &[u8]) = match body {
            Body::Gone => (b"gone", b""),
            Body::Kept(body) => (b"kept", body),
        };
        let mut parts = vec![version.as_bytes(), kind, class, &status, body];
        for header in headers {
            parts.extend([header.name.as_bytes(), &header.value]);
        }
        digest("resolve", None, &parts)
    }

    fn resolve(&self, live: &Record, said: CommandDigest) -> Verdict<Judged> {
        let write = match &self.resolution {
            Resolution::Completed(outcome) => {
                let completed = State::Completed { outcome: outcome.clone() };
                Write::next(live, completed).rest().with(|parts| parts.checkpoints = Arc::default())
            }
            // It is as if it had never been tried, so its tries begin anew.
            Resolution::NotExecuted => {
                let write = rest_or_queue(live, self.reason.clone(), Duration::ZERO);
                write.anew().with(|parts| parts.tainted = false)
            }
        };
        let entry =
            entry(Action::Resolved, live, &write, &self.actor, &self.reason, self.correlation_id.as_ref());
        Verdict::write(write.with(|parts| parts.last = said).audited(entry))
    }
}

/// The audit entry of an operator's command, durable with its effect.
pub(super) fn entry(
    action: Action,
    record: &Record,
    write: &Write,
    actor: &Text,
    reason: &Text,
    correlation_id: Option<&Text>,
) -> Entry {
    let mut entry = Entry::new(action, actor.clone()).about(record.request());
    entry.from = Some(record.state().name());
    entry.to = Some(write.state());
    entry.reason = Some(reason.clone());
    entry.correlation_id = correlation_id.cloned();
    entry
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::testing::{Script, outcome};
    use super::*;
    use crate::command::Claimed;
    use crate::outcome::{Header, Headers};
    use crate::policy::OnLapse;
    use crate::record::StateName;

    fn unknown() -> Script {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        script.after_lease();
        script.claim(2);
        script
    }

    #[test]
    fn what_was_not_executed_may_run_and_what_was_is_replayed() {
        let mut script = unknown();
        script.resolve(Resolution::NotExecuted);
        script.granted(3);
        let mut script = unknown();
        script.resolve(Resolution::Completed(outcome("found")));
        assert!(matches!(script.claim(3), Claimed::Replay(_)));
    }

    #[test]
    fn l6_a_resolution_of_a_version_that_has_changed_changes_nothing() {
        let mut script = unknown();
        let stale = script.record().version();
        script.complete(1);
        let before = script.record().clone();
        let answer = script.resolve_version(stale, Resolution::NotExecuted);
        assert!(matches!(answer, Judged::VersionConflict(_)));
        assert_eq!(script.record(), &before, "a late complete is not undone");
    }

    #[test]
    fn a_resolution_is_repeated_only_by_the_whole_of_it() {
        let (mut script, said) = (unknown(), outcome("found"));
        let version = script.record().version();
        script.resolve(Resolution::Completed(said.clone()));
        let before = script.record().clone();
        let mut say = |outcome| script.resolve_version(version, Resolution::Completed(outcome));
        assert!(matches!(say(said.clone()), Judged::Done(_)), "its answer was lost, and is repeated");
        let header = Header { name: "location".into(), value: Bytes::from_static(b"/invoices/7") };
        let headers = Headers::try_new(vec![header]).unwrap();
        for other in [
            Outcome { class: Class::Rejection, ..said.clone() },
            Outcome { status: 201, ..said.clone() },
            Outcome { headers, ..said.clone() },
            Outcome { body: Body::Kept(Bytes::from_static(b"other")), ..said.clone() },
            Outcome { body: Body::Gone, ..said },
        ] {
            let answer = say(other.clone());
            assert!(matches!(answer, Judged::VersionConflict(_)), "{other:?}: {answer:?}");
        }
        assert_eq!(script.record(), &before, "L3");
    }

    #[test]
    fn l9_accepted_work_that_was_not_executed_goes_back_into_the_queue() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        script.accept();
        script.after_lease();
        script.claim(2);
        script.resolve(Resolution::NotExecuted);
        assert_eq!(script.record().state().name(), StateName::Pending);
    }

    #[test]
    fn the_audit_entry_is_part_of_the_write() {
        let mut script = unknown();
        script.resolve(Resolution::NotExecuted);
        let entry = script.audit().last().unwrap();
        assert_eq!((entry.action, entry.to), (Action::Resolved, Some(StateName::Released)));
    }
}
