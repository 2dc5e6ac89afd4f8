//! Whether an address is well: what requests show, and what it says when it is asked.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::gateway::HealthConfig;

/// What is known of one address.
pub(super) struct Health {
    fall: u32,
    rise: u32,
    rest: Duration,
    /// Connections in a row that could not be made.
    unconnected: AtomicU32,
    /// Until when it rests. `rests` says whether that is worth looking at.
    rests_until: Mutex<Option<Instant>>,
    rests: AtomicBool,
    /// What it says when it is asked; well, where it is not.
    says_well: AtomicBool,
    /// Answers in a row that speak against that.
    against: AtomicU32,
}

impl Health {
    pub(super) fn new(config: &HealthConfig) -> Self {
        Self {
            fall: config.fall,
            rise: config.rise,
            rest: config.rest,
            unconnected: AtomicU32::new(0),
            rests_until: Mutex::new(None),
            rests: AtomicBool::new(false),
            says_well: AtomicBool::new(true),
            against: AtomicU32::new(0),
        }
    }

    /// Whether requests should go there.
    pub(super) fn is_well(&self) -> bool {
        if !self.says_well.load(Ordering::Relaxed) {
            return false;
        }
        if !self.rests.load(Ordering::Relaxed) {
            return true;
        }
        let until = *self.rests_until.lock();
        until.is_none_or(|until| until <= Instant::now())
    }

    /// A connection was made.
    pub(super) fn could_connect(&self) {
        if self.unconnected.swap(0, Ordering::Relaxed) > 0 {
            self.rests.store(false, Ordering::Relaxed);
            *self.rests_until.lock() = None;
        }
    }

    /// A connection could not be made; after some of them the address rests.
    pub(super) fn could_not_connect(&self, name: &str) {
        let times = self.unconnected.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if times < self.fall {
            return;
        }
        *self.rests_until.lock() = Some(Instant::now() + self.rest);
        if !self.rests.swap(true, Ordering::Relaxed) {
            tracing::warn!(upstream = name, "an upstream cannot be connected to, and rests");
        }
    }

    /// It was asked, and this is its answer.
    pub(super) fn said(&self, name: &str, well: bool) {
        let before = self.says_well.load(Ordering::Relaxed);
        if well == before {
            self.against.store(0, Ordering::Relaxed);
            return;
        }
        let needed = if well { self.rise } else { self.fall };
        if self.against.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= needed {
            self.against.store(0, Ordering::Relaxed);
            self.says_well.store(well, Ordering::Relaxed);
            if well {
                tracing::info!(upstream = name, "an upstream says that it is well again");
            } else {
                tracing::warn!(upstream = name, "an upstream does not say any more that it is well");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health::new(&HealthConfig {
            path: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            fall: 3,
            rise: 2,
            rest: Duration::from_secs(10),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_rests_after_some_failures_in_a_row_and_is_tried_again() {
        let health = health();
        for _ in 0..2 {
            health.could_not_connect("a");
        }
        health.could_connect();
        for _ in 0..2 {
            health.could_not_connect("a");
        }
        assert!(health.is_well(), "never three in a row");
        health.could_not_connect("a");
        assert!(!health.is_well());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(health.is_well(), "it is tried again");
        health.could_not_connect("a");
        assert!(!health.is_well(), "one failure is enough now");
        health.could_connect();
        assert!(health.is_well());
    }

    #[test]
    fn what_an_address_says_counts_when_it_says_it_some_times_in_a_row() {
        let health = health();
        for well in [false, false, true, false, false] {
            health.said("a", well);
            assert!(health.is_well());
        }
        health.said("a", false);
        assert!(!health.is_well());
        for well in [true, false, true] {
            health.said("a", well);
            assert!(!health.is_well());
        }
        health.said("a", true);
        assert!(health.is_well());
    }
}
