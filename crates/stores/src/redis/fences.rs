//! The lowest fence that this node lets the server give: what keeps fences rising when a replica takes over that lacks the
//! last ones (L2).
//!
//! The server's fences are its time in microseconds, or one more than the last, whichever is higher. A replica that takes
//! over does not know the last ones; its clock is past them, unless it is behind by more than the failover took. So every
//! write brings along how late it is by the clock of the server that was asked before, which this node has counted on.

use std::time::Duration;

use parking_lot::Mutex;
use semel_core::{Fence, Timestamp};

use crate::clock::Clock;

/// What is known of fences that were given.
#[derive(Debug, Default)]
pub(super) struct Fences {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The latest that any server said, and when: never set back.
    latest: Timestamp,
    at: Duration,
    seen: u64,
}

impl Fences {
    /// A server has said what time it is.
    pub(super) fn told(&self, as_of: Timestamp, clock: &dyn Clock) {
        let now = clock.elapsed();
        let mut known = self.known.lock();
        if as_of >= known.latest.plus(now.saturating_sub(known.at)) {
            (known.latest, known.at) = (as_of, now);
        }
    }

    /// A record was shown that has this fence.
    pub(super) fn seen(&self, fence: Fence) {
        let mut known = self.known.lock();
        known.seen = known.seen.max(fence.0);
    }

    /// No fence that is given now may be below this one.
    pub(super) fn floor(&self, clock: &dyn Clock) -> u64 {
        let known = self.known.lock();
        let latest = known.latest.plus(clock.elapsed().saturating_sub(known.at)).as_millis();
        // The server says milliseconds, so it was up to one later. Before it has said anything there is nothing to know.
        let by_time = if latest == 0 { 0 } else { latest.saturating_add(1).saturating_mul(1_000) };
        by_time.max(known.seen.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SteppedClock;

    #[test]
    fn l2_a_server_whose_clock_is_behind_does_not_lower_the_floor() {
        let clock = SteppedClock::at(Timestamp::ZERO);
        let fences = Fences::default();
        assert_eq!(fences.floor(&clock), 1);
        fences.told(Timestamp::from_millis(5_000), &clock);
        clock.advance(Duration::from_millis(10));
        assert_eq!(fences.floor(&clock), 5_011_000);
        fences.told(Timestamp::from_millis(4_000), &clock);
        assert_eq!(fences.floor(&clock), 5_011_000, "a replica that is a second behind has taken over");
        fences.seen(Fence(9_000_000));
        assert_eq!(fences.floor(&clock), 9_000_001);
        fences.told(Timestamp::from_millis(10_000), &clock);
        assert_eq!(fences.floor(&clock), 10_001_000);
    }
}
