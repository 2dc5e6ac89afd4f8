//! Keeps a lease while the work of its claim runs, and tells the work when it is lost.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::poll;
use semel_core::command::Held;
use semel_core::id::Holder;
use semel_core::lease::Lease;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Engine;

/// A claim's lease as its holder counts it, and the word that it is lost.
pub(super) struct Keeper {
    holder: Holder,
    lease: Lease,
    began: Instant,
    /// Cancelled when no further side effect may be started.
    pub(super) lost: CancellationToken,
}

impl Keeper {
    /// Keeps the lease of a claim that was asked for at `sent`.
    pub(super) fn new(holder: Holder, length: Duration, sent: Instant) -> Self {
        Self {
            holder,
            lease: Lease::new(length, Duration::ZERO),
            began: sent,
            lost: CancellationToken::new(),
        }
    }

    /// Runs `work` to its end, renewing the lease meanwhile. Work that is ready at once costs no timer. The work
    /// bounds the heartbeats: they end with it, so none can renew for ever. `None` when the engine gave it up.
    pub(super) async fn during<W: Future>(&mut self, engine: &Engine, work: W) -> Option<W::Output> {
        let mut work = pin!(work);
        if let std::task::Poll::Ready(done) = poll!(&mut work) {
            return Some(done);
        }
        let mut next = self.lease.next_heartbeat();
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = engine.0.giving_up.cancelled() => return None,
                () = tokio::time::sleep_until(self.began + next) => {}
            }
            let sent = self.began.elapsed();
            let extended = engine.0.ledger.extend(self.holder);
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = engine.0.giving_up.cancelled() => return None,
                // An answer that takes longer than the lease is as good as none.
                answer = tokio::time::timeout_at(self.began + self.lease.safe_until(), extended) => match answer {
                    Ok(Ok(Held::Done(_))) => self.lease.renewed(sent),
                    Ok(Ok(Held::Fenced(_) | Held::Illegal(..))) => self.lost.cancel(),
                    Ok(Err(error)) => engine.0.events.heartbeat_failed(&error),
                    Err(_) => {}
                },
            }
            if self.lost.is_cancelled() || !self.lease.is_safe(self.began.elapsed()) {
                self.lost.cancel();
                return tokio::select! {
                    biased;
                    done = &mut work => Some(done),
                    () = engine.0.giving_up.cancelled() => None,
                };
            }
            // After a failure, sooner than a whole third: the lease runs on.
            next = self.lease.next_heartbeat().max(self.began.elapsed() + self.retry_pause());
        }
    }

    fn retry_pause(&self) -> Duration {
        let left = self.lease.safe_until().saturating_sub(self.began.elapsed());
        left / 8
    }
}
