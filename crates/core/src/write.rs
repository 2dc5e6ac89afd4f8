//! The next version of a record, before a store has stamped it.
//!
//! A command says *what* the record becomes; *when* and under which fence is the store's to say, inside the write:
//! leases, due times and retention are lengths of time that count from the moment of the write by the store's own
//! clock, and a fence must rise above whatever the store has seen. [`Write::seal`] is that moment. A store that
//! computes the stamps in its own language (SQL's `now()`) takes them from [`Write::stamp`].

use std::sync::Arc;
use std::time::Duration;

use crate::audit::Entry;
use crate::id::{Fence, RecordId, Version};
use crate::record::{Parts, Record, State, StateName, Times};
use crate::request::Request;
use crate::time::Timestamp;

/// What becomes of the `wake` time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// It stays what it was.
    Keep,
    /// There is none any more.
    Clear,
    /// So long after the write.
    After(Duration),
}

/// What becomes of the record's rest: from when on it is at rest, and until when it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It is unfinished.
    None,
    /// It comes to rest now, and is forgotten so long after.
    For(Duration),
    /// It is at rest already, and stays so from when and until when it was. Its input goes.
    Keep,
}

/// What a store stamps inside the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Whether the fence rises (a claim, or a new life of the id) or only the sequence within it.
    pub raise_fence: bool,
    /// Whether a life begins, so that `created` is now.
    pub begins: bool,
    /// The due time, or the end of the lease.
    pub wake: Wake,
    /// From when on it is at rest.
    pub rest: Rest,
}

/// The next version of a record.
#[derive(Clone, Debug)]
pub struct Write {
    parts: Parts,
    stamp: Stamp,
    audit: Option<Entry>,
    not_after: Timestamp,
    sees_lapse: bool,
}

impl Write {
    /// The first version of a life of this id. `after` is what is there, if it is only expired.
    pub(crate) fn begin(request: Arc<Request>, after: Option<&Record>, state: State) -> Self {
        let parts = Parts {
            request,
            version: after.map_or_else(Version::default, Record::version),
            times: Times::default(),
            attempt: 0,
            uncounted: 0,
            generation: 0,
            accepted: false,
            taken_in_by: None,
            tainted: false,
            token: None,
            last: crate::record::CommandDigest::default(),
            checkpoints: Arc::default(),
            state,
        };
        Self::of(parts, Stamp { raise_fence: true, begins: true, wake: Wake::Clear, rest: Rest::None })
    }

    /// The version after `record`, in the given state. Its `wake` is cleared and it is unfinished, unless it is
    /// told otherwise.
    pub(crate) fn next(record: &Record, state: State) -> Self {
        let parts = Parts { state, ..record.parts().clone() };
        Self::of(parts, Stamp { raise_fence: false, begins: false, wake: Wake::Clear, rest: Rest::None })
    }

    /// The record as another store had it at `as_of` of that store's time, for a store that takes it over; `over` is what
    /// has its place there. State, token, attempts and checkpoints stay, and so do the lengths of time that were left;
    /// the fence rises above both that it had (L2), and its life in this store begins now. `None` for what has expired.
    pub fn carried_over(record: &Record, as_of: Timestamp, over: Option<&Record>) -> Option<Self> {
        if record.is_expired(as_of) {
            return None;
        }
        let times = record.times();
        let mut parts = record.parts().clone();
        parts.version = over.map_or(parts.version, |over| parts.version.max(over.version()));
        let stamp = Stamp {
            raise_fence: true,
            begins: true,
            wake: times.wake.map_or(Wake::Clear, |wake| Wake::After(wake.since(as_of))),
            rest: times.expires.map_or(Rest::None, |expires| Rest::For(expires.since(as_of))),
        };
        Some(Self::of(parts, stamp))
    }

    fn of(parts: Parts, stamp: Stamp) -> Self {
        Self { parts, stamp, audit: None, not_after: Timestamp::MAX, sees_lapse: false }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Parts)) -> Self {
        change(&mut self.parts);
        self
    }

    pub(crate) fn wake(mut self, wake: Wake) -> Self {
        self.stamp.wake = wake;
        self
    }

    pub(crate) fn raise_fence(mut self) -> Self {
        self.stamp.raise_fence = true;
        self
    }

    /// With all the tries of its schedule before it. The attempts that were made stay counted, so that the next one is
    /// known as a later one.
    pub(crate) fn anew(self) -> Self {
        self.with(|parts| parts.uncounted = parts.attempt)
    }

    /// At rest from the write on, for as long as the record's policy says. What is completed may be due once more before
    /// it expires: to give up its payload.
    pub(crate) fn rest(mut self) -> Self {
        let request = &self.parts.request;
        self.stamp.rest = Rest::For(request.policy().retention());
        if let State::Completed { .. } = self.parts.state
            && request.input().is_some()
            && let Some(kept) = request.policy().payload_retention()
        {
            self.stamp.wake = Wake::After(kept);
        }
        self
    }

    /// At rest as it was, without the input.
    pub(crate) fn without_input(mut self) -> Self {
        self.stamp.rest = Rest::Keep;
        self.parts.request = Arc::new(self.parts.request.without_input());
        self
    }

    /// Because the lease has lapsed, and not by its holder. Of a lapse that was seen before no `wake` is left.
    pub(crate) fn after_lapse(mut self) -> Self {
        self.sees_lapse = self.parts.times.wake.is_some();
        self
    }

    /// Whether this write is the first to see that a lease has lapsed: of all writes that follow one lapse (it is
    /// parked, taken over, becomes unknown or dead) exactly one is, so that a lapse can be counted once.
    pub const fn sees_lapse(&self) -> bool {
        self.sees_lapse
    }

    /// With the audit entry that must be durable together with it.
    pub(crate) fn audited(mut self, entry: Entry) -> Self {
        self.audit = Some(entry);
        self
    }

    /// Must not take effect after this moment of the store's time.
    #[must_use]
    pub fn not_after(mut self, deadline: Timestamp) -> Self {
        self.not_after = deadline;
        self
    }

    /// Must take effect `within` that time of `as_of`, when it was decided on `judged`; and while `judged` is there at
    /// all: what was decided on a live record says nothing about the life that begins after it (L8).
    #[must_use]
    pub fn decided_on(self, judged: Option<&Record>, as_of: Timestamp, within: Duration) -> Self {
        let soon = as_of.plus(within);
        let last =
            judged.filter(|record| !record.is_expired(as_of)).and_then(|record| record.times().expires);
        let last = last.map_or(Timestamp::MAX, |expires| Timestamp::from_millis(expires.as_millis() - 1));
        self.not_after(soon.min(last))
    }

    /// The moment after which the store refuses it.
    pub const fn deadline(&self) -> Timestamp {
        self.not_after
    }

    /// The record's id.
    pub fn id(&self) -> RecordId {
        self.parts.request.id()
    }

    /// The state it brings.
    pub fn state(&self) -> StateName {
        self.parts.state.name()
    }

    /// The version that the command looked at; the default one if there was none.
    pub const fn after(&self) -> Version {
        self.parts.version
    }

    /// What the record becomes, but for what the store stamps.
    pub const fn parts(&self) -> &Parts {
        &self.parts
    }

    /// What the store stamps.
    pub const fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// The audit entry that goes into the same write.
    pub const fn audit(&self) -> Option<&Entry> {
        self.audit.as_ref()
    }

    /// Stamps the write: `now` is the store's time inside the write, `floor` the highest fence of any record it has
    /// ever removed.
    pub fn seal(self, now: Timestamp, floor: Fence) -> (Record, Option<Entry>) {
        let Self { mut parts, stamp, audit, not_after: _, sees_lapse: _ } = self;
        parts.version = if stamp.raise_fence {
            Version { fence: parts.version.fence.above(floor), sequence: 0 }
        } else {
            parts.version.next()
        };
        if stamp.begins {
            parts.times.created = now;
        }
        parts.times.written = now;
        parts.times.wake = match stamp.wake {
            Wake::Keep => parts.times.wake,
            Wake::Clear => None,
            Wake::After(length) => Some(now.plus(length)),
        };
        (parts.times.settled, parts.times.expires) = match stamp.rest {
            Rest::None => (None, None),
            Rest::For(retention) => (Some(now), Some(now.plus(retention))),
            Rest::Keep => (parts.times.settled, parts.times.expires),
        };
        (Record::assemble(parts), audit.map(|entry| entry.at(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Script;
    use crate::policy::OnLapse;

    #[test]
    fn l2_what_is_carried_over_keeps_what_it_was_and_what_was_left_of_its_times_under_a_higher_fence() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        let running = script.record().clone();
        let (as_of, now) =
            (running.times().written.plus(Duration::from_millis(70)), Timestamp::from_millis(7));
        let left = running.times().wake.unwrap().since(as_of);
        let (there, _) = Write::carried_over(&running, as_of, None).unwrap().seal(now, Fence(0));
        assert!(there.fence() > running.fence());
        assert_eq!((there.times().created, there.times().wake), (now, Some(now.plus(left))));
        let as_it_was =
            Parts { version: running.version(), times: *running.times(), ..there.parts().clone() };
        assert_eq!(&as_it_was, running.parts());
        let above = Write::carried_over(&running, as_of, None).unwrap().seal(now, Fence(900)).0;
        assert!(above.fence() > Fence(900), "above the floor of the store, too");
        let over = Write::carried_over(&running, as_of, Some(&above)).unwrap().seal(now, Fence(0)).0;
        assert!(over.fence() > above.fence(), "and above what has its place");
        script.release(1);
        let released = script.record();
        let expires = released.times().expires.unwrap();
        assert!(Write::carried_over(released, expires, None).is_none());
        let rest = expires.since(as_of);
        let (there, _) = Write::carried_over(released, as_of, None).unwrap().seal(now, Fence(0));
        assert_eq!(there.times().expires, Some(now.plus(rest)));
        assert!(Record::from_parts(there.parts().clone()).is_ok());
    }

    #[test]
    fn l8_what_was_decided_on_a_record_is_not_written_once_it_has_expired() {
        let mut script = Script::new(OnLapse::AtMostOnce);
        script.granted(1);
        script.release(1);
        let (released, within) = (script.record(), Duration::from_secs(3600));
        let expires = released.times().expires.unwrap();
        let write = || Write::next(released, State::Pending { last_error: None });
        let deadline = write().decided_on(Some(released), released.times().written, within).deadline();
        assert!(!released.is_expired(deadline), "the last moment of this life");
        assert!(released.is_expired(deadline.plus(Duration::from_millis(1))));
        let anew = write().decided_on(Some(released), expires, within).deadline();
        assert_eq!(anew, expires.plus(within), "what begins the next life is bounded by its own time only");
    }
}
