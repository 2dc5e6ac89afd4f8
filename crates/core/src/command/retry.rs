//! `retry`: the attempt failed, and accepted work is to be tried again by its schedule, or is dead.

use std::sync::Arc;
use std::time::Duration;

use super::release::said_before;
use super::{Command, Held, Verdict, digest, live};
use crate::id::{Holder, RecordId};
use crate::record::{Record, State, Text};
use crate::time::Timestamp;
use crate::write::{Wake, Write};

/// Whether the attempt that failed may have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It is known that nothing happened.
    None,
    /// Something may have happened. Under *at most once* that is not a retry's to say.
    Possible,
}

/// Ends a failed attempt of accepted work.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Who held it.
    pub holder: Holder,
    /// Why the attempt failed.
    pub error: Text,
    /// How long until the next try.
    pub pause: Duration,
    /// Whether something may have happened.
    pub effect: Effect,
    /// Whether no other try can help: dead at once.
    pub permanent: bool,
}

impl Command for Retry {
    type Answer = Held;

    fn id(&self) -> RecordId {
        self.holder.id
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Held> {
        let said = self.said();
        let Some(live) = live(record, now) else { return Verdict::Stay(Held::Fenced(record.cloned())) };
        if !live.answers_to(&self.holder) {
            return Verdict::Stay(said_before(live, said));
        }
        match live.state() {
            State::Running { .. } => self.retry(live, now),
            // The attempt has ended otherwise, or a lapse at most once has made it unknown.
            State::Pending { .. }
            | State::Released { .. }
            | State::Completed { .. }
            | State::Unknown { .. }
            | State::Dead { .. } => Verdict::Stay(said_before(live, said)),
        }
    }

    fn answer(&self, written: Arc<Record>) -> Held {
        Held::Done(written)
    }
}

impl Retry {
    fn said(&self) -> crate::record::CommandDigest {
        let flags = [u8::from(self.effect == Effect::Possible), u8::from(self.permanent)];
        let pause = u64::try_from(self.pause.as_millis()).unwrap_or(u64::MAX).to_le_bytes();
        digest("retry", Some(self.holder.token), &[self.error.as_str().as_bytes(), &pause, &flags])
    }

    fn retry(&self, live: &Arc<Record>, now: Timestamp) -> Verdict<Held> {
        let illegal = |why| Verdict::Stay(Held::Illegal(Arc::clone(live), why));
        if !live.accepted() || !live.is_drivable() {
            return illegal("only accepted work is retried by a worker; release the claim instead");
        }
        if live.lapse_is_unknown() && self.effect == Effect::Possible {
            return illegal("at most once, an attempt that may have had an effect is unknown, not retried");
        }
        // The schedule counts from the time it was taken in. What an operator has revived begins anew, and that may be long
        // after: its tries alone bound it.
        let age = if live.generation() > 0 { Duration::ZERO } else { now.since(live.times().created) };
        let spent = self.permanent || live.request().policy().retry().is_spent(live.tries(), age);
        let error = self.error.clone();
        // A dead record still answers to its last token: a late success is worth more than a dead letter.
        let (write, token) = if spent {
            (Write::next(live, State::Dead { last_error: error }), live.token())
        } else {
            let pending = State::Pending { last_error: Some(error) };
            (Write::next(live, pending).wake(Wake::After(self.pause)), None)
        };
        Verdict::write(write.with(|parts| {
            parts.token = token;
            parts.tainted |= self.effect == Effect::Possible;
            parts.last = self.said();
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, token};
    use super::*;
    use crate::command::{Take, Taken};
    use crate::policy::OnLapse;
    use crate::record::StateName;

    fn retry(script: &mut Script, effect: Effect, permanent: bool) -> Held {
        let holder = Holder { id: script.record().id(), token: token(1) };
        let pause = Duration::from_millis(500);
        script.apply(&Retry { holder, error: "500".into(), pause, effect, permanent })
    }

    fn running(on_lapse: OnLapse) -> Script {
        let mut script = Script::new(on_lapse);
        script.accept();
        take(&mut script);
        script
    }

    fn take(script: &mut Script) {
        let id = script.record().id();
        assert!(matches!(script.apply(&Take { id, token: token(1) }), Taken::Granted(_)));
    }

    #[test]
    fn it_waits_for_its_pause_and_dies_when_its_tries_are_spent() {
        let mut script = running(OnLapse::Resume);
        let tries = script.record().request().policy().retry().max_attempts();
        for _ in 1..tries {
            retry(&mut script, Effect::Possible, false);
            assert_eq!(script.record().state().name(), StateName::Pending);
            script.after_ms(500);
            take(&mut script);
        }
        assert!(matches!(retry(&mut script, Effect::Possible, false), Held::Done(_)));
        assert_eq!(script.record().state().name(), StateName::Dead);
        assert!(matches!(retry(&mut script, Effect::Possible, false), Held::Done(_)), "said twice");
    }

    #[test]
    fn a_permanent_failure_is_dead_at_once() {
        let mut script = running(OnLapse::AtMostOnce);
        retry(&mut script, Effect::None, true);
        assert_eq!(script.record().state().name(), StateName::Dead);
    }

    #[test]
    fn l7_at_most_once_is_not_retried_when_something_may_have_happened() {
        let mut script = running(OnLapse::AtMostOnce);
        let before = script.record().clone();
        assert!(matches!(retry(&mut script, Effect::Possible, false), Held::Illegal(..)));
        assert_eq!(script.record(), &before);
    }
}
