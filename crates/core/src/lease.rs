//! The holder's side of a lease: when to renew it, and until when it may be relied on.
//!
//! A holder counts its lease from just before it sent the last `claim` or `extend` that was acknowledged: whatever
//! the store stamped, it stamped later, so the holder always thinks its lease shorter than the store does. Times are
//! readings of any monotonic clock of the holder's, as lengths since a moment of its choice.

use std::time::Duration;

use crate::limits;

/// What a holder knows of its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    length: Duration,
    sent: Duration,
}

impl Lease {
    /// A lease of this length, by a command that was sent at `sent` and has been acknowledged since.
    pub const fn new(length: Duration, sent: Duration) -> Self {
        Self { length, sent }
    }

    /// A heartbeat that was sent at `sent` has been acknowledged.
    pub fn renewed(&mut self, sent: Duration) {
        self.sent = self.sent.max(sent);
    }

    /// When the next heartbeat is to be sent.
    pub fn next_heartbeat(&self) -> Duration {
        self.sent.saturating_add(self.length / limits::HEARTBEATS_PER_LEASE)
    }

    /// Until when a side effect may be started: the end of the lease less a margin.
    pub fn safe_until(&self) -> Duration {
        self.sent.saturating_add(self.length.saturating_sub(self.length / limits::LEASE_MARGIN_PART))
    }

    /// Whether a side effect may be started at `now`.
    pub fn is_safe(&self, now: Duration) -> bool {
        now < self.safe_until()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn it_counts_from_before_the_command_was_sent_and_leaves_a_margin() {
        let lease = Lease::new(ms(3_000), ms(100));
        assert_eq!(lease.next_heartbeat(), ms(1_100));
        assert_eq!(lease.safe_until(), ms(2_800));
        assert!(lease.is_safe(ms(2_799)));
        assert!(!lease.is_safe(ms(2_800)));
    }

    #[test]
    fn two_lost_heartbeats_do_not_lose_the_lease_and_a_late_answer_does_not_shorten_it() {
        let mut lease = Lease::new(ms(3_000), ms(0));
        assert!(
            lease.is_safe(ms(2_600)),
            "the third heartbeat, due at 3 × 1,000 less what is left, is in time"
        );
        lease.renewed(ms(1_000));
        lease.renewed(ms(500));
        assert_eq!(lease.safe_until(), ms(3_700));
    }
}
