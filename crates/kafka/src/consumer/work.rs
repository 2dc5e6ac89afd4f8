//! The tasks: messages of one key one after the other, all others at once, within a bound.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use bytes::Bytes;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::bury::Undertaker;
use crate::dead_letter::DeadLetter;
use crate::deliver::{Deliver, Delivered, Turn};
use crate::limits;
use crate::message::Message;
use crate::observe::{Observer, What};
use crate::offsets::{Place, Ticket};
use crate::pause::Pause;

/// What every task needs.
pub(super) struct Work {
    pub(super) deliver: Arc<dyn Deliver>,
    pub(super) undertaker: Undertaker,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) group: String,
    pub(super) places: Arc<Semaphore>,
    pub(super) runtime: Handle,
}

/// A partition under one assignment, as its tasks know it.
pub(super) struct Shift {
    pub(super) place: Place,
    pub(super) turn: Turn,
    /// Messages that were taken and have not come back, done or given up.
    open: AtomicUsize,
    /// Messages that wait for one of their key.
    lanes: Mutex<HashMap<Bytes, VecDeque<Item>>>,
}

/// A message, and its place in the books.
pub(super) struct Item {
    pub(super) message: Arc<Message>,
    pub(super) ticket: Ticket,
}

/// A message that has come back.
pub(super) struct Back {
    pub(super) place: Place,
    pub(super) ticket: Ticket,
    /// Whether it is done; else it was given up.
    pub(super) is_done: bool,
}

impl Shift {
    pub(super) fn new(place: Place, turn: Turn) -> Self {
        Self { place, turn, open: AtomicUsize::new(0), lanes: Mutex::default() }
    }

    /// How many of its messages have not come back.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// The next message of this key; none, and the lane is closed.
    fn next(&self, key: &Bytes) -> Option<Item> {
        let mut lanes = self.lanes.lock();
        let next = lanes.get_mut(key)?.pop_front();
        if next.is_none() {
            lanes.remove(key);
        }
        next
    }
}

impl Work {
    /// Takes a message on.
    pub(super) fn take(self: &Arc<Self>, shift: &Arc<Shift>, item: Item, back: &Sender<Back>) {
        shift.open.fetch_add(1, Ordering::AcqRel);
        let key = item.message.key.clone();
        if let Some(key) = &key {
            let mut lanes = shift.lanes.lock();
            if let Some(lane) = lanes.get_mut(key) {
                lane.push_back(item);
                return;
            }
            lanes.insert(key.clone(), VecDeque::new());
        }
        let (work, shift, back) = (Arc::clone(self), Arc::clone(shift), back.clone());
        self.runtime.spawn(async move {
            let mut item = item;
            loop {
                work.one(&shift, item, &back).await;
                match key.as_ref().and_then(|key| shift.next(key)) {
                    Some(next) => item = next,
                    None => return,
                }
            }
        });
    }

    async fn one(&self, shift: &Shift, item: Item, back: &Sender<Back>) {
        let turn = &shift.turn.of_a_message();
        turn.enter().await;
        let delivered = self.deliver(&item.message, turn).await;
        let what = match delivered {
            Delivered::Handled => What::Handled,
            Delivered::Duplicate => What::Duplicate,
            Delivered::DeadLetter(letter) => self.bury(&item.message, &letter, turn).await,
            Delivered::GivenUp => What::GivenUp,
        };
        turn.leave();
        self.observer.happened(&shift.place.topic, &self.group, what);
        let is_done = what != What::GivenUp;
        // Counted before it is told, so that whoever is told and counts finds it gone.
        shift.open.fetch_sub(1, Ordering::AcqRel);
        let told = back.send(Back { place: shift.place.clone(), ticket: item.ticket, is_done });
        // Nobody listens once the consumer is gone: then nothing is committed, either.
        drop(told);
    }

    /// Has a message seen to its end. Whoever sees to it may panic: nothing is known of the message then.
    async fn deliver(&self, message: &Arc<Message>, turn: &Turn) -> Delivered {
        let mut pause = Pause::new(limits::OUTAGE_PAUSE_FIRST, limits::OUTAGE_PAUSE_MAX);
        loop {
            if turn.is_over() {
                return Delivered::GivenUp;
            }
            let delivered = AssertUnwindSafe(self.deliver.deliver(message, turn)).catch_unwind().await;
            if let Ok(delivered) = delivered {
                return delivered;
            }
            tracing::error!(
                topic = &*message.topic,
                partition = message.partition,
                offset = message.offset,
                "what sees to messages has panicked over one: it is tried again"
            );
            if turn.wait(sleep(pause.next())).await.is_none() {
                return Delivered::GivenUp;
            }
        }
    }

    /// Puts a message aside, however often that takes, as long as it is this consumer's.
    async fn bury(&self, message: &Arc<Message>, letter: &DeadLetter, turn: &Turn) -> What {
        let mut pause = Pause::new(limits::OUTAGE_PAUSE_FIRST, limits::OUTAGE_PAUSE_MAX);
        loop {
            let Err(error) = self.undertaker.bury(message, letter).await else {
                tracing::warn!(
                    topic = &*message.topic,
                    partition = message.partition,
                    offset = message.offset,
                    consumer_group = self.group,
                    reason = letter.reason.as_str(),
                    error = letter.error,
                    attempts = letter.attempts,
                    "a message was put into the dead letter topic"
                );
                return What::DeadLettered(letter.reason);
            };
            tracing::error!(
                topic = &*message.topic,
                partition = message.partition,
                offset = message.offset,
                consumer_group = self.group,
                error,
                "a dead letter was not acknowledged: it is sent again, and nothing behind it is committed"
            );
            self.observer.happened(&message.topic, &self.group, What::NotDeadLettered);
            if turn.wait(sleep(pause.next())).await.is_none() {
                return What::GivenUp;
            }
        }
    }
}
