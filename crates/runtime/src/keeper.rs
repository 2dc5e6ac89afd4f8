//! Keeps a lease while the work of its claim runs, and tells the work when it is lost.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_util::poll;
use semel_core::command::Held;
use semel_core::id::Holder;
use semel_core::lease::Lease;
use tokio::time::{Instant, sleep_until};

use crate::Runtime;

/// A claim's lease as its holder counts it.
#[derive(Debug)]
pub struct Keeper<'a> {
    runtime: &'a Runtime,
    holder: Holder,
    lease: Lease,
    began: Instant,
}

/// How the work ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended<T> {
    /// By itself.
    Done(T),
    /// Its time was up.
    TimedOut,
    /// It was given up: the process goes down.
    GivenUp,
}

impl<'a> Keeper<'a> {
    /// Keeps the lease, of this length, of a claim that was asked for at `sent`.
    pub const fn new(runtime: &'a Runtime, holder: Holder, length: Duration, sent: Instant) -> Self {
        Self { runtime, holder, lease: Lease::new(length, Duration::ZERO), began: sent }
    }

    /// Runs `work` to its end, for `time` at most, renewing the lease meanwhile. When the lease is not safe any more,
    /// `lost` is called, and the work is to begin nothing further; it may still end. Work that is ready at once costs
    /// no timer. The heartbeats end with the work or its time, whichever is first, so none can renew for ever.
    ///
    /// # Cancellation
    /// Ends the work and its heartbeats: run it in a [`Detached`](crate::Detached).
    pub async fn during<W: Future>(self, work: W, time: Duration, lost: impl FnOnce()) -> Ended<W::Output> {
        let mut work = pin!(work);
        if let Poll::Ready(done) = poll!(&mut work) {
            return Ended::Done(done);
        }
        // On the heap, so that work that is ready at once does not carry the timers' room about.
        Box::pin(self.watching(work, Instant::now() + time, lost)).await
    }

    async fn watching<W: Future>(
        self,
        work: Pin<&mut W>,
        deadline: Instant,
        lost: impl FnOnce(),
    ) -> Ended<W::Output> {
        let runtime = self.runtime;
        tokio::select! {
            biased;
            done = work => Ended::Done(done),
            () = sleep_until(deadline) => Ended::TimedOut,
            () = runtime.giving_up.cancelled() => Ended::GivenUp,
            never = self.renew(lost) => match never {},
        }
    }

    async fn renew(mut self, lost: impl FnOnce()) -> Infallible {
        let mut next = self.lease.next_heartbeat();
        while self.lease.is_safe(self.began.elapsed()) {
            sleep_until(self.began + next).await;
            let sent = self.began.elapsed();
            let extended = self.runtime.ledger.extend(self.holder);
            // An answer that takes longer than the lease is as good as none.
            match tokio::time::timeout_at(self.began + self.lease.safe_until(), extended).await {
                Ok(Ok(Held::Done(_))) => self.lease.renewed(sent),
                Ok(Ok(Held::Fenced(_) | Held::Illegal(..))) => break,
                Ok(Err(error)) => self.runtime.watch.heartbeat_failed(&error),
                Err(_) => self.runtime.watch.heartbeat_unanswered(),
            }
            // After a failure, sooner than a whole third: the lease runs on.
            next = self.lease.next_heartbeat().max(self.began.elapsed() + self.retry_pause());
        }
        tracing::warn!(record_id = %self.holder.id, "a lease was lost while its work ran");
        lost();
        std::future::pending().await
    }

    fn retry_pause(&self) -> Duration {
        let left = self.lease.safe_until().saturating_sub(self.began.elapsed());
        left / 8
    }
}
