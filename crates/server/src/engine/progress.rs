//! How far an attempt's work has come, between the work and those who watch over it. They share one task, so what
//! one says the other sees at its next step.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// How far it has come, and whether it may go on.
#[derive(Debug, Default)]
pub(super) struct Progress {
    begun: AtomicBool,
    stop: AtomicBool,
    stopped: Notify,
}

/// The work may start no side effect any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopped;

impl Progress {
    /// The work is about to start a side effect: from now on it may have happened.
    pub(super) fn begin(&self) -> Result<(), Stopped> {
        if self.stop.load(Ordering::Acquire) {
            return Err(Stopped);
        }
        self.begun.store(true, Ordering::Release);
        Ok(())
    }

    /// What was about to start is known not to have.
    pub(super) fn take_back(&self) {
        self.begun.store(false, Ordering::Release);
    }

    /// Whether a side effect may have started.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// The lease is not safe any more: nothing further may start.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.stopped.notify_waiters();
    }

    /// Waits until nothing further may start.
    pub(super) async fn stopped(&self) {
        let mut stopped = pin!(self.stopped.notified());
        stopped.as_mut().enable();
        if !self.stop.load(Ordering::Acquire) {
            stopped.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_stopped_begins_nothing_and_whoever_waits_is_told() {
        let progress = Progress::default();
        assert_eq!(progress.begin(), Ok(()));
        tokio::join!(progress.stopped(), async { progress.stop() });
        progress.stopped().await;
        assert_eq!(progress.begin(), Err(Stopped));
        assert!(progress.has_begun(), "what has begun stays so");
    }
}
