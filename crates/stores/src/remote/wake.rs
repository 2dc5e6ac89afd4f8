//! Waiters of this node: who waits for a record, and who waits for something to become due.
//!
//! Writes of this node wake them at once. Of other nodes' writes they hear by a notification, or by
//! looking from time to time.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use semel_core::{Record, RecordId, Timestamp};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::clock::Clock;
use crate::limits;

/// What a wait ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Something has happened.
    Told,
    /// Nobody has said anything for a while.
    TimeToLook,
    /// The patience is over.
    OutOfPatience,
}

/// The waiters.
pub(crate) struct Waiters {
    changed: [Notify; limits::REMOTE_WAIT_PLACES],
    due_changed: Notify,
    due: Mutex<Due>,
    out: Option<Out>,
}

/// What other nodes have yet to be told.
struct Out {
    news: Mutex<News>,
    some: Notify,
}

/// Something for the other nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) changed: VecDeque<RecordId>,
    pub(crate) due: bool,
}

#[derive(Default)]
struct Due {
    /// Something may be due earlier than the last answer to `next_due` said, and nobody has been told.
    earlier: bool,
    /// What is earlier than this is worth a word.
    earliest: Option<Timestamp>,
    /// The lanes, each with its earliest, as they were shown last.
    shown: Vec<(String, i64)>,
}

impl Waiters {
    pub(crate) fn new(tells_others: bool) -> Self {
        let out = tells_others.then(|| Out { news: Mutex::default(), some: Notify::new() });
        Self {
            changed: std::array::from_fn(|_| Notify::new()),
            due_changed: Notify::new(),
            due: Mutex::default(),
            out,
        }
    }

    /// Whoever waits for this record, from now on.
    pub(crate) fn of(&self, id: RecordId) -> &Notify {
        // The id is a digest, so any part of it spreads.
        &self.changed[usize::from(id.as_bytes()[0]) % limits::REMOTE_WAIT_PLACES]
    }

    /// A record has another version, or is gone, by this node.
    pub(crate) fn changed(&self, id: RecordId) {
        self.of(id).notify_waiters();
        if let Some(out) = &self.out {
            let mut news = out.news.lock();
            if news.changed.len() < limits::REMOTE_NEWS_QUEUE {
                news.changed.push_back(id);
            }
            out.some.notify_one();
        }
    }

    /// This node has written a version that is or becomes due.
    pub(crate) fn written(&self, record: &Record, as_of: Timestamp) {
        let Some(at) = record.due() else { return };
        {
            let mut due = self.due.lock();
            if at > as_of && due.earliest.is_some_and(|earliest| at >= earliest) {
                return;
            }
            due.earliest = Some(due.earliest.map_or(at, |earliest| earliest.min(at)));
            due.earlier = true;
        }
        self.due_changed.notify_waiters();
        if let Some(out) = &self.out {
            out.news.lock().due = true;
            out.some.notify_one();
        }
    }

    /// Somebody begins to ask what is due next: whatever is written from now on may be earlier.
    pub(crate) fn ask_next_due(&self) {
        let mut due = self.due.lock();
        due.earlier = false;
        due.earliest = None;
    }

    /// This is what they were told. What is due already says nothing of what comes next: a lane that nobody empties must
    /// not hide what comes into another.
    pub(crate) fn told_next_due(&self, lanes: Vec<(String, i64)>, next: Option<Timestamp>, as_of: Timestamp) {
        let mut due = self.due.lock();
        due.shown = lanes;
        let next = next.filter(|next| *next > as_of);
        due.earliest = [due.earliest, next].into_iter().flatten().min();
    }

    /// Whether these lanes have something that nobody was shown: earlier than before, or due now.
    pub(crate) fn is_news(&self, lanes: &[(String, i64)], as_of: i64) -> bool {
        let due = self.due.lock();
        lanes.iter().any(|(lane, wake)| {
            let shown = due.shown.iter().find(|(shown, _)| shown == lane).map(|(_, wake)| *wake);
            shown.is_none_or(|shown| *wake < shown || (*wake != shown && *wake <= as_of))
        })
    }

    /// Whether something was written meanwhile that is due earlier; asks once.
    pub(crate) fn take_earlier(&self) -> bool {
        std::mem::take(&mut self.due.lock().earlier)
    }

    pub(crate) fn due_changed(&self) -> Notified<'_> {
        self.due_changed.notified()
    }

    /// Another node has written something that is due.
    pub(crate) fn due_elsewhere(&self) {
        self.due.lock().earlier = true;
        self.due_changed.notify_waiters();
    }

    /// Nobody knows what was missed.
    pub(crate) fn all(&self) {
        self.changed.iter().for_each(Notify::notify_waiters);
        self.due_elsewhere();
    }

    /// What other nodes have to be told, once there is some.
    #[cfg(feature = "postgres")]
    pub(crate) async fn news(&self) -> News {
        let Some(out) = &self.out else { return std::future::pending().await };
        loop {
            let news = std::mem::take(&mut *out.news.lock());
            if news != News::default() {
                return news;
            }
            out.some.notified().await;
        }
    }
}

/// Waits for `woken`, for the patience by the store's clock, or until it is time to look.
pub(crate) async fn wait(
    clock: &dyn Clock,
    patience: Duration,
    look: Duration,
    woken: impl Future<Output = ()>,
) -> Woken {
    let (mut woken, mut look) = (pin!(woken), pin!(tokio::time::sleep(look)));
    let mut patience = clock.sleep_until(clock.elapsed().saturating_add(patience));
    std::future::poll_fn(|cx| {
        if woken.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Woken::Told);
        }
        if patience.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Woken::OutOfPatience);
        }
        look.as_mut().poll(cx).map(|()| Woken::TimeToLook)
    })
    .await
}
