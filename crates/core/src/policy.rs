//! What was promised about an operation. The command that starts a record fixes it: neither a later request nor a
//! reloaded configuration changes what holds for that record. One exception: the guard of a job is a record that outlives
//! its runs, so its lease is the one that the run which holds it has asked for.

use std::time::Duration;

use crate::error::{Invalid, Problem};
use crate::limits;

/// What a lapsed lease, or a lost answer, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnLapse {
    /// It may have happened: the record becomes unknown, and nothing runs again by itself.
    AtMostOnce,
    /// Somebody else takes over, with the same downstream key, a higher fence and the checkpoints so far.
    Resume,
}

/// Which outcomes a door keeps and replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keep {
    /// Successes, and rejections that would come again.
    Deterministic,
    /// All but server errors.
    AllButServerErrors,
    /// Everything once it was started.
    Everything,
}

/// When to try again: exponential with full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Schedule {
    max_attempts: u32,
    first: Duration,
    cap: Duration,
    max_age: Option<Duration>,
}

impl Schedule {
    /// One try and no other.
    pub const ONCE: Self =
        Self { max_attempts: 1, first: Duration::from_secs(5), cap: Duration::from_secs(5), max_age: None };

    /// A schedule of `max_attempts` tries in all, the first pause up to `first`, no pause above `cap`, none begun
    /// when the record is older than `max_age`.
    ///
    /// # Errors
    /// There is no try or more than [`limits::ATTEMPTS_MAX`], or `first` is zero or above `cap`.
    pub fn try_new(
        max_attempts: u32,
        first: Duration,
        cap: Duration,
        max_age: Option<Duration>,
    ) -> Result<Self, Invalid> {
        if max_attempts == 0 || max_attempts > limits::ATTEMPTS_MAX {
            return Err(Invalid::new("max_attempts", Problem::OutOfRange { expected: "from 1 to 1000" }));
        }
        if first.is_zero() || first > cap {
            return Err(Invalid::new(
                "first",
                Problem::OutOfRange { expected: "above zero and at most cap" },
            ));
        }
        if cap > limits::RETENTION_MAX {
            return Err(Invalid::new("cap", Problem::OutOfRange { expected: "at most ten years" }));
        }
        Ok(Self { max_attempts, first, cap, max_age })
    }

    /// Tries in all.
    pub const fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// The first pause, before jitter.
    pub const fn first(&self) -> Duration {
        self.first
    }

    /// The longest pause.
    pub const fn cap(&self) -> Duration {
        self.cap
    }

    /// The age of a record after which no try begins.
    pub const fn max_age(&self) -> Option<Duration> {
        self.max_age
    }

    /// The pause after the given try (counted from 1): a random part (`random` of `u64::MAX`) of a ceiling that
    /// doubles with every try. Full jitter, so that a thousand records that failed together do not come back together.
    pub fn pause(&self, tries: u32, random: u64) -> Duration {
        let doublings = tries.saturating_sub(1).min(31);
        let ceiling = self.first.saturating_mul(1 << doublings).min(self.cap);
        let millis = u64::try_from(ceiling.as_millis()).unwrap_or(u64::MAX);
        let part = (u128::from(millis) * u128::from(random)) >> 64;
        Duration::from_millis(u64::try_from(part).unwrap_or(u64::MAX))
    }

    /// Whether no further try may begin after so many that the schedule counts, on a record of this age.
    pub fn is_spent(&self, tries: u32, age: Duration) -> bool {
        tries >= self.max_attempts || self.max_age.is_some_and(|max| age >= max)
    }
}

/// What holds for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    lease: Duration,
    retention: Duration,
    on_lapse: OnLapse,
    keep: Keep,
    retry: Schedule,
    payload_retention: Option<Duration>,
}

impl Policy {
    /// A policy within the limits.
    ///
    /// # Errors
    /// The lease is not between [`limits::LEASE_MIN`] and [`limits::LEASE_MAX`], or the retention is not between one
    /// millisecond and [`limits::RETENTION_MAX`]: zero is never read as "none".
    pub fn try_new(
        lease: Duration,
        retention: Duration,
        on_lapse: OnLapse,
        keep: Keep,
        retry: Schedule,
    ) -> Result<Self, Invalid> {
        if lease < limits::LEASE_MIN || lease > limits::LEASE_MAX {
            return Err(Invalid::new("lease", Problem::OutOfRange { expected: "from 100 ms to 24 h" }));
        }
        if retention < Duration::from_millis(1) || retention > limits::RETENTION_MAX {
            return Err(Invalid::new(
                "retention",
                Problem::OutOfRange { expected: "from 1 ms to ten years" },
            ));
        }
        Ok(Self { lease, retention, on_lapse, keep, retry, payload_retention: None })
    }

    /// The same, but that the input of a completed record is dropped so long after its end: key, fingerprint, state and
    /// outcome stay as long as they would (L3). What is not completed keeps its input, however old it is. `None` is for
    /// as long as the record.
    ///
    /// # Errors
    /// The time is not between one millisecond and the retention: zero is never read as "none".
    pub fn try_with_payload_retention(self, payload_retention: Option<Duration>) -> Result<Self, Invalid> {
        let within = |kept: Duration| kept >= Duration::from_millis(1) && kept < self.retention;
        if !payload_retention.is_none_or(within) {
            return Err(Invalid::new(
                "payload_retention",
                Problem::OutOfRange { expected: "from 1 ms to less than the retention" },
            ));
        }
        Ok(Self { payload_retention, ..self })
    }

    /// The same with the lease of another policy, which is within the limits.
    pub(crate) fn leased(self, lease: Duration) -> Self {
        debug_assert!((limits::LEASE_MIN..=limits::LEASE_MAX).contains(&lease));
        Self { lease, ..self }
    }

    /// How long a claim holds without a heartbeat.
    pub const fn lease(&self) -> Duration {
        self.lease
    }

    /// How long a settled record is kept, from its end.
    pub const fn retention(&self) -> Duration {
        self.retention
    }

    /// How long the input of a completed record is kept, from its end; `None` for as long as the record.
    pub const fn payload_retention(&self) -> Option<Duration> {
        self.payload_retention
    }

    /// What a lapsed lease means.
    pub const fn on_lapse(&self) -> OnLapse {
        self.on_lapse
    }

    /// Which outcomes the door keeps.
    pub const fn keep(&self) -> Keep {
        self.keep
    }

    /// When accepted work is tried again.
    pub const fn retry(&self) -> Schedule {
        self.retry
    }
}

impl Default for Policy {
    /// Lease 5 min, retention 24 h, *at most once*, deterministic outcomes kept, tried once.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(5 * 60),
            retention: Duration::from_secs(24 * 60 * 60),
            on_lapse: OnLapse::AtMostOnce,
            keep: Keep::Deterministic,
            retry: Schedule::ONCE,
            payload_retention: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_jitter_stays_below_the_ceiling() {
        let schedule = Schedule::try_new(12, Duration::from_secs(5), Duration::from_secs(60), None).unwrap();
        let ceilings: Vec<u128> =
            (1..=6).map(|attempt| schedule.pause(attempt, u64::MAX).as_millis()).collect();
        assert_eq!(ceilings, [4_999, 9_999, 19_999, 39_999, 59_999, 59_999]);
        assert_eq!(schedule.pause(3, 0), Duration::ZERO);
        assert_eq!(schedule.pause(u32::MAX, u64::MAX / 2).as_millis(), 29_999);
    }

    #[test]
    fn an_absent_or_zero_expiry_is_not_read_as_none() {
        let zero = Policy::try_new(
            Duration::from_secs(1),
            Duration::ZERO,
            OnLapse::AtMostOnce,
            Keep::Deterministic,
            Schedule::ONCE,
        );
        assert_eq!(zero.unwrap_err().to_string(), "retention must be from 1 ms to ten years");
    }

    #[test]
    fn a_payload_is_kept_for_less_than_its_record_and_never_for_no_time_at_all() {
        let usual = Policy::default();
        let kept = |length| usual.try_with_payload_retention(length).map(|policy| policy.payload_retention());
        assert_eq!(kept(None), Ok(None));
        let hour = Duration::from_secs(3_600);
        assert_eq!(kept(Some(hour)), Ok(Some(hour)));
        for wrong in [Duration::ZERO, usual.retention()] {
            let error = kept(Some(wrong)).unwrap_err().to_string();
            assert_eq!(error, "payload_retention must be from 1 ms to less than the retention");
        }
    }

    #[test]
    fn tries_and_age_both_spend_a_schedule() {
        let day = Duration::from_secs(86_400);
        let schedule = Schedule::try_new(3, day, day, Some(day * 3)).unwrap();
        assert!(!schedule.is_spent(2, day));
        assert!(schedule.is_spent(3, day));
        assert!(schedule.is_spent(1, day * 3));
    }
}
