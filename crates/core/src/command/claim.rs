//! `claim`: the exclusive right to run one attempt, or why not.

use std::sync::Arc;
use std::time::Duration;

use super::{Command, Verdict, live};
use crate::id::{AttemptId, Fence, Holder, Namespace, RecordId, Token};
use crate::record::{Checkpoint, Record, State, Why};
use crate::request::Request;
use crate::time::Timestamp;
use crate::write::{Wake, Write};

/// Asks for the right to run one attempt.
#[derive(Clone, Debug)]
pub struct ClaimKey {
    /// What is to be done.
    pub request: Arc<Request>,
    /// 128 bits that nobody else has.
    pub token: Token,
    /// The client's name for the attempt, so that asking again is the same claim.
    pub attempt_id: Option<AttemptId>,
}

/// The exclusive right to run one attempt. There is only one, so it cannot be cloned; settling consumes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    record: Arc<Record>,
    holder: Holder,
}

impl Claim {
    pub(crate) fn of(record: Arc<Record>, token: Token) -> Self {
        Self { holder: Holder { id: record.id(), token }, record }
    }

    /// The record as it was when the claim was given.
    pub const fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// The proof, for commands that keep the claim.
    pub const fn holder(&self) -> Holder {
        self.holder
    }

    /// For the resource that is worked on, so that it can refuse a stale holder.
    pub fn fence(&self) -> Fence {
        self.record.fence()
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.record.attempt()
    }

    /// Steps that earlier attempts have done.
    pub fn checkpoints(&self) -> &[Checkpoint] {
        self.record.checkpoints()
    }

    /// How long it holds without a heartbeat.
    pub fn lease(&self) -> Duration {
        self.record.request().policy().lease()
    }

    /// Whether an earlier attempt may have had an effect.
    pub fn is_tainted(&self) -> bool {
        self.record.tainted()
    }
}

/// What became of asking for a claim.
#[derive(Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Run it.
    Granted(Claim),
    /// It was done: this is what it gave.
    Replay(Arc<Record>),
    /// It is being done, or waits for a worker.
    Busy {
        /// By whom, and since when.
        record: Arc<Record>,
        /// When asking again may give another answer.
        retry_after: Duration,
    },
    /// The key stands for something else.
    Mismatch(Arc<Record>),
    /// It may have happened, and nobody knows.
    Unknown(Arc<Record>),
    /// Its retries are spent.
    Dead(Arc<Record>),
}

impl Command for ClaimKey {
    type Answer = Claimed;

    fn id(&self) -> RecordId {
        self.request.id()
    }

    fn decide(&self, record: Option<&Arc<Record>>, now: Timestamp) -> Verdict<Claimed> {
        let Some(live) = live(record, now) else {
            let expired = record.map(Arc::as_ref);
            return self.run(Write::begin(Arc::clone(&self.request), expired, self.running()));
        };
        if !self.request.asks_for_the_same_as(live.request()) {
            return Verdict::Stay(Claimed::Mismatch(Arc::clone(live)));
        }
        match live.state() {
            State::Released { .. } => self.run(self.next_try(live)),
            State::Running { attempt_id } if !live.is_lapsed(now) => {
                match live.token().filter(|token| self.is_same_attempt(*token, attempt_id.as_ref())) {
                    Some(token) => Verdict::Stay(Claimed::Granted(Claim::of(Arc::clone(live), token))),
                    None => busy(live, now),
                }
            }
            State::Running { .. } if live.lapse_is_unknown() => {
                Verdict::write(Write::next(live, lapsed_into_unknown()).after_lapse())
            }
            State::Running { .. } => {
                self.run(self.next_try(live).after_lapse().with(|parts| parts.tainted = true))
            }
            // Accepted work is a worker's to run; a client that claims it would race the worker.
            State::Pending { .. } => busy(live, now),
            State::Completed { .. } => Verdict::Stay(Claimed::Replay(Arc::clone(live))),
            State::Unknown { .. } => Verdict::Stay(Claimed::Unknown(Arc::clone(live))),
            State::Dead { .. } => Verdict::Stay(Claimed::Dead(Arc::clone(live))),
        }
    }

    fn answer(&self, written: Arc<Record>) -> Claimed {
        match written.state() {
            State::Running { .. } => Claimed::Granted(Claim::of(written, self.token)),
            // The only other thing that a claim writes is the lapse that it came upon.
            State::Unknown { .. }
            | State::Pending { .. }
            | State::Released { .. }
            | State::Completed { .. }
            | State::Dead { .. } => Claimed::Unknown(written),
        }
    }
}

impl ClaimKey {
    fn running(&self) -> State {
        State::Running { attempt_id: self.attempt_id.clone() }
    }

    /// One try more of a record that is there. The guard of a job outlives its runs and each run asks for a lease of its
    /// own; everywhere else the record is one piece of work, and holds what its first command was promised.
    fn next_try(&self, live: &Record) -> Write {
        let write = Write::next(live, self.running()).raise_fence();
        if live.request().scope().namespace != Namespace::Job {
            return write;
        }
        match live.request().leased_as(&self.request) {
            Some(leased) => write.with(|parts| parts.request = Arc::new(leased)),
            None => write,
        }
    }

    fn run(&self, write: Write) -> Verdict<Claimed> {
        Verdict::write(grant(write, self.token))
    }

    fn is_same_attempt(&self, token: Token, attempt_id: Option<&AttemptId>) -> bool {
        token == self.token || (self.attempt_id.is_some() && attempt_id == self.attempt_id.as_ref())
    }
}

/// Gives the claim to `token`: one try more, under a lease.
pub(super) fn grant(write: Write, token: Token) -> Write {
    let lease = write.parts().request.policy().lease();
    write.wake(Wake::After(lease)).with(|parts| {
        parts.token = Some(token);
        parts.attempt = parts.attempt.saturating_add(1);
    })
}

pub(super) fn lapsed_into_unknown() -> State {
    State::Unknown {
        why: Why::LeaseLapsed,
        detail: "the lease lapsed without an outcome; the operation may have taken effect".into(),
    }
}

fn busy(record: &Arc<Record>, now: Timestamp) -> Verdict<Claimed> {
    // A holder that lives renews its lease, so its end says when the answer changes at the latest; most are quicker.
    let left = record.times().wake.map_or(Duration::ZERO, |wake| wake.since(now));
    let retry_after = left.clamp(Duration::from_millis(100), Duration::from_secs(2));
    Verdict::Stay(Claimed::Busy { record: Arc::clone(record), retry_after })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{LEASE_MS, Script, request, token};
    use super::*;
    use crate::id::Lane;
    use crate::policy::OnLapse;

    const SHORTER_MS: u64 = LEASE_MS / 3;
    const LONGER_MS: u64 = LEASE_MS * 3;

    /// What the record says of its lease, and how much of it is left.
    fn lease_ms(script: &Script) -> (u128, u64) {
        let record = script.record();
        let left = record.times().wake.unwrap().as_millis() - record.times().written.as_millis();
        (record.request().policy().lease().as_millis(), left)
    }

    #[test]
    fn the_first_claim_runs_and_the_next_is_busy_until_the_outcome_is_replayed() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        let first = script.granted(1);
        assert_eq!((first.attempt(), first.fence().0), (1, 1));
        script.after_ms(10).refuses_busy(2);
        script.complete(1);
        assert!(matches!(script.claim(3), Claimed::Replay(_)), "L10");
    }

    #[test]
    fn l5_a_mismatch_a_busy_answer_or_a_replay_changes_no_state() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        let before = script.record().clone();
        let other =
            ClaimKey { request: request("other", OnLapse::AtMostOnce), token: token(2), attempt_id: None };
        assert!(matches!(script.apply(&other), Claimed::Mismatch(_)));
        script.refuses_busy(3);
        assert_eq!(script.record(), &before);
    }

    #[test]
    fn a_lapsed_lease_is_unknown_at_most_once_and_is_taken_over_under_resume() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        script.after_lease();
        assert!(matches!(script.claim(2), Claimed::Unknown(_)), "L7");
        let mut script = Script::new(OnLapse::Resume);
        script.granted(1);
        script.after_lease();
        let second = script.granted(2);
        assert_eq!((second.attempt(), second.fence().0), (2, 2), "L2");
        assert!(second.is_tainted());
    }

    #[test]
    fn a_remaining_time_of_zero_is_a_lapsed_lease() {
        let mut script = Script::new(OnLapse::Resume);
        let lease = script.granted(1).lease();
        script.after_ms(u64::try_from(lease.as_millis()).unwrap() - 1).refuses_busy(2);
        script.after_ms(1);
        assert_eq!(script.granted(2).attempt(), 2);
    }

    #[test]
    fn a_claim_whose_answer_was_lost_is_the_same_claim() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        let attempt_id = Some(AttemptId::try_new("try-1").unwrap());
        let ask = |n| ClaimKey {
            request: request("charge", OnLapse::AtMostOnce),
            token: token(n),
            attempt_id: attempt_id.clone(),
        };
        let Claimed::Granted(first) = script.apply(&ask(1)) else { panic!("granted") };
        let Claimed::Granted(again) = script.apply(&ask(2)) else { panic!("granted again") };
        assert_eq!(first, again);
    }

    #[test]
    fn l8_an_expired_record_is_as_good_as_absent_and_its_fence_is_not_reused() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        script.complete(1);
        script.after_retention();
        let next = script.granted(2);
        assert_eq!((next.attempt(), next.fence().0), (1, 2), "a new life, under a higher fence (L2)");
    }

    #[test]
    fn a_run_of_a_job_has_the_lease_that_its_claim_asks_for_whatever_earlier_runs_had() {
        let mut script = Script::in_namespace(Namespace::Job, OnLapse::Resume);
        assert_eq!(script.granted(1).lease(), Duration::from_millis(LEASE_MS));
        for (n, asked) in [(2, LONGER_MS), (3, SHORTER_MS), (4, SHORTER_MS), (5, LEASE_MS)] {
            script.release(n - 1);
            let claim = script.granted_for(n, asked);
            assert_eq!(claim.lease(), Duration::from_millis(asked));
            assert_eq!(lease_ms(&script), (u128::from(asked), asked), "claim {n}");
        }
    }

    #[test]
    fn l1_a_guard_that_is_taken_over_holds_for_the_lease_of_who_took_it() {
        for asked in [SHORTER_MS, LONGER_MS] {
            let mut script = Script::in_namespace(Namespace::Job, OnLapse::Resume);
            script.granted(1);
            script.after_ms(LEASE_MS - 1).refuses_busy(2);
            assert_eq!(
                lease_ms(&script),
                (u128::from(LEASE_MS), LEASE_MS),
                "who is turned away changes nothing"
            );
            script.after_ms(1);
            assert!(script.granted_for(2, asked).is_tainted());
            script.after_ms(asked - 1).refuses_busy(3);
            script.after_ms(1);
            assert_eq!(script.granted(3).lease(), Duration::from_millis(LEASE_MS));
        }
    }

    #[test]
    fn heartbeats_renew_a_guard_for_the_lease_of_the_run_that_has_it() {
        for asked in [SHORTER_MS, LONGER_MS] {
            let mut script = Script::in_namespace(Namespace::Job, OnLapse::Resume);
            script.granted(1);
            script.release(1);
            script.granted_for(2, asked);
            for _ in 0..3 {
                script.after_ms(asked - 1).extend(2);
                assert_eq!(lease_ms(&script), (u128::from(asked), asked));
            }
        }
    }

    #[test]
    fn l1_a_run_that_is_asked_for_again_keeps_the_lease_that_it_began_with() {
        let mut script = Script::in_namespace(Namespace::Job, OnLapse::Resume);
        let ask = |script: &Script, n, lease| ClaimKey {
            request: script.asking_for(lease),
            token: token(n),
            attempt_id: Some(AttemptId::try_new("try-1").unwrap()),
        };
        let first = ask(&script, 1, LEASE_MS);
        let Claimed::Granted(first) = script.apply(&first) else { panic!("granted") };
        let again = ask(&script, 2, LONGER_MS);
        let Claimed::Granted(again) = script.after_ms(10).apply(&again) else { panic!("granted again") };
        assert_eq!(first, again);
        assert_eq!(lease_ms(&script), (u128::from(LEASE_MS), LEASE_MS));
    }

    #[test]
    fn of_what_a_guard_was_promised_only_the_lease_is_a_later_runs_to_say() {
        let mut script = Script::in_namespace(Namespace::Job, OnLapse::Resume);
        script.granted(1);
        let before = Request::clone(script.record().request());
        script.release(1);
        let other = Script::in_namespace(Namespace::Job, OnLapse::AtMostOnce).asking_for(LONGER_MS);
        let other = Request::clone(&other).in_lane(Lane::try_new("bank").unwrap());
        let claim = ClaimKey { request: Arc::new(other), token: token(2), attempt_id: None };
        assert!(matches!(script.apply(&claim), Claimed::Granted(_)));
        let after = script.record().request();
        assert_eq!(after.policy().lease(), Duration::from_millis(LONGER_MS));
        assert_eq!(after.leased_as(&before), Some(before), "but for the lease nothing has changed");
        assert_eq!(after.leased_as(after), None);
    }

    #[test]
    fn outside_of_jobs_a_record_keeps_the_lease_that_its_first_claim_fixed() {
        for namespace in [Namespace::Execute, Namespace::Http, Namespace::Webhook, Namespace::Topic] {
            let mut script = Script::in_namespace(namespace, OnLapse::Resume);
            script.granted(1);
            script.release(1);
            assert_eq!(script.granted_for(2, LONGER_MS).lease(), Duration::from_millis(LEASE_MS));
            script.after_lease();
            assert_eq!(script.granted_for(3, SHORTER_MS).lease(), Duration::from_millis(LEASE_MS));
            assert_eq!(lease_ms(&script), (u128::from(LEASE_MS), LEASE_MS), "{namespace:?}");
        }
    }
}
