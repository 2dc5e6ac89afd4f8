//! What a store in this process reads its time from: the system's clock, or one that goes when a test tells it to.
//!
//! A wall clock steps, so a store looks at it once, when it opens. From then on its time is that reading, or the
//! persisted high-water mark if that is later, plus what a monotonic clock says has passed: a step neither lapses
//! live leases nor keeps dead ones.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use semel_core::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

/// A pause; ends by itself.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// What the wall clock says. It may step, in both directions.
    fn wall(&self) -> Timestamp;

    /// How long the clock has been going. Never goes back.
    fn elapsed(&self) -> Duration;

    /// Ends once [`elapsed`](Clock::elapsed) has come to `until`.
    fn sleep_until(&self, until: Duration) -> Sleep;
}

/// The system's clock. Under a paused tokio runtime it pauses, too.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// The system's clock, going from now on.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock, once per store"
    )]
    fn wall(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp::ZERO.plus(since_epoch.unwrap_or_default())
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep_until(&self, until: Duration) -> Sleep {
        Box::pin(tokio::time::sleep_until(self.started + until))
    }
}

/// A clock that goes when it is told to; its clones are the same clock.
#[derive(Clone, Debug)]
pub struct SteppedClock {
    now: Arc<watch::Sender<Reading>>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    wall: Timestamp,
    elapsed: Duration,
}

impl SteppedClock {
    /// A clock that stands, and whose wall clock shows `wall`.
    pub fn at(wall: Timestamp) -> Self {
        Self { now: Arc::new(watch::Sender::new(Reading { wall, elapsed: Duration::ZERO })) }
    }

    /// Time goes on by `length`.
    pub fn advance(&self, length: Duration) {
        self.now.send_modify(|now| {
            now.wall = now.wall.plus(length);
            now.elapsed = now.elapsed.saturating_add(length);
        });
    }

    /// Somebody sets the wall clock; no time passes.
    pub fn set_wall(&self, wall: Timestamp) {
        self.now.send_modify(|now| now.wall = wall);
    }
}

impl Clock for SteppedClock {
    fn wall(&self) -> Timestamp {
        self.now.borrow().wall
    }

    fn elapsed(&self) -> Duration {
        self.now.borrow().elapsed
    }

    fn sleep_until(&self, until: Duration) -> Sleep {
        let mut now = self.now.subscribe();
        Box::pin(async move {
            // The clock itself is gone, so its time has ended: nobody is left to be woken early.
            let _ = now.wait_for(|now| now.elapsed >= until).await;
        })
    }
}

/// A store's time: never goes back, whatever the wall clock does.
#[derive(Clone)]
pub struct StoreTime {
    clock: Arc<dyn Clock>,
    opened: Timestamp,
    opened_at: Duration,
}

impl std::fmt::Debug for StoreTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreTime").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl StoreTime {
    /// The time of a store that opens now and has once said `high_water`.
    pub fn open(clock: Arc<dyn Clock>, high_water: Timestamp) -> Self {
        let opened = clock.wall().max(high_water);
        let opened_at = clock.elapsed();
        Self { clock, opened, opened_at }
    }

    /// The store's time.
    pub fn now(&self) -> Timestamp {
        self.opened.plus(self.clock.elapsed().saturating_sub(self.opened_at))
    }

    /// Waits for `woken`, for `patience` at most; whether it came.
    pub async fn wait(&self, patience: Duration, woken: impl Future<Output = ()>) -> bool {
        let mut woken = pin!(woken);
        let mut patience = self.clock.sleep_until(self.clock.elapsed().saturating_add(patience));
        std::future::poll_fn(|cx| {
            if woken.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            patience.as_mut().poll(cx).map(|()| false)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stepped_wall_clock_neither_lapses_nor_keeps_anything() {
        let clock = SteppedClock::at(Timestamp::from_millis(1_000_000));
        let time = StoreTime::open(Arc::new(clock.clone()), Timestamp::ZERO);
        let opened = time.now();
        clock.set_wall(opened.plus(Duration::from_secs(600)));
        assert_eq!(time.now(), opened);
        clock.set_wall(Timestamp::ZERO);
        clock.advance(Duration::from_millis(7));
        assert_eq!(time.now(), opened.plus(Duration::from_millis(7)));
    }

    #[test]
    fn a_wall_clock_that_was_set_back_while_the_store_was_closed_does_not_set_back_its_time() {
        let clock = SteppedClock::at(Timestamp::from_millis(500));
        let time = StoreTime::open(Arc::new(clock), Timestamp::from_millis(900));
        assert_eq!(time.now(), Timestamp::from_millis(900));
    }

    #[tokio::test]
    async fn a_wait_ends_with_its_patience_or_with_what_it_waits_for() {
        let clock = SteppedClock::at(Timestamp::ZERO);
        let time = StoreTime::open(Arc::new(clock.clone()), Timestamp::ZERO);
        assert!(time.wait(Duration::from_secs(1), std::future::ready(())).await);
        let waiting =
            tokio::spawn(async move { time.wait(Duration::from_secs(1), std::future::pending()).await });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(1));
        assert!(!waiting.await.unwrap());
    }

    #[test]
    fn a_patience_without_end_does_not_overflow() {
        let clock = SteppedClock::at(Timestamp::ZERO);
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.elapsed().saturating_add(Duration::MAX), Duration::MAX);
    }
}
