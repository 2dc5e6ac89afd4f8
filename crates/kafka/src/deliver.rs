//! What a consumer hands its messages to, and what it is told.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::dead_letter::DeadLetter;
use crate::message::Message;

/// What became of a message. In all but the last case it is done, and may be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It was handled, and that is durable.
    Handled,
    /// It had been handled before.
    Duplicate,
    /// It is to be put into the dead letter topic, and is done once that has acknowledged it.
    DeadLetter(DeadLetter),
    /// Its turn ended before anything was certain: it is not done, and whoever has its partition next begins with it.
    GivenUp,
}

/// What [`Deliver::deliver`] returns.
pub type Delivering<'a> = Pin<Box<dyn Future<Output = Delivered> + Send + 'a>>;

/// What a consumer hands its messages to.
pub trait Deliver: Send + Sync + 'static {
    /// The topics whose messages it wants.
    fn topics(&self) -> &[String];

    /// The consumer group in which it does.
    fn group(&self) -> &str;

    /// Sees a message to its end. It is called for several messages at once, of one key for one after the other. A store
    /// or a target that does not answer is waited for, while the turn lasts: nothing is given up for it, and nothing
    /// done without it.
    ///
    /// # Cancellation
    /// A consumer never drops it before its end.
    fn deliver<'a>(&'a self, message: &'a Arc<Message>, turn: &'a Turn) -> Delivering<'a>;
}

/// The time in which a message is this consumer's: until its partition is revoked, or the consumer stops.
#[derive(Debug)]
pub struct Turn {
    over: CancellationToken,
    /// How many messages of the partition wait.
    waiting: Arc<AtomicUsize>,
    /// Places for what is at work; none where that is not bounded.
    places: Option<Arc<Semaphore>>,
    /// Whether this message has one of them.
    has_place: AtomicBool,
}

impl Turn {
    /// A turn that nobody ends.
    pub fn unbounded() -> Self {
        Self {
            over: CancellationToken::new(),
            waiting: Arc::default(),
            places: None,
            has_place: AtomicBool::new(false),
        }
    }

    /// The turn of a partition, which ends when `over` is cancelled, with this many places for what is at work.
    pub fn until(over: CancellationToken, places: Arc<Semaphore>) -> Self {
        Self { over, places: Some(places), ..Self::unbounded() }
    }

    /// The same for one message of it.
    #[must_use]
    pub fn of_a_message(&self) -> Self {
        Self {
            over: self.over.clone(),
            waiting: Arc::clone(&self.waiting),
            places: self.places.clone(),
            has_place: AtomicBool::new(false),
        }
    }

    /// Cancelled when the turn is over: nothing further is to begin. What has begun may end, under its lease.
    pub const fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Waits for `what`, or for the end of the turn (`None`). Meanwhile the partition is paused, and others work in the
    /// place of this message.
    pub async fn wait<F: Future>(&self, what: F) -> Option<F::Output> {
        let had_place = self.leave();
        let waiting = Waiting::begin(&self.waiting);
        let seen = tokio::select! {
            biased;
            () = self.over.cancelled() => None,
            seen = what => Some(seen),
        };
        drop(waiting);
        if had_place {
            self.enter().await;
        }
        seen
    }

    /// How many messages of the partition wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Takes a place, when one is free, unless the turn is over before.
    pub(crate) async fn enter(&self) {
        let Some(places) = &self.places else { return };
        tokio::select! {
            biased;
            () = self.over.cancelled() => {}
            place = places.acquire() => {
                if let Ok(place) = place {
                    place.forget();
                    self.has_place.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    /// Gives the place back; whether there was one.
    pub(crate) fn leave(&self) -> bool {
        let had = self.has_place.swap(false, Ordering::Relaxed);
        if let Some(places) = self.places.as_ref().filter(|_| had) {
            places.add_permits(1);
        }
        had
    }
}

/// Counts a message that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_leaves_its_place_to_others_and_takes_one_again() {
        let places = Arc::new(Semaphore::new(1));
        let turn = Turn::until(CancellationToken::new(), Arc::clone(&places));
        turn.enter().await;
        assert_eq!((places.available_permits(), turn.waiting()), (0, 0));
        let seen = turn.wait(async { (places.available_permits(), turn.waiting()) }).await;
        assert_eq!(seen, Some((1, 1)));
        assert_eq!((places.available_permits(), turn.waiting()), (0, 0));
        turn.leave();
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test]
    async fn the_end_of_the_turn_ends_every_wait_and_leaves_no_place_behind() {
        let (over, places) = (CancellationToken::new(), Arc::new(Semaphore::new(1)));
        let partition = Turn::until(over.clone(), Arc::clone(&places));
        let (first, second) = (partition.of_a_message(), partition.of_a_message());
        first.enter().await;
        over.cancel();
        // There is no place for it, and it does not wait for one.
        second.enter().await;
        assert!(!second.leave());
        assert_eq!(first.wait(std::future::pending::<()>()).await, None);
        first.leave();
        assert!(first.is_over() && partition.waiting() == 0);
        assert_eq!(places.available_permits(), 1);
    }
}
