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
            return Verdict::write(Write::next(live, lapsed_into_unknown()).after_lapse());
        }
        if live.is_drivable() || live.times().wake.is_none() {
            return Verdict::Stay(Lapsed::Nothing);
        }
        Verdict::write(Write::next(live, live.state().clone()).after_lapse())
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
    use super::super::testing::{Script, request, token};
    use super::*;
    use crate::command::ClaimKey;
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

    /// How many of the writes that follow say that they have seen a lapse.
    fn seen<C: Command>(script: &mut Script, command: &C) -> usize {
        let before = script.lapses();
        script.apply(command);
        script.lapses() - before
    }

    #[test]
    fn a_lapse_is_seen_by_one_write_whoever_comes_first() {
        let claim =
            |n| ClaimKey { request: request("charge", OnLapse::Resume), token: token(n), attempt_id: None };
        let mut script = Script::new(OnLapse::Resume);
        assert_eq!(seen(&mut script, &claim(1)), 0);
        let lapse = Lapse { id: script.record().id() };
        script.after_lease();
        assert_eq!(seen(&mut script, &lapse), 1, "parked");
        assert_eq!(seen(&mut script, &claim(2)), 0, "the takeover follows the same lapse");
        script.after_lease();
        assert_eq!(seen(&mut script, &claim(3)), 1, "another lease, another lapse");
        script.release(3);
        assert_eq!(
            seen(&mut script, &claim(4)),
            0,
            "after a release nothing has lapsed, whatever came before"
        );
        script.after_lease();
        script.extend(4);
        script.complete(4);
        assert_eq!(script.lapses(), 2, "a late holder that comes back has lost nothing");
    }

    #[test]
    fn a_worker_that_takes_over_or_buries_sees_the_lapse() {
        let mut script = Script::new(OnLapse::Resume);
        script.dies();
        let tries = script.record().request().policy().retry().max_attempts();
        assert_eq!(script.lapses(), tries as usize, "each try lapsed, the last one into the grave");
    }
}
