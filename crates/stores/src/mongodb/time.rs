//! The server's clock: between two bounds, by what it last said and how long the question took.
//!
//! Leases are stamped by the later bound and judged by the earlier one, so that a stamp is never before the moment it
//! stands for and a lapse is never seen early. It is the wall clock of the server's host, whose operators must keep it in
//! step with the others of its cluster.

use std::sync::Arc;

use parking_lot::Mutex;
use semel_core::Timestamp;
use tokio::time::Instant;

use crate::clock::{Clock, SystemClock};
use crate::limits;

/// What is known of the server's clock.
pub(super) struct ServerTime {
    known: Mutex<Known>,
    waits: Arc<dyn Clock>,
    /// In tests, what the store takes for the server's time.
    stepped: Option<Arc<dyn Clock>>,
}

struct Known {
    /// What the server said, between these two moments; none yet if it has said nothing.
    said: Option<(Timestamp, Instant, Instant)>,
    /// The latest time that the store has given out.
    given: Timestamp,
}

impl ServerTime {
    pub(super) fn new(stepped: Option<Arc<dyn Clock>>) -> Self {
        let waits = stepped.clone().unwrap_or_else(|| Arc::new(SystemClock::start()));
        Self { known: Mutex::new(Known { said: None, given: Timestamp::ZERO }), waits, stepped }
    }

    /// The server has said what time it is, in answer to what was sent then.
    pub(super) fn heard(&self, said: Timestamp, sent: Instant) {
        let mut known = self.known.lock();
        if self.stepped.is_none() && known.given.since(said) > limits::MONGODB_SET_BACK {
            known.given = said;
        }
        known.said = Some((said, sent, Instant::now()));
    }

    /// Whether it was asked so long ago that it must be asked again.
    pub(super) fn is_old(&self) -> bool {
        let known = self.known.lock();
        known.said.is_none_or(|(_, _, heard)| heard.elapsed() > limits::MONGODB_TIME_HOLDS)
    }

    /// What the server's own clock shows now, at the latest.
    pub(super) fn server_latest(&self) -> Timestamp {
        let known = self.known.lock();
        known.said.map_or(Timestamp::ZERO, |(said, sent, _)| said.plus(sent.elapsed()))
    }

    /// What the server's own clock shows now, at the earliest.
    pub(super) fn server_earliest(&self) -> Timestamp {
        let known = self.known.lock();
        known.said.map_or(Timestamp::ZERO, |(said, _, heard)| said.plus(heard.elapsed()))
    }

    /// The time to stamp a write with, not before `at_least`.
    pub(super) fn stamp(&self, at_least: Timestamp) -> Timestamp {
        let latest = self.stepped.as_ref().map_or_else(|| self.server_latest(), |clock| clock.wall());
        self.given(latest.max(at_least))
    }

    /// The time to judge by, not before `at_least`, which is shown beside it.
    pub(super) fn now(&self, at_least: Timestamp) -> Timestamp {
        let earliest = self.stepped.as_ref().map_or_else(|| self.server_earliest(), |clock| clock.wall());
        self.given(earliest.max(at_least))
    }

    fn given(&self, time: Timestamp) -> Timestamp {
        let mut known = self.known.lock();
        known.given = known.given.max(time);
        known.given
    }

    /// Until when, by the server's own clock, a write may come whose deadline this is.
    pub(super) fn may_come_until(&self, deadline: Timestamp) -> Timestamp {
        let now = self.now(Timestamp::ZERO);
        let within = deadline.since(now).min(semel_core::limits::WRITE_WITHIN);
        self.server_latest().plus(within)
    }

    /// What waits count their patience by.
    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.waits
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stamp_is_never_before_its_moment_and_a_lapse_is_never_seen_early() {
        let time = ServerTime::new(None);
        let sent = Instant::now();
        tokio::time::advance(Duration::from_millis(30)).await;
        time.heard(at(1_000_000), sent);
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(time.now(Timestamp::ZERO), at(1_000_005), "the server may have said it just now");
        assert_eq!(time.stamp(Timestamp::ZERO), at(1_000_035), "or as soon as it was asked");
        assert_eq!(time.now(Timestamp::ZERO), at(1_000_035), "what was given out is not taken back");
        assert!(!time.is_old());
        tokio::time::advance(limits::MONGODB_TIME_HOLDS.saturating_sub(Duration::from_millis(5))).await;
        assert!(!time.is_old());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(time.is_old());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_whose_clock_was_set_back_is_followed() {
        let time = ServerTime::new(None);
        time.heard(at(10_000_000), Instant::now());
        assert_eq!(time.now(Timestamp::ZERO), at(10_000_000));
        time.heard(at(9_999_000), Instant::now());
        assert_eq!(time.now(Timestamp::ZERO), at(10_000_000), "a little is waited for");
        time.heard(at(9_000_000), Instant::now());
        assert_eq!(time.now(Timestamp::ZERO), at(9_000_000), "ten minutes are not");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_may_come_until_its_deadline_and_no_longer_than_any_may() {
        let time = ServerTime::new(None);
        time.heard(at(1_000_000), Instant::now());
        assert_eq!(time.may_come_until(at(1_000_020)), at(1_000_020));
        assert_eq!(time.may_come_until(Timestamp::MAX), at(1_010_000));
    }
}
