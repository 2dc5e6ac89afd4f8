//! `lapse`: the reaper's, for lapsed claims that no worker can take over and nobody asks about.

use std::sync::Arc;

use super::claim::lapsed_into_unknown;
use super::{Command, Verdict, live};
use crate::id::RecordId;
use crate::record::{Record, State};
use crate::time::Timestamp;
use crate::write::Write;

/// Applies a lapse.
#[derive(Clone, Copy, Debug)]
pub struct Lapse {
    /// The record.
    pub id: RecordId,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lapsed {
    /// Nobody knows what it did.
    Unknown(Arc<Record>),
    /// It waits for its client, out of the due order; the holder may still come back.
    Parked(Arc<Record>),
    /// It is not lapsed, was seen before, or a worker can take it over.
    Nothing,
}

impl Command for Lapse {
    type Answer = Lapsed;

    fn id(&self) -> RecordId {
        self.id
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Lapsed> {
        let Some(live) = live(record, now).filter(|record| record.is_lapsed(now)) else {
            return Verdict::Stay(Lapsed::Nothing);
        };
        if live.lapse_is_unknown() {
            return Verdict::write(Write::next(live, lapsed_into_unknown()));
        }
        if live.is_drivable() || live.times().wake.is_none() {
            return Verdict::Stay(Lapsed::Nothing);
        }
        Verdict::write(Write::next(live, live.state().clone()))
    }

    fn answer(&self, written: Arc<Record>) -> Lapsed {
        match written.state() {
            State::Running { .. } => Lapsed::Parked(written),
            State::Pending { .. }
            | State::Released { .. }
            | State::Completed { .. }
            | State::Unknown { .. }
            | State::Dead { .. } => Lapsed::Unknown(written),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Script;
    use super::*;
    use crate::policy::OnLapse;

    #[test]
    fn a_lapse_that_nobody_asks_about_is_seen_once_and_the_holder_may_still_come_back() {
        let mut script = Script::new(OnLapse::Resume);
        script.granted(1);
        let lapse = Lapse { id: script.record().id() };
        assert_eq!(script.apply(&lapse), Lapsed::Nothing, "a live lease");
        script.after_lease();
        assert!(matches!(script.apply(&lapse), Lapsed::Parked(_)));
        assert_eq!(script.record().due(), None, "out of the due order");
        assert_eq!(script.apply(&lapse), Lapsed::Nothing);
        script.complete(1);
    }

    #[test]
    fn at_most_once_nobody_knows() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        script.after_lease();
        let lapse = Lapse { id: script.record().id() };
        assert!(matches!(script.apply(&lapse), Lapsed::Unknown(_)));
        script.complete(1);
    }
}
