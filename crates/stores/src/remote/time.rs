//! The database's clock, as far as it is known here: what it last said, and how long ago that was.
//!
//! It is the wall clock of the database's host, whose operators must keep it in step: this store can step with it, as a
//! store that lives in one process need not. A record's times never go back, whatever the clock does.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use semel_core::Timestamp;

use crate::clock::Clock;

/// An answer may come late by so much; a clock that is behind by more has been set back.
const SET_BACK: Duration = Duration::from_secs(60);

/// What is known of the database's clock.
pub(crate) struct Time {
    clock: Arc<dyn Clock>,
    told: Mutex<Told>,
}

struct Told {
    as_of: Timestamp,
    at: Duration,
}

impl Time {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let at = clock.elapsed();
        Self { clock, told: Mutex::new(Told { as_of: Timestamp::ZERO, at }) }
    }

    /// The database has said what time it is.
    pub(crate) fn told(&self, as_of: Timestamp) -> Timestamp {
        let at = self.clock.elapsed();
        let mut told = self.told.lock();
        if as_of >= told.as_of || told.as_of.since(as_of) > SET_BACK {
            *told = Told { as_of, at };
        }
        as_of
    }

    /// What it would say now, at most.
    pub(crate) fn now(&self) -> Timestamp {
        let told = self.told.lock();
        told.as_of.plus(self.clock.elapsed().saturating_sub(told.at))
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SteppedClock;

    #[test]
    fn the_time_is_the_latest_that_was_said_and_what_has_passed_since() {
        let at = Timestamp::from_millis;
        let clock = SteppedClock::at(at(5));
        let time = Time::new(Arc::new(clock.clone()));
        time.told(at(1_000_000));
        clock.advance(Duration::from_millis(30));
        assert_eq!(time.now(), at(1_000_030));
        time.told(at(1_000_010));
        assert_eq!(time.now(), at(1_000_010), "never ahead of what the database would say");
        time.told(at(1_000_005));
        assert_eq!(time.now(), at(1_000_010), "an answer that comes late");
        time.told(at(900_000));
        assert_eq!(time.now(), at(900_000), "a clock that was set back");
    }
}
