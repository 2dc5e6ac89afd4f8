//! `postpone`: due work waits longer, since its target's circuit is open. Spends no try.

use std::sync::Arc;
use std::time::Duration;

use super::{Command, Judged, Verdict, digest, live};
use crate::id::{RecordId, Version};
use crate::record::{Record, State};
use crate::time::Timestamp;
use crate::write::{Wake, Write};

/// Puts the due time of a pending record off.
#[derive(Clone, Copy, Debug)]
pub struct Postpone {
    /// The record.
    pub id: RecordId,
    /// The version that was judged.
    pub version: Version,
    /// How long from now.
    pub pause: Duration,
}

impl Command for Postpone {
    type Answer = Judged;

    fn id(&self) -> RecordId {
        self.id
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Judged> {
        let Some(live) = live(record, now) else { return Verdict::Stay(Judged::NotFound) };
        let pause = u64::try_from(self.pause.as_millis()).unwrap_or(u64::MAX).to_le_bytes();
        let said = digest("postpone", None, &[self.version.to_string().as_bytes(), &pause]);
        if live.parts().last == said {
            return Verdict::Stay(Judged::Done(Arc::clone(live)));
        }
        if live.version() != self.version {
            return Verdict::Stay(Judged::VersionConflict(Arc::clone(live)));
        }
        match live.state() {
            State::Pending { .. } => {
                let write = Write::next(live, live.state().clone()).wake(Wake::After(self.pause));
                Verdict::write(write.with(|parts| parts.last = said))
            }
            // Somebody has it, or it has ended: there is nothing to put off.
            State::Running { .. }
            | State::Released { .. }
            | State::Completed { .. }
            | State::Unknown { .. }
            | State::Dead { .. } => {
                Verdict::Stay(Judged::Illegal(Arc::clone(live), "only pending work waits"))
            }
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
    use crate::policy::OnLapse;

    #[test]
    fn an_open_circuit_spends_no_try() {
        let mut script = Script::new(OnLapse::Resume);
        script.accept();
        let (id, version) = (script.record().id(), script.record().version());
        let postpone = Postpone { id, version, pause: Duration::from_secs(60) };
        assert!(matches!(script.apply(&postpone), Judged::Done(_)));
        assert_eq!(script.record().attempt(), 0);
        let postponed = script.record().clone();
        assert!(matches!(script.apply(&postpone), Judged::Done(_)), "its answer was lost");
        let other = Postpone { pause: Duration::from_secs(61), ..postpone };
        assert!(matches!(script.apply(&other), Judged::VersionConflict(_)), "L6");
        assert_eq!(script.record(), &postponed);
    }
}
