//! What writers wait for: the fate of the batch that their record is in.
//!
//! A batch is woken from one task inside the runtime (see [`relay`](super::relay)), so that waking a writer is a push to the queue of that
//! worker and not a call into the kernel for each.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not known yet.
    Open = 0,
    /// Synced and visible.
    Durable = 1,
    /// Handed to the disk, and the disk failed.
    InDoubt = 2,
    /// Never handed to the disk.
    NotApplied = 3,
}

/// What is synced together.
#[derive(Default)]
pub(crate) struct Batch {
    fate: AtomicU8,
    waiting: Mutex<Vec<Waker>>,
}

impl Batch {
    pub(crate) fn fate(&self) -> Fate {
        match self.fate.load(Ordering::Acquire) {
            0 => Fate::Open,
            1 => Fate::Durable,
            2 => Fate::InDoubt,
            _ => Fate::NotApplied,
        }
    }

    /// Tells everybody who waits. Only the first call counts.
    pub(crate) fn settle(&self, fate: Fate) {
        let open = Fate::Open as u8;
        if self.fate.compare_exchange(open, fate as u8, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The fate, once it is known.
    pub(crate) fn settled(self: &Arc<Self>) -> Settled {
        Settled { batch: Arc::clone(self), seat: None }
    }
}

/// The future of [`Batch::settled`].
pub(crate) struct Settled {
    batch: Arc<Batch>,
    seat: Option<usize>,
}

impl Future for Settled {
    type Output = Fate;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Fate> {
        let fate = self.batch.fate();
        if fate != Fate::Open {
            return Poll::Ready(fate);
        }
        let batch = Arc::clone(&self.batch);
        let mut waiting = batch.waiting.lock();
        // `settle` takes the list after it has set the fate, so a waker that is pushed now is woken.
        let fate = batch.fate();
        if fate != Fate::Open {
            return Poll::Ready(fate);
        }
        if let Some(waker) = self.seat.and_then(|seat| waiting.get_mut(seat)) {
            waker.clone_from(context.waker());
        } else {
            self.seat = Some(waiting.len());
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}
