//! Keeps a lease while the work of its claim runs, and tells the work when it is lost.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::poll;
use semel_core::command::Held;
use semel_core::id::Holder;
use semel_core::lease::Lease;
use tokio::time::{Instant, sleep_until};

use super::Engine;
use super::progress::Progress;

/// A claim's lease as its holder counts it.
pub(super) struct Keeper<'a> {
    engine: &'a Engine,
    holder: Holder,
    lease: Lease,
    began: Instant,
    progress: &'a Progress,
}

/// How the work ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended<T> {
    /// By itself.
    Done(T),
    /// Its time was up.
    TimedOut,
    /// The engine gave it up.
    GivenUp,
}

impl<'a> Keeper<'a> {
    /// Keeps the lease of a claim that was asked for at `sent`. When the lease is not safe any more, `progress` lets
    /// nothing further begin.
    pub(super) fn new(
        engine: &'a Engine,
        holder: Holder,
        length: Duration,
        sent: Instant,
        progress: &'a Progress,
    ) -> Self {
        Self { engine, holder, lease: Lease::new(length, Duration::ZERO), began: sent, progress }
    }

    /// Runs `work` to its end, for `time` at most, renewing the lease meanwhile. Work that is ready at once costs no
    /// timer. The heartbeats end with the work or its time, whichever is first, so none can renew for ever.
    pub(super) async fn during<W: Future>(self, work: W, time: Duration) -> Ended<W::Output> {
        let mut work = pin!(work);
        if let std::task::Poll::Ready(done) = poll!(&mut work) {
            return Ended::Done(done);
        }
        let engine = self.engine;
        let deadline = Instant::now() + time;
        tokio::select! {
            biased;
            done = &mut work => Ended::Done(done),
            () = sleep_until(deadline) => Ended::TimedOut,
            () = engine.0.giving_up.cancelled() => Ended::GivenUp,
            never = self.renew() => match never {},
        }
    }

    async fn renew(mut self) -> std::convert::Infallible {
        let mut next = self.lease.next_heartbeat();
        while self.lease.is_safe(self.began.elapsed()) {
            sleep_until(self.began + next).await;
            let sent = self.began.elapsed();
            let extended = self.engine.0.ledger.extend(self.holder);
            // An answer that takes longer than the lease is as good as none.
            match tokio::time::timeout_at(self.began + self.lease.safe_until(), extended).await {
                Ok(Ok(Held::Done(_))) => self.lease.renewed(sent),
                Ok(Ok(Held::Fenced(_) | Held::Illegal(..))) => break,
                Ok(Err(error)) => self.engine.0.events.heartbeat_failed(&error),
                Err(_) => {}
            }
            // After a failure, sooner than a whole third: the lease runs on.
            next = self.lease.next_heartbeat().max(self.began.elapsed() + self.retry_pause());
        }
        tracing::warn!(record_id = %self.holder.id, "a lease was lost while its work ran");
        self.progress.stop();
        std::future::pending().await
    }

    fn retry_pause(&self) -> Duration {
        let left = self.lease.safe_until().saturating_sub(self.began.elapsed());
        left / 8
    }
}
